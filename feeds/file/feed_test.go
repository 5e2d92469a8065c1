package filefeed

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
)

func TestOnceReadsAllWithTheLastLine(t *testing.T) {
	dir, pattern := glob(t)
	write(t, filepath.Join(dir, "a.log"), "\xef\xbb\xbfone\r\n\n  \ntwo\nthree")
	write(t, filepath.Join(dir, "b.log"), "four\n")
	write(t, filepath.Join(dir, "other.txt"), "no\n")
	w := newWorld()
	done := 0
	f := w.feed(t, pattern, false, func(o *Options) { o.Done = func() { done++ } })
	if err := f.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	want(t, w, "one", "two", "three", "four")
	if done != 1 {
		t.Errorf("Done was called %d times", done)
	}
	if p := w.records[1].Position; p != filepath.Join(dir, "a.log")+":12" {
		t.Errorf("position %s", p)
	}
	for _, s := range f.Status() {
		if s.Behind != 0 || s.Offset != s.Size || s.Err != "" {
			t.Errorf("status %+v", s)
		}
	}
	if err := w.feed(t, pattern, false, nil).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(w.records) != 4 {
		t.Errorf("read again after a restart: %q", w.values())
	}
}

func TestFollowTakesWholeLinesOnly(t *testing.T) {
	dir, pattern := glob(t)
	a := filepath.Join(dir, "a.log")
	w := newWorld()
	f := w.feed(t, pattern, true, nil)
	settle(t, f)
	write(t, a, "one\ntw")
	settle(t, f)
	want(t, w, "one")
	write(t, a, "o\n")
	settle(t, f)
	want(t, w, "one", "two")
	write(t, a, "thr")
	settle(t, f)
	f = w.feed(t, pattern, true, nil) // a restart in the middle of a line
	settle(t, f)
	write(t, a, "ee\n")
	settle(t, f)
	want(t, w, "one", "two", "three")
	f.closeAll()
}

func TestRotationByRenaming(t *testing.T) {
	for _, keep := range []string{"a.1.log", "a.gone"} { // inside the glob, outside
		t.Run(keep, func(t *testing.T) {
			dir, pattern := glob(t)
			a, old := filepath.Join(dir, "a.log"), filepath.Join(dir, keep)
			now := time.Unix(1e9, 0)
			w := newWorld()
			f := w.feed(t, pattern, true, func(o *Options) {
				o.Now = func() time.Time { now = now.Add(time.Millisecond); return now }
			})
			write(t, a, "one\n")
			settle(t, f)
			write(t, a, "two\n")
			if err := os.Rename(a, old); err != nil {
				t.Fatal(err)
			}
			write(t, old, "three\n") // the writer has not noticed yet
			write(t, a, "four\n")
			settle(t, f)
			want(t, w, sorted(w, "one", "four", "two", "three")...)
			write(t, old, "fi")
			settle(t, f)
			if n := len(w.records); n != 4 {
				t.Fatalf("half a line was taken at once: %q", w.values())
			}
			now = now.Add(6 * time.Second)
			settle(t, f)
			if n := len(w.records); n != 5 || w.values()[4] != "fi" {
				t.Fatalf("the last line of the old file: %q", w.values())
			}
			settle(t, f)
			if f.open != 1 {
				t.Errorf("%d descriptors are open, want the new file's only", f.open)
			}
			f.closeAll()
		})
	}
}

// sorted gives lines in the order in which they were taken, whatever it is,
// where they are the same lines.
func sorted(w *world, lines ...string) []string {
	if len(w.records) == len(lines) {
		have := "|" + strings.Join(w.values(), "|") + "|"
		for _, l := range lines {
			if !strings.Contains(have, "|"+l+"|") {
				return lines
			}
		}
		return w.values()
	}
	return lines
}

func TestCopyTruncate(t *testing.T) {
	dir, pattern := glob(t)
	a := filepath.Join(dir, "a.log")
	for _, next := range []string{"new\n", "new, and longer than what was read of it before\n"} {
		w := newWorld()
		f := w.feed(t, pattern, true, nil)
		if err := os.WriteFile(a, []byte("first line\nsecond\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		settle(t, f)
		id := w.records[0].ID
		if err := os.WriteFile(a, []byte(next), 0o600); err != nil { // O_TRUNC, same inode
			t.Fatal(err)
		}
		settle(t, f)
		want(t, w, "first line", "second", strings.TrimSpace(next))
		if w.records[2].ID == id {
			t.Errorf("a new line has an old one's id %s", id)
		}
		f.closeAll()
	}
}

// TestTruncationAtTheSameLength: neither a restart nor a closed file hides that
// other lines, just as many bytes, stand where the old ones were read.
func TestTruncationAtTheSameLength(t *testing.T) {
	dir, pattern := glob(t)
	a := filepath.Join(dir, "a.log")
	write := func(text string) {
		if err := os.WriteFile(a, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld()
	f := w.feed(t, pattern, true, nil)
	write("one\n")
	settle(t, f)
	f.closeAll()
	write("two\n")
	f = w.feed(t, pattern, true, nil) // it was down meanwhile
	settle(t, f)
	want(t, w, "one", "two")
	for _, o := range f.order { // as beyond maxOpen
		f.shut(o)
	}
	write("six\n")
	later := time.Now().Add(time.Second) // the clock of file systems is coarse
	if err := os.Chtimes(a, later, later); err != nil {
		t.Fatal(err)
	}
	settle(t, f)
	want(t, w, "one", "two", "six")
	f.closeAll()
}

func TestTruncationWhileItIsRead(t *testing.T) {
	dir, pattern := glob(t)
	a := filepath.Join(dir, "a.log")
	for _, next := range []string{"", "x\n", "another first line\nand a second one\n"} {
		f := newWorld().feed(t, pattern, true, nil)
		if err := os.WriteFile(a, []byte("first line\nsecond\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.scan(f.o.Now())
		tl := f.order[0]
		head, ok := f.ready(tl)
		if !ok {
			t.Fatal("there is nothing to read")
		}
		if err := os.WriteFile(a, []byte(next), 0o600); err != nil { // this moment
			t.Fatal(err)
		}
		mark := tl.mark
		mark.Offset = 18
		if f.same(tl, &mark, head) {
			t.Errorf("%q is taken for the same file", next)
		}
		f.closeAll()
	}
}

func TestTruncationOfUnreadLinesIsTold(t *testing.T) {
	dir, pattern := glob(t)
	a := filepath.Join(dir, "a.log")
	w := newWorld()
	var told []string
	f := w.feed(t, pattern, true, func(o *Options) { o.OnError = func(err error) { told = append(told, err.Error()) } })
	write(t, a, "one\nhalf a li")
	settle(t, f)
	if err := os.Truncate(a, 0); err != nil {
		t.Fatal(err)
	}
	settle(t, f)
	if len(told) != 1 || !strings.Contains(told[0], "9 bytes of it were unread") {
		t.Errorf("told %q", told)
	}
	f.closeAll()
}

func TestReusedInodeIsAnotherFile(t *testing.T) {
	dir, pattern := glob(t)
	a := filepath.Join(dir, "a.log")
	w := newWorld()
	write(t, a, "one\ntwo\n")
	settle(t, w.feed(t, pattern, false, nil))
	// What the facts say now belongs to an inode that is given to another file.
	if err := os.WriteFile(a, []byte("six\nseven\neight\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settle(t, w.feed(t, pattern, false, nil))
	want(t, w, "one", "two", "six", "seven", "eight")
}

func TestDeviceNumberChangedByAReboot(t *testing.T) {
	dir, pattern := glob(t)
	write(t, filepath.Join(dir, "a.log"), "one\n")
	w := newWorld()
	settle(t, w.feed(t, pattern, false, nil))
	for k, v := range w.facts {
		_, ino, _ := strings.Cut(k, "-")
		delete(w.facts, k)
		w.facts["file/in/abcdef-"+ino] = v
	}
	write(t, filepath.Join(dir, "a.log"), "two\n")
	settle(t, w.feed(t, pattern, false, nil))
	want(t, w, "one", "two")
	if len(w.facts) != 1 {
		t.Errorf("the old fact was not replaced: %q", w.facts)
	}
}

func TestTooLongLinesAreHandedOverCut(t *testing.T) {
	dir, pattern := glob(t)
	a := filepath.Join(dir, "a.log")
	long, huge := strings.Repeat("l", 64+slack+10), strings.Repeat("h", 100_000)
	w := newWorld()
	f := w.feed(t, pattern, true, nil)
	write(t, a, "one\n"+long+"\ntwo\n"+huge)
	settle(t, f)
	write(t, a, huge+"\nthree\n")
	settle(t, f)
	want(t, w, "one", long[:64+slack], "two", huge[:64+slack], "three")
	if len(f.buf) > 4<<10 {
		t.Errorf("the buffer is %d bytes", len(f.buf))
	}
	w.records = nil
	write(t, a, huge) // no newline: its end is the end of the file
	settle(t, w.feed(t, pattern, false, nil))
	want(t, w, huge[:64+slack])
	f.closeAll()
}

func TestIDsAreTheSameWhenReadAgain(t *testing.T) {
	dir, pattern := glob(t)
	write(t, filepath.Join(dir, "a.log"), "one\ntwo\n"+strings.Repeat("x", 5000)+"\nthree\n")
	write(t, filepath.Join(dir, "b.log"), "one\ntwo\n")
	a, b := newWorld(), newWorld()
	settle(t, a.feed(t, pattern, false, nil))
	settle(t, b.feed(t, pattern, false, func(o *Options) { o.BatchBytes = 9000 }))
	at, seen := map[string]string{}, map[string]bool{}
	for _, r := range a.records {
		at[r.Position] = r.ID
		if seen[r.ID] {
			t.Errorf("%s twice", r.ID)
		}
		seen[r.ID] = true
	}
	if len(b.records) != 6 {
		t.Errorf("%d records", len(b.records))
	}
	for _, r := range b.records {
		if at[r.Position] != r.ID {
			t.Errorf("%s is %s and then %s", r.Position, at[r.Position], r.ID)
		}
	}
}

func packed(t testing.TB, text string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(text))
	if err = errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCompressedFilesAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.gz")
	var lines []string
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf("line %d", i))
	}
	all := packed(t, strings.Join(lines, "\n"))
	var told []string
	w := newWorld()
	start := func() *Feed {
		return w.feed(t, filepath.Join(dir, "*.gz"), true, func(o *Options) {
			o.OnError = func(err error) { told = append(told, err.Error()) }
		})
	}
	f := start()
	if err := os.WriteFile(path, all[:len(all)/2], 0o600); err != nil { // half copied
		t.Fatal(err)
	}
	settle(t, f)
	if len(told) != 1 || len(w.records) == 0 {
		t.Fatalf("half a file: told %q, %d records", told, len(w.records))
	}
	settle(t, f)
	if len(told) != 1 {
		t.Errorf("told again: %q", told)
	}
	f.closeAll()
	f = start() // and a restart meanwhile
	write(t, path, string(all[len(all)/2:]))
	settle(t, f)
	want(t, w, lines...)
	if s := f.Status(); s[0].Behind != 0 || s[0].Err != "" {
		t.Errorf("status %+v", s)
	}
	settle(t, f)
	settle(t, start())
	want(t, w, lines...)
}

func TestFullJournalWaitsAndGoesOn(t *testing.T) {
	dir, pattern := glob(t)
	write(t, filepath.Join(dir, "a.log"), "one\n")
	w := newWorld()
	w.errs = []error{feeds.ErrFull, feeds.ErrFull}
	var told []string
	f := w.feed(t, pattern, false, func(o *Options) { o.OnError = func(err error) { told = append(told, err.Error()) } })
	if err := f.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	want(t, w, "one")
	if len(told) != 2 || !strings.Contains(told[0], "journal is full") || !strings.Contains(told[1], "going on again") {
		t.Errorf("told %q", told)
	}
	w = newWorld()
	w.errs = []error{feeds.ErrStopped}
	if err := w.feed(t, pattern, false, nil).Run(context.Background()); !errors.Is(err, feeds.ErrStopped) {
		t.Errorf("a closed journal: %v", err)
	}
}

func TestUnreadableIsToldOnceAndWhenItEnds(t *testing.T) {
	dir, pattern := glob(t)
	if err := os.Mkdir(filepath.Join(dir, "dir.log"), 0o700); err != nil { // not a file: passed over
		t.Fatal(err)
	}
	w := newWorld()
	var told []string
	f := w.feed(t, filepath.Join(dir, "later", "*.log"), true, func(o *Options) { o.OnError = func(err error) { told = append(told, err.Error()) } })
	settle(t, f)
	settle(t, f)
	if len(told) != 1 {
		t.Fatalf("a folder that is not there: told %q", told)
	}
	if err := os.Mkdir(filepath.Join(dir, "later"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "later", "a.log"), "one\n")
	settle(t, f)
	if len(told) != 2 || !strings.Contains(told[1], "going on again") {
		t.Errorf("told %q", told)
	}
	want(t, w, "one")
	settle(t, w.feed(t, pattern, true, nil))
	f.closeAll()
}

func TestForgetsFilesThatAreGone(t *testing.T) {
	dir, pattern := glob(t)
	a := filepath.Join(dir, "a.log")
	now := time.Unix(1e9, 0)
	w := newWorld()
	f := w.feed(t, pattern, true, func(o *Options) { o.Now = func() time.Time { return now } })
	tick := func(d time.Duration) { now = now.Add(d); settle(t, f) }
	write(t, a, "one\n")
	tick(time.Second)
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	tick(time.Second)
	tick(10 * time.Second)
	tick(time.Second)
	if f.open != 0 || len(f.files) != 0 || len(w.facts) != 1 {
		t.Errorf("%d open, %d files, %d facts", f.open, len(f.files), len(w.facts))
	}
	tick(25 * time.Hour)
	if len(w.facts) != 0 {
		t.Errorf("facts left: %q", w.facts)
	}
}

func TestRunIsWokenByWrites(t *testing.T) {
	dir, pattern := glob(t)
	w := newWorld()
	w.got = make(chan struct{}, 10)
	f := w.feed(t, pattern, true, func(o *Options) { o.Poll = time.Hour })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	write(t, filepath.Join(dir, "a.log"), "one\n")
	go func() { ended <- f.Run(ctx) }()
	for i := range 3 { // the poll is an hour away: only a wake-up brings these
		select {
		case <-w.got:
		case <-time.After(time.Minute):
			t.Fatalf("line %d was not read", i)
		}
		write(t, filepath.Join(dir, fmt.Sprintf("%d.log", i%2)), "more\n")
	}
	<-w.got
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	w := newWorld()
	good := Options{Name: "in", Path: "*", Format: "canonical", Intake: w, Facts: w}
	for name, change := range map[string]func(*Options){
		"name": func(o *Options) { o.Name = "In" }, "path": func(o *Options) { o.Path = "[" }, "empty": func(o *Options) { o.Path = "" },
		"stars": func(o *Options) { o.Path = "in/**/x" }, "format": func(o *Options) { o.Format = "" }, "intake": func(o *Options) { o.Intake = nil },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
}
