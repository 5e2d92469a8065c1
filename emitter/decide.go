package emitter

import "time"

// Everything in this file is pure: time comes in as an argument.

// marks count bytes over the life of a Client. offered ≥ written ≥ read ≥ confirmed.
type marks struct {
	offered, written, read, confirmed uint64
}

// drained is what a drain that proved reading does to the marks: what the peer
// had read before has outlived one more rotation, unless that came in haste
// (two flushes in a row): then it counts as read now.
func (m *marks) drained(haste bool) {
	// promise: only a second drain confirms; the first proves reading, not storing.
	if !haste {
		m.confirmed = m.read
	}
	m.read = m.written
}

// rewind forgets everything after from.
func (m *marks) rewind(from uint64) {
	m.offered, m.written, m.read = from, from, min(m.read, from)
}

// pace is what a rotation is judged by.
type pace struct {
	marks        marks
	flush        uint64 // drain now when written reaches it; 0: no flush
	lastWrite    time.Time
	lastRotation time.Time // zero: none in this run
	connected    time.Time // since when there is this connection
	base         uint64    // written at the last rotation
}

// rotateAt says when the connection is to be drained; zero is never.
func rotateAt(p pace, o *Options) time.Time {
	if p.flush > p.marks.read && p.marks.written >= p.flush {
		return p.connected
	}
	if p.marks.confirmed == p.marks.written {
		return time.Time{}
	}
	since := p.lastRotation
	if since.IsZero() || since.Before(p.connected) {
		since = p.connected
	}
	at := since.Add(o.RotateEvery)
	if p.marks.written-p.base >= uint64(o.RotateBytes) {
		at = earlier(at, since.Add(o.Tuning.MinRotate))
	}
	// The peer gets Grace to store what it read, under our eyes: a connection
	// is open meanwhile. The first drain of a burst need not wait for that.
	idle := p.lastWrite.Add(o.Tuning.IdleAfter)
	grace := p.lastRotation.Add(o.Tuning.Grace)
	if p.marks.read > p.marks.confirmed {
		grace = since.Add(o.Tuning.Grace)
	}
	return earlier(at, later(idle, grace))
}

// backoff is the pause before the next attempt when the destination has been
// away for outage: an eighth of it, so that a short outage ends in seconds and a
// long one is not hammered. share in [0,1) is the jitter.
func backoff(outage time.Duration, share float64, o *Options) time.Duration {
	d := min(max(outage/8, o.Tuning.RetryMin), o.RetryMax)
	return d/2 + time.Duration(share*float64(d/2))
}

// drainTimeout grows after drains that were not answered, so that a peer that
// reads slowly is confirmed in the end instead of being sent the same for ever.
func drainTimeout(unanswered int, o *Options) time.Duration {
	return o.DrainTimeout << min(unanswered, 4)
}

type verdict uint8

const (
	alive verdict = iota
	stalled
	dead
)

// health tells a dead peer from one that takes nothing.
type health struct {
	outstanding time.Time // since when segments are unacknowledged
	progress    time.Time // when the peer's kernel last took bytes
	acked       uint64
}

// judge looks at one sample. blocked says that a write is waiting.
func (h *health) judge(now time.Time, t TCP, blocked bool, o *Options) verdict {
	if h.progress.IsZero() || t.Acked != h.acked || (!blocked && t.NotSent == 0) {
		h.progress, h.acked = now, t.Acked
	}
	if t.Unacked == 0 {
		h.outstanding = time.Time{}
	} else if h.outstanding.IsZero() {
		h.outstanding = now
	}
	switch {
	case t.Probes >= 4:
		return dead
	case !h.outstanding.IsZero() && now.Sub(h.outstanding) >= o.Tuning.DeadAfter && t.LastAck >= o.Tuning.DeadAfter:
		return dead
	case now.Sub(h.progress) >= o.Tuning.StallAfter:
		return stalled
	}
	return alive
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || (!a.IsZero() && a.Before(b)) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// station is a place in the stream: mark was offered up to it, and wire bytes
// of the connection lie before it, handshake and records' frames included.
type station struct {
	mark, wire uint64
	acked      time.Time // when it was first seen acknowledged; zero: not yet
}

// window is what is known of a connection with Confirm Window.
type window struct {
	stations []station // rising; confirmed ones are gone
	widest   uint64    // largest window that the peer offered
}

// maxStations bounds memory where little is sent over a long time.
const maxStations = 512

// note adds the place that the writer has reached.
func (w *window) note(end station) {
	if n := len(w.stations); n > 0 && w.stations[n-1].mark >= end.mark {
		return
	}
	if len(w.stations) >= maxStations { // every second will do
		n := 0
		for i := 1; i < len(w.stations); i += 2 {
			w.stations[n] = w.stations[i]
			n++
		}
		w.stations = w.stations[:n]
	}
	w.stations = append(w.stations, end)
}

// held is how far a connection came, in marks; 0 is nowhere.
type held struct{ acked, read, confirmed uint64 }

// judge looks at one sample. quiet says that nothing waits to be written.
//
// A station is read when it was acknowledged Hold ago and the peer's kernel has
// spoken since. It is confirmed when, besides, more bytes behind it were
// acknowledged than can lie unread in the peer's kernel: 1.5 times the widest
// window and 64 KiB. Where nothing comes behind the last station, time alone must
// do: twice Hold with a window nearly as wide as ever, else eight times Hold
// (kernels narrow it for reasons of their own, too).
func (w *window) judge(now time.Time, t TCP, quiet bool, o *Options) (h held) {
	w.widest = max(w.widest, t.Window)
	spoke := now.Add(-t.LastAck)
	acked := max(t.Acked, 1) - 1 // the SYN counts as one
	behind := w.widest + w.widest/2 + 64<<10
	n := len(w.stations)
	for i := range w.stations {
		if s := &w.stations[i]; s.acked.IsZero() && acked >= s.wire {
			s.acked = now
		}
	}
	tail := false
	if quiet && n > 0 && t.Unacked == 0 && t.NotSent == 0 && !w.stations[n-1].acked.IsZero() {
		wait := 8 * o.Tuning.Hold
		if t.Window >= w.widest/4*3 {
			wait = 2 * o.Tuning.Hold
		}
		tail = spoke.Sub(w.stations[n-1].acked) >= wait
	}
	gone := 0
	for _, s := range w.stations {
		if s.acked.IsZero() {
			break
		}
		h.acked = s.mark
		if spoke.Sub(s.acked) < o.Tuning.Hold {
			continue
		}
		h.read = s.mark
		// promise: with window, bytes and time together confirm, or, at the end of all, more time.
		if tail || acked-s.wire >= behind {
			h.confirmed = s.mark
			gone++
		}
	}
	w.stations = append(w.stations[:0], w.stations[gone:]...)
	return h
}
