package disk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// failing is a disk under the journal that begins to fail.
type failing struct {
	call string // the system call that fails with EIO
	// path is below data/journal: on this file or folder alone; "" is all.
	path string
	// once: of each of the program's threads, the first call alone fails.
	once bool
	// says is what the service says where it cannot go on by itself; "" where it can.
	says string
}

const (
	firstSegment = "edge-0/0000000000000001.seg"
	stopped      = "nothing is taken in any more: mend the disk and restart"
)

var failings = map[string]failing{
	"a file cannot be written":  {call: "pwrite64", path: firstSegment},
	"nothing can be written":    {call: "pwrite64", says: stopped},
	"a file cannot be synced":   {call: "fdatasync", path: firstSegment},
	"one sync fails":            {call: "fdatasync", path: firstSegment, once: true},
	"nothing can be synced":     {call: "fdatasync", says: stopped},
	"a file cannot grow":        {call: "fallocate", path: firstSegment},
	"no file can grow":          {call: "fallocate", says: stopped},
	"nothing can be truncated":  {call: "ftruncate"},
	"one unlinking fails":       {call: "unlinkat", once: true},
	"nothing can be unlinked":   {call: "unlinkat", says: "what cannot be deleted keeps counting towards max_bytes: mend the disk"},
	"a folder cannot be synced": {call: "fsync", path: "edge-0", says: stopped},
}

// small says that the journal's cap is so low that old segments are sealed and
// deleted all the time: else these calls are rare.
func (f failing) small() bool {
	return f.call == "unlinkat" || f.call == "ftruncate" || f.call == "fsync"
}

// begin has the calls of a running service fail from now on.
func (f failing) begin(t *testing.T, s *harness.Service) (strace *harness.Process) {
	t.Helper()
	when := "1+"
	if f.once {
		when = "1"
	}
	args := []string{"-f", "-p", strconv.Itoa(s.PID()), "-o", filepath.Join(s.Dir, "strace.out"),
		"-e", "trace=" + f.call, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%s", f.call, when)}
	if f.path != "" {
		args = append(args, "-P", filepath.Join(s.Dir, "data/journal", f.path))
	}
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("task tracer installs it: %v", err)
	}
	strace = harness.Launch(t, "strace", exec.Command(path, args...))
	harness.Until(t, 20*time.Second, "attached strace", func() bool {
		if !strace.Running() {
			t.Fatalf("strace ended (it needs root, or the right to trace; a container wants CAP_SYS_PTRACE): %s", strace.Output())
		}
		return strings.Contains(strace.Output(), "attached")
	})
	return strace
}

// injected counts the calls that were made to fail.
func (f failing) injected(t *testing.T, s *harness.Service) int {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.Dir, "strace.out"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(raw), "(INJECTED)")
}

// TestFaultEIO: under load, the disk under the journal begins to fail in one
// way. Either the service goes on by itself, or it says what to do and takes
// nothing more; then it is killed, and started on a disk that works. Every
// request is taken in the end, and every event is in the drops once.
func TestFaultEIO(t *testing.T) {
	for name, f := range failings {
		t.Run(name, func(t *testing.T) { f.run(t, name) })
	}
}

func (f failing) run(t *testing.T, name string) {
	t.Parallel()
	s := harness.NewService(t, "")
	n, rate, settings := 6000, 60, "max_bytes: 1GiB"
	if f.small() {
		n, rate, settings = 40_000, 0, "max_bytes: 24MiB, retain: 1s"
	}
	journalSettings(s, "", settings)
	s.Tenants(1, "  - name: drops\n    dir: {path: \"{dir}/drops\"}\n    deliver: {max_age: 1s}\n")
	s.Up(time.Minute)
	p := produce(t, s, events(t, 1, n), rate)
	harness.Until(t, time.Minute, "first requests", func() bool { return p.taken() > 5 })
	strace := f.begin(t, s)
	at := p.taken()
	if f.says == "" {
		p.wait(time.Minute)
		at = p.taken()
	} else {
		says(t, s, time.Minute, f.says)
	}
	if f.says == stopped {
		at = takesNothing(t, s, p)
	}
	if k := f.injected(t, s); k == 0 {
		t.Error("nothing failed: then this test shows nothing")
	} else {
		t.Logf("%s: %d calls failed, %d of %d requests were taken before the kill, answers otherwise: %v", name, k, at, n/perRequest, p.refusals())
	}
	s.End(true)
	strace.Kill()
	s.Up(time.Minute)
	p.wait(time.Minute)
	l := s.Delivered(int64(n), 2*time.Minute)
	s.End(false)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops").Want(t, "drops", 1, n, true)
}

// takesNothing holds a service of which the journal has stopped to taking
// nothing more and to saying so; it gives how many requests were taken before.
func takesNothing(t *testing.T, s *harness.Service, p *producer) int {
	t.Helper()
	at := p.taken()
	before := p.refusals()[503]
	harness.Until(t, 30*time.Second, "refusals with 503", func() bool { return p.refusals()[503] > before+4 })
	if n := p.taken(); n != at {
		t.Errorf("%d requests were taken after the journal had stopped", n-at)
	}
	if code := ready(t, s); code != 503 {
		t.Errorf("the journal has stopped, and /readyz answers %d", code)
	}
	return at
}
