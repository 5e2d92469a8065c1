package lane

import (
	"strings"
	"sync"
	"time"

	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds/journal"
	"datasync/formats"
)

// backlog is what a drop lane has before it, as far as it knows without reading.
type backlog struct {
	fact state.Lane
	end  journal.Position
	// oldest is when the first event at fact.Pos was committed, ms UTC.
	oldest int64
	// flush: a person asked for a cut now.
	flush bool
	// tried is what the lane's last drop came to, or an attempt that found too little.
	tried estimate
}

// A read may be ahead of the arrivals that tell of what it read.
func (b *backlog) events() uint64 { return b.end.Events - min(b.fact.Pos.Events, b.end.Events) }
func (b *backlog) bytes() uint64  { return b.end.Bytes - min(b.fact.Pos.Bytes, b.end.Bytes) }

// estimate relates what lies in the journal to what a drop of it would hold.
type estimate struct {
	perByte  float64 // encoded bytes per byte in the journal
	perEvent float64 // events in the object per event in the journal
	bytes    uint64  // in the journal, that this was learned from
}

// decision is what to do about a drop lane now.
type decision struct {
	// cut: encode now. Otherwise look again at due (ms UTC; 0: when data comes).
	cut bool
	due int64
	// before takes only what was committed before it, ms UTC; 0: all there is.
	before int64
	// tick is the schedule's tick that this cut settles.
	tick int64
	// at is the cut's time: the dt and hour of the key, ms UTC.
	at int64
	// must: cut whatever there is. Otherwise only if a limit is reached.
	must bool
	// empty: nothing is there, but the tick wants its manifest.
	empty bool
}

// decide says whether a drop is to be cut now, and by which limit.
func decide(d *tenants.Deliver, b *backlog, now int64) decision {
	if b.events() == 0 {
		return decideIdle(d, b, now)
	}
	if b.flush {
		return decision{cut: true, must: true, at: now}
	}
	due := int64(0)
	if d.Schedule != nil {
		// The tick at T takes what was committed before T.
		tick := next(d.Schedule, b.oldest)
		if tick > 0 && tick <= now {
			return decision{cut: true, must: true, before: tick, tick: tick, at: tick}
		}
		due = tick
	}
	if d.MaxAge > 0 {
		old := b.oldest + d.MaxAge.Milliseconds()
		if old <= now {
			return decision{cut: true, must: true, at: now}
		}
		due = earlier(due, old)
	}
	if full(d, b) {
		return decision{cut: true, at: now, due: due}
	}
	return decision{due: due}
}

// decideIdle is decide where no event waits: only "empty" wants ticks then.
// Ticks missed while the service was down are not made up for: a lane that is
// loaded with nothing waiting starts its ticks at that moment.
func decideIdle(d *tenants.Deliver, b *backlog, now int64) decision {
	if !d.Empty || d.Schedule == nil || b.fact.Tick == 0 {
		return decision{}
	}
	// A tick ahead of us, or far behind, is that of a clock that was set.
	tick := next(d.Schedule, max(min(b.fact.Tick, now), now-missedTicks))
	if tick == 0 || tick > now {
		return decision{due: tick}
	}
	return decision{cut: true, must: true, empty: true, before: tick, tick: tick, at: tick}
}

// missedTicks is how far back ticks with nothing in them are made up for, ms.
const missedTicks = 7 * 24 * 3600_000

// full guesses whether a size or count limit is reached. Where nothing is known
// it is early rather than late; else a little late, because an attempt that
// finds too little costs as much as the drop. But it asks again whenever twice
// as much waits: an attack may let pass what nothing passed before.
func full(d *tenants.Deliver, b *backlog) bool {
	if d.MaxEvents <= 0 && d.MaxBytes <= 0 {
		return false
	}
	est, margin := b.tried, 1+1.0/32
	if est.perEvent == 0 {
		est, margin = estimate{perByte: 0.25, perEvent: 1}, 1
	}
	events, bytes := float64(b.events())*est.perEvent, float64(b.bytes())*est.perByte
	if est.perEvent == 1 { // nothing is left out, and counting is exact
		events *= margin
	}
	return d.MaxEvents > 0 && events >= float64(d.MaxEvents)*margin || d.MaxBytes > 0 && bytes >= float64(d.MaxBytes)*margin ||
		est.bytes > 0 && b.bytes() >= 2*est.bytes
}

// estimates are what drops of one format came to, for lanes that have made none
// yet, as if all had passed.
type estimates struct {
	mu sync.Mutex
	by map[encoded]estimate
}

// encoded is what the size of an object depends on most.
type encoded struct {
	format      formats.Format
	compression formats.Compression
	level       int
	fields      string
}

func encodedAs(o *tenants.Output) encoded {
	return encoded{o.Format, o.Compression, o.Level, strings.Join(o.Fields, ",")}
}

// maxEstimates bounds how many are remembered.
const maxEstimates = 1000

func (s *estimates) note(o *tenants.Output, est estimate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by == nil || len(s.by) >= maxEstimates {
		s.by = map[encoded]estimate{}
	}
	s.by[encodedAs(o)] = estimate{perByte: est.perByte / est.perEvent, perEvent: 1, bytes: uint64(float64(est.bytes) * est.perEvent)}
}

func (s *estimates) of(o *tenants.Output) estimate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.by[encodedAs(o)]
}

func next(s tenants.Schedule, after int64) int64 {
	t := s.Next(time.UnixMilli(after))
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func earlier(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
