package journal

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"

	"datasync/feeds"
)

// blockList is one tenant's blocks in one segment: entries in arena, found by
// the offsets in table (four bytes each), in the order of the log. Both are
// only ever appended to, so a copy of the two slices may be read without a lock.
type blockList struct{ arena, table []byte }

func (l blockList) len() int { return len(l.table) / 4 }

func (l blockList) entry(i int) []byte {
	off := le.Uint32(l.table[4*i:])
	if uint64(off) >= uint64(len(l.arena)) {
		return nil
	}
	return l.arena[off:]
}

func (l blockList) at(i int, m *blockMeta) error { return decodeIndexEntry(l.entry(i), m) }

// entryKey is the cheap part of an entry, for searching.
type entryKey struct {
	committed int64
	first     feeds.Sequence
	size      uint32
	held      Position
}

func (l blockList) key(i int) (k entryKey) {
	f := fields{p: l.entry(i)}
	f.uvarint()
	k.committed = f.varint()
	f.take(5)
	k.first = feeds.Sequence(f.uvarint())
	f.uvarint()
	k.size = f.u32()
	k.held = Position{Seq: k.first, Events: f.uvarint(), Bytes: f.uvarint()}
	return k
}

// search finds the first block for which is holds; is must go from false to
// true once.
func (l blockList) search(is func(k entryKey) bool) int {
	return sort.Search(l.len(), func(i int) bool { return is(l.key(i)) })
}

// fromSeq is the first block that may hold an event at or after seq.
func (l blockList) fromSeq(seq feeds.Sequence, m *blockMeta) int {
	i := l.search(func(k entryKey) bool { return k.first > seq })
	if i > 0 && l.at(i-1, m) == nil && m.last() >= seq {
		i--
	}
	return i
}

// index finds a tenant's blocks in a segment. That of an open segment grows in
// memory (tables); that of a sealed one is what the file ends with (raw).
type index struct {
	arena  []byte
	tables map[TenantRef][]byte

	raw     []byte
	records []uint32 // where each tenant's record starts in raw
}

func newIndex() *index { return &index{tables: map[TenantRef][]byte{}} }

// add takes a block; tail is its encoding from a directory.
func (x *index) add(t TenantRef, off, committed int64, tail []byte) {
	x.tables[t] = le.AppendUint32(x.tables[t], uint32(len(x.arena)))
	x.arena = binary.AppendUvarint(x.arena, uint64(off))
	x.arena = binary.AppendVarint(x.arena, committed)
	x.arena = append(x.arena, tail...)
}

// memory is about what the index takes.
func (x *index) memory() int64 {
	return int64(cap(x.arena) + cap(x.raw) + 4*cap(x.records) + 64*len(x.tables))
}

// tenantRecord sums up what a sealed segment holds of a tenant.
type tenantRecord struct {
	name   []byte
	list   blockList
	end    Position
	stored uint64
}

const recordLen = 4 + 4 + 4*8

func (x *index) nameOf(i int) []byte {
	p := x.raw[x.records[i]:]
	return p[1 : 1+int(p[0])]
}

func (x *index) record(i int) tenantRecord {
	p := x.raw[x.records[i]:]
	n := int(p[0])
	name, p := p[1:1+n], p[1+n:]
	off, count := le.Uint32(p), le.Uint32(p[4:])
	u := func(i int) uint64 { return le.Uint64(p[8+8*i:]) }
	return tenantRecord{name: name, list: blockList{x.raw, x.raw[off : off+4*count]},
		end: Position{feeds.Sequence(u(0)), u(1), u(2)}, stored: u(3)}
}

// blocks is a tenant's list; empty where it has none. A growing index is
// looked at under the journal's lock.
func (x *index) blocks(t TenantRef, name feeds.TenantID) blockList {
	if x.tables != nil {
		return blockList{x.arena, x.tables[t]}
	}
	i := sort.Search(len(x.records), func(i int) bool { return string(x.nameOf(i)) >= string(name) })
	if i == len(x.records) || string(x.nameOf(i)) != string(name) {
		return blockList{}
	}
	return x.record(i).list
}

// tenants yields every tenant of the index with its blocks; by name for a
// sealed segment, in any order for one in memory.
func (x *index) tenants(j *Journal) iter.Seq2[TenantRef, blockList] {
	return func(yield func(TenantRef, blockList) bool) {
		for t, table := range x.tables {
			if !yield(t, blockList{x.arena, table}) {
				return
			}
		}
		for i := range x.records {
			r := x.record(i)
			if !yield(j.Tenant(feeds.TenantID(r.name)), r.list) {
				return
			}
		}
	}
}

// encode lays the index out as a sealed segment carries it and fills in the
// footer's part.
func (x *index) encode(name func(TenantRef) feeds.TenantID, f *footer) []byte {
	refs := make([]TenantRef, 0, len(x.tables))
	for t := range x.tables {
		refs = append(refs, t)
	}
	slices.SortFunc(refs, func(a, b TenantRef) int { return strings.Compare(string(name(a)), string(name(b))) })
	out := slices.Grow([]byte(nil), len(x.arena)+64*len(refs))
	out = append(out, x.arena...)
	offs := make([]uint32, len(refs))
	for i, t := range refs {
		offs[i] = uint32(len(out))
		out = append(out, x.tables[t]...)
	}
	f.TableOff, f.Tenants, f.Stored = uint32(len(out)), uint32(len(refs)), 0
	var m blockMeta
	for i, t := range refs {
		l := blockList{x.arena, x.tables[t]}
		stored := uint64(0)
		for b := range l.len() {
			if l.at(b, &m) == nil {
				stored += uint64(m.Stored)
			}
		}
		end := m.end()
		out = append(out, byte(len(name(t))))
		out = append(out, name(t)...)
		out = le.AppendUint32(out, offs[i])
		out = le.AppendUint32(out, uint32(l.len()))
		for _, v := range []uint64{uint64(end.Seq), end.Events, end.Bytes, stored} {
			out = le.AppendUint64(out, v)
		}
		f.Stored += stored
	}
	f.IndexLen, f.IndexCRC = uint32(len(out)), crcOf(out)
	return out
}

// decodeIndex checks an index against its footer; raw is kept.
func decodeIndex(raw []byte, f footer) (*index, error) {
	if uint32(len(raw)) != f.IndexLen || crcOf(raw) != f.IndexCRC || f.TableOff > f.IndexLen {
		return nil, fmt.Errorf("index of %d bytes: %w", len(raw), errDamaged)
	}
	x := &index{raw: raw, records: make([]uint32, 0, min(int(f.Tenants), len(raw)/recordLen))}
	p := f.TableOff
	for range f.Tenants {
		if uint64(p)+1 > uint64(len(raw)) || uint64(p)+1+uint64(raw[p])+recordLen > uint64(len(raw)) {
			return nil, fmt.Errorf("table of tenants: %w", errDamaged)
		}
		rec := raw[p+1+uint32(raw[p]):]
		if off, n := uint64(le.Uint32(rec)), uint64(le.Uint32(rec[4:])); off+4*n > uint64(f.TableOff) {
			return nil, fmt.Errorf("list of blocks: %w", errDamaged)
		}
		x.records = append(x.records, p)
		p += 1 + uint32(raw[p]) + recordLen
	}
	return x, nil
}
