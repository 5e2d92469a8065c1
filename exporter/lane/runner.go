package lane

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"datasync/exporter/lane/turns"
	"datasync/exporter/state"
	"datasync/feeds/journal"
)

// Runner owns the scheduling of all lanes: this file holds every move between
// idle, queued and busy. Due lanes wait in one queue, first come first served,
// and each turn does a bounded piece of work, so that a lane with a backlog
// slows nobody; package turns keeps those that hang from taking all turns. An idle lane is a struct in a map: no goroutine, no buffer.
type Runner struct {
	env  env
	o    RunnerOptions
	mu   sync.Mutex
	by   map[state.Key][]*Lane // one for each shard
	sets map[tenantID][]*Lane
	// queue holds lanes ready for a turn, timers those with a due time.
	queue  []*Lane
	timers timers
	// turns bounds how many drops are under way, of each sink and place; a lane
	// that waits in there stays queued.
	turns   *turns.Turns[*Lane]
	workers int
	started bool
	stopped bool
	wake    chan struct{}
	seen    int64 // the time at the last Tidy, ms UTC
	// ended is told when a turn or a worker ends, and when a stream falls into trouble.
	ended  sync.Cond
	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc
}

type tenantID struct {
	shard *Shard
	ref   journal.TenantRef
}

// NewRunner makes a runner; Run starts its clock.
func NewRunner(o RunnerOptions) *Runner {
	o = o.withDefaults()
	r := &Runner{o: o, by: map[state.Key][]*Lane{}, sets: map[tenantID][]*Lane{},
		turns: turns.New[*Lane](o.Workers - o.Workers/8), wake: make(chan struct{}, 1)}
	r.ended.L = &r.mu
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.env = env{spools: o.Spools, quarantine: o.Quarantine, cpu: make(chan struct{}, o.Encoders),
		now: func() int64 { return o.Now().UnixMilli() }, journalID: o.JournalID, pools: &pools{}}
	return r
}

// Run gives turns to the lanes added so far and from now on, and wakes lanes
// when they are due, until ctx ends. Turns under way go on until Stop.
func (r *Runner) Run(ctx context.Context) {
	r.mu.Lock()
	r.started = true
	for range min(len(r.queue), r.o.Workers) {
		r.hire()
	}
	r.mu.Unlock()
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		t.Reset(r.fire())
		select {
		case <-t.C:
		case <-r.wake:
		case <-ctx.Done():
			return
		}
	}
}

// fire queues the lanes that are due and says how long until the next is.
func (r *Runner) fire() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.env.now()
	for len(r.timers) > 0 && r.timers[0].due <= now {
		l := heap.Pop(&r.timers).(*Lane)
		l.due = 0
		r.enqueue(l)
	}
	if len(r.timers) == 0 {
		return time.Hour
	}
	return max(time.Duration(r.timers[0].due-now)*time.Millisecond, time.Millisecond)
}

// Drain waits until what is due is done: no lane has a turn or waits for one,
// and no stream that works is short of room. What is due later, and lanes whose
// destination is away, are not waited for. An error: ctx ended first.
func (r *Runner) Drain(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended.Broadcast()
	})()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.quiet() {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.ended.Wait()
	}
	return nil
}

// quiet says whether nothing is due; mu is held.
func (r *Runner) quiet() bool {
	if r.workers > 0 || len(r.queue) > 0 {
		return false
	}
	for _, lanes := range r.by {
		for _, l := range lanes {
			if l.wantsRoom && l.status.State != Paused && l.sink != nil && l.sink.Stream != nil && l.sink.Stream.trouble == nil {
				return false
			}
		}
	}
	return true
}

// Stop lets no new turn begin and waits for those under way; when ctx ends
// first they are cancelled. Positions stay where they are.
func (r *Runner) Stop(ctx context.Context) error {
	r.mu.Lock()
	r.stopped = true
	r.queue = nil
	r.mu.Unlock()
	done := make(chan struct{})
	go func() { r.wg.Wait(); close(done) }()
	select {
	case <-done:
		r.cancel()
		return nil
	case <-ctx.Done():
		r.cancel()
		<-done
		return ctx.Err()
	}
}

// schedule sets when an idle lane is looked at next: at once, at due, or when
// data comes. Callers hold mu.
func (r *Runner) schedule(l *Lane, now bool, due int64) {
	if l.status.State == Paused || l.sink == nil {
		now, due = false, 0
	}
	if now {
		r.enqueue(l)
		return
	}
	if due == l.due || l.queued {
		return
	}
	if l.due != 0 {
		heap.Remove(&r.timers, l.heapAt)
	}
	if l.due = due; due != 0 {
		heap.Push(&r.timers, l)
		if l.heapAt == 0 {
			r.poke()
		}
	}
}

func (r *Runner) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// enqueue gives the lane a turn; one that has its turn gets another after it.
func (r *Runner) enqueue(l *Lane) {
	if l.due != 0 {
		heap.Remove(&r.timers, l.heapAt)
		l.due = 0
	}
	if l.busy {
		l.again = true
		return
	}
	if l.queued || r.stopped {
		return
	}
	l.queued = true
	r.ready(l)
}

// ready puts a queued lane where workers take theirs from.
func (r *Runner) ready(l *Lane) {
	if r.stopped {
		return
	}
	r.queue = append(r.queue, l)
	if r.started && r.workers < r.o.Workers {
		r.hire()
	}
}

// hire starts a worker; mu is held.
func (r *Runner) hire() {
	r.workers++
	r.wg.Add(1)
	go r.work()
}

// work gives turns until the queue is empty.
func (r *Runner) work() {
	defer r.wg.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 && !r.stopped {
		r.first()
	}
	r.workers--
	r.ended.Broadcast()
}

// first gives the lane at the head of the queue its turn; mu is held.
func (r *Runner) first() {
	l := r.queue[0]
	r.queue[0] = nil
	r.queue = r.queue[1:]
	l.queued = false
	r.turn(l)
	r.ended.Broadcast()
}

// turn gives l one turn; mu is held on entry and return, not during the work.
// A stream's turn waits for nobody, so it is never kept waiting for those that
// do: they have an eighth of the workers to themselves.
func (r *Runner) turn(l *Lane) {
	runs := l.sink != nil && !l.held && l.status.State != Paused
	if !runs || l.sink.Stream != nil {
		r.done(l)
	}
	if !runs {
		return
	}
	if l.sink.Stream == nil && !l.holds {
		l.place = l.sink.Place
		if l.place == "" {
			l.place = l.Key.String()
		}
		if l.holds = r.turns.Ask(l, l.Key, l.place); !l.holds {
			l.queued = true
			return
		}
	}
	l.busy, l.again, l.wantsRoom, l.rewound = true, false, false, false
	b := backlog{fact: l.fact, end: l.end, oldest: l.oldest, flush: l.flush}
	if stream := l.sink.Stream; stream != nil {
		sent := l.sent
		o := offering{epoch: stream.epoch, end: l.end.Bytes, restored: l.fact.Read.Seq > l.fact.Pos.Seq && l.sent == l.fact.Read}
		r.mu.Unlock()
		s := r.env.stepStream(r.ctx, l, sent, o)
		r.mu.Lock()
		r.streamed(l, s)
		return
	}
	r.mu.Unlock()
	s := r.env.stepDrop(r.ctx, l, b)
	r.mu.Lock()
	r.done(l)
	r.stepped(l, s)
}

// done gives l's turn back, where it holds one, and queues those that have theirs now.
func (r *Runner) done(l *Lane) {
	if !l.holds {
		return
	}
	l.holds = false
	for _, n := range r.turns.Done(l.Key, l.place) {
		n.holds = true
		r.ready(n)
	}
}

// stepped takes in what a drop lane's turn came to.
func (r *Runner) stepped(l *Lane, s stepped) {
	l.busy = false
	if s.moved {
		l.fact = s.fact
		r.release(l)
	}
	// An arrival meanwhile may have told the age of an event that was new then.
	if s.oldest != 0 || s.moved || l.fact.Pos.Events >= l.end.Events {
		l.oldest = s.oldest
	}
	if s.flushed {
		l.flush = false
	}
	if s.err != nil {
		r.failed(l, s.err)
		return
	}
	r.happened(l, delivered)
	more := s.more && (l.fact.Pos.Events < l.end.Events || l.sink != nil && l.sink.Settings.Deliver.Empty)
	r.schedule(l, more || l.again, s.due)
}

// failed sets the lane's status after a failed turn and when it tries again.
func (r *Runner) failed(l *Lane, err error) {
	if r.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return // Stop cut it short
	}
	e := failure(err)
	if l.status.fail(e, r.env.now(), r.o.Chance()) {
		r.o.OnState(l.Key, l.shard.Name, l.status)
	}
	r.schedule(l, false, l.status.NextRetry)
}

func (r *Runner) happened(l *Lane, h happening) {
	if l.status.becomes(h, r.env.now()) {
		r.o.OnState(l.Key, l.shard.Name, l.status)
	}
}

// streamed takes in what a stream lane's turn came to. Where the connection
// broke meanwhile and took some of it, Lost has said where to go on.
func (r *Runner) streamed(l *Lane, s streamed) {
	l.busy = false
	if !l.rewound {
		l.sent = s.sent
	}
	if s.err != nil {
		r.failed(l, s.err)
		return
	}
	if l.sink.Stream.trouble == nil { // the connection's trouble is its own to end
		r.happened(l, delivered)
	}
	if s.noRoom && !l.again {
		l.wantsRoom = true
		return
	}
	r.schedule(l, s.more || l.again || l.sent.Events < l.end.Events && !s.noRoom, 0)
}

// release tells the journal how far all lanes of l's tenant in l's shard are.
func (r *Runner) release(l *Lane) {
	first := true
	var low journal.Position
	for _, o := range r.sets[tenantID{l.shard, l.tenant}] {
		if o.gone != 0 && r.env.now()-o.gone > r.o.Retain.Milliseconds() {
			continue // its time is over: what the journal frees counts as expired
		}
		if first || o.fact.Pos.Seq < low.Seq {
			low, first = o.fact.Pos, false
		}
	}
	if first { // l.end does not tell the last event's number
		low = l.shard.Journal.Standing(l.tenant).End
	}
	l.shard.Journal.Release(l.tenant, low)
}

// timers is a heap of lanes by due.
type timers []*Lane

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, j int) bool { return t[i].due < t[j].due }
func (t timers) Swap(i, j int)      { t[i], t[j] = t[j], t[i]; t[i].heapAt, t[j].heapAt = i, j }

// Push is heap.Interface's.
func (t *timers) Push(x any) { l := x.(*Lane); l.heapAt = len(*t); *t = append(*t, l) }

// Pop is heap.Interface's.
func (t *timers) Pop() any {
	old := *t
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return l
}
