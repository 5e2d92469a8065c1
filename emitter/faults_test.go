package emitter_test

import (
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
)

// pause lets d pass.
func pause(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// back brings the receiver back.
func back(t *testing.T, r *emittertest.Receiver) {
	pause(t, 15*time.Millisecond)
	r.Release()
	r.Start()
}

// faultsEach is how often each fault happens: DATASYNC_FAULTS, or three times.
func faultsEach(t testing.TB) int {
	s := os.Getenv("DATASYNC_FAULTS")
	if s == "" {
		return 3
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("DATASYNC_FAULTS=%s", s)
	}
	return n
}

// faults are all kinds of ends that a receiver can have, with lines in flight;
// TestSilenceBetween and TestProxyKilled are more.
var faults = []struct {
	name    string
	options emittertest.Options
	inject  func(t *testing.T, r *emittertest.Receiver)
}{
	{"none", emittertest.Options{}, func(t *testing.T, _ *emittertest.Receiver) { pause(t, 15*time.Millisecond) }},
	{"killed, fast reader", emittertest.Options{}, func(t *testing.T, r *emittertest.Receiver) {
		r.Stop(emittertest.Kill)
		back(t, r)
	}},
	{"killed, reader slower than sender", emittertest.Options{ReadSize: 8 << 10, ReadPause: 500 * time.Microsecond}, func(t *testing.T, r *emittertest.Receiver) {
		r.Stop(emittertest.Kill)
		back(t, r)
	}},
	{"killed, all buffers full", emittertest.Options{}, func(t *testing.T, r *emittertest.Receiver) {
		r.Hold()
		pause(t, 100*time.Millisecond)
		r.Stop(emittertest.Kill)
		back(t, r)
	}},
	{"orderly shutdown", emittertest.Options{}, func(t *testing.T, r *emittertest.Receiver) {
		r.Stop(emittertest.Shutdown)
		back(t, r)
	}},
	{"orderly shutdown with unread data", emittertest.Options{}, func(t *testing.T, r *emittertest.Receiver) {
		r.Hold()
		pause(t, 20*time.Millisecond)
		r.Stop(emittertest.Shutdown)
		back(t, r)
	}},
	{"reset", emittertest.Options{}, func(t *testing.T, r *emittertest.Receiver) {
		r.End(emittertest.RST)
	}},
	{"stopped for a moment, then killed", emittertest.Options{}, func(t *testing.T, r *emittertest.Receiver) {
		r.Hold()
		pause(t, 20*time.Millisecond)
		r.Stop(emittertest.Kill)
		back(t, r)
	}},
	{"stopped for longer than a drain waits, then killed", emittertest.Options{}, func(t *testing.T, r *emittertest.Receiver) {
		r.Hold()
		pause(t, 300*time.Millisecond)
		r.Stop(emittertest.Kill)
		back(t, r)
	}},
	{"stopped for longer than a drain waits, then goes on", emittertest.Options{}, func(t *testing.T, r *emittertest.Receiver) {
		r.Hold()
		pause(t, 300*time.Millisecond)
		r.Release()
	}},
	{"loses its own queue when killed", emittertest.Options{StoreAfter: 15 * time.Millisecond}, func(t *testing.T, r *emittertest.Receiver) {
		r.Stop(emittertest.Kill)
		back(t, r)
	}},
	{"weak receiver reset", emittertest.Options{Answer: emittertest.BareFIN}, func(t *testing.T, r *emittertest.Receiver) {
		r.Stop(emittertest.RST)
		back(t, r)
	}},
}

// TestFaultsLoseNothing: some faults of each kind under load; everything is
// there in the end, in order apart from repeats; at each loss no more than two
// rotations are asked for again, and without a fault nothing.
func TestFaultsLoseNothing(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			r := emittertest.New(t, fault.options)
			o := quick(r)
			o.DrainTimeout = 150 * time.Millisecond
			underFaults(t, r, o, fault.inject)
		})
	}
}

// underFaults sends under load through three faults and checks what arrived.
func underFaults(t *testing.T, r *emittertest.Receiver, o emitter.Options, inject func(*testing.T, *emittertest.Receiver)) {
	t.Helper()
	f := feed(t, o, 0)
	n := 0
	load := func(lines int) {
		for range 10 {
			n += lines / 10
			f.to(n)
			pause(t, 4*time.Millisecond)
		}
	}
	each := faultsEach(t)
	for range each {
		load(500)
		if o.Confirm == emitter.Drain {
			f.allConfirmed(n) // else, as faults come here, no two rotations would lie between them
		}
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			pause(t, 10*time.Millisecond) // lines are in flight
			inject(t, r)
		}()
		load(500)
		<-stop
	}
	load(300)
	f.allConfirmed(n)
	repeats := arrived(t, r.Lines(), n)
	f.mu.Lock()
	defer f.mu.Unlock()
	if repeats > f.again {
		t.Errorf("%d lines repeated, OnLost asked for %d", repeats, f.again)
	}
	if o.Confirm == emitter.Drain && repeats > 500*len(f.lost) { // what was sent around one fault
		t.Errorf("%d lines repeated, %d losses", repeats, len(f.lost))
	}
	t.Logf("%s: %d faults, %d lines, 0 lost, %d repeated, %d losses", t.Name(), each, n, repeats, len(f.lost))
}

// TestSilenceBetween: what lies between swallows everything, for a while or,
// for the connections of the moment, for ever, as where a host has died.
func TestSilenceBetween(t *testing.T) {
	for name, silence := range map[string]func(*testing.T, *emittertest.Proxy){
		"for a while": func(t *testing.T, p *emittertest.Proxy) { p.Hold(); pause(t, 200*time.Millisecond); p.Release() },
		"for ever":    func(_ *testing.T, p *emittertest.Proxy) { p.Forsake() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := emittertest.New(t, emittertest.Options{})
			p := emittertest.NewProxy(t, r.Addr(), 1<<20)
			o := quick(r)
			o.Addresses, o.DrainTimeout = []string{p.Addr()}, 150*time.Millisecond
			underFaults(t, r, o, func(t *testing.T, _ *emittertest.Receiver) { silence(t, p) })
		})
	}
}

// TestProxyKilled: a layer 4 proxy dies with lines in its own memory.
func TestProxyKilled(t *testing.T) {
	t.Parallel()
	r := emittertest.New(t, emittertest.Options{ReadSize: 8 << 10, ReadPause: 200 * time.Microsecond})
	p := emittertest.NewProxy(t, r.Addr(), 1<<20)
	o := quick(r)
	o.Addresses = []string{p.Addr()}
	f := feed(t, o, 0)
	n := 0
	each := faultsEach(t)
	for range each {
		n += 2000
		f.to(n)
		pause(t, 60*time.Millisecond)
		p.Kill()
		pause(t, 10*time.Millisecond)
		p.Start()
	}
	f.allConfirmed(n)
	t.Logf("%d faults, %d lines, 0 lost, %d repeated", each, n, arrived(t, r.Lines(), n))
}

// TestOrderlyRestartRepeatsOnlyUnread: after a peer's orderly end it goes on
// from read, after any other end from confirmed.
func TestOrderlyRestartRepeatsOnlyUnread(t *testing.T) {
	for _, c := range []struct {
		name  string
		death emittertest.Death
		lost  bool
	}{{"orderly", emittertest.Shutdown, false}, {"killed", emittertest.Kill, true}} {
		t.Run(c.name, func(t *testing.T) {
			r := emittertest.New(t, emittertest.Options{})
			o := quick(r)
			o.Tuning.Grace, o.RotateEvery = time.Hour, time.Hour
			f := feed(t, o, 10)
			f.wait("read", func() bool { return len(f.ends) == 10 && f.read == f.ends[9] })
			f.wait("connected again", func() bool { return f.c.Status().Connections == 2 || !again(f) })
			r.Wait(10*time.Second, "the handshakes", func(_, connections int) bool { return connections == 3 })
			r.End(c.death)
			f.wait("the end seen", func() bool {
				return len(f.states) > 0 && !f.states[len(f.states)-1].Connected || len(f.lost) > 0 || f.c.Status().Connections > 2 || !again(f)
			})
			f.wait("back", func() bool { return f.c.Status().Connections > 2 || !again(f) })
			if got := len(f.lost) == 1; got != c.lost {
				t.Errorf("losses %+v", f.lost)
			}
			if c.lost && f.lost[0].from != 0 {
				t.Errorf("lost from %d: what was read and not confirmed must be sent again", f.lost[0].from)
			}
		})
	}
}

// again keeps a feeder's wait asking, at the pace of a ticker.
func again(f *feeder) bool {
	time.AfterFunc(time.Millisecond, func() { poke(f.changed) })
	return true
}

// TestStalledReceiverIsKept: a peer that is alive and reads nothing keeps its
// connection, is shown as stalled, and gets nothing twice.
func TestStalledReceiverIsKept(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	o := quick(r)
	o.Learned = map[string]emitter.Answer{r.Addr(): emitter.AnswerNotify}
	o.Buffer = 8 << 20
	r.Hold()
	f := feed(t, o, 20_000) // 14 MB: more than the kernels hold
	f.wait("a stall", func() bool { return len(f.states) > 0 && f.states[len(f.states)-1].Stalled })
	s := f.c.Status()
	if !s.Connected || s.Reason != emitter.Slow || s.Hint == "" || s.Connections != 1 {
		t.Errorf("status %+v", s)
	}
	r.Release()
	f.allConfirmed(20_000)
	if n := arrived(t, r.Lines(), 20_000); n != 0 {
		t.Errorf("%d repeats", n)
	}
}

// TestStalledReceiverIsNotSerial: a peer that stands still shakes no hands either.
// It is not taken for one that serves a connection at a time, whose drain would
// be begun without the next connection, and given up when it goes unanswered.
func TestStalledReceiverIsNotSerial(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{OneAtATime: true}) // while it is held, nobody else is greeted
	o := quick(r)
	o.DialTimeout, o.Buffer = 500*time.Millisecond, 8<<20
	o.Learned = map[string]emitter.Answer{r.Addr(): emitter.AnswerNotify}
	var dials atomic.Int32
	o.Control = func(_, _ string, _ syscall.RawConn) error { dials.Add(1); return nil }
	r.Hold()
	f := feed(t, o, 20_000)
	f.wait("a stall", func() bool { return len(f.states) > 0 && f.states[len(f.states)-1].Stalled })
	before := dials.Load()
	f.wait("dials ahead in vain, again and again", func() bool { return dials.Load() > before+2 || !again(f) })
	if s := f.c.Status(); !s.Connected || s.Reason != emitter.Slow || s.Connections != 1 {
		t.Errorf("status %+v", s)
	}
	r.Release()
	f.allConfirmed(20_000)
	if n := arrived(t, r.Lines(), 20_000); n != 0 {
		t.Errorf("%d repeats", n)
	}
}

// TestOutageAndBack: what was never sent is not lost, and is sent when the peer is back.
func TestOutageAndBack(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	r.Stop(emittertest.Kill)
	f := feed(t, quick(r), 100)
	f.wait("away", func() bool { return len(f.states) > 0 && f.states[0].Reason == emitter.Connect })
	pause(t, 50*time.Millisecond)
	r.Start()
	f.allConfirmed(100)
	if n := arrived(t, r.Lines(), 100); n != 0 {
		t.Errorf("%d repeats of what was never sent", n)
	}
}

func TestSecondAddress(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	away := emittertest.New(t, emittertest.Options{})
	away.Stop(emittertest.Kill)
	o := quick(r)
	o.Addresses = []string{away.Addr(), r.Addr()}
	f := feed(t, o, 50)
	f.allConfirmed(50)
	arrived(t, r.Lines(), 50)
}
