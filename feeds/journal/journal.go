package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"datasync/feeds"
)

// Journal is one shard's log. Its methods may be called from many goroutines;
// one goroutine of its own (writer.go) changes what is on disk.
type Journal struct {
	s    *Store
	name string
	dir  string

	facts *factTable

	// mu guards what readers see: names, tenants, the list of segments and
	// what the last durable commit says. Never held during I/O.
	mu     sync.RWMutex
	ids    []feeds.TenantID
	refs   map[feeds.TenantID]TenantRef
	state  []tenantState
	trims  map[TenantRef]ranges // expired
	pins   map[TenantRef]ranges // pending drops
	segs   []*segment           // oldest first; replaced, never changed in place
	tip    tip
	floor  feeds.Sequence // up to here retention took segments or parts of them
	gaps   []gap          // by sequence
	clocks []clockFix
	subs   []func([]Arrival)
	err    error // fail-stop

	// stale are segments out of the list whose files are to be deleted.
	// Maintain's, under its lock.
	stale []*segment

	queue queue
	done  chan struct{} // the writer has ended

	w writer
}

// tip is what the last durable commit left.
type tip struct {
	commit uint64
	seq    feeds.Sequence // the last event number given out
	events uint64         // ever
	source uint64
	time   int64 // ms UTC
}

// tenantState is what the shard keeps in memory of each of its tenants.
type tenantState struct {
	end      Position
	released bool
	release  Position
	oldest   Position // valid while oldestIn is kept
	oldestIn *segment
}

// clockFix says that commits up to seq bear a time from a clock that was set
// back later: they count as made at most at this time.
type clockFix struct {
	seq feeds.Sequence
	at  int64
}

// Tenant gives the number that stands for a tenant in this journal.
func (j *Journal) Tenant(id feeds.TenantID) TenantRef {
	j.mu.RLock()
	t, ok := j.refs[id]
	j.mu.RUnlock()
	if ok {
		return t
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if t, ok := j.refs[id]; ok {
		return t
	}
	t = TenantRef(len(j.ids))
	j.ids = append(j.ids, id)
	j.state = append(j.state, tenantState{})
	j.refs[id] = t
	return t
}

// TenantID is the tenant that a number stands for; empty for a number that
// Tenant never gave.
func (j *Journal) TenantID(t TenantRef) feeds.TenantID {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if int(t) >= len(j.ids) {
		return ""
	}
	return j.ids[t]
}

// Append makes a batch durable: its events, its facts and its source position
// lie in one commit when it returns nil. Batches of many callers share commits.
// feeds.ErrFull: nothing was kept, try again later. feeds.ErrStopped: nothing
// will be kept any more; the batch under way when a disk failed may be found
// after a restart, as after a crash. When ctx ends first the error says whether the
// batch may still become durable. The arena is the caller's again on return.
func (j *Journal) Append(ctx context.Context, b *Batch) (Receipt, error) {
	if err := j.checkBatch(b); err != nil {
		return Receipt{}, fmt.Errorf("append to shard %s: %w", j.name, err)
	}
	r := newRequest()
	r.batch = b
	err := j.submit(ctx, r)
	for tries := 0; errors.Is(err, errOverCap) && tries < 3 && j.s.makeRoom(); tries++ {
		r = newRequest()
		r.batch = b
		err = j.submit(ctx, r)
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("append to shard %s: %w", j.name, err)
	}
	return r.receipt, nil
}

// Put makes facts durable, together or not at all, and current when it returns
// nil. Errors as of Append.
func (j *Journal) Put(ctx context.Context, facts ...Fact) error {
	for _, f := range facts {
		if err := checkFact(f); err != nil {
			return fmt.Errorf("shard %s: %w", j.name, err)
		}
	}
	r := newRequest()
	r.facts = facts
	if err := j.submit(ctx, r); err != nil {
		return fmt.Errorf("put facts in shard %s: %w", j.name, err)
	}
	return nil
}

// PutLater makes facts current at once and durable with the next commit, or
// within a second. A fact that breaks the limits of Fact is a mistake in the
// program: PutLater panics.
func (j *Journal) PutLater(facts ...Fact) {
	for _, f := range facts {
		if err := checkFact(f); err != nil {
			panic(fmt.Sprintf("shard %s: %v", j.name, err))
		}
	}
	j.facts.putLater(facts)
	j.queue.nudge()
}

// Fact is the current value under a key, durable or put later. It may not be
// changed.
func (j *Journal) Fact(key string) ([]byte, bool) { return j.facts.get(key) }

// Facts are the current facts whose keys start with prefix, sorted by key, as
// they stood when the loop began. The values may not be changed.
func (j *Journal) Facts(prefix string) iter.Seq2[string, []byte] { return j.facts.all(prefix) }

// Source is the last durable source position.
func (j *Journal) Source() uint64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.tip.source
}

// Tenants lists the tenants that ever had an event here.
func (j *Journal) Tenants() []TenantRef {
	j.mu.RLock()
	defer j.mu.RUnlock()
	var out []TenantRef
	for t := range j.state {
		if j.state[t].end.Events > 0 {
			out = append(out, TenantRef(t))
		}
	}
	return out
}

// Subscribe registers a function that the writer calls after each durable
// commit with what arrived. It must not block, nor keep the slice.
func (j *Journal) Subscribe(f func([]Arrival)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.subs = append(slices.Clip(j.subs), f)
}

// Err is why the shard stopped for good (fail-stop); nil while it works.
func (j *Journal) Err() error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.err
}

// checkBatch refuses what would make a bad commit.
func (j *Journal) checkBatch(b *Batch) error {
	j.mu.RLock()
	tenants := len(j.ids)
	j.mu.RUnlock()
	var prev feeds.Sequence
	total := 0
	for i := range b.Events {
		e := &b.Events[i]
		switch end := uint64(e.Off) + uint64(e.Len); {
		case e.Len == 0 || end > uint64(len(b.Arena)) || !ended(b.Arena[e.Off:end], e.Rest):
			return fmt.Errorf("event %d: not a line of the arena", i)
		case int(e.Tenant) >= tenants:
			return fmt.Errorf("event %d: tenant %d is unknown here", i, e.Tenant)
		case e.Kind >= 8:
			return fmt.Errorf("event %d: kind %d is not below 8", i, e.Kind)
		case i > 0 && (e.Seq == 0) != (prev == 0) || e.Seq != 0 && e.Seq <= prev:
			return fmt.Errorf("event %d: sequence %d does not rise (before it %d)", i, e.Seq, prev)
		}
		prev = e.Seq
		total += int(e.size())
	}
	if total > maxCommit {
		return fmt.Errorf("%d bytes of events, more than %d in one batch", total, maxCommit)
	}
	for _, f := range b.Facts {
		if err := checkFact(f); err != nil {
			return err
		}
	}
	return nil
}

// ended says whether a line in two parts ends with a newline.
func ended(line, rest []byte) bool {
	if len(rest) > 0 {
		line = rest
	}
	return line[len(line)-1] == '\n'
}

// size is the length of an event's line.
func (e *Event) size() uint32 { return e.Len + uint32(len(e.Rest)) }

func (j *Journal) report(i Incident) {
	i.Shard = j.name
	if j.s.o.Report != nil {
		j.s.o.Report(i)
	}
}

const maxCommit = 1 << 30

// ErrSequence refuses a batch whose numbers do not lie above all that the
// shard holds: its events are there already, or its source went back.
var ErrSequence = errors.New("sequence is not above the last one that the shard holds")

// errOverCap is feeds.ErrFull because of max_bytes: making room may help.
var errOverCap = fmt.Errorf("%w (max_bytes is reached)", feeds.ErrFull)

// errReserve is feeds.ErrFull because of a disk on which facts need the reserve.
var errReserve = fmt.Errorf("%w (the disk is full, and what is left is kept for positions)", feeds.ErrFull)

// request is one call that waits for the writer: a batch, facts, or something
// to do on the writer's goroutine.
type request struct {
	batch   *Batch
	facts   []Fact
	op      func() error
	copied  chan struct{} // closed when the caller's bytes are no longer needed
	done    chan struct{} // closed when the outcome stands
	receipt Receipt
	err     error
}

func newRequest() *request {
	return &request{copied: make(chan struct{}), done: make(chan struct{})}
}

func (r *request) finish(err error) {
	r.err = err
	close(r.done)
}

// release says that the caller's bytes were copied.
func (r *request) release() {
	if !closed(r.copied) {
		close(r.copied)
	}
}

// settled says whether the outcome stands.
func (r *request) settled() bool { return closed(r.done) }

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (r *request) size() int {
	if r.batch == nil {
		return 0
	}
	n := 0
	for i := range r.batch.Events {
		n += int(r.batch.Events[i].Len)
	}
	return n
}

// queue is where calls wait for the writer.
type queue struct {
	mu      sync.Mutex
	waiting []*request
	closing bool
	wake    chan struct{}
}

func (q *queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) push(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return false
	}
	q.waiting = append(q.waiting, r)
	return true
}

// withdraw takes a request back; false where the writer has it already.
func (q *queue) withdraw(r *request) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.waiting, r)
	if i < 0 {
		return false
	}
	q.waiting = slices.Delete(q.waiting, i, i+1)
	return true
}

// take hands the writer what waits, up to limit bytes of events and at least
// one request; an op is handed over alone.
func (q *queue) take(limit int, into []*request) (reqs []*request, closing bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	size, n := 0, 0
	for _, r := range q.waiting {
		if n > 0 && (r.op != nil || size >= limit) {
			break
		}
		size += r.size()
		n++
		if r.op != nil {
			break
		}
	}
	into = append(into[:0], q.waiting[:n]...)
	q.waiting = slices.Delete(q.waiting, 0, n)
	return into, q.closing
}

// close lets nothing more in.
func (q *queue) close() {
	q.mu.Lock()
	q.closing = true
	q.mu.Unlock()
	q.nudge()
}

// submit waits for the writer to deal with r.
func (j *Journal) submit(ctx context.Context, r *request) error {
	if err := j.Err(); err != nil {
		return errors.Join(feeds.ErrStopped, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w; nothing was kept", err)
	}
	if !j.queue.push(r) {
		return feeds.ErrStopped
	}
	j.queue.nudge()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
	}
	if j.queue.withdraw(r) {
		return fmt.Errorf("%w; nothing was kept", ctx.Err())
	}
	select {
	case <-r.done:
		return r.err
	case <-r.copied:
		return fmt.Errorf("%w; the writer has it already: it may still become durable", ctx.Err())
	}
}

// do runs f on the writer's goroutine.
func (j *Journal) do(f func() error) error {
	r := newRequest()
	r.op = f
	return j.submit(context.Background(), r)
}
