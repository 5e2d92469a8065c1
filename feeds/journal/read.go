package journal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"

	"datasync/feeds"
	"datasync/formats/compress"
)

const defaultRead = 1 << 20

// reading is one Read under way. It works on a snapshot of the list of
// segments; lists of blocks only grow behind it.
type reading struct {
	j     *Journal
	t     TenantRef
	name  feeds.TenantID
	o     ReadOptions
	c     *Chunk
	pos   Position
	end   Position // of the tenant, when the snapshot was taken
	segs  []*segment
	trims ranges
	fixes []clockFix

	events int // taken so far
}

// Read fills c with the tenant's events from a position on: whole lines in
// order, each block checked against its CRC. It holds no lock during I/O and
// never waits for the writer. What is missing on the way is a Hole. An error
// means that a file could not be read; nothing in c counts then.
func (j *Journal) Read(t TenantRef, from Position, o ReadOptions, c *Chunk) error {
	if o.MaxBytes <= 0 {
		o.MaxBytes = defaultRead
	}
	for {
		r := reading{j: j, t: t, o: o, c: c, pos: from}
		c.reset()
		if !r.snapshot() {
			c.Next = from
			return nil
		}
		err := r.run()
		if errors.Is(err, errGone) {
			continue // deleted under us: what it held is a hole now
		}
		if err != nil {
			return fmt.Errorf("read %s of shard %s at %d: %w", r.name, j.name, from.Seq, err)
		}
		c.Next = r.pos
		return nil
	}
}

func (c *Chunk) reset() {
	c.Data, c.Spans, c.Holes = c.Data[:0], c.Spans[:0], c.Holes[:0]
	c.steps, c.kinds = c.steps[:0], c.kinds[:0]
	c.Next, c.More = Position{}, false
}

// snapshot takes what the read works on; false where there is nothing to read.
func (r *reading) snapshot() bool {
	j := r.j
	j.mu.RLock()
	defer j.mu.RUnlock()
	if int(r.t) >= len(j.ids) {
		return false
	}
	r.name, r.end, r.trims, r.fixes = j.ids[r.t], j.state[r.t].end, j.trims[r.t], j.clocks
	if r.end.Seq <= r.pos.Seq {
		return false
	}
	from := r.pos.Seq
	i := sort.Search(len(j.segs), func(i int) bool { return j.segs[i].last >= from })
	r.segs = j.segs[i:]
	return true
}

func (r *reading) run() error {
	for _, s := range r.segs {
		stop, err := r.segment(s)
		if err != nil {
			return err
		}
		if stop {
			return nil
		}
	}
	if r.pos.Events < r.end.Events {
		r.hole(r.end)
	}
	r.pos.Seq = max(r.pos.Seq, r.end.Seq)
	return nil
}

// list finds the tenant's blocks in a segment and holds its file until
// release; an empty list holds nothing.
func (j *Journal) list(s *segment, t TenantRef, name feeds.TenantID) (l blockList, f File, err error) {
	j.mu.RLock()
	if s.mem != nil {
		l = s.mem.blocks(t, name)
		if l.len() == 0 {
			j.mu.RUnlock()
			return l, nil, nil
		}
	} else if s.has != nil && !s.has.get(t) {
		j.mu.RUnlock()
		return l, nil, nil
	}
	j.mu.RUnlock()
	if f, err = j.s.cache.acquire(s); err != nil || l.len() > 0 {
		return l, f, err
	}
	x, err := j.indexOf(s, f)
	if err != nil {
		j.s.cache.release(s)
		return l, nil, err
	}
	if l = x.blocks(t, name); l.len() == 0 {
		j.s.cache.release(s)
		return l, nil, nil
	}
	return l, f, nil
}

// indexOf gives the index of an acquired segment; one that is damaged is made
// again from the directories.
func (j *Journal) indexOf(s *segment, f File) (*index, error) {
	j.mu.RLock()
	x := s.mem
	j.mu.RUnlock()
	if x != nil {
		return x, nil
	}
	x, err := j.s.cache.index(s, f)
	if errors.Is(err, errDamaged) {
		if _, rerr := j.rebuild(s, f); rerr != nil {
			return nil, rerr
		}
		j.noteGap(gap{File: s.path, Off: s.foot.IndexOff, Bytes: int64(s.foot.IndexLen),
			Message: "the index of a sealed segment is damaged: made again from its directories, no event is lost"})
		j.mu.RLock()
		x, err = s.mem, nil
		j.mu.RUnlock()
	}
	if err != nil {
		return nil, err
	}
	j.mu.RLock()
	known := s.has != nil
	j.mu.RUnlock()
	if !known {
		j.noteTenants(s, x)
	}
	return x, nil
}

// noteTenants remembers which tenants a sealed segment holds, so that the
// others need not look.
func (j *Journal) noteTenants(s *segment, x *index) {
	var has bitset
	for t := range x.tenants(j) {
		has.set(t)
	}
	j.mu.Lock()
	s.has = has
	j.mu.Unlock()
}

// rebuild makes the index of a segment from its directories and keeps it in
// memory.
func (j *Journal) rebuild(s *segment, f File) (*walker, error) {
	x := newIndex()
	var m blockMeta
	k := &walker{w: window{f: f, limit: min(s.end, s.size)}, id: s.head.ID, next: s.head.First,
		seq: s.head.Seq, events: s.head.Events, acked: 1<<64 - 1}
	add := func(c *commitAt) error {
		frames(c.dir, func(body []byte) {
			if tenant, tail, err := decodeDirEntry(body, &m); err == nil {
				x.add(j.Tenant(feeds.TenantID(tenant)), c.blocks()+m.Off, c.head.Time, tail)
			}
		})
		return nil
	}
	k.visit = add
	if err := k.walk(segmentHeaderLen); err != nil {
		return nil, err
	}
	if k.last != nil {
		_ = add(k.last) // never fails
	}
	j.mu.Lock()
	s.mem = x
	j.mu.Unlock()
	return k, nil
}

// segment takes what one segment holds; stop means that the chunk has ended.
func (r *reading) segment(s *segment) (stop bool, err error) {
	l, f, err := r.j.list(s, r.t, r.name)
	if err != nil || l.len() == 0 {
		return false, err
	}
	defer r.j.s.cache.release(s)
	m := &r.c.meta
	for i := l.fromSeq(r.pos.Seq, m); i < l.len(); i++ {
		if err := l.at(i, m); err != nil {
			return false, fmt.Errorf("entry of an index: %w", err)
		}
		if stop, err = r.block(s, f, m); stop || err != nil {
			return stop, err
		}
	}
	return false, nil
}

// block takes the next block, or the part of it that is wanted.
func (r *reading) block(s *segment, f File, m *blockMeta) (stop bool, err error) {
	m.Committed = fixClock(r.fixes, m.First, m.Committed)
	if r.o.Before != 0 && m.Committed >= r.o.Before {
		return true, nil
	}
	if m.First > r.pos.Seq {
		r.reach(Position{m.First, m.Held.Events, m.Held.Bytes})
	}
	end := m.end()
	for r.pos.Seq < end.Seq {
		if r.o.Until != 0 && r.pos.Seq >= r.o.Until {
			return true, nil
		}
		if cut, ok := r.trims.at(r.pos.Seq); ok {
			r.holeAs(cut.to, true)
			continue
		}
		if r.full() {
			r.c.More = true
			return true, nil
		}
		if stop, err := r.part(s, f, m); stop || err != nil {
			return stop, err
		}
	}
	return false, nil
}

// reach moves to the start of the next block; events that lie between are
// missing.
func (r *reading) reach(p Position) {
	for r.pos.Events < p.Events {
		cut, ok := r.trims.at(r.pos.Seq)
		if !ok || cut.to.Seq > p.Seq {
			break
		}
		r.holeAs(cut.to, true)
	}
	if r.pos.Events < p.Events {
		r.hole(p)
	}
	r.pos.Seq = max(r.pos.Seq, p.Seq)
	r.pos.Bytes = max(r.pos.Bytes, p.Bytes)
}

// hole passes over missing events, and says why they are missing.
func (r *reading) hole(to Position) {
	r.j.mu.RLock()
	floor, gaps := r.j.floor, r.j.gaps
	r.j.mu.RUnlock()
	r.holeAs(to, r.pos.Seq <= floor && !inGap(gaps, r.name, r.pos.Seq, to.Seq))
}

func (r *reading) holeAs(to Position, expired bool) {
	if r.pos.Events < to.Events {
		r.c.Holes = append(r.c.Holes, Hole{From: r.pos, To: to, Expired: expired})
	}
	r.pos = Position{max(r.pos.Seq, to.Seq), max(r.pos.Events, to.Events), max(r.pos.Bytes, to.Bytes)}
}

func (r *reading) full() bool {
	return len(r.c.Data) >= r.o.MaxBytes || r.o.MaxEvents > 0 && r.events >= r.o.MaxEvents
}

// part takes the events of a block from r.pos on: to its end, to a limit, or
// to where an expired range begins.
func (r *reading) part(s *segment, f File, m *blockMeta) (stop bool, err error) {
	c := r.c
	start := len(c.Data)
	skip := m.before(r.pos.Seq)
	n, stop := r.wanted(m, skip)
	if n == 0 {
		return stop, nil
	}
	if r.o.Blocks && skip == 0 && start > 0 && start+int(m.Bytes) > r.o.MaxBytes {
		c.More = true
		return true, nil
	}
	if err := r.load(f, m); err != nil {
		if !errors.Is(err, errDamaged) {
			return false, err
		}
		c.Data = c.Data[:start]
		r.j.noteBlock(s, f, r.name, m)
		r.holeAs(r.behindDamage(m), false)
		return false, nil
	}
	data := c.Data[start:]
	from, to := lineEnd(data, skip), len(data)
	if skip+n < int(m.Events) {
		to = from + lineEnd(data[from:], n)
	}
	if room := r.o.MaxBytes - start; to-from > room {
		to = from + bytes.LastIndexByte(data[from:from+room], '\n') + 1
		if to == from && r.events == 0 {
			to = from + lineEnd(data[from:], 1)
		}
		n = bytes.Count(data[from:to], newline)
	}
	if n == 0 {
		c.Data, c.More = c.Data[:start], true
		return true, nil
	}
	copy(data, data[from:to])
	c.Data = c.Data[:start+to-from]
	r.span(m, start, skip, from, n, to-from)
	return false, nil
}

// behindDamage is where a damaged block ends, or where Until cuts it: how many
// events lie before is known, how many bytes is shared out.
func (r *reading) behindDamage(m *blockMeta) Position {
	if r.o.Until == 0 || r.o.Until >= m.end().Seq {
		return m.end()
	}
	n := uint64(m.before(r.o.Until))
	return Position{r.o.Until, m.Held.Events + n, m.Held.Bytes + uint64(m.Bytes)*n/uint64(m.Events)}
}

// wanted counts the block's events from skip on up to Until, MaxEvents and the
// next expired range. Where none lies before Until the chunk has ended; where
// none lies before the range the read goes on there.
func (r *reading) wanted(m *blockMeta, skip int) (n int, stop bool) {
	until := m.end().Seq
	if next, ok := r.trims.next(r.pos.Seq); ok && next.from.Seq < until {
		until = next.from.Seq
		if m.before(until) == skip {
			r.pos.Seq = until
			return 0, false
		}
	}
	if r.o.Until != 0 {
		until = min(until, r.o.Until)
	}
	n = m.before(until) - skip
	if n == 0 {
		return 0, true
	}
	if r.o.MaxEvents > 0 {
		n = min(n, r.o.MaxEvents-r.events)
	}
	return n, false
}

var newline = []byte{'\n'}

// span notes that n events of a block lie at the end of the chunk.
func (r *reading) span(m *blockMeta, off, skip, skipBytes, n, size int) {
	c := r.c
	steps, kinds := len(c.steps), len(c.kinds)
	c.steps = m.cutSteps(c.steps, skip, n)
	c.kinds = m.cutKinds(c.kinds, skip, skipBytes, n, size)
	c.Spans = append(c.Spans, Span{Off: off, Len: size, Events: n,
		Kinds: c.kinds[kinds:len(c.kinds):len(c.kinds)], Steps: c.steps[steps:len(c.steps):len(c.steps)],
		Start:   Position{m.seqAt(skip), m.Held.Events + uint64(skip), m.Held.Bytes + uint64(skipBytes)},
		MinTime: m.MinTime, MaxTime: m.MaxTime, Whole: skip == 0 && n == int(m.Events), Committed: m.Committed})
	r.events += n
	r.pos = Position{m.seqAt(skip+n-1) + 1, m.Held.Events + uint64(skip+n), m.Held.Bytes + uint64(skipBytes+size)}
}

// load appends a block's lines to the chunk's data, checked.
func (r *reading) load(f File, m *blockMeta) error {
	c := r.c
	start := len(c.Data)
	if m.Codec == codecPlain {
		c.Data = slices.Grow(c.Data, int(m.Bytes))[:start+int(m.Bytes)]
		if err := readBlock(f, c.Data[start:], m); err != nil {
			return err
		}
	} else {
		c.packed = slices.Grow(c.packed[:0], int(m.Stored))[:m.Stored]
		if err := readBlock(f, c.packed, m); err != nil {
			return err
		}
		var err error
		c.Data, err = compress.DecodeZstd(c.Data, c.packed, int(m.Bytes))
		if err != nil || len(c.Data)-start != int(m.Bytes) {
			return errDamaged
		}
	}
	return nil
}

// readBlock reads the stored bytes of a block and checks them.
func readBlock(f File, p []byte, m *blockMeta) error {
	if err := readFull(f, p, m.Off); err != nil {
		if isShort(err) {
			return errDamaged
		}
		return err
	}
	if crcOf(p) != m.CRC {
		return errDamaged
	}
	return nil
}

// noteBlock keeps damage to one block as a gap, and a copy of its bytes.
func (j *Journal) noteBlock(s *segment, f File, name feeds.TenantID, m *blockMeta) {
	g := gap{File: s.path, Off: m.Off, Bytes: int64(m.Stored), Events: uint64(m.Events), From: m.First, To: m.last() + 1,
		Tenant: name, Message: fmt.Sprintf("a block of %d events of %s is damaged: it is passed over, what lies before and behind is delivered", m.Events, name)}
	if !j.noteGap(g) {
		return
	}
	if err := j.setAside(s, f, m.Off, m.Off+int64(m.Stored)); err != nil {
		j.report(Incident{What: "damage", Tenant: name, File: s.path, Off: m.Off, Bytes: int64(m.Stored),
			Message: fmt.Sprintf("setting a copy of the damaged block aside failed: %v; it stays in the segment until that goes", err)})
	}
}

// fixClock corrects the time of a commit made under a clock that was set back.
func fixClock(fixes []clockFix, seq feeds.Sequence, at int64) int64 {
	for _, f := range fixes {
		if seq <= f.seq {
			at = min(at, f.at)
		}
	}
	return at
}
