package kinesis

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"time"

	"datasync/exporter/lane"
)

// flow is all that changes in a Sink, guarded by its mutex; this file has every
// move of a record: pending → in a call → stored, pending again, or refused.
type flow struct {
	// flight holds the segments not confirmed yet, in the order offered.
	flight []*segment
	// pending holds the records to be sent, in the order offered.
	pending  []*record
	chosen   []*record // memory for what could go now; empty between picks
	no       uint64
	buffered int
	borrowed int  // of the shared room
	short    bool // an Offer was refused for want of room
	crowded  int  // what was buffered then
	calls    int  // under way
	// busy holds the slots of which a record is under way; with ordered only.
	busy map[uint64]bool
	// pauses are by shard; "" is for failures that name none.
	pauses map[string]*pause
	grid   *grid
	// most is how many records a call may have: fewer while one is looked for
	// that the service refuses, and while shards throttle.
	most int
	// failures counts calls that failed as a whole, in a row; until is when the
	// next may be made.
	failures int
	until    time.Time
	// dry counts calls in a row of which nothing was stored.
	dry      int
	troubled bool
	// successes counts calls of which something was stored; suspects are the
	// pending records that may be what the stream refuses.
	successes uint64
	suspects  int
	flushers  []*flusher
	timer     *time.Timer
	closed    bool
}

// pause is how long a shard is left alone.
type pause struct {
	n     int // failures in a row
	until time.Time
}

type flusher struct{ done chan error }

// dryCalls are so many calls in a row that stored nothing before a stream that
// throttles shows as trouble: a shard that throttles for a moment is no news.
const dryCalls = 3

// leastRecords is how few records a call to a throttling stream tries.
const leastRecords = 16

// loneRefusals is how often a record must have been refused alone to be given
// up where nothing else is sent that could tell whether it is the stream.
const loneRefusals = 3

// kick makes the calls that can be made now.
func (s *Sink) kick() {
	if s.closed {
		return
	}
	now := time.Now()
	for {
		b, when := s.pick(now)
		if b == nil {
			s.wakeAt(when, now)
			return
		}
		s.calls++
		s.wg.Add(1)
		go s.send(b)
	}
}

// wakeAt has kick called at a time; zero: something else will.
func (s *Sink) wakeAt(when, now time.Time) {
	switch {
	case when.IsZero():
	case s.timer == nil:
		s.timer = time.AfterFunc(when.Sub(now), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.kick()
		})
	default:
		s.timer.Reset(when.Sub(now))
	}
}

// pick takes the records of the next call out of pending; nil: none can go
// now, look again at when.
func (s *Sink) pick(now time.Time) (b *batch, when time.Time) {
	atOnce := maxCalls
	if s.failures > 0 || s.most < maxRecords || s.grid != nil && !s.grid.known {
		atOnce = 1
	}
	if len(s.pending) == 0 || s.calls >= atOnce {
		return nil, time.Time{}
	}
	if now.Before(s.until) {
		return nil, s.until
	}
	c := s.candidates(now)
	defer clear(c.recs)
	switch {
	case len(c.bad) > 0:
		b = &batch{recs: c.bad, refuse: true}
	case len(c.recs) == 0:
		return nil, c.when
	case !c.full && !c.again && !s.pressed() && now.Before(c.recs[0].seg.due):
		return nil, earlier(c.when, c.recs[0].seg.due)
	case s.grid != nil:
		b = &batch{}
		b.recs, b.ends = s.grid.pack(c.recs, s.most)
	default:
		b = &batch{recs: slices.Clone(c.recs)}
	}
	for _, r := range b.recs {
		r.taken = true
		if r.suspect != "" {
			r.suspect = ""
			s.suspects--
		}
		if s.busy != nil && !b.refuse {
			s.busy[r.slot] = true
		}
	}
	s.pending = slices.DeleteFunc(s.pending, func(r *record) bool { return r.taken })
	return b, time.Time{}
}

// pressed: no call waits to be filled. Where there is no room for more, what
// is left goes at once only if no answer is due that will make room.
func (s *Sink) pressed() bool {
	return len(s.flushers) > 0 || s.short && s.calls == 0
}

// chosen is what could go now.
type chosen struct {
	recs, bad []*record
	full      bool      // a call holds no more
	again     bool      // one of them has waited its pause out
	when      time.Time // when more could go; zero: unknown
}

// candidates chooses from pending, the oldest first.
func (s *Sink) candidates(now time.Time) (c chosen) {
	var blocked map[uint64]bool
	if s.busy != nil {
		blocked = map[uint64]bool{}
	}
	size := 0
	c.recs = s.chosen[:0]
	for _, r := range s.pending {
		if r.bad != "" {
			c.bad = append(c.bad, r)
			continue
		}
		if blocked != nil {
			// promise: with ordered, no record overtakes or joins an earlier one of its key.
			if blocked[r.slot] || s.busy[r.slot] {
				continue
			}
			blocked[r.slot] = true
		}
		if r.wait != nil {
			if now.Before(r.wait.until) {
				c.when = earlier(c.when, r.wait.until)
				continue
			}
			c.again = true
		}
		if s.grid == nil && len(c.recs) == s.most || size+r.size() > maxCall-maxAggregate {
			c.full = true
			break
		}
		size += r.size()
		c.recs = append(c.recs, r)
	}
	s.chosen = c.recs
	return c
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// giveBack puts records, which it sorts, back into pending at their places.
func (s *Sink) giveBack(recs []*record) {
	for _, r := range recs {
		r.taken = false
	}
	slices.SortFunc(recs, func(a, b *record) int { return cmp.Compare(a.no, b.no) })
	i, j := len(s.pending)-1, len(recs)-1
	s.pending = append(s.pending, recs...)
	for k := len(s.pending) - 1; j >= 0; k-- { // merge from the end: most go to the front
		if i >= 0 && s.pending[i].no > recs[j].no {
			s.pending[k] = s.pending[i]
			i--
		} else {
			s.pending[k] = recs[j]
			j--
		}
	}
}

// send makes a call and takes in what came of it.
func (s *Sink) send(b *batch) {
	defer s.wg.Done()
	growStack()
	var results []result
	var err error
	if b.refuse {
		err = s.refuse(b)
	} else {
		results, err = s.call(b)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
	if s.closed {
		return
	}
	if s.busy != nil && !b.refuse {
		for _, r := range b.recs {
			delete(s.busy, r.slot)
		}
	}
	switch {
	case err != nil:
		s.giveBack(slices.Clone(b.recs))
		s.failed(b, err)
	case b.refuse:
		for _, r := range b.recs {
			r.seg.Counts.Events--
			r.seg.Counts.Refused++
			r.seg.left--
		}
		s.failures = 0
		s.well()
		s.confirm()
	default:
		s.answered(b, results)
	}
	s.kick()
}

// growStack makes the goroutine's stack as large as the SDK's layers need, while
// there is nothing on it: growing by and by moves each layer's frame again.
//
//go:noinline
func growStack() {
	var room [20 << 10]byte
	runtime.KeepAlive(&room)
}

// refuse puts what will never be taken into the quarantine.
func (s *Sink) refuse(b *batch) error {
	for _, r := range b.recs {
		seg := lane.Segment{Lane: r.seg.Lane, From: r.seg.From, To: r.seg.To} // its counts may be changing
		if err := s.to.Refuse(s.ctx, seg, r.bad, r.line); err != nil {
			return &lane.Error{Verdict: lane.Wait, Class: lane.Full, Err: err, Hint: "the event stays queued until the quarantine takes it"}
		}
	}
	return nil
}

// answered takes in the results of a call.
func (s *Sink) answered(b *batch, results []result) {
	var back []*record
	stored := map[string]int{}
	failed := map[string]int{}
	for i, r := range results {
		u := b.unit(i)
		if !r.stored {
			failed[r.shard]++
			back = append(back, u...)
			continue
		}
		stored[r.shard]++
		for _, rec := range u {
			// promise: a segment is confirmed when every record of it has a sequence number.
			rec.seg.left--
		}
		if s.grid != nil {
			s.grid.learn(u[0].slot, r.shard)
		}
	}
	s.pauseShards(stored, failed)
	for i, r := range results {
		if !r.stored {
			for _, rec := range b.unit(i) {
				rec.wait = s.pauses[r.shard]
			}
		}
	}
	s.giveBack(back)
	s.progress(results)
	s.confirm()
}

// pauseShards sets how long shards are left alone.
func (s *Sink) pauseShards(stored, failed map[string]int) {
	for shard := range stored {
		if p := s.pauses[shard]; p != nil && failed[shard] == 0 {
			p.n, p.until = 0, time.Time{}
		}
	}
	now := time.Now()
	for shard := range failed {
		p := s.pauses[shard]
		if p == nil {
			p = &pause{}
			s.pauses[shard] = p
		}
		if now.Before(p.until) {
			continue // that call was made before the shard was known to throttle
		}
		if p.n++; stored[shard] > 0 || shard == "" && len(stored) > 0 {
			p.n = 1
		}
		p.until = now.Add(s.backoff(p.n, s.o.Tuning.PauseMin, s.o.Tuning.PauseMax))
	}
}

// progress says what a call's answer means for the stream as a whole.
func (s *Sink) progress(results []result) {
	s.failures = 0
	stored, throttled := 0, false
	for _, r := range results {
		if r.stored {
			stored++
		}
		throttled = throttled || reasons[r.code].class == lane.Throttled
	}
	s.most = min(2*max(s.most, len(results)), maxRecords)
	if throttled { // send about what is taken, not all of it over and over
		s.most = min(max(2*stored, leastRecords), maxRecords)
	}
	if stored > 0 {
		s.dry = 0
		s.successes++
		s.convict()
		s.well()
		return
	}
	if s.dry++; s.dry < dryCalls {
		return
	}
	s.tell(resultError(s.o.Stream, results), s.pauses[results[0].shard].until)
}

// convict has the suspects refused: the stream takes other records.
func (s *Sink) convict() {
	if s.suspects == 0 {
		return
	}
	for _, r := range s.pending {
		if r.suspect != "" {
			r.bad, r.suspect = r.suspect, ""
		}
	}
	s.suspects = 0
}

// well ends the trouble.
func (s *Sink) well() {
	if s.troubled {
		s.troubled = false
		s.to.Trouble(s.stream, nil)
	}
}

// tell shows trouble on the lanes.
func (s *Sink) tell(e *lane.Error, retry time.Time) {
	s.troubled = true
	s.to.Trouble(s.stream, &lane.Trouble{Err: e, Retry: retry})
	if !e.Park {
		return
	}
	for _, f := range s.flushers {
		f.done <- fmt.Errorf("flush Kinesis stream %s: %w", s.o.Stream, e)
	}
	s.flushers = nil
}

// failed takes in that a call failed as a whole; its records are pending again.
func (s *Sink) failed(b *batch, err error) {
	e := classify(s.o.Stream, err)
	if e.Class == lane.Invalid && s.blame(b, err) {
		return
	}
	s.failures++
	longest := s.o.Tuning.RetryMax
	if e.Park {
		longest *= 2
	}
	d := s.backoff(s.failures, s.o.Tuning.RetryMin, longest)
	s.until = time.Now().Add(d)
	s.tell(e, s.until)
}

// blame finds the record for which the service refused a call. True: the rest
// may go again at once.
func (s *Sink) blame(b *batch, err error) bool {
	reason, at := refusedRecord(err, b.units())
	if reason == "" {
		return false
	}
	u := b.recs
	if at >= 0 {
		u = b.unit(at)
	}
	for _, r := range u {
		if r.doubt == 0 {
			r.doubt = s.successes + 1
		}
	}
	switch {
	case at < 0 && b.units() > 1: // one of these: look for it by halves
		s.most = max(1, b.units()/2)
		return true
	case len(u) > 1: // the service refuses what they were packed into
		for _, r := range u {
			r.alone = true
		}
		return true
	case at >= 0 || s.successes >= u[0].doubt || s.successes > 0 && u[0].lone == loneRefusals-1:
		u[0].bad = reason
		return true
	}
	// It went alone and was refused, with no word about the record. It is at
	// fault if the stream takes another one; until then it may be the stream.
	s.suspects++
	u[0].lone++
	if s.short {
		s.short = false
		s.to.Room(s.stream)
	}
	u[0].suspect = reason
	u[0].wait = &pause{until: time.Now().Add(4 * s.o.Tuning.RetryMax)}
	return false
}

// confirm settles the segments at the head that are done.
func (s *Sink) confirm() {
	n := 0
	var segs []lane.Segment
	for ; n < len(s.flight) && s.flight[n].left == 0; n++ {
		s.buffered -= len(*s.flight[n].data)
		freeBytes(s.flight[n].data) // none of its records is pending or in a call
		segs = append(segs, s.flight[n].Segment)
	}
	if n == 0 {
		return
	}
	s.flight = slices.Delete(s.flight, 0, n)
	s.repay(s.buffered)
	s.to.Confirmed(segs)
	if s.short && s.buffered <= s.crowded/2 {
		s.short = false
		s.to.Room(s.stream)
	}
	if len(s.flight) > 0 {
		return
	}
	clear(s.pauses)
	for _, f := range s.flushers {
		f.done <- nil
	}
	s.flushers = nil
}

func (s *Sink) unflush(f *flusher) {
	s.flushers = slices.DeleteFunc(s.flushers, func(o *flusher) bool { return o == f })
}

// backoff is how long to wait after the n-th failure in a row, with jitter.
func (s *Sink) backoff(n int, least, most time.Duration) time.Duration {
	d := min(least<<min(n-1, 16), most)
	return d/2 + time.Duration(s.o.Chance()*float64(d/2))
}
