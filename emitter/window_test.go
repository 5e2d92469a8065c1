package emitter_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
)

// holding are quick options for Window. The kernel's keep-alive counts in whole
// seconds, so the end of all takes some of them.
func holding(r *emittertest.Receiver) emitter.Options {
	o := quick(r)
	o.Confirm, o.Tuning.Hold = emitter.Window, 400*time.Millisecond
	return o
}

// TestWindowConfirms: a peer that never answers an end is confirmed by later
// bytes and time, over one connection, and gets nothing twice.
func TestWindowConfirms(t *testing.T) {
	t.Parallel()
	r := emittertest.New(t, emittertest.Options{Answer: emittertest.NoAnswer})
	f := feed(t, holding(r), 0)
	n := 0
	early := uint64(0)
	for early == 0 && n < 200_000 { // more than the window, until the first is confirmed while more follows
		n += 500
		f.to(n)
		f.wait("all offered", func() bool { return f.next == n })
		pause(t, 10*time.Millisecond)
		early = f.c.Status().Confirmed
	}
	if early == 0 {
		t.Error("nothing was confirmed by bytes and time")
	}
	f.allConfirmed(n) // the end of all, by twice the time
	if repeats := arrived(t, r.Lines(), n); repeats != 0 {
		t.Errorf("%d repeats without a fault", repeats)
	}
	if s := f.c.Status(); s.Confirm != "window" || s.Connections != 1 || !s.Connected || s.Losses != 0 || len(f.learned) != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestWindowFlush(t *testing.T) {
	t.Parallel()
	r := emittertest.New(t, emittertest.Options{Answer: emittertest.NoAnswer})
	f := feed(t, holding(r), 500)
	f.wait("all offered", func() bool { return f.next == 500 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.flush(ctx); err != nil {
		t.Fatal(err)
	}
	r.Wait(10*time.Second, "all lines", func(lines, _ int) bool { return lines == 500 })
}

// TestFaultsWindowLoseNothing: what the rule is made for.
func TestFaultsWindowLoseNothing(t *testing.T) {
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			o := fault.options
			if o.Answer != emittertest.BareFIN {
				o.Answer = emittertest.NoAnswer
			}
			r := emittertest.New(t, o)
			underFaults(t, r, holding(r), fault.inject)
		})
	}
}

// TestWindowCannotKnowAProxy: what lies in the memory of something between is
// acknowledged and not read, so it can be lost with it: this much and no more.
func TestWindowCannotKnowAProxy(t *testing.T) {
	t.Parallel()
	const memory = 4 << 20
	r := emittertest.New(t, emittertest.Options{Answer: emittertest.NoAnswer})
	p := emittertest.NewProxy(t, r.Addr(), memory)
	o := holding(r)
	o.Addresses = []string{p.Addr()}
	f := feed(t, o, 1)
	r.Wait(10*time.Second, "the first line", func(lines, _ int) bool { return lines == 1 })
	p.Hold() // it reads on, the receiver gets nothing
	n := 1
	for f.c.Status().Confirmed <= uint64(len(testLine(0)+"\n")) && n < memory/len(testLine(0)) {
		n += 200
		f.to(n)
		pause(t, 50*time.Millisecond)
	}
	confirmed := f.c.Status().Confirmed
	p.Kill()
	p.Start()
	f.allConfirmed(n)
	got := map[string]bool{}
	for _, l := range r.Lines() {
		got[l] = true
	}
	lost := n - len(got)
	if most := memory/len(testLine(0)) + 1; lost == 0 || lost > most {
		t.Errorf("%d lines lost, expected some and at most %d", lost, most)
	}
	t.Logf("1 fault, %d events, %d lost, as said: confirmed up to byte %d in front of a proxy with %d bytes of its own", n, lost, confirmed, memory)
}

// TestWindowBusyPeerEndsInOrder: a peer that says goodbye with a part of what its
// TLS layer has taken from the kernel unread gets that again.
func TestWindowBusyPeerEndsInOrder(t *testing.T) {
	t.Parallel()
	r := emittertest.New(t, emittertest.Options{Answer: emittertest.NoAnswer, ReadSize: 1000})
	o := holding(r)
	o.Tuning.Hold, o.Tuning.Grace = time.Hour, time.Minute
	f := feed(t, o, 1)
	r.Wait(10*time.Second, "the first line", func(lines, _ int) bool { return lines == 1 })
	r.Hold() // the next read takes 1,000 bytes of a record of 9,000, and is the last
	f.mu.Lock()
	f.line = func(i int) string { return testLine(i) + strings.Repeat("y", 8000*i) }
	f.mu.Unlock()
	f.to(2)
	f.wait("all acknowledged", func() bool {
		s := f.c.Status()
		return len(f.ends) == 2 && s.Written == f.ends[1] && s.TCP.Unacked == 0 || !again(f)
	})
	pause(t, 50*time.Millisecond)
	r.End(emittertest.Shutdown)
	r.Release()
	r.Wait(10*time.Second, "the second line", func(lines, _ int) bool { l := r.Lines(); return len(l[len(l)-1]) > 8000 })
}

// TestWindowPeerEndsInOrder: a peer that says goodbye to quiet connections keeps
// what it got; it is not sent the same for ever.
func TestWindowPeerEndsInOrder(t *testing.T) {
	t.Parallel()
	r := emittertest.New(t, emittertest.Options{Answer: emittertest.NoAnswer})
	o := holding(r)
	o.Tuning.Hold = time.Hour
	f := feed(t, o, 0)
	for i := 1; i <= 5; i++ {
		f.to(10 * i)
		r.Wait(10*time.Second, "the lines", func(lines, _ int) bool { return lines == 10*i })
		f.wait("all written", func() bool { return f.c.Status().Written == f.endOf(10*i) && f.c.Status().Waiting == 0 || !again(f) })
		pause(t, 2*o.Tuning.Grace) // acknowledged, and quiet
		r.End(emittertest.Shutdown)
		f.wait("read", func() bool { return f.read == f.endOf(10*i) })
	}
	if repeats := arrived(t, r.Lines(), 50); repeats != 0 {
		t.Errorf("%d repeats", repeats)
	}
	if s := f.c.Status(); s.Confirmed < f.endOf(40) {
		t.Errorf("status %+v", s)
	}
}
