package kinesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"datasync/exporter/lane"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// modes are the ways to send.
var modes = map[string]Options{
	"plain":     {PartitionKey: "client_ip"},
	"ordered":   {PartitionKey: "client_ip", Ordered: true},
	"aggregate": {PartitionKey: "client_ip", Aggregate: true},
}

// plan is one run of TestWhateverFails.
type plan struct {
	Shards, Keys, Buffer  int
	Seed                  uint64
	Failing, Lose, Wholly float64
	Segments              []int // events each
	Reshard               []int
}

func drawPlan(rt *rapid.T) plan {
	p := plan{
		Shards: rapid.IntRange(1, 5).Draw(rt, "shards"), Keys: rapid.IntRange(1, 40).Draw(rt, "keys"),
		Buffer: rapid.SampledFrom([]int{500, 5_000, 1 << 20}).Draw(rt, "buffer"), Seed: rapid.Uint64().Draw(rt, "seed"),
		Failing:  rapid.SampledFrom([]float64{0, 0.1, 0.5, 0.9}).Draw(rt, "failing"),
		Lose:     rapid.SampledFrom([]float64{0, 0.2}).Draw(rt, "unanswered"),
		Wholly:   rapid.SampledFrom([]float64{0, 0.3}).Draw(rt, "whole calls fail"),
		Segments: rapid.SliceOfN(rapid.IntRange(0, 40), 1, 8).Draw(rt, "segments"),
	}
	p.Reshard = rapid.SliceOfN(rapid.IntRange(0, 5), len(p.Segments), len(p.Segments)).Draw(rt, "reshard")
	return p
}

// TestWhateverFails: records fail by themselves, calls fail as a whole, are
// stored without an answer, shards split and merge; every event is there,
// segments are confirmed in order and only when stored, order per key holds.
func TestWhateverFails(t *testing.T) {
	for name, o := range modes {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				p := drawPlan(rt)
				synctest.Test(t, func(t *testing.T) { p.run(t, o) })
				if t.Failed() {
					rt.Fatalf("%+v", p)
				}
			})
		})
	}
}

func (p plan) run(t *testing.T, o Options) {
	f := newFakeStream(t, p.Shards)
	f.Rand = rand.New(rand.NewPCG(p.Seed, 0))
	f.Failing, f.Losing = p.Failing, p.Lose
	f.Codes = []string{"ProvisionedThroughputExceededException", "InternalFailure", "KMSThrottlingException", "SomethingNew"}
	f.Whole = func() (int, string) {
		if f.Rand.Float64() >= p.Wholly {
			return 200, ""
		}
		codes := []string{"InternalFailure", "ProvisionedThroughputExceededException", "AccessDeniedException", "ResourceNotFoundException"}
		return 400, `{"__type":"` + codes[f.Rand.IntN(len(codes))] + `"}`
	}
	o.Buffer = p.Buffer
	r := newRig(t, f, o, nil)
	n := 0
	for i, events := range p.Segments {
		var lines []string
		for range events {
			n++
			lines = append(lines, event(n, fmt.Sprintf("k%d", n*n%p.Keys), n%300))
		}
		r.offer(lines)
		switch p.Reshard[i] {
		case 0:
			f.Split()
		case 1:
			f.Merge()
		}
	}
	r.allConfirmed()
	r.end()
	if len(f.have) != n {
		t.Errorf("%d events are there, %d were offered", len(f.have), n)
	}
	if r.sink.buffered != 0 || r.sink.calls != 0 {
		t.Errorf("%d bytes and %d calls are left", r.sink.buffered, r.sink.calls)
	}
	if last := r.troubles; len(last) > 0 && last[len(last)-1] != nil {
		t.Errorf("trouble is still shown: %v", last[len(last)-1].Err)
	}
	if o.Ordered {
		inOrder(t, f)
	}
}

func inOrder(t *testing.T, f *fakeStream) {
	t.Helper()
	for key, ns := range keyOrder(t, f) {
		if !slices.IsSorted(ns) {
			t.Fatalf("the events of key %s came as %v", key, ns)
		}
	}
}

// At the service's limits of a shard everything arrives, as fast as the shards
// take it where nothing else fails, and with half of all tries failing by
// themselves on top.
func TestThrottledShards(t *testing.T) {
	for _, c := range []struct {
		mode    string
		n       int
		rate    float64 // records a second and shard
		failing float64
		within  time.Duration
	}{
		{"plain", 12_000, 1000, 0, 5 * time.Second}, // 2 s at the best
		{"plain", 5_000, 1000, 0.5, time.Hour},
		{"ordered", 3_000, 1000, 0.5, time.Hour},
		{"aggregate", 3_000, 5, 0.5, time.Hour},
	} {
		t.Run(fmt.Sprintf("%s, %v failing", c.mode, c.failing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeStream(t, 4)
				f.RecordRate, f.Failing, f.Codes = c.rate, c.failing, []string{"InternalFailure", "ProvisionedThroughputExceededException"}
				o := modes[c.mode]
				o.Tuning.Linger = 100 * time.Millisecond
				r := newRig(t, f, o, nil)
				r.patience = time.Hour
				began := time.Now()
				for i := 0; i < c.n; i += 500 {
					var lines []string
					for j := range 500 {
						lines = append(lines, event(i+j, fmt.Sprintf("10.0.%d.%d", (i+j)%199, (i+j)%251), 20))
					}
					r.offer(lines)
				}
				r.allConfirmed()
				r.end()
				took := time.Since(began)
				t.Logf("%d events in %v, %d calls, %d records too early", c.n, took.Round(time.Second), f.Calls, f.Throttled)
				// With half of all failing anyway, luck may keep the rest below the limit.
				if len(f.have) != c.n || f.Throttled == 0 && c.failing == 0 || took > c.within {
					t.Errorf("%d events are there; %d were too early; it took %v, and %v is allowed", len(f.have), f.Throttled, took, c.within)
				}
				if o.Ordered {
					inOrder(t, f)
				}
			})
		})
	}
}

func TestCallsAreFull(t *testing.T) {
	f := newFakeStream(t, 2)
	r := newRig(t, f, Options{Tuning: Tuning{Linger: time.Minute}}, nil)
	var lines []string
	for i := range 1200 {
		lines = append(lines, event(i, "k", 0))
	}
	r.offer(lines)
	r.until("two calls", func() bool { f.Lock(); defer f.Unlock(); return len(f.have) == 1000 })
	if f.Calls != 2 || f.Most != 500 {
		t.Errorf("%d calls, %d records in the largest", f.Calls, f.Most)
	}
	if err := r.sink.Flush(context.Background()); err != nil || len(f.have) != 1200 || r.confirmed != 1 {
		t.Errorf("after a flush %d are there, %d segments confirmed (%v)", len(f.have), r.confirmed, err)
	}
	r.end()
}

func TestAggregationPacksManyIntoOne(t *testing.T) {
	f := newFakeStream(t, 5)
	r := newRig(t, f, Options{PartitionKey: "client_ip", Aggregate: true}, nil)
	const n = 30_000
	for i := 0; i < n; i += 1000 {
		var lines []string
		for j := range 1000 {
			lines = append(lines, event(i+j, fmt.Sprintf("10.%d.0.1", (i+j)*7919%4000), 200))
		}
		r.offer(lines)
		if i == n/2 {
			f.Split()
			f.Merge()
		}
	}
	r.allConfirmed()
	r.end()
	if len(f.have) != n || len(f.recs)*20 > n {
		t.Errorf("%d events in %d records", len(f.have), len(f.recs))
	}
	shard := map[string]map[string]bool{}
	for _, rec := range f.recs {
		if len(rec.Data) > maxAggregate {
			t.Errorf("a record of %d bytes", len(rec.Data))
		}
		for _, u := range unpack(t, rec) {
			if shard[u.Key] == nil {
				shard[u.Key] = map[string]bool{}
			}
			shard[u.Key][rec.Shard] = true
		}
	}
	for key, in := range shard {
		if len(in) > 3 { // one before the resharding, one after, one while it was learned
			t.Errorf("the events of %s are in %d shards", key, len(in))
		}
	}
}

func TestWhatTheStreamRefusesIsQuarantined(t *testing.T) {
	for _, mute := range []bool{false, true} {
		for name, o := range modes {
			t.Run(fmt.Sprintf("%s, named %v", name, !mute), func(t *testing.T) {
				f := newFakeStream(t, 3)
				f.MaxRecord, f.Mute = 60_000, mute
				r := newRig(t, f, o, nil)
				var lines []string
				for i := range 700 {
					pad := 10
					if i%100 == 42 {
						pad = 70_000
					}
					lines = append(lines, event(i, fmt.Sprint("k", i%50), pad))
				}
				lines = append(lines, event(700, "huge", maxRecord))
				r.offer(lines[:300])
				r.offer(lines[300:])
				r.allConfirmed()
				r.end()
				if len(r.refusedBy) != 8 || len(f.have) != 693 || r.counts.Refused != 8 || r.counts.Events != 693 {
					t.Errorf("%d refused, %d there, counts %+v: %v", len(r.refusedBy), len(f.have), r.counts, r.refusedBy)
				}
				for id, why := range r.refusedBy {
					if !strings.Contains(why, "refuses") && !strings.Contains(why, "more than the 1048576") {
						t.Errorf("%s: %s", id, why)
					}
				}
			})
		}
	}
}

// A stream that refuses everything is at fault itself: nothing is quarantined,
// and it goes on once mended.
func TestAStreamThatRefusesEverythingRefusesNothing(t *testing.T) {
	f := newFakeStream(t, 1)
	f.MaxRecord, f.Mute = 1, true
	r := newRig(t, f, Options{}, nil)
	r.offer([]string{event(1, "k", 0), event(2, "k", 0), event(3, "k", 0)})
	r.until("trouble", func() bool { return len(r.troubles) >= 3 })
	r.mu.Lock()
	if e := r.troubles[0].Err; e.Class != lane.Invalid || !e.Park || len(r.refusedBy) > 0 {
		t.Errorf("%+v; refused %v", e, r.refusedBy)
	}
	r.mu.Unlock()
	f.Lock()
	f.MaxRecord = 0
	f.Unlock()
	r.allConfirmed()
	if len(f.have)+len(r.refusedBy) != 3 || len(r.refusedBy) > 2 {
		t.Errorf("%v, refused %v", f.have, r.refusedBy)
	}
	r.end()
}

// While the quarantine is full the event stays, and the others go on.
func TestAQuarantineThatIsFullHoldsTheSegment(t *testing.T) {
	f := newFakeStream(t, 1)
	r := newRig(t, f, Options{}, nil)
	r.refusal = errors.New("no space")
	r.offer([]string{event(1, "k", maxRecord), event(2, "k", 0)})
	r.until("trouble", func() bool {
		return len(r.troubles) > 0 && r.troubles[0] != nil && r.troubles[0].Err.Class == lane.Full
	})
	r.mu.Lock()
	if r.confirmed > 0 {
		t.Error("confirmed without a quarantine")
	}
	r.refusal = nil
	r.mu.Unlock()
	r.allConfirmed()
	if len(r.refusedBy) != 1 || len(f.have) != 1 {
		t.Errorf("refused %v, there %v", r.refusedBy, f.have)
	}
	r.end()
}

func TestThrottlingShowsOnlyWhereNothingPasses(t *testing.T) {
	f := newFakeStream(t, 1)
	f.Failing, f.Codes = 1, []string{"ProvisionedThroughputExceededException"}
	r := newRig(t, f, Options{}, nil)
	r.offer([]string{event(1, "k", 0)})
	r.until("trouble", func() bool { return len(r.troubles) > 0 })
	r.mu.Lock()
	e := r.troubles[0]
	r.mu.Unlock()
	f.Lock()
	if e.Err.Class != lane.Throttled || e.Err.Park || e.Err.Hint == "" || f.Calls < dryCalls {
		t.Errorf("after %d calls: %+v", f.Calls, e.Err)
	}
	f.Failing = 0
	f.Unlock()
	r.allConfirmed()
	r.until("the end of the trouble", func() bool { return r.troubles[len(r.troubles)-1] == nil })
	r.end()
}

func TestCloseLosesNothingAndSaysNothingMore(t *testing.T) {
	f := newFakeStream(t, 1)
	f.Whole = func() (int, string) { return 400, `{"__type":"AccessDeniedException"}` }
	r := newRig(t, f, Options{}, nil)
	r.offer([]string{event(1, "k", 0)})
	if err := r.sink.Flush(context.Background()); err == nil || !strings.Contains(err.Error(), "kinesis:PutRecords") {
		t.Errorf("a flush that a person must help: %v", err)
	}
	r.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.confirmed != 0 {
		t.Error("confirmed what was never stored")
	}
	if r.sink.Offer([]byte("{}\n"), lane.Segment{}) {
		t.Error("a closed sink took something")
	}
}

func TestAFlushEndsWithItsContext(t *testing.T) {
	f := newFakeStream(t, 1)
	f.Failing, f.Codes = 1, []string{"InternalFailure"}
	r := newRig(t, f, Options{}, nil)
	r.offer([]string{event(1, "k", 0)})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := r.sink.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	r.end()
}
