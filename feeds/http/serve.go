package httpfeed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"datasync/feeds/certs"
)

// maxHeader bounds a request's head in bytes.
const maxHeader = 16 << 10

// Serve takes requests from ln until ctx ends, and closes it. It then stops in
// two stages: no new connection or request, and those under way are answered;
// after StopGrace the rest is cancelled. It returns nil after a stop. A Feed
// serves once.
func (f *Feed) Serve(ctx context.Context, ln net.Listener) error {
	if f.o.Cert != "" {
		pair, err := certs.NewPair(f.o.Cert, f.o.Key, certs.Options{Now: f.o.Now, OnError: f.o.OnError})
		if err != nil {
			return errors.Join(fmt.Errorf("http feed %s: tls: %w", f.o.Name, err), ln.Close())
		}
		ln = tls.NewListener(limit(ln, f.o.MaxConns, &f.counts.conns), &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: pair.Get, NextProtos: []string{"http/1.1"},
		})
	} else {
		ln = limit(ln, f.o.MaxConns, &f.counts.conns)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true) // one request a connection at a time: limits per connection hold
	srv := &http.Server{
		Handler:           f,
		ReadHeaderTimeout: f.o.ReadGrace,
		ReadTimeout:       f.o.ReadGrace, // of a body too; pace extends it
		IdleTimeout:       75 * time.Second,
		MaxHeaderBytes:    maxHeader,
		Protocols:         &protocols,
		ConnState:         noteState,
		ErrorLog:          log.New(panics{f.o.OnError}, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case <-sweep.C:
			f.answered.sweep(f.o.Now())
		case err := <-done:
			f.cancel()
			return fmt.Errorf("http feed %s: accept on %s: %w", f.o.Name, ln.Addr(), err)
		case <-ctx.Done():
			f.stop(srv)
			<-done
			return nil
		}
	}
}

// stop ends the server in two stages.
func (f *Feed) stop(srv *http.Server) {
	f.stopping.Store(true)
	grace, cancel := context.WithTimeout(context.Background(), f.o.StopGrace)
	defer cancel()
	err := srv.Shutdown(grace)
	f.cancel()
	if err == nil {
		return
	}
	// Those that waited for the journal are told 503 now; give them that moment.
	last, cancelLast := context.WithTimeout(context.Background(), time.Second)
	defer cancelLast()
	if srv.Shutdown(last) != nil {
		_ = srv.Close() // what it closes is given up on
	}
}

// panics passes on what net/http says of a handler that panicked, and nothing
// of clients that broke off or spoke no TLS.
type panics struct{ tell func(error) }

// Write takes one line of net/http's log.
func (p panics) Write(b []byte) (int, error) {
	if s := string(b); strings.HasPrefix(s, "http: panic") {
		p.tell(errors.New(s))
	}
	return len(b), nil
}

// trouble tells of an outage once when it begins and once when it is over.
type trouble struct {
	tell  func(error)
	now   func() time.Time
	on    atomic.Bool
	mu    sync.Mutex
	since time.Time
	count int
}

func (t *trouble) begin(feed string, err error) {
	t.mu.Lock()
	first := !t.on.Load()
	if first {
		t.since, t.count = t.now(), 0
		t.on.Store(true)
	}
	t.count++
	t.mu.Unlock()
	if first {
		t.tell(fmt.Errorf("http feed %s: requests are refused with 503: %w", feed, err))
	}
}

func (t *trouble) end(feed string) {
	if !t.on.Load() {
		return
	}
	t.mu.Lock()
	was, count, since := t.on.Swap(false), t.count, t.since
	t.mu.Unlock()
	if was {
		t.tell(fmt.Errorf("http feed %s: requests are taken again after %s; %d were refused", feed, t.now().Sub(since).Round(time.Millisecond), count))
	}
}

// counts are the figures of Status.
type counts struct {
	byStatus                            [600]atomic.Uint64
	accepted, rejected, bytes, replayed atomic.Uint64
	inFlight, conns                     atomic.Int64
	named                               atomic.Uint64 // requests that were given a name
}

func (c *counts) answered(status int) { c.byStatus[status].Add(1) }

func (c *counts) status() Status {
	s := Status{
		ByStatus: map[int]uint64{}, Accepted: c.accepted.Load(), Rejected: c.rejected.Load(), Bytes: c.bytes.Load(),
		Replayed: c.replayed.Load(), InFlight: c.inFlight.Load(), Conns: c.conns.Load(),
	}
	for i := range c.byStatus {
		if n := c.byStatus[i].Load(); n > 0 {
			s.ByStatus[i] = n
			s.Requests += n
		}
	}
	return s
}
