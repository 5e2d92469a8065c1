package simtcp

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"datasync/emitter"
)

// The buffers of each end in bytes: small, so that a slow reader is felt soon.
const (
	sendBuffer    = 48 << 10
	receiveBuffer = 32 << 10
)

// keepAlive is after how long a silent peer is given up on, as four unanswered
// probes, keepAliveEvery apart, make the kernel do.
const (
	keepAliveEvery = 15 * time.Second
	keepAlive      = 5 * keepAliveEvery
)

// Conn is one end of a connection. It is an emitter.Transport.
type Conn struct {
	n             *Network
	no            int
	peer          *Conn
	host          *Host
	path          *path
	latency       time.Duration
	local, remote addr
	wake          sync.Cond // Network.mu

	// All below is guarded by Network.mu. What this end sends:
	unsent []byte    // the window is closed
	flight []segment // on its way to the peer, in order
	onWay  int       // bytes of flight
	armed  bool      // a timer will deliver what is in flight
	fin    bool      // no more will be written
	sent   bool      // the FIN is on its way
	acked  bool      // and was acknowledged
	bytes  uint64    // that the peer's kernel has
	heard  time.Time // when it spoke last

	// What it received:
	received []byte // acknowledged, not read
	ended    bool   // the peer's FIN came

	// How it ended:
	err    error // to be told once
	broken bool  // reset, or given up on
	closed bool  // by the process
	lost   bool  // its host is gone without a word
	abrupt bool  // SetLinger(0)
	read   deadline
	write  deadline
}

type kind uint8

const (
	data kind = iota
	fin
	rst
)

type segment struct {
	at   time.Time
	kind kind
	b    []byte
}

type addr string

// Network is net.Addr's.
func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

// deadline of reads or writes.
type deadline struct {
	timer  *time.Timer
	passed bool
}

func (c *Conn) set(d *deadline, t time.Time) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.passed = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		c.wake.Broadcast()
		return
	}
	var mine *time.Timer
	mine = time.AfterFunc(wait, func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		if d.timer == mine { // not set anew since
			d.passed = true
			c.wake.Broadcast()
		}
	})
	d.timer = mine
}

// Read gives what was received, then the end, or the error, as the kernel does:
// data first, after a FIN the end even where a reset came later, an error once.
func (c *Conn) Read(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for {
		switch {
		case c.closed || c.lost:
			return 0, c.failed("read", net.ErrClosed)
		case len(c.received) > 0:
			n := copy(p, c.received)
			if c.received = c.received[n:]; len(c.received) == 0 {
				c.received = nil
			}
			c.peer.pump() // the window opened
			return n, nil
		case c.ended:
			return 0, io.EOF
		case c.err != nil:
			return 0, c.failed("read", c.take())
		case c.broken:
			return 0, io.EOF
		case c.read.passed:
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		}
		c.wake.Wait()
	}
}

// Write returns when the kernel has everything.
func (c *Conn) Write(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	n := 0
	for {
		switch {
		case c.closed || c.lost:
			return n, c.failed("write", net.ErrClosed)
		case c.err != nil:
			return n, c.failed("write", c.take())
		case c.broken || c.fin:
			return n, c.failed("write", syscall.EPIPE)
		case c.write.passed:
			return n, c.failed("write", os.ErrDeadlineExceeded)
		}
		if room := sendBuffer - len(c.unsent) - c.onWay; room > 0 {
			k := min(room, len(p)-n)
			c.unsent = append(c.unsent, p[n:n+k]...)
			n += k
			c.pump()
		}
		if n == len(p) {
			return n, nil
		}
		c.wake.Wait()
	}
}

func (c *Conn) failed(op string, err error) error {
	var no syscall.Errno
	if errors.As(err, &no) {
		err = os.NewSyscallError(op, no)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// take gives the error that waits to be told, once.
func (c *Conn) take() error {
	err := c.err
	c.err = nil
	return err
}

// CloseWrite is emitter.Transport's.
func (c *Conn) CloseWrite() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	switch {
	case c.closed || c.lost:
		return c.failed("close", net.ErrClosed)
	case c.broken:
		return c.failed("close", syscall.ENOTCONN)
	}
	c.fin = true
	c.pump()
	return nil
}

// Close gives the connection back to the kernel: with something unread, or
// after SetLinger(0), it is reset; else what was written is still sent.
func (c *Conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed || c.lost {
		return c.failed("close", net.ErrClosed)
	}
	c.shut()
	return nil
}

func (c *Conn) shut() {
	c.closed = true
	c.set(&c.read, time.Time{})
	c.set(&c.write, time.Time{})
	switch {
	case c.broken:
	case c.abrupt || len(c.received) > 0:
		c.reset()
	default:
		c.fin = true
		c.pump()
	}
	c.leave()
	c.wake.Broadcast()
}

// leave has the host forget a connection with which it is done.
func (c *Conn) leave() {
	if c.closed && (c.broken || c.acked) {
		delete(c.host.conns, c)
	}
}

// SetLinger is emitter.Transport's; only 0 has a meaning.
func (c *Conn) SetLinger(seconds int) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.abrupt = seconds == 0
	return nil
}

// Look is emitter.Transport's.
func (c *Conn) Look(now time.Time) (t emitter.TCP, over bool, err error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed || c.lost {
		return t, false, c.failed("look at", net.ErrClosed)
	}
	t = emitter.TCP{NotSent: uint64(len(c.unsent)), Acked: c.bytes + 1, RTT: 2 * c.latency, SampleAt: now,
		Window: uint64(max(receiveBuffer-len(c.peer.received)-c.onWay, 0))}
	for _, s := range c.flight {
		if s.kind != rst {
			t.Unacked++
		}
	}
	if silent := c.peer.lost || c.path.blocked; !silent {
		// It answers the probes of a closed window, and those of keep-alive.
		if t.NotSent > 0 {
			c.heard = now
		} else if quiet := now.Sub(c.heard); quiet > keepAliveEvery {
			c.heard = now.Add(-quiet % keepAliveEvery)
		}
	} else if t.Unacked == 0 && t.NotSent > 0 {
		t.Probes = uint64(now.Sub(c.heard) / (2 * time.Second))
	}
	t.LastAck = now.Sub(c.heard)
	return t, c.broken || c.ended && c.acked, nil
}

// Err is emitter.Transport's.
func (c *Conn) Err() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed || c.lost {
		return c.failed("look at", net.ErrClosed)
	}
	return c.take()
}

// LocalAddr is net.Conn's.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is net.Conn's.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is net.Conn's.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline is net.Conn's.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.deadline(&c.read, t) }

// SetWriteDeadline is net.Conn's.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.deadline(&c.write, t) }

func (c *Conn) deadline(d *deadline, t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.closed || c.lost {
		return c.failed("set", net.ErrClosed)
	}
	c.set(d, t)
	return nil
}
