package spool

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

func noise(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = r.Read(p) // never fails
	return p
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names
}

func budget(t testing.TB, limit int64) *Budget {
	t.Helper()
	b, err := NewBudget(limit, filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// write writes p in pieces of at most n bytes.
func write(s *Spool, p []byte, n int) error {
	for len(p) > 0 {
		k := min(n, len(p))
		if _, err := s.Write(p[:k]); err != nil {
			return err
		}
		p = p[k:]
	}
	return nil
}

func TestASpoolReadsBackWhatWasWritten(t *testing.T) {
	b := budget(t, 2*chunk)
	data := noise(5*chunk + 17)
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(
			rapid.SampledFrom([]int{0, 1, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, 2*chunk + 1}),
			rapid.IntRange(0, len(data))).Draw(t, "size")
		s := b.New()
		defer s.Close()
		if err := write(s, data[:size], rapid.SampledFrom([]int{1 << 20, chunk, 70_001, 4096}).Draw(t, "pieces")); err != nil {
			t.Fatal(err)
		}
		if s.Size() != int64(size) || s.SHA256() != sha256.Sum256(data[:size]) {
			t.Fatalf("size %d of %d, or another hash", s.Size(), size)
		}
		if spilt := s.file != nil; spilt != (size > 2*chunk) {
			t.Fatalf("%d bytes with a budget of %d: in a file %v", size, 2*chunk, spilt)
		}
		for range 20 {
			// Around the borders of chunks and of the file above all.
			near := rapid.SampledFrom([]int{0, chunk, 2 * chunk, size}).Draw(t, "near")
			off := max(0, near+rapid.IntRange(-300, 300).Draw(t, "off"))
			p := make([]byte, rapid.OneOf(rapid.IntRange(0, 700), rapid.IntRange(0, 3*chunk)).Draw(t, "n"))
			n, err := s.ReadAt(p, int64(off))
			want := data[min(off, size):min(off+len(p), size)]
			if n != len(want) || !bytes.Equal(p[:n], want) {
				t.Fatalf("read %d of %d bytes at %d of %d, or other bytes", n, len(want), off, size)
			}
			if short := n < len(p); short != errors.Is(err, io.EOF) || !short && err != nil {
				t.Fatalf("read %d of %d at %d of %d: %v", n, len(p), off, size, err)
			}
		}
		got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
		if err != nil || !bytes.Equal(got, data[:size]) {
			t.Fatalf("read back %d of %d bytes: %v", len(got), size, err)
		}
	})
	if b.Used() != 0 || len(files(t, b.dir)) != 0 {
		t.Errorf("closed, and yet %d bytes and files %v are in use", b.Used(), files(t, b.dir))
	}
}

func TestSpoolsShareOneBudget(t *testing.T) {
	b := budget(t, 3*chunk)
	data := noise(2 * chunk)
	one, two := b.New(), b.New()
	for _, s := range []*Spool{one, two} {
		if err := write(s, data, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if b.Used() != 3*chunk || one.file != nil || two.file == nil {
		t.Fatalf("%d bytes in use; in files: %v, %v", b.Used(), one.file != nil, two.file != nil)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Used() != chunk {
		t.Errorf("after the first was closed %d bytes are in use", b.Used())
	}
	// The other's memory is not the first's to overwrite.
	three := b.New()
	if err := write(three, make([]byte, 2*chunk), 1<<20); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(two, 0, two.Size()))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("the second lost its bytes: %v", err)
	}
	if err := errors.Join(two.Close(), three.Close()); err != nil || b.Used() != 0 || len(files(t, b.dir)) != 0 {
		t.Errorf("at the end %d bytes, files %v, %v", b.Used(), files(t, b.dir), err)
	}
}

func TestConcurrentSpoolsKeepApart(t *testing.T) {
	b := budget(t, 6*chunk)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for round := range 4 {
				data := noise(i*60_000 + round*7 + 1)
				s := b.New()
				if err := write(s, data, 50_000); err != nil {
					t.Error(err)
				}
				if b.Used() > 6*chunk {
					t.Errorf("%d bytes in use", b.Used())
				}
				got, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("spool %d: other bytes, %v", i, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if b.Used() != 0 || len(files(t, b.dir)) != 0 {
		t.Errorf("at the end %d bytes, files %v", b.Used(), files(t, b.dir))
	}
}

func TestWhatACrashLeftIsCleared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "odd[name]")
	b, err := NewBudget(0, dir)
	if err != nil {
		t.Fatal(err)
	}
	s := b.New()
	if err := write(s, noise(1000), 100); err != nil {
		t.Fatal(err)
	}
	if len(files(t, dir)) != 1 {
		t.Fatalf("files %v", files(t, dir))
	}
	if err := os.WriteFile(filepath.Join(dir, "somebody-elses"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewBudget(0, dir); err != nil { // the next life
		t.Fatal(err)
	}
	if got := files(t, dir); len(got) != 1 || got[0] != "somebody-elses" {
		t.Errorf("left: %v", got)
	}
}

func TestAFailingDiskIsTold(t *testing.T) {
	b := budget(t, chunk)
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	s := b.New()
	if err := write(s, noise(chunk), chunk); err != nil {
		t.Fatalf("memory suffices, and yet: %v", err)
	}
	if n, err := s.Write([]byte("more")); n != 0 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder to spill to: wrote %d, %v", n, err)
	}
	if err := s.Close(); err != nil || b.Used() != 0 {
		t.Errorf("%v, %d bytes in use", err, b.Used())
	}

	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	s = &Spool{budget: budget(t, 0), file: full, sum: sha256.New()}
	n, err := s.Write([]byte("more"))
	if n != 0 || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "spool to") {
		t.Errorf("a full disk: wrote %d, %v", n, err)
	}
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAt(make([]byte, 4), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("reading from a file that is gone: %v", err)
	}
}

func TestAFolderThatCannotBeIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewBudget(0, filepath.Join(file, "spool")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a spool folder below a file: %v", err)
	}
}
