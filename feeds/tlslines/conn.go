package tlslines

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
)

// smallBuffer is what a connection reads into until it has more to say.
const smallBuffer = 32 << 10

// roomIn is how long a line longer than smallBuffer waits for a large buffer.
const roomIn = 10 * time.Second

// conn is one connection. Its goroutine owns it, but for wake.
type conn struct {
	f      *Feed
	raw    net.Conn
	tls    *tls.Conn
	peer   string
	tenant feeds.TenantID

	buf    []byte    // what was read and is not durable yet
	at     int       // up to where buf is cut into records
	large  bool      // buf is one of Feed.large
	first  time.Time // when the first of the lines that wait was read
	shown  int       // lines that wait, as Status has them
	cutter cutter
}

// wake ends a Read that waits; the connection's goroutine then looks at its context.
func (c *conn) wake() { _ = c.raw.SetReadDeadline(time.Unix(1, 0)) }

var (
	errStopping = errors.New("the feed is stopping")
	errNoRoom   = errors.New("too many long lines are under way at once")
)

// serve reads to the end. An error ends the feed: the journal takes nothing any more.
func (c *conn) serve(ctx context.Context) error {
	c.cutter.limit = c.f.o.MaxEvent
	c.buf = make([]byte, 0, smallBuffer)
	defer func() {
		c.shrink(nil)
		c.cutter.done()
		c.show()
	}()
	err := c.read(ctx)
	if errors.Is(err, io.EOF) {
		// What the sender left unfinished before an end in good order is whole for it.
		c.at = c.cutter.cut(c.buf, c.at, true)
		err = c.flush(ctx)
	} else {
		c.unfinished()
		if ferr := c.flush(ctx); ferr != nil {
			err = ferr
		}
	}
	if err == nil {
		// promise: a connection's end is answered only after all that was read on
		// it is durable.
		c.f.counts.ends.Add(1)
		_ = c.tls.Close() // the sender may be gone
		return nil
	}
	// promise: any other end is a reset, which no sender takes for an answer: what
	// it sent and we did not read, it sends again.
	reset(c.raw)
	c.f.counts.broken.Add(1)
	if errors.Is(err, feeds.ErrStopped) {
		return err
	}
	if errors.Is(err, errNoRoom) {
		c.f.refusals.refused(c.raw.RemoteAddr(), fmt.Errorf("%w: its sender has to send them again", err))
	}
	return nil
}

// unfinished counts what a broken connection left of a line.
func (c *conn) unfinished() {
	if c.at < len(c.buf) || c.cutter.skip > 0 || c.cutter.skipNL {
		c.f.counts.unfinished.Add(1)
	}
}

// show has Status know how many lines wait.
func (c *conn) show() {
	n := len(c.cutter.found)
	c.f.counts.waiting.Add(int64(n - c.shown))
	c.shown = n
}

// read reads and submits until the connection ends (io.EOF) or breaks, or ctx
// ends. What it leaves in buf is for the caller to submit.
func (c *conn) read(ctx context.Context) error {
	for {
		if err := c.room(ctx); err != nil {
			return err
		}
		var until time.Time // without lines that wait, as long as it takes
		if len(c.cutter.found) > 0 {
			until = time.Now().Add(c.f.o.Gather)
		}
		if err := c.raw.SetReadDeadline(until); err != nil {
			return err
		}
		if ctx.Err() != nil { // else wake comes after the deadline above
			return errStopping
		}
		n, err := c.tls.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		c.at = c.cutter.cut(c.buf, c.at, false)
		c.show()
		if len(c.cutter.found) == 0 {
			c.drop()
			c.first = time.Time{}
		} else if c.first.IsZero() {
			c.first = time.Now()
		}
		idle := errors.Is(err, os.ErrDeadlineExceeded)
		switch {
		case ctx.Err() != nil && (err == nil || idle):
			return errStopping
		case err != nil && !idle:
			return err
		case idle, c.full(), !c.first.IsZero() && time.Since(c.first) > 20*c.f.o.Gather:
			if err := c.flush(ctx); err != nil {
				return err
			}
			if idle {
				c.shrink(make([]byte, 0, smallBuffer))
			}
		}
	}
}

// full says that buf is to be submitted since it has no room, or as much as is
// submitted at once.
func (c *conn) full() bool {
	return len(c.cutter.found) > 0 && c.at >= c.f.o.BatchBytes-smallBuffer || len(c.buf) == cap(c.buf) && c.large
}

// room makes room to read into: a large buffer where there is one, else by
// submitting. A long line has to have a large one.
func (c *conn) room(ctx context.Context) error {
	if len(c.buf) < cap(c.buf) {
		return nil
	}
	if c.large { // longer than any line: there is something to submit
		return c.flush(ctx)
	}
	select {
	case b := <-c.f.large:
		c.grow(b)
		return nil
	default:
	}
	if len(c.cutter.found) > 0 {
		return c.flush(ctx)
	}
	t := time.NewTimer(roomIn)
	defer t.Stop()
	select {
	case b := <-c.f.large:
		c.grow(b)
		return nil
	case <-t.C:
		return errNoRoom
	case <-ctx.Done():
		return errStopping
	}
}

func (c *conn) grow(b []byte) {
	if b == nil {
		b = make([]byte, 0, c.f.o.BatchBytes)
	}
	c.buf, c.large = append(b[:0], c.buf...), true
}

// shrink gives a large buffer back and goes on in b, where the rest fits.
func (c *conn) shrink(b []byte) {
	if !c.large || b != nil && len(c.buf) >= cap(b) {
		return
	}
	old := c.buf
	c.buf, c.large = append(b, old[:min(len(old), cap(b))]...), false
	c.f.large <- old[:0]
}

// drop forgets what is cut and durable.
func (c *conn) drop() {
	c.buf = c.buf[:copy(c.buf, c.buf[c.at:])]
	c.at = 0
}

// maxPause is how much longer than the first the longest pause of flush is.
const maxPause = 50

// flush makes the records found durable, for as long as it takes: meanwhile
// nothing is read, and the sender's lines wait with the sender.
func (c *conn) flush(ctx context.Context) error {
	defer func() { c.first = time.Time{} }()
	if len(c.cutter.found) == 0 {
		return nil
	}
	records := c.cutter.take(c.buf, c.peer)
	req := intake.Request{Format: c.f.o.Format, Tenant: c.tenant, Records: slices.Values(records)}
	for pause := c.f.o.Retry; ; pause = min(2*pause, maxPause*c.f.o.Retry) {
		// A stop does not leave us in doubt whether this was kept.
		_, err := c.f.o.Intake.Submit(context.WithoutCancel(ctx), &req)
		switch {
		case err == nil:
			c.f.trouble.end(intakeTrouble)
			c.f.counts.lines.Add(uint64(len(records)))
			c.f.counts.long.Add(c.cutter.long)
			c.cutter.long = 0
			c.cutter.done()
			c.show()
			c.drop()
			return nil
		case errors.Is(err, feeds.ErrStopped):
			return fmt.Errorf("keep lines from %s: %w", c.peer, err)
		}
		c.f.trouble.begin(intakeTrouble, fmt.Errorf("nothing is read, and senders wait: %w", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errStopping
		}
	}
}
