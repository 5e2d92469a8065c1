package journal

import (
	"encoding/binary"
	"slices"

	"datasync/feeds"
)

// builder lays out one wave: what goes to disk with one write and one fsync.
// That is one commit with the events of all its requests, sorted by tenant with
// one index sort, and the facts; or the pieces of a checkpoint, a commit each.
// Its buffers are used again. It belongs to the writer.
type builder struct {
	buf   []byte
	parts []part

	keys   []uint64 // tenant<<32 | ordinal
	items  []item   // by ordinal
	blocks []built
	facts  []Fact // in the order of the log, to fold when durable
	values []byte // the values of facts, copied
	meta   blockMeta
	body   []byte
}

// part is one commit of a wave: buf[off:off+head.size()].
type part struct {
	off  int
	head commitHead
}

// item is one event on its way.
type item struct {
	arena []byte
	ev    *Event
	seq   feeds.Sequence
}

// built is a block of the commit under construction.
type built struct {
	tenant   TenantRef
	from, to int // in keys
	end      Position
	events   uint32
	bytes    uint32
	start    Position
	body     int // where its directory frame's body lies in buf
	tail     int // where the part begins that the index shares
	tailEnd  int
	off      int64 // of its bytes, in buf
}

// reset drops what the last wave held; the large buffers of a rare large
// commit are not kept.
func (b *builder) reset() {
	if cap(b.buf) > 16<<20 {
		b.buf, b.items, b.keys = nil, nil, nil
	}
	b.dropEvents()
	clear(b.facts)
	b.facts, b.values, b.parts = b.facts[:0], b.values[:0], b.parts[:0]
	if cap(b.values) > 1<<20 {
		b.values = nil
	}
}

// dropEvents leaves only the facts.
func (b *builder) dropEvents() {
	clear(b.items)
	b.keys, b.items, b.blocks = b.keys[:0], b.items[:0], b.blocks[:0]
}

// addEvents takes the events of a batch behind the number last and returns the
// last number used.
func (b *builder) addEvents(batch *Batch, last feeds.Sequence) feeds.Sequence {
	for i := range batch.Events {
		e := &batch.Events[i]
		last = max(last+1, e.Seq)
		b.keys = append(b.keys, uint64(e.Tenant)<<32|uint64(len(b.items)))
		b.items = append(b.items, item{batch.Arena[e.Off : e.Off+e.Len], e, last})
	}
	return last
}

// addFacts takes facts; their values are copied, since the caller of a Put
// that gave up may go on using them.
func (b *builder) addFacts(fs []Fact) {
	for _, f := range fs {
		n := len(b.values)
		b.values = append(b.values, f.Value...)
		f.Value = b.values[n:len(b.values):len(b.values)]
		b.facts = append(b.facts, f)
	}
}

// sortEvents brings each tenant's events together, in their order.
func (b *builder) sortEvents() { slices.Sort(b.keys) }

// plan begins a commit of sorted events: head and directory. name and held are
// asked while it runs only.
func (b *builder) plan(head commitHead, name func(TenantRef) feeds.TenantID, held func(TenantRef) Position) {
	b.blocks = b.blocks[:0]
	b.parts = append(b.parts[:0], part{0, head})
	b.buf = append(b.buf[:0], make([]byte, commitHeadLen)...)
	b.directory(name, held)
	b.parts[0].head.DirLen = uint32(len(b.buf) - commitHeadLen)
}

// fill ends a commit: facts and blocks.
func (b *builder) fill() {
	b.encodeFacts()
	b.copyBlocks()
	b.buf = append(b.buf, make([]byte, commitHeadLen)...)
}

// stamp writes heads and tails for a segment, numbering from number; again
// when the wave has to go elsewhere.
func (b *builder) stamp(segment, number uint64) {
	for i := range b.parts {
		p := &b.parts[i]
		p.head.Number = number + uint64(i)
		p.head.put(b.buf[p.off:], magicHead, segment)
		p.head.put(b.buf[p.off+int(p.head.size())-commitHeadLen:], magicTail, segment)
	}
}

// pieces lays out a checkpoint.
func (b *builder) pieces(head commitHead, ps []piece) {
	b.buf, b.parts = b.buf[:0], b.parts[:0]
	for _, p := range ps {
		h := head
		h.Flags |= flagCheckpoint
		h.FactsLen, h.Facts = uint32(len(p.facts)), p.count
		b.parts = append(b.parts, part{len(b.buf), h})
		b.buf = append(b.buf, make([]byte, commitHeadLen)...)
		b.buf = append(b.buf, p.facts...)
		b.buf = append(b.buf, make([]byte, commitHeadLen)...)
	}
}

// directory makes the blocks: runs of keys of one tenant, cut where a block
// would grow beyond maxBlock. The CRCs wait for the bytes.
func (b *builder) directory(name func(TenantRef) feeds.TenantID, held func(TenantRef) Position) {
	off := int64(0)
	for i := 0; i < len(b.keys); {
		t := TenantRef(b.keys[i] >> 32)
		start := held(t)
		if n := len(b.blocks); n > 0 && b.blocks[n-1].tenant == t {
			start = b.blocks[n-1].end
		}
		n := b.describe(i, t, start)
		m := &b.meta
		id := name(t)
		b.body = binary.AppendUvarint(b.body[:0], uint64(len(id)))
		b.body = append(b.body, id...)
		b.body = binary.AppendUvarint(b.body, uint64(off))
		tail := len(b.body)
		b.body = appendBlockTail(b.body, m)
		b.buf = binary.AppendUvarint(b.buf, uint64(len(b.body)))
		at := len(b.buf)
		b.buf = append(b.buf, b.body...)
		b.blocks = append(b.blocks, built{tenant: t, from: i, to: i + n, events: m.Events, bytes: m.Bytes,
			start: Position{m.First, start.Events, start.Bytes}, end: m.end(), body: at, tail: at + tail, tailEnd: len(b.buf), off: off})
		b.buf = append(b.buf, 0, 0, 0, 0)
		off += int64(m.Bytes)
		i += n
	}
	h := &b.parts[0].head
	h.BlocksLen, h.Blocks, h.Events = uint32(off), uint32(len(b.blocks)), uint32(len(b.items))
}

// describe fills b.meta with the block of tenant t that begins at keys[i] and
// says how many events it holds.
func (b *builder) describe(i int, t TenantRef, held Position) (n int) {
	m := &b.meta
	*m = blockMeta{Held: held, Steps: m.Steps[:0], Kinds: m.Kinds[:0]}
	var prev feeds.Sequence
	for ; i+n < len(b.keys) && TenantRef(b.keys[i+n]>>32) == t; n++ {
		it := &b.items[uint32(b.keys[i+n])]
		size, at := it.ev.size(), it.ev.Time
		if n == 0 {
			m.First, m.MinTime, m.MaxTime = it.seq, at, at
			m.Steps = append(m.Steps, Step{Count: 1, By: 1})
		} else {
			if m.Bytes+size > maxBlock {
				break
			}
			m.step(uint64(it.seq - prev))
			m.MinTime, m.MaxTime = min(m.MinTime, at), max(m.MaxTime, at)
		}
		prev = it.seq
		if k := len(m.Kinds) - 1; k >= 0 && m.Kinds[k].Kind == it.ev.Kind {
			m.Kinds[k].Events++
			m.Kinds[k].Bytes += size
		} else {
			m.Kinds = append(m.Kinds, KindRun{it.ev.Kind, 1, size})
		}
		m.Events++
		m.Bytes += size
	}
	return n
}

// step adds an event that lies by above the one before.
func (m *blockMeta) step(by uint64) {
	last := &m.Steps[len(m.Steps)-1]
	switch {
	case last.By == by:
		last.Count++
	case m.Events == 1: // the first event takes any distance
		*last = Step{Count: 2, By: by}
	default:
		m.Steps = append(m.Steps, Step{Count: 1, By: by})
	}
}

func (b *builder) encodeFacts() {
	start := len(b.buf)
	for _, f := range b.facts {
		kind := byte(factSet)
		if f.Add {
			kind = factAdd
		}
		b.buf = appendFact(b.buf, kind, f.Key, f.Value)
	}
	h := &b.parts[0].head
	h.FactsLen, h.Facts = uint32(len(b.buf)-start), uint32(len(b.facts))
}

// copyBlocks is the one pass over the bytes: copied, summed, and the sums set
// in the directory.
func (b *builder) copyBlocks() {
	b.buf = slices.Grow(b.buf, int(b.parts[0].head.BlocksLen)+commitHeadLen)
	for i := range b.blocks {
		bl := &b.blocks[i]
		start := len(b.buf)
		for _, k := range b.keys[bl.from:bl.to] {
			it := &b.items[uint32(k)]
			b.buf = append(append(b.buf, it.arena...), it.ev.Rest...)
		}
		le.PutUint32(b.buf[bl.tail:], crcOf(b.buf[start:]))
		le.PutUint32(b.buf[bl.tailEnd:], frameCRC(b.buf[bl.body:bl.tailEnd]))
		bl.off = int64(start)
	}
}
