// Package kinesis delivers a sink's lines to a Kinesis stream with PutRecords: one event a record, or many as the KPL packs them.
package kinesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"datasync/exporter/lane"
)

// Listener is told what became of the segments; *lane.Runner is one.
type Listener interface {
	// Confirmed: these are stored (or refused and kept), in the order offered.
	Confirmed(segs []lane.Segment)
	// Refuse keeps lines that the stream will never take, durable on return.
	Refuse(ctx context.Context, s lane.Segment, reason string, lines ...[]byte) error
	// Room: an Offer was refused, and there is room now.
	Room(s *lane.Stream)
	// Trouble: nothing can be stored (nil: it can again).
	Trouble(s *lane.Stream, t *lane.Trouble)
}

// Options of a Sink. Stream is required.
type Options struct {
	Stream string
	// Region is "" for the environment's, Endpoint for AWS's own.
	Region, Endpoint string
	// RoleARN is a role to assume; "": the service's own identity.
	RoleARN, ExternalID string
	// PartitionKey is the event's field that gives a record's partition key;
	// "" is event_id.
	PartitionKey string
	// Ordered keeps the order per partition key: one record of a key is under
	// way at a time. Aggregate packs many events into a record. Not both.
	Ordered, Aggregate bool
	// Buffer is how many bytes of lines are held until they are stored; 0 is 1 MiB.
	Buffer int
	// Shared is room beyond Buffer, up to 1 MiB, for whichever sink needs it; nil: none.
	Shared *Room
	// Control judges every address before it is connected to; nil: all are fine.
	Control func(network, address string, c syscall.RawConn) error
	// Dial connects in place of net.Dialer, and past Control; nil: that.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Chance gives the jitter of back-offs, in [0,1); nil: chance.
	Chance func() float64
	Tuning Tuning
}

// Tuning are times that tests shorten; the zero value is the defaults.
type Tuning struct {
	// Linger is how long an event waits for a call to fill; 0 is 100 ms.
	Linger time.Duration
	// RetryMin and RetryMax bound the back-off after a failed call: 500 ms, 30 s.
	RetryMin, RetryMax time.Duration
	// PauseMin and PauseMax bound that of a shard that throttles: 100 ms, 1 s.
	PauseMin, PauseMax time.Duration
}

func (o Options) withDefaults() Options {
	if o.PartitionKey == "" {
		o.PartitionKey = defaultKey
	}
	if o.Buffer == 0 {
		o.Buffer = 1 << 20
	}
	if o.Chance == nil {
		o.Chance = rand.Float64
	}
	for _, d := range []struct {
		at *time.Duration
		is time.Duration
	}{
		{&o.Tuning.Linger, 100 * time.Millisecond},
		{&o.Tuning.RetryMin, 500 * time.Millisecond}, {&o.Tuning.RetryMax, 30 * time.Second},
		{&o.Tuning.PauseMin, 100 * time.Millisecond}, {&o.Tuning.PauseMax, time.Second},
	} {
		if *d.at == 0 {
			*d.at = d.is
		}
	}
	return o
}

// Sink is a lane.StreamSink over one stream. What it does is in flow.go; it
// has a goroutine for each call under way and none otherwise.
type Sink struct {
	o       Options
	to      Listener
	stream  *lane.Stream
	service caller
	// field and fallback are the members whose values become partition keys.
	field, fallback []byte
	ctx             context.Context
	cancel          context.CancelFunc
	wg              sync.WaitGroup

	mu sync.Mutex
	flow
}

// caller is the service; *client is it.
type caller interface {
	// put makes one PutRecords call of n records and gives n results. Calls are
	// concurrent.
	put(ctx context.Context, body []byte, n int) ([]result, error)
	// close ends idle connections.
	close()
}

// result is what became of one record of a call.
type result struct {
	stored bool
	// shard is where it is stored, or which throttled it where that is known.
	shard string
	// code and message say why not.
	code, message string
}

// New makes a sink and the stream through which lanes reach it. It connects
// when there is something to send.
func New(o Options, to Listener) (*lane.Stream, error) {
	if o.Stream == "" {
		return nil, errors.New("the sink needs a stream's name")
	}
	if o.Ordered && o.Aggregate {
		return nil, fmt.Errorf("stream %s: ordered and aggregate exclude each other", o.Stream)
	}
	return newSink(o, to, newClient(o)).stream, nil
}

func newSink(o Options, to Listener, c caller) *Sink {
	s := &Sink{o: o.withDefaults(), to: to, service: c, fallback: member(defaultKey)}
	s.field = member(s.o.PartitionKey)
	s.stream = &lane.Stream{Sink: s}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.most = maxRecords
	s.pauses = map[string]*pause{}
	if o.Ordered {
		s.busy = map[uint64]bool{}
	}
	if o.Aggregate {
		s.grid = &grid{}
	}
	return s
}

// Offer is lane.StreamSink's.
func (s *Sink) Offer(lines []byte, g lane.Segment) bool {
	if !s.reserve(len(lines)) {
		return false
	}
	data := newBytes(len(lines))
	*data = append(*data, lines...)
	seg := &segment{Segment: g, data: data, due: time.Now().Add(s.o.Tuning.Linger)}
	recs := s.split(seg)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.flight = append(s.flight, seg)
	for i := range recs {
		s.no++
		recs[i].no = s.no
		s.pending = append(s.pending, &recs[i])
	}
	if len(recs) == 0 {
		s.confirm()
	}
	s.kick()
	return true
}

// Room is lane.StreamSink's.
func (s *Sink) Room(least, most int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0
	}
	return s.roomLocked(least, most)
}

// reserve takes room for n bytes. Whoever finds the buffer empty may pass its bound.
func (s *Sink) reserve(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || n > 0 && s.roomLocked(n, n) == 0 {
		return false
	}
	s.buffered += n
	return true
}

// roomLocked says how many more bytes may be held, as Room does, and borrows
// what that takes: without them, confirm gives it back.
func (s *Sink) roomLocked(least, most int) int {
	own := s.o.Buffer - s.buffered
	if s.suspects > 0 { // what proves the stream to be well must get in
		own += 1 << 20
	}
	switch {
	case s.buffered == 0, own >= most, s.borrow(s.buffered + most):
		return most
	case own >= least:
		return own
	case s.borrow(s.buffered + least):
		return least
	}
	s.short, s.crowded = true, s.buffered
	s.kick()
	return 0
}

// maxBuffer is how many bytes one sink may hold with shared room: about what
// two calls carry, one under way and one that fills.
const maxBuffer = 1 << 20

// borrow has shared room for what is to be held beyond Buffer.
func (s *Sink) borrow(held int) bool {
	// promise: a stream in trouble takes no more of what all share.
	if s.o.Shared == nil || held > maxBuffer || s.failures > 0 || s.dry > 0 || s.most < maxRecords {
		return false
	}
	more := max(held-s.o.Buffer-s.borrowed, 0)
	if !s.o.Shared.take(more) {
		return false
	}
	s.borrowed += more
	return true
}

// repay gives back what is not needed any more for what is held.
func (s *Sink) repay(held int) {
	if less := s.borrowed - max(held-s.o.Buffer, 0); less > 0 {
		s.o.Shared.give(less)
		s.borrowed -= less
	}
}

// Room is memory that sinks share: nobody's own, so that the few that have
// most to send fill their calls.
type Room struct{ free atomic.Int64 }

// NewRoom makes room for so many bytes.
func NewRoom(bytes int64) *Room {
	r := &Room{}
	r.free.Store(bytes)
	return r
}

func (r *Room) take(n int) bool {
	if r.free.Add(-int64(n)) >= 0 {
		return true
	}
	r.give(n)
	return false
}

func (r *Room) give(n int) { r.free.Add(int64(n)) }

// Restore is lane.StreamSink's. Nothing is read here without being stored, so
// what a former life left unconfirmed is to be offered again.
func (s *Sink) Restore(lane.Segment) bool { return false }

// Flush is lane.StreamSink's. A failure that only a person can mend ends it
// after one more try.
func (s *Sink) Flush(ctx context.Context) error {
	s.mu.Lock()
	if len(s.flight) == 0 || s.closed {
		s.mu.Unlock()
		return nil
	}
	f := &flusher{done: make(chan error, 1)}
	s.flushers = append(s.flushers, f)
	s.until = time.Time{}
	s.kick()
	s.mu.Unlock()
	select {
	case err := <-f.done:
		return err
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unflush(f)
		return fmt.Errorf("flush Kinesis stream %s: %d bytes are not stored yet: %w", s.o.Stream, s.buffered, ctx.Err())
	}
}

// Close is lane.StreamSink's. What is not confirmed is offered again by the
// next life, or the next sink of these lanes.
func (s *Sink) Close() error {
	s.mu.Lock()
	s.closed = true
	s.cancel()
	if s.timer != nil {
		s.timer.Stop()
	}
	for _, f := range s.flushers {
		f.done <- fmt.Errorf("flush Kinesis stream %s: the sink was closed", s.o.Stream)
	}
	s.flushers, s.flight, s.pending = nil, nil, nil
	s.repay(0)
	s.mu.Unlock()
	s.wg.Wait()
	s.service.close()
	return nil
}
