package lane

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/feeds/journal"
)

// RunnerOptions configure a Runner. Spools and Quarantine are required.
type RunnerOptions struct {
	Spools     *spool.Budget
	Quarantine Quarantine
	JournalID  string
	// Retain is how long a removed sink keeps its events; 0 is 24 h.
	Retain time.Duration
	// Workers is how many turns go on at once; 0 is 1024: most wait for a
	// destination. Those that hang take a part of them only (package turns).
	// Encoders is how many may encode at once; 0 is one for each processor.
	Workers, Encoders int
	Now               func() time.Time // nil: time.Now
	// Chance gives the jitter of back-offs, in [0,1); nil: chance.
	Chance func() float64
	// OnState is told of each change of a lane's state, with the Runner's lock
	// held: it must only take note.
	OnState func(k state.Key, shard string, s Status)
}

func (o RunnerOptions) withDefaults() RunnerOptions {
	if o.Retain == 0 {
		o.Retain = 24 * time.Hour
	}
	if o.Workers == 0 {
		o.Workers = 1024
	}
	if o.Encoders == 0 {
		o.Encoders = runtime.GOMAXPROCS(0)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Chance == nil {
		o.Chance = rand.Float64
	}
	if o.OnState == nil {
		o.OnState = func(state.Key, string, Status) {}
	}
	return o
}

// Beginning is a lane to be added: where its facts say it stands.
type Beginning struct {
	Key    state.Key
	Shard  *Shard
	Tenant journal.TenantRef
	Fact   state.Lane
	Drop   *state.Drop // recorded and not completed; nil: none
	Sink   *Sink       // nil: no longer configured
	Gone   int64       // since when, ms UTC
	Paused *state.Pause
}

// Add adds a lane; it takes its first turn at once where something waits. The
// caller adds a lane of one key and shard once.
func (r *Runner) Add(b Beginning) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.ContainsFunc(r.by[b.Key], func(l *Lane) bool { return l.shard == b.Shard }) {
		return
	}
	l := &Lane{Key: b.Key, shard: b.Shard, tenant: b.Tenant, sink: b.Sink, fact: b.Fact, gone: b.Gone, drop: b.Drop}
	now := r.env.now()
	l.status = Status{State: Running, Since: now}
	l.end = b.Shard.Journal.Standing(b.Tenant).End
	l.sent = l.fact.Pos
	// Ticks that passed while nobody ran are not made up for with empty drops;
	// those with data are found by the age of the data.
	l.fact.Tick = max(l.fact.Tick, now)
	if b.Drop != nil {
		b.Shard.Journal.Pin(b.Tenant, b.Drop.From, b.Drop.To)
	}
	if b.Paused != nil {
		l.byHand = b.Paused.Since
	}
	r.settle(l)
	r.by[b.Key] = append(r.by[b.Key], l)
	set := tenantID{b.Shard, b.Tenant}
	r.sets[set] = append(r.sets[set], l)
	r.join(l)
	r.release(l)
	r.schedule(l, true, 0)
}

// join makes l one of its stream's lanes.
func (r *Runner) join(l *Lane) {
	if l.sink == nil {
		return
	}
	s := l.sink.Stream
	restored := false
	if s != nil {
		s.lanes = append(s.lanes, l)
		if l.drop != nil { // the sink took drops before
			l.shard.Journal.Unpin(l.tenant, l.drop.From)
			l.drop.Abandon(&l.fact)
			l.drop = nil
		}
		restored = l.fact.Read.Seq > l.fact.Pos.Seq && s.Sink.Restore(Segment{Lane: l, From: l.fact.Pos, To: l.fact.Read, Counts: l.fact.ReadCounts})
	}
	if restored {
		l.sent = l.fact.Read
		return
	}
	l.fact.Repeats += l.fact.ReadCounts.Events
	l.fact.Read, l.fact.ReadCounts = l.fact.Pos, state.Counts{}
}

// Arrived takes in the events of a new commit of a shard. Tenants whose lanes
// in this shard do not exist yet are returned; the caller Adds them.
func (r *Runner) Arrived(sh *Shard, as []journal.Arrival) (strangers []journal.Arrival) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range as {
		a := &as[i]
		lanes := r.sets[tenantID{sh, a.Tenant}]
		if len(lanes) == 0 {
			strangers = append(strangers, *a)
			continue
		}
		for _, l := range lanes {
			r.arrived(l, a)
		}
	}
	return strangers
}

func (r *Runner) arrived(l *Lane, a *journal.Arrival) {
	idle := l.fact.Pos.Events >= l.end.Events
	l.end = journal.Position{Seq: l.end.Seq, Events: a.Start.Events + uint64(a.Events), Bytes: a.Start.Bytes + uint64(a.Bytes)}
	if idle {
		l.oldest = a.Committed
	}
	if l.sink == nil || l.queued {
		return
	}
	if l.sink.Stream != nil {
		if !l.wantsRoom && l.due == 0 { // trouble of the connection is no reason to wait: it dials for what is offered
			r.schedule(l, true, 0)
		}
		return
	}
	if l.status.State != Running && !l.busy {
		return // it looks again when its retry is due
	}
	b := backlog{fact: l.fact, end: l.end, oldest: l.oldest}
	if !l.busy {
		b.tried = l.tried
	}
	if idle || full(&l.sink.Settings.Deliver, &b) {
		r.schedule(l, true, 0)
	}
}

// settle sets the status of a lane that is added, paused or resumed, or has
// another sink. One that was in trouble stays so until a turn shows that it is
// over: its end is told then, and no sooner.
func (r *Runner) settle(l *Lane) {
	was := l.status
	switch {
	case l.sink == nil:
		l.status = Status{State: Paused, Since: l.gone, Message: "its sink is no longer configured"}
	case l.byHand != 0:
		l.status = Status{State: Paused, Since: l.byHand, Message: "paused by a person"}
	case was.State == Paused || was.State == Running:
		l.status = Status{State: Running, Since: r.env.now()}
	default:
		l.status.failures, l.status.NextRetry = 0, 0
	}
	if l.status.State != was.State {
		r.o.OnState(l.Key, l.shard.Name, l.status)
	}
	if l.status.State != Paused && l.sink.Stream != nil && l.sink.Stream.trouble != nil {
		r.troubled(l, l.sink.Stream.trouble)
	}
}

// Swap gives the lanes of a key another sink (its settings changed), or none
// (it is no longer configured, since gone, ms UTC). It waits for turns under
// way with the old sink.
func (r *Runner) Swap(k state.Key, sink *Sink, gone int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.by[k] {
		l.held = true // or one with a backlog would be busy again at once, and again
	}
	for _, l := range r.by[k] {
		for l.busy {
			r.ended.Wait()
		}
		old := l.sink
		same := old != nil && sink != nil && old.Stream != nil && old.Stream == sink.Stream
		if old != nil && old.Stream != nil && !same {
			old.Stream.lanes = slices.DeleteFunc(old.Stream.lanes, func(o *Lane) bool { return o == l })
		}
		l.sink, l.gone, l.tried, l.wantsRoom, l.held = sink, gone, estimate{}, false, false
		r.settle(l)
		if !same {
			l.sent = l.fact.Pos
			r.join(l)
		}
		r.schedule(l, true, 0)
	}
}

// Tidy is to be called every few seconds: it lets go of what sinks that were
// removed longer than Retain ago held back, and calls a long wait suspended.
func (r *Runner) Tidy() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.env.now()
	if now < r.seen-clockSlack {
		r.rewind(now)
	}
	r.seen = now
	r.poke() // the clock may have been set forward: look who is due
	for _, ls := range r.by {
		for _, l := range ls {
			if l.gone != 0 {
				r.release(l)
			}
			st := &l.status
			if st.State == Waiting && now-st.failingSince >= suspendAfter.Milliseconds() && st.becomes(failedLong, now) {
				r.o.OnState(l.Key, l.shard.Name, *st)
			}
		}
	}
}

// clockSlack is how much the clock may run back unnoticed, ms.
const clockSlack = 2000

// rewind brings all times that lie ahead back to now: the clock was set back,
// and nobody waits until it has come again. Callers hold mu.
func (r *Runner) rewind(now int64) {
	for _, ls := range r.by {
		for _, l := range ls {
			l.oldest, l.gone, l.byHand = min(l.oldest, now), min(l.gone, now), min(l.byHand, now)
			st := &l.status
			st.Since, st.NextRetry, st.failingSince = min(st.Since, now), min(st.NextRetry, now), min(st.failingSince, now)
		}
	}
	for _, l := range r.timers {
		l.due = min(l.due, now)
	}
	heap.Init(&r.timers)
}

// Order is what a person can tell a sink's lanes to do.
type Order string

// The orders.
const (
	OrderPause  Order = "pause"
	OrderResume Order = "resume"
	OrderRetry  Order = "retry" // now, whatever the back-off
	OrderFlush  Order = "flush" // cut a drop of what is there now
)

// Do gives an order to all lanes of a key; false: there are none. Making a
// pause durable is the caller's.
func (r *Runner) Do(k state.Key, o Order) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ls := r.by[k]
	for _, l := range ls {
		switch o {
		case OrderPause:
			l.byHand = r.env.now()
			r.settle(l)
			r.schedule(l, false, 0)
		case OrderResume:
			l.byHand = 0
			r.settle(l)
			r.schedule(l, true, 0)
		case OrderRetry:
			r.schedule(l, true, 0)
		case OrderFlush:
			l.flush = l.sink != nil && l.sink.Drops != nil
			r.schedule(l, true, 0)
		}
	}
	return len(ls) > 0
}

// View is a lane as it stands, for people.
type View struct {
	Key    state.Key
	Shard  string
	Fact   state.Lane
	End    journal.Position
	Oldest int64 // when the oldest undelivered event was committed, ms UTC; 0: none or not known yet
	Status Status
	Sink   *Sink // nil: no longer configured
}

// Views are all lanes, those of one key where k is not nil, in no order.
func (r *Runner) Views(k *state.Key) []View {
	r.mu.Lock()
	defer r.mu.Unlock()
	vs := make([]View, 0, len(r.by))
	add := func(ls []*Lane) {
		for _, l := range ls {
			vs = append(vs, View{Key: l.Key, Shard: l.shard.Name, Fact: l.fact, End: l.end, Oldest: l.oldest, Status: l.status, Sink: l.sink})
		}
	}
	if k != nil {
		add(r.by[*k])
		return vs
	}
	for _, ls := range r.by {
		add(ls)
	}
	return vs
}

// Settled waits until no lane has a turn under way or waiting.
func (r *Runner) Settled(ctx context.Context) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		r.mu.Lock()
		quiet := len(r.queue) == 0 && r.workers == 0
		r.mu.Unlock()
		if quiet {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pools recycles the workers' read buffers.
type pools struct{ chunks sync.Pool }

func (p *pools) chunk() *journal.Chunk {
	if c, ok := p.chunks.Get().(*journal.Chunk); ok {
		return c
	}
	return &journal.Chunk{}
}

func (p *pools) putChunk(c *journal.Chunk) { p.chunks.Put(c) }
