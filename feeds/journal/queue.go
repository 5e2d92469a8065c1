package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"datasync/feeds"
)

const maxCommit = 1 << 30

// errOverCap is feeds.ErrFull because of max_bytes: making room may help.
var errOverCap = fmt.Errorf("%w (max_bytes is reached)", feeds.ErrFull)

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
