package intake

import (
	"bytes"
	"container/heap"
	"iter"
	"slices"
)

// newest keeps the newest entries seen; the oldest of them lies first.
type newest []Entry

func (h newest) Len() int           { return len(h) }
func (h newest) Less(i, j int) bool { return h[i].Time.Before(h[j].Time) }
func (h newest) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *newest) Push(x any) { *h = append(*h, x.(Entry)) }

// Pop implements heap.Interface.
func (h *newest) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

// keep takes e in where it is among the newest.
func (h *newest) keep(e Entry, limit int) {
	if limit <= 0 {
		return
	}
	heap.Push(h, e)
	if h.Len() > limit {
		heap.Pop(h)
	}
}

// sorted gives what was kept, the newest first.
func (h newest) sorted() []Entry {
	slices.SortStableFunc(h, func(a, b Entry) int { return b.Time.Compare(a.Time) })
	return h
}

// lines gives the lines of b without their newlines.
func lines(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			line, rest, _ := bytes.Cut(b, []byte{'\n'})
			if !yield(line) {
				return
			}
			b = rest
		}
	}
}
