package receivers

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// row is a kind of fault, and the emitter and receiver that it happens to.
type row struct {
	name   string
	sink   string // settings of the emitter, "" for confirm: drain
	peer   peerOptions
	host   bool // the receiver is a host of its own
	relp   bool // the receiver is rsyslog
	proxy  bool // there is a layer 4 proxy before it
	second bool // there are two addresses
	kept   bool // the connection outlives the fault: nothing comes again
	short  int  // faults in CI; 0: not there
	full   int  // and in soak
	inject func(*testing.T, *place)
	// Receivers of other makers, on loopback.
	start func(testing.TB, servers.Certs) *servers.Receiver
	parse func([]byte, func(conn, id, hash string)) int // nil: lines
	weak  bool
	// fickle: it answers now with close_notify, now without; where it has shown
	// close_notify at first, what it answers without comes again.
	fickle bool
}

// confirms is what the lane shows, "" where that is open.
func (r *row) confirms() string {
	switch {
	case r.fickle:
		return ""
	case r.weak:
		return "weak"
	case r.relp:
		return "protocol"
	case r.sink != "":
		return "window"
	}
	return "drain"
}

// silent is longer than an emitter takes to find a host dead.
const silent = 22 * time.Second

// table is the faults of reliability.md part 2.2, and those of more places.
var table = []*row{
	{name: "none", full: 1, kept: true, inject: func(*testing.T, *place) { harness.Pause(30 * time.Second) }},
	{name: "kill -9, fast reader", full: 9, inject: killed},
	{name: "kill -9, reader slower than sender", full: 9, inject: func(t *testing.T, x *place) {
		x.peer.Signal(slowDown)
		harness.Pause(1500 * time.Millisecond)
		killed(t, x)
	}},
	{name: "kill -9, all buffers full", peer: peerOptions{RcvBuf: 64 << 10}, short: 2, full: 9, inject: func(t *testing.T, x *place) {
		x.stall(t, holdOn, holdOn)
		killed(t, x)
	}},
	{name: "SIGTERM, orderly", full: 9, inject: ended},
	{name: "SIGTERM with unread data", short: 2, full: 9, inject: func(t *testing.T, x *place) {
		x.peer.Signal(holdOn)
		harness.Pause(700 * time.Millisecond)
		ended(t, x)
	}},
	{name: "reset by the receiver", short: 2, full: 9, inject: func(_ *testing.T, x *place) {
		x.peer.Signal(resetAll)
		harness.Pause(300 * time.Millisecond) // it is done
	}},
	{name: "SIGSTOP 0.15 s, kill -9", full: 9, inject: func(t *testing.T, x *place) { frozen(t, x, 150*time.Millisecond) }},
	{name: "SIGSTOP 3 s, kill -9", full: 8, inject: func(t *testing.T, x *place) { frozen(t, x, 3*time.Second) }},
	{name: "SIGSTOP longer than a drain waits, kill -9", full: 2, inject: func(t *testing.T, x *place) { frozen(t, x, 40*time.Second) }},
	{name: "SIGSTOP 15 s, and it goes on", peer: peerOptions{RcvBuf: 64 << 10}, short: 1, full: 6, kept: true, inject: stalled(15 * time.Second)},
	{name: "host dies silently", host: true, short: 1, full: 6, inject: vanished},
	{name: "host dies silently and is back soon", host: true, full: 8, inject: func(t *testing.T, x *place) { away(x, 3*time.Second) }},
	{name: "blackhole 1.5 s", host: true, kept: true, full: 9, inject: blackhole},
	{name: "receiver loses its own queue", peer: peerOptions{StoreAfter: 100 * time.Millisecond}, full: 9, inject: killed},
	{name: "layer 4 proxy with 1 MiB killed", proxy: true, peer: peerOptions{RcvBuf: 64 << 10}, short: 2, full: 9, inject: proxyKilled},
	{name: "first address dead, second used", second: true, short: 2, full: 8, inject: moved},
	{name: "window: host dies silently", sink: ", confirm: window", host: true, full: 4, inject: vanished},
	{name: "window: blackhole 1.5 s", sink: ", confirm: window", host: true, kept: true, full: 4, inject: blackhole},
	{name: "RELP: host of rsyslog dies silently", sink: ", confirm: protocol, protocol: relp", host: true, relp: true, full: 6, inject: vanished},
	{name: "RELP: blackhole 1.5 s", sink: ", confirm: protocol, protocol: relp", host: true, relp: true, kept: true, full: 9, inject: blackhole},
}

func killed(_ *testing.T, x *place) {
	x.peer.Kill()
	harness.Pause(100 * time.Millisecond)
	x.peer.Up()
}

func ended(t *testing.T, x *place) {
	x.peer.Signal(endNow)
	if code := x.peer.Wait(time.Minute); code != 0 {
		t.Errorf("the peer ended with %d: %s", code, x.peer.Output())
	}
	x.peer.Up()
}

func frozen(t *testing.T, x *place, d time.Duration) {
	x.peer.Signal(syscall.SIGSTOP)
	harness.Pause(d)
	killed(t, x)
}

// stalled: the receiver stands still for long, and its lane says so.
func stalled(d time.Duration) func(*testing.T, *place) {
	return func(t *testing.T, x *place) {
		x.stall(t, syscall.SIGSTOP, syscall.SIGCONT)
		harness.Pause(d)
		if l := x.lane(t); l.State != "waiting" && l.State != "suspended" || l.Reason != "slow" || l.Facts["connected"] != "true" {
			t.Errorf("a receiver that stands still shows %+v", l)
		}
		x.peer.Signal(syscall.SIGCONT)
	}
}

// away: the host is gone with its processes, and nobody is told.
func away(x *place, d time.Duration) {
	x.host.Cut(true)
	if x.tool != nil {
		x.tool.Kill()
	} else {
		x.peer.Kill()
	}
	harness.Pause(d)
	x.host.Cut(false)
	if x.tool != nil {
		x.tool.Up()
	} else {
		x.peer.Up()
	}
}

func vanished(_ *testing.T, x *place) { away(x, silent) }

func blackhole(_ *testing.T, x *place) {
	x.host.Cut(true)
	harness.Pause(1500 * time.Millisecond)
	x.host.Cut(false)
}

// proxyKilled: the proxy has acknowledged what the receiver has not read.
func proxyKilled(t *testing.T, x *place) {
	x.stall(t, holdOn, holdOn)
	x.other.Kill()
	x.peer.Signal(holdOn)
	harness.Pause(100 * time.Millisecond)
	x.other.Up()
}

// moved: the address in use dies; the other one is there, or comes soon.
func moved(t *testing.T, x *place) {
	x.peer.Kill()
	x.peer, x.other = x.other, x.peer
	x.peer.Up()
	harness.Until(t, time.Minute, "the other address", func() bool {
		f := x.lane(t).Facts
		return f["address"] == x.peer.o.Listen && f["connected"] == "true"
	})
}

// faultTable runs the rows that there are of, and prints what became of each.
func faultTable(t *testing.T, table []*row, times func(*row) int) {
	var rows []*row
	for _, r := range table {
		if times(r) > 0 {
			rows = append(rows, r)
		}
	}
	places, n := newScene(t, rows).run(times)
	var b strings.Builder
	fmt.Fprintf(&b, "%-42s %6s %8s %5s %9s %12s %14s\n", "fault", "faults", "events", "lost", "repeated", "unconfirmed", "two rotations")
	all := 0
	for _, x := range places {
		k := times(x.r)
		all += k
		lost := x.got.whole(t, x.r.name, n)
		rotations := "-"
		if x.peer != nil && x.r.sink == "" {
			rotations = fmt.Sprint(x.got.rotations())
			x.rotations(t, k)
		}
		// What a dead proxy left with the receiver is stored later than it is counted.
		if bounded := !x.r.proxy && !x.r.fickle; bounded && x.got.repeats > x.left || x.r.kept && x.got.repeats > 0 {
			t.Errorf("%s: %d lines came again, and %d were unconfirmed at the faults", x.r.name, x.got.repeats, x.left)
		}
		if x.got.torn > k || x.got.torn > 0 && x.peer != nil {
			t.Errorf("%s: %d lines are not whole", x.r.name, x.got.torn)
		}
		fmt.Fprintf(&b, "%-42s %6d %8d %5d %9d %12d %14s\n", x.r.name, k, n, lost, x.got.repeats, x.left, rotations)
	}
	t.Logf("%d faults\n%s", all, b.String())
}

// rotations holds what came again to the two connections before an abnormal
// end, of which each fault makes one at most.
func (x *place) rotations(t *testing.T, faults int) {
	t.Helper()
	if x.got.tooOld > 0 {
		t.Errorf("%s: %d lines came again that were older than two rotations", x.r.name, x.got.tooOld)
	}
	if x.r.kept && len(x.got.backs) > 0 || len(x.got.backs) > faults {
		t.Errorf("%s: %d connections began again at an earlier line, after %d faults: %d of those with lines %d", x.r.name, len(x.got.backs), faults, x.got.backs, x.got.count)
	}
}

// TestFaultTable: some of the faults with the built program, lines in flight; a
// receiver that stands still is kept, a proxy's death loses nothing, the second
// address is used.
func TestFaultTable(t *testing.T) {
	t.Parallel()
	faultTable(t, table, func(r *row) int { return r.short })
}
