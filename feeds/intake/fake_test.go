package intake

import (
	"context"
	"slices"
	"strings"
	"sync"

	"datasync/feeds"
	"datasync/feeds/journal"
)

// fakeLog is a journal in memory. What Append kept is in lines; before, where
// set, is asked first and may refuse.
type fakeLog struct {
	mu     sync.Mutex
	before func(b *journal.Batch) error
	ids    []feeds.TenantID
	events []fakeEvent
	facts  map[string][]byte
	counts map[string][]uint64
	source uint64
	n      uint64
}

type fakeEvent struct {
	tenant feeds.TenantID
	kind   uint8
	time   int64
	seq    feeds.Sequence
	line   string
}

func (l *fakeLog) Tenant(id feeds.TenantID) journal.TenantRef {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, t := range l.ids {
		if t == id {
			return journal.TenantRef(i)
		}
	}
	l.ids = append(l.ids, id)
	return journal.TenantRef(len(l.ids) - 1)
}

func (l *fakeLog) Append(_ context.Context, b *journal.Batch) (journal.Receipt, error) {
	if l.before != nil {
		if err := l.before(b); err != nil {
			return journal.Receipt{}, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	for _, e := range b.Events {
		l.events = append(l.events, fakeEvent{l.ids[e.Tenant], e.Kind, e.Time, e.Seq, string(b.Arena[e.Off:e.Off+e.Len]) + string(e.Rest)})
	}
	for _, f := range b.Facts {
		if !f.Add {
			if l.facts == nil {
				l.facts = map[string][]byte{}
			}
			l.facts[f.Key] = slices.Clone(f.Value)
			continue
		}
		if l.counts == nil {
			l.counts = map[string][]uint64{}
		}
		for i, v := range journal.Counts(f.Value) {
			if i >= len(l.counts[f.Key]) {
				l.counts[f.Key] = append(l.counts[f.Key], 0)
			}
			l.counts[f.Key][i] += v
		}
	}
	if b.Source != 0 {
		l.source = b.Source
	}
	return journal.Receipt{Commit: l.n}, nil
}

// Tenants and Read make it a QLog; one Read gives two lines at most, so that
// reading on is tried.
func (l *fakeLog) Tenants() (refs []journal.TenantRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.ids {
		refs = append(refs, journal.TenantRef(i))
	}
	return refs
}

func (l *fakeLog) TenantID(t journal.TenantRef) feeds.TenantID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ids[t]
}

// at is the position behind the tenant's first lines for which ok holds.
func (l *fakeLog) at(t journal.TenantRef, ok func(fakeEvent) bool) (p journal.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range l.events {
		if l.ids[t] != e.tenant {
			continue
		}
		if !ok(e) {
			return p
		}
		p = journal.Position{Seq: feeds.Sequence(i + 2), Events: p.Events + 1, Bytes: p.Bytes + uint64(len(e.line))}
	}
	return p
}

func (l *fakeLog) Standing(t journal.TenantRef) journal.Standing {
	return journal.Standing{End: l.at(t, func(fakeEvent) bool { return true })}
}

// Seek takes a line's own time for when it was committed.
func (l *fakeLog) Seek(t journal.TenantRef, at int64) (journal.Position, error) {
	return l.at(t, func(e fakeEvent) bool { return e.time < at }), nil
}

func (l *fakeLog) Release(journal.TenantRef, journal.Position) {}

func (l *fakeLog) Fact(key string) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v, ok := l.counts[key]; ok {
		return journal.AppendCounts(nil, v...), true
	}
	v, ok := l.facts[key]
	return v, ok
}

func (l *fakeLog) Read(t journal.TenantRef, from journal.Position, o journal.ReadOptions, c *journal.Chunk) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	*c = journal.Chunk{Next: from}
	n := feeds.Sequence(0)
	for i, e := range l.events {
		seq := feeds.Sequence(i + 1)
		if l.ids[t] != e.tenant || seq < from.Seq || o.Until != 0 && seq >= o.Until {
			continue
		}
		if n == 2 {
			c.More = true
			return nil
		}
		n++
		c.Spans = append(c.Spans, journal.Span{Off: len(c.Data), Len: len(e.line), Events: 1})
		c.Data = append(c.Data, e.line...)
		c.Next = journal.Position{Seq: seq + 1, Events: c.Next.Events + 1, Bytes: c.Next.Bytes + uint64(len(e.line))}
	}
	return nil
}

// all is every line, in order of arrival.
func (l *fakeLog) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, e := range l.events {
		b.WriteString(e.line)
	}
	return b.String()
}

func (l *fakeLog) feed(name string) Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ParseCounts(journal.AppendCounts(nil, l.counts[CountsKey(name)]...))
}
