package simulation_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	"datasync/feeds/journal/journaltest"
)

// step is something that happens; weight is how often, among all.
type step struct {
	name   string
	weight int
	do     func(w *world)
}

// steps are what may happen. Each draws what it needs from the plan's chance,
// and from nothing else.
var steps = []step{
	{"burst", 40, (*world).burst},
	{"receiver", 14, (*world).meddleReceiver},
	{"cross", crosses, (*world).cross},
	{"s3", 6, (*world).meddleS3},
	{"kinesis", 6, (*world).meddleStreams},
	{"disk", 5, (*world).meddleDisk},
	{"order", 4, (*world).order},
	{"reload", 4, (*world).reload},
	{"clock", 2, (*world).jump},
	{"power cut", 3, func(w *world) { w.cutAtAnyCall(); w.crash(true); w.up() }},
	{"kill", 3, func(w *world) { w.cutAtAnyCall(); w.crash(false); w.up() }},
	{"stop", 2, func(w *world) { w.restart() }},
}

// next does one step and lets some time pass.
func (w *world) next() {
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := w.plan.rng.IntN(total)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			w.trace("step: %s", s.name)
			s.do(w)
			break
		}
	}
	w.pass()
	w.putBack(5 * time.Minute)
}

// pass lets time pass: moments mostly, sometimes a minute.
func (w *world) pass() {
	most := []time.Duration{time.Millisecond, 30 * time.Millisecond, time.Second, 8 * time.Second, 90 * time.Second}
	d := most[w.plan.rng.IntN(len(most))]
	pause(context.Background(), time.Duration(w.plan.rng.Int64N(int64(d))))
}

// cutAtAnyCall has the disk stop at one of its next calls, if they come soon.
func (w *world) cutAtAnyCall() {
	if w.plan.rng.IntN(3) > 0 {
		return
	}
	w.spare()
	w.doubt.Add(1)
	w.disk.StopAt(w.disk.Ops() + 1 + w.plan.rng.IntN(12))
	w.burst()
	pause(context.Background(), time.Duration(w.plan.rng.IntN(40))*time.Millisecond)
}

// restart stops in good order and starts again.
func (w *world) restart() {
	healthy := !w.failing.Load()
	if err := w.stop(); err != nil && healthy && !w.scarred {
		w.wrong("a clean stop ended with %v", err)
	}
	w.scarred = false
	w.up()
}

func (w *world) meddleReceiver() {
	if len(w.receivers) == 0 {
		return
	}
	r := w.receivers[w.plan.rng.IntN(len(w.receivers))]
	n := w.plan.rng.IntN(10)
	w.trace("receiver %s: %d", r.key, n)
	switch n {
	case 0:
		r.down(killed)
	case 1:
		r.down(vanished)
	case 2:
		r.stop()
	case 3:
		r.freeze()
	case 4:
		w.net.Block(r.address, true)
	case 5: // killed and back at once
		r.down(killed)
		r.raise()
	case 8: // as a restart of its service has it
		r.stop()
		r.raise()
	case 6:
		r.dieFrozen()
	case 7:
		r.readLate()
	default:
		r.raise()
	}
}

// cross has a receiver end with lines on their way, while posts come of which
// its sink wants nothing: the sink's offers are empty then.
func (w *world) cross() {
	if len(w.receivers) == 0 {
		return
	}
	rng := w.plan.rng
	r := w.receivers[rng.IntN(len(w.receivers))]
	w.trace("receiver %s: cross", r.key)
	r.raise()
	tenant, _, _ := strings.Cut(r.key, "/")
	w.post(tenant, mixed, 20)
	pause(context.Background(), time.Duration(rng.IntN(60))*time.Millisecond)
	for range 16 {
		w.post(tenant, apart, 2)
	}
	pause(context.Background(), time.Duration(rng.IntN(4000))*time.Microsecond)
	r.down(end(rng.IntN(3)))
	r.raise()
}

// dieFrozen stops the process with lines on their way and a drain due, kills
// it, and has it back before anybody dials. Not where a bare FIN is taken for an
// answer: such a death looks like one.
func (r *receiver) dieFrozen() {
	if r.weak {
		return
	}
	r.freeze()
	r.w.burst()
	pause(context.Background(), time.Duration(r.w.plan.rng.Int64N(int64(5*time.Second))))
	r.down(killed)
	r.raise()
}

// readLate has a receiver stand still until a drain is due, read all of it at
// once, and forget what it had not stored.
func (r *receiver) readLate() {
	r.raise()
	tenant, _, _ := strings.Cut(r.key, "/")
	r.w.post(tenant, mixed, 20)
	r.freeze()
	pause(context.Background(), time.Second+time.Duration(r.w.plan.rng.Int64N(int64(4*time.Second))))
	r.forget(time.Duration(r.w.plan.rng.IntN(300)) * time.Millisecond)
	r.thaw()
}

// raise has a receiver run, whatever it was.
func (r *receiver) raise() {
	r.w.net.Block(r.address, false)
	r.thaw()
	r.mu.Lock()
	host := r.host
	r.mu.Unlock()
	host.Reboot()
	if err := r.start(); err != nil {
		r.w.wrong("%v", err)
	}
}

func (w *world) meddleS3() {
	w.s3.mu.Lock()
	w.s3.failing = []float64{0, 0.3, 0.7, 1}[w.plan.rng.IntN(4)]
	w.s3.mu.Unlock()
	w.net.Block(s3Address, w.plan.rng.IntN(6) == 0)
}

func (w *world) meddleStreams() {
	for _, name := range sorted(w.streams) {
		s := w.streams[name]
		losing := []float64{0, 0, 0.2}[w.plan.rng.IntN(3)]
		failing := []float64{0, 0.2, 0.6}[w.plan.rng.IntN(3)]
		rate := []float64{0, 0, 20}[w.plan.rng.IntN(3)]
		away := w.plan.rng.IntN(6) == 0
		if w.plan.rng.IntN(4) == 0 {
			s.Split()
		} else if w.plan.rng.IntN(4) == 0 {
			s.Merge()
		}
		s.Lock()
		s.Losing, s.Failing, s.RecordRate = losing, failing, rate
		s.Whole = nil
		if away {
			s.Whole = func() (int, string) { return 500, `{"__type":"InternalFailure"}` }
		}
		s.Unlock()
	}
	w.net.Block(streamAddress, w.plan.rng.IntN(8) == 0)
}

// meddleDisk lets calls of some kinds fail: the n-th of them alone, or all for a while.
func (w *world) meddleDisk() {
	rng := w.plan.rng
	kinds := [][]journaltest.Op{{journaltest.Sync}, {journaltest.Write}, {journaltest.SyncDir}, {journaltest.Remove},
		{journaltest.Resize, journaltest.Write, journaltest.Create}, {journaltest.Sync, journaltest.Write, journaltest.Create, journaltest.Resize}}
	n := rng.IntN(len(kinds))
	errno := syscall.EIO
	if n == 4 {
		errno = syscall.ENOSPC
	}
	wait, times := rng.IntN(6), 1
	if rng.IntN(3) == 0 {
		times = 1 + rng.IntN(60)
	}
	w.trace("disk: %v %v, after %d, %d times", kinds[n], errno, wait, times)
	w.doubt.Add(1)
	w.failing.Store(true)
	w.scarred = true
	w.faulty.Fail(func(op journaltest.Op, _ string) error {
		for _, k := range kinds[n] {
			if op != k {
				continue
			}
			if wait > 0 {
				wait--
				return nil
			}
			if times == 0 {
				return nil
			}
			times--
			return errno
		}
		return nil
	})
	w.burst()
	pause(context.Background(), time.Duration(rng.Int64N(int64(20*time.Second))))
	w.mend()
	if w.life.svc.Views() != nil && w.stopped() {
		w.trace("the journal has stopped: restart")
		w.restart()
	}
}

// mend ends the disk's faults.
func (w *world) mend() {
	w.faulty.Fail(nil)
	w.doubt.Add(1)
	w.failing.Store(false)
}

// order gives an order of an operator's.
func (w *world) order() {
	s := w.plan.sinks[w.plan.rng.IntN(len(w.plan.sinks))]
	what := w.plan.one("pause", "resume", "retry", "flush")
	said := w.admin(fmt.Sprintf("/v1/lanes/%s/%s/%s", s.tenant, s.name, what))
	w.trace("order %s %s %s", what, s.key(), said)
}

// reload adds the sinks that come late, or takes one away for a while.
func (w *world) reload() {
	s := w.plan.sinks[w.plan.rng.IntN(len(w.plan.sinks))]
	switch {
	case s.late && s.since == 0:
		s.there = true
		w.read()
		s.since = int64(w.since())
		w.trace("sink %s is there", s.key())
	case !s.full && !s.late && s.there && w.gone == nil:
		s.there, w.gone, w.goneAt = false, s, w.since()
		w.read()
		w.trace("sink %s is gone", s.key())
	default:
		w.putBack(0)
	}
}

// putBack puts a sink back that is gone for longer than long.
func (w *world) putBack(long time.Duration) {
	if w.gone == nil || w.since()-w.goneAt < long {
		return
	}
	w.gone.there = true
	w.read()
	w.trace("sink %s is back", w.gone.key())
	w.gone = nil
}

func (w *world) read() {
	w.spare()
	if err := w.plan.write(); err != nil {
		w.t.Fatal(err)
	}
	w.life.svc.Reload()
	w.settle() // a sink that went has flushed, and watches no more
}

// jump sets the wall clock forward or back.
func (w *world) jump() {
	if w.gone != nil {
		return // what a sink that is gone has to keep expires by that clock
	}
	by := []time.Duration{-time.Hour, time.Hour, -20 * time.Second, 20 * time.Second, 26 * time.Hour}[w.plan.rng.IntN(5)]
	if by > time.Minute {
		w.posting.Wait() // for ten minutes of that clock a key is remembered
	}
	w.trace("the clock jumps by %v", by)
	w.ahead.Add(int64(by))
}
