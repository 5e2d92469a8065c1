package intake

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
)

// QuarantineShard is the name of the journal shard that holds the quarantine.
const QuarantineShard = "quarantine"

// Unrouted stands, inside the quarantine's shard only, for records of which
// nobody knows whose they are. No tenant can have this name.
const Unrouted feeds.TenantID = "_unrouted"

// QLog is the journal shard under a Quarantine; *journal.Journal is one. All
// methods are called concurrently.
type QLog interface {
	Log
	Shelf
	// Tenants are those of whom the shard holds something.
	Tenants() []journal.TenantRef
	// Read fills c with the tenant's lines from a position on.
	Read(t journal.TenantRef, from journal.Position, o journal.ReadOptions, c *journal.Chunk) error
}

// Quarantine keeps records that cannot become events, and events that a sink
// will never take: by tenant, in a shard of its own, so that the journal's
// quotas keep one tenant's rubbish from pushing out another's. It is safe for
// concurrent use.
type Quarantine struct {
	log QLog

	mu     sync.Mutex
	recent map[string]struct{} // ids of the newest entries
	ring   []string            // the same, in order of arrival
	next   int                 // the place in ring that is overwritten next

	entries int                                    // that are listed
	gone    map[string]struct{}                    // entries that were retried
	floors  map[journal.TenantRef]journal.Position // before them all expired
	expired uint64

	expiring sync.Mutex // one pass at a time
}

// recentIDs is how many ids are remembered to tell a repeat: a feed repeats at
// most what it had not been answered when the process died.
const recentIDs = 1 << 16

// chunkBytes ends one append to the quarantine's journal.
const chunkBytes = 4 << 20

// OpenQuarantine opens the quarantine in its shard and reads once through what
// it holds.
func OpenQuarantine(log QLog) (*Quarantine, error) {
	if log == nil {
		return nil, errors.New("quarantine: no log")
	}
	q := &Quarantine{log: log, recent: make(map[string]struct{}), gone: map[string]struct{}{}, floors: map[journal.TenantRef]journal.Position{}}
	q.openFloors()
	for _, ref := range log.Tenants() {
		err := q.read(ref, func(line []byte) error {
			if id := string(idOf(line)); isGone(line) {
				_, counted := q.recent[id]
				q.forget(id, counted)
			} else if q.remember(id) {
				q.entries++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return q, nil
}

// remember notes an id; false where it was known. The caller holds mu, or is
// the only one.
func (q *Quarantine) remember(id string) bool {
	if _, there := q.recent[id]; there {
		return false
	}
	if len(q.ring) < recentIDs {
		q.ring = append(q.ring, id)
	} else {
		delete(q.recent, q.ring[q.next])
		q.ring[q.next] = id
		q.next = (q.next + 1) % recentIDs
	}
	q.recent[id] = struct{}{}
	return true
}

// Put keeps entries: durable on return. An entry without an ID gets one; an
// entry that is there already is not kept twice. Errors are the journal's
// (feeds.ErrFull, feeds.ErrStopped): put the same again.
func (q *Quarantine) Put(ctx context.Context, entries ...Entry) error {
	for len(entries) > 0 {
		n, err := q.putSome(ctx, entries)
		if err != nil {
			return fmt.Errorf("quarantine: keeping %d records: %w", len(entries), err)
		}
		entries = entries[n:]
	}
	return nil
}

// putSome appends the first entries, up to chunkBytes, and says how many.
func (q *Quarantine) putSome(ctx context.Context, entries []Entry) (n int, err error) {
	var b journal.Batch
	var ids []string
	for n = 0; n < len(entries) && len(b.Arena) < chunkBytes; n++ {
		e := entries[n]
		if e.ID == "" {
			e.ID = entryID(&e, sha256.Sum256(e.Data))
		}
		if q.has(e.ID) {
			continue
		}
		off := len(b.Arena)
		if b.Arena, err = appendEntry(b.Arena, &e); err != nil {
			return n, err
		}
		tenant := e.Tenant
		if tenant == "" {
			tenant = Unrouted
		}
		b.Events = append(b.Events, journal.Event{Off: uint32(off), Len: uint32(len(b.Arena) - off),
			Tenant: q.log.Tenant(tenant), Time: e.Time.UnixMilli()})
		ids = append(ids, e.ID)
	}
	if len(b.Events) == 0 {
		return n, nil
	}
	if _, err = q.log.Append(ctx, &b); err != nil {
		return n, err
	}
	// Only what is durable counts as there; of two at once, both may be kept,
	// and List shows one.
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		if q.remember(id) {
			q.entries++
		}
	}
	return n, nil
}

func (q *Quarantine) has(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, there := q.recent[id]
	return there
}

// Filter chooses entries; the zero Filter is all of them.
type Filter struct {
	// Tenant is one tenant, Unrouted for those of nobody; "" is all.
	Tenant feeds.TenantID
	Feed   string
	// Since leaves out what came before.
	Since time.Time
}

// List gives the entries tenant by tenant, each tenant's in order of arrival.
// An error ends it.
func (q *Quarantine) List(f Filter) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		refs := q.log.Tenants()
		if f.Tenant != "" {
			refs = []journal.TenantRef{q.log.Tenant(f.Tenant)}
		}
		for _, ref := range refs {
			if !q.list(ref, &f, yield) {
				return
			}
		}
	}
}

// list gives one tenant's entries; false to stop.
func (q *Quarantine) list(ref journal.TenantRef, f *Filter, yield func(Entry, error) bool) bool {
	seen := map[string]struct{}{}
	err := q.read(ref, func(line []byte) error {
		if isGone(line) {
			return nil
		}
		e, err := parseEntry(line)
		if err != nil {
			return err
		}
		if _, twice := seen[e.ID]; twice || q.hidden(&e) || f.Feed != "" && e.Feed != f.Feed || e.Time.Before(f.Since) {
			return nil
		}
		seen[e.ID] = struct{}{}
		if !yield(e, nil) {
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		yield(Entry{}, err)
	}
	return err == nil
}

// errStop ends a read whose caller has seen enough.
var errStop = errors.New("enough")

// read gives f one tenant's lines, in order of arrival, until it returns an error.
func (q *Quarantine) read(ref journal.TenantRef, f func(line []byte) error) error {
	return q.scan(ref, q.floorOf(ref), journal.Position{}, f)
}

// scan gives f one tenant's lines from a position to another, zero for the end.
func (q *Quarantine) scan(ref journal.TenantRef, from, to journal.Position, f func(line []byte) error) error {
	var c journal.Chunk
	for at := from; ; at = c.Next {
		if err := q.log.Read(ref, at, journal.ReadOptions{Until: to.Seq}, &c); err != nil {
			return fmt.Errorf("quarantine: reading: %w", err)
		}
		for _, s := range c.Spans {
			for line := range lines(c.Data[s.Off : s.Off+s.Len]) {
				if err := f(line); err != nil {
					return err
				}
			}
		}
		if !c.More {
			return nil
		}
	}
}

// Get finds one entry; false where there is none of that id.
func (q *Quarantine) Get(id string) (Entry, bool, error) {
	for e, err := range q.List(Filter{}) {
		if err != nil {
			return Entry{}, false, err
		}
		if e.ID == id {
			return e, true, nil
		}
	}
	return Entry{}, false, nil
}

// Newest gives at most limit entries, the newest first.
func (q *Quarantine) Newest(f Filter, limit int) ([]Entry, error) {
	var h newest
	for e, err := range q.List(f) {
		if err != nil {
			return nil, err
		}
		h.keep(e, limit)
	}
	return h.sorted(), nil
}
