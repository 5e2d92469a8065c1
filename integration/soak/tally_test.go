package soak

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
)

// kind is one of the sinks that every tenant has.
type kind uint8

// The kinds. Where each goes to, the tenant's number decides: see rig_test.go.
const (
	drops  kind = iota // NDJSON
	lake               // Parquet
	stream             // Kinesis
	siem               // TLS lines
	kinds
)

var kindNames = [kinds]string{"drops", "lake", "stream", "siem"}

// chunkSize is how many events of a source are accounted for together.
const chunkSize = 1 << 16

// chunk is what is known of so many events: whose each is, and where it
// arrived. It goes when all of them have arrived everywhere, so that what a
// tally holds is what is on the way, however many hours it runs.
type chunk struct {
	tenant [chunkSize]uint8 // 0: not made yet
	got    [chunkSize]uint8 // a bit for each kind
	made   int
	owed   int // arrivals to come
}

// tally holds what arrived to what was made. Events are gen-<seed>-<n>, a seed
// for each source; each is owed to all kinds of sinks of its tenant.
type tally struct {
	mu      sync.Mutex
	sources map[uint64]*made
	owed    int64 // arrivals to come, of all events made
	arrived [kinds]int64
	again   [kinds]int64 // arrivals of what had arrived there before
	wrong   []string     // what no fault explains, the first of it
	more    int
}

// made are the events of one source.
type made struct {
	chunks  []*chunk // nil: all there
	n       int
	tenants [256]int // of each, by number
}

func newTally() *tally { return &tally{sources: map[uint64]*made{}} }

// make notes the next event of a source. Only then may it be handed over.
func (a *tally) make(seed uint64, tenant int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.sources[seed]
	if m == nil {
		m = &made{}
		a.sources[seed] = m
	}
	if m.n%chunkSize == 0 {
		m.chunks = append(m.chunks, &chunk{})
	}
	c := m.chunks[m.n/chunkSize]
	c.tenant[m.n%chunkSize] = uint8(tenant)
	c.made++
	c.owed += int(kinds)
	m.n++
	m.tenants[tenant]++
	a.owed += int64(kinds)
}

// arrive notes that an event is at a sink of a tenant (0: of whom it is not
// known). It gives which of its source's it is, 0 where there is none, and
// whether it had arrived there before.
func (a *tally) arrive(k kind, tenant int, id []byte) (n int, again bool) {
	seed, n, ok := parseID(id)
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.sources[seed]
	if !ok || m == nil || n < 1 || n > m.n {
		a.report("%s: %.80q arrived and was never made", kindNames[k], id)
		return 0, false
	}
	at, in := (n-1)/chunkSize, (n-1)%chunkSize
	c := m.chunks[at]
	if c == nil {
		a.repeated(k, id)
		return n, true
	}
	if is := int(c.tenant[in]); tenant != 0 && is != tenant {
		a.report("%s: %s of t%04d arrived at t%04d", kindNames[k], id, is, tenant)
	}
	if c.got[in]&(1<<k) != 0 {
		a.repeated(k, id)
		return n, true
	}
	c.got[in] |= 1 << k
	a.arrived[k]++
	a.owed--
	if c.owed--; c.owed == 0 && c.made == chunkSize {
		m.chunks[at] = nil
	}
	return n, false
}

func (a *tally) repeated(k kind, id []byte) {
	a.again[k]++
	if k == drops || k == lake {
		a.report("%s: %s is there twice", kindNames[k], id)
	}
}

// arriveAll notes all events in b, whatever lies between them.
func (a *tally) arriveAll(k kind, b []byte) {
	for {
		id, rest, ok := eventID(b)
		if !ok {
			return
		}
		a.arrive(k, 0, id)
		b = rest
	}
}

// report notes what is wrong, with the lock held.
func (a *tally) report(format string, args ...any) {
	if len(a.wrong) < 20 {
		a.wrong = append(a.wrong, fmt.Sprintf(format, args...))
	} else {
		a.more++
	}
}

// found is report for those without the lock.
func (a *tally) found(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.report(format, args...)
}

// outstanding is how many arrivals are to come, and of how many events at least.
func (a *tally) outstanding() (arrivals int64, events int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owed, int((a.owed + int64(kinds) - 1) / int64(kinds))
}

// figures are the counts so far.
type figures struct {
	made           int
	arrived, again [kinds]int64
	owed           int64
}

func (a *tally) figures() (f figures) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.sources {
		f.made += m.n
	}
	f.arrived, f.again, f.owed = a.arrived, a.again, a.owed
	return f
}

// of is how many events a source made for a tenant; 0: for all.
func (a *tally) of(seed uint64, tenant int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch m := a.sources[seed]; {
	case m == nil:
		return 0
	case tenant == 0:
		return m.n
	default:
		return m.tenants[tenant]
	}
}

// missing is what has not arrived, by kind, with an example of each.
func (a *tally) missing() (n [kinds]int, examples [kinds]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for seed, m := range a.sources {
		for at, c := range m.chunks {
			if c == nil || c.owed == 0 {
				continue
			}
			for in := range c.made {
				for k := range kinds {
					if c.got[in]&(1<<k) == 0 {
						n[k]++
						examples[k] = fmt.Sprintf("gen-%d-%d of t%04d", seed, at*chunkSize+in+1, c.tenant[in])
					}
				}
			}
		}
	}
	return n, examples
}

// eventID is the first id in b, and what follows it.
func eventID(b []byte) (id, rest []byte, ok bool) {
	_, rest, ok = bytes.Cut(b, []byte(`"event_id":"`))
	if !ok {
		return nil, nil, false
	}
	return bytes.Cut(rest, []byte(`"`))
}

// parseID takes gen-<seed>-<n> apart.
func parseID(id []byte) (seed uint64, n int, ok bool) {
	rest, ok := bytes.CutPrefix(id, []byte("gen-"))
	s, c, cut := bytes.Cut(rest, []byte("-"))
	if !ok || !cut {
		return 0, 0, false
	}
	seed, err := strconv.ParseUint(string(s), 10, 64)
	if err != nil {
		return 0, 0, false
	}
	n, err = strconv.Atoi(string(c))
	return seed, n, err == nil
}
