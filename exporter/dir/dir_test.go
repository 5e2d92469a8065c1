package dir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"datasync/exporter/lane"
)

const key = "tenant=acme/sink=lake/dt=2026-01-01/hour=00/acme.lake.edge-0-abc123.000000000001.ndjson"

func drop(key, body string) *lane.Drop {
	return &lane.Drop{Key: key, ID: "abc123/edge-0/acme/lake/1", Body: strings.NewReader(body), Size: int64(len(body)), SHA256: sha256.Sum256([]byte(body))}
}

// objects are the files below root that a reader sees, by key.
func objects(t testing.TB, root string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == tmp {
				return fs.SkipDir
			}
			return nil
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		got[filepath.ToSlash(rel)] = string(body)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

func temporary(t testing.TB, root string) []string {
	t.Helper()
	es, err := os.ReadDir(filepath.Join(root, tmp))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func put(t testing.TB, s *Sink, d *lane.Drop) {
	t.Helper()
	if err := s.Put(context.Background(), d); err != nil {
		t.Fatal(err)
	}
}

// refusal is the *lane.Error of a Put that has to fail.
func refusal(t testing.TB, err error) *lane.Error {
	t.Helper()
	var e *lane.Error
	if !errors.As(err, &e) {
		t.Fatalf("no *lane.Error: %v", err)
	}
	return e
}

func TestADropIsStoredUnderItsKey(t *testing.T) {
	root := filepath.Join(t.TempDir(), "out")
	put(t, New(root, "abc123"), drop(key, "one\n"))
	if got := objects(t, root); len(got) != 1 || got[key] != "one\n" {
		t.Errorf("stored: %v", got)
	}
	info, err := os.Stat(filepath.Join(root, key))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("others are to read it: %v, %v", info.Mode(), err)
	}
	if left := temporary(t, root); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

// watched looks at the folder before and between the pieces that it gives.
type watched struct {
	body string
	look func()
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	w.look()
	return strings.NewReader(w.body).ReadAt(p[:min(len(p), 1000)], off)
}

func TestAReaderSeesAllOfAnObjectOrNothing(t *testing.T) {
	root := t.TempDir()
	looks := 0
	d := drop(key, strings.Repeat("0123456789", 1000))
	d.Body = &watched{strings.Repeat("0123456789", 1000), func() {
		looks++
		if got := objects(t, root); len(got) != 0 {
			t.Errorf("at look %d there is %d bytes long a part", looks, len(got[key]))
		}
	}}
	put(t, New(root, "abc123"), d)
	if looks < 2 || len(objects(t, root)[key]) != 10_000 {
		t.Errorf("%d looks, %d bytes", looks, len(objects(t, root)[key]))
	}
}

func TestAReaderThatPollsSeesOnlyWholeObjects(t *testing.T) {
	root := t.TempDir()
	s := New(root, "abc123")
	body := strings.Repeat("0123456789", 5000)
	stop := make(chan struct{})
	var reader, writers sync.WaitGroup
	reader.Add(1)
	go func() {
		defer reader.Done()
		for {
			for k, got := range objects(t, root) {
				if got != body {
					t.Errorf("%s has %d bytes", k, len(got))
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	for w := range 4 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for i := range 15 {
				if err := s.Put(context.Background(), drop(fmt.Sprintf("w=%d/hour=%02d/%d.ndjson", w%2, i%3, w*100+i), body)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	writers.Wait()
	close(stop)
	reader.Wait()
	if n := len(objects(t, root)); n != 60 {
		t.Errorf("%d of 60 objects", n)
	}
	if left := temporary(t, root); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestAForeignObjectStays(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, key)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("somebody's"), 0o600)); err != nil {
		t.Fatal(err)
	}
	e := refusal(t, New(root, "abc123").Put(context.Background(), drop(key, "mine")))
	if !errors.Is(e, lane.ErrForeign) || !e.Park || e.Class != lane.Invalid || e.Hint == "" || !strings.Contains(e.Error(), key) {
		t.Errorf("%+v", e)
	}
	if got := objects(t, root)[key]; got != "somebody's" {
		t.Errorf("it became %q", got)
	}
	if left := temporary(t, root); len(left) != 0 {
		t.Errorf("temporary files are left: %v", left)
	}
}

func TestWhatIsNoFileIsForeignWhateverTheBytes(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a folder":        func(path string) error { return os.MkdirAll(path, 0o755) },
		"a dangling link": func(path string) error { return os.Symlink("nowhere", path) },
	} {
		root := t.TempDir()
		path := filepath.Join(root, key)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), make(path)); err != nil {
			t.Fatal(err)
		}
		d := drop(key, "mine")
		d.Differs = true
		if err := New(root, "abc123").Put(context.Background(), d); !errors.Is(err, lane.ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheSameDropTwiceIsASuccess(t *testing.T) {
	root := t.TempDir()
	put(t, New(root, "abc123"), drop(key, "mine"))
	put(t, New(root, "abc123"), drop(key, "mine")) // after a restart
	older := drop(key, "as a newer encoder writes it")
	older.Differs = true
	put(t, New(root, "abc123"), older)
	if got := objects(t, root); len(got) != 1 || got[key] != "mine" {
		t.Errorf("stored: %v", got)
	}
}

func TestOnceAtTheSameTimeIsOnce(t *testing.T) {
	root := t.TempDir()
	s := New(root, "abc123")
	var wg sync.WaitGroup
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := s.Put(context.Background(), drop(key, "mine")); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if got := objects(t, root); len(got) != 1 || got[key] != "mine" || len(temporary(t, root)) != 0 {
		t.Errorf("stored: %v, left: %v", got, temporary(t, root))
	}
}

func TestWhatACrashLeftIsRemovedAndOnlyThat(t *testing.T) {
	root := filepath.Join(t.TempDir(), "odd[name]")
	for _, name := range []string{"abc123-leftover", "abc123-1234567890", "xyz789-anothers", "notes.txt"} {
		path := filepath.Join(root, tmp, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	New(root, "abc123")
	if left := temporary(t, root); fmt.Sprint(left) != "[notes.txt xyz789-anothers]" {
		t.Errorf("left: %v", left)
	}
}

func TestASinkThatIsMadeLeavesTheWorkOfOthersAlone(t *testing.T) {
	root := t.TempDir()
	d := drop(key, "mine")
	d.Body = &watched{"mine", func() { New(root, "abc123") }} // a reload, or another tenant's sink in this folder
	put(t, New(root, "abc123"), d)
	if got := objects(t, root)[key]; got != "mine" {
		t.Errorf("stored %q", got)
	}
}

func TestKeysThatLeadOutAreRefused(t *testing.T) {
	outer := t.TempDir()
	root := filepath.Join(outer, "out")
	s := New(root, "abc123")
	for _, k := range []string{"../evil", "a/../../evil", "..", "", ".", "/etc/evil", "a/b/../../../out-evil"} {
		e := refusal(t, s.Put(context.Background(), drop(k, "x")))
		if !e.Park || e.Class != lane.Invalid {
			t.Errorf("%q: %+v", k, e)
		}
	}
	if got := objects(t, outer); len(got) != 0 {
		t.Errorf("stored: %v", got)
	}
}

func TestTheFolderMayBeTheWorkingOne(t *testing.T) {
	root := t.TempDir()
	t.Chdir(root)
	put(t, New(".", "abc123"), drop(key, "mine"))
	if got := objects(t, root); got[key] != "mine" {
		t.Errorf("stored: %v", got)
	}
}

// failing is a Body whose reader fails: stands for a disk that does.
type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

func TestErrorsSayWhatTheLaneIsToDo(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := func(err error) *lane.Drop {
		d := drop(key, "mine")
		d.Body = failing{err}
		return d
	}
	for _, c := range []struct {
		name  string
		root  string
		d     *lane.Drop
		class lane.Class
		park  bool
	}{
		{"a file is on the way", filepath.Join(file, "out"), drop(key, "mine"), lane.NotFound, true},
		{"a file is within the key", base, drop("file/x.ndjson", "mine"), lane.NotFound, true},
		{"nobody may write there", "/sys/datasync-test", drop(key, "mine"), lane.Forbidden, true},
		{"read-only", base, broken(syscall.EROFS), lane.Forbidden, true},
		{"no permission", base, broken(fs.ErrPermission), lane.Forbidden, true},
		{"disk full", base, broken(syscall.ENOSPC), lane.Full, false},
		{"quota used up", base, broken(syscall.EDQUOT), lane.Full, false},
		{"anything else", base, broken(syscall.EIO), lane.Reset, false},
	} {
		e := refusal(t, New(c.root, "abc123").Put(context.Background(), c.d))
		if e.Verdict != lane.Away || e.Class != c.class || e.Park != c.park || c.class != lane.Reset && e.Hint == "" {
			t.Errorf("%s: verdict %d, class %s, park %v, hint %q: %v", c.name, e.Verdict, e.Class, e.Park, e.Hint, e.Err)
		}
	}
	if got := objects(t, base); len(got) != 1 || len(temporary(t, base)) != 0 {
		t.Errorf("failed, and yet there is %v, left: %v", got, temporary(t, base))
	}
}

func TestABodyThatEndsTooSoonIsNoObject(t *testing.T) {
	root := t.TempDir()
	d := drop(key, "mine")
	d.Size = 100
	if err := New(root, "abc123").Put(context.Background(), d); err == nil {
		t.Errorf("stored %q", objects(t, root))
	}
	if got := objects(t, root); len(got) != 0 {
		t.Errorf("stored %q", got)
	}
}

func TestFoldersThatAPersonRemovesAreMadeAgain(t *testing.T) {
	root := filepath.Join(t.TempDir(), "out")
	s := New(root, "abc123")
	put(t, s, drop(key, "mine"))
	for _, gone := range []string{filepath.Dir(filepath.Join(root, key)), filepath.Join(root, "tenant=acme"), filepath.Join(root, tmp), root} {
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
		put(t, s, drop(key, "mine"))
		if objects(t, root)[key] != "mine" {
			t.Errorf("not stored after %s was removed", gone)
		}
	}
}

func TestACallThatIsOverStoresNothing(t *testing.T) {
	root := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := New(root, "abc123").Put(ctx, drop(key, "mine")); !errors.Is(err, context.Canceled) || len(objects(t, root)) != 0 {
		t.Errorf("%v, stored %v", err, objects(t, root))
	}
}

// TestAFileThatCannotBeSyncedIsNoObject: a pipe takes what is written, and says
// EINVAL to fsync.
func TestAFileThatCannotBeSyncedIsNoObject(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	body := []byte("a line\n")
	err = (&object{File: w}).fill(&lane.Drop{Body: bytes.NewReader(body), Size: int64(len(body))})
	if !errors.Is(err, syscall.EINVAL) {
		t.Errorf("a file whose fsync fails: %v", err)
	}
}

func TestALargeDropIsWhole(t *testing.T) {
	root := t.TempDir()
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	put(t, New(root, "abc123"), drop(key, string(body)))
	f, err := os.Open(filepath.Join(root, key))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil || [32]byte(h.Sum(nil)) != sha256.Sum256(body) {
		t.Errorf("other bytes, %v", err)
	}
}
