package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"datasync/feeds"
)

// gap is a range of the log that was damaged; it is kept as a fact.
type gap struct {
	File       string         `json:"file"`
	Off        int64          `json:"off"`
	Bytes      int64          `json:"bytes"`
	Commit     uint64         `json:"commit"`
	LastCommit uint64         `json:"last_commit"`
	Events     uint64         `json:"events"`
	From       feeds.Sequence `json:"from"` // [From, To) of the shard
	To         feeds.Sequence `json:"to"`
	Tenant     feeds.TenantID `json:"tenant,omitempty"`
	Message    string         `json:"message"`
}

// noteGap keeps a gap as a fact and tells the operator, once; false where it
// was known.
func (j *Journal) noteGap(g gap) bool {
	path := g.File
	g.File = filepath.Base(path)
	key := fmt.Sprintf("%s%s/%016x", keyGap, g.File, g.Off)
	value, err := json.Marshal(g)
	if err != nil {
		panic(err) // a struct of strings and numbers
	}
	j.mu.Lock()
	known := slices.ContainsFunc(j.gaps, func(o gap) bool { return o.File == g.File && o.Off == g.Off })
	if !known {
		j.gaps = append(slices.Clip(j.gaps), g)
	}
	j.mu.Unlock()
	if known {
		return false
	}
	j.facts.putLater([]Fact{{Key: key, Value: value}})
	j.queue.nudge()
	j.report(Incident{What: "damage", Tenant: g.Tenant, File: path, Off: g.Off, Bytes: g.Bytes, Events: int64(g.Events), Message: g.Message})
	return true
}

// inGap says whether a damaged range overlaps [from, to).
func inGap(gaps []gap, tenant feeds.TenantID, from, to feeds.Sequence) bool {
	return slices.ContainsFunc(gaps, func(g gap) bool {
		return g.From < to && from < g.To && (g.Tenant == "" || g.Tenant == tenant)
	})
}

// damage keeps a damaged range between whole commits: a copy is set aside, a
// gap fact names it.
func (r *recovery) damage(s *segment, f File, b badRange) {
	what := fmt.Sprintf("commits %d to %d are damaged: %d bytes at %d, %d events; what lies before and behind is delivered",
		b.first, b.next-1, b.to-b.from, b.from, b.events)
	if s.sealed {
		what = fmt.Sprintf("heads of commits %d to %d are damaged, %d bytes at %d: their events are found by the index, their facts may be lost",
			b.first, b.next-1, b.to-b.from, b.from)
		b.events, b.seqTo = 0, b.seq
	}
	if err := r.j.setAside(s, f, b.from, b.to); err != nil {
		what += fmt.Sprintf(" (setting a copy aside failed: %v)", err)
	}
	r.gaps = append(r.gaps, gap{File: s.path, Off: b.from, Bytes: b.to - b.from, Commit: b.first, LastCommit: b.next - 1,
		Events: b.events, From: b.seq, To: b.seqTo, Message: what})
}

// setAside copies [from, to) of a segment to the folder set-aside, durably;
// nothing that was written is ever only deleted.
func (j *Journal) setAside(s *segment, f File, from, to int64) error {
	dir := filepath.Join(j.s.dir, asideDir)
	if err := j.s.o.FS.Dir(dir, false); err != nil {
		return err
	}
	name := fmt.Sprintf("%s-%s-%d-%d.bad", j.name, strings.TrimSuffix(filepath.Base(s.path), ".seg"), from, to-from)
	out, err := j.s.o.FS.Create(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	w := window{f: f, limit: to}
	for at := from; at < to && err == nil; at += windowLen {
		var p []byte
		if p, err = w.at(at, windowLen); err == nil && len(p) > 0 {
			_, err = out.WriteAt(p, at-from)
		}
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = j.s.o.FS.Dir(dir, true)
	}
	if err == nil {
		err = j.s.o.FS.Dir(j.s.dir, true)
	}
	return err
}

// endOfLog judges the last commit and what lies behind it. Whatever was never
// acknowledged is set aside, reported and cut; a whole last commit is written
// again and synced, since nothing proves that it reached the disk.
func (r *recovery) endOfLog(s *segment, f File, k *walker) error {
	c, cut := k.last, false
	if c != nil {
		verdict, err := k.judge(c)
		if err != nil {
			return err
		}
		if verdict == whole {
			r.apply(s, c)
			r.j.w.witnessed = c.head.Events == 0
			if err := r.settleLast(s, f, c); err != nil {
				return err
			}
		} else {
			k.tail = c.off
			cut = true
		}
		if verdict == damaged {
			if err := r.damagedEnd(s, f, k, c); err != nil {
				return err
			}
			return r.cut(s, f, k.tail)
		}
	}
	k.tail = max(k.tail, segmentHeaderLen)
	end, err := k.written(k.tail)
	if err != nil {
		return err
	}
	if end > k.tail {
		cut = true
		if err := r.j.setAside(s, f, k.tail, end); err != nil {
			return fmt.Errorf("setting a torn tail aside: %w", err)
		}
		r.j.report(Incident{What: "torn-tail", File: s.path, Off: k.tail, Bytes: end - k.tail, Message: fmt.Sprintf(
			"%d bytes at the end were never acknowledged (a crash while writing): set aside and cut", end-k.tail)})
	}
	if !cut {
		return nil
	}
	return r.cut(s, f, k.tail)
}

// settleLast writes the last commit again: after a failed fsync its pages may
// count as clean though the disk never had them.
func (r *recovery) settleLast(s *segment, f File, c *commitAt) error {
	p := make([]byte, c.head.size())
	if err := readFull(f, p[:min(int64(len(p)), s.size-c.off)], c.off); err != nil {
		return err
	}
	c.head.put(p, magicHead, s.head.ID)
	c.head.put(p[len(p)-commitHeadLen:], magicTail, s.head.ID)
	if _, err := f.WriteAt(p, c.off); err != nil {
		return fmt.Errorf("writing the last commit again: %w", err)
	}
	s.size = max(s.size, c.end())
	return f.Sync()
}

// damagedEnd is a last commit that was written whole and is not any more. It
// goes as one, so that the source can resume behind the commit before; where
// no source can repeat it, its numbers are not given out again and its tenants
// see a hole.
func (r *recovery) damagedEnd(s *segment, f File, k *walker, c *commitAt) error {
	end := min(c.end(), s.size)
	if err := r.j.setAside(s, f, c.off, end); err != nil {
		return fmt.Errorf("setting a damaged commit aside: %w", err)
	}
	h := &c.head
	g := gap{File: s.path, Off: c.off, Bytes: end - c.off, Commit: h.Number, LastCommit: h.Number, Events: uint64(h.Events),
		From: h.First, To: h.Last + 1, Message: fmt.Sprintf("the last commit (%d, %d events) is damaged: it is set aside whole", h.Number, h.Events)}
	if h.Source == 0 {
		var m blockMeta
		frames(c.dir, func(body []byte) {
			if tenant, _, err := decodeDirEntry(body, &m); err == nil && m.last()+1 > r.held[string(tenant)].Seq {
				r.held[string(tenant)] = m.end()
			}
		})
		r.j.tip.seq, r.j.tip.events = h.Last, h.Before+uint64(h.Events)
	} else {
		g.From, g.To = 0, 0
		g.Message += "; its source repeats it"
	}
	r.gaps = append(r.gaps, g)
	r.j.w.since = 1 << 40 // a checkpoint holds the totals from here on
	return nil
}

func (r *recovery) cut(s *segment, f File, to int64) error {
	if err := f.Resize(to); err != nil {
		return fmt.Errorf("cutting at %d: %w", to, err)
	}
	r.j.s.grew(to - s.size)
	s.size = to
	return f.Sync()
}

// resume goes on where the last segment ends.
func (r *recovery) resume(s *segment) error {
	j := r.j
	if s.sealed {
		j.w.prev = s
		j.w.next = max(j.w.next, s.commit+1)
		return nil
	}
	f, err := j.s.o.FS.Open(s.path, true)
	if err != nil {
		return err
	}
	j.s.cache.adopt(s, f)
	if _, err := j.s.cache.acquire(s); err != nil { // the writer's own hold
		return err
	}
	j.w.active, j.w.file = s, f
	if len(r.segs) > 1 {
		j.w.prev = r.segs[len(r.segs)-2]
	}
	j.w.next = max(j.tip.commit+1, s.head.First)
	return nil
}

// passBad deals with files whose header is lost. One without content was never
// used; one with content stays as it is, named by a gap fact, and numbers go on
// far behind all that it may have held.
func (r *recovery) passBad() {
	j := r.j
	for _, path := range r.bad {
		first, _, _ := parseSegmentName(filepath.Base(path))
		if r.dropEmpty(path) {
			continue
		}
		r.gaps = append(r.gaps, gap{File: path, Commit: first, LastCommit: first, From: 0, To: 0,
			Message: "the header of this segment is damaged: none of it can be read; the file is left as it is"})
		if first >= j.w.next {
			if j.w.active != nil {
				j.letGo()
			}
			j.w.next = first + 1<<20
			if j.tip.source == 0 {
				j.tip.seq += 1 << 32
			}
		}
	}
}

// dropEmpty removes a segment file that holds nothing but zeros.
func (r *recovery) dropEmpty(path string) bool {
	f, err := r.j.s.o.FS.Open(path, false)
	if err != nil {
		return false
	}
	k := walker{w: window{f: f, limit: 1 << 62}}
	infos, err := r.j.s.o.FS.List(filepath.Dir(path))
	for _, i := range infos {
		if i.Name() == filepath.Base(path) {
			k.w.limit = i.Size()
		}
	}
	end := int64(1)
	if err == nil {
		end, err = k.written(0)
	}
	if errors.Join(err, f.Close()) != nil || end > 0 {
		return false
	}
	r.j.s.grew(-k.w.limit)
	return r.j.s.o.FS.Remove(path) == nil
}

// settleFiles ends deletions and rewrites that a crash cut short.
func (r *recovery) settleFiles() error {
	j := r.j
	keep := r.segs[:0:0]
	all := slices.Concat(r.segs, r.extra)
	for _, s := range all {
		base := filepath.Base(s.path)
		_, gone := j.facts.get(keyGone + base)
		want := uint64(0)
		if v, ok := j.facts.get(genKey(s.head.First)); ok {
			if n := Counts(v); len(n) > 0 {
				want = n[0]
			}
		}
		there := slices.ContainsFunc(all, func(o *segment) bool {
			return o.head.First == s.head.First && uint64(o.head.Generation) == want
		})
		if !gone && (uint64(s.head.Generation) == want || !there) {
			keep = append(keep, s)
			continue
		}
		if err := j.s.o.FS.Remove(s.path); err != nil {
			return fmt.Errorf("removing a segment that does not count any more: %w", err)
		}
		j.s.grew(-s.size)
	}
	slices.SortFunc(keep, func(a, b *segment) int { return int(int64(a.head.First - b.head.First)) })
	r.segs, r.extra = keep, nil
	for key := range j.facts.all(keyGone) {
		j.facts.putLater([]Fact{{Key: key}})
	}
	return j.s.o.FS.Dir(j.dir, true)
}

func genKey(first uint64) string { return fmt.Sprintf("%s%016x", keyGen, first) }

// checkChain finds segments that are missing though nothing says that they
// were deleted.
func (r *recovery) checkChain() {
	last := feeds.Sequence(0)
	for i, s := range r.segs {
		if i > 0 {
			last = r.segs[i-1].last
		}
		from := max(last, r.j.floor)
		if s.head.Seq > from && (i == 0 || r.segs[i-1].head.ID != s.head.PrevID) {
			r.gaps = append(r.gaps, gap{File: s.path, Commit: s.head.PrevCommit, LastCommit: s.head.PrevCommit,
				From: from + 1, To: s.head.Seq + 1, Message: "the segment before this one is missing and no fact says that it was deleted"})
		}
	}
}

// loadOwnFacts reads the journal's own facts.
func (j *Journal) loadOwnFacts() {
	for _, v := range j.facts.all(keyGap) {
		var g gap
		if json.Unmarshal(v, &g) == nil {
			j.gaps = append(j.gaps, g)
		}
	}
	for k, v := range j.facts.all(keyClock) {
		var fix clockFix
		if _, err := fmt.Sscanf(k[len(keyClock):], "%016x", &fix.seq); err == nil && len(Counts(v)) == 1 {
			fix.at = int64(Counts(v)[0])
			j.clocks = append(j.clocks, fix)
		}
	}
	for k, v := range j.facts.all(keyTrim) {
		j.trims[j.Tenant(feeds.TenantID(k[len(keyTrim):]))] = decodeRanges(v)
	}
	if v, ok := j.facts.get(keyFloor); ok && len(Counts(v)) == 1 {
		j.floor = feeds.Sequence(Counts(v)[0])
	}
}
