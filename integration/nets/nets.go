// Package nets makes networks of a test's own, of hosts that can fall silent.
package nets

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"datasync/integration/harness"
)

// Net is a network namespace in which a service runs, with hosts around it,
// each behind a link of its own. Nothing of it is seen outside but its name.
type Net struct {
	t     testing.TB
	name  string
	hosts int
}

// Host is a namespace at the other end of a link.
type Host struct {
	n    *Net
	name string
	// Addr is its address (no port).
	Addr string
}

// prefix is what all names begin with; the test's process id follows, so that
// what a killed test left behind can be told from what another uses now.
const prefix = "dsnet-"

var made atomic.Int64

// New makes a network without hosts, and removes those of tests that were killed.
func New(t testing.TB) *Net {
	t.Helper()
	sweep(t)
	n := &Net{t: t, name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), made.Add(1))}
	n.add(n.name)
	return n
}

// Name is the namespace of the service (harness.Within).
func (n *Net) Name() string { return n.name }

// Host adds a host.
func (n *Net) Host() *Host {
	n.t.Helper()
	n.hosts++
	h := &Host{n: n, name: fmt.Sprintf("%s-h%d", n.name, n.hosts), Addr: fmt.Sprintf("10.77.%d.2", n.hosts)}
	n.add(h.name)
	near := fmt.Sprintf("h%d", n.hosts)
	ip(n.t, "-n", n.name, "link", "add", near, "type", "veth", "peer", "name", "uplink", "netns", h.name)
	ip(n.t, "-n", n.name, "addr", "add", fmt.Sprintf("10.77.%d.1/30", n.hosts), "dev", near)
	ip(n.t, "-n", h.name, "addr", "add", h.Addr+"/30", "dev", "uplink")
	ip(n.t, "-n", n.name, "link", "set", near, "up")
	h.Cut(false)
	return h
}

// Name is its namespace.
func (h *Host) Name() string { return h.name }

// Cut takes its link away, or gives it back. Without it nothing arrives on
// either side, and nobody is told: not even of the end of its processes.
func (h *Host) Cut(cut bool) {
	h.n.t.Helper()
	ip(h.n.t, "-n", h.name, "link", "set", "uplink", map[bool]string{true: "down", false: "up"}[cut])
}

// Forward has what connects to an address on loopback outside reach the same
// address inside.
func (n *Net) Forward(addr string) {
	n.t.Helper()
	host, port, _ := strings.Cut(addr, ":")
	harness.Launch(n.t, "socat to "+addr, exec.Command("socat", "TCP-LISTEN:"+port+",bind="+host+",reuseaddr,fork",
		fmt.Sprintf("EXEC:ip netns exec %s socat STDIO TCP\\:%s\\:%s", n.name, host, port)))
}

// add makes a namespace with its loopback, for as long as the test runs.
func (n *Net) add(name string) {
	n.t.Helper()
	ip(n.t, "netns", "add", name)
	n.t.Cleanup(func() { ip(n.t, "netns", "del", name) }) // its links go with it
	ip(n.t, "-n", name, "link", "set", "lo", "up")
}

// sweep removes what tests left behind that were killed.
func sweep(t testing.TB) {
	t.Helper()
	for line := range strings.Lines(ip(t, "netns", "list")) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		text, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		pid, err := strconv.Atoi(text)
		if !strings.HasPrefix(name, prefix) || err != nil {
			continue
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); os.IsNotExist(err) {
			_ = exec.Command("ip", "netns", "del", name).Run() // another test may have been quicker
		}
	}
}

func ip(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v: %s (this test makes network namespaces: it needs root, iproute2, and in a container CAP_SYS_ADMIN and CAP_NET_ADMIN)",
			strings.Join(args, " "), err, out)
	}
	return string(out)
}
