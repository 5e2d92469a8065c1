package emitter

import (
	"context"
	"errors"
	"net"
	"time"
)

// owner is the state machine of a Client: this file and confirm.go hold all its
// transitions, and its one goroutine owns the life of every connection and makes every call
// to the Client's owner. It runs while something is offered and not confirmed.
//
//	away ──dial──► open ──rotation due──► (dial next) ──► draining ──proof──► open on next
//	  ▲              │ end, death                            │ no proof        └► gone, if all is confirmed
//	  └──back-off────┴───────────── OnLost ──────────────────┘
type owner struct {
	c *Client

	cur, next *conn
	draining  bool      // cur is to send its end
	answer    time.Time // since when cur's answer is owed (zero: our end is still on its way)
	looked    time.Time // last look at TCP_INFO
	health    health
	window    window    // Window: of cur
	settleAt  time.Time // Protocol: answers are told again; zero: at once
	unkept    bool      // Protocol: something refused could not be kept, nothing more of cur is confirmed

	dialing chan dialed // nil: none under way
	cancel  context.CancelFunc

	lastRotation time.Time
	connected    time.Time // since when there is cur
	base         uint64    // written at the last rotation

	outage
	kicked   bool            // a flush has cut the back-off short
	serial   map[string]bool // endpoints that take one connection at a time
	nextLost int             // connections dialled ahead that ended, in a row
	suspect  bool            // one ended while cur was draining: the peer may have died

	state State
}

// outage is what must outlive a run: where a loss takes everything back, nothing
// is offered for a moment, and the run ends.
type outage struct {
	downSince  time.Time // zero: no failure since the last proof
	retryAt    time.Time
	unanswered int // drains in a row without an answer
}

func newOwner(c *Client) *owner {
	return &owner{c: c, outage: c.outage, serial: make(map[string]bool), state: c.status.State}
}

func (o *owner) run(ended chan struct{}) {
	defer close(ended)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		at, over := o.act(time.Now())
		if over {
			return
		}
		wait := time.Hour
		if !at.IsZero() {
			wait = max(time.Until(at), 0)
		}
		timer.Reset(wait)
		select {
		case <-o.c.quit:
			o.shut()
			return
		case <-o.c.wake:
		case d := <-o.dialing:
			o.onDialed(time.Now(), d)
		case <-o.quiesced():
			o.answer = time.Now()
		case e := <-over1(o.cur):
			o.onEnd(time.Now(), e)
		case e := <-over1(o.next):
			o.onNextEnd(time.Now(), e)
		case <-timer.C:
		}
	}
}

func over1(k *conn) <-chan ending {
	if k == nil {
		return nil
	}
	return k.over
}

func (o *owner) quiesced() <-chan struct{} {
	if o.cur == nil || !o.draining || !o.answer.IsZero() {
		return nil
	}
	return o.cur.quiesced
}

// view is what act decides by.
type view struct {
	pace
	pending  int
	wantRoom bool
	flushing bool
}

func (o *owner) view() view {
	c := o.c
	c.mu.Lock()
	defer c.mu.Unlock()
	v := view{pending: c.queue.waiting, wantRoom: c.wantRoom && c.queue.waiting <= c.o.Buffer/2, flushing: len(c.flushes) > 0}
	v.pace = pace{marks: c.marks, lastWrite: c.lastWrite, lastRotation: o.lastRotation, connected: o.connected, base: o.base}
	for _, f := range c.flushes {
		v.flush = max(v.flush, f.target)
	}
	if v.wantRoom {
		c.wantRoom = false
	}
	c.rotateMark = o.base + uint64(c.o.RotateBytes)
	return v
}

// act does what is due and says when to look again; over ends the goroutine.
func (o *owner) act(now time.Time) (at time.Time, over bool) {
	if o.cur != nil && o.cur.session != nil {
		o.settle(now, false)
	}
	v := o.view()
	if v.wantRoom && o.c.o.Events.OnRoom != nil {
		o.c.o.Events.OnRoom()
	}
	if v.flushing && !o.kicked {
		o.retryAt = time.Time{}
	}
	o.kicked = v.flushing
	if o.cur == nil {
		return o.actAway(now, v)
	}
	if o.c.o.Confirm != Drain {
		return o.actKept(now, v)
	}
	if o.draining {
		return o.watch(now, v), false
	}
	if v.marks.confirmed == v.marks.offered { // nothing left to watch it for
		o.cur.leave()
		o.cur = nil
		return o.actAway(now, v)
	}
	at = rotateAt(v.pace, &o.c.o)
	if !at.IsZero() && !at.After(now) {
		at = o.rotate(now, v)
	}
	return earlier(at, o.watch(now, v)), false
}

// actAway is act without a connection.
func (o *owner) actAway(now time.Time, v view) (at time.Time, over bool) {
	if o.dialing != nil {
		return time.Time{}, false
	}
	if v.marks.confirmed == v.marks.offered {
		return time.Time{}, o.rest()
	}
	if o.retryAt.After(now) {
		return o.retryAt, false
	}
	// Also where nothing waits: the peer is watched while it stores what it read.
	o.dial()
	return time.Time{}, false
}

// rest ends the goroutine where nothing was offered meanwhile.
func (o *owner) rest() bool {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	if o.c.marks.confirmed != o.c.marks.offered {
		o.c.poke() // act again
		return false
	}
	o.c.running, o.c.outage = false, o.outage
	return true
}

// rotate begins the drain of cur, or first the dial of the connection after it.
func (o *owner) rotate(now time.Time, v view) time.Time {
	last := v.pending == 0 && v.marks.written == v.marks.read
	flush := v.flush > v.marks.read
	switch {
	case o.retryAt.After(now):
		return o.retryAt
	case last, flush, o.next != nil, o.serial[o.cur.address]:
		o.draining, o.answer = true, time.Time{}
		o.cur.drain()
	case o.dialing != nil:
	default:
		o.dial()
	}
	return time.Time{}
}

// watch looks after cur while something is on the way: it finds the dead, shows
// the stalled, and ends a drain that is not answered.
func (o *owner) watch(now time.Time, v view) time.Time {
	proven := v.marks.read
	if o.c.o.Confirm == Window {
		proven = v.marks.confirmed
	}
	if v.marks.written == proven && v.pending == 0 && !o.draining {
		return time.Time{}
	}
	every := o.c.o.Tuning.HealthEvery
	if o.c.o.Confirm == Window && v.flushing {
		every = min(every, flushEvery)
	}
	timeout := drainTimeout(o.unanswered, &o.c.o)
	if next := o.looked.Add(every); next.After(now) && (o.answer.IsZero() || now.Sub(o.answer) < timeout) {
		if !o.answer.IsZero() {
			next = earlier(next, o.answer.Add(timeout))
		}
		return next
	}
	o.looked = now
	t, _, err := o.cur.wire.Look(now)
	if err != nil {
		return now.Add(every) // it has ended; the reader will say how
	}
	o.c.mu.Lock()
	o.c.status.TCP = t
	o.c.mu.Unlock()
	if o.c.o.Confirm == Window {
		o.hold(now, t)
	}
	blocked := o.cur.wire.blocked.Load() || o.cur.session != nil && o.cur.session.Waiting()
	switch o.health.judge(now, t, blocked, &o.c.o) {
	case dead:
		o.abandon(now, &Error{Class: Timeout, Doing: doSend, Address: o.cur.address, Err: errDead, Hint: "the receiver's host does not answer: check that it is up and reachable"})
		return now
	case stalled:
		o.show(State{Connected: true, Stalled: true, Reason: Slow, Err: errStalled, Hint: "the receiver is alive but reads nothing: look at its load and its disk", Address: o.cur.address})
	default:
		if o.state.Stalled {
			o.show(State{Connected: true, Address: o.cur.address})
		}
	}
	if o.answer.IsZero() {
		return now.Add(every)
	}
	if t.Unacked > 0 || t.NotSent > 0 {
		o.answer = now // the peer's kernel has not everything yet: nothing is owed
	}
	if now.Sub(o.answer) >= timeout {
		o.unanswered++
		o.c.forget(o.cur.address)
		o.abandon(now, classify(doDrain, o.cur.address, errNoDrain, false, false))
		return now
	}
	return earlier(now.Add(every), o.answer.Add(timeout))
}

func (o *owner) dial() {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan dialed, 1)
	o.dialing, o.cancel = result, cancel
	go func() { result <- o.c.connect(ctx) }()
}

func (o *owner) onDialed(now time.Time, d dialed) {
	o.cancel()
	o.dialing = nil
	for _, f := range d.learned {
		o.c.learn(f.address, f.answer)
	}
	switch {
	case d.err != nil && o.cur == nil:
		o.failed(now, d.err)
	case d.err != nil:
		o.nextFailed(now, d.err)
	case o.cur == nil:
		o.open(now, d.conn)
	default:
		o.next = d.conn
	}
}

// failed is an attempt without a connection to fall back on.
func (o *owner) failed(now time.Time, err *Error) {
	switch err.Class {
	case Connect, Reset, Timeout:
		// The peer was away unseen: nobody knows how it ended.
		o.lose(true, err)
	}
	o.pause(now)
	o.show(State{Reason: err.Class, Err: err, Hint: err.Hint, Address: err.Address, NextRetry: o.retryAt})
}

func (o *owner) pause(now time.Time) {
	if o.downSince.IsZero() {
		o.downSince = now
	}
	o.retryAt = now.Add(backoff(now.Sub(o.downSince), o.c.o.Tuning.Chance(), &o.c.o))
}

// nextFailed is a failed dial ahead of a rotation: cur goes on. A peer that
// accepts but does not shake hands serves one connection at a time; one that
// does not read cur either stands still, and would leave a drain unanswered.
func (o *owner) nextFailed(now time.Time, err *Error) {
	if err.Doing == doHandshake && err.Class == Timeout && !o.state.Stalled {
		o.serial[o.cur.address] = true
		return
	}
	o.retryAt = now.Add(backoff(0, o.c.o.Tuning.Chance(), &o.c.o))
	if !o.state.Stalled {
		o.show(State{Connected: true, Reason: err.Class, Err: err, Hint: err.Hint, Address: o.cur.address, NextRetry: o.retryAt})
	}
}

// open makes k the connection that is written to.
func (o *owner) open(now time.Time, k *conn) {
	o.cur, o.draining, o.answer = k, false, time.Time{}
	o.connected, o.health, o.looked = now, health{}, now
	o.window, o.settleAt, o.unkept = window{}, time.Time{}, false
	o.c.mu.Lock()
	o.c.status.Connections++
	o.c.status.Peer = k.peer
	o.base = o.c.marks.written
	o.c.mu.Unlock()
	k.activate()
	o.show(State{Connected: true, Address: k.address})
}

// onEnd is the end of cur: the answer to a drain, or a loss.
func (o *owner) onEnd(now time.Time, e ending) {
	k := o.cur
	<-k.finished
	o.c.mu.Lock()
	o.c.status.TCP = e.tcp
	o.c.mu.Unlock()
	if o.c.o.Confirm != Drain {
		o.keptEnd(now, e)
		return
	}
	cause := e.proof(o.c.answerOf(k.address) == AnswerFIN)
	// promise: only a peer that closed in answer to our end, without a reset, has read everything.
	if cause == nil && !o.suspect {
		o.drained(now)
		return
	}
	if cause == nil {
		cause = errSuspect
	}
	if e.asked && errors.Is(cause, errBareFIN) {
		o.c.forget(k.address) // another receiver may have taken its place
	}
	doing := doSend
	if o.draining {
		doing = doDrain
	}
	o.cur = nil
	err := classify(doing, k.address, cause, true, !k.peer.ClientNotAfter.IsZero())
	o.gone(now, !e.orderly(), err)
}

// drained moves the marks and goes over to the next connection.
func (o *owner) drained(now time.Time) {
	c := o.c
	c.mu.Lock()
	before := c.marks
	c.marks.drained(!o.lastRotation.IsZero() && now.Sub(o.lastRotation) < c.o.Tuning.MinRotate)
	m := c.marks
	c.status.Drains++
	c.mu.Unlock()
	o.lastRotation, o.base = now, m.written
	o.outage = outage{}
	o.cur, o.draining, o.nextLost = nil, false, 0
	o.progress(before, m)
	c.answerFlushes(m.read)
	next := o.next
	o.next = nil
	switch {
	case next == nil:
	case m.confirmed < m.offered:
		o.open(now, next)
		return
	default:
		next.leave()
	}
	o.show(State{})
}

// onNextEnd is the end of a connection that was dialled ahead and not used. It
// may be the first sign of a dying peer, whose other connection ends by a FIN
// that would pass for an answer: no drain is begun until cur has had the time to
// show its end too, and one under way does not count.
func (o *owner) onNextEnd(now time.Time, e ending) {
	<-o.next.finished
	o.suspect = o.draining && !e.orderly()
	o.retryAt = now.Add(o.c.o.Tuning.MinRotate)
	if o.nextLost++; o.nextLost > 1 {
		o.serial[o.next.address] = true // it takes one connection at a time
	}
	o.next = nil
}

// abandon gives cur up.
func (o *owner) abandon(now time.Time, err *Error) {
	if o.cur.session != nil {
		o.settle(now, true)
	}
	o.cur.kill()
	o.cur = nil
	o.gone(now, true, err)
}

// gone is a connection lost: abnormal says that the peer, too, may have lost
// what it read and did not store.
func (o *owner) gone(now time.Time, abnormal bool, err *Error) {
	o.draining, o.suspect, o.nextLost = false, false, 0
	if o.next != nil {
		o.next.kill()
		o.next = nil
	}
	if o.dialing != nil { // the attempt was for a rotation: begin anew
		o.cancel()
		if d := <-o.dialing; d.conn != nil {
			d.conn.kill()
		}
		o.dialing = nil
	}
	if !o.downSince.IsZero() {
		o.c.forget(err.Address) // broken again without a proof: drained empty before it gets another line
	}
	o.lose(abnormal, err)
	o.pause(now)
	o.show(State{Reason: err.Class, Err: err, Hint: err.Hint, Address: err.Address, NextRetry: o.retryAt})
}

// lose rewinds the marks and tells the owner, where anything is lost.
func (o *owner) lose(abnormal bool, err *Error) {
	c := o.c
	c.mu.Lock()
	from := c.marks.read
	if abnormal {
		// promise: what a peer read and had not confirmed when it died is sent again.
		from = c.marks.confirmed
	}
	if c.marks.written == from && !c.torn {
		c.mu.Unlock()
		return // nothing was on the way; what waits goes out on the next connection
	}
	c.torn = false
	c.queue.clear()
	c.marks.rewind(from)
	c.lost = true
	c.status.Losses++
	c.failFlushesLocked(&lostError{err})
	c.mu.Unlock()
	o.base = from
	if c.o.Events.OnLost != nil {
		c.o.Events.OnLost(from, err)
	}
	c.mu.Lock()
	c.lost = false
	c.wantRoom = false
	c.mu.Unlock()
	if c.o.Events.OnRoom != nil {
		c.o.Events.OnRoom()
	}
}

// shut ends everything without waiting for the peer.
func (o *owner) shut() {
	if o.dialing != nil {
		o.cancel()
		if d := <-o.dialing; d.conn != nil {
			d.conn.leave()
		}
	}
	if o.cur != nil && o.cur.session != nil {
		o.settle(time.Now(), true)
	}
	if o.cur != nil && o.c.o.Confirm == Drain && (o.draining || o.c.owed()) {
		// promise: of a peer that owes an answer at our stop nobody knows whether it
		// still has what it read; the next life begins at what is confirmed.
		o.lose(true, &Error{Class: Timeout, Doing: doDrain, Address: o.cur.address, Err: errStopped, Hint: "it gets what it had not confirmed again at the next start"})
	}
	for _, k := range []*conn{o.cur, o.next} {
		if k != nil {
			k.leave()
		}
	}
	o.c.mu.Lock()
	o.c.running = false
	o.c.mu.Unlock()
	o.show(State{Err: net.ErrClosed})
}
