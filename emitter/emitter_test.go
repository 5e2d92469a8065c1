package emitter_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datasync/emitter"
	"datasync/emitter/emittertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEverythingArrivesOnceAndIsConfirmed(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	f := feed(t, quick(r), 3000)
	f.allConfirmed(3000)
	if n := arrived(t, r.Lines(), 3000); n != 0 {
		t.Errorf("%d repeats without a fault", n)
	}
	if s := f.c.Status(); s.Losses != 0 || s.Confirm != "drain" || s.Weak || s.Peer.Version != "TLS 1.3" || s.Peer.NotAfter.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// TestConfirmedIsARotationBehindRead: a drain alone confirms nothing.
func TestConfirmedIsARotationBehindRead(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	o := quick(r)
	o.RotateEvery, o.Tuning.Grace = time.Hour, time.Hour
	f := feed(t, o, 10)
	f.wait("read", func() bool { return len(f.ends) == 10 && f.read == f.ends[9] })
	if s := f.c.Status(); s.Confirmed != 0 || s.Read != s.Offered {
		t.Fatalf("after one drain: %+v", s)
	}
}

func TestIdleClientHoldsNothing(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	base := goleak.IgnoreCurrent()
	f := feed(t, quick(r), 5)
	f.allConfirmed(5)
	close(f.quit)
	<-f.done
	if err := goleak.Find(base, goleak.IgnoreAnyFunction("datasync/emitter/emittertest.(*Receiver).serve")); err != nil {
		t.Errorf("an idle client: %v", err)
	}
	f.quit, f.done = make(chan struct{}), make(chan struct{})
	f.to(10)
	go f.run()
	f.allConfirmed(10)
	arrived(t, r.Lines(), 10)
}

func TestFirstDrainLearnsTheAnswer(t *testing.T) {
	for name, want := range map[string]struct {
		answer emittertest.Answer
		learn  emitter.Answer
		show   string
	}{
		"close_notify": {emittertest.Orderly, emitter.AnswerNotify, "drain"},
		"bare FIN":     {emittertest.BareFIN, emitter.AnswerFIN, "weak"},
	} {
		t.Run(name, func(t *testing.T) {
			r := emittertest.New(t, emittertest.Options{Answer: want.answer})
			f := feed(t, quick(r), 100)
			f.allConfirmed(100)
			if n := arrived(t, r.Lines(), 100); n != 0 {
				t.Errorf("%d repeats", n)
			}
			if s := f.c.Status(); len(f.learned) != 1 || f.learned[0] != want.learn || s.Confirm != want.show {
				t.Errorf("learned %v, shows %q", f.learned, s.Confirm)
			}
		})
	}
}

// TestNoAnswerIsNotPretended: a peer that never answers gets no line, and the
// state says what to set.
func TestNoAnswerIsNotPretended(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{Answer: emittertest.NoAnswer})
	o := quick(r)
	o.DrainTimeout = 30 * time.Millisecond
	f := feed(t, o, 10)
	f.wait("a verdict", func() bool { return len(f.states) > 0 })
	s := f.c.Status()
	if s.Confirm != "window" || s.Reason != emitter.Timeout || s.Hint == "" || s.Confirmed != 0 || s.Read != 0 {
		t.Errorf("status %+v", s)
	}
	if n := len(r.Lines()); n != 0 {
		t.Errorf("%d lines were sent to a peer that cannot confirm", n)
	}
	r.Set(emittertest.Orderly) // it learns manners
	f.allConfirmed(10)
	if s := f.c.Status(); s.Confirm != "drain" {
		t.Errorf("shows %q after an answer", s.Confirm)
	}
}

// TestReceiverReplaced: an endpoint that answered by close_notify and now gives
// a bare FIN is drained empty again instead of being sent the same for ever.
func TestReceiverReplaced(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	f := feed(t, quick(r), 10)
	f.allConfirmed(10)
	r.Set(emittertest.BareFIN)
	f.to(20)
	f.allConfirmed(20)
	arrived(t, r.Lines(), 20)
	if s := f.c.Status(); !s.Weak {
		t.Errorf("status %+v", s)
	}
}

func TestSerialReceiver(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{OneAtATime: true})
	o := quick(r)
	o.DialTimeout = 100 * time.Millisecond
	f := feed(t, o, 2000)
	f.allConfirmed(2000)
	if n := arrived(t, r.Lines(), 2000); n != 0 {
		t.Errorf("%d repeats", n)
	}
}

func TestFlush(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	o := quick(r)
	o.RotateEvery, o.Tuning.IdleAfter = time.Hour, time.Hour
	f := feed(t, o, 500)
	f.wait("all offered", func() bool { return f.next == 500 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.flush(ctx); err != nil {
		t.Fatal(err)
	}
	if s := f.c.Status(); s.Read != s.Offered || len(r.Lines()) != 500 {
		t.Errorf("after Flush: %d lines, %+v", len(r.Lines()), s)
	}
	if err := f.c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.c.Offer([]byte("x\n")); ok {
		t.Error("a closed client took a line")
	}
	if err := f.flush(ctx); !errors.Is(err, emitter.ErrClosed) {
		t.Errorf("Flush after Close: %v", err)
	}
}

func TestFlushToAnAbsentPeerSaysWhy(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	r.Stop(emittertest.Shutdown)
	f := feed(t, quick(r), 5)
	f.wait("a failure", func() bool { return len(f.states) > 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	err := f.flush(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Flush: %v", err)
	}
	if s := f.c.Status(); s.Reason != emitter.Connect || s.NextRetry.IsZero() {
		t.Errorf("status %+v", s)
	}
}

// TestStopWithoutAnAnswer: of a peer that owes an answer at our stop nobody knows
// whether it still has what it read: the next life begins at what is confirmed.
// One that answered is believed.
func TestStopWithoutAnAnswer(t *testing.T) {
	for name, owes := range map[string]struct{ lines, drain bool }{
		"it answered":               {},
		"for lines":                 {lines: true},
		"for a drain without lines": {drain: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := emittertest.New(t, emittertest.Options{})
			o := quick(r)
			o.RotateEvery, o.Tuning.IdleAfter, o.Tuning.Grace = time.Hour, time.Hour, time.Hour
			if owes.drain {
				o.Tuning.IdleAfter, o.Tuning.Grace = time.Millisecond, time.Second
			}
			f := feed(t, o, 10)
			f.wait("all offered", func() bool { return len(f.ends) == 10 })
			if err := f.flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.wait("a connection to watch it by", func() bool { s := f.c.Status(); return s.Connected && s.Confirmed == 0 && s.Read == s.Offered })
			switch {
			case owes.drain:
				r.Set(emittertest.NoAnswer)
				pause(t, 1300*time.Millisecond) // it begins
			case owes.lines:
				r.Hold()
				f.to(20)
				f.wait("more offered", func() bool { return len(f.ends) == 20 })
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				if err := f.flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("the flush of a peer that stands still: %v", err)
				}
			}
			f.stop()
			switch {
			case !owes.lines && !owes.drain && len(f.lost) > 0:
				t.Errorf("lost %+v, and the peer had answered", f.lost)
			case (owes.lines || owes.drain) && (len(f.lost) != 1 || f.lost[0].from != 0):
				t.Errorf("lost %+v, want all from 0 on", f.lost)
			}
			r.Release()
		})
	}
}

func TestCloseInEveryState(t *testing.T) {
	hold := func(r *emittertest.Receiver) { r.Hold() }
	for name, prepare := range map[string]func(*emittertest.Receiver){
		"away":      func(r *emittertest.Receiver) { r.Stop(emittertest.RST) },
		"stalled":   hold,
		"connected": func(*emittertest.Receiver) {},
		"draining":  func(r *emittertest.Receiver) { r.Set(emittertest.NoAnswer) },
	} {
		t.Run(name, func(t *testing.T) {
			r := emittertest.New(t, emittertest.Options{})
			o := quick(r)
			o.Learned = map[string]emitter.Answer{r.Addr(): emitter.AnswerNotify}
			prepare(r)
			f := feed(t, o, 20_000)
			f.wait("some state", func() bool { return len(f.states) > 0 })
			began := time.Now()
			f.stop()
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("Close took %v", d)
			}
		})
	}
}

// TestFormerLife: what was read but not confirmed before a restart is confirmed
// by the first rotation after it, or asked for again where the peer is gone.
func TestFormerLife(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	confirmed, lost := make(chan uint64, 1), make(chan uint64, 1)
	o := quick(r)
	o.Unconfirmed = 7
	o.Events.OnConfirmed = func(m uint64) { confirmed <- m }
	o.Events.OnLost = func(m uint64, _ error) { lost <- m }
	start := func() *emitter.Client {
		c, err := emitter.New(o)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := start()
	if m := <-confirmed; m != 7 {
		t.Errorf("confirmed %d", m)
	}
	_ = c.Close() // always nil
	r.Stop(emittertest.Kill)
	c = start()
	if m := <-lost; m != 0 {
		t.Errorf("lost from %d", m)
	}
	if s := c.Status(); s.Offered != 0 {
		t.Errorf("status %+v", s)
	}
	_ = c.Close() // always nil
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]emitter.Options{
		"no address":  {},
		"no port":     {Addresses: []string{"siem.example"}},
		"cert alone":  {Addresses: []string{"a:1"}, TLS: emitter.TLS{Cert: "x"}},
		"TLS version": {Addresses: []string{"a:1"}, TLS: emitter.TLS{MinVersion: 0x0301}},
	} {
		if _, err := emitter.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
