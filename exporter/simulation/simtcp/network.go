// Package simtcp is TCP in memory with what matters of the kernel's ways: buffers and windows, FIN, resets, silence, and errors that are told once.
package simtcp

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Network connects hosts. Time is package time's, virtual in a bubble.
type Network struct {
	// Grain, set before the first connection, has everything arrive at whole
	// multiples of it: much happens at one instant then, in the scheduler's order.
	Grain time.Duration

	mu        sync.Mutex
	seed      uint64
	listeners map[string]*Listener
	paths     map[string]*path // by the address listened on
	ports     int
}

// path is the way to an address; while it is blocked, nothing passes.
type path struct {
	blocked bool
	rng     *rand.Rand // of its own, so that what others do changes nothing for it
	conns   []*Conn    // both ends of each
	change  chan struct{}
}

// New makes a network; latencies are drawn by seed.
func New(seed uint64) *Network {
	return &Network{seed: seed, listeners: map[string]*Listener{}, paths: map[string]*path{}, ports: 40000}
}

// Host is a machine: what it holds of connections and listeners ends with it.
type Host struct {
	n         *Network
	name      string
	conns     map[*Conn]bool
	listeners map[*Listener]bool
	gone      []*Conn // lost at Vanish
	lost      bool
}

// Host makes one.
func (n *Network) Host(name string) *Host {
	return &Host{n: n, name: name, conns: map[*Conn]bool{}, listeners: map[*Listener]bool{}}
}

func (n *Network) path(address string) *path {
	p := n.paths[address]
	if p == nil {
		h := fnv.New64a()
		_, _ = h.Write([]byte(address)) // never fails
		p = &path{change: make(chan struct{}), rng: rand.New(rand.NewPCG(n.seed, h.Sum64()))}
		n.paths[address] = p
	}
	return p
}

// Block lets nothing pass to and from an address, until Unblock: then what was
// on the way arrives.
func (n *Network) Block(address string, blocked bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.path(address)
	p.blocked = blocked
	close(p.change)
	p.change = make(chan struct{})
	p.prune()
	for _, c := range p.conns {
		c.arm()
	}
}

// prune forgets connections that are over.
func (p *path) prune() {
	p.conns = slices.DeleteFunc(p.conns, func(c *Conn) bool {
		return len(c.flight) == 0 && (c.broken || c.lost || c.acked && c.ended)
	})
}

// Dial connects to a listener. It hangs while the way is blocked, and is
// refused where nobody listens.
func (h *Host) Dial(ctx context.Context, _, address string) (*Conn, error) {
	n := h.n
	refused := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: addr(address), Err: err}
	}
	n.mu.Lock()
	latency := time.Duration(50+n.path(address).rng.IntN(3000)) * time.Microsecond
	n.mu.Unlock()
	if err := pause(ctx, time.Until(n.arrival(latency))); err != nil {
		return nil, refused(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.path(address)
	for p.blocked {
		change := p.change
		n.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
		}
		n.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, refused(err)
		}
	}
	if h.lost {
		return nil, refused(os.NewSyscallError("connect", syscall.ENETDOWN))
	}
	l := n.listeners[address]
	if l == nil {
		return nil, refused(os.NewSyscallError("connect", syscall.ECONNREFUSED))
	}
	n.ports++
	here := addr(fmt.Sprintf("127.0.0.1:%d", n.ports))
	a := &Conn{n: n, no: n.ports, host: h, path: p, latency: latency, local: here, remote: addr(address), heard: time.Now()}
	b := &Conn{n: n, no: n.ports, host: l.host, path: p, latency: latency, local: addr(address), remote: here, heard: time.Now()}
	a.peer, b.peer, a.wake.L, b.wake.L = b, a, &n.mu, &n.mu
	h.conns[a], l.host.conns[b] = true, true
	if len(p.conns) > 64 {
		p.prune()
	}
	p.conns = append(p.conns, a, b)
	l.queue = append(l.queue, b)
	l.wake.Broadcast()
	return a, nil
}

// arrival is when what is sent now arrives.
func (n *Network) arrival(latency time.Duration) time.Time {
	at := time.Now().Add(latency)
	if n.Grain > 0 {
		at = at.Add(n.Grain - 1).Truncate(n.Grain)
	}
	return at
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Listener takes connections for an address.
type Listener struct {
	host   *Host
	addr   addr
	queue  []*Conn
	closed bool
	wake   sync.Cond
}

// Listen takes an address.
func (h *Host) Listen(address string) (*Listener, error) {
	n := h.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: addr(address), Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	l := &Listener{host: h, addr: addr(address)}
	l.wake.L = &n.mu
	n.listeners[address], h.listeners[l] = l, true
	return l, nil
}

// Accept is net.Listener's.
func (l *Listener) Accept() (net.Conn, error) {
	l.host.n.mu.Lock()
	defer l.host.n.mu.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.wake.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c, nil
}

// Close is net.Listener's; what nobody accepted is reset.
func (l *Listener) Close() error {
	l.host.n.mu.Lock()
	defer l.host.n.mu.Unlock()
	if l.closed {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
	}
	l.shut()
	return nil
}

func (l *Listener) shut() {
	l.closed = true
	delete(l.host.listeners, l)
	delete(l.host.n.listeners, string(l.addr))
	for _, c := range l.queue {
		if !c.closed && !c.lost {
			c.abrupt = true
			c.shut()
		}
	}
	l.queue = nil
	l.wake.Broadcast()
}

// Addr is net.Listener's.
func (l *Listener) Addr() net.Addr { return l.addr }

// Kill ends the process: its kernel closes all that it had open.
func (h *Host) Kill() {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	for l := range h.listeners {
		l.shut()
	}
	for _, c := range h.open() {
		if !c.closed {
			c.shut()
		}
	}
}

// open are the host's connections in the order in which they were made.
func (h *Host) open() []*Conn {
	return slices.SortedFunc(maps.Keys(h.conns), func(a, b *Conn) int { return cmp.Compare(a.no, b.no) })
}

// Vanish is a power cut, or a cable pulled for good: no word to anybody.
func (h *Host) Vanish() {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.lost = true
	for l := range h.listeners {
		l.queue = nil
		l.shut()
	}
	for _, c := range h.open() {
		c.vanish()
		h.gone = append(h.gone, c)
	}
	clear(h.conns)
}

// Reboot is the machine's return: it answers whoever still sends to its former
// life with a reset.
func (h *Host) Reboot() {
	h.n.mu.Lock()
	defer h.n.mu.Unlock()
	h.lost = false
	for _, c := range h.gone {
		if p := c.peer; len(p.flight)+len(p.unsent) > 0 {
			p.cut(syscall.ECONNRESET)
		}
	}
	h.gone = nil
}
