package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"datasync/feeds"
)

// Maintain makes one pass: what every lane has passed goes when it is older
// than Retain; tenants over their quota lose their oldest events; near the cap
// what was passed goes at once, then old segments are rewritten to what is
// still wanted, then tenants over their fair share lose their oldest events.
// It may be called at any time; passes do not overlap.
func (s *Store) Maintain() error {
	s.maintaining.Lock()
	defer s.maintaining.Unlock()
	var errs []error
	js := s.open()
	slices.SortFunc(js, func(a, b *Journal) int { return cmp.Compare(a.name, b.name) })
	each := func(f func(*Journal) error) {
		for _, j := range js {
			if j.Err() == nil {
				errs = append(errs, f(j))
			}
		}
	}
	each((*Journal).holdClock)
	if s.o.Quota != nil {
		errs = append(errs, s.holdQuotas(js))
	}
	each(func(j *Journal) error { return j.retire(false) })
	if s.near() || s.room.Load() > 0 {
		each(func(j *Journal) error { return j.retire(true) })
	}
	if s.near() {
		each(func(j *Journal) error { return j.rewriteOld(false) })
	}
	for round := 0; round < 8 && s.near(); round++ {
		expired, err := s.holdShares(js)
		errs = append(errs, err)
		if !expired {
			break
		}
		each(func(j *Journal) error { return j.retire(true) })
		each(func(j *Journal) error { return j.rewriteOld(true) })
	}
	s.restoreReserve()
	return errors.Join(errs...)
}

// near says that the cap is near; a pass ends a little below.
func (s *Store) near() bool { return s.used.Load() > s.o.MaxBytes*4/5 }

// bound is where a pass that makes room may end: a full disk counts as a cap of
// what it had room for. Only what was passed goes for its sake: it may be full
// of something else, and nothing undelivered expires for that.
func (s *Store) bound() int64 {
	most := s.o.MaxBytes
	if n := s.room.Load(); n > 0 {
		most = min(most, n)
	}
	return most * 4 / 5
}

// usageOf is what each tenant has undelivered, shard by shard.
func usageOf(js []*Journal) (total map[feeds.TenantID]int64, by map[feeds.TenantID][]*Journal) {
	total, by = map[feeds.TenantID]int64{}, map[feeds.TenantID][]*Journal{}
	for _, j := range js {
		own := map[feeds.TenantID]int64{}
		j.undelivered(own)
		for id, n := range own {
			total[id] += n
			by[id] = append(by[id], j)
		}
	}
	return total, by
}

// holdQuotas takes from tenants what is over their quota.
func (s *Store) holdQuotas(js []*Journal) error {
	total, by := usageOf(js)
	var errs []error
	for id, n := range total {
		if q := s.o.Quota(id); q > 0 && n > q {
			errs = append(errs, s.expireBytes(id, by[id], n-q, fmt.Sprintf("its quota of %d bytes", q)))
		}
	}
	return errors.Join(errs...)
}

// holdShares takes from the tenants over their fair share, largest first, as
// much as the disk needs; false where none is over.
func (s *Store) holdShares(js []*Journal) (bool, error) {
	total, by := usageOf(js)
	if len(total) == 0 {
		return false, nil
	}
	// What is rewritten is compressed: bytes of events are scaled to bytes on disk.
	sum, used := int64(0), s.used.Load()
	for _, n := range total {
		sum += n
	}
	scale := float64(sum) / float64(max(used, s.o.MaxBytes))
	scale = max(1, scale)
	share := int64(float64(s.o.MaxBytes/int64(len(total))) * scale)
	var over []feeds.TenantID
	for id, n := range total {
		if n > share+share/8 { // tenants that are alike are never quite equal
			over = append(over, id)
		}
	}
	slices.SortFunc(over, func(a, b feeds.TenantID) int {
		return cmp.Or(cmp.Compare(total[b], total[a]), cmp.Compare(a, b))
	})
	need := int64(float64(used-s.o.MaxBytes*4/5) * scale)
	var errs []error
	for _, id := range over {
		if need <= 0 {
			break
		}
		n := min(need, total[id]-share)
		errs = append(errs, s.expireBytes(id, by[id], n, fmt.Sprintf("its fair share of %d bytes, the cap being near", share)))
		need -= n
	}
	return len(over) > 0, errors.Join(errs...)
}

// expireBytes takes n bytes of a tenant's oldest events, shard after shard.
func (s *Store) expireBytes(id feeds.TenantID, js []*Journal, n int64, why string) error {
	for _, j := range js {
		if n <= 0 {
			break
		}
		t := j.Tenant(id)
		to, err := j.behindBytes(t, n)
		if err != nil {
			return err
		}
		size, err := j.expire(t, to, why)
		if err != nil {
			return err
		}
		n -= size
	}
	return nil
}

// behindBytes is the start of the first block that lies at least n undelivered
// bytes behind what the tenant's lanes want first; the end where there is none.
func (j *Journal) behindBytes(t TenantRef, n int64) (Position, error) {
	j.mu.RLock()
	st, trims, pins := j.state[t], j.trims[t], j.pins[t]
	j.mu.RUnlock()
	from, p := j.wanted(t, st), st.end
	_, err := j.find(t, func(s *segment) bool { return s.last < from.Seq }, func(_ *segment, l blockList, _ File) (bool, error) {
		i := l.search(func(k entryKey) bool {
			if k.held.Bytes <= from.Bytes {
				return false
			}
			_, expired := trims.events(span{from, k.held})
			_, pinned := pins.events(span{from, k.held})
			return int64(k.held.Bytes-from.Bytes-min(expired+pinned, k.held.Bytes-from.Bytes)) >= n
		})
		if i == l.len() {
			return false, nil
		}
		k := l.key(i)
		p = Position{k.first, k.held.Events, k.held.Bytes}
		return true, nil
	})
	return p, err
}

// Expire takes a tenant's events up to a position, but for pinned ranges: a
// durable fact says so when it returns nil, and reads of them yield a Hole that
// is Expired. The bytes go when their segment is deleted or rewritten.
func (j *Journal) Expire(t TenantRef, upTo Position) error {
	_, err := j.expire(t, upTo, "a request to expire")
	return err
}

// expire says how many undelivered bytes went.
func (j *Journal) expire(t TenantRef, upTo Position, why string) (int64, error) {
	j.mu.RLock()
	if int(t) >= len(j.state) {
		j.mu.RUnlock()
		return 0, fmt.Errorf("expire in shard %s: tenant %d is unknown", j.name, t)
	}
	st, trims, pinned, id := j.state[t], j.trims[t], ranges(nil), j.ids[t]
	for _, p := range j.pins[t] {
		pinned = pinned.add(p)
	}
	j.mu.RUnlock()
	if upTo.Seq > st.end.Seq {
		upTo = st.end
	}
	from := j.wanted(t, st)
	events, size := uint64(0), uint64(0)
	next := trims
	for _, cut := range pinned.minus(span{from, upTo}) {
		e, b := next.events(cut)
		events += cut.to.Events - min(cut.from.Events, cut.to.Events) - e
		size += cut.to.Bytes - min(cut.from.Bytes, cut.to.Bytes) - b
		next = next.add(cut)
	}
	if events == 0 {
		return 0, nil
	}
	if err := j.Put(context.Background(), Fact{Key: keyTrim + string(id), Value: next.encode()}); err != nil {
		return 0, err
	}
	j.mu.Lock()
	j.trims[t] = next
	j.mu.Unlock()
	j.report(Incident{What: "expired", Tenant: id, Events: int64(events), Bytes: int64(size), Message: fmt.Sprintf(
		"%d undelivered events of %s (%d bytes) expired because of %s", events, id, size, why)})
	return int64(size), nil
}

// closed lists the segments that the writer has left, oldest first, and how
// many of them lie before the last checkpoint but one.
func (j *Journal) closed() (segs []*segment, free int) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	checkpoints := 0
	free = -1
	for i, s := range slices.Backward(j.segs) {
		if checkpoints += s.ckpts; checkpoints >= 2 && free < 0 {
			free = i
		}
	}
	if n := len(j.segs); n > 0 {
		segs = j.segs[:n-1]
		if j.segs[n-1].sealed || j.segs[n-1].left {
			segs = j.segs
		}
	}
	return segs, min(max(free, 0), len(segs))
}

// retire deletes the segments that nobody wants and that are old enough, or,
// near the cap, until there is room.
func (j *Journal) retire(near bool) error {
	if err := errors.Join(j.unlink(), j.sealIdle(near)); err != nil {
		return err
	}
	var gone []*segment
	freed := int64(0)
	limit := j.s.o.Now().Add(-j.s.o.Retain).UnixMilli()
	segs, free := j.closed()
	for i, s := range segs {
		if near && j.s.used.Load()-freed <= j.s.bound() {
			break
		}
		if !near && s.time >= limit {
			break
		}
		live, err := j.live(s, true)
		if err != nil {
			return err
		}
		if live > 0 {
			continue
		}
		if i >= free {
			if free, err = j.freeUpTo(i, near); err != nil || i >= free {
				break
			}
		}
		gone = append(gone, s)
		freed += s.size
	}
	if len(gone) == 0 {
		return nil
	}
	return j.remove(gone)
}

// freeUpTo writes the checkpoints that stand between a segment and its
// deletion, where that is worth it.
func (j *Journal) freeUpTo(i int, near bool) (free int, err error) {
	for range 2 {
		if _, free = j.closed(); i < free || !near && j.facts.durableSize() > pieceLen {
			break
		}
		if err := j.do(j.checkpoint); err != nil {
			return free, err
		}
	}
	_, free = j.closed()
	return free, nil
}

// live counts the stored bytes of a segment that some lane still wants; with
// first it stops at the first.
func (j *Journal) live(s *segment, first bool) (n uint64, err error) {
	if first && s.keptBy.Events > 0 && j.wants(s.keptFor).block(&s.keptBy) {
		return 1, nil // what kept it last time keeps it still
	}
	f, err := j.s.cache.acquire(s)
	if err != nil {
		return 0, err
	}
	defer j.s.cache.release(s)
	x, err := j.indexOf(s, f)
	if err != nil {
		return 0, err
	}
	var m blockMeta
	for _, e := range j.lists(x) {
		w := j.wants(e.t)
		if e.list.len() == 0 || w.passed(e.list) {
			continue
		}
		for i := range e.list.len() {
			if e.list.at(i, &m) == nil && w.block(&m) {
				n += uint64(m.Stored)
				if first {
					s.keptFor, s.keptBy = e.t, m
					return n, nil
				}
			}
		}
	}
	return n, nil
}

type tenantList struct {
	t    TenantRef
	list blockList
}

// lists copies the lists of an index, which may be growing.
func (j *Journal) lists(x *index) []tenantList {
	var out []tenantList
	if x.tables != nil {
		j.mu.RLock()
		defer j.mu.RUnlock()
	}
	for t, l := range x.tenants(j) {
		out = append(out, tenantList{t, l})
	}
	return out
}

// wants says which of a tenant's blocks are wanted.
type wants struct {
	from  Position
	all   bool
	trims ranges
	pins  ranges
}

func (j *Journal) wants(t TenantRef) wants {
	j.mu.RLock()
	defer j.mu.RUnlock()
	st := j.state[t]
	return wants{from: st.release, all: !st.released, trims: j.trims[t], pins: j.pins[t]}
}

// passed says that no block of a list is wanted, by its last one alone.
func (w wants) passed(l blockList) bool {
	var m blockMeta
	return !w.all && len(w.pins) == 0 && l.at(l.len()-1, &m) == nil && m.end().Seq <= w.from.Seq
}

func (w wants) block(m *blockMeta) bool {
	end := m.last() + 1
	for _, p := range w.pins {
		if p.from.Seq < end && m.First < p.to.Seq {
			return true
		}
	}
	if !w.all && end <= w.from.Seq {
		return false
	}
	cut, ok := w.trims.at(m.First)
	return !ok || cut.to.Seq < end
}

// remove deletes segments: first the facts, durable, then the files.
func (j *Journal) remove(gone []*segment) error {
	j.mu.RLock()
	floor := j.floor
	j.mu.RUnlock()
	var facts []Fact
	for _, s := range gone {
		floor = max(floor, s.last)
		facts = append(facts, Fact{Key: keyGone + filepath.Base(s.path), Value: []byte{1}})
	}
	facts = append(facts, Fact{Key: keyFloor, Value: AppendCounts(nil, uint64(floor))})
	// promise: a file goes only after the fact that says so is durable.
	if err := j.Put(context.Background(), facts...); err != nil {
		return err
	}
	j.drop(gone, nil, floor)
	j.stale = append(j.stale, gone...)
	return j.unlink()
}

// unlink deletes the files of segments that are out of the list. What cannot
// be deleted keeps counting towards max_bytes, and is tried again.
func (j *Journal) unlink() error {
	var errs []error
	var after []Fact
	var still []*segment
	for _, s := range j.stale {
		// The older generation goes first: alone it would count again.
		if slices.ContainsFunc(still, func(o *segment) bool { return o.head.First == s.head.First }) {
			still = append(still, s)
			continue
		}
		if err := j.s.o.FS.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("deleting a segment: %w", err))
			still = append(still, s)
			continue
		}
		j.s.grew(-s.size)
		if s.replaced {
			continue
		}
		after = append(after, Fact{Key: keyGone + filepath.Base(s.path)})
		if s.head.Generation > 0 {
			after = append(after, Fact{Key: genKey(s.head.First)})
		}
	}
	if len(still) == len(j.stale) {
		return errors.Join(errs...)
	}
	j.stale = still
	if err := j.s.o.FS.Dir(j.dir, true); err != nil {
		return errors.Join(append(errs, fmt.Errorf("deleting segments: %w", err))...)
	}
	j.PutLater(after...)
	return errors.Join(errs...)
}

// drop takes segments out of the list, or puts another in the place of one.
func (j *Journal) drop(gone []*segment, instead *segment, floor feeds.Sequence) {
	j.mu.Lock()
	j.floor = max(j.floor, floor)
	segs := make([]*segment, 0, len(j.segs))
	for _, s := range j.segs {
		switch {
		case !slices.Contains(gone, s):
			segs = append(segs, s)
		case instead != nil:
			segs = append(segs, instead)
			s.removed, s.replaced = true, true
		default:
			s.removed = true
		}
	}
	j.segs = segs
	j.mu.Unlock()
	for _, s := range gone {
		j.s.cache.forget(s)
	}
}
