package lane

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/formats"
	"datasync/schemas"
)

// nothing is the journal of a shard whose tenants have nothing.
type nothing struct{}

func (nothing) Read(_ journal.TenantRef, from journal.Position, _ journal.ReadOptions, c *journal.Chunk) error {
	*c = journal.Chunk{Next: from}
	return nil
}
func (nothing) Standing(journal.TenantRef) journal.Standing               { return journal.Standing{} }
func (nothing) Release(journal.TenantRef, journal.Position)               {}
func (nothing) Pin(journal.TenantRef, journal.Position, journal.Position) {}
func (nothing) Unpin(journal.TenantRef, journal.Position)                 {}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestTenThousandIdleLanesCostLittle(t *testing.T) {
	const lanes, bound = 10_000, 1500
	spools, err := spool.NewBudget(0, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	r := NewRunner(RunnerOptions{Spools: spools, Quarantine: &refused{}, Now: time.Now})
	goroutines := runtime.NumGoroutine()
	go func() { defer close(done); r.Run(ctx) }()
	sink := dropSink("acme", &bucket{}, nil)
	sh := &Shard{Name: "edge-0-abc123", Journal: nothing{}, Home: state.At(&facts{})}
	before := inUse()
	for i := range lanes {
		r.Add(Beginning{Key: state.Key{Tenant: feeds.TenantID(fmt.Sprintf("tenant-%05d", i)), Sink: "drops"}, Shard: sh, Tenant: journal.TenantRef(i), Sink: sink})
	}
	if err := r.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	each := (inUse() - before) / lanes
	t.Logf("%d bytes an idle lane", each)
	if each > bound {
		t.Errorf("%d bytes an idle lane, more than %d", each, bound)
	}
	r.wg.Wait() // its workers have ended
	if n := runtime.NumGoroutine() - goroutines; n > 1 {
		t.Errorf("%d goroutines beside the clock's", n-1)
	}
	cancel()
	<-done
	runtime.KeepAlive(r)
}

// backlog gives the rig a tenant with many drops to make and another with one.
func twoTenants(t *testing.T) (r *rig, big, small state.Key) {
	r = newRig(t)
	each := func(s *tenants.Sink) { s.Deliver = tenants.Deliver{MaxEvents: 2, MaxAge: time.Nanosecond} }
	big = r.begin(dropSink("acme", &bucket{}, each))
	small = r.begin(dropSink("beta", &bucket{}, each))
	r.append("acme", 3000)
	r.until(big, "backlog", func(v View) bool { return v.End.Events == 3000 })
	return r, big, small
}

// byHand gives the next lane its turn and says whose it was.
func (r *rig) byHand() state.Key {
	r.runner.mu.Lock()
	defer r.runner.mu.Unlock()
	if len(r.runner.queue) == 0 {
		r.t.Fatal("nobody has anything to do")
	}
	k := r.runner.queue[0].Key
	r.runner.first()
	return k
}

func TestABacklogKeepsNobodyFromItsTurn(t *testing.T) {
	r, big, small := twoTenants(t)
	came := false
	r.runner.by[big][0].sink.Drops.(*bucket).after = func(put int, _ *Drop) error {
		if put == 5 { // within a turn of the lane with the backlog
			r.append("beta", 1)
			r.until(small, "event", func(v View) bool { return v.End.Events == 1 })
			came = true
		}
		return nil
	}
	for !came {
		r.byHand()
	}
	for turn := 1; ; turn++ {
		if r.byHand() == small {
			break
		}
		if turn == 3 {
			t.Fatalf("%d turns of a lane with a backlog before another's first", turn)
		}
	}
	if v := r.runner.Views(&big)[0]; v.Fact.Number > 8 {
		t.Errorf("a turn is more than one drop: %d", v.Fact.Number)
	}
}

// taking is a StreamSink that takes all.
type taking struct{ offers, largest int }

func (s *taking) Offer(lines []byte, _ Segment) bool {
	s.offers++
	s.largest = max(s.largest, len(lines))
	return true
}
func (s *taking) Room(_, most int) int        { return most }
func (s *taking) Restore(Segment) bool        { return true }
func (s *taking) Flush(context.Context) error { return nil }
func (s *taking) Close() error                { return nil }

func streamSink(tenant feeds.TenantID, to StreamSink) *Sink {
	return &Sink{Stream: &Stream{Sink: to}, Settings: &tenants.Sink{Tenant: tenant, Name: "siem", Emitter: &tenants.EmitterSink{},
		Output: tenants.Output{Schema: "canonical", Kinds: schemas.DefaultKinds, Sample: 1}}}
}

func TestATurnOfAStreamIsBounded(t *testing.T) {
	r := newRig(t)
	to := &taking{}
	k := r.begin(streamSink("acme", to))
	for range 12 {
		r.append("acme", 2500)
	}
	r.until(k, "backlog", func(v View) bool { return v.End.Events == 30_000 })
	r.byHand()
	if to.offers != streamTurn {
		t.Errorf("%d chunks in a turn", to.offers)
	}
	if to.largest > streamChunk || to.largest < streamChunk/2 {
		t.Errorf("%d bytes in an offer", to.largest)
	}
}

// TestAnOfferIsNoLargerThanTheSinkWants: hundreds of streams share the memory.
func TestAnOfferIsNoLargerThanTheSinkWants(t *testing.T) {
	r := newRig(t)
	to := &taking{}
	sink := streamSink("acme", to)
	sink.Stream.Chunk = 10_000
	k := r.begin(sink)
	for range 12 {
		r.append("acme", 2500)
	}
	r.until(k, "backlog", func(v View) bool { return v.End.Events == 30_000 })
	r.byHand()
	if to.offers != streamTurn || to.largest > 10_000 || to.largest < 5_000 {
		t.Errorf("%d offers of up to %d bytes", to.offers, to.largest)
	}
}

func TestAChangeOfSettingsDoesNotWaitForABacklog(t *testing.T) {
	r, big, _ := twoTenants(t)
	r.run()
	r.until(big, "first drops", func(v View) bool { return v.Fact.Number > 3 })
	r.runner.Swap(big, nil, 1)
	if v := r.runner.Views(&big)[0]; caughtUp(v) {
		t.Error("Swap waited until all of the backlog was delivered")
	} else if r.halt(); r.runner.Views(&big)[0].Fact != v.Fact {
		t.Error("the lane went on without its sink")
	}
}

func TestAFlushIsDoneOnce(t *testing.T) {
	r := newRig(t)
	k := r.begin(dropSink("acme", &bucket{}, nil))
	r.append("acme", 3)
	v := r.until(k, "events", func(v View) bool { return v.End.Events == 3 })
	r.append("acme", 3) // the lane reads them before it is told of them
	l := r.runner.by[k][0]
	s := r.runner.env.stepDrop(context.Background(), l, backlog{end: v.End, oldest: 1, flush: true})
	if s.err != nil || !s.flushed || s.fact.Pos.Events != 6 {
		t.Errorf("a flush goes on for as long as events come: %+v", s)
	}
	if s := r.runner.env.stepDrop(context.Background(), l, backlog{fact: s.fact, end: v.End, oldest: 1, flush: true}); s.err != nil || !s.flushed || s.due != 0 {
		t.Errorf("a lane that is ahead of what it was told has nothing to do: %+v", s)
	}

	l.sink = dropSink("acme", &bucket{}, func(set *tenants.Sink) { set.Output.Kinds = 1 << schemas.KindAudit })
	s = r.runner.env.stepDrop(context.Background(), l, backlog{end: v.End, oldest: 1})
	if s.err != nil || s.flushed || s.fact.Filtered != 6 {
		t.Errorf("a flush asked for during this turn is taken for done: %+v", s)
	}
}

func TestALaneIsWellAgainWithoutADelivery(t *testing.T) {
	r := newRig(t)
	sink := dropSink("acme", &bucket{}, func(s *tenants.Sink) { s.Output.Kinds = 1 << schemas.KindAudit; s.Deliver.MaxAge = time.Nanosecond })
	k := r.begin(sink)
	log := r.shard.Journal
	r.shard.Journal = unreadable{log}
	r.append("acme", 3)
	r.until(k, "events", func(v View) bool { return v.End.Events == 3 })
	for r.runner.Views(&k)[0].Status.State == Running {
		r.byHand()
	}
	r.shard.Journal = log
	r.runner.Do(k, OrderRetry)
	for !caughtUp(r.runner.Views(&k)[0]) {
		r.byHand()
	}
	if v := r.runner.Views(&k)[0]; v.Status.State != Running || v.Status.Message != "" {
		t.Fatalf("nothing is wrong any more: %+v", v.Status)
	}
	r.append("acme", 3)
	r.until(k, "more events", func(v View) bool { return v.End.Events == 6 })
	for !caughtUp(r.runner.Views(&k)[0]) {
		r.byHand()
	}
}

// unreadable is a journal on a disk that fails.
type unreadable struct{ Journal }

func (unreadable) Read(journal.TenantRef, journal.Position, journal.ReadOptions, *journal.Chunk) error {
	return errTest
}

func TestOnlyStopCancelsForGood(t *testing.T) {
	r := newRig(t)
	k := r.begin(dropSink("acme", &bucket{fail: func(int, *Drop) error { return fmt.Errorf("a client's own: %w", context.Canceled) }}, nil))
	r.append("acme", 3)
	r.until(k, "events", func(v View) bool { return v.End.Events == 3 })
	r.runner.Do(k, OrderFlush)
	for r.runner.Views(&k)[0].Status.State == Running {
		r.byHand()
	}
	if v := r.runner.Views(&k)[0]; v.Status.NextRetry == 0 {
		t.Errorf("it is never tried again: %+v", v.Status)
	}
}

func TestAPauseIsWhatIsShown(t *testing.T) {
	s := Status{State: Paused, Message: "paused by a person", Since: 5}
	want := s
	if s.fail(&Error{Park: true, Class: Auth, Err: errTest}, 10, 0) || s != want {
		t.Errorf("a late failure: %+v", s)
	}
	if s.becomes(delivered, 10) || s != want {
		t.Errorf("a late success: %+v", s)
	}
}

func TestTroubleOfAConnectionOutlivesAPause(t *testing.T) {
	r := newRig(t)
	sink := streamSink("acme", &taking{})
	k := r.begin(sink)
	r.runner.Trouble(sink.Stream, &Trouble{Err: &Error{Class: Connect, Err: errTest}})
	r.runner.Do(k, OrderPause)
	if v := r.runner.Views(&k)[0]; v.Status.State != Paused || v.Status.Class != "" {
		t.Fatalf("%+v", v.Status)
	}
	r.runner.Do(k, OrderResume)
	if v := r.runner.Views(&k)[0]; v.Status.State != Waiting || v.Status.Class != Connect {
		t.Errorf("the connection is as bad as before the pause: %+v", v.Status)
	}
	r.runner.Trouble(sink.Stream, nil)
	if v := r.runner.Views(&k)[0]; v.Status.State != Running || v.Status.Class != "" {
		t.Errorf("the connection is well: %+v", v.Status)
	}
}

// freed is a journal that remembers what it was allowed to free.
type freed struct {
	Journal
	to *journal.Position
}

func (f freed) Release(_ journal.TenantRef, p journal.Position) { *f.to = p }

func TestARemovedSinkLetsGoInTheEnd(t *testing.T) {
	r := newRig(t)
	var low journal.Position
	r.shard.Journal = freed{r.log, &low}
	sink := dropSink("acme", &bucket{}, nil)
	k := r.begin(sink)
	r.runner.Swap(k, nil, time.Now().UnixMilli())
	r.append("acme", 9)
	r.until(k, "events", func(v View) bool { return v.End.Events == 9 })
	r.runner.Tidy()
	if low.Events != 0 {
		t.Fatalf("%d events are free at once", low.Events)
	}
	r.runner.Swap(k, nil, time.Now().Add(-25*time.Hour).UnixMilli())
	r.runner.Tidy()
	if end := r.log.Standing(r.log.Tenant("acme")).End; low != end {
		t.Errorf("free up to %+v of %+v", low, end)
	}
}

func TestNoEmptyDropsForTheTimeWeWereDown(t *testing.T) {
	g := newGround(t)
	h := newHand(t, nil, g)
	v := &vault{h: h, objs: map[string][]byte{}, calm: true}
	set := tenants.Sink{Output: tenants.Output{Format: formats.NDJSON, Schema: "canonical", Kinds: schemas.DefaultKinds, Sample: 1},
		Deliver: tenants.Deliver{Schedule: every(time.Minute), Manifest: true, Empty: true}}
	h.append(0, 3)
	h.append(1, 3)
	h.vault(v, &set)
	v.settle()
	h.append(0, 3)
	for _, f := range h.facts {
		f.harden(len(f.soft))
	}
	g.clock.Add(time.Hour.Milliseconds())
	h.vault(v, &set)
	v.settle()
	for i, view := range h.runner.Views(&h.key) {
		if f := view.Fact; f.Number > 3 || f.Settled() != uint64(h.made[i]) {
			t.Errorf("%s: %d drops, %+v", view.Shard, f.Number, f)
		}
	}
}

func TestEventsAreOfferedWhateverTheConnectionSuffersFrom(t *testing.T) {
	r := newRig(t)
	to := &taking{}
	sink := streamSink("acme", to)
	k := r.begin(sink)
	r.byHand()
	r.runner.Trouble(sink.Stream, &Trouble{Err: &Error{Class: Connect, Err: errTest}})
	r.append("acme", 3)
	r.until(k, "events", func(v View) bool { return v.End.Events == 3 })
	if r.byHand(); to.offers != 1 { // or nothing would make the emitter dial
		t.Errorf("%d offers", to.offers)
	}
}

func TestFailureIsAlwaysAnError(t *testing.T) {
	own := &Error{Verdict: Wait, Class: Throttled, Err: errTest}
	if got := failure(fmt.Errorf("around: %w", own)); got != own {
		t.Errorf("%+v", got)
	}
	if got := failure(context.DeadlineExceeded); got.Verdict != Away || got.Class != Timeout {
		t.Errorf("%+v", got)
	}
	if got := failure(errTest); got.Verdict != Away || got.Class != Reset || got.Park || !errors.Is(got, errTest) {
		t.Errorf("unknown means away: %+v", got)
	}
}

// TestTheEndOfTroubleIsTold: mended by other settings, or after a pause, a sink
// is told of once it runs again, not before it does, and not never.
func TestTheEndOfTroubleIsTold(t *testing.T) {
	r := newRig(t)
	var told []State
	r.runner.o.OnState = func(_ state.Key, _ string, s Status) { told = append(told, s.State) }
	set := func(s *tenants.Sink) { s.Deliver.MaxAge = time.Nanosecond }
	bad := dropSink("acme", &bucket{fail: func(int, *Drop) error { return &Error{Park: true, Class: NotFound, Err: errTest} }}, set)
	k := r.begin(bad)
	r.append("acme", 1)
	r.until(k, "event", func(v View) bool { return v.End.Events == 1 })
	for r.runner.Views(&k)[0].Status.State == Running {
		r.byHand()
	}
	r.runner.Swap(k, bad, 0) // other settings, as wrong
	if v := r.runner.Views(&k)[0]; v.Status.State != Parked || v.Status.NextRetry != 0 {
		t.Errorf("before it was tried again: %+v", v.Status)
	}
	r.byHand()
	r.runner.Do(k, OrderPause)
	r.runner.Do(k, OrderResume)
	r.byHand()
	r.runner.Swap(k, dropSink("acme", &bucket{}, set), 0)
	for !caughtUp(r.runner.Views(&k)[0]) {
		r.byHand()
	}
	if want := []State{Parked, Paused, Running, Parked, Running}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

// A clock that is set: nobody waits until an old time has come again, the
// pending drop keeps its key, nothing is free that was not delivered, and there
// are as many empty drops as in a week at the most.
func TestTheClockIsSet(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 10 * year, -10 * year} {
		for _, scheduled := range []bool{false, true} {
			g := newGround(t)
			g.clock.Add((20 * year).Milliseconds())
			h := newHand(t, nil, g)
			v := &vault{h: h, objs: map[string][]byte{}, calm: true}
			set := tenants.Sink{Output: tenants.Output{Format: formats.NDJSON, Schema: "canonical", Kinds: schemas.DefaultKinds, Sample: 1},
				Deliver: tenants.Deliver{MaxAge: 30 * time.Second, Manifest: true}}
			if scheduled {
				set.Deliver = tenants.Deliver{Schedule: every(time.Hour), Manifest: true, Empty: true}
			}
			h.append(0, 6)
			away := &failing{DropSink: v, times: 2}
			h.vault(v, &set)
			h.sink.Drops = away
			for away.times == 2 { // until the drop is recorded, and its put failed
				if !h.turn() && !h.wait(1<<40) {
					t.Fatal("nothing is due")
				}
			}
			low := g.logs[0].Standing(g.logs[0].Tenant(h.key.Tenant)).Oldest
			h.jump(jump)
			if at := g.logs[0].Standing(g.logs[0].Tenant(h.key.Tenant)).Oldest; at != low {
				t.Errorf("%v: free up to %+v, from %+v", jump, at, low)
			}
			began := g.clock.Load()
			v.settle()
			if took := g.clock.Load() - began; took > time.Minute.Milliseconds() {
				t.Errorf("%v: delivered only after %v", jump, time.Duration(took)*time.Millisecond)
			}
			if len(away.keys) == 0 || v.objs[away.keys[0]] == nil {
				t.Errorf("%v: the drop %v was not stored under its key", jump, away.keys)
			}
			h.append(0, 3)
			began = g.clock.Load()
			v.settle()
			if took := g.clock.Load() - began; took > 2*time.Hour.Milliseconds() {
				t.Errorf("%v: what came then was delivered after %v", jump, time.Duration(took)*time.Millisecond)
			}
			if n := h.runner.Views(&h.key)[0].Fact.Number; n > 7*24+4 {
				t.Errorf("%v: %d drops", jump, n)
			}
			h.balance()
		}
	}
}

// failing is a DropSink that is away a few times, and notes the keys.
type failing struct {
	DropSink
	times int
	keys  []string
}

func (f *failing) Put(ctx context.Context, d *Drop) error {
	if f.times--; f.times >= 0 {
		f.keys = append(f.keys, d.Key)
		return &Error{Verdict: Away, Class: Connect, Err: errTest}
	}
	return f.DropSink.Put(ctx, d)
}
