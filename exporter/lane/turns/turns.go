package turns

import "datasync/exporter/state"

// A sink has at most one turn for each perSink that are free, all sinks of one
// place (a bucket, a folder) one for each perPlace: those that hang have a part
// of what is left, never all of it. Of n places that hang each comes to have
// about 1/(n+4) of the turns, and 4/(n+4) stay free. One in kept is for places
// that have none.
const (
	perSink  = 16
	perPlace = 4
	kept     = 16
	// looks is how many of those that wait are looked at when a turn ends.
	looks = 16
)

// Turns are turns of lanes L, taken by Ask and given back by Done. Who may not
// take one waits in here, first come first served within its sink. The caller
// holds a lock over all calls.
type Turns[L any] struct {
	all, busy int
	places    map[string]*place[L]
	waiting   []*place[L] // with sinks that wait, the one to look at first in front
}

type place[L any] struct {
	name    string
	busy    int
	sinks   map[state.Key]*sink[L]
	waiting []*sink[L]
	listed  bool // in Turns.waiting
}

type sink[L any] struct {
	key    state.Key
	busy   int
	lanes  []L
	listed bool // in place.waiting
}

// New makes n turns.
func New[L any](n int) *Turns[L] {
	return &Turns[L]{all: n, places: map[string]*place[L]{}}
}

// Ask takes a turn for a lane of a sink whose objects go to a place. False: it
// waits, and a Done gives it its turn.
func (t *Turns[L]) Ask(l L, k state.Key, name string) bool {
	p := t.places[name]
	if p == nil {
		p = &place[L]{name: name, sinks: map[state.Key]*sink[L]{}}
		t.places[name] = p
	}
	s := p.sinks[k]
	if s == nil {
		s = &sink[L]{key: k}
		p.sinks[k] = s
	}
	if len(s.lanes) == 0 && t.may(p, s) {
		t.take(p, s)
		return true
	}
	s.lanes = append(s.lanes, l)
	if !s.listed {
		s.listed = true
		p.waiting = append(p.waiting, s)
	}
	if !p.listed {
		p.listed = true
		t.waiting = append(t.waiting, p)
	}
	return false
}

// may says whether a sink may take one turn more.
func (t *Turns[L]) may(p *place[L], s *sink[L]) bool {
	free := t.all - t.busy
	return free > 0 && s.busy < share(free-t.all/kept, perSink) && p.busy < share(free-t.all/kept, perPlace)
}

func share(free, by int) int { return max(1, free/by) }

func (t *Turns[L]) take(p *place[L], s *sink[L]) {
	t.busy++
	p.busy++
	s.busy++
}

// Done gives a turn back, with the sink and the place that it was asked for,
// and gives the lanes that have theirs now. The first to be looked at are those
// of the same sink, then of the same place, then all.
func (t *Turns[L]) Done(k state.Key, name string) (next []L) {
	p := t.places[name]
	s := p.sinks[k]
	t.busy--
	p.busy--
	s.busy--
	next = t.give(p, s, next)
	next = t.serve(p, next)
	for n := min(looks, len(t.waiting)); n > 0; n-- {
		q := t.waiting[0]
		t.waiting = t.waiting[1:]
		next = t.serve(q, next)
		if q.listed = len(q.waiting) > 0; q.listed {
			t.waiting = append(t.waiting, q)
		}
		t.forget(q)
	}
	p.forget(s)
	t.forget(p)
	return next
}

// forget lets go of a place with nobody in it.
func (t *Turns[L]) forget(p *place[L]) {
	if len(p.sinks) == 0 && !p.listed {
		delete(t.places, p.name)
	}
}

func (p *place[L]) forget(s *sink[L]) {
	if s.busy == 0 && len(s.lanes) == 0 && !s.listed {
		delete(p.sinks, s.key)
	}
}

// serve gives turns to sinks of a place, to each in its turn.
func (t *Turns[L]) serve(p *place[L], next []L) []L {
	for n := min(looks, len(p.waiting)); n > 0 && p.busy < share(t.all-t.busy-t.all/kept, perPlace); n-- {
		s := p.waiting[0]
		p.waiting = p.waiting[1:]
		next = t.give(p, s, next)
		if s.listed = len(s.lanes) > 0; s.listed {
			p.waiting = append(p.waiting, s)
		}
		p.forget(s)
	}
	return next
}

// give gives a sink one turn, if one of its lanes waits and it may take it.
func (t *Turns[L]) give(p *place[L], s *sink[L], next []L) []L {
	if len(s.lanes) == 0 || !t.may(p, s) {
		return next
	}
	l := s.lanes[0]
	var none L
	s.lanes[0] = none
	s.lanes = s.lanes[1:]
	t.take(p, s)
	return append(next, l)
}
