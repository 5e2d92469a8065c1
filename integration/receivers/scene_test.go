package receivers

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/nets"
	"datasync/integration/servers"
)

// scene is a service in a network of its own, with one sink for each row of the
// table, a receiver behind each, and events that come all the time.
type scene struct {
	t      *testing.T
	net    *nets.Net // nil: all are on loopback
	inner  string    // its namespace
	s      *harness.Service
	rows   []*row
	sinks  string
	ca     string
	own    servers.Certs
	client servers.Certs
	random *rand.Rand
}

// place is what stands behind one row's sink.
type place struct {
	*scene
	r     *row
	name  string // of the sink
	peer  *peer
	other *peer // the second address's, or the proxy
	tool  *servers.Receiver
	host  *nets.Host
	got   *record
	left  int // lines stored and not confirmed, at the faults in all: no more may come again
}

const rate = 1000 // events a second

func newScene(t *testing.T, rows []*row) *scene {
	t.Helper()
	c := &scene{t: t, rows: rows, random: rand.New(rand.NewPCG(2, 2))}
	if rows[0].start == nil { // peers have ports of their own choice
		c.net = nets.New(t)
		c.inner = c.net.Name()
	}
	c.s = harness.NewService(t, "")
	if c.s.Netns = c.inner; c.net != nil {
		c.net.Forward(c.s.Admin)
	}
	a := servers.NewAuthority(t, "test CA")
	c.ca, c.own, c.client = a.CA(), a.Server(24*time.Hour), a.Client("client", 24*time.Hour)
	return c
}

// place puts the receivers of a row up and adds its sink.
func (c *scene) place(i int) *place {
	c.t.Helper()
	r := c.rows[i]
	x := &place{scene: c, r: r, name: fmt.Sprintf("row%02d", i)}
	ns, ip := c.inner, "127.0.0.1"
	if r.host {
		x.host = c.net.Host()
		ns, ip = x.host.Name(), x.host.Addr
	}
	addr := func(port int) string { return fmt.Sprintf("%s:%d", ip, port+i) } // below those that connections get
	out := filepath.Join(c.s.Dir, x.name+".got")
	x.got = newRecord(out, entries)
	to := fmt.Sprintf("%q", addr(6000))
	switch {
	case r.start != nil:
		x.tool = r.start(c.t, c.own)
		x.got = newRecord(x.tool.Doors[0].Out, r.parse)
		if r.parse == nil {
			x.got.parse = plainLines
		}
		to = fmt.Sprintf("%q", x.tool.Doors[0].Addr)
	case r.relp:
		x.tool = servers.NewRsyslog(c.t, c.own, servers.Door{RELP: true, TLS12: true, Netns: ns, Addr: addr(6000)})
		x.got = newRecord(x.tool.Doors[0].Out, plainLines)
	default:
		o := r.peer
		o.Netns, o.Listen, o.Cert, o.Key, o.CA, o.Out = ns, addr(6000), c.own.Cert, c.own.Key, c.ca, out
		x.peer = &peer{t: c.t, o: o}
		x.peer.Up()
		switch {
		case r.second:
			o.Listen = addr(7000)
			to = fmt.Sprintf("[%q, %q]", o.Listen, addr(6000)) // the first is away
			x.other = &peer{t: c.t, o: o}
		case r.proxy:
			x.other = &peer{t: c.t, o: peerOptions{Netns: ns, Listen: addr(7000), Proxy: addr(6000)}}
			x.other.Up()
			to = fmt.Sprintf("%q", addr(7000))
		}
	}
	c.sinks += fmt.Sprintf("  - name: %s\n    emitter: {address: %s, tls: {%s}, rotate_every: 1s, retry_max: 1s%s}\n", x.name, to, mutual(c.ca, c.client), r.sink)
	return x
}

func (x *place) lane(t *testing.T) lane { return laneOf(t, x.s, "t0001", x.name) }

// settled waits until all that the receiver has is confirmed: from there on no
// more than two rotations are at stake.
func (x *place) settled(t *testing.T) {
	t.Helper()
	have := int64(x.got.read(t))
	harness.Until(t, 5*time.Minute, "confirmation of what "+x.r.name+" has", func() bool { return x.lane(t).Totals.Delivered >= have })
}

// stall has the receiver stop with one signal until all buffers are full and the
// lane says so. Where it stopped within a drain, nothing more is sent and nothing
// fills: then it goes on by the other signal, in time for an answer, and stops again
// once that has come (two standstills in a row are one that is too long).
func (x *place) stall(t *testing.T, stop, goOn syscall.Signal) {
	t.Helper()
	for range 6 {
		x.peer.Signal(stop)
		for began := time.Now(); time.Since(began) < 20*time.Second; harness.Pause(100 * time.Millisecond) {
			if x.lane(t).Reason == "slow" {
				return
			}
		}
		x.peer.Signal(goOn)
		x.settled(t)
	}
	t.Fatalf("%s: no reason slow, however often the receiver stops: %+v", x.r.name, x.lane(t))
}

// fault does one of the row's, at any instant of a rotation.
func (x *place) fault(t *testing.T, at time.Duration) {
	t.Helper()
	x.settled(t)
	harness.Pause(at)
	confirmed := x.lane(t).Totals.Delivered
	x.r.inject(t, x)
	x.left += x.got.read(t) - int(confirmed)
}

// run does the rows' faults, all rows at once, and gives what stands behind each
// and how many events there were.
func (c *scene) run(times func(*row) int) (places []*place, n int) {
	t := c.t
	t.Helper()
	for i := range c.rows {
		places = append(places, c.place(i))
	}
	c.s.Tenants(1, c.sinks)
	c.s.Up(time.Minute)
	in := filepath.Join(c.s.Dir, "in", "a.ndjson")
	gen := harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(rate), "--tenants", "1", "--seed", "1", "--to", in)
	t.Run("rows", func(t *testing.T) {
		for _, x := range places {
			waits := make([]time.Duration, times(x.r))
			for i := range waits {
				waits[i] = time.Duration(c.random.Int64N(int64(2 * time.Second)))
			}
			t.Run(x.r.name, func(t *testing.T) {
				t.Parallel()
				harness.Until(t, time.Minute, "lines", func() bool { return x.got.read(t) > 0 })
				for _, at := range waits {
					x.fault(t, at)
				}
				x.settled(t)
				if f, want := x.lane(t).Facts, x.r.confirms(); want != "" && f["confirm"] != want {
					t.Errorf("%s: %v, want confirm: %s", x.r.name, f, want)
				}
			})
		}
	})
	gen.Stop(time.Minute)
	harness.EachLine(t, in, func([]byte) { n++ })
	if l := c.s.Delivered(int64(n), 5*time.Minute); !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	c.s.End(false)
	return places, n
}
