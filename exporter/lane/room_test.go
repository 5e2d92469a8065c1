package lane

import "testing"

// late is a StreamSink that has room only after it refused: when asked for room,
// or, having said yes, the offer.
type late struct {
	taking
	asked   bool
	asks    int
	refused func()
}

func (s *late) Room(_, most int) int {
	if s.asks++; s.asked && s.asks == 1 {
		s.refused()
		return 0
	}
	return most
}

func (s *late) Offer([]byte, Segment) bool {
	if s.offers++; !s.asked && s.offers == 1 {
		s.refused()
		return false
	}
	return true
}

func TestRoomThatComesWithinTheTurnIsUsed(t *testing.T) {
	for _, asked := range []bool{false, true} {
		r := newRig(t)
		to := &late{asked: asked}
		sink := streamSink("acme", to)
		to.refused = func() { r.runner.Room(sink.Stream) }
		k := r.begin(sink)
		r.append("acme", 3)
		r.until(k, "events", func(v View) bool { return v.End.Events == 3 })
		r.byHand()
		r.byHand()
		if want := map[bool]int{false: 2, true: 1}[asked]; to.offers != want {
			t.Errorf("refused when asked %v: %d offers", asked, to.offers)
		}
	}
}

// crowded is a StreamSink with so much room.
type crowded struct {
	taking
	room int
	asks [][2]int
}

func (s *crowded) Room(least, most int) int {
	s.asks = append(s.asks, [2]int{least, most})
	if s.room < least {
		return 0
	}
	return min(s.room, most)
}

// TestNothingIsReadForAFullSink: what it would refuse is read again and again,
// by each of its lanes.
func TestNothingIsReadForAFullSink(t *testing.T) {
	r := newRig(t)
	to := &crowded{}
	k := r.begin(streamSink("acme", to))
	r.append("acme", 3)
	r.until(k, "events", func(v View) bool { return v.End.Events == 3 })
	bytes := int(r.runner.Views(&k)[0].End.Bytes)
	r.byHand() // and then nobody has anything to do
	if to.offers != 0 || len(to.asks) != 1 || to.asks[0] != [2]int{bytes, bytes} {
		t.Errorf("%d offers, asked for %v, want %d once", to.offers, to.asks, bytes)
	}
}

func TestNoMoreIsReadThanASinkHasRoomFor(t *testing.T) {
	r := newRig(t)
	to := &crowded{room: 100_000}
	k := r.begin(streamSink("acme", to))
	r.append("acme", 2500)
	r.until(k, "events", func(v View) bool { return v.End.Events == 2500 })
	r.byHand()
	if to.asks[0] != [2]int{32 << 10, 256 << 10} || to.largest > to.room || to.largest < to.room/2 || to.offers < 6 { // a third are requests, which it does not get
		t.Errorf("asked for %v, %d offers, the largest of %d bytes", to.asks, to.offers, to.largest)
	}
}
