package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"datasync/failpoint"
	"datasync/feeds"
)

// errFailedSync marks a write or fsync that failed for another reason than a
// full disk: the file is not to be written to again.
var errFailedSync = errors.New("write or fsync failed")

// write brings the wave of w.b to disk: one write, one fsync. After a failure
// the wave goes to a new segment; if that fails too the shard stops.
func (j *Journal) write(events bool) error {
	err := j.room(int64(len(j.w.b.buf)), events)
	if err == nil {
		err = j.writeOnce()
	}
	if err == nil || isFull(err) && !errors.Is(err, errFailedSync) {
		return err
	}
	j.report(Incident{What: "fsync-failed", File: j.segmentFile(), Message: fmt.Sprintf(
		"%v; nothing more is written to that file, what was not acknowledged goes to a new segment", err)})
	j.abandonActive()
	second := j.room(int64(len(j.w.b.buf)), events)
	if second == nil {
		second = j.writeOnce()
	}
	if second == nil || isFull(second) && !errors.Is(second, errFailedSync) {
		return second
	}
	return j.failStop(errors.Join(err, second))
}

// writeOnce writes the wave at the end of the active segment and syncs it.
func (j *Journal) writeOnce() error {
	w := &j.w
	w.b.stamp(w.active.head.ID, w.next)
	if _, err := w.file.WriteAt(w.b.buf, w.active.end); err != nil {
		if isFull(err) {
			j.cutBack()
			return fmt.Errorf("writing %s: %w", w.active.path, err)
		}
		return fmt.Errorf("%w: writing %s: %w", errFailedSync, w.active.path, err)
	}
	failpoint.At(failpoint.Written)
	// promise: a failed fsync is never tried again on the same file; the pages
	// it covered count as clean though they never reached the disk.
	if err := w.file.Sync(); err != nil {
		return fmt.Errorf("%w: syncing %s: %w", errFailedSync, w.active.path, err)
	}
	failpoint.At(failpoint.Synced)
	return nil
}

// cutBack takes the file back to its last good end after a full disk; where
// that fails too the next write covers what lies there.
func (j *Journal) cutBack() {
	w := &j.w
	if w.file.Resize(w.active.end) == nil {
		j.s.grew(w.active.end - w.active.size)
		w.active.size = w.active.end
	}
}

// room sees to it that the active segment can take size bytes: seals a full
// one, makes a new one, allocates in steps.
func (j *Journal) room(size int64, events bool) error {
	w := &j.w
	if events && j.s.short.Load() {
		return errReserve
	}
	if w.active != nil && w.active.end+size+footerLen > j.s.o.SegmentBytes && w.active.end > segmentHeaderLen {
		j.seal()
	}
	if w.active == nil {
		if err := j.begin(size, events); err != nil {
			return err
		}
	}
	need := w.active.end + size
	if events && !j.s.mayGrow(0, true) { // facts may pass the cap, and events must not fill what they allocated
		return errOverCap
	}
	if need <= w.active.size {
		return nil
	}
	step := min(max(w.active.size, firstStep), laterStep)
	to := max(need, min((need+step-1)/step*step, j.s.o.SegmentBytes))
	// Near the cap nothing is allocated ahead, for facts neither: events would
	// fill it.
	if !j.s.mayGrow(to-w.active.size, true) {
		if to = need; !j.s.mayGrow(to-w.active.size, events) {
			return errOverCap
		}
	}
	err := j.allocate(to)
	if isFull(err) { // what is left of the disk, a little ahead, or to the byte
		err = j.allocate(min(need+firstStep, to))
	}
	if isFull(err) {
		err = j.allocate(need)
	}
	return err
}

// allocate makes the active segment larger. Where that fails it keeps what it had.
func (j *Journal) allocate(size int64) error {
	w := &j.w
	if err := w.file.Resize(size); err != nil {
		_ = w.file.Resize(w.active.size) // a part may have been allocated
		if isFull(err) {
			return fmt.Errorf("allocating %s: %w", w.active.path, err)
		}
		return fmt.Errorf("%w: allocating %s: %w", errFailedSync, w.active.path, err)
	}
	j.s.grew(size - w.active.size)
	w.active.size = size
	return nil
}

// begin makes the next segment. The number of its first commit is never used
// for another file, even where making one fails half-way.
func (j *Journal) begin(size int64, events bool) error {
	w := &j.w
	h := segmentHeader{ID: newID(), Journal: j.s.id, First: w.next, Created: j.s.o.Now().UnixMilli(), Failed: w.lost,
		Seq: j.tip.seq, Events: j.tip.events, Source: j.tip.source, DurableFrom: j.tip.commit}
	if p := w.prev; p != nil {
		h.PrevID, h.PrevEnd, h.PrevCommit = p.head.ID, p.end, p.commit
	}
	first := min(int64(firstStep), j.s.o.SegmentBytes)
	if !j.s.mayGrow(first, true) {
		first = segmentHeaderLen + size
		if !j.s.mayGrow(first, events) {
			return errOverCap
		}
	}
	s, file, err := createSegment(j.s.o.FS, j.dir, h, first)
	if err != nil {
		w.next++
		if isFull(err) {
			return err
		}
		return fmt.Errorf("%w: %w", errFailedSync, err)
	}
	failpoint.At(failpoint.SegmentMade)
	s.time, s.commit = max(j.tip.time, h.Created), h.First-1
	j.s.grew(s.size)
	j.install(s, file)
	w.lost = false
	w.segments++
	return nil
}

// install makes s the active segment.
func (j *Journal) install(s *segment, file File) {
	j.s.cache.adopt(s, file)
	_, _ = j.s.cache.acquire(s) // the writer's own hold; its file is open
	j.w.active, j.w.file = s, file
	j.mu.Lock()
	j.segs = append(slices.Clip(j.segs), s)
	j.mu.Unlock()
}

// letGo ends the writer's hold on the active segment.
func (j *Journal) letGo() {
	w := &j.w
	s := w.active
	w.prev, w.active, w.file = s, nil, nil
	j.mu.Lock()
	s.left = true
	j.mu.Unlock()
	j.s.cache.release(s)
}

// abandonActive leaves the active segment as it is, for ever. Its number is
// passed over, so that the next segment has a name of its own.
func (j *Journal) abandonActive() {
	w := &j.w
	w.next++
	w.lost = true
	if w.active != nil {
		j.letGo()
	}
}

// seal ends the active segment with its index. A seal that fails costs only
// the index: the next segment says where the commits end.
func (j *Journal) seal() {
	w := &j.w
	s := w.active
	f := footer{IndexOff: s.end, Commit: s.commit, Last: s.last, Time: s.time, Events: j.tip.events, Source: j.tip.source, Checkpoint: s.ckpt}
	raw := s.mem.encode(j.TenantID, &f)
	raw = append(raw, f.encode(s.head.ID)...)
	_, err := w.file.WriteAt(raw, s.end)
	size := s.end + int64(len(raw))
	if err == nil {
		err = w.file.Resize(size)
	}
	if err == nil {
		err = w.file.Sync()
	}
	if err != nil {
		j.report(Incident{What: "fsync-failed", File: s.path, Message: fmt.Sprintf(
			"sealing failed: %v; its commits are safe, its index stays in memory", err)})
		w.lost = true
		j.letGo()
		return
	}
	j.s.grew(size - s.size)
	j.mu.Lock()
	s.size, s.foot, s.sealed, s.mem = size, f, true, nil
	j.mu.Unlock()
	j.letGo()
}

// checkpointIfDue writes a checkpoint when the facts since the last outweigh
// it, or when recovery would have to read many segments.
func (j *Journal) checkpointIfDue() {
	w := &j.w
	if j.Err() != nil || w.since < max(checkpointMin, j.facts.durableSize()) && w.segments < checkpointSeg {
		return
	}
	if err := j.checkpoint(); err != nil && !isFull(err) {
		return // write has stopped the shard and said so
	}
}

// checkpoint writes all current facts and held totals, in pieces.
func (j *Journal) checkpoint() error {
	w := &j.w
	w.b.reset()
	w.reqs = w.reqs[:0]
	ps := j.facts.checkpoint(j.heldTotals)
	w.b.pieces(commitHead{Source: j.tip.source, Time: j.clock(), First: j.tip.seq + 1, Last: j.tip.seq,
		Before: j.tip.events, Durable: j.tip.commit}, ps)
	err := j.write(false)
	for isFull(err) && j.s.giveReserve(j, int64(len(w.b.buf))+reserveStep) {
		err = j.write(false)
	}
	if err != nil {
		return err
	}
	j.mu.Lock()
	w.active.ckpt = w.b.parts[0].head.Number
	w.active.ckpts++
	j.advance(int64(len(w.b.buf)))
	j.mu.Unlock()
	w.since, w.segments = 0, 0
	return nil
}

// heldTotals yields the end of every tenant that ever had an event.
func (j *Journal) heldTotals(yield func(string, Position) bool) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	for t := range j.state {
		if end := j.state[t].end; end.Events > 0 && !yield(string(j.ids[t]), end) {
			return
		}
	}
}

// failStop ends the shard: nothing is acknowledged any more.
func (j *Journal) failStop(err error) error {
	err = fmt.Errorf("shard %s has stopped: %w", j.name, err)
	j.mu.Lock()
	j.err = err
	j.mu.Unlock()
	j.report(Incident{What: "fail-stop", File: j.segmentFile(), Message: err.Error() +
		"; nothing is taken in any more: mend the disk and restart"})
	return err
}

// shut ends the writer: the file is cut to its end.
func (j *Journal) shut() {
	w := &j.w
	if w.active == nil || j.Err() != nil {
		return
	}
	if w.file.Resize(w.active.end) == nil && w.file.Sync() == nil {
		j.s.grew(w.active.end - w.active.size)
		w.active.size = w.active.end
	}
}

func (j *Journal) segmentFile() string {
	switch {
	case j.w.active != nil:
		return j.w.active.path
	case j.w.prev != nil:
		return j.w.prev.path
	}
	return j.dir
}

// diskFull says so once, and has what every lane has passed make room.
func (j *Journal) diskFull(err error) {
	if !errors.Is(err, feeds.ErrFull) {
		j.s.room.Store(j.s.used.Load())
	}
	if !j.w.full {
		j.w.full = true
		j.report(Incident{What: "full", Message: fmt.Sprintf("%v; events are refused until there is room, delivery goes on", err)})
	}
	j.s.kick()
}

func (j *Journal) spaceIsBack() {
	if j.w.full {
		j.w.full = false
		j.s.room.Store(0)
		j.report(Incident{What: "space-back", Message: "events are taken in again"})
	}
}

func newID() uint64 {
	var p [8]byte
	if _, err := rand.Read(p[:]); err != nil {
		panic(err) // crypto/rand never fails on the systems Go supports
	}
	return binary.LittleEndian.Uint64(p[:])
}
