package lane

import (
	"testing"
	"time"

	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds/journal"
	"datasync/formats"
)

// every ticks at each multiple of a duration.
type every time.Duration

func (e every) Next(t time.Time) time.Time {
	return t.Truncate(time.Duration(e)).Add(time.Duration(e))
}

func waiting(events, bytes uint64, oldest int64) backlog {
	return backlog{end: journal.Position{Seq: 1, Events: events, Bytes: bytes}, oldest: oldest}
}

func TestDecide(t *testing.T) {
	const minute = 60_000
	cron := tenants.Deliver{Schedule: every(time.Minute)}
	empty := tenants.Deliver{Schedule: every(time.Minute), Empty: true}
	aged := tenants.Deliver{MaxAge: 5 * time.Second, MaxEvents: 100, MaxBytes: 1000}
	flushing := waiting(1, 1, 5*minute+1)
	flushing.flush = true
	tried := waiting(150, 200, 5*minute)
	tried.tried = estimate{perByte: 0.1, perEvent: 0.5}
	knows := func(events, bytes uint64, est estimate) backlog {
		b := waiting(events, bytes, 5*minute)
		b.tried = est
		return b
	}
	cut, wait := decision{cut: true, at: 5*minute + 1, due: 5*minute + 5000}, decision{due: 5*minute + 5000}
	idle := backlog{fact: state.Lane{Tick: 5 * minute}}
	for _, c := range []struct {
		name string
		d    tenants.Deliver
		b    backlog
		now  int64
		want decision
	}{
		{"nothing waits", cron, backlog{}, 5 * minute, decision{}},
		{"before its tick", cron, waiting(1, 1, 5*minute+1), 5*minute + 2, decision{due: 6 * minute}},
		{"at its tick", cron, waiting(1, 1, 5*minute+1), 6 * minute, decision{cut: true, must: true, before: 6 * minute, tick: 6 * minute, at: 6 * minute}},
		{"committed at a tick belongs to the next", cron, waiting(1, 1, 6*minute), 6*minute + 1, decision{due: 7 * minute}},
		{"missed ticks are cut one by one", cron, waiting(1, 1, 5*minute+1), 90 * minute, decision{cut: true, must: true, before: 6 * minute, tick: 6 * minute, at: 6 * minute}},
		{"flush", cron, flushing, 5*minute + 2, decision{cut: true, must: true, at: 5*minute + 2}},
		{"too young", aged, waiting(1, 1, 5*minute), 5*minute + 4999, decision{due: 5*minute + 5000}},
		{"old enough", aged, waiting(1, 1, 5*minute), 5*minute + 5000, decision{cut: true, must: true, at: 5*minute + 5000}},
		{"enough events", aged, waiting(100, 1, 5*minute), 5*minute + 1, decision{cut: true, at: 5*minute + 1, due: 5*minute + 5000}},
		{"enough bytes, perhaps", aged, waiting(1, 4000, 5*minute), 5*minute + 1, decision{cut: true, at: 5*minute + 1, due: 5*minute + 5000}},
		{"tried and too little", aged, tried, 5*minute + 1, decision{due: 5*minute + 5000}},
		{"bytes as known, with what an estimate may be off", aged, knows(1, 10_000, estimate{0.1, 1, 0}), 5*minute + 1, wait},
		{"bytes as known, and a little", aged, knows(1, 10_320, estimate{0.1, 1, 0}), 5*minute + 1, cut},
		{"events of which some pass", aged, knows(201, 1, estimate{0.1, 0.5, 0}), 5*minute + 1, wait},
		{"events of which some pass, and a few", aged, knows(207, 1, estimate{0.1, 0.5, 0}), 5*minute + 1, cut},
		{"events that all pass are counted", aged, knows(100, 1, estimate{0.1, 1, 0}), 5*minute + 1, cut},
		{"nothing passed so far, but that was of half as much", aged, knows(100, 2000, estimate{1e-6, 1e-6, 1000}), 5*minute + 1, cut},
		{"nothing passed so far", aged, knows(100, 1999, estimate{1e-6, 1e-6, 1000}), 5*minute + 1, wait},
		{"twice as much, without a limit", tenants.Deliver{MaxAge: 5 * time.Second}, knows(100, 2000, estimate{1, 1, 1000}), 5*minute + 1, wait},
		{"idle without empty", cron, idle, 7 * minute, decision{}},
		{"idle with empty, before", empty, idle, 6*minute - 1, decision{due: 6 * minute}},
		{"idle with empty, at", empty, idle, 6 * minute, decision{cut: true, must: true, empty: true, before: 6 * minute, tick: 6 * minute, at: 6 * minute}},
	} {
		if got := decide(&c.d, &c.b, c.now); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestEstimates(t *testing.T) {
	var s estimates
	zstd, gzip := &tenants.Output{Compression: formats.Zstd}, &tenants.Output{Compression: formats.Gzip}
	s.note(zstd, estimate{0.05, 0.5, 1000})
	if got := s.of(zstd); got != (estimate{0.1, 1, 500}) {
		t.Errorf("%+v: for a lane that takes all it is twice as much", got)
	}
	if got := s.of(gzip); got != (estimate{}) {
		t.Errorf("of another compression: %+v", got)
	}
	for i := range 2 * maxEstimates {
		s.note(&tenants.Output{Level: i}, estimate{1, 1, 1})
	}
	if len(s.by) > maxEstimates {
		t.Errorf("%d are remembered", len(s.by))
	}
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	away := &Error{Verdict: Away}
	last := time.Duration(0)
	for n := 1; n < 40; n++ {
		d := backoff(n, away, 0.999)
		if d < last || d > retryMax+time.Millisecond {
			t.Fatalf("failure %d: %v after %v", n, d, last)
		}
		last = d
	}
	if lo, hi := backoff(3, away, 0), backoff(3, away, 0.99); lo >= hi {
		t.Errorf("no jitter: %v, %v", lo, hi)
	}
	if d := backoff(1, &Error{Verdict: Wait, After: 8 * time.Second}, 0.99); d < 4*time.Second || d > 9*time.Second {
		t.Errorf("asked to wait 8 s, waits %v", d)
	}
	if d := backoff(30, &Error{Park: true}, 0.99); d < time.Minute || d > parkedRetry+time.Millisecond {
		t.Errorf("parked, retries after %v", d)
	}
}

func TestStatusMoves(t *testing.T) {
	s := Status{State: Running}
	away := &Error{Verdict: Away, Class: Connect, Err: errTest}
	if !s.fail(away, 1000, 0) || s.State != Waiting || s.Class != Connect || s.NextRetry <= 1000 {
		t.Fatalf("after a failure: %+v", s)
	}
	if s.fail(away, 30_000, 0) || s.State != Waiting {
		t.Fatalf("after 29 s: %+v", s)
	}
	if !s.fail(away, 61_001, 0) || s.State != Suspended || s.Since != 61_001 {
		t.Fatalf("after a minute: %+v", s)
	}
	if !s.fail(&Error{Park: true, Class: Forbidden, Err: errTest}, 70_000, 0) || s.State != Parked {
		t.Fatalf("refused for good: %+v", s)
	}
	if !s.becomes(delivered, 80_000) || s.State != Running || s.Message != "" || s.NextRetry != 0 {
		t.Fatalf("well again: %+v", s)
	}
	s.State = Paused
	if s.becomes(delivered, 1) || s.State != Paused {
		t.Fatalf("a late success ended a pause: %+v", s)
	}
}
