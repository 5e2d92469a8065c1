package journal

import (
	"context"
	"encoding/binary"
	"io"
	"iter"
	"sort"
	"strings"
	"sync"

	"datasync/feeds"
)

// Store is all shards of one data folder.
type Store struct {
	mu sync.Mutex
	o  Options
	js map[string]*Journal
}

// Usage is how full the store is.
type Usage struct {
	Used, Cap int64
	// Undelivered are the bytes that some lane still wants, by tenant.
	Undelivered map[feeds.TenantID]int64
}

// Journal is one shard's log.
type Journal struct {
	mu    sync.Mutex
	s     *Store
	names map[feeds.TenantID]TenantRef
	ids   []feeds.TenantID
	ev    []memEvent
	facts map[string][]byte
	src   uint64
	n     uint64
	seq   feeds.Sequence
	end   map[TenantRef]Position
	subs  []func([]Arrival)
}
type memEvent struct {
	t    TenantRef
	k    uint8
	pos  Position
	data []byte
	at   int64
	time int64
}

func OpenStore(dir string, o Options) (*Store, error) {
	return &Store{o: o, js: map[string]*Journal{}}, nil
}
func (s *Store) ID() string { return "abc123" }
func (s *Store) Shard(name string) (*Journal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.js[name] == nil {
		s.js[name] = &Journal{s: s, names: map[feeds.TenantID]TenantRef{}, facts: map[string][]byte{}, end: map[TenantRef]Position{}}
	}
	return s.js[name], nil
}
func (s *Store) Shards() ([]string, error) {
	var r []string
	for n := range s.js {
		r = append(r, n)
	}
	sort.Strings(r)
	return r, nil
}
func (s *Store) Usage() Usage                                          { return Usage{} }
func (s *Store) Maintain() error                                       { return nil }
func (s *Store) Scrub(ctx context.Context, bytesPerSecond int64) error { return nil }
func (s *Store) Close() error                                          { return nil }
func (j *Journal) Tenant(id feeds.TenantID) TenantRef {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r, ok := j.names[id]; ok {
		return r
	}
	r := TenantRef(len(j.ids))
	j.ids = append(j.ids, id)
	j.names[id] = r
	return r
}
func (j *Journal) TenantID(r TenantRef) feeds.TenantID {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ids[r]
}
func (j *Journal) Append(ctx context.Context, b *Batch) (Receipt, error) {
	j.mu.Lock()
	j.n++
	r := Receipt{Commit: j.n}
	var arr []Arrival
	for _, e := range b.Events {
		if e.Seq == 0 {
			e.Seq = j.seq + 1
		}
		j.seq = e.Seq
		if r.First == 0 {
			r.First = e.Seq
		}
		r.Last = e.Seq
		p := j.end[e.Tenant]
		p.Seq = e.Seq
		d := append([]byte(nil), b.Arena[e.Off:e.Off+e.Len]...)
		now := j.s.now()
		j.ev = append(j.ev, memEvent{e.Tenant, e.Kind, p, d, now, e.Time})
		arr = append(arr, Arrival{Tenant: e.Tenant, Start: p, Events: 1, Bytes: e.Len, Committed: now})
		j.end[e.Tenant] = Position{e.Seq + 1, p.Events + 1, p.Bytes + uint64(len(d))}
	}
	if b.Source != 0 {
		j.src = b.Source
	}
	j.put(b.Facts)
	subs := j.subs
	j.mu.Unlock()
	for _, f := range subs {
		f(arr)
	}
	return r, nil
}
func (s *Store) now() int64 {
	if s.o.Now != nil {
		return s.o.Now().UnixMilli()
	}
	return 0
}
func (j *Journal) put(fs []Fact) {
	for _, f := range fs {
		switch {
		case f.Add:
			a, b := Counts(j.facts[f.Key]), Counts(f.Value)
			for len(a) < len(b) {
				a = append(a, 0)
			}
			for i := range b {
				a[i] += b[i]
			}
			j.facts[f.Key] = AppendCounts(nil, a...)
		case len(f.Value) == 0:
			delete(j.facts, f.Key)
		default:
			j.facts[f.Key] = append([]byte(nil), f.Value...)
		}
	}
}
func (j *Journal) Put(ctx context.Context, facts ...Fact) error { j.PutLater(facts...); return nil }
func (j *Journal) PutLater(facts ...Fact)                       { j.mu.Lock(); j.put(facts); j.mu.Unlock() }
func (j *Journal) Fact(key string) ([]byte, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	v, ok := j.facts[key]
	return v, ok
}
func (j *Journal) Facts(prefix string) iter.Seq2[string, []byte] {
	return func(y func(string, []byte) bool) {
		j.mu.Lock()
		var ks []string
		vs := map[string][]byte{}
		for k, v := range j.facts {
			if strings.HasPrefix(k, prefix) {
				ks = append(ks, k)
				vs[k] = v
			}
		}
		j.mu.Unlock()
		sort.Strings(ks)
		for _, k := range ks {
			if !y(k, vs[k]) {
				return
			}
		}
	}
}
func AppendCounts(dst []byte, counts ...uint64) []byte {
	for _, c := range counts {
		dst = binary.AppendUvarint(dst, c)
	}
	return dst
}
func Counts(value []byte) []uint64 {
	var r []uint64
	for len(value) > 0 {
		v, n := binary.Uvarint(value)
		if n <= 0 {
			return r
		}
		r = append(r, v)
		value = value[n:]
	}
	return r
}
func (j *Journal) Source() uint64 { j.mu.Lock(); defer j.mu.Unlock(); return j.src }
func (j *Journal) Tenants() []TenantRef {
	j.mu.Lock()
	defer j.mu.Unlock()
	var r []TenantRef
	for i := range j.ids {
		if j.end[TenantRef(i)].Events > 0 {
			r = append(r, TenantRef(i))
		}
	}
	return r
}
func (j *Journal) Standing(t TenantRef) Standing {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Standing{End: j.end[t]}
}
func (j *Journal) Read(t TenantRef, from Position, o ReadOptions, c *Chunk) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	*c = Chunk{Data: c.Data[:0], Spans: c.Spans[:0], Next: from}
	limit := o.MaxBytes
	if limit == 0 {
		limit = 1 << 20
	}
	for _, e := range j.ev {
		if e.t != t || e.pos.Seq < from.Seq {
			continue
		}
		if o.Before != 0 && e.at >= o.Before || o.Until != 0 && e.pos.Seq >= o.Until {
			break
		}
		if len(c.Spans) > 0 && (len(c.Data)+len(e.data) > limit || o.MaxEvents > 0 && len(c.Spans) >= o.MaxEvents) {
			c.More = true
			break
		}
		n := len(e.data)
		c.Spans = append(c.Spans, Span{Off: len(c.Data), Len: n, Events: 1, Kinds: []KindRun{{e.k, 1, uint32(n)}}, Start: e.pos, Steps: []Step{{1, 1}}, MinTime: e.time, MaxTime: e.time, Committed: e.at})
		c.Data = append(c.Data, e.data...)
		c.Next = Position{e.pos.Seq + 1, e.pos.Events + 1, e.pos.Bytes + uint64(n)}
	}
	return nil
}
func (j *Journal) Seek(t TenantRef, at int64) (Position, error) { return Position{}, nil }
func (j *Journal) Locate(t TenantRef, seq feeds.Sequence) (Position, error) {
	return Position{Seq: seq}, nil
}
func (j *Journal) Release(t TenantRef, p Position)         {}
func (j *Journal) Pin(t TenantRef, from, to Position)      {}
func (j *Journal) Unpin(t TenantRef, from Position)        {}
func (j *Journal) Expire(t TenantRef, upTo Position) error { return nil }
func (j *Journal) Subscribe(f func([]Arrival)) {
	j.mu.Lock()
	j.subs = append(j.subs, f)
	j.mu.Unlock()
}
func (j *Journal) Err() error { return nil }

// Report is what Verify and Repair found.
type Report struct {
	Shards, Segments, Commits, Blocks, Events int64
	Incidents                                 []Incident
}

func Inspect(w io.Writer, dir string) error          { return nil }
func Verify(w io.Writer, dir string) (Report, error) { return Report{}, nil }
func Repair(w io.Writer, dir string) (Report, error) { return Report{}, nil }
func OS() FS                                         { return nil }
