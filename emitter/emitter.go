// Package emitter is the TLS line client: it dials, writes framed lines, knows
// what the peer has, by draining or by the peer's word, and notices its death.
package emitter

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"

	"datasync/emitter/relp"
)

// ErrClosed is returned by Flush on a Client that was closed.
var ErrClosed = errors.New("the emitter is closed")

// ErrLost is wrapped by Flush's error when lines on the way were lost: the owner
// has been told by OnLost from where to offer them again.
var ErrLost = errors.New("the connection ended before the peer had read everything")

// Options configures a Client. Only Addresses is required.
type Options struct {
	// Addresses are host:port, tried in order at every connect.
	Addresses []string
	// TLS says how the peer is checked and who we are.
	TLS TLS

	// Confirm is how it is known what the peer has.
	Confirm Confirm
	// Octets: the lines offered are octet-counted frames (MSG-LEN SP MSG), not
	// lines that end with a newline. Only Protocol needs to know.
	Octets bool

	DialTimeout  time.Duration // for one address, TCP and TLS together; 0 is 10 s
	RotateEvery  time.Duration // between drains of a busy connection; 0 is 10 s
	RotateBytes  int64         // drain after so many bytes, but not within a second of the last; 0 is 256 MiB
	DrainTimeout time.Duration // wait for the answer to a drain, counted from the peer's ACK of all; 0 is 30 s
	RetryMax     time.Duration // longest pause between attempts to connect; 0 is 30 s
	// Buffer bounds the bytes that wait in memory to be written; 0 is 1 MiB.
	// One Offer larger than that is taken when nothing else waits.
	Buffer int

	// Control is called with each address about to be dialled (after DNS); an
	// error refuses it (egress rules) and shows as reason "forbidden".
	Control func(network, address string, c syscall.RawConn) error
	// Dial connects in place of the kernel's TCP, whose socket options and
	// Control it has to see to itself; nil: the kernel's. Simulations bring theirs.
	Dial func(ctx context.Context, network, address string) (Transport, error)

	// Unconfirmed is how many marks of a former life were read but not
	// confirmed: numbering then starts with confirmed at 0 and read at
	// Unconfirmed, so that OnLost(0) and OnConfirmed(Unconfirmed) can speak of
	// them. Any number above 0 will do. Such a client connects at once.
	Unconfirmed uint64
	// Learned is what OnLearned told in a former life, by address.
	Learned map[string]Answer

	Events Events
	Tuning Tuning
}

// Confirm is how it is known what the peer has.
type Confirm uint8

// The ways to know.
const (
	// Drain ends the connection now and then; a peer that read everything answers.
	Drain Confirm = iota
	// Window is for peers that do not answer an end: what their kernel has
	// acknowledged counts as read after Tuning.Hold, and as confirmed when more
	// has been acknowledged since than its buffers hold. See DESIGN.md for what
	// this cannot promise.
	Window
	// Protocol is RELP: what the peer acknowledges is confirmed.
	Protocol
)

// TLS is how the client speaks TLS. The files are PEM and looked at again at
// every connect, so that a renewed certificate needs no restart.
type TLS struct {
	CA         string // roots that replace the system's; empty: the system's
	Cert, Key  string // client certificate; empty: none
	ServerName string // name to check and to send; empty: the host of the address
	MinVersion uint16 // 0 is TLS 1.2
	// Config, if set, is called instead of reading the files above, at every
	// connect; ServerName and MinVersion are filled in where it leaves them 0.
	// Returning the same *tls.Config keeps TLS sessions for resumption.
	Config func() (*tls.Config, error)
}

// Tuning holds the times that nobody needs to set but tests. 0 is the default.
type Tuning struct {
	IdleAfter   time.Duration // a connection quiet for so long is drained; 1 s
	Grace       time.Duration // least time between idle drains, in which the peer may store what it read; 5 s
	MinRotate   time.Duration // least time between drains by RotateBytes; 1 s
	HealthEvery time.Duration // between looks at TCP_INFO while bytes are outstanding; 1 s
	StallAfter  time.Duration // a write that makes no progress for so long is a stall; 2 s
	DeadAfter   time.Duration // no ACK for so long with bytes unacknowledged is death; 20 s
	RetryMin    time.Duration // first pause between attempts; 200 ms
	// Chance gives the jitter of back-offs, in [0,1); nil: chance. A simulation draws it by its seed.
	Chance func() float64
	Hold   time.Duration // Window: bytes acknowledged for so long, and the peer alive, count as read; 30 s
}

// Events are the client's calls to its owner. All of them come from one
// goroutine, one at a time, and hold no lock: Offer and Status may be called
// inside, Flush and Close may not. They must not block for long. nil is ignored.
type Events struct {
	// OnRead: the peer has read every byte up to mark. Go on from here after
	// our own restart.
	OnRead func(mark uint64)
	// OnConfirmed: what was read up to mark survived one more rotation (Window:
	// enough later bytes; Protocol: the peer took it); its source may be freed.
	OnConfirmed func(mark uint64)
	// OnRefused: the peer will never take this record (Protocol), which ends at
	// mark at. It is confirmed with its neighbours only if the error is nil, and
	// else offered again. The bytes are the callee's.
	OnRefused func(record []byte, at uint64, reason string) error
	// OnLost: everything after from is forgotten, sent or not. Offer refuses
	// until OnLost has returned; then numbering goes on at from, so the next
	// bytes offered must be those that followed mark from. OnRoom comes after it.
	OnLost func(from uint64, err error)
	// OnRoom: Offer refused before and there is room now.
	OnRoom func()
	// OnState is told of every transition.
	OnState func(State)
	// OnLearned: how an address answers a drain; worth keeping for Options.Learned.
	OnLearned func(address string, a Answer)
}

// Answer is how an endpoint answers a drain.
type Answer string

// The answers. AnswerUnknown is an endpoint never drained.
const (
	AnswerUnknown Answer = ""
	AnswerNotify  Answer = "close_notify" // close_notify, then FIN: proof
	AnswerFIN     Answer = "fin"          // a bare FIN: taken, shown as "weak"
	AnswerNone    Answer = "none"         // none: drain cannot confirm, "window" is wanted
)

// State is what the connection is doing, for people.
type State struct {
	Connected bool
	Stalled   bool      // connected, but the peer takes nothing (it is alive: the connection is kept)
	Reason    Class     // why not connected, or why not well; empty when well
	Err       error     // the cause, without the hint
	Hint      string    // how to mend it
	Since     time.Time // of this state's Connected/Stalled/Reason
	NextRetry time.Time // zero: none planned
	Address   string    // the one connected, or tried last
	Weak      bool      // the peer answers drains with a bare FIN only
	Confirm   string    // "drain", "weak", "window" (also where a peer cannot be confirmed by drain), "protocol"; "" before the first answer
}

// Peer is who the other end is, from the last handshake.
type Peer struct {
	Address, Remote string
	Version, Cipher string
	Subject, Issuer string
	NotAfter        time.Time // of the peer's certificate
	ClientNotAfter  time.Time // of our own; zero without one
	Resumed         bool
}

// Status is a snapshot for people and metrics.
type Status struct {
	State
	// Marks: Offered ≥ Written ≥ Read ≥ Confirmed.
	Offered, Written, Read, Confirmed uint64
	Waiting                           int // bytes in memory, not yet written
	BytesWritten                      uint64
	Connections, Drains, Losses       uint64
	Peer                              Peer
	TCP                               TCP // of the current connection, at its last look
}

// TCP is what the kernel knows of a connection, when last looked at.
type TCP struct {
	Unacked  uint64 // segments sent and not acknowledged
	NotSent  uint64 // bytes in our send queue, not yet sent
	Acked    uint64 // bytes the peer's kernel has
	Window   uint64 // bytes the peer would take now
	Probes   uint64 // probes unanswered
	LastAck  time.Duration
	RTT      time.Duration
	SampleAt time.Time
}

// check is the one place where Options are judged.
func (o *Options) check() error {
	if len(o.Addresses) == 0 {
		return errors.New("emitter: no address")
	}
	for _, a := range o.Addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("emitter: address %q is not host:port", a)
		}
	}
	if (o.TLS.Cert == "") != (o.TLS.Key == "") {
		return errors.New("emitter: tls: cert and key belong together, one of them is missing")
	}
	if v := o.TLS.MinVersion; v != 0 && (v < tls.VersionTLS12 || v > tls.VersionTLS13) {
		return fmt.Errorf("emitter: tls: minimum version %s: 1.2 and 1.3 are possible", tls.VersionName(v))
	}
	return nil
}

func (o Options) withDefaults() Options {
	or := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	or(&o.DialTimeout, 10*time.Second)
	or(&o.RotateEvery, 10*time.Second)
	or(&o.DrainTimeout, 30*time.Second)
	or(&o.RetryMax, 30*time.Second)
	or(&o.Tuning.IdleAfter, time.Second)
	or(&o.Tuning.Grace, 5*time.Second)
	or(&o.Tuning.MinRotate, time.Second)
	or(&o.Tuning.HealthEvery, time.Second)
	or(&o.Tuning.StallAfter, 2*time.Second)
	or(&o.Tuning.DeadAfter, 20*time.Second)
	or(&o.Tuning.RetryMin, 200*time.Millisecond)
	or(&o.Tuning.Hold, 30*time.Second)
	if o.Tuning.Chance == nil {
		o.Tuning.Chance = rand.Float64
	}
	if o.RotateBytes <= 0 {
		o.RotateBytes = 256 << 20
	}
	if o.Buffer <= 0 {
		o.Buffer = 1 << 20
	}
	if o.TLS.MinVersion == 0 {
		o.TLS.MinVersion = tls.VersionTLS12
	}
	return o
}

// Client sends framed lines to one peer over TLS and says what the peer has
// read. It holds no connection and no goroutine while everything is confirmed.
// Its methods may be called concurrently; Offer's order is the order sent.
type Client struct {
	o Options

	mu         sync.Mutex
	room       sync.Cond // the writer waits here for chunks
	queue      queue
	marks      marks
	status     Status
	learned    map[string]Answer
	wantRoom   bool // an Offer was refused since the last OnRoom
	torn       bool // a chunk was written in part and forgotten: rewind at the connection's end
	lastWrite  time.Time
	rotateMark uint64 // the writer wakes the owner goroutine when written reaches it
	lost       bool   // OnLost is being told: nothing may be offered
	closed     bool
	running    bool
	outage     outage // of the run before
	flushes    []*flush
	rejected   map[relp.Digest]int    // how often the peer rejected a record that was at fault
	condemned  map[relp.Digest]string // records that are not sent again, with the reason

	wake  chan struct{} // to the owner goroutine; capacity 1
	quit  chan struct{} // closed by Close
	ended chan struct{} // closed when the owner goroutine of this run has ended
	conf  configs
	// shaken is told of every handshake; set by Probe alone.
	shaken func(began time.Time, s tls.ConnectionState, err error)
}

type flush struct {
	target uint64
	done   chan error // capacity 1
}

// New makes a client. It connects at the first Offer (at once where
// Options.Unconfirmed is set: then Events may be called before New returns).
// Options that cannot work are an error here.
func New(o Options) (*Client, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	c := &Client{
		o:       o.withDefaults(),
		learned: make(map[string]Answer, len(o.Learned)),
		wake:    make(chan struct{}, 1),
		quit:    make(chan struct{}),
	}
	c.room.L = &c.mu
	c.queue.ends = o.Confirm == Protocol
	c.marks = marks{offered: o.Unconfirmed, written: o.Unconfirmed, read: o.Unconfirmed}
	for a, l := range o.Learned {
		c.learned[a] = l
	}
	if o.Unconfirmed > 0 {
		c.mu.Lock()
		c.startLocked()
		c.mu.Unlock()
	}
	return c, nil
}

// Offer hands over whole framed lines; it copies b and never blocks. mark counts
// the bytes offered so far, this b included: it is the number that OnRead and
// OnConfirmed will reach when the peer has read it. ok is false where there is
// no room (OnRoom will be called), between a loss and the return of OnLost, and
// after Close; then b was not taken. A b is never spread over two connections.
func (c *Client) Offer(b []byte) (mark uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// promise: while a loss is being told nothing is taken, not even an offer without
	// bytes: its mark would be behind those that are lost, and confirm past them.
	if c.closed || c.fullLocked(len(b)) {
		return c.marks.offered, false
	}
	if len(b) == 0 {
		return c.marks.offered, true
	}
	c.queue.push(b)
	c.marks.offered += uint64(len(b))
	if !c.running {
		c.startLocked()
	}
	c.room.Signal()
	return c.marks.offered, true
}

// Room says how many bytes Offer would take now, most at most; 0 where it is
// fewer than least, which is 1 at least: OnRoom will be called then, unless the
// client is closed.
func (c *Client) Room(least, most int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0
	}
	switch {
	case c.fullLocked(least):
		return 0
	case c.queue.waiting == 0:
		return most
	}
	return min(c.o.Buffer-c.queue.waiting, most)
}

// fullLocked says whether n bytes find no room now; OnRoom follows then.
func (c *Client) fullLocked(n int) bool {
	if c.lost || c.queue.waiting > 0 && c.queue.waiting+n > c.o.Buffer {
		c.wantRoom = true
		return true
	}
	return false
}

// Flush drains now and returns nil when the peer has read everything offered
// before the call (Window: when its kernel has it, which is all that can be known
// so soon; Protocol: when it has acknowledged it). Where lines were lost on the way it returns an error that
// wraps ErrLost (offer them again, flush again); at ctx's end, ctx's error with
// the reason that held it up.
func (c *Client) Flush(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	if c.marks.read >= c.marks.offered {
		c.mu.Unlock()
		return nil
	}
	f := &flush{target: c.marks.offered, done: make(chan error, 1)}
	c.flushes = append(c.flushes, f)
	c.mu.Unlock()
	c.poke()
	select {
	case err := <-f.done:
		return err
	case <-ctx.Done():
		c.dropFlush(f)
		s := c.Status()
		if s.Err != nil {
			return fmt.Errorf("flushing %d bytes to %s: %w (%s: %v; %s)", f.target-s.Read, s.Address, ctx.Err(), s.Reason, s.Err, s.Hint)
		}
		return fmt.Errorf("flushing %d bytes to %s: %w", f.target-s.Read, s.Address, ctx.Err())
	}
}

// owed says whether the peer was sent what it has not proven to have read.
func (c *Client) owed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.marks.written > c.marks.read
}

// Close ends the connection without waiting for the peer and returns when all
// goroutines have ended. What was not read stays with the owner: Flush first.
// Where the peer owes an answer by then (Drain), OnLost is called with what is confirmed.
func (c *Client) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.quit)
		c.failFlushesLocked(ErrClosed)
	}
	ended := c.ended
	c.mu.Unlock()
	if ended != nil {
		<-ended
	}
	return nil
}

// Status is the state of the moment.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Offered, s.Written, s.Read, s.Confirmed = c.marks.offered, c.marks.written, c.marks.read, c.marks.confirmed
	s.Waiting = c.queue.waiting
	return s
}

func (c *Client) startLocked() {
	c.running = true
	c.ended = make(chan struct{})
	go newOwner(c).run(c.ended)
}

func (c *Client) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *Client) dropFlush(f *flush) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, g := range c.flushes {
		if g == f {
			c.flushes = append(c.flushes[:i], c.flushes[i+1:]...)
			return
		}
	}
}

func (c *Client) failFlushesLocked(err error) {
	for _, f := range c.flushes {
		f.done <- err
	}
	c.flushes = nil
}

// answerFlushes answers the flushes that are done.
func (c *Client) answerFlushes(read uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keep := c.flushes[:0]
	for _, f := range c.flushes {
		if f.target <= read {
			f.done <- nil
		} else {
			keep = append(keep, f)
		}
	}
	c.flushes = keep
}
