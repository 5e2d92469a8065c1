package kinesis

import (
	"context"
	"errors"
	"testing"

	"datasync/exporter/lane"
)

// slow is a caller whose calls end when they are told how.
type slow chan error

func (s slow) put(ctx context.Context, _ []byte, n int) ([]result, error) {
	select {
	case err := <-s:
		rs := make([]result, n)
		for i := range rs {
			rs[i] = result{stored: true, shard: "s"}
		}
		return rs, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s slow) close() {}

// TestSharedRoom: a sink holds more than its own buffer while there is shared
// room, gives it back as its lines are stored, when it is closed, and takes
// none while its stream is in trouble.
func TestSharedRoom(t *testing.T) {
	const own = 32 << 10
	line := []byte(event(1, "k", 1000) + "\n")
	room := NewRoom(2 * own)
	fill := func(s *Sink) (n int) {
		for s.Offer(line, lane.Segment{}) {
			n += len(line)
		}
		return n
	}
	f := newFakeStream(t, 1)
	o := Options{Buffer: own, Shared: room}
	calls := slow(make(chan error))
	r := newRig(t, f, o, calls)
	to := &told{confirmed: make(chan int, 100), trouble: make(chan *lane.Trouble, 100)}
	r.sink.to = to
	if n := fill(r.sink); n < 3*own-len(line) || n > 3*own {
		t.Errorf("%d bytes are held, with %d of its own and %d shared", n, own, 2*own)
	}
	other := newRig(t, f, o, slow(make(chan error)))
	if n := fill(other.sink); n < own-len(line) || n > own+len(line) {
		t.Errorf("%d bytes are held by another, want its own %d", n, own)
	}
	other.end()
	calls <- errors.New("down")
	for tr := range to.trouble {
		if tr != nil {
			break
		}
	}
	if n := fill(r.sink); n != 0 {
		t.Errorf("in trouble, it took %d bytes more", n)
	}
	for left := 3 * own; left > own; {
		calls <- nil
		left -= <-to.confirmed * len(line)
	}
	r.sink.mu.Lock()
	if free := room.free.Load(); free != 2*own-int64(r.sink.borrowed) || r.sink.borrowed > max(r.sink.buffered-own, 0) {
		t.Errorf("%d of %d are free, %d borrowed for %d held", free, 2*own, r.sink.borrowed, r.sink.buffered)
	}
	r.sink.mu.Unlock()
	fill(r.sink)
	r.end()
	if free := room.free.Load(); free != 2*own {
		t.Errorf("%d of %d are free once all are closed", free, 2*own)
	}
}

// told is a Listener that passes on what it is told.
type told struct {
	confirmed chan int
	trouble   chan *lane.Trouble
}

// Confirmed is Listener's.
func (c *told) Confirmed(segs []lane.Segment) { c.confirmed <- len(segs) }

// Refuse is Listener's.
func (*told) Refuse(context.Context, lane.Segment, string, ...[]byte) error { return nil }

// Room is Listener's.
func (*told) Room(*lane.Stream) {}

// Trouble is Listener's.
func (c *told) Trouble(_ *lane.Stream, t *lane.Trouble) { c.trouble <- t }

// TestMemoryIsOfTheSizeAsked: what comes out of a pool holds what was asked for.
func TestMemoryIsOfTheSizeAsked(t *testing.T) {
	for _, n := range []int{0, 1, 1 << 10, 1<<10 + 1, 5000, 8 << 20, 8<<20 + 1} {
		for range 3 {
			b := newBytes(n)
			if len(*b) != 0 || cap(*b) < n || n > leastMemory && n <= 8<<20 && cap(*b) >= 2*n {
				t.Errorf("%d bytes of %d for %d", len(*b), cap(*b), n)
			}
			*b = append(*b, make([]byte, n)...)
			freeBytes(b)
		}
	}
	grown := append(make([]byte, 0, 3000), "no size of ours"...)
	freeBytes(&grown)
	if b := newBytes(2100); cap(*b) < 2100 || cap(*b) == 3000 {
		t.Errorf("%d bytes", cap(*b))
	}
}

// TestAStreamInTroubleBorrowsNothing, with all of the shared room to be had.
func TestAStreamInTroubleBorrowsNothing(t *testing.T) {
	const own = 32 << 10
	line := []byte(event(1, "k", 1000) + "\n")
	calls := slow(make(chan error))
	r := newRig(t, newFakeStream(t, 1), Options{Buffer: own, Shared: NewRoom(2 * own)}, calls)
	to := &told{confirmed: make(chan int, 100), trouble: make(chan *lane.Trouble, 100)}
	r.sink.to = to
	r.sink.Offer(line, lane.Segment{})
	calls <- errors.New("down")
	for tr := range to.trouble {
		if tr != nil {
			break
		}
	}
	n := 0
	for r.sink.Offer(line, lane.Segment{}) {
		n += len(line)
	}
	if n < own-2*len(line) || n > own {
		t.Errorf("in trouble it took %d bytes, and its own room is %d", n, own)
	}
	r.end()
}
