package lane

import (
	"context"
	"fmt"

	"datasync/exporter/lane/shape"
	"datasync/exporter/state"
	"datasync/feeds/journal"
)

const (
	// streamChunk is how much a stream lane reads and offers at most at once.
	streamChunk = 256 << 10
	// streamLeast is what a read is worth: a block of the journal, which is read
	// whole to check it.
	streamLeast = 32 << 10
	// streamTurn is how many chunks a lane offers before others have their turn.
	streamTurn = 8
)

// streamed is what one turn of a stream lane came to.
type streamed struct {
	sent journal.Position
	// noRoom: the sink takes nothing now and calls Runner.Room.
	noRoom bool
	more   bool
	err    error
}

// offering is what a turn must know of its lane from the moment it began.
type offering struct {
	epoch uint64
	// end is how many bytes of its tenant the journal had.
	end uint64
	// restored: the peer had read up to where the turn begins, and confirmed less.
	restored bool
}

// stepStream offers what lies behind l.sent to the sink, a few chunks a turn.
func (e *env) stepStream(ctx context.Context, l *Lane, sent journal.Position, o offering) streamed {
	r := streamed{sent: sent}
	out := l.sink.Settings.Output
	sh, err := shape.New(&out, l.sink.Settings.Filter, true)
	if err != nil {
		r.err = fmt.Errorf("shape %s: %w", l.Key, err)
		return r
	}
	c := e.pools.chunk()
	defer e.pools.putChunk(c)
	var frame []byte
	size := streamChunk
	if n := l.sink.Stream.Chunk; n > 0 {
		size = min(size, n)
	}
	for range streamTurn {
		room := size
		if waits := int64(o.end) - int64(r.sent.Bytes); waits > 0 {
			// What is read in vain must be read again: all lanes of a full sink are told
			// of room at once, and each would read a chunk for the few that find some.
			most := min(waits, int64(size))
			if room = l.sink.Stream.Sink.Room(int(min(most, streamLeast)), int(most)); room == 0 {
				r.noRoom = true
				return r
			}
		}
		if err := l.shard.Journal.Read(l.tenant, r.sent, journal.ReadOptions{MaxBytes: room, Blocks: true}, c); err != nil {
			r.err = fmt.Errorf("read %s of shard %s: %w", l.Key, l.shard.Name, err)
			return r
		}
		if c.Next == r.sent {
			if o.restored { // nothing new, but a connection must prove what the last life sent
				l.sink.Stream.Sink.Offer(nil, Segment{Lane: l, From: r.sent, To: r.sent, Epoch: o.epoch})
			}
			return r
		}
		s := sh.Shape(c)
		if err := e.keep(ctx, l, refusals(l, s.Refused)); err != nil {
			r.err = err
			return r
		}
		lines := s.Lines
		if l.sink.Frame != nil {
			frame = l.sink.Frame(frame[:0], lines)
			lines = frame
		}
		if !l.sink.Stream.Sink.Offer(lines, Segment{Lane: l, From: r.sent, To: c.Next, Committed: committed(c), Counts: s.Counts, Epoch: o.epoch}) {
			r.noRoom = true
			return r
		}
		r.sent = c.Next
		if !c.More {
			return r
		}
	}
	r.more = true
	return r
}

func committed(c *journal.Chunk) int64 {
	if len(c.Spans) == 0 {
		return 0
	}
	return c.Spans[len(c.Spans)-1].Committed
}

// Confirmed settles segments that the peer has for good, in the order offered.
func (r *Runner) Confirmed(segs []Segment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.env.now()
	for i := range segs {
		l := segs[i].Lane
		l.fact.Settle(segs[i].To, segs[i].Counts, now)
		l.fact.ReadCounts.Sub(segs[i].Counts)
		l.touched = true
		l.oldest = max(l.oldest, segs[i].Committed)
	}
	for i := range segs {
		l := segs[i].Lane
		if !l.touched {
			continue
		}
		l.touched = false
		if l.fact.Pos.Events >= l.end.Events {
			l.oldest = 0
		}
		// promise: only what the peer has confirmed frees the journal.
		l.shard.Home.Advance(l.Key, l.fact)
		r.release(l)
	}
}

// Refuse keeps lines of a segment that the destination will never take in the
// quarantine, durable on return. The sink then counts them as refused, not as
// events, in the segment that it confirms. After an error none may count: the
// sink tries again.
func (r *Runner) Refuse(ctx context.Context, s Segment, reason string, lines ...[]byte) error {
	rs := make([]Refusal, len(lines))
	for i, line := range lines {
		rs[i] = Refusal{Key: s.Lane.Key, Shard: s.Lane.shard.Name, Line: line, Reason: reason}
	}
	return r.env.keep(ctx, s.Lane, rs)
}

// Read notes segments that the peer is proven to have read, in the order
// offered: a restart goes on behind them.
func (r *Runner) Read(segs []Segment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range segs {
		l := segs[i].Lane
		l.fact.Read = segs[i].To
		l.fact.ReadCounts.Add(segs[i].Counts)
		l.touched = true
	}
	for i := range segs {
		if l := segs[i].Lane; l.touched {
			l.touched = false
			l.shard.Home.Advance(l.Key, l.fact)
		}
	}
}

// Lost takes back segments that must be offered again, in the order offered,
// and begins a new epoch of the stream. The sink calls it before it takes
// anything of that epoch.
func (r *Runner) Lost(s *Stream, epoch uint64, segs []Segment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.epoch = epoch
	for i := len(segs) - 1; i >= 0; i-- {
		l := segs[i].Lane
		l.fact.Repeats += segs[i].Counts.Events
		// What was offered and is not in segs stays offered, be it of the same turn.
		l.sent, l.rewound = segs[i].From, true
		if segs[i].To.Seq <= l.fact.Read.Seq { // read once, and forgotten by the peer's death
			l.fact.Read, l.fact.ReadCounts = l.fact.Pos, state.Counts{}
			l.touched = true
		}
	}
	for i := range segs {
		if l := segs[i].Lane; l.touched {
			l.touched = false
			// promise: a restart, too, sends again what the peer read before it died.
			l.shard.Home.Advance(l.Key, l.fact)
		}
	}
	for _, l := range s.lanes {
		if l.busy || l.sent.Events < l.end.Events {
			r.schedule(l, true, 0)
		}
	}
}

// Room lets the stream's lanes offer again.
func (r *Runner) Room(s *Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range s.lanes {
		if l.busy {
			l.again = true
		} else if l.wantsRoom {
			l.wantsRoom = false
			r.schedule(l, true, 0)
		}
	}
}

// Trouble shows a failure of the connection on all lanes that share it; nil ends it.
func (r *Runner) Trouble(s *Stream, t *Trouble) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.trouble = t
	r.ended.Broadcast()
	for _, l := range s.lanes {
		if t == nil {
			r.happened(l, delivered)
			r.schedule(l, l.sent.Events < l.end.Events && !l.wantsRoom, 0)
			continue
		}
		r.troubled(l, t)
	}
}

func (r *Runner) troubled(l *Lane, t *Trouble) {
	if l.status.fail(t.Err, r.env.now(), 0) {
		r.o.OnState(l.Key, l.shard.Name, l.status)
	}
	l.status.NextRetry = 0
	if !t.Retry.IsZero() {
		l.status.NextRetry = t.Retry.UnixMilli()
	}
}
