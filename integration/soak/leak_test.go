package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// bound is how much more of something may be used later: a share, for what comes
// and goes with the faults of the moment, and so much more.
type bound struct{ share, more float64 }

// within holds the last quarter of a life to its second. One descriptor or
// goroutine that is left behind at each of 25 connections to a receiver that
// broke, or at each of some thirty drops a second, would be hundreds to thousands
// in the two and a half minutes between them. Memory moves by what collections
// left for later, and by what waits behind a fault, 150,000 events at most.
var within = map[int]bound{
	rss:         {0.25, 64},
	heap:        {0.30, 96},
	descriptors: {0.25, 80},
	goroutines:  {0.25, 150},
	journal:     {0.25, 96},
	disk:        {0.25, 96},
}

// across holds the long lives of a run's second half to those of its first, as
// far as something may grow from life to life: what is in the journal, and what
// is made of it at a start.
var across = map[int]bound{rss: {0.25, 64}, heap: {0.30, 96}, journal: {0.25, 96}, disk: {0.25, 96}}

// atRest is how many more descriptors and goroutines the service may have when
// all has arrived and its connections have ended than a new life of it has: half
// of one for each fault of five minutes.
const atRest = 15

const (
	// warm is how old a life is when it has all that it needs.
	warm = 30 * time.Second
	// long is how many samples behind that make a long life.
	long = 12
)

// most is the most that was sampled of each.
func (w *watcher) most() (m [figuresOf]float64) {
	for _, s := range w.all {
		for i, v := range s.used {
			m[i] = max(m[i], v)
		}
	}
	return m
}

// span are samples of one life, or of one age of several.
type span struct {
	name string
	of   []sample
}

// middle is the median of each figure.
func (s span) middle() (m [figuresOf]float64) {
	for i := range m {
		var vs []float64
		for _, one := range s.of {
			vs = append(vs, one.used[i])
		}
		slices.Sort(vs)
		m[i] = vs[len(vs)/2]
	}
	return m
}

func (s span) row() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-34s %4d", s.name, len(s.of))
	for _, v := range s.middle() {
		fmt.Fprintf(&b, " %14.0f", v)
	}
	return b.String()
}

// leaks holds samples to the bounds: within each long life, and from the long
// lives of a run's first half to those of its second. It gives the table of what
// it compared, and what grew.
func leaks(all []sample, lasts time.Duration) (table string, grew []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "medians of samples\n%-34s %4s", "", "n")
	for _, name := range sampled {
		fmt.Fprintf(&b, " %14s", name)
	}
	compare := func(early, late span, bounds map[int]bound) {
		b.WriteString(early.row() + late.row())
		was, is := early.middle(), late.middle()
		for _, i := range slices.Sorted(maps.Keys(bounds)) {
			bound := bounds[i]
			if most := was[i]*(1+bound.share) + bound.more; is[i] > most {
				grew = append(grew, fmt.Sprintf("%s: %s grew from %.0f (%s) to %.0f; up to %.0f is no leak", late.name, sampled[i], was[i], early.name, is[i], most))
			}
		}
	}
	lives := map[int][]sample{}
	for _, s := range all {
		if s.age > warm {
			lives[s.life] = append(lives[s.life], s)
		}
	}
	early, late := span{name: "long lives of the first half"}, span{name: "long lives of the second half"}
	for _, life := range slices.Sorted(maps.Keys(lives)) {
		of := lives[life]
		if len(of) < long {
			continue
		}
		q := len(of) / 4
		compare(span{fmt.Sprintf("life %d, second quarter", life), of[q : 2*q]}, span{fmt.Sprintf("life %d, last quarter", life), of[3*q:]}, within)
		if of[0].at < lasts/2 { // the same age of each
			early.of = append(early.of, of[:long]...)
		} else {
			late.of = append(late.of, of[:long]...)
		}
	}
	if len(early.of) > 0 && len(late.of) > 0 {
		compare(early, late, across)
	}
	return b.String(), grew
}
