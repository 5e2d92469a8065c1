// Package emit delivers lines to a TLS receiver: it joins a sink's lanes to one
// emitter.Client and turns its marks back into positions.
package emit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"datasync/emitter"
	"datasync/exporter/lane"
)

// Listener is told what became of the segments; *lane.Runner is one.
type Listener interface {
	// Read: the peer has read these, in the order offered.
	Read(segs []lane.Segment)
	// Confirmed: these are settled, in the order offered.
	Confirmed(segs []lane.Segment)
	// Lost: offer these again; nothing of the new epoch was taken yet.
	Lost(s *lane.Stream, epoch uint64, segs []lane.Segment)
	// Room: an Offer was refused, and there is room now.
	Room(s *lane.Stream)
	// Trouble: the connection fails (nil: it is well again).
	Trouble(s *lane.Stream, t *lane.Trouble)
}

// Options of a Sink.
type Options struct {
	// Client configures the emitter; its Events and Unconfirmed are set here.
	Client emitter.Options
	// Learned is called when an address has shown how it answers a drain.
	Learned func(address, answer string)
	// Known is what Learned told before, by address.
	Known map[string]string
	// Refuse keeps lines that the peer will never take, durable on return.
	Refuse func(ctx context.Context, s lane.Segment, reason string, lines ...[]byte) error
}

// Sink is a lane.StreamSink over one emitter.Client.
type Sink struct {
	o      Options
	to     Listener
	stream *lane.Stream

	// early guards what Restore collects before the client starts; it is a lock
	// of its own because the Runner holds its own lock then, which mu comes before.
	early    sync.Mutex
	restored []lane.Segment
	began    bool

	mu     sync.Mutex
	client *emitter.Client
	// flight holds what was offered and is not confirmed, by mark, rising;
	// those before read are proven to be read.
	flight []offered
	read   int
	epoch  uint64
	closed bool
}

type offered struct {
	mark uint64
	seg  lane.Segment
}

// New makes a sink and the stream through which lanes reach it.
func New(o Options, to Listener) (*lane.Stream, error) {
	s := &Sink{o: o, to: to}
	s.stream = &lane.Stream{Sink: s}
	probe := o.Client
	c, err := emitter.New(probe)
	if err != nil {
		return nil, err
	}
	return s.stream, c.Close()
}

// Restore is lane.StreamSink's. All of a former life count as one mark that is
// read and not confirmed: it is settled or taken back as a whole.
func (s *Sink) Restore(seg lane.Segment) bool {
	s.early.Lock()
	defer s.early.Unlock()
	if s.began {
		return false
	}
	s.restored = append(s.restored, seg)
	return true
}

// start makes the client; mu is held.
func (s *Sink) start() error {
	s.early.Lock()
	defer s.early.Unlock()
	s.began = true
	o := s.o.Client
	if len(s.restored) > 0 {
		o.Unconfirmed = 1
		for _, seg := range s.restored {
			s.flight = append(s.flight, offered{1, seg})
		}
		s.read, s.restored = len(s.flight), nil
	}
	o.Learned = map[string]emitter.Answer{}
	for a, v := range s.o.Known {
		o.Learned[a] = emitter.Answer(v)
	}
	o.Events = emitter.Events{
		OnRead: s.onRead, OnConfirmed: s.onConfirmed, OnLost: s.onLost, OnRefused: s.onRefused,
		OnRoom:    func() { s.to.Room(s.stream) },
		OnState:   s.onState,
		OnLearned: func(a string, v emitter.Answer) { s.o.Learned(a, string(v)) },
	}
	c, err := emitter.New(o)
	if err != nil {
		return fmt.Errorf("start the emitter: %w", err)
	}
	s.client = c
	return nil
}

// Room is lane.StreamSink's.
func (s *Sink) Room(least, most int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0
	case s.client == nil:
		return most
	}
	return s.client.Room(least, most)
}

// Offer is lane.StreamSink's.
func (s *Sink) Offer(lines []byte, seg lane.Segment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.client == nil && s.start() != nil {
		return false
	}
	// promise: what was read from the journal before a break is not sent after
	// it, or a later event would go out before an earlier one.
	if seg.Epoch != s.epoch {
		return false
	}
	mark, ok := s.client.Offer(lines)
	if !ok {
		return false
	}
	s.flight = append(s.flight, offered{mark, seg})
	if len(lines) == 0 && len(s.flight) == 1 { // nothing goes out, so nothing is waited for
		s.flight = s.flight[:0]
		s.to.Confirmed([]lane.Segment{seg})
	}
	return true
}

func (s *Sink) onRead(mark uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.read
	for s.read < len(s.flight) && s.flight[s.read].mark <= mark {
		s.read++
	}
	if segs := segments(s.flight[at:s.read]); len(segs) > 0 {
		s.to.Read(segs)
	}
}

func (s *Sink) onConfirmed(mark uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for n < len(s.flight) && s.flight[n].mark <= mark {
		n++
	}
	segs := segments(s.flight[:n])
	s.flight = append(s.flight[:0], s.flight[n:]...)
	s.read = max(s.read-n, 0)
	if len(segs) > 0 {
		s.to.Confirmed(segs)
	}
}

// onRefused puts a record that the peer will never take into the quarantine and
// counts it as refused in its segment. Only the caller's goroutine takes segments
// out of flight, so the segment stays where it was found.
func (s *Sink) onRefused(record []byte, at uint64, reason string) error {
	s.mu.Lock()
	i := 0
	for i < len(s.flight)-1 && s.flight[i].mark < at {
		i++
	}
	seg := s.flight[i].seg
	s.mu.Unlock()
	if s.o.Client.Octets {
		record = message(record)
	}
	if err := s.o.Refuse(context.Background(), seg, reason, record); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flight[i].seg.Counts.Events--
	s.flight[i].seg.Counts.Refused++
	return nil
}

// syslogFields stand before the message: PRI and version, time, host, program,
// process, id, structured data, none with a space in it (formats/syslog).
const syslogFields = 7

// message is the event in an RFC 5424 message.
func message(record []byte) []byte {
	for range syslogFields {
		_, rest, ok := bytes.Cut(record, []byte(" "))
		if !ok {
			return record
		}
		record = rest
	}
	return record
}

func (s *Sink) onLost(from uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.flight)
	for n > 0 && s.flight[n-1].mark > from {
		n--
	}
	segs := segments(s.flight[n:])
	s.flight = s.flight[:n]
	s.read = min(s.read, n)
	s.epoch++
	s.to.Lost(s.stream, s.epoch, segs)
}

func segments(os []offered) []lane.Segment {
	segs := make([]lane.Segment, len(os))
	for i := range os {
		segs[i] = os[i].seg
	}
	return segs
}

// onState shows the connection's state on the sink's lanes.
func (s *Sink) onState(st emitter.State) {
	if st.Reason == "" {
		s.to.Trouble(s.stream, nil)
		return
	}
	cause := st.Err
	if cause == nil {
		cause = errors.New("the peer takes nothing at the moment; the connection is kept")
	}
	e := asLane(st.Reason, st.Hint, cause)
	s.to.Trouble(s.stream, &lane.Trouble{Err: e, Stalled: st.Stalled, Retry: st.NextRetry})
}

// Flush is lane.StreamSink's.
func (s *Sink) Flush(ctx context.Context) error {
	s.mu.Lock()
	c := s.client
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.Flush(ctx)
}

// Close is lane.StreamSink's.
func (s *Sink) Close() error {
	s.mu.Lock()
	c := s.client
	s.closed = true
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	return c.Close()
}

// Status is the client's, for people; false where it never connected.
func (s *Sink) Status() (emitter.Status, bool) {
	s.mu.Lock()
	c := s.client
	s.mu.Unlock()
	if c == nil {
		return emitter.Status{}, false
	}
	return c.Status(), true
}
