// Package harness runs the built program and its receivers as processes, and reads back what arrived.
package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BinaryVariable names a built program in place of the one in bin.
const BinaryVariable = "DATASYNC_BINARY"

// Binary is the built program; task build makes it. A test without it fails.
func Binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv(BinaryVariable)
	if path != "" {
		return path
	}
	path, err := filepath.Abs("../../bin/datasync")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the built program is missing (task build): %v", err)
	}
	return path
}

// Process is a running program. Its output is kept and shown where a test fails.
type Process struct {
	t    testing.TB
	Name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	out  *tail
	mute bool
}

// Start starts the program with arguments; it is killed with the test at the latest.
func Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	return Launch(t, name, exec.Command(Binary(t), args...))
}

// Launch starts any command as Start does the program.
func Launch(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := &Process{t: t, Name: name, cmd: cmd, done: make(chan struct{}), out: &tail{}}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { p.err = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() && !p.mute {
			t.Logf("%s said last:\n%s", p.Name, p.out.String())
		}
	})
	return p
}

// Within has a command run in a network namespace, under the process id that it
// would have anyway; "" is the one of the test.
func Within(netns string, cmd *exec.Cmd) *exec.Cmd {
	if netns == "" {
		return cmd
	}
	in := exec.Command("ip", append([]string{"netns", "exec", netns, cmd.Path}, cmd.Args[1:]...)...)
	in.Env, in.Dir, in.Stdin = cmd.Env, cmd.Dir, cmd.Stdin
	return in
}

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) && p.Running() {
		p.t.Fatalf("signal %s: %v", p.Name, err)
	}
}

// Kill kills -9 and waits.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // gone already, at the worst
	<-p.done
}

// Forget leaves out what it said where the test fails later: for one of many.
func (p *Process) Forget() { p.mute = true }

// Running says whether it still runs.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Stop ends it with SIGTERM and fails the test unless it exits with 0 in time.
func (p *Process) Stop(limit time.Duration) {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%s did not stop within %v", p.Name, limit)
	}
	if p.err != nil {
		p.t.Fatalf("%s ended with %v", p.Name, p.err)
	}
}

// Wait waits for its end and gives the exit code.
func (p *Process) Wait(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.t.Fatalf("%s did not end within %v", p.Name, limit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// CPU is the processor time it used so far, to 10 ms while it runs (proc(5):
// ticks of which Linux shows 100 a second everywhere).
func (p *Process) CPU() time.Duration {
	if !p.Running() {
		return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil { // it ended just now
		<-p.done
		return p.CPU()
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // after its name
	f := strings.Fields(rest)
	var ticks int64
	for _, at := range []int{11, 12} { // user and system
		n, err := strconv.ParseInt(f[at], 10, 64)
		if err != nil {
			p.t.Fatalf("/proc: %q: %v", raw, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// Output is what it said, the last part of it.
func (p *Process) Output() string { return p.out.String() }

// PeakMemory is its largest resident set so far, in bytes (VmHWM of proc(5)).
func (p *Process) PeakMemory() int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				return n << 10
			}
		}
	}
	return 0
}

// tail keeps the end of a process's output.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	if len(w.b) > 64<<10 {
		w.b = append(w.b[:0], w.b[len(w.b)-32<<10:]...)
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.b)
}

// Events is how many an acceptance run makes: DATASYNC_EVENTS, else 100,000, a
// tenth of the full size.
func Events(t testing.TB) int {
	t.Helper()
	text := os.Getenv("DATASYNC_EVENTS")
	if text == "" {
		return 100_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("DATASYNC_EVENTS=%q: a number from 1000 on", text)
	}
	return n
}

// FreePort gives an address on loopback that was free a moment ago. It lies
// below those that the kernel gives to outgoing connections: one of these, or
// what is left of it for a minute, would keep a server that was ended from
// listening there again.
func FreePort(t testing.TB) string {
	t.Helper()
	const from = 10_000
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	var to int
	if _, err := fmt.Sscan(string(raw), &to); err != nil || to < from+1000 {
		t.Fatalf("ip_local_port_range is %q (%v): no room for servers' ports from %d on", raw, err, from)
	}
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", from+rand.IntN(to-from)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatalf("no free port between %d and %d", from, to)
	return ""
}

// Run runs the program to its end and gives its output; it must exit with code.
func Run(t testing.TB, code int, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(Binary(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("datasync %s: exit %d, want %d (%v)\n%s", strings.Join(args, " "), got, code, err, out.String())
	}
	return out.String()
}

// Get asks the admin API and decodes its answer; false where it does not answer.
func Get(ctx context.Context, url string, into any) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && json.Unmarshal(body, into) == nil
}

// Until asks every 100 ms until ok, or fails the test after limit.
func Until(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no %s within %v", what, limit)
		}
	}
}

// Pause lets the processes under test run for a while.
func Pause(d time.Duration) { <-time.After(d) }
