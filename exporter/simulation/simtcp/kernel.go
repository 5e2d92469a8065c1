package simtcp

import (
	"syscall"
	"time"
)

// This file is what the kernels of both ends do; Network.mu is held throughout.

// pump sends what the peer's window lets through.
func (c *Conn) pump() {
	if c.broken || c.lost {
		return
	}
	for len(c.unsent) > 0 {
		room := receiveBuffer - len(c.peer.received) - c.onWay
		if room <= 0 {
			break
		}
		n := min(room, len(c.unsent))
		c.send(data, c.unsent[:n:n])
		if c.unsent = c.unsent[n:]; len(c.unsent) == 0 {
			c.unsent = nil
		}
	}
	if c.fin && !c.sent && len(c.unsent) == 0 {
		c.sent = true
		c.send(fin, nil)
	}
	c.wake.Broadcast()
}

func (c *Conn) send(k kind, b []byte) {
	at := c.n.arrival(c.latency)
	if n := len(c.flight); n > 0 && at.Before(c.flight[n-1].at) {
		at = c.flight[n-1].at
	}
	c.flight = append(c.flight, segment{at, k, b})
	c.onWay += len(b)
	c.arm()
}

// arm has what is in flight delivered when it is due.
func (c *Conn) arm() {
	if c.armed || len(c.flight) == 0 || c.path.blocked || c.peer.lost || c.lost {
		return
	}
	c.armed = true
	time.AfterFunc(max(time.Until(c.flight[0].at), 0), func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		c.armed = false
		now := time.Now()
		for len(c.flight) > 0 && !c.flight[0].at.After(now) && !c.path.blocked && !c.peer.lost && !c.lost {
			s := c.flight[0]
			c.flight = c.flight[1:]
			c.onWay -= len(s.b)
			c.deliver(s)
		}
		c.arm()
	})
}

// deliver is the arrival of a segment of c's at the peer's kernel.
func (c *Conn) deliver(s segment) {
	p := c.peer
	switch {
	case s.kind == rst:
		if p.ended && !p.sent { // the kernel calls it so
			p.cut(syscall.EPIPE)
		} else {
			p.cut(syscall.ECONNRESET)
		}
	case p.broken, s.kind == data && p.closed:
		// Nobody there will ever read it.
		if !p.broken {
			p.reset()
		} else if !c.broken {
			p.send(rst, nil)
		}
	case s.kind == data:
		p.received = append(p.received, s.b...)
		c.bytes += uint64(len(s.b))
		c.heard = time.Now()
	default:
		p.ended, c.acked, c.heard = true, true, time.Now()
		c.leave()
	}
	p.wake.Broadcast()
	c.wake.Broadcast()
}

// reset ends the connection from this side: what is unsent is forgotten.
func (c *Conn) reset() {
	if c.broken {
		return
	}
	c.broken, c.unsent = true, nil
	c.send(rst, nil)
	c.wake.Broadcast()
}

// cut is the end of the connection as the process on this side sees it.
func (c *Conn) cut(why error) {
	if c.broken {
		return
	}
	c.broken, c.err, c.unsent, c.flight, c.onWay = true, why, nil, nil, 0
	c.leave()
	c.wake.Broadcast()
}

// vanish takes this end off the network without a word; the peer notices when
// its probes stay unanswered.
func (c *Conn) vanish() {
	c.lost = true
	c.unsent, c.flight, c.onWay, c.received = nil, nil, 0, nil
	c.wake.Broadcast()
	time.AfterFunc(keepAlive, func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		c.peer.cut(syscall.ETIMEDOUT)
	})
}
