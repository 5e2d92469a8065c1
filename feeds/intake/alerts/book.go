package alerts

import (
	"bytes"
	"fmt"
	"reflect"
	"sync"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// Log is a shard's journal as it is read back; *journal.Journal is one.
type Log interface {
	// Tenant gives the number that stands for a tenant in this journal.
	Tenant(id feeds.TenantID) journal.TenantRef
	// Standing says where the tenant's events end.
	Standing(t journal.TenantRef) journal.Standing
	// Seek finds the first event committed at or after a time, ms UTC; the end
	// where there is none.
	Seek(t journal.TenantRef, at int64) (journal.Position, error)
	// Read fills c with the tenant's lines from a position on.
	Read(t journal.TenantRef, from journal.Position, o journal.ReadOptions, c *journal.Chunk) error
}

// Options of a Book.
type Options struct {
	// Settings are a tenant's; nil: it has no alerts. Asked once for each
	// request and tenant, concurrently. Required.
	Settings func(feeds.TenantID) *Settings
	// Logs are the journals of all shards that may hold events, asked when a
	// tenant's sums are made: its matches come through any of them.
	Logs func() []Log
	// Now is the wall clock; nil is time.Now.
	Now func() time.Time
	// OnError is told that a tenant's window could not be read back (in whole):
	// its sums begin with what could.
	OnError func(feeds.TenantID, error)
}

// Book holds the watches of all tenants that have alerts. It is safe for
// concurrent use.
type Book struct {
	o Options

	mu      sync.RWMutex
	watches map[feeds.TenantID]*kept
}

type kept struct {
	of    *Settings // where w's settings stood
	watch *Watch
	left  uint64 // of the watches before this one
}

// NewBook makes a Book.
func NewBook(o Options) *Book {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.OnError == nil {
		o.OnError = func(feeds.TenantID, error) {}
	}
	return &Book{o: o, watches: map[feeds.TenantID]*kept{}}
}

// Watch is a tenant's watch, nil where it has no alerts. Settings that changed
// make another, whose sums are read back under the new settings.
func (b *Book) Watch(id feeds.TenantID) *Watch {
	s := b.o.Settings(id)
	if s == nil {
		return nil
	}
	b.mu.RLock()
	k := b.watches[id]
	b.mu.RUnlock()
	if k != nil && k.of == s {
		return k.watch
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k = b.watches[id]
	switch {
	case k != nil && (k.of == s || reflect.DeepEqual(*k.of, *s)):
		b.watches[id] = &kept{of: s, watch: k.watch, left: k.left}
		return k.watch
	case k == nil:
		k = &kept{}
		b.prune()
	default:
		k = &kept{left: k.left + k.watch.stats().Left}
	}
	w := newWatch(id, *s)
	w.failed = func(err error) { b.o.OnError(id, err) }
	if b.o.Logs != nil {
		w.readBack = func(f func([]byte)) error { return b.read(id, s.Window, f) }
	}
	k.of, k.watch = s, w
	b.watches[id] = k
	return w
}

// prune lets the watches go of tenants that have no alerts any more.
func (b *Book) prune() {
	for id := range b.watches {
		if b.o.Settings(id) == nil {
			delete(b.watches, id)
		}
	}
}

// Stats are what a tenant's sums hold.
type Stats struct {
	Tenant   feeds.TenantID
	Entities int
	// Left counts entities that had to make room for newer ones while their
	// window held something.
	Left uint64
}

// Stats gives those of every tenant that has alerts and had an event since the start.
func (b *Book) Stats() []Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.prune()
	out := make([]Stats, 0, len(b.watches))
	for _, k := range b.watches {
		s := k.watch.stats()
		s.Left += k.left
		out = append(out, s)
	}
	return out
}

// read gives f the lines that all shards hold of a tenant's window.
func (b *Book) read(id feeds.TenantID, window time.Duration, f func([]byte)) error {
	for _, log := range b.o.Logs() {
		if err := b.readLog(log, log.Tenant(id), window, f); err != nil {
			return fmt.Errorf("alerts: reading back %s of tenant %s: %w", window, id, err)
		}
	}
	return nil
}

// behind is how much further than the window is read back: the clocks of
// sources and ours differ.
const behind = time.Minute

// farthest is where nothing older is looked for.
const farthest = 400 * 24 * time.Hour

// readLog reads what was committed within a window of the tenant's last commit
// in a shard, wherever that lies: a source that stood still goes on there.
func (b *Book) readLog(log Log, t journal.TenantRef, window time.Duration, f func([]byte)) error {
	end := log.Standing(t).End
	if end.Events == 0 {
		return nil
	}
	back, now := window+behind, b.o.Now()
	at, err := log.Seek(t, now.Add(-back).UnixMilli())
	for step := back; err == nil && at.Seq >= end.Seq && step < farthest; step *= 2 {
		// Nothing that late: twice as far, and a window before that.
		if at, err = log.Seek(t, now.Add(-2*step).UnixMilli()); err == nil && at.Seq < end.Seq {
			at, err = log.Seek(t, now.Add(-2*step-back).UnixMilli())
		}
	}
	var c journal.Chunk
	for more := true; more && err == nil; at, more = c.Next, c.More {
		if err = log.Read(t, at, journal.ReadOptions{}, &c); err != nil {
			break
		}
		for i := range c.Spans {
			lines(&c, &c.Spans[i], f)
		}
	}
	return err
}

// lines gives f the lines of a span that may count.
func lines(c *journal.Chunk, s *journal.Span, f func([]byte)) {
	data := c.Data[s.Off : s.Off+s.Len]
	for _, run := range s.Kinds {
		part := data[:run.Bytes]
		data = data[run.Bytes:]
		if !Counting.Has(schemas.Kind(run.Kind)) {
			continue
		}
		for len(part) > 0 {
			line, rest, _ := bytes.Cut(part, []byte{'\n'})
			f(line)
			part = rest
		}
	}
}

// Counting are the kinds of events that may count; others need not be shown to
// a Turn.
const Counting = schemas.KindSet(1<<schemas.KindMitigation | 1<<schemas.KindMatch | 1<<schemas.KindAlert)
