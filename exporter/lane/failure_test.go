package lane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/journal"
)

// What goes wrong on our own disk is not told as the receiver's fault.
func TestOurOwnDiskIsNamed(t *testing.T) {
	for _, c := range []struct {
		err   error
		class Class
		hint  string
	}{
		{fmt.Errorf("spool: %w", syscall.ENOSPC), Full, "make room on the disk that holds data_dir"},
		{fmt.Errorf("record drop: %w", feeds.ErrFull), Full, "make room on the disk that holds data_dir"},
		{fmt.Errorf("record drop: %w", feeds.ErrStopped), Reset, "mend the disk that holds data_dir and restart"},
		{context.DeadlineExceeded, Timeout, ""},
		{errors.New("connection reset"), Reset, ""},
	} {
		e := failure(c.err)
		if e.Verdict != Away || e.Class != c.class || !strings.Contains(e.Error(), c.hint) || !errors.Is(e, c.err) {
			t.Errorf("%v: %s, %v", c.err, e.Class, e)
		}
	}
}

// tally is a stream's sink that takes everything and is asked how often.
type tally struct {
	taking
	n atomic.Int64
}

func (c *tally) Offer([]byte, Segment) bool {
	c.n.Add(1)
	return true
}

// TestALaneDoesNotPassWhatCannotBeKept: with a quarantine that fails, a lane
// stays before the event that its sink cannot take; with one that works, goes on.
func TestALaneDoesNotPassWhatCannotBeKept(t *testing.T) {
	filtered := func(s *tenants.Sink) { s.Output.Filter = "severity >= 0" } // reads each event
	for _, name := range []string{"drops", "lines"} {
		t.Run(name, func(t *testing.T) {
			var lines tally
			var store bucket
			sink := dropSink("acme", &store, filtered)
			if name == "lines" {
				sink = streamSink("acme", &lines)
				filtered(sink.Settings)
			}
			r := newRig(t)
			r.kept.broken = true
			k := r.begin(sink)
			b := journal.Batch{Arena: []byte("not json\n")}
			b.Events = []journal.Event{{Len: uint32(len(b.Arena)), Tenant: r.log.Tenant("acme")}}
			if _, err := r.log.Append(t.Context(), &b); err != nil {
				t.Fatal(err)
			}
			r.run()
			asked := func() bool {
				r.kept.mu.Lock()
				defer r.kept.mu.Unlock()
				return r.kept.asked > 0
			}
			v := r.until(k, "a refusal that cannot be kept", func(View) bool { return asked() && !r.atWork(k) })
			if v.Fact.Pos.Events != 0 || v.Fact.Refused != 0 || v.Status.State != Waiting || store.count() > 0 || lines.n.Load() > 0 {
				t.Fatalf("the lane went on without it: %+v", v)
			}
			r.kept.mu.Lock()
			r.kept.broken = false
			r.kept.mu.Unlock()
			if name == "lines" {
				r.until(k, "the kept refusal", func(View) bool { return lines.n.Load() > 0 })
			} else if v = r.until(k, "the kept refusal", caughtUp); v.Fact.Refused != 1 {
				t.Errorf("not counted: %+v", v.Fact)
			}
			r.kept.mu.Lock()
			defer r.kept.mu.Unlock()
			if len(r.kept.rs) != 1 || string(r.kept.rs[0].Line) != "not json" {
				t.Errorf("the quarantine holds %+v", r.kept.rs)
			}
		})
	}
}
