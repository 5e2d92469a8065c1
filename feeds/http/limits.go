package httpfeed

import (
	"crypto/tls"
	"math"
	"math/bits"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"datasync/feeds"

	"golang.org/x/time/rate"
)

// rates holds each tenant to its events per second.
type rates struct {
	of map[feeds.TenantID]*rate.Limiter
	mu sync.Mutex
}

// admit takes one event of the tenant's quota; where it is used up, it says how
// many seconds to wait. A burst of one second's worth is free.
func (l *rates) admit(id feeds.TenantID, perSecond float64, now time.Time) (*rate.Limiter, int) {
	burst := int(math.Max(1, math.Min(perSecond, math.MaxInt32)))
	l.mu.Lock()
	lim := l.of[id]
	if lim == nil {
		if l.of == nil {
			l.of = map[feeds.TenantID]*rate.Limiter{}
		}
		lim = rate.NewLimiter(rate.Limit(perSecond), burst)
		l.of[id] = lim
	} else if lim.Limit() != rate.Limit(perSecond) { // the settings changed
		lim.SetLimitAt(now, rate.Limit(perSecond))
		lim.SetBurstAt(now, burst)
	}
	l.mu.Unlock()
	if lim.AllowN(now, 1) {
		return lim, 0
	}
	return nil, max(1, int(math.Ceil((1-lim.TokensAt(now))/perSecond)))
}

// charge takes the n events of a request off the quota, the first of which admit
// took. A batch larger than the burst is not refused for ever: it leaves a debt.
func charge(lim *rate.Limiter, n int, now time.Time) {
	for n--; lim != nil && n > 0; {
		k := min(n, lim.Burst())
		lim.ReserveN(now, k)
		n -= k
	}
}

// budget bounds the bytes of all bodies in memory.
type budget struct{ left atomic.Int64 }

// take takes n bytes if there are as many left.
func (b *budget) take(n int) bool {
	if b.left.Add(-int64(n)) >= 0 {
		return true
	}
	b.left.Add(int64(n))
	return false
}

func (b *budget) give(n int) { b.left.Add(int64(n)) }

// Buffers come in sizes of 4 KiB, 8 KiB … 16 MiB, one pool each; larger ones
// are left to the garbage collector.
const (
	minBuffer = 4 << 10
	sizes     = 13
)

var pools [sizes]sync.Pool // *[]byte

// class is the pool whose buffers hold n bytes; sizes where none does.
func class(n int) int {
	if n <= minBuffer {
		return 0
	}
	return min(bits.Len(uint(n-1)/minBuffer), sizes)
}

// buffer is memory out of the pools, paid for by a budget.
type buffer struct {
	b    []byte
	box  *[]byte // what came out of the pool
	paid int
}

// grow makes room for at least n bytes in all, keeping what is there; false
// where the budget does not have them.
func (m *buffer) grow(from *budget, n int) bool {
	if n <= cap(m.b) {
		return true
	}
	c, size := class(n), n
	if c < sizes {
		size = minBuffer << c
	}
	if !from.take(size) {
		return false
	}
	next := buffer{paid: size}
	if c < sizes {
		if box, ok := pools[c].Get().(*[]byte); ok {
			next.box = box
		}
	}
	if next.box == nil {
		fresh := make([]byte, size)
		next.box = &fresh
	}
	next.b = append((*next.box)[:0], m.b...)
	m.free(from)
	*m = next
	return true
}

// free gives the memory back; the bytes must not be used afterwards.
func (m *buffer) free(to *budget) {
	if m.box == nil {
		return
	}
	to.give(m.paid)
	if c := class(cap(*m.box)); c < sizes {
		pools[c].Put(m.box)
	}
	*m = buffer{}
}

// maxDecoders is how many bodies are decompressed at a time: it is work for the
// processors only, and each may need a window of 8 MiB.
func maxDecoders() int { return 2 * runtime.GOMAXPROCS(0) }

// minIdle is how long a connection has to have been idle before it makes room
// for another: a request may be on its way.
const minIdle = time.Second

// limited is a listener that accepts only so many connections at a time. A new
// one takes the place of the one that has been idle longest, or waits.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
	open   *atomic.Int64
	mu     sync.Mutex
	conns  map[*slot]struct{}
}

func limit(ln net.Listener, n int, open *atomic.Int64) *limited {
	return &limited{Listener: ln, slots: make(chan struct{}, n), closed: make(chan struct{}), open: open, conns: map[*slot]struct{}{}}
}

// Accept waits for room and then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	if !l.room() {
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	l.open.Add(1)
	s := &slot{Conn: c, l: l}
	l.mu.Lock()
	l.conns[s] = struct{}{}
	l.mu.Unlock()
	return s, nil
}

// room waits for a slot; false once the listener is closed.
func (l *limited) room() bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
	}
	again := time.NewTicker(minIdle / 10)
	defer again.Stop()
	for {
		l.evict(time.Now())
		select {
		case l.slots <- struct{}{}:
			return true
		case <-l.closed:
			return false
		case <-again.C:
		}
	}
}

// evict closes the connection that has been idle longest, and long enough.
func (l *limited) evict(now time.Time) {
	l.mu.Lock()
	var oldest *slot
	since := now.Add(-minIdle).UnixNano()
	for s := range l.conns {
		if idle := s.idle.Load(); idle != 0 && idle < since {
			oldest, since = s, idle
		}
	}
	l.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // it had nothing to say
	}
}

// Close ends an Accept that waits.
func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// slot is a connection that gives its place back when it is closed.
type slot struct {
	net.Conn
	l    *limited
	once sync.Once
	idle atomic.Int64 // since when it waits for another request, ns; 0 while it does not
}

// noteState is the server's ConnState hook.
func noteState(c net.Conn, state http.ConnState) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if s, ok := c.(*slot); ok {
		var since int64
		if state == http.StateIdle {
			since = time.Now().UnixNano()
		}
		s.idle.Store(since)
	}
}

// Close closes the connection.
func (s *slot) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() {
		s.l.mu.Lock()
		delete(s.l.conns, s)
		s.l.mu.Unlock()
		s.l.open.Add(-1)
		<-s.l.slots
	})
	return err
}

// CloseWrite lets net/http end a connection so that the client sees the answer.
func (s *slot) CloseWrite() error {
	if c, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
