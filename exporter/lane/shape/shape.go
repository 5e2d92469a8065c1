// Package shape turns what the journal holds of a tenant into what one sink asked for, handing the bytes through where that is everything.
package shape

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math"

	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/formats"
	"datasync/schemas"
)

// Refusal is an event that could not be shaped, and why.
type Refusal struct {
	Line   []byte // a copy
	Reason string
	Pos    journal.Position // of the event
}

// Shaper shapes chunks for one Output. It is for one goroutine at a time.
type Shaper struct {
	kinds   schemas.KindSet
	filter  *tenants.Filter
	sample  uint64 // an event passes if its hash is at or below
	fields  formats.Set
	project bool
	perLine bool
	ev      schemas.Event
	head    schemas.Head
	buf     []byte
	cur     *journal.Span // being shaped
}

// New makes the shaper of an output; filter is o.Filter compiled, nil where it
// is not at hand. Drops pick their fields as they encode; for a stream project
// is set, and the shaper does.
func New(o *tenants.Output, filter *tenants.Filter, project bool) (*Shaper, error) {
	s := &Shaper{kinds: o.Kinds, sample: math.MaxUint64}
	if o.Filter != "" {
		if filter == nil || filter.String() != o.Filter {
			var err error
			if filter, err = tenants.CompileFilter(o.Filter); err != nil {
				return nil, fmt.Errorf("compile filter: %w", err)
			}
		}
		s.filter = filter
	}
	if o.Sample < 1 {
		s.sample = uint64(o.Sample * math.MaxUint64)
	}
	if len(o.Fields) > 0 && project {
		s.fields, s.project = formats.NewSet(o.Fields), true
	}
	s.perLine = s.filter != nil || o.Sample < 1 || s.project
	return s, nil
}

// Shaped is what a chunk became.
type Shaped struct {
	// Lines are whole lines; they alias the chunk or the shaper and are good
	// until the next call.
	Lines   []byte
	Counts  state.Counts
	Refused []Refusal
}

// Shape shapes all of a chunk.
func (s *Shaper) Shape(c *journal.Chunk) Shaped {
	var out Shaped
	for _, h := range c.Holes {
		n := h.To.Events - h.From.Events
		if h.Expired {
			out.Counts.Expired += n
		} else {
			out.Counts.Damaged += n
		}
	}
	if !s.perLine && s.wantsAll(c) {
		out.Lines = c.Data
		for i := range c.Spans {
			sp := &c.Spans[i]
			lo, hi := s.times(c.Data[sp.Off:sp.Off+sp.Len], sp)
			out.Counts.Add(state.Counts{Events: uint64(sp.Events), FirstEvent: lo, LastEvent: hi})
		}
		return out
	}
	s.buf = s.buf[:0]
	for i := range c.Spans {
		s.span(c, &c.Spans[i], &out)
	}
	out.Lines = s.buf
	return out
}

func (s *Shaper) wantsAll(c *journal.Chunk) bool {
	for i := range c.Spans {
		for _, r := range c.Spans[i].Kinds {
			if !s.kinds.Has(schemas.Kind(r.Kind)) {
				return false
			}
		}
	}
	return true
}

// span shapes one span run by run.
func (s *Shaper) span(c *journal.Chunk, sp *journal.Span, out *Shaped) {
	data := c.Data[sp.Off : sp.Off+sp.Len]
	pos := sp.Start
	s.cur = sp
	for _, r := range sp.Kinds {
		run := data[:r.Bytes]
		data = data[r.Bytes:]
		switch {
		case !s.kinds.Has(schemas.Kind(r.Kind)):
			out.Counts.Filtered += uint64(r.Events)
		case s.perLine:
			s.lines(run, pos, out)
		default:
			at := len(s.buf)
			s.buf = append(s.buf, run...)
			lo, hi := s.scanTimes(s.buf[at:])
			out.Counts.Add(state.Counts{Events: uint64(r.Events), FirstEvent: lo, LastEvent: hi})
		}
		pos.Events += uint64(r.Events)
		pos.Bytes += uint64(r.Bytes)
	}
}

// lines shapes a run event by event.
func (s *Shaper) lines(run []byte, pos journal.Position, out *Shaped) {
	for len(run) > 0 {
		n := bytes.IndexByte(run, '\n') + 1
		line := run[:n-1]
		run = run[n:]
		s.line(line, pos, out)
		pos.Events++
		pos.Bytes += uint64(n)
	}
}

func (s *Shaper) line(line []byte, pos journal.Position, out *Shaped) {
	if err := schemas.Decode(line, &s.ev); err != nil {
		s.refuse(line, pos, out, fmt.Sprintf("the stored event does not decode: %v", err))
		return
	}
	if s.filter != nil {
		ok, err := s.filter.Match(&s.ev)
		if err != nil {
			s.refuse(line, pos, out, fmt.Sprintf("the sink's filter failed on this event: %v", err))
			return
		}
		if !ok {
			out.Counts.Filtered++
			return
		}
	}
	if s.sample != math.MaxUint64 && hash(s.ev.EventID) > s.sample {
		out.Counts.SampledOut++
		return
	}
	if s.project {
		s.buf = formats.Project(s.buf, line, s.fields)
	} else {
		s.buf = append(s.buf, line...)
	}
	s.buf = append(s.buf, '\n')
	out.Counts.Add(state.Counts{Events: 1, FirstEvent: s.ev.EventTime, LastEvent: s.ev.EventTime})
}

func (s *Shaper) refuse(line []byte, pos journal.Position, out *Shaped, reason string) {
	out.Counts.Refused++
	pos.Seq = seqAt(s.cur, pos.Events-s.cur.Start.Events)
	out.Refused = append(out.Refused, Refusal{Line: bytes.Clone(line), Reason: reason, Pos: pos})
}

// seqAt is the number of the span's i-th event, from 0.
func seqAt(sp *journal.Span, i uint64) feeds.Sequence {
	at := sp.Start.Seq
	for k, step := range sp.Steps {
		n := uint64(step.Count)
		if k == 0 {
			n-- // the first event counts with the first run
		}
		if i <= n {
			return at + feeds.Sequence(i*step.By)
		}
		at += feeds.Sequence(n * step.By)
		i -= n
	}
	return at
}

// times gives the first and last event time of a span: the block's own where
// the span is all of it, else they are looked up.
func (s *Shaper) times(lines []byte, sp *journal.Span) (lo, hi int64) {
	if sp.Whole {
		return sp.MinTime, sp.MaxTime
	}
	return s.scanTimes(lines)
}

func (s *Shaper) scanTimes(lines []byte) (lo, hi int64) {
	lo, hi = math.MaxInt64, 0
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n')
		if at := schemas.EventTime(lines[:n], &s.head); at != 0 {
			lo, hi = min(lo, at), max(hi, at)
		}
		lines = lines[n+1:]
	}
	return min(lo, hi), hi
}

// hash spreads event ids evenly; the same id always falls on the same side.
func hash(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
