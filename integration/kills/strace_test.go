package kills

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// traced is a process of the program that strace watches, and meddles with.
type traced struct {
	t   testing.TB
	log string
	*harness.Process
}

// watched are the system calls that change something outside of the process, or
// tell it that something changed. The program makes no others of that kind.
var watched = []string{"openat", "mkdirat", "flock", "fallocate", "ftruncate", "pwrite64", "fdatasync", "fsync",
	"linkat", "renameat", "unlinkat", "connect", "accept4", "read", "write"}

// trace starts the program with arguments under strace. inject is what
// strace's --inject takes, or nothing.
func trace(t testing.TB, inject string, args ...string) *traced {
	t.Helper()
	x := &traced{t: t, log: filepath.Join(t.TempDir(), "strace.log")}
	// -D: the program is our child, strace its grandchild. Without --seccomp-bpf,
	// under which strace 6.1 does not deliver the signals that it injects.
	with := []string{"-D", "-f", "-qq", "-y", "-s", "64", "-e", "signal=none", "-o", x.log, "-e", "trace=" + strings.Join(watched, ",")}
	if inject != "" {
		with = append(with, "-e", "inject="+inject)
	}
	cmd := exec.Command(servers.Installed(t, "strace", "tracer"), append(append(with, harness.Binary(t)), args...)...)
	// On one processor nearly all calls are of one thread, and strace counts
	// the calls of each thread.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	x.Process = harness.Launch(t, "datasync under strace", cmd)
	return x
}

// call is one system call in the log.
type call struct {
	thread int
	name   string
	text   string // its arguments, files with their paths
}

var callLine = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\((.*)`)

// calls are those of the log, in the order in which they began.
func (x *traced) calls() (out []call) {
	x.t.Helper()
	raw, err := os.ReadFile(x.log)
	if err != nil {
		x.t.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		m := callLine.FindStringSubmatch(string(line))
		if m == nil {
			continue // the end of a call, of a thread
		}
		thread, err := strconv.Atoi(m[1])
		if err != nil {
			x.t.Fatal(fmt.Errorf("%q: %w", line, err))
		}
		out = append(out, call{thread, m[2], m[3]})
	}
	return out
}
