package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"datasync/feeds"
)

// full says that the soak's sizes are wanted.
func full() bool { return os.Getenv("JOURNAL_SIZE") == "full" }

// countingFS counts the bytes that are read.
type countingFS struct {
	FS
	read *atomic.Int64
}

type countingFile struct {
	File
	read *atomic.Int64
}

func (c countingFS) Open(path string, write bool) (File, error) {
	f, err := c.FS.Open(path, write)
	return countingFile{f, c.read}, err
}

func (c countingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.File.ReadAt(p, off)
	c.read.Add(int64(n))
	return n, err
}

// TestRecoveryTime: sealed segments are known by their ends, so a log that lies
// on disk and in no cache opens in less than a second, however large it is. How
// long it takes is judged at full size, where a machine is for that alone; how
// much is read, always.
func TestRecoveryTime(t *testing.T) {
	sizes := []int64{256 << 20}
	if full() {
		sizes = []int64{1 << 30, 10 << 30}
	}
	for _, bytes := range sizes {
		dir := t.TempDir()
		s := openTest(t, dir, Options{})
		j, err := s.Shard("x")
		if err != nil {
			t.Fatal(err)
		}
		b := benchBatch(j, 1000, 1)
		events := uint64(0)
		for size := int64(0); size < bytes; size += int64(len(b.Arena)) {
			if _, err := j.Append(context.Background(), b); err != nil {
				t.Fatal(err)
			}
			events += uint64(len(b.Events))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		segments := evict(t, filepath.Join(dir, "x"))
		var read atomic.Int64
		began := time.Now()
		s = openTest(t, dir, Options{FS: countingFS{OS(), &read}})
		if j, err = s.Shard("x"); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		if j.tip.events != events {
			t.Errorf("%d events after opening, %d before", j.tip.events, events)
		}
		t.Logf("%d MiB in %d segments, evicted from the page cache: open in %v, %d KiB read", bytes>>20, segments, took.Round(time.Millisecond), read.Load()>>10)
		if full() && took > time.Second {
			t.Errorf("%d MiB open in %v, a second is allowed", bytes>>20, took)
		}
		if most := bytes / 8; read.Load() > most || read.Load() == 0 {
			t.Errorf("%d bytes of %d MiB were read to open it, at most %d are needed", read.Load(), bytes>>20, most)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

// evict has the files of a folder leave the page cache; it counts them.
func evict(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fd := int(f.Fd())
		if err := unix.Fsync(fd); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return len(entries)
}

// TestPassesOverManySegments: what a pass of maintenance costs where one
// tenant far behind keeps all segments: 800 are the 50 GiB of the default cap.
func TestPassesOverManySegments(t *testing.T) {
	segments, tenants := 20, 300
	if full() {
		segments, tenants = 800, 5000
	}
	s := openTest(t, t.TempDir(), Options{SegmentBytes: 2 << 20, Retain: time.Nanosecond})
	j, err := s.Shard("x")
	if err != nil {
		t.Fatal(err)
	}
	b := &Batch{}
	line := "{\"pad\":\"0123456789\"}\n"
	for i := range tenants {
		b.Events = append(b.Events, Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: j.Tenant(feeds.TenantID(fmt.Sprintf("t%05d", i)))})
		b.Arena = append(b.Arena, line...)
	}
	commits := 0
	for len(j.segs) < segments {
		if _, err := j.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		commits++
	}
	for i := 1; i < tenants; i++ { // the first is behind
		ref := j.Tenant(feeds.TenantID(fmt.Sprintf("t%05d", i)))
		j.Release(ref, j.Standing(ref).End)
	}
	pass := func() time.Duration {
		began := time.Now()
		if err := s.Maintain(); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	first, second := pass(), pass()
	began := time.Now()
	if err := s.Scrub(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d segments, %d commits of %d tenants: the first pass takes %v, the next %v; a scrub of %d MiB %v",
		len(j.segs), commits, tenants, first.Round(10*time.Microsecond), second.Round(10*time.Microsecond), s.Usage().Used>>20, time.Since(began).Round(time.Millisecond))
	if len(j.segs) < segments {
		t.Errorf("%d segments are left: the tenant that is behind lost events", len(j.segs))
	}
	if second > first/2+50*time.Millisecond {
		t.Errorf("a pass that nothing has changed for takes %v, the first took %v", second, first)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
