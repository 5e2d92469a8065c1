package bench

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// job is what a system has to do.
type job struct {
	scale
	events int
	source source
	sink   sink
}

// cost is what it took, from the first event let go to the last delivered.
type cost struct {
	took    time.Duration
	cpu     time.Duration // of the system's own process
	allocs  float64       // of the system's own process
	peak    int64         // bytes, its start included
	sum     float64       // a SHA-256 of 1 MiB about then, ms
	written int           // of the sink's unit
	ids     harness.IDs
}

// patience is how long a row may take.
const patience = 15 * time.Minute

// datasync runs the built program on a job.
func datasync(t *testing.T, j job) cost {
	t.Helper()
	s := harness.NewService(t, "")
	s.Write("datasync.yaml", fmt.Sprintf("data_dir: %s/data\nfeeds:\n%s\ntenants: %s/tenants\nadmin: {listen: %q}\n", s.Dir,
		strings.NewReplacer("{dir}", s.Dir, "{feed}", s.Feed).Replace(j.source.feed), s.Dir, s.Admin))
	s.Tenants(j.tenants, j.sink.yaml)
	s.Up(time.Minute)
	whenIdle(t, s, func() bool { return true }) // it has started, and does nothing
	if j.source.before != nil {
		j.source.before(t, s)
	} else if l, ok := s.Ledger(); !ok || l.Feeds[0].Read > 0 {
		t.Fatalf("the work was not held back: %+v", l.Feeds)
	}
	allocs := mallocs(t, s)
	began, cpu := time.Now(), s.CPU()
	var c cost
	profiled(t, s, func() {
		j.source.begin(s)
		deliver(t, s, j.events)
		c = cost{took: time.Since(began), cpu: s.CPU() - cpu, peak: s.PeakMemory()}
	})
	c.allocs = mallocs(t, s) - allocs
	l, ok := s.Ledger()
	if !ok || !l.Balanced || l.Feeds[0].Accepted != int64(j.events) {
		t.Errorf("the ledger does not balance over %d events: %+v", j.events, l)
	}
	c.written, c.ids = j.sink.count(t, s)
	s.End(false)
	return c
}

// deliver waits until the first n events are delivered.
func deliver(t *testing.T, s *harness.Service, n int) {
	t.Helper()
	flushed := false
	whenIdle(t, s, func() bool {
		l, ok := s.Ledger()
		if !ok {
			t.Fatal("no ledger")
		}
		var queued int64
		for _, k := range l.Sinks {
			queued += k.Queued
		}
		if !flushed && l.Feeds[0].Read >= int64(n) {
			flushed = true
			flush(t, s, l)
			return queued == 0
		}
		return flushed && queued == 0
	})
}

// whenIdle waits until the service uses less than half a core and ok says yes.
// It is not asked while it works, and seldom where it waits for long: an answer
// costs it time that is measured.
func whenIdle(t *testing.T, s *harness.Service, ok func() bool) {
	t.Helper()
	const look, again = 20 * time.Millisecond, 100 * time.Millisecond // and a twentieth of the time so far
	tick := time.NewTicker(look)
	defer tick.Stop()
	began, asked, was := time.Now(), time.Time{}, s.CPU()-look
	for {
		<-tick.C
		now := s.CPU()
		idle := now-was < look/2
		was = now
		if idle && time.Since(asked) > max(again, time.Since(began)/20) {
			if ok() {
				return
			}
			asked, was = time.Now(), s.CPU()
		}
		switch {
		case !s.Running():
			t.Fatalf("the service ended:\n%s", s.Output())
		case time.Since(began) > patience:
			t.Fatalf("not done within %v", patience)
		}
	}
}

// flush has every sink cut what is below its limits.
func flush(t *testing.T, s *harness.Service, l harness.Ledger) {
	t.Helper()
	for _, k := range l.Sinks {
		if k.Queued > 0 {
			act(t, s, k.Tenant+"/"+k.Sink, "flush")
		}
	}
}

// mallocs is how many objects the service allocated so far.
func mallocs(t *testing.T, s *harness.Service) float64 {
	t.Helper()
	resp, err := http.Get("http://" + s.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "go_memstats_mallocs_total "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no allocations in the metrics: %.300s", text)
	return 0
}
