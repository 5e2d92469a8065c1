package journal

import (
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
)

// What a frame of a commit's facts holds: body = kind · uvarint length of the
// key · key · value. Held totals and piece heads stand only in checkpoints.
const (
	factSet   = 0
	factAdd   = 1
	factHeld  = 2 // key: tenant; value: counts of its end: sequence, events, bytes
	factPiece = 3 // value: counts: number of the piece, pieces in all

	maxKey   = 512
	maxValue = 1 << 20
	pieceLen = 1 << 20
)

// AppendCounts encodes a list of counters as the value of a Fact, to be set
// or, with Add, to be added.
func AppendCounts(dst []byte, counts ...uint64) []byte {
	for _, c := range counts {
		dst = binary.AppendUvarint(dst, c)
	}
	return dst
}

// Counts decodes what AppendCounts made; what is no counter ends the list.
func Counts(value []byte) []uint64 {
	var out []uint64
	for len(value) > 0 {
		v, n := binary.Uvarint(value)
		if n <= 0 {
			break
		}
		out = append(out, v)
		value = value[n:]
	}
	return out
}

func addCounts(a, b []byte) []byte {
	x, y := Counts(a), Counts(b)
	if len(x) < len(y) {
		x = append(x, make([]uint64, len(y)-len(x))...)
	}
	for i, v := range y {
		x[i] += v
	}
	return AppendCounts(nil, x...)
}

func checkFact(f Fact) error {
	switch {
	case len(f.Key) == 0 || len(f.Key) > maxKey:
		return fmt.Errorf("fact %.40q: the key has %d bytes; use 1 to %d", f.Key, len(f.Key), maxKey)
	case len(f.Value) > maxValue:
		return fmt.Errorf("fact %q: the value has %d bytes, more than %d", f.Key, len(f.Value), maxValue)
	}
	return nil
}

// appendFact frames one fact.
func appendFact(dst []byte, kind byte, key string, value []byte) []byte {
	n := 1 + uvarintLen(uint64(len(key))) + len(key) + len(value)
	dst = binary.AppendUvarint(dst, uint64(n))
	start := len(dst)
	dst = append(dst, kind)
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = append(dst, value...)
	return le.AppendUint32(dst, frameCRC(dst[start:]))
}

func uvarintLen(v uint64) int {
	n := 1
	for v >= 0x80 {
		v >>= 7
		n++
	}
	return n
}

// decodeFact splits the body of a frame; the slices alias it.
func decodeFact(body []byte) (kind byte, key, value []byte, err error) {
	f := fields{p: body}
	kind = f.take(1)[0]
	n := f.uvarint()
	if n > uint64(len(f.p)) {
		return 0, nil, nil, errDamaged
	}
	key = f.take(int(n))
	if f.bad || kind > factPiece {
		return 0, nil, nil, errDamaged
	}
	return kind, key, f.p, nil
}

// factTable holds the current facts in three layers: what is durable, what the
// commit under way carries of the facts put later, and what was put later
// since. Values are never changed in place. Safe for concurrent use.
type factTable struct {
	mu      sync.RWMutex
	durable map[string][]byte
	taking  map[string]Fact
	later   map[string]Fact
	sorted  []string // keys of durable, and some that are gone
	fresh   []string // keys that are not in sorted yet
	size    int64    // of keys and values in durable
}

func newFactTable() *factTable {
	return &factTable{durable: map[string][]byte{}, later: map[string]Fact{}}
}

// overlay gives what a key holds after f stands on top of (v, ok).
func overlay(v []byte, ok bool, f Fact) ([]byte, bool) {
	if f.Add {
		return addCounts(v, f.Value), true
	}
	return f.Value, len(f.Value) > 0
}

// merge puts f on top of what m holds for the key.
func merge(m map[string]Fact, f Fact) {
	if below, ok := m[f.Key]; ok && f.Add {
		m[f.Key] = Fact{Key: f.Key, Value: addCounts(below.Value, f.Value), Add: below.Add}
		return
	}
	f.Value = slices.Clone(f.Value)
	m[f.Key] = f
}

func (t *factTable) get(key string) ([]byte, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.lookup(key)
}

func (t *factTable) lookup(key string) ([]byte, bool) {
	v, ok := t.durable[key]
	if f, has := t.taking[key]; has {
		v, ok = overlay(v, ok, f)
	}
	if f, has := t.later[key]; has {
		v, ok = overlay(v, ok, f)
	}
	return v, ok
}

// all yields a snapshot of the facts under prefix, sorted by key.
func (t *factTable) all(prefix string) iter.Seq2[string, []byte] {
	type pair struct {
		key   string
		value []byte
	}
	return func(yield func(string, []byte) bool) {
		t.mu.Lock()
		keys := t.under(prefix)
		out := make([]pair, 0, len(keys))
		for _, k := range keys {
			if v, ok := t.lookup(k); ok {
				out = append(out, pair{k, v})
			}
		}
		t.mu.Unlock()
		for _, p := range out {
			if !yield(p.key, p.value) {
				return
			}
		}
	}
}

// under lists the keys with a prefix in any layer, sorted, each once.
func (t *factTable) under(prefix string) []string {
	t.settle()
	from, _ := slices.BinarySearch(t.sorted, prefix)
	to := from
	for to < len(t.sorted) && strings.HasPrefix(t.sorted[to], prefix) {
		to++
	}
	keys, extra := t.sorted[from:to:to], false
	for _, m := range []map[string]Fact{t.taking, t.later} {
		for k := range m {
			if _, ok := t.durable[k]; !ok && strings.HasPrefix(k, prefix) {
				keys, extra = append(keys, k), true
			}
		}
	}
	if extra {
		keys = slices.Compact(slices.Sorted(slices.Values(keys)))
	}
	return keys
}

// settle brings sorted up to date: a few new keys are put in their places,
// many are sorted with the rest.
func (t *factTable) settle() {
	if len(t.sorted) >= 2*len(t.durable)+64 || len(t.fresh) > 64 {
		t.sorted = slices.Sorted(maps.Keys(t.durable))
		t.fresh = t.fresh[:0]
	}
	for _, k := range t.fresh {
		if i, has := slices.BinarySearch(t.sorted, k); !has {
			t.sorted = slices.Insert(t.sorted, i, k)
		}
	}
	t.fresh = t.fresh[:0]
}

// putLater puts facts into the top layer.
func (t *factTable) putLater(fs []Fact) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range fs {
		merge(t.later, f)
	}
}

// take hands the top layer to a commit, sorted by key so that what is written
// does not depend on the order of a map.
func (t *factTable) take() []Fact {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.later) == 0 {
		return nil
	}
	t.taking, t.later = t.later, map[string]Fact{}
	out := slices.Collect(maps.Values(t.taking))
	slices.SortFunc(out, func(a, b Fact) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// giveBack undoes take after a commit that was not made.
func (t *factTable) giveBack() {
	t.mu.Lock()
	defer t.mu.Unlock()
	newer := t.later
	t.later, t.taking = t.taking, nil
	if t.later == nil {
		t.later = map[string]Fact{}
	}
	for _, f := range newer {
		merge(t.later, f)
	}
}

// settleCommit makes the facts of a durable commit current.
func (t *factTable) settleCommit(fs []Fact) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taking = nil
	for _, f := range fs {
		t.fold(f.Key, f.Value, f.Add)
	}
}

// fold applies one durable fact; the value is copied.
func (t *factTable) fold(key string, value []byte, add bool) {
	old, had := t.durable[key]
	if had {
		t.size -= int64(len(key) + len(old))
	}
	switch {
	case add:
		value = addCounts(old, value)
	case len(value) == 0:
		delete(t.durable, key)
		return
	default:
		value = slices.Clone(value)
	}
	if !had {
		t.fresh = append(t.fresh, key)
	}
	t.durable[key] = value
	t.size += int64(len(key) + len(value))
}

// pending says whether facts wait for a commit.
func (t *factTable) pending() bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.later) > 0
}

// durableSize is about what a checkpoint would take.
func (t *factTable) durableSize() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.size + 8*int64(len(t.durable))
}

// piece is the facts of one commit of a checkpoint.
type piece struct {
	facts []byte
	count uint32
}

// checkpoint encodes all durable facts and held totals in pieces.
func (t *factTable) checkpoint(held iter.Seq2[string, Position]) []piece {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle()
	var out []piece
	var cur piece
	add := func(kind byte, key string, value []byte) {
		if len(cur.facts) >= pieceLen {
			out = append(out, cur)
			cur = piece{}
		}
		cur.facts = appendFact(cur.facts, kind, key, value)
		cur.count++
	}
	for _, k := range t.sorted {
		if v, ok := t.durable[k]; ok {
			add(factSet, k, v)
		}
	}
	var v []byte
	for tenant, p := range held {
		v = AppendCounts(v[:0], uint64(p.Seq), p.Events, p.Bytes)
		add(factHeld, tenant, v)
	}
	out = append(out, cur)
	for i := range out {
		head := appendFact(nil, factPiece, "", AppendCounts(nil, uint64(i), uint64(len(out))))
		out[i].facts = append(head, out[i].facts...)
		out[i].count++
	}
	return out
}
