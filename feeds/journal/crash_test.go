package journal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/feeds/journal/journaltest"
)

// crashRun is a workload against a file system that stops at some call.
type crashRun struct {
	acked    map[feeds.TenantID][]string
	inFlight map[feeds.TenantID][]string // of the append that did not return nil
	counter  uint64                      // acknowledged additions to the fact "n"
}

// work appends, puts, releases and maintains until something fails.
func (c *crashRun) work(fs *journaltest.CrashFS, rounds int) {
	s, err := journal.OpenStore("d", journal.Options{FS: fs, SegmentBytes: 8 << 10, MaxBytes: 1 << 20, ReserveBytes: 4096,
		Retain: time.Nanosecond, Now: func() time.Time { return time.UnixMilli(int64(1e12) + int64(fs.Ops())) }})
	if err != nil {
		return
	}
	defer func() { _ = s.Close() }()
	j, err := s.Shard("s")
	if err != nil {
		return
	}
	for round := range rounds {
		b := &journal.Batch{Facts: []journal.Fact{{Key: "n", Value: journal.AppendCounts(nil, 1), Add: true}}}
		c.inFlight = map[feeds.TenantID][]string{}
		for i := range 12 {
			id := feeds.TenantID(fmt.Sprintf("t%d", i%4))
			line := fmt.Sprintf("{\"round\":%d,\"i\":%d,\"pad\":%q}\n", round, i, strings.Repeat("p", 90))
			b.Events = append(b.Events, journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: j.Tenant(id)})
			b.Arena = append(b.Arena, line...)
			c.inFlight[id] = append(c.inFlight[id], line)
		}
		if _, err := j.Append(context.Background(), b); err != nil {
			return
		}
		for id, lines := range c.inFlight {
			c.acked[id] = append(c.acked[id], lines...)
		}
		c.inFlight = nil
		c.counter++
		if round%5 == 4 {
			// t0 is far behind, the others have passed: segments are rewritten or go.
			for _, id := range []feeds.TenantID{"t1", "t2", "t3"} {
				j.Release(j.Tenant(id), j.Standing(j.Tenant(id)).End)
			}
			if s.Maintain() != nil {
				return
			}
		}
	}
}

// check opens what the crash left and compares.
func (c *crashRun) check(t *testing.T, fs *journaltest.CrashFS, at int) {
	t.Helper()
	var reports []journal.Incident
	s, err := journal.OpenStore("d", journal.Options{FS: fs, SegmentBytes: 8 << 10, MaxBytes: 1 << 20, ReserveBytes: 4096,
		Now:    func() time.Time { return time.UnixMilli(2e12) },
		Report: func(i journal.Incident) { reports = append(reports, i) }})
	if err != nil {
		t.Fatalf("crash at %d: open: %v", at, err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	j, err := s.Shard("s")
	if err != nil {
		t.Fatalf("crash at %d: open: %v", at, err)
	}
	for _, i := range reports {
		if i.What == "damage" {
			t.Fatalf("crash at %d: nothing was damaged, but: %+v", at, i)
		}
	}
	n := uint64(0)
	if v, ok := j.Fact("n"); ok {
		n = journal.Counts(v)[0]
	}
	if n != c.counter && !(c.inFlight != nil && n == c.counter+1) {
		t.Fatalf("crash at %d: counter is %d, acknowledged %d", at, n, c.counter)
	}
	for i := range 4 {
		id := feeds.TenantID(fmt.Sprintf("t%d", i))
		want := c.acked[id]
		if n > c.counter {
			want = append(want, c.inFlight[id]...)
		}
		got, missing := readLines(t, j, id)
		if i == 0 && missing > 0 {
			t.Fatalf("crash at %d: %d events of t0 are gone, which nobody released", at, missing)
		}
		if missing+len(got) != len(want) || strings.Join(got, "") != strings.Join(want[missing:], "") {
			t.Fatalf("crash at %d: %s has %d lines and %d expired, want %d", at, id, len(got), missing, len(want))
		}
	}
	// And it goes on.
	if err := j.Put(context.Background(), journal.Fact{Key: "again", Value: []byte("1")}); err != nil {
		t.Fatalf("crash at %d: %v", at, err)
	}
}

// readLines reads all that is kept of a tenant; missing counts expired events,
// which lie at the front. A pass of maintenance may expire events under the
// reader, in the middle of what it has: then it reads again.
func readLines(t *testing.T, j *journal.Journal, id feeds.TenantID) (lines []string, missing int) {
	t.Helper()
	for range 20 {
		var whole bool
		if lines, missing, whole = readOnce(t, j, id); whole {
			return lines, missing
		}
	}
	t.Fatalf("%s: holes behind lines, again and again", id)
	return nil, 0
}

func readOnce(t *testing.T, j *journal.Journal, id feeds.TenantID) (lines []string, missing int, whole bool) {
	t.Helper()
	var c journal.Chunk
	for p := (journal.Position{}); ; p = c.Next {
		if err := j.Read(j.Tenant(id), p, journal.ReadOptions{MaxBytes: 700}, &c); err != nil {
			t.Fatal(err)
		}
		for _, h := range c.Holes {
			if !h.Expired {
				t.Fatalf("%s: hole %+v", id, h)
			}
			if int(h.From.Events) != missing || len(lines) > 0 {
				return nil, 0, false
			}
			missing += int(h.To.Events - h.From.Events)
		}
		for l := range strings.Lines(string(c.Data)) {
			lines = append(lines, l)
		}
		if !c.More {
			return lines, missing, true
		}
	}
}

// TestCrashAtEveryCall cuts the power before every call that changes the disk;
// only what was synced survives, and a random part of the rest.
func TestCrashAtEveryCall(t *testing.T) {
	const rounds = 22
	whole := journaltest.NewCrashFS(1)
	(&crashRun{acked: map[feeds.TenantID][]string{}}).work(whole, rounds)
	total := whole.Ops()
	if total < 60 {
		t.Fatalf("the workload made only %d calls", total)
	}
	seed := rand.Uint64()
	t.Logf("seed %d, %d calls", seed, total)
	for at := 1; at <= total+1; at++ {
		for luck := range uint64(3) {
			fs := journaltest.NewCrashFS(seed + luck)
			fs.StopAt(at)
			run := &crashRun{acked: map[feeds.TenantID][]string{}}
			run.work(fs, rounds)
			next := fs.Reboot()
			run.check(t, next, at)
			run.check(t, next.Reboot(), at) // and again, after a crash of the recovered
		}
	}
}
