package tlslines

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// handshaking bounds how many handshakes are under way: strangers must not take
// the connections of those who are let in. More wait to be accepted.
const handshaking = 128

// Serve takes connections from ln until ctx ends, and closes it. Then nothing
// more is read, what was read becomes durable, and connections whose end was
// not read are reset. It returns nil after a stop, and an error where the journal takes
// nothing any more. A Feed serves once.
func (f *Feed) Serve(ctx context.Context, ln net.Listener) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	f.mu.Lock()
	f.stop = stop
	f.mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		_ = ln.Close() // it only wakes Accept
		f.wake()
	})()
	var wg sync.WaitGroup
	hands := make(chan struct{}, handshaking)
	for ctx.Err() == nil {
		nc, err := ln.Accept()
		if err != nil {
			f.acceptFailed(ctx, ln, err)
			continue
		}
		f.trouble.end(acceptTrouble)
		select {
		case hands <- struct{}{}:
		case <-ctx.Done():
			reset(nc)
			continue
		}
		wg.Go(func() { f.connection(ctx, nc, func() { <-hands }) })
	}
	wg.Wait()
	_ = ln.Close() // closed already, in most ways
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fatal
}

// acceptFailed waits a moment where it was not the stop: for descriptors, mostly.
func (f *Feed) acceptFailed(ctx context.Context, ln net.Listener, err error) {
	if ctx.Err() != nil {
		return
	}
	if errors.Is(err, net.ErrClosed) {
		f.fail(fmt.Errorf("accept on %s: %w", ln.Addr(), err))
		return
	}
	f.trouble.begin(acceptTrouble, fmt.Errorf("connections to %s cannot be accepted, it is tried again: %w", ln.Addr(), err))
	select {
	case <-ctx.Done():
	case <-time.After(f.o.Retry):
	}
}

// fail ends Serve with an error.
func (f *Feed) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fatal == nil {
		f.fatal = fmt.Errorf("tls feed %s: %w", f.o.Name, err)
		f.stop()
	}
}

// wake ends the reading of all connections.
func (f *Feed) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.wake()
	}
}

// connection serves one connection from its handshake to its end; shaken is
// called when the handshake is over.
func (f *Feed) connection(ctx context.Context, nc net.Conn, shaken func()) {
	t := tls.Server(nc, f.identity.config)
	hand, cancel := context.WithTimeout(ctx, f.o.Handshake)
	err := t.HandshakeContext(hand)
	cancel()
	if err != nil {
		if ctx.Err() == nil {
			f.counts.refused.Add(1)
			f.refusals.refused(nc.RemoteAddr(), refusal(err))
			alerted(nc)
		}
		_ = nc.Close() // it is given up
		shaken()
		return
	}
	shaken()
	c := &conn{f: f, raw: nc, tls: t, peer: nc.RemoteAddr().String()}
	if c.tenant, err = f.identity.tenant(t.ConnectionState()); err == nil {
		err = f.admit(c)
	}
	if err != nil {
		f.counts.refused.Add(1)
		f.refusals.refused(nc.RemoteAddr(), err)
		reset(nc)
		return
	}
	f.counts.connections.Add(1)
	f.counts.open.Add(1)
	defer func() {
		f.mu.Lock()
		delete(f.conns, c)
		f.mu.Unlock()
		f.counts.open.Add(-1)
	}()
	if err := c.serve(ctx); err != nil {
		f.fail(err)
	}
}

// alerted lets a client that was refused hear why: a client of TLS 1.3 sends
// lines before the alert reaches it, and unread they would become a reset, which
// overtakes the alert.
func alerted(nc net.Conn) {
	c, ok := nc.(interface{ CloseWrite() error })
	if !ok || c.CloseWrite() != nil || nc.SetReadDeadline(time.Now().Add(time.Second)) != nil {
		return
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(nc, 16<<20)) // whatever comes in that second
}

// admit makes a connection one of those that are served, where there is room.
func (f *Feed) admit(c *conn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.conns) >= f.o.MaxConns {
		return fmt.Errorf("%d connections are open, and no more are taken: find out who holds them, or spread the senders over more feeds", len(f.conns))
	}
	f.conns[c] = struct{}{}
	return nil
}

// reset ends a connection so that its peer cannot take the end for an answer.
func reset(nc net.Conn) {
	if c, ok := nc.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0) // the connection is given up
	}
	_ = nc.Close() // as above
}
