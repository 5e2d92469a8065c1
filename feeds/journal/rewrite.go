package journal

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"datasync/feeds"
	"datasync/formats/compress"
)

// weighEvery is how often a segment that was rewritten is looked at again, ms.
const weighEvery = 60_000

// rewriteOld rewrites closed segments, oldest first, to what is still wanted
// of them, compressed, until the cap is not near any more. One that was
// rewritten is looked at now and then, or where events expired just now.
func (j *Journal) rewriteOld(expired bool) error {
	segs, free := j.closed()
	for i, s := range segs {
		if !j.s.near() {
			return nil
		}
		now := j.s.o.Now().UnixMilli()
		if s.head.Generation > 0 && !expired && now-s.weighed < weighEvery && now >= s.weighed {
			continue
		}
		s.weighed = now
		live, err := j.live(s, false)
		if err != nil {
			return err
		}
		worth := s.foot.Stored / 2
		if expired { // whoever appends waits for the room
			worth = s.foot.Stored / 8 * 7
		}
		if live == 0 || s.head.Generation > 0 && live > worth {
			continue
		}
		if i >= free {
			if free, err = j.freeUpTo(i, true); err != nil || i >= free {
				return err
			}
		}
		if err := j.rewrite(s); err != nil {
			return fmt.Errorf("rewriting %s: %w", s.path, err)
		}
	}
	return nil
}

// rewriter copies what is wanted of a segment into its next generation.
type rewriter struct {
	j     *Journal
	from  *segment
	to    *segment
	in    File
	out   File
	buf   []byte
	dir   []byte
	body  []byte
	block []byte
	index *index
}

// kept is a block that goes along.
type kept struct {
	t    TenantRef
	meta blockMeta
}

// rewrite makes the next generation of a segment: written, synced, its name
// synced, then the fact by which it counts, then the old file goes.
func (j *Journal) rewrite(s *segment) error {
	in, err := j.s.cache.acquire(s)
	if err != nil {
		return err
	}
	r := &rewriter{j: j, from: s, in: in, index: newIndex()}
	err = r.run()
	j.s.cache.release(s)
	if r.to == nil {
		return err
	}
	if err != nil {
		return errors.Join(err, r.out.Close(), j.s.o.FS.Remove(r.to.path))
	}
	j.s.grew(r.to.size)
	floor := max(s.last, j.floorNow())
	err = j.Put(context.Background(), Fact{Key: genKey(s.head.First), Value: AppendCounts(nil, uint64(r.to.head.Generation))},
		Fact{Key: keyFloor, Value: AppendCounts(nil, uint64(floor))})
	if err != nil {
		j.s.grew(-r.to.size)
		return errors.Join(err, r.out.Close(), j.s.o.FS.Remove(r.to.path))
	}
	j.s.cache.adopt(r.to, r.out)
	j.drop([]*segment{s}, r.to, floor)
	j.stale = append(j.stale, s)
	return j.unlink()
}

func (j *Journal) floorNow() feeds.Sequence {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.floor
}

func (r *rewriter) run() error {
	blocks, err := r.wanted()
	if err != nil {
		return err
	}
	heads, err := r.heads()
	if err != nil {
		return err
	}
	h := r.from.head
	h.Generation++
	r.to, r.out, err = createSegment(r.j.s.o.FS, r.j.dir, h, segmentHeaderLen)
	if err != nil {
		r.to = nil
		return err
	}
	for i, c := range heads {
		n := len(blocks)
		if i+1 < len(heads) {
			n, _ = slices.BinarySearchFunc(blocks, heads[i+1].off, func(b kept, off int64) int { return cmp.Compare(b.meta.Off, off) })
		}
		if n > 0 {
			if err := r.commit(c.head, blocks[:n]); err != nil {
				return err
			}
		}
		blocks = blocks[n:]
	}
	return r.seal()
}

// wanted lists the blocks that go along, in the order of the log.
func (r *rewriter) wanted() ([]kept, error) {
	x, err := r.j.indexOf(r.from, r.in)
	if err != nil {
		return nil, err
	}
	var out []kept
	for _, e := range r.j.lists(x) {
		w := r.j.wants(e.t)
		for i := range e.list.len() {
			var m blockMeta
			if err := e.list.at(i, &m); err != nil {
				return nil, err
			}
			if w.block(&m) {
				out = append(out, kept{e.t, m})
			}
		}
	}
	slices.SortFunc(out, func(a, b kept) int { return cmp.Compare(a.meta.Off, b.meta.Off) })
	return out, nil
}

// heads lists the commits of the segment; at least one, even where none can be
// read any more.
func (r *rewriter) heads() ([]*commitAt, error) {
	s := r.from
	var out []*commitAt
	k := &walker{w: window{f: r.in, limit: min(s.end, s.size)}, id: s.head.ID, next: s.head.First, acked: 1<<64 - 1}
	k.visit = func(c *commitAt) error {
		out = append(out, &commitAt{off: c.off, head: c.head})
		return nil
	}
	if err := k.walk(segmentHeaderLen); err != nil {
		return nil, err
	}
	if k.last != nil {
		out = append(out, k.last)
	}
	if len(out) == 0 {
		out = append(out, &commitAt{head: commitHead{Number: s.head.First, Last: s.last, Time: s.time}})
	}
	return out, nil
}

// commit writes what is kept of one commit.
func (r *rewriter) commit(h commitHead, blocks []kept) error {
	r.buf, r.dir = r.buf[:0], r.dir[:0]
	h.Flags = flagRewritten
	h.Facts, h.FactsLen, h.Events, h.Blocks, h.BlocksLen = 0, 0, 0, 0, 0
	tails := make([][2]int, 0, len(blocks))
	for i := range blocks {
		m := &blocks[i].meta
		off := len(r.buf)
		if err := r.copyBlock(blocks[i].t, m); err != nil {
			if !errors.Is(err, errDamaged) {
				return err
			}
			r.j.noteBlock(r.from, r.in, r.j.TenantID(blocks[i].t), m)
			r.buf = r.buf[:off]
			tails = append(tails, [2]int{})
			continue
		}
		m.Off = int64(off)
		id := r.j.TenantID(blocks[i].t)
		r.body = binary.AppendUvarint(r.body[:0], uint64(len(id)))
		r.body = append(r.body, id...)
		r.body = binary.AppendUvarint(r.body, uint64(off))
		head := len(r.body)
		r.body = appendBlockTail(r.body, m)
		r.dir = binary.AppendUvarint(r.dir, uint64(len(r.body)))
		tails = append(tails, [2]int{len(r.dir) + head, len(r.dir) + len(r.body)})
		r.dir = append(r.dir, r.body...)
		r.dir = le.AppendUint32(r.dir, frameCRC(r.body))
		h.Events += m.Events
		h.Blocks++
	}
	if h.Blocks == 0 {
		return nil
	}
	h.DirLen, h.BlocksLen = uint32(len(r.dir)), uint32(len(r.buf))
	whole := make([]byte, h.size())
	h.put(whole, magicHead, r.to.head.ID)
	n := commitHeadLen + copy(whole[commitHeadLen:], r.dir)
	copy(whole[n:], r.buf)
	h.put(whole[len(whole)-commitHeadLen:], magicTail, r.to.head.ID)
	if _, err := r.out.WriteAt(whole, r.to.end); err != nil {
		return err
	}
	for i, t := range tails {
		if t[1] > 0 {
			r.index.add(blocks[i].t, r.to.end+int64(n)+blocks[i].meta.Off, h.Time, r.dir[t[0]:t[1]])
		}
	}
	r.to.end += int64(len(whole))
	return nil
}

// copyBlock appends a block to the commit, compressed where that helps.
func (r *rewriter) copyBlock(t TenantRef, m *blockMeta) error {
	start := len(r.buf)
	r.block = slices.Grow(r.block[:0], int(m.Stored))[:m.Stored]
	if err := readBlock(r.in, r.block, m); err != nil {
		return err
	}
	if m.Codec == codecPlain {
		r.buf = compress.AppendZstd(r.buf, r.block)
		if len(r.buf)-start < len(r.block) {
			m.Codec = codecZstd
		} else {
			r.buf = r.buf[:start]
		}
	}
	if len(r.buf) == start {
		r.buf = append(r.buf, r.block...)
	}
	m.Stored, m.CRC = uint32(len(r.buf)-start), crcOf(r.buf[start:])
	return nil
}

// seal ends the new generation; what its footer says of the shard is what the
// old one said.
func (r *rewriter) seal() error {
	s, to := r.from, r.to
	f := footer{IndexOff: to.end, Commit: s.commit, Last: s.last, Time: s.time, Events: s.foot.Events, Source: s.foot.Source}
	raw := r.index.encode(r.j.TenantID, &f)
	raw = append(raw, f.encode(to.head.ID)...)
	if _, err := r.out.WriteAt(raw, to.end); err != nil {
		return err
	}
	if err := r.out.Sync(); err != nil {
		return err
	}
	to.size = to.end + int64(len(raw))
	to.foot, to.sealed, to.mem = f, true, nil
	to.commit, to.last, to.time = s.commit, s.last, s.time
	return r.j.s.o.FS.Dir(r.j.dir, true)
}

// scrub reads every block of segments.
func (j *Journal) scrub(ctx context.Context, segs []*segment, rate int64) error {
	for _, s := range segs {
		err := j.scrubSegment(ctx, s, rate)
		if err != nil && !errors.Is(err, errGone) {
			return fmt.Errorf("scrubbing %s: %w", s.path, err)
		}
	}
	return nil
}

func (j *Journal) scrubSegment(ctx context.Context, s *segment, rate int64) error {
	f, err := j.s.cache.acquire(s)
	if err != nil {
		return err
	}
	defer j.s.cache.release(s)
	x, err := j.indexOf(s, f)
	if err != nil {
		return err
	}
	var m blockMeta
	var buf []byte
	pending := int64(0)
	for _, e := range j.lists(x) {
		for i := range e.list.len() {
			if err := e.list.at(i, &m); err != nil {
				return err
			}
			buf = slices.Grow(buf[:0], int(m.Stored))[:m.Stored]
			if err := readBlock(f, buf, &m); errors.Is(err, errDamaged) {
				j.noteBlock(s, f, j.TenantID(e.t), &m)
			} else if err != nil {
				return err
			}
			pending += int64(m.Stored)
			if rate > 0 && pending >= rate/10 {
				if err := pause(ctx, time.Duration(pending)*time.Second/time.Duration(rate)); err != nil {
					return err
				}
				pending = 0
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// largeActive is the size from which an active segment is sealed near the cap:
// all of them together keep at most an eighth of it.
func (s *Store) largeActive() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(2*firstStep, s.o.MaxBytes/int64(8*max(1, len(s.shards))))
}

// sealIdle seals the active segment when nothing in it is wanted any more and
// it is old. Near the cap it is sealed as soon as that is worth it: as long as
// it is active it can neither go nor be rewritten, and the active segments of
// many shards may fill the cap by themselves.
func (j *Journal) sealIdle(near bool) error {
	large := j.s.largeActive()
	j.mu.RLock()
	if len(j.segs) == 0 {
		j.mu.RUnlock()
		return nil
	}
	s := j.segs[len(j.segs)-1]
	whatever := near && s.end > large
	idle := !s.sealed && !s.left && s.end > segmentHeaderLen && (whatever || near && s.end > min(large, j.s.o.SegmentBytes/8) ||
		s.time < j.s.o.Now().Add(-j.s.o.Retain).UnixMilli())
	j.mu.RUnlock()
	if !idle {
		return nil
	}
	if !whatever {
		if live, err := j.live(s, true); err != nil || live > 0 {
			return err
		}
	}
	return j.do(func() error {
		if j.w.active == s {
			j.seal()
		}
		return nil
	})
}
