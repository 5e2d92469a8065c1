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

func (s *late) Room(int) bool {
	if s.asks++; s.asked && s.asks == 1 {
		s.refused()
		return false
	}
	return true
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

// crowded is a StreamSink without room.
type crowded struct {
	taking
	asks []int
}

func (s *crowded) Room(n int) bool {
	s.asks = append(s.asks, n)
	return false
}

// TestNothingIsReadForAFullSink: what it would refuse is read again and again,
// by each of its lanes.
func TestNothingIsReadForAFullSink(t *testing.T) {
	r := newRig(t)
	to := &crowded{}
	k := r.begin(streamSink("acme", to))
	r.append("acme", 3)
	r.until(k, "events", func(v View) bool { return v.End.Events == 3 })
	bytes := r.runner.Views(&k)[0].End.Bytes
	r.byHand() // and then nobody has anything to do
	if to.offers != 0 || len(to.asks) != 1 || to.asks[0] != int(bytes) {
		t.Errorf("%d offers, asked for %v, want %d once", to.offers, to.asks, bytes)
	}
}
