package tlslines

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// What may be in trouble for all connections at once.
const (
	intakeTrouble = "taking lines"
	acceptTrouble = "accepting connections"
)

// trouble tells of each outage once when it begins, and once when it is over.
type trouble struct {
	tell func(error)
	mu   sync.Mutex
	on   map[string]time.Time // what is in trouble → since when
}

func (t *trouble) begin(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, on := t.on[what]; on {
		return
	}
	if t.on == nil {
		t.on = map[string]time.Time{}
	}
	t.on[what] = time.Now()
	t.tell(err)
}

func (t *trouble) end(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if since, on := t.on[what]; on {
		delete(t.on, what)
		t.tell(fmt.Errorf("%s works again after %s", what, time.Since(since).Round(time.Millisecond)))
	}
}

// refusals tells of connections that were not let in: once for each host and
// reason in quietFor, however often it tries.
type refusals struct {
	tell func(error)
	mu   sync.Mutex
	said map[[2]string]*refusedSince
}

type refusedSince struct {
	at    time.Time
	count int // since, not told
}

const (
	quietFor    = 10 * time.Minute
	maxRefusals = 1024 // remembered; beyond, the hosts are not told one by one
)

// refused takes note of a refusal; a nil reason is not worth a word.
func (r *refusals) refused(from net.Addr, reason error) {
	if reason == nil {
		return
	}
	host, _, err := net.SplitHostPort(from.String())
	if err != nil {
		host = from.String()
	}
	key := [2]string{host, reason.Error()}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if r.said == nil || len(r.said) > maxRefusals {
		r.said = map[[2]string]*refusedSince{}
	}
	s := r.said[key]
	if s != nil && now.Sub(s.at) < quietFor {
		s.count++
		return
	}
	more := ""
	if s != nil && s.count > 0 {
		more = fmt.Sprintf(" (and %d times since %s)", s.count, s.at.Format(time.TimeOnly))
	}
	r.said[key] = &refusedSince{at: now}
	r.tell(fmt.Errorf("a connection from %s was refused: %w%s", host, reason, more))
}
