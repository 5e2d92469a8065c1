package httpfeed

import (
	"math"
	"net"
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

// limited is a listener that accepts only so many connections at a time.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
	open   *atomic.Int64
}

func limit(ln net.Listener, n int, open *atomic.Int64) *limited {
	return &limited{Listener: ln, slots: make(chan struct{}, n), closed: make(chan struct{}), open: open}
}

// Accept waits for a slot and then for a connection.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	l.open.Add(1)
	return &slot{Conn: c, l: l}, nil
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
}

// Close closes the connection.
func (s *slot) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() {
		<-s.l.slots
		s.l.open.Add(-1)
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
