package journal

import (
	"bytes"
	"errors"
	"io"
	"io/fs"

	"datasync/feeds"
)

// before counts the block's events that lie before seq.
func (m *blockMeta) before(seq feeds.Sequence) int {
	if seq <= m.First {
		return 0
	}
	n, at := 0, m.First // n events lie before the next step; at is the last of them
	for i, s := range m.Steps {
		count := uint64(s.Count)
		if i == 0 {
			n, count = 1, count-1
		}
		if count == 0 {
			continue
		}
		if s.By > 0 {
			if fit := uint64(seq-1-at) / s.By; fit < count {
				return n + int(fit)
			}
		}
		n += int(count)
		at += feeds.Sequence(count * s.By)
	}
	return n
}

// seqAt is the number of the block's event i.
func (m *blockMeta) seqAt(i int) feeds.Sequence {
	at := m.First
	for k, s := range m.Steps {
		count := int(s.Count)
		if k == 0 {
			count--
		}
		if i <= count {
			return at + feeds.Sequence(uint64(i)*s.By)
		}
		at += feeds.Sequence(uint64(count) * s.By)
		i -= count
	}
	return at
}

// cutSteps appends the steps of n events from event skip on.
func (m *blockMeta) cutSteps(dst []Step, skip, n int) []Step {
	if skip == 0 && n == int(m.Events) {
		return append(dst, m.Steps...)
	}
	start := len(dst)
	at := 0 // index of the event that the run's next step leads to
	left := n - 1
	for k, s := range m.Steps {
		count := int(s.Count)
		if k == 0 {
			count, at = count-1, 1
		}
		// Steps lead to events at … at+count-1; wanted are skip+1 … skip+n-1.
		from := max(at, skip+1)
		take := min(at+count-from, left)
		at += count
		if take <= 0 {
			continue
		}
		left -= take
		dst = append(dst, Step{uint32(take), s.By})
	}
	if len(dst) == start {
		return append(dst, Step{1, 1})
	}
	dst[start].Count++ // the first event counts with the first run
	return dst
}

// cutKinds appends the kind runs of n events from event skip on, which take
// size bytes from byte off on.
func (m *blockMeta) cutKinds(dst []KindRun, skip, off, n, size int) []KindRun {
	if skip == 0 && n == int(m.Events) {
		return append(dst, m.Kinds...)
	}
	return appendKinds(dst, m.Kinds, skip, off, n, size)
}

func appendKinds(dst, runs []KindRun, skip, off, n, size int) []KindRun {
	events, at := 0, 0
	for _, k := range runs {
		e0, b0 := events, at
		events += int(k.Events)
		at += int(k.Bytes)
		from, to := max(e0, skip), min(events, skip+n)
		if from >= to {
			continue
		}
		// A run that is cut ends where the cut lies; one that is whole, at its own end.
		b, e := max(b0, off), min(at, off+size)
		dst = append(dst, KindRun{k.Kind, uint32(to - from), uint32(e - b)})
	}
	return dst
}

// lineEnd is where the first n lines of p end.
func lineEnd(p []byte, n int) int {
	end := 0
	for range n {
		i := bytes.IndexByte(p[end:], '\n')
		if i < 0 {
			return len(p)
		}
		end += i + 1
	}
	return end
}

// isShort says that a file ended before what should have been there.
func isShort(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrInvalid)
}

// span is a range of a tenant's events: [from, to).
type span struct{ from, to Position }

// ranges are spans, sorted and apart from each other.
type ranges []span

// at finds the range that holds seq.
func (r ranges) at(seq feeds.Sequence) (span, bool) {
	for _, s := range r {
		if s.from.Seq <= seq && seq < s.to.Seq {
			return s, true
		}
	}
	return span{}, false
}

// next finds the first range that begins behind seq.
func (r ranges) next(seq feeds.Sequence) (span, bool) {
	for _, s := range r {
		if s.from.Seq > seq {
			return s, true
		}
	}
	return span{}, false
}

// add gives the ranges with one more, joined where they touch; r is not changed.
func (r ranges) add(n span) ranges {
	out := make(ranges, 0, len(r)+1)
	for _, s := range r {
		switch {
		case s.to.Seq < n.from.Seq:
			out = append(out, s)
		case n.to.Seq < s.from.Seq:
			out = append(out, n)
			n = s
		default:
			if s.from.Seq < n.from.Seq {
				n.from = s.from
			}
			if s.to.Seq > n.to.Seq {
				n.to = s.to
			}
		}
	}
	return append(out, n)
}

// minus gives the parts of n that no range covers.
func (r ranges) minus(n span) []span {
	var out []span
	for _, s := range r {
		if s.to.Seq <= n.from.Seq || s.from.Seq >= n.to.Seq {
			continue
		}
		if n.from.Seq < s.from.Seq {
			out = append(out, span{n.from, s.from})
		}
		n.from = s.to
	}
	if n.from.Seq < n.to.Seq {
		out = append(out, n)
	}
	return out
}

// events counts what lies in the ranges within n.
func (r ranges) events(n span) (events, size uint64) {
	for _, s := range r {
		from, to := max(s.from.Events, n.from.Events), min(s.to.Events, n.to.Events)
		if from < to {
			events += to - from
		}
		if b, e := max(s.from.Bytes, n.from.Bytes), min(s.to.Bytes, n.to.Bytes); b < e {
			size += e - b
		}
	}
	return events, size
}

func (r ranges) encode() []byte {
	var v []byte
	for _, s := range r {
		v = AppendCounts(v, uint64(s.from.Seq), s.from.Events, s.from.Bytes, uint64(s.to.Seq), s.to.Events, s.to.Bytes)
	}
	return v
}

func decodeRanges(v []byte) ranges {
	var out ranges
	for n := Counts(v); len(n) >= 6; n = n[6:] {
		out = append(out, span{Position{feeds.Sequence(n[0]), n[1], n[2]}, Position{feeds.Sequence(n[3]), n[4], n[5]}})
	}
	return out
}

// bitset is a set of small numbers.
type bitset []uint64

func (b *bitset) set(t TenantRef) {
	for int(t/64) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[t/64] |= 1 << (t % 64)
}

func (b bitset) get(t TenantRef) bool { return int(t/64) < len(b) && b[t/64]>>(t%64)&1 != 0 }
