package journal

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"datasync/feeds"
)

// recovery opens a shard: it finds the last checkpoint, folds what came after
// it, and judges the end of the log.
type recovery struct {
	j     *Journal
	segs  []*segment
	extra []*segment // other generations, by which facts decide
	bad   []string   // segments whose header is lost
	held  map[string]Position
	// a checkpoint being read
	pieceFacts []Fact
	pieceHeld  map[string]Position
	pieceNext  uint64
	pieceFirst uint64
	complete   int // whole checkpoints found
	gaps       []gap
}

// openShard opens or makes a shard and starts its writer.
func (s *Store) openShard(name string) (*Journal, error) {
	j := &Journal{s: s, name: name, dir: filepath.Join(s.dir, name), facts: newFactTable(),
		refs: map[feeds.TenantID]TenantRef{}, trims: map[TenantRef]ranges{}, pins: map[TenantRef]ranges{},
		queue: queue{wake: make(chan struct{}, 1)}, done: make(chan struct{})}
	if err := s.o.FS.Dir(j.dir, false); err != nil {
		return nil, err
	}
	if err := s.o.FS.Dir(s.dir, true); err != nil {
		return nil, err
	}
	r := &recovery{j: j}
	if err := r.run(); err != nil {
		return nil, err
	}
	go j.run()
	return j, nil
}

func (r *recovery) run() error {
	if err := r.list(); err != nil {
		return err
	}
	if err := r.fold(); err != nil {
		return err
	}
	j := r.j
	for name, p := range r.held {
		t := j.Tenant(feeds.TenantID(name))
		j.state[t].end = p
	}
	j.loadOwnFacts()
	if err := r.settleFiles(); err != nil {
		return err
	}
	r.checkChain()
	j.segs = r.segs
	j.w.next = max(j.tip.commit+1, 1)
	for _, s := range slices.Concat(r.segs, r.extra) {
		j.w.next = max(j.w.next, s.head.First)
	}
	j.w.witnessed = true
	if n := len(r.segs); n > 0 {
		if err := r.resume(r.segs[n-1]); err != nil {
			return err
		}
	}
	if len(r.bad) > 0 {
		r.passBad()
	}
	for _, g := range r.gaps {
		j.noteGap(g)
	}
	return nil
}

// list reads the headers and footers of all segments.
func (r *recovery) list() error {
	infos, err := r.j.s.o.FS.List(r.j.dir)
	if err != nil {
		return err
	}
	byFirst := map[uint64]*segment{}
	for _, i := range infos {
		first, gen, ok := parseSegmentName(i.Name())
		if !ok {
			continue
		}
		s, err := r.openSegment(filepath.Join(r.j.dir, i.Name()), i.Size())
		if errors.Is(err, errDamaged) || err == nil && (s.head.First != first || s.head.Generation != gen) {
			r.bad = append(r.bad, filepath.Join(r.j.dir, i.Name()))
			continue
		}
		if err != nil {
			return err
		}
		if other := byFirst[first]; other != nil {
			r.extra = append(r.extra, other)
		}
		byFirst[first] = s
	}
	for _, s := range byFirst {
		r.segs = append(r.segs, s)
	}
	slices.SortFunc(r.segs, func(a, b *segment) int { return cmp.Compare(a.head.First, b.head.First) })
	if n := len(r.segs); n > 0 {
		if err := r.unsealTorn(r.segs[n-1]); err != nil {
			return err
		}
	}
	for i, s := range r.segs {
		if i+1 < len(r.segs) {
			next := r.segs[i+1].head
			if next.PrevID == s.head.ID && s.head.Generation == 0 && (next.Failed || !s.sealed) {
				// promise: what lies behind the durable end that the next
				// segment states was never acknowledged.
				s.sealed, s.end = false, next.PrevEnd
			}
		}
		if !s.sealed {
			s.mem = newIndex()
		}
	}
	return nil
}

// unsealTorn takes back the seal of the last segment where a crash tore its
// index: nothing stands on that seal yet.
func (r *recovery) unsealTorn(s *segment) error {
	if !s.sealed {
		return nil
	}
	f, err := r.j.s.o.FS.Open(s.path, false)
	if err != nil {
		return err
	}
	raw := make([]byte, s.foot.IndexLen)
	err = readFull(f, raw, s.foot.IndexOff)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if _, err := decodeIndex(raw, s.foot); err != nil {
		s.foot, s.sealed, s.end, s.ckpt, s.ckpts = footer{}, false, s.size, 0, 0
	}
	return nil
}

// readSegmentHeader reads the header of a segment file.
func readSegmentHeader(f FS, path string) (segmentHeader, error) {
	file, err := f.Open(path, false)
	if err != nil {
		return segmentHeader{}, err
	}
	p := make([]byte, segmentHeaderLen)
	// A crash may have left one of the two sectors only.
	if err = readFull(file, p, 0); isShort(err) {
		err = nil
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return segmentHeader{}, err
	}
	h, err := decodeSegmentHeader(p)
	if err != nil {
		return h, fmt.Errorf("%s: %w", path, err)
	}
	return h, nil
}

// openSegment reads what a segment says of itself.
func (r *recovery) openSegment(path string, size int64) (*segment, error) {
	h, err := readSegmentHeader(r.j.s.o.FS, path)
	if err != nil {
		return nil, err
	}
	s := &segment{path: path, head: h, size: size, end: size, last: h.Seq, commit: h.First - 1, time: h.Created}
	if size < segmentHeaderLen+footerLen {
		return s, nil
	}
	f, err := r.j.s.o.FS.Open(path, false)
	if err != nil {
		return nil, err
	}
	p := make([]byte, footerLen)
	err = readFull(f, p, size-footerLen)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if foot, err := decodeFooter(p, h.ID); err == nil && foot.IndexOff+int64(foot.IndexLen)+footerLen == size {
		s.foot, s.sealed, s.end = foot, true, foot.IndexOff
		s.last, s.commit, s.time, s.ckpt = foot.Last, foot.Commit, foot.Time, foot.Checkpoint
		if s.ckpt != 0 {
			s.ckpts = 1
		}
	}
	return s, nil
}

// fold reads the log from the newest checkpoint that proves whole.
func (r *recovery) fold() error {
	from := len(r.segs)
	for {
		from--
		for from > 0 && !(r.segs[from].sealed && r.segs[from].ckpt != 0) {
			from--
		}
		from = max(from, 0)
		r.reset(from)
		for i := from; i < len(r.segs); i++ {
			if err := r.scan(i); err != nil {
				return fmt.Errorf("reading %s: %w", r.segs[i].path, err)
			}
		}
		if r.complete > 0 || from == 0 {
			break
		}
	}
	for _, s := range r.segs[:max(from, 0)] {
		if err := r.indexOnly(s); err != nil {
			return fmt.Errorf("reading %s: %w", s.path, err)
		}
	}
	if len(r.segs) > 0 && r.complete == 0 && r.segs[0].head.First > 1 && r.segs[0].head.Seq > 0 {
		r.j.report(Incident{What: "damage", File: r.segs[0].path, Message: "no whole checkpoint was found: " +
			"facts (positions, numbers, counts) may be incomplete"})
	}
	return nil
}

// reset begins folding at a segment.
func (r *recovery) reset(from int) {
	j := r.j
	j.facts = newFactTable()
	j.tip = tip{}
	r.held, r.complete, r.gaps = map[string]Position{}, 0, nil
	r.pieceFacts, r.pieceHeld, r.pieceNext = nil, nil, 0
	j.w.since, j.w.segments = 0, 0
	if from < len(r.segs) {
		h := r.segs[from].head
		j.tip = tip{commit: h.First - 1, seq: h.Seq, events: h.Events, source: h.Source, time: h.Created}
	}
}

// scan folds one segment.
func (r *recovery) scan(i int) error {
	s, j := r.segs[i], r.j
	f, err := j.s.o.FS.Open(s.path, i == len(r.segs)-1 && !s.sealed)
	if err != nil {
		return err
	}
	err = r.scanFile(i, f)
	return errors.Join(err, f.Close())
}

func (r *recovery) scanFile(i int, f File) error {
	s, j := r.segs[i], r.j
	if s.mem != nil {
		s.mem = newIndex()
	}
	last := i == len(r.segs)-1
	k := &walker{w: window{f: f, limit: min(s.end, s.size)}, id: s.head.ID,
		next: s.head.First, seq: s.head.Seq, events: s.head.Events}
	if !last {
		k.acked = r.segs[i+1].head.DurableFrom
	}
	k.visit = func(c *commitAt) error { r.apply(s, c); return nil }
	if last && !s.sealed {
		k.w.limit = s.size
	}
	j.w.segments++
	if err := k.walk(segmentHeaderLen); err != nil {
		return err
	}
	if err := r.takeIndex(s, f); err != nil {
		return err
	}
	var err error
	if last && !s.sealed {
		err = r.endOfLog(s, f, k)
	} else if k.last != nil {
		r.apply(s, k.last)
	}
	for _, b := range k.bad {
		r.damage(s, f, b)
	}
	if s.sealed {
		s.commit = s.foot.Commit
		j.tip = tip{s.foot.Commit, s.foot.Last, s.foot.Events, s.foot.Source, s.foot.Time}
	} else {
		s.end, s.commit, s.last, s.time = max(k.tail, segmentHeaderLen), j.tip.commit, j.tip.seq, j.tip.time
	}
	return err
}

// indexOnly makes the index of a segment before the checkpoint that carries
// none, since its sealing failed.
func (r *recovery) indexOnly(s *segment) error {
	if s.sealed {
		return nil
	}
	f, err := r.j.s.o.FS.Open(s.path, false)
	if err != nil {
		return err
	}
	k, err := r.j.rebuild(s, f)
	if err == nil {
		s.commit, s.last = k.next-1, k.seq
		if k.last != nil {
			s.time = k.last.head.Time
		}
	}
	return errors.Join(err, f.Close())
}

// takeIndex adds to the held totals what a sealed segment's index says, which
// stands whatever became of its directories.
func (r *recovery) takeIndex(s *segment, f File) error {
	if !s.sealed {
		return nil
	}
	raw := make([]byte, s.foot.IndexLen)
	if err := readFull(f, raw, s.foot.IndexOff); err != nil {
		return err
	}
	x, err := decodeIndex(raw, s.foot)
	if err != nil {
		return nil // found again, and mended, by the first reader
	}
	for i := range x.records {
		rec := x.record(i)
		if rec.end.Seq > r.held[string(rec.name)].Seq {
			r.held[string(rec.name)] = rec.end
		}
	}
	return nil
}

// apply folds a commit.
func (r *recovery) apply(s *segment, c *commitAt) {
	j, h := r.j, &c.head
	lost := r.applyFacts(s, c)
	var m blockMeta
	events, blocks := uint32(0), uint32(0)
	badDir := frames(c.dir, func(body []byte) {
		tenant, tail, err := decodeDirEntry(body, &m)
		if err != nil {
			return
		}
		events += m.Events
		blocks++
		if end := m.end(); end.Seq > r.held[string(tenant)].Seq {
			r.held[string(tenant)] = end
		}
		if s.mem != nil {
			s.mem.add(j.Tenant(feeds.TenantID(tenant)), c.blocks()+m.Off, h.Time, tail)
		}
	})
	if !s.sealed && (badDir > 0 || blocks != h.Blocks) {
		r.gaps = append(r.gaps, gap{File: s.path, Off: c.off, Bytes: int64(badDir), Commit: h.Number, LastCommit: h.Number,
			Events: uint64(h.Events - min(events, h.Events)), From: h.First, To: h.Last + 1,
			Message: fmt.Sprintf("the directory of commit %d is damaged: %d of its %d blocks are lost", h.Number, h.Blocks-min(blocks, h.Blocks), h.Blocks)})
	}
	if lost {
		r.gaps = append(r.gaps, gap{File: s.path, Off: c.off, Bytes: int64(h.FactsLen), Commit: h.Number, LastCommit: h.Number,
			Message: fmt.Sprintf("facts of commit %d are damaged: what they said is as it was before", h.Number)})
	}
	j.tip = tip{h.Number, h.Last, h.Before + uint64(h.Events), h.Source, h.Time}
}

// applyFacts folds a commit's facts; true where some were lost.
func (r *recovery) applyFacts(s *segment, c *commitAt) (lost bool) {
	n := uint32(0)
	piece := c.head.Flags&flagCheckpoint != 0
	good := true
	bad := frames(c.facts, func(body []byte) {
		kind, key, value, err := decodeFact(body)
		if err != nil {
			return
		}
		n++
		switch {
		case piece:
			good = r.pieceFact(c, kind, string(key), value) && good
		case kind == factSet || kind == factAdd:
			r.j.facts.fold(string(key), value, kind == factAdd)
			r.j.w.since += int64(len(value)) + 32
		}
	})
	whole := bad == 0 && n == c.head.Facts && good
	if piece {
		r.endPiece(s, whole)
		return false // the facts stand in the log before it too
	}
	return !whole
}

func (r *recovery) pieceFact(c *commitAt, kind byte, key string, value []byte) bool {
	switch kind {
	case factPiece:
		n := Counts(value)
		if len(n) != 2 {
			return false
		}
		if n[0] == 0 {
			r.pieceFacts, r.pieceHeld, r.pieceNext = nil, map[string]Position{}, n[1]
			r.pieceFirst = c.head.Number
		}
		return r.pieceNext > 0 && n[0] == n[1]-r.pieceNext
	case factHeld:
		n := Counts(value)
		if len(n) != 3 || r.pieceHeld == nil {
			return false
		}
		r.pieceHeld[key] = Position{feeds.Sequence(n[0]), n[1], n[2]}
	case factSet:
		r.pieceFacts = append(r.pieceFacts, Fact{Key: key, Value: slices.Clone(value)})
	}
	return true
}

// endPiece counts a piece; behind the last one the checkpoint is the state.
func (r *recovery) endPiece(s *segment, whole bool) {
	if !whole || r.pieceNext == 0 {
		r.pieceNext = 0
		return
	}
	r.pieceNext--
	if r.pieceNext > 0 {
		return
	}
	r.j.facts = newFactTable()
	for _, f := range r.pieceFacts {
		r.j.facts.fold(f.Key, f.Value, false)
	}
	r.held = r.pieceHeld
	r.pieceFacts, r.pieceHeld = nil, nil
	r.complete++
	r.j.w.since, r.j.w.segments = 0, 0
	if !s.sealed {
		s.ckpt = r.pieceFirst
		s.ckpts++
	}
}
