// Package emitter is the TLS line client: it dials, writes framed lines, proves
// by draining what the peer has read, and notices the peer's death.
package emitter

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrClosed is returned by Flush on a Client that was closed.
var ErrClosed = errors.New("the emitter is closed")

// ErrLost is wrapped by Flush's error when lines on the way were lost: the owner
// has been told by OnLost from where to offer them again.
var ErrLost = errors.New("the connection ended before the peer had read everything")

// Client sends framed lines to one peer over TLS and says what the peer has
// read. It holds no connection and no goroutine while everything is confirmed.
// Its methods may be called concurrently; Offer's order is the order sent.
type Client struct {
	o Options

	mu         sync.Mutex
	room       sync.Cond // the writer waits here for chunks
	queue      queue
	marks      marks
	status     Status
	learned    map[string]Answer
	wantRoom   bool // an Offer was refused since the last OnRoom
	torn       bool // a chunk was written in part and forgotten: rewind at the connection's end
	lastWrite  time.Time
	rotateMark uint64 // the writer wakes the owner goroutine when written reaches it
	lost       bool   // OnLost is being told: nothing may be offered
	closed     bool
	running    bool
	flushes    []*flush

	wake  chan struct{} // to the owner goroutine; capacity 1
	quit  chan struct{} // closed by Close
	ended chan struct{} // closed when the owner goroutine of this run has ended
	conf  configs
}

type flush struct {
	target uint64
	done   chan error // capacity 1
}

// New makes a client. It connects at the first Offer (at once where
// Options.Unconfirmed is set). Options that cannot work are an error here.
func New(o Options) (*Client, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &Client{
		o:       o.withDefaults(),
		learned: make(map[string]Answer, len(o.Learned)),
		wake:    make(chan struct{}, 1),
		quit:    make(chan struct{}),
	}
	c.room.L = &c.mu
	c.marks = marks{offered: o.Unconfirmed, written: o.Unconfirmed, read: o.Unconfirmed}
	for a, l := range o.Learned {
		c.learned[a] = l
	}
	if o.Unconfirmed > 0 {
		c.mu.Lock()
		c.startLocked()
		c.mu.Unlock()
	}
	return c, nil
}

// Offer hands over whole framed lines; it copies b and never blocks. mark counts
// the bytes offered so far, this b included: it is the number that OnRead and
// OnConfirmed will reach when the peer has read it. ok is false where there is
// no room (OnRoom will be called), between a loss and the return of OnLost, and
// after Close; then b was not taken. A b is never spread over two connections.
func (c *Client) Offer(b []byte) (mark uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return c.marks.offered, false
	case c.lost, c.queue.waiting > 0 && c.queue.waiting+len(b) > c.o.Buffer:
		c.wantRoom = true
		return c.marks.offered, false
	case len(b) == 0:
		return c.marks.offered, true
	}
	c.queue.push(b)
	c.marks.offered += uint64(len(b))
	if !c.running {
		c.startLocked()
	}
	c.room.Signal()
	return c.marks.offered, true
}

// Flush drains now and returns nil when the peer has read everything offered
// before the call. Where lines were lost on the way it returns an error that
// wraps ErrLost (offer them again, flush again); at ctx's end, ctx's error with
// the reason that held it up.
func (c *Client) Flush(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	if c.marks.read >= c.marks.offered {
		c.mu.Unlock()
		return nil
	}
	f := &flush{target: c.marks.offered, done: make(chan error, 1)}
	c.flushes = append(c.flushes, f)
	c.mu.Unlock()
	c.poke()
	select {
	case err := <-f.done:
		return err
	case <-ctx.Done():
		c.dropFlush(f)
		s := c.Status()
		if s.Err != nil {
			return fmt.Errorf("flushing %d bytes to %s: %w (%s: %v; %s)", f.target-s.Read, s.Address, ctx.Err(), s.Reason, s.Err, s.Hint)
		}
		return fmt.Errorf("flushing %d bytes to %s: %w", f.target-s.Read, s.Address, ctx.Err())
	}
}

// Close ends the connection without waiting for the peer and returns when all
// goroutines have ended. What was not read stays with the owner: Flush first.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.quit)
		c.failFlushesLocked(ErrClosed)
	}
	ended := c.ended
	c.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return nil
}

// Status is the state of the moment.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Offered, s.Written, s.Read, s.Confirmed = c.marks.offered, c.marks.written, c.marks.read, c.marks.confirmed
	s.Waiting = c.queue.waiting
	return s
}

func (c *Client) startLocked() {
	c.running = true
	c.ended = make(chan struct{})
	go newOwner(c).run(c.ended)
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Client) dropFlush(f *flush) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, g := range c.flushes {
		if g == f {
			c.flushes = append(c.flushes[:i], c.flushes[i+1:]...)
			return
		}
	}
}

func (c *Client) failFlushesLocked(err error) {
	for _, f := range c.flushes {
		f.done <- err
	}
	c.flushes = nil
}
