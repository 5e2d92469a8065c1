package journal

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"datasync/feeds"
)

// The writer is the one goroutine that changes a shard's files and its tip.
// All transitions are in this file and in roll.go:
//
//	good ──append fails on a full disk──► good (cut back, ErrFull)
//	good ──write or fsync fails─────────► lost (nothing more goes to that file)
//	lost ──a new segment is made────────► good (what was not acknowledged goes there)
//	lost ──that fails, disk full────────► lost (ErrFull; tried again with the next commit)
//	lost ──that fails otherwise─────────► stopped (fail-stop)
const (
	flushAfter    = 500 * time.Millisecond // facts put later and the idle witness
	checkpointMin = 256 << 10
	checkpointSeg = 4    // segments after which a checkpoint is due anyway
	clockSlack    = 2000 // how much the clock may run back unnoticed, ms
)

// writer is the state that only the writer's goroutine touches.
type writer struct {
	b         builder
	active    *segment // nil while lost, and before the first segment
	file      File
	prev      *segment // the one before active
	next      uint64   // number of the next commit
	lost      bool     // prev may not be written to any more
	witnessed bool     // nothing since the last commit wants a witness
	since     int64    // bytes of facts since the last checkpoint
	segments  int      // begun since the last checkpoint
	full      bool     // the last commit met a full disk or the cap
	arrivals  []Arrival
	reqs      []*request
}

// run is the writer's life.
func (j *Journal) run() {
	defer close(j.done)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	armed := false
	for {
		reqs, closing := j.queue.take(j.s.o.CommitBytes, j.w.reqs)
		j.w.reqs = reqs
		switch {
		case len(reqs) > 0:
			timer.Stop()
			armed = false
			j.serve(reqs)
			continue
		case closing:
			timer.Stop()
			j.flushFacts()
			j.shut()
			return
		}
		if idle := j.w.witnessed && !j.facts.pending(); !idle && !armed && j.Err() == nil {
			timer.Reset(flushAfter)
			armed = true
		}
		select {
		case <-j.queue.wake:
			if j.s.o.GroupDelay > 0 {
				j.gather()
			}
		case <-timer.C:
			armed = false
			j.flushFacts()
		}
	}
}

// gather waits for company.
func (j *Journal) gather() {
	t := time.NewTimer(j.s.o.GroupDelay)
	defer t.Stop()
	<-t.C
}

// serve deals with requests that arrived together.
func (j *Journal) serve(reqs []*request) {
	if err := j.Err(); err != nil {
		for _, r := range reqs {
			r.finish(errors.Join(feeds.ErrStopped, err))
		}
		return
	}
	if reqs[0].op != nil {
		reqs[0].finish(reqs[0].op())
		return
	}
	j.commit(reqs)
	j.checkpointIfDue()
}

// commit makes one commit of requests and of the facts put later.
func (j *Journal) commit(reqs []*request) {
	b := &j.w.b
	b.reset()
	b.addFacts(j.facts.take())
	for _, r := range reqs {
		if r.batch == nil {
			b.addFacts(r.facts)
		}
	}
	withoutEvents := len(b.facts)
	head := commitHead{Source: j.tip.source, Before: j.tip.events}
	last := j.tip.seq
	kept := reqs[:0:len(reqs)]
	for _, r := range reqs {
		if r.batch != nil {
			if n := len(r.batch.Events); n > 0 {
				if s := r.batch.Events[0].Seq; s != 0 && s <= last {
					r.finish(fmt.Errorf("%w: %d is not above %d", ErrSequence, s, last))
					continue
				}
				r.receipt.First = max(last+1, r.batch.Events[0].Seq)
				last = b.addEvents(r.batch, last)
				r.receipt.Last = last
			}
			if r.batch.Source != 0 {
				head.Source = r.batch.Source
			}
			b.addFacts(r.batch.Facts)
		}
		kept = append(kept, r)
	}
	if len(kept) == 0 && len(b.facts) == 0 {
		return
	}
	head.First, head.Last = j.tip.seq+1, last
	if len(b.items) > 0 {
		head.First = b.items[0].seq
	}
	err := j.makeDurable(head, len(b.items) > 0)
	if err == nil {
		for _, r := range kept {
			r.receipt.Commit = j.tip.commit
			r.finish(nil) // promise: an append is answered only after its fsync
		}
		return
	}
	j.commitWithoutEvents(kept, withoutEvents, err)
}

// makeDurable builds the commit of w.b and brings it to disk; what it brings
// becomes visible to readers.
func (j *Journal) makeDurable(head commitHead, events bool) error {
	b := &j.w.b
	head.Time, head.Durable = j.clock(), j.tip.commit
	b.sortEvents()
	j.mu.RLock()
	b.plan(head, func(t TenantRef) feeds.TenantID { return j.ids[t] }, func(t TenantRef) Position { return j.state[t].end })
	j.mu.RUnlock()
	b.fill()
	for _, r := range j.w.reqs {
		if r.op == nil && r.err == nil {
			r.release()
		}
	}
	if err := j.write(events); err != nil {
		return err
	}
	if events {
		j.spaceIsBack()
	}
	j.publish()
	return nil
}

// commitWithoutEvents is what follows a commit that was not made. On a full
// disk (or at the cap) its events are refused, and its facts are tried again
// alone, in the room that the reserve gives; otherwise the shard has stopped.
func (j *Journal) commitWithoutEvents(reqs []*request, facts int, err error) {
	b := &j.w.b
	if isFull(err) {
		j.diskFull(err)
		for _, r := range reqs {
			if r.batch != nil {
				r.finish(asFull(err))
			}
		}
		b.dropEvents()
		b.facts = b.facts[:facts]
		if facts > 0 {
			err = j.makeDurable(commitHead{Source: j.tip.source, Before: j.tip.events, First: j.tip.seq + 1, Last: j.tip.seq}, false)
		}
		for facts > 0 && isFull(err) && j.s.giveReserve(j, int64(len(b.buf))+reserveStep) {
			err = j.makeDurable(commitHead{Source: j.tip.source, Before: j.tip.events, First: j.tip.seq + 1, Last: j.tip.seq}, false)
		}
	}
	if err != nil {
		j.facts.giveBack()
	}
	for _, r := range reqs {
		switch {
		case r.batch != nil && r.settled():
		case err == nil:
			r.receipt.Commit = j.tip.commit
			r.finish(nil)
		case isFull(err):
			r.finish(asFull(err))
		default:
			r.finish(errors.Join(feeds.ErrStopped, err))
		}
	}
}

// publish lets readers and subscribers see what has become durable.
func (j *Journal) publish() {
	b, w := &j.w.b, &j.w
	arrivals := w.arrivals[:0]
	at := b.parts[0].head.Time
	j.mu.Lock()
	for i := range b.blocks {
		bl := &b.blocks[i]
		w.active.mem.add(bl.tenant, w.active.end+bl.off, at, b.buf[bl.tail:bl.tailEnd])
		j.state[bl.tenant].end = bl.end
		if n := len(arrivals); n > 0 && arrivals[n-1].Tenant == bl.tenant {
			arrivals[n-1].Events += bl.events
			arrivals[n-1].Bytes += bl.bytes
			continue
		}
		arrivals = append(arrivals, Arrival{Tenant: bl.tenant, Start: bl.start, Events: bl.events, Bytes: bl.bytes, Committed: at})
	}
	j.advance(int64(len(b.buf)))
	subs := j.subs
	j.mu.Unlock()
	j.facts.settleCommit(b.facts)
	w.witnessed = len(b.blocks) == 0
	w.since += int64(len(b.values)) + 32*int64(len(b.facts))
	if len(arrivals) > 0 {
		for _, f := range subs {
			f(arrivals)
		}
	}
	w.arrivals = arrivals
}

// advance moves the tip behind a durable wave of size bytes.
func (j *Journal) advance(size int64) {
	w := &j.w
	h := &w.b.parts[len(w.b.parts)-1].head
	j.tip = tip{commit: h.Number, seq: h.Last, events: h.Before + uint64(h.Events), source: h.Source, time: h.Time}
	w.active.end += size
	w.active.commit, w.active.last, w.active.time = h.Number, h.Last, h.Time
	w.next = h.Number + 1
}

// flushFacts commits what was put later, and a witness for the last events: a
// later valid commit lets recovery tell damage from a torn tail.
func (j *Journal) flushFacts() {
	if j.Err() != nil || j.w.witnessed && !j.facts.pending() {
		return
	}
	j.w.reqs = j.w.reqs[:0]
	b := &j.w.b
	b.reset()
	b.addFacts(j.facts.take())
	err := j.makeDurable(commitHead{Source: j.tip.source, Before: j.tip.events, First: j.tip.seq + 1, Last: j.tip.seq}, false)
	if err != nil {
		j.commitWithoutEvents(nil, len(b.facts), err)
	}
	j.checkpointIfDue()
}

// clock is the time of the next commit. It does not run back by little; when
// the clock was set back by much, what was committed under the later time
// counts as made now, so that nothing waits for a time that is far away.
func (j *Journal) clock() int64 {
	now := j.s.o.Now().UnixMilli()
	back := j.tip.time - now
	if back <= 0 {
		return now
	}
	if back < clockSlack {
		return j.tip.time
	}
	fix := clockFix{j.tip.seq, now}
	j.mu.Lock()
	j.clocks = append(j.clocks[:len(j.clocks):len(j.clocks)], fix)
	j.tip.time = now
	j.mu.Unlock()
	j.facts.putLater([]Fact{{Key: fmt.Sprintf("%s%016x", keyClock, uint64(fix.seq)), Value: AppendCounts(nil, uint64(now))}})
	j.report(Incident{What: "clock", Message: fmt.Sprintf("the clock went back by %v: what was committed under the later time counts as committed now", time.Duration(back)*time.Millisecond)})
	return now
}

// holdClock makes a commit where the clock was set back since the last one, so
// that what lies there counts as committed now, though nothing more may come.
func (j *Journal) holdClock() error {
	j.mu.RLock()
	last := j.tip.time
	j.mu.RUnlock()
	if last-j.s.o.Now().UnixMilli() < clockSlack {
		return nil
	}
	if err := j.Put(context.Background()); err != nil && !isFull(err) {
		return err
	}
	return nil
}

// isFull tells a disk without room (or the cap) from a disk that fails.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, feeds.ErrFull)
}

func asFull(err error) error {
	if errors.Is(err, feeds.ErrFull) {
		return err
	}
	return fmt.Errorf("%w: %w", feeds.ErrFull, err)
}
