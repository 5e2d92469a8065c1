package lane

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"datasync/exporter/tenants"
	"datasync/schemas"
)

// wire is a StreamSink as emit.Sink is one, with a peer at its end.
type wire struct {
	h       *hand
	stream  *Stream
	epoch   uint64
	flight  []flown
	readN   int // how many of flight are proven to be read
	offered uint64
	read    uint64 // marks
	confirm uint64

	restored []Segment
	began    bool
	room     int  // bytes that it takes yet
	wanted   bool // it refused
	trouble  bool
	calm     bool // nothing happens meanwhile any more
	peer     *peer
}

type flown struct {
	mark uint64
	seg  Segment
	line []string
}

// peer outlives our lives.
type peer struct {
	lines []string // stored
	held  []string // read in our last life and not stored yet
}

// Restore is StreamSink's.
func (w *wire) Restore(s Segment) bool {
	if w.began {
		return false
	}
	w.restored = append(w.restored, s)
	return true
}

// Room is StreamSink's. That it was there does not mean that it still is.
func (w *wire) Room(least, most int) int {
	w.meanwhile()
	room := w.room
	if least > room {
		if w.calm || w.h.below(4, "room") != 0 {
			w.wanted = true
			return 0
		}
		room = least
	}
	w.meanwhile()
	return min(room, most)
}

// Offer is StreamSink's.
func (w *wire) Offer(lines []byte, s Segment) bool {
	w.meanwhile()
	ok := w.offer(lines, s)
	w.meanwhile()
	return ok
}

func (w *wire) meanwhile() {
	for !w.calm && w.h.below(4, "meanwhile") == 0 {
		w.happen(rapid.SampledFrom(wireOps).Draw(w.h.draw, "what"))
	}
}

func (w *wire) offer(lines []byte, s Segment) bool {
	if !w.began {
		w.began = true
		if len(w.restored) > 0 {
			w.offered, w.read = 1, 1
			for _, r := range w.restored {
				w.flight = append(w.flight, flown{1, r, nil})
			}
			w.readN = len(w.flight)
			w.flight[0].line = w.peer.held
		}
		w.peer.held = nil
	}
	if s.Epoch != w.epoch {
		return false
	}
	if len(lines) > w.room {
		w.wanted = true
		return false
	}
	w.room -= len(lines)
	w.offered += uint64(len(lines))
	w.flight = append(w.flight, flown{w.offered, s, strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n")})
	if len(lines) == 0 {
		w.flight[len(w.flight)-1].line = nil
		if len(w.flight) == 1 {
			w.flight = nil
			w.h.runner.Confirmed([]Segment{s})
		}
	}
	return true
}

// Flush and Close are StreamSink's.
func (w *wire) Flush(context.Context) error { return nil }

// Close is StreamSink's.
func (w *wire) Close() error { return nil }

var wireOps = []string{"drain", "break", "die", "room", "trouble", "well", "arrive", "arrive", "append"}

// happen is what the connection, the peer or the journal does.
func (w *wire) happen(what string) {
	switch shard := w.h.below(2, "shard"); what {
	case "drain":
		w.drain(w.h.below(len(w.flight)+1, "read of it"))
	case "break": // it ends in order: what was read is read
		w.lose(w.read)
	case "die": // what the peer read and had not stored is lost with it
		w.lose(w.confirm)
		for _, f := range w.h.facts { // that both die within half a second is beyond the promise
			f.harden(len(f.soft))
		}
	case "room":
		w.room = w.h.below(3000, "room")
		if w.wanted {
			w.wanted = false
			w.h.runner.Room(w.stream)
		}
	case "trouble":
		w.trouble = true
		w.h.runner.Trouble(w.stream, &Trouble{Err: &Error{Verdict: Away, Class: Connect, Err: errTest}})
	case "well":
		w.trouble = false
		w.h.runner.Trouble(w.stream, nil)
	case "arrive":
		w.h.arrive(shard)
	case "append":
		w.h.append(shard, 1+w.h.below(8, "events"))
	}
}

// drain confirms what was read and proves n of flight to be read.
func (w *wire) drain(n int) {
	if !w.began {
		return
	}
	w.confirm = w.read
	if n > 0 {
		w.read = max(w.read, w.flight[n-1].mark)
	}
	n = 0
	var segs []Segment
	for ; n < len(w.flight) && w.flight[n].mark <= w.confirm; n++ {
		segs = append(segs, w.flight[n].seg)
		w.peer.lines = append(w.peer.lines, w.flight[n].line...)
	}
	w.flight = w.flight[n:]
	w.readN = max(w.readN-n, 0)
	if len(segs) > 0 {
		w.h.runner.Confirmed(segs)
	}
	segs = nil
	for ; w.readN < len(w.flight) && w.flight[w.readN].mark <= w.read; w.readN++ {
		segs = append(segs, w.flight[w.readN].seg)
	}
	if len(segs) > 0 {
		w.h.runner.Read(segs)
	}
}

// lose ends the connection. Of what is lost the peer may have kept a beginning.
func (w *wire) lose(from uint64) {
	if !w.began || w.offered == from {
		return
	}
	n := len(w.flight)
	for n > 0 && w.flight[n-1].mark > from {
		n--
	}
	w.keep(n, w.h.below(len(w.flight)-n+1, "kept all the same"))
	var segs []Segment
	for _, f := range w.flight[n:] {
		segs = append(segs, f.seg)
	}
	w.flight = w.flight[:n]
	w.readN = min(w.readN, n)
	w.offered, w.read, w.wanted = from, min(w.read, from), false
	w.epoch++
	w.h.runner.Lost(w.stream, w.epoch, segs)
	w.h.runner.Room(w.stream)
}

// keep puts what lies before and the first of what is lost into the peer's
// hands for good; what lies before is put there once more when it is confirmed,
// so it is forgotten here.
func (w *wire) keep(before, more int) {
	for i := range w.flight[:before+more] {
		w.peer.lines = append(w.peer.lines, w.flight[i].line...)
		if i < before {
			w.flight[i].line = nil
		}
	}
}

// abandon is our death: the peer has what it read, and perhaps more.
func (w *wire) abandon() {
	if !w.began {
		return
	}
	if more := w.h.below(len(w.flight)-w.readN+1, "more on the peer's side"); more > 0 {
		w.keep(0, w.readN+more)
		return
	}
	for _, f := range w.flight[:w.readN] {
		w.peer.held = append(w.peer.held, f.line...)
	}
}

// wire begins a life with a wire to the same peer.
func (h *hand) wire(p *peer) *wire {
	w := &wire{h: h, room: 1500, peer: p}
	w.stream = &Stream{Sink: w}
	h.sink = &Sink{Stream: w.stream, Settings: &tenants.Sink{Tenant: h.key.Tenant, Name: h.key.Sink,
		Emitter: &tenants.EmitterSink{}, Output: tenants.Output{Schema: "canonical", Kinds: schemas.DefaultKinds, Sample: 1}}}
	h.start()
	return w
}

func TestStreamsLoseNothingWhateverHappens(t *testing.T) {
	g := newGround(t)
	rapid.Check(t, func(t *rapid.T) {
		h := newHand(t, t, g)
		h.chunk = rapid.SampledFrom([]int{1, 700, 1 << 20}).Draw(t, "chunk")
		p := &peer{}
		h.append(0, 3) // the shards know the tenant
		h.append(1, 3)
		w := h.wire(p)
		ops := append([]string{"turn", "turn", "turn", "turn", "restart", "pause", "resume", "swap", "unreadable", "wait"}, wireOps...)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch op := rapid.SampledFrom(ops).Draw(t, "op"); op {
			case "turn":
				h.turn()
			case "restart":
				h.crash()
				w.abandon()
				w = h.wire(p)
			case "pause":
				h.runner.Do(h.key, OrderPause)
			case "resume":
				h.runner.Do(h.key, OrderResume)
			case "swap": // other settings, the same connection
				h.runner.Swap(h.key, h.sink, 0)
			case "unreadable":
				h.broken["read"] = 1
			case "wait":
				h.wait(10_000)
			default:
				w.happen(op)
			}
			h.balance()
		}
		w.settle()
		h.balance()
		h.late()
		w.check()
	})
}

// settle lets everything go well until nothing happens any more. It wakes no
// lane but as the connection would.
func (w *wire) settle() {
	h := w.h
	h.broken["read"] = 0
	w.calm = true
	if h.runner.Views(&h.key)[0].Status.State == Paused {
		h.runner.Do(h.key, OrderResume)
	}
	for range 1000 {
		for h.arrive(0) || h.arrive(1) {
		}
		w.room = 1 << 20
		if w.wanted {
			w.wanted = false
			h.runner.Room(w.stream)
		}
		for h.turn() {
		}
		if len(w.flight) > 0 { // only a connection with something on its way comes to be well
			if w.trouble {
				w.happen("well")
			}
			w.drain(len(w.flight))
			continue
		}
		if !h.wait(1 << 40) {
			return
		}
	}
	h.Fatal("it comes to no end")
}

// check holds the peer to: nothing missing, and no event before an earlier one
// was there.
func (w *wire) check() {
	for shard, made := range w.h.made {
		top := 0
		for _, line := range w.peer.lines {
			var s, n int
			if _, err := fmt.Sscanf(line[strings.Index(line, `"event_id":"`):], `"event_id":"%d-%d"`, &s, &n); err != nil {
				w.h.Fatalf("%v: %q", err, line)
			}
			if s != shard || n <= top {
				continue
			}
			next := top + 1
			if next%3 == 0 {
				next++
			}
			if n != next {
				w.h.Fatalf("shard %d: event %d came before %d", shard, n, next)
			}
			top = n
		}
		if want := made - max(0, 1-made%3); top != want {
			w.h.Fatalf("shard %d: the peer has events up to %d, not %d", shard, top, want)
		}
	}
	for i, v := range w.h.runner.Views(&w.h.key) {
		made := uint64(w.h.made[i])
		if v.Status.State != Running && !w.trouble {
			w.h.Fatalf("%s: nothing is wrong, and it is %+v", v.Shard, v.Status)
		}
		if v.Fact.Filtered != made/3 || v.Fact.Delivered != made-made/3 {
			w.h.Fatalf("%s: of %d events, %+v", v.Shard, made, v.Fact)
		}
	}
}
