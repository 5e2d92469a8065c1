package emitter

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"datasync/emitter/relp"
)

// What Window and Protocol do in place of drains: the owner's other
// transitions, and how records go out and answers come in.

const (
	// settleEvery bounds how often answers are told to the owner.
	settleEvery = 20 * time.Millisecond
	// flushEvery is between looks at TCP_INFO while a flush waits.
	flushEvery = 50 * time.Millisecond
	// recordBuffer is how much is framed before it is handed to TLS.
	recordBuffer = 16 << 10
	// rejections are how often a record is rejected, by a peer that takes others,
	// before it is given up.
	rejections = 3
	// maxCondemned bounds what is remembered of records given up.
	maxCondemned = 1000
)

// actKept is act on a connection that is kept, not rotated.
func (o *owner) actKept(now time.Time, v view) (at time.Time, over bool) {
	if o.c.o.Confirm == Protocol && v.marks.confirmed == v.marks.offered {
		// A quiet session is ended in good order; nothing is owed on either side.
		if at = later(v.lastWrite, o.connected).Add(o.c.o.Tuning.Grace); at.After(now) {
			return at, false
		}
		o.cur.leave()
		o.cur = nil
		o.show(State{})
		return o.actAway(now, v)
	}
	return earlier(o.settleAt, o.watch(now, v)), false
}

// settle takes in what the peer has acknowledged. last: the connection has ended.
func (o *owner) settle(now time.Time, last bool) {
	k := o.cur
	if o.unkept || !last && now.Before(o.settleAt) {
		return
	}
	o.settleAt = time.Time{}
	mark, refused := k.session.Settled()
	for _, r := range refused {
		if o.c.o.Events.OnRefused == nil {
			break
		}
		if err := o.c.o.Events.OnRefused(r.Record, r.At, r.Reason); err != nil {
			// promise: what a peer refuses is kept before anything behind it is confirmed.
			if o.unkept = true; !last {
				o.abandon(now, &Error{Class: Full, Doing: "keeping what is refused by", Address: k.address, Err: err, Hint: "it is offered again until it can be kept"})
			}
			return
		}
	}
	c := o.c
	c.mu.Lock()
	before := c.marks
	// What was read in a former life has outlived it: the peer is there.
	if mark = max(mark, c.marks.read); mark > c.marks.confirmed {
		c.marks.read, c.marks.confirmed = mark, mark
	}
	m := c.marks
	c.mu.Unlock()
	if m == before {
		return
	}
	if !last {
		o.settleAt = now.Add(settleEvery)
	}
	o.outage = outage{}
	o.progress(before, m)
	c.answerFlushes(m.confirmed)
}

// hold takes in what the peer's kernel says.
func (o *owner) hold(now time.Time, t TCP) {
	c := o.c
	c.mu.Lock()
	before := c.marks
	o.window.note(o.cur.place)
	h := o.window.judge(now, t, c.queue.waiting == 0, &c.o)
	c.marks.read = max(before.read, h.read)
	c.marks.confirmed = max(before.confirmed, h.confirmed)
	m := c.marks
	c.mu.Unlock()
	if m != before {
		o.outage = outage{}
		o.progress(before, m)
	}
	c.answerFlushes(max(h.acked, m.read))
}

// keptEnd is the end of a connection that is not rotated.
func (o *owner) keptEnd(now time.Time, e ending) {
	k, c := o.cur, o.c
	abnormal := true
	if k.session != nil {
		o.settle(now, true)
		o.count(e.err)
	} else if e.fin && e.err == nil && e.tcp.Acked > k.place.wire {
		// The peer's own end, without a reset, and its kernel had everything. One
		// that says goodbye to a quiet connection has read what it got, and keeps
		// it. Of a busy one up to some TLS records may lie unread in the peer's own
		// memory, where closing does not turn them into a reset.
		abnormal = false
		c.mu.Lock()
		before := c.marks
		// promise: with window, an end that we did not ask for proves nothing of what was just sent.
		if e.notify && now.Sub(c.lastWrite) >= c.o.Tuning.Grace {
			c.marks.drained(false)
		}
		m := c.marks
		c.mu.Unlock()
		o.progress(before, m)
		c.answerFlushes(m.read)
	}
	o.cur = nil
	cause := e.err
	switch {
	case cause != nil:
	case e.notify:
		cause = errUnasked
	default:
		cause = errBareFIN
	}
	c.mu.Lock()
	done := c.marks.confirmed == c.marks.offered
	c.mu.Unlock()
	if done { // it ended a quiet connection, as it may
		o.show(State{})
		return
	}
	o.gone(now, abnormal, classify(doSend, k.address, cause, k.certAsked, !k.peer.ClientNotAfter.IsZero()))
}

// count counts a record that a peer rejected that takes others, and gives it up
// in the end. A peer that rejects everything is away, not right.
func (o *owner) count(err error) {
	var r *relp.Rejection
	if !errors.As(err, &r) || !r.Vouched {
		return
	}
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rejected == nil || len(c.condemned) > maxCondemned {
		c.rejected, c.condemned = map[relp.Digest]int{}, map[relp.Digest]string{}
	}
	if c.rejected[r.Record]++; c.rejected[r.Record] >= rejections {
		c.condemned[r.Record] = r.Error()
		delete(c.rejected, r.Record)
	}
}

// progress tells how far the marks have come.
func (o *owner) progress(before, m marks) {
	if ev := o.c.o.Events.OnConfirmed; ev != nil && m.confirmed > before.confirmed && before.read >= m.confirmed {
		ev(m.confirmed)
		before.confirmed = m.confirmed
	}
	if ev := o.c.o.Events.OnRead; ev != nil && m.read > before.read {
		ev(m.read)
	}
	if ev := o.c.o.Events.OnConfirmed; ev != nil && m.confirmed > before.confirmed {
		ev(m.confirmed)
	}
}

// show tells a transition.
func (o *owner) show(s State) {
	if s.Address == "" {
		s.Address = o.state.Address
	}
	s.Confirm, s.Weak = o.c.confirms(s.Address)
	same := s.Connected == o.state.Connected && s.Stalled == o.state.Stalled && s.Reason == o.state.Reason &&
		s.Confirm == o.state.Confirm && s.Address == o.state.Address
	if s.Since = o.state.Since; !same || s.Since.IsZero() {
		s.Since = time.Now()
	}
	o.state = s
	o.c.mu.Lock()
	o.c.status.State = s
	o.c.mu.Unlock()
	if !same && o.c.o.Events.OnState != nil {
		o.c.o.Events.OnState(s)
	}
}

// confirms says, for people, how an address confirms.
func (c *Client) confirms(address string) (how string, weak bool) {
	switch c.o.Confirm {
	case Window:
		return "window", false
	case Protocol:
		return "protocol", false
	}
	switch c.answerOf(address) {
	case AnswerNotify:
		return "drain", false
	case AnswerFIN:
		return "weak", true
	case AnswerNone:
		return "window", false
	}
	return "", false
}

// sendRecords sends a chunk as records of the session, no more at a time than
// the peer may leave unanswered.
func (k *conn) sendRecords(b *chunk) error {
	base := k.c.begin(b)
	if k.frames == nil {
		k.frames = make([]byte, 0, recordBuffer)
	}
	buf := k.frames[:0]
	flush := func() error {
		_, err := k.tls.Write(buf)
		buf = buf[:0]
		return err
	}
	at, done, ends := 0, base, b.ends
	for at < len(b.b) {
		record, n, err := cutRecord(b.b[at:], k.c.o.Octets)
		if err != nil {
			return err
		}
		at += n
		for len(ends) > 0 && ends[0] <= at { // an Offer is confirmed as a whole
			done, ends = base+uint64(ends[0]), ends[1:]
		}
		if reason := k.refuses(record); reason != "" {
			k.session.Skip(&relp.Refusal{Record: append([]byte(nil), record...), Reason: reason, At: base + uint64(at)}, done)
			k.c.poke()
			continue
		}
		room, err := k.session.Room(false)
		if err == nil && !room {
			if err = flush(); err == nil {
				err = k.wire.flush()
			}
			if err == nil {
				_, err = k.session.Room(true)
			}
		}
		if err != nil {
			return err
		}
		if buf = k.session.Append(buf, record, done); len(buf) >= recordBuffer-1<<10 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// refuses is the reason why a record is not sent, "" for none.
func (k *conn) refuses(record []byte) string {
	if len(k.condemned) == 0 {
		return ""
	}
	return k.condemned[relp.DigestOf(record)]
}

// begin counts a chunk as written and gives the mark before it: its records may
// be answered before the last of them is sent.
func (c *Client) begin(b *chunk) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	base := c.marks.written
	c.marks.written += uint64(len(b.b))
	if base == c.marks.read {
		c.poke()
	}
	return base
}

// cutRecord cuts the first record off b; n is its length with what frames it.
func cutRecord(b []byte, octets bool) (record []byte, n int, err error) {
	sep := byte('\n')
	if octets {
		sep = ' '
	}
	at := 0
	for at < len(b) && b[at] != sep {
		at++
	}
	if !octets {
		return b[:at], min(at+1, len(b)), nil
	}
	size, err := strconv.Atoi(string(b[:min(at, 10)]))
	if err != nil || size < 0 || at+1+size > len(b) {
		return nil, 0, fmt.Errorf("what was offered is not octet-counted: %.20q", b)
	}
	return b[at+1 : at+1+size], at + 1 + size, nil
}

// readAnswers reads the peer's answers until the session ends.
func (k *conn) readAnswers() ending {
	rejected := false
	for {
		err := k.session.Next(k.answers)
		if err == nil {
			k.c.poke()
			if !rejected && k.session.Rejected() != nil {
				rejected = true
				_ = k.wire.SetReadDeadline(time.Now().Add(time.Second)) // for the answers to the others
			}
			continue
		}
		k.session.End() // the writer may wait for room
		e := ending{asked: k.asked.Load(), err: err}
		if r := k.session.Rejected(); r != nil {
			e.err = r
		} else if errors.Is(err, io.EOF) {
			e.err, e.fin, e.notify = nil, true, !k.wire.eof.Load()
		}
		return e
	}
}
