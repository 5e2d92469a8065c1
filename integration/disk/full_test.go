package disk

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
)

// mount gives a file system of a size of its own at a new folder. It needs root.
func mount(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("a small file system cannot be mounted; this test needs root and the right to mount (a container wants CAP_SYS_ADMIN): %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// fill takes all that is free below dir; more takes again what became free
// since, empty gives it all back.
type filler struct {
	t *testing.T
	f *os.File
}

func fill(t *testing.T, dir string) *filler {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "somebody-elses"))
	if err != nil {
		t.Fatal(err)
	}
	x := &filler{t, f}
	t.Cleanup(x.empty)
	x.more()
	return x
}

func (x *filler) more() {
	x.t.Helper()
	zeros := make([]byte, 64<<10)
	for {
		_, err := x.f.Write(zeros)
		switch {
		case errors.Is(err, syscall.ENOSPC) && len(zeros) > 512:
			zeros = zeros[:len(zeros)/2]
		case errors.Is(err, syscall.ENOSPC):
			return
		case err != nil:
			x.t.Fatal(err)
		}
	}
}

// empty makes room again.
func (x *filler) empty() {
	if x.f == nil {
		return
	}
	if err := errors.Join(os.Remove(x.f.Name()), x.f.Close()); err != nil {
		x.t.Error(err)
	}
	x.f = nil
}

// TestFaultFullDisk: the disk under the journal is filled up by somebody else,
// under load. Producers are told 503; what was taken is delivered meanwhile,
// across a kill too; when there is room the service goes on by itself.
func TestFaultFullDisk(t *testing.T) {
	const n, seed = 100_000, 1
	s := harness.NewService(t, "")
	dir := mount(t, "192m")
	journalSettings(s, filepath.Join(dir, "data"), "max_bytes: 1GiB")
	s.Tenants(1, "  - name: drops\n    dir: {path: \"{dir}/drops\"}\n    deliver: {max_age: 1s}\n")
	s.Up(time.Minute)
	p := produce(t, s, events(t, seed, n), 0)
	harness.Until(t, time.Minute, "first requests", func() bool { return p.taken() > 100 })
	disk := fill(t, dir)
	says(t, s, time.Minute, "events are refused until there is room, delivery goes on")
	began := time.Now()
	for range 8 { // what the journal gave back meanwhile is somebody else's too
		harness.Pause(250 * time.Millisecond)
		disk.more()
	}
	at := p.taken()
	refused := p.refusals()[503]
	if refused == 0 || at == n/perRequest {
		t.Errorf("%d of %d requests were taken on a full disk, %d refused with 503", at, n/perRequest, refused)
	}
	delivered(t, s, at)
	s.End(true)
	disk.more()
	s.Up(time.Minute)
	delivered(t, s, at)
	if now := p.taken(); now != at {
		t.Logf("%d more requests were taken from the rest of the last allocation", now-at)
	}
	full := time.Since(began)
	disk.empty()
	began = time.Now()
	harness.Until(t, time.Minute, "requests taken again", func() bool { return p.taken() > at+20 })
	back := time.Since(began)
	p.wait(time.Minute)
	l := s.Delivered(n, time.Minute)
	s.End(false)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops").Want(t, "drops", seed, n, true)
	t.Logf("%d events, full after %d for %v with a kill; answers otherwise %v; taken again %v after there was room; lost 0, repeated 0",
		n, at*perRequest, full.Round(time.Millisecond), p.refusals(), back.Round(time.Millisecond))
}

// delivered waits until the events of so many requests are in drops.
func delivered(t *testing.T, s *harness.Service, requests int) {
	t.Helper()
	harness.Until(t, 30*time.Second, "delivery on a full disk of all that was taken", func() bool {
		l, ok := s.Ledger()
		return ok && len(l.Sinks) == 1 && l.Sinks[0].Queued == 0 && l.Sinks[0].Delivered >= int64(requests*perRequest)
	})
}
