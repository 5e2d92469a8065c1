package journal

import (
	"errors"
	"fmt"

	"datasync/feeds"
)

// Standing is what the shard holds of a tenant. Finding the oldest event may
// read the index of a segment, once until that segment goes.
func (j *Journal) Standing(t TenantRef) Standing {
	j.mu.RLock()
	if int(t) >= len(j.state) {
		j.mu.RUnlock()
		return Standing{}
	}
	st, trims := j.state[t], j.trims[t]
	j.mu.RUnlock()
	oldest, err := j.oldest(t, st)
	if err != nil {
		oldest = st.release // an unreadable index says so to the next Read
	}
	if cut, ok := trims.at(oldest.Seq); ok {
		oldest = cut.to
	}
	return Standing{End: st.end, Oldest: oldest}
}

// Expired says how much of a tenant's events from a position on retention took:
// a reader that gets there meets it as holes.
func (j *Journal) Expired(t TenantRef, from Position) (events, bytes uint64) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if int(t) >= len(j.state) {
		return 0, 0
	}
	return j.trims[t].events(span{from, j.state[t].end})
}

// oldest finds the first event of t that is still on disk.
func (j *Journal) oldest(t TenantRef, st tenantState) (Position, error) {
	j.mu.RLock()
	known := st.oldestIn != nil && !st.oldestIn.removed
	j.mu.RUnlock()
	if known || st.end.Events == 0 {
		return st.oldest, nil
	}
	oldest := st.end
	s, err := j.find(t, nil, func(s *segment, l blockList, _ File) (bool, error) {
		k := l.key(0)
		oldest = Position{k.first, k.held.Events, k.held.Bytes}
		return true, nil
	})
	if err != nil {
		return Position{}, err
	}
	if s != nil {
		j.mu.Lock()
		j.state[t].oldest, j.state[t].oldestIn = oldest, s
		j.mu.Unlock()
	}
	return oldest, nil
}

// find calls f with the tenant's blocks of each segment that is not skipped,
// oldest first, until f is satisfied; it gives that segment.
func (j *Journal) find(t TenantRef, skip func(*segment) bool, f func(*segment, blockList, File) (bool, error)) (*segment, error) {
	j.mu.RLock()
	if int(t) >= len(j.ids) {
		j.mu.RUnlock()
		return nil, nil
	}
	name, segs := j.ids[t], j.segs
	j.mu.RUnlock()
	for _, s := range segs {
		j.mu.RLock()
		before := skip != nil && skip(s)
		j.mu.RUnlock()
		if before {
			continue
		}
		l, file, err := j.list(s, t, name)
		if errors.Is(err, errGone) {
			return j.find(t, skip, f) // deleted under us
		}
		if err != nil {
			return nil, err
		}
		if l.len() == 0 {
			continue
		}
		done, err := f(s, l, file)
		j.s.cache.release(s)
		if done || err != nil {
			return s, err
		}
	}
	return nil, nil
}

// Seek finds the first event committed at or after a time, ms UTC; the end
// where there is none.
func (j *Journal) Seek(t TenantRef, at int64) (Position, error) {
	j.mu.RLock()
	fixes := j.clocks
	j.mu.RUnlock()
	p := j.endOf(t)
	_, err := j.find(t, func(s *segment) bool { return s.time < at }, func(_ *segment, l blockList, _ File) (bool, error) {
		i := l.search(func(k entryKey) bool { return fixClock(fixes, k.first, k.committed) >= at })
		if i == l.len() {
			return false, nil
		}
		k := l.key(i)
		p = Position{k.first, k.held.Events, k.held.Bytes}
		return true, nil
	})
	if err != nil {
		return Position{}, fmt.Errorf("seek in shard %s: %w", j.name, err)
	}
	return p, nil
}

// Locate is the position of the first event at or after a number; the end
// where there is none.
func (j *Journal) Locate(t TenantRef, seq feeds.Sequence) (Position, error) {
	p := j.endOf(t)
	_, err := j.find(t, func(s *segment) bool { return s.last < seq }, func(s *segment, l blockList, f File) (bool, error) {
		var m blockMeta
		i := l.fromSeq(seq, &m)
		if i == l.len() {
			return false, nil
		}
		if err := l.at(i, &m); err != nil {
			return false, err
		}
		skip := m.before(seq)
		p = Position{m.seqAt(skip), m.Held.Events + uint64(skip), m.Held.Bytes}
		if skip == 0 {
			return true, nil
		}
		r := reading{j: j, c: &Chunk{}}
		if err := r.load(f, &m); err != nil {
			if !errors.Is(err, errDamaged) {
				return false, err
			}
			p = Position{m.First, m.Held.Events, m.Held.Bytes} // Read says what is damaged
			return true, nil
		}
		p.Bytes += uint64(lineEnd(r.c.Data, skip))
		return true, nil
	})
	if err != nil {
		return Position{}, fmt.Errorf("locate %d in shard %s: %w", seq, j.name, err)
	}
	return p, nil
}

func (j *Journal) endOf(t TenantRef) Position {
	j.mu.RLock()
	defer j.mu.RUnlock()
	if int(t) >= len(j.state) {
		return Position{}
	}
	return j.state[t].end
}

// Release says that no lane wants what lies before p any more. The caller is
// the one that knows all lanes of the tenant; it may move back (a replay). A
// tenant that nobody released keeps all that the shard holds of it.
func (j *Journal) Release(t TenantRef, p Position) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if int(t) < len(j.state) {
		j.state[t].release, j.state[t].released = p, true
	}
}

// Pin keeps the range of a pending drop: expiry begins behind it.
func (j *Journal) Pin(t TenantRef, from, to Position) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pins[t] = append(j.pins[t][:len(j.pins[t]):len(j.pins[t])], span{from, to})
}

// Unpin undoes the Pin of the range that begins at from.
func (j *Journal) Unpin(t TenantRef, from Position) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, p := range j.pins[t] {
		if p.from.Seq == from.Seq {
			rest := append(ranges{}, j.pins[t][:i]...)
			if rest = append(rest, j.pins[t][i+1:]...); len(rest) > 0 {
				j.pins[t] = rest
			} else {
				delete(j.pins, t)
			}
			return
		}
	}
}

// wanted is from where on the tenant's events are wanted by some lane.
func (j *Journal) wanted(t TenantRef, st tenantState) Position {
	if st.released {
		return st.release
	}
	oldest, err := j.oldest(t, st)
	if err != nil {
		return Position{}
	}
	return oldest
}

// undelivered adds up, tenant by tenant, what is still wanted.
func (j *Journal) undelivered(into map[feeds.TenantID]int64) {
	j.mu.RLock()
	n := len(j.state)
	j.mu.RUnlock()
	for t := range TenantRef(n) {
		j.mu.RLock()
		st, trims, id := j.state[t], j.trims[t], j.ids[t]
		j.mu.RUnlock()
		if st.end.Events == 0 || st.released && st.release.Seq >= st.end.Seq {
			continue
		}
		from := j.wanted(t, st)
		_, expired := trims.events(span{from, st.end})
		if left := int64(st.end.Bytes) - int64(from.Bytes) - int64(expired); left > 0 {
			into[id] += left
		}
	}
}
