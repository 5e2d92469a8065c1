package emitter_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
)

// feeder is an owner in small: it keeps the lines, offers them in order, and
// goes back where it is told to. Offer and its bookkeeping are under one lock,
// which OnLost takes too; that is all an owner needs.
type feeder struct {
	t    testing.TB
	c    *emitter.Client
	line func(i int) string

	mu        sync.Mutex
	ends      []uint64 // mark at the end of each line
	limit     int      // lines to offer for now
	next      int      // next line to offer
	read      uint64
	reads     []uint64 // ends of rotations since the last loss
	flushes   int      // asked for, and no drain in haste counted against them yet
	confirmed uint64
	lost      []loss
	states    []emitter.State
	learned   []emitter.Answer
	again     int // lines offered more than once

	more    chan struct{}
	changed chan struct{} // a poke at every event; capacity 1
	quit    chan struct{}
	done    chan struct{}
}

type loss struct {
	from, read, offered uint64
	err                 error
}

// quick are times that let a test run in milliseconds.
func quick(r *emittertest.Receiver) emitter.Options {
	o := emitter.Options{
		RotateEvery:  40 * time.Millisecond,
		DrainTimeout: 2 * time.Second,
		RetryMax:     50 * time.Millisecond,
		Buffer:       256 << 10,
		Tuning: emitter.Tuning{
			IdleAfter: 10 * time.Millisecond, Grace: 25 * time.Millisecond, MinRotate: 5 * time.Millisecond,
			HealthEvery: 5 * time.Millisecond, StallAfter: 50 * time.Millisecond, RetryMin: 4 * time.Millisecond,
		},
	}
	if r != nil {
		o.Addresses, o.TLS.CA = []string{r.Addr()}, r.Certs().CA
	}
	return o
}

func testLine(i int) string {
	return fmt.Sprintf(`{"event_id":"%08d","pad":"%s"}`, i, strings.Repeat("x", 680))
}

// feed starts a client with o and a goroutine that offers up to n lines.
func feed(t testing.TB, o emitter.Options, n int) *feeder {
	t.Helper()
	return feedRefusing(t, o, n, nil)
}

// feedRefusing is feed with a place for what the peer refuses.
func feedRefusing(t testing.TB, o emitter.Options, n int, refused func([]byte, uint64, string) error) *feeder {
	t.Helper()
	f := &feeder{t: t, line: testLine, more: make(chan struct{}, 1), changed: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	o.Events = emitter.Events{
		OnRead: func(m uint64) {
			f.event(func() {
				if o.Confirm == emitter.Drain {
					f.onDrain(m)
				}
				f.read = m
			})
		},
		OnConfirmed: func(m uint64) { f.event(func() { f.confirmed = m }) },
		OnRefused:   refused,
		OnLost:      f.onLost,
		OnRoom:      func() { poke(f.more) },
		OnState:     func(s emitter.State) { f.event(func() { f.states = append(f.states, s) }) },
		OnLearned:   func(_ string, a emitter.Answer) { f.event(func() { f.learned = append(f.learned, a) }) },
	}
	c, err := emitter.New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.c = c
	f.to(n)
	go f.run()
	t.Cleanup(func() {
		select {
		case <-f.quit:
		default:
			f.stop()
		}
	})
	return f
}

func (f *feeder) stop() {
	close(f.quit)
	<-f.done
	if err := f.c.Close(); err != nil {
		f.t.Errorf("Close: %v", err)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (f *feeder) event(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	poke(f.changed)
}

// to lets the feeder offer lines up to n.
func (f *feeder) to(n int) {
	f.mu.Lock()
	f.limit = n
	f.mu.Unlock()
	poke(f.more)
}

// onDrain notes the end of a rotation. A drain that a flush asked for right
// behind another confirms nothing: it and the one before are one rotation.
func (f *feeder) onDrain(m uint64) {
	if f.read <= f.confirmed {
		f.reads = append(f.reads, m)
		return
	}
	if f.flushes--; f.flushes < 0 {
		f.t.Errorf("a drain up to %d did not confirm what was read before, %d, and no flush had asked for it in haste", m, f.read)
	}
	if n := len(f.reads); n > 0 {
		f.reads[n-1] = m
	}
}

func (f *feeder) flush(ctx context.Context) error {
	f.mu.Lock()
	f.flushes++
	f.mu.Unlock()
	return f.c.Flush(ctx)
}

func (f *feeder) onLost(from uint64, err error) {
	f.mu.Lock()
	f.lost = append(f.lost, loss{from, f.read, f.endOf(f.next), err})
	if n := len(f.reads); n >= 2 && from < f.reads[n-2] {
		f.t.Errorf("OnLost(%d) goes back further than two rotations, to before %d", from, f.reads[n-2])
	}
	f.reads = f.reads[:0]
	i := 0
	for i < f.next && f.ends[i] <= from {
		i++
	}
	if f.endOf(i) != from {
		f.t.Errorf("OnLost(%d) is inside line %d", from, i)
	}
	f.again += f.next - i
	f.next = i
	f.read = min(f.read, from)
	f.mu.Unlock()
	poke(f.changed)
}

func (f *feeder) endOf(n int) uint64 {
	if n == 0 {
		return 0
	}
	return f.ends[n-1]
}

func (f *feeder) run() {
	defer close(f.done)
	for {
		if !f.offer() {
			select {
			case <-f.more:
			case <-f.quit:
				return
			}
		}
	}
}

// offer offers the next line and says whether it was taken.
func (f *feeder) offer() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next >= f.limit {
		return false
	}
	line := f.line(f.next) + "\n"
	mark, ok := f.c.Offer([]byte(line))
	if !ok {
		return false
	}
	want := f.endOf(f.next) + uint64(len(line))
	if mark != want {
		f.t.Errorf("line %d got mark %d, want %d", f.next, mark, want)
	}
	if f.next == len(f.ends) {
		f.ends = append(f.ends, want)
	}
	if f.next++; f.next == f.limit {
		poke(f.changed)
	}
	return true
}

// wait waits until ok, asked under the feeder's lock at every event.
func (f *feeder) wait(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		f.mu.Lock()
		yes := ok()
		f.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-f.changed:
		case <-deadline.C:
			f.t.Fatalf("waited for %s: %+v", what, f.c.Status())
		}
	}
}

// allConfirmed waits until all n lines are confirmed.
func (f *feeder) allConfirmed(n int) {
	f.t.Helper()
	f.wait("all confirmed", func() bool { return len(f.ends) == n && f.confirmed == f.ends[n-1] })
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// arrived checks that lines 0..n-1 are all there, in order apart from repeats,
// and returns how many were repeats.
func arrived(t fataler, got []string, n int) (repeats int) {
	t.Helper()
	next := 0
	for at, l := range got {
		var i int
		if _, err := fmt.Sscanf(l, `{"event_id":"%d"`, &i); err != nil || testLine(i) != l {
			t.Fatalf("line %d arrived mangled: %.60q", at, l)
		}
		switch {
		case i == next:
			next++
		case i < next:
			repeats++
		default:
			t.Fatalf("line %d came before %d", i, next)
		}
	}
	if next != n {
		t.Fatalf("%d of %d lines lost, the first is %d", n-next, n, next)
	}
	return repeats
}
