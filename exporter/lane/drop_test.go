package lane

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/formats"
	"datasync/schemas"
)

// ids gives the numbers of a tenant's events in the objects, by key, and fails
// where an object is of somebody else.
func (b *bucket) ids(t *testing.T, tenant feeds.TenantID) []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	var got []int
	for _, key := range slices.Sorted(maps.Keys(b.objs)) {
		if !strings.HasSuffix(key, ".ndjson") {
			continue
		}
		for _, line := range strings.Split(strings.TrimSuffix(string(b.objs[key]), "\n"), "\n") {
			var e struct {
				ID     string `json:"event_id"`
				Tenant string `json:"tenant_id"`
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%s: %v: %q", key, err, line)
			}
			if e.Tenant != string(tenant) || !strings.Contains(key, "/tenant="+e.Tenant+"/") && !strings.HasPrefix(key, "tenant="+e.Tenant+"/") {
				t.Fatalf("%s holds an event of %s", key, e.Tenant)
			}
			var n int
			if _, err := fmt.Sscanf(strings.TrimPrefix(e.ID, string(tenant)+"-"), "%d", &n); err != nil {
				t.Fatal(err)
			}
			got = append(got, n)
		}
	}
	return got
}

// wanted are the numbers 1..n without the requests, every third.
func wanted(n int) []int {
	var w []int
	for i := 1; i <= n; i++ {
		if i%3 != 0 {
			w = append(w, i)
		}
	}
	return w
}

func TestDropsHoldEveryEventOnceInOrder(t *testing.T) {
	r := newRig(t)
	b := &bucket{}
	k := r.begin(dropSink("acme", b, func(s *tenants.Sink) { s.Deliver.MaxEvents = 10; s.Deliver.Manifest = true }))
	r.run()
	for range 20 {
		r.append("acme", 7)
		r.append("beta", 3) // nobody's business here
	}
	v := r.until(k, "end", caughtUp)
	if got, want := b.ids(t, "acme"), wanted(140); !slices.Equal(got, want) {
		t.Fatalf("got %v\nwant %v", got, want)
	}
	f := v.Fact
	if f.Delivered != uint64(len(wanted(140))) || f.Filtered != 140-f.Delivered || f.Settled() != f.Pos.Events-f.Start.Events {
		t.Errorf("the account is off: %+v", f)
	}
	checkNumbers(t, b, f.Number, 10)
}

// checkNumbers holds the drops to 1..last without a gap, each with its
// manifest, none above maxEvents.
func checkNumbers(t *testing.T, b *bucket, last uint64, maxEvents int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := 0
	for key, body := range b.objs {
		if !strings.HasSuffix(key, ".manifest.json") {
			continue
		}
		var m Manifest
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		seen++
		if m.Number < 1 || m.Number > last || int(m.Events) > maxEvents || !strings.Contains(key, fmt.Sprintf(".%012d.", m.Number)) {
			t.Errorf("%s: %+v", key, m)
		}
		if n := strings.Count(string(b.objs[m.Key]), "\n"); n != int(m.Events) || int64(len(b.objs[m.Key])) != m.Bytes {
			t.Errorf("%s tells of %d events, %d bytes; the object has %d, %d", key, m.Events, m.Bytes, n, len(b.objs[m.Key]))
		}
	}
	if uint64(seen) != last {
		t.Errorf("%d manifests for %d numbers", seen, last)
	}
}

func TestAFullDropIsCutAtExactlyMaxEvents(t *testing.T) {
	r := newRig(t)
	b := &bucket{}
	k := r.begin(dropSink("acme", b, func(s *tenants.Sink) {
		s.Output.Kinds = schemas.AllKinds
		s.Deliver = tenants.Deliver{MaxEvents: 50, MaxAge: time.Hour}
	}))
	r.run()
	for range 23 {
		r.append("acme", 10)
	}
	r.until(k, "four full drops", func(v View) bool { return v.Fact.Number == 4 })
	b.mu.Lock()
	for key, body := range b.objs {
		if n := strings.Count(string(body), "\n"); n != 50 {
			t.Errorf("%s has %d events", key, n)
		}
	}
	b.mu.Unlock()
	r.runner.Do(k, OrderFlush)
	r.until(k, "flush", caughtUp)
	if got := b.ids(t, "acme"); len(got) != 230 {
		t.Errorf("%d of 230 after a flush", len(got))
	}
}

func TestAFailedDropIsStoredOnceUnderItsKey(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("answer lost %v", lost), func(t *testing.T) {
			r := newRig(t)
			keys := map[string]bool{}
			failing := func(put int, d *Drop) error {
				keys[d.Key] = true
				if put <= 2 {
					return &Error{Verdict: Away, Class: Timeout, Err: errTest}
				}
				return nil
			}
			b := &bucket{fail: failing}
			if lost {
				b.fail, b.after = nil, failing
			}
			k := r.begin(dropSink("acme", b, nil))
			r.run()
			r.append("acme", 9)
			r.until(k, "waiting", func(v View) bool { return v.Status.State == Waiting && v.Status.Class == Timeout })
			for b.count() < 3 {
				r.runner.Do(k, OrderRetry)
			}
			v := r.until(k, "end", caughtUp)
			if !slices.Equal(b.ids(t, "acme"), wanted(9)) || len(keys) != 1 || v.Fact.Number != 1 {
				t.Errorf("ids %v, keys %v, number %d", b.ids(t, "acme"), keys, v.Fact.Number)
			}
			if v.Status.State != Running || v.Status.Message != "" {
				t.Errorf("after all it is %+v", v.Status)
			}
		})
	}
}

func (b *bucket) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.puts
}

func TestARecordedDropIsFinishedFirstAfterARestart(t *testing.T) {
	r := newRig(t)
	stored := &bucket{after: func(int, *Drop) error { return &Error{Verdict: Away, Class: Reset, Err: errTest} }}
	k := r.begin(dropSink("acme", stored, nil))
	r.run()
	r.append("acme", 9)
	r.until(k, "failure behind the put", func(v View) bool { return v.Status.State == Waiting })
	r.halt()
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	stored.after = nil
	// Other settings now: the recorded ones decide what the drop is.
	r.begin(dropSink("acme", stored, func(s *tenants.Sink) { s.Output.Kinds = schemas.AllKinds; s.Deliver.MaxEvents = 2 }))
	r.run()
	v := r.until(k, "end", caughtUp)
	if got := stored.ids(t, "acme"); !slices.Equal(got, wanted(9)) || v.Fact.Number != 1 || v.Fact.Filtered != 3 {
		t.Errorf("ids %v, fact %+v", got, v.Fact)
	}
}

func TestAForeignObjectParksTheLane(t *testing.T) {
	r := newRig(t)
	b := &bucket{fail: func(_ int, d *Drop) error {
		return &Error{Verdict: Away, Park: true, Class: Invalid, Err: fmt.Errorf("%w: %s", ErrForeign, d.Key)}
	}}
	k := r.begin(dropSink("acme", b, nil))
	r.run()
	r.append("acme", 9)
	v := r.until(k, "parked", func(v View) bool { return v.Status.State == Parked })
	if v.Fact.Pos.Events != 0 {
		t.Error("it moved on")
	}
}

func TestAPausedLaneKeepsItsEvents(t *testing.T) {
	r := newRig(t)
	b := &bucket{}
	k := r.begin(dropSink("acme", b, nil))
	r.runner.Do(k, OrderPause)
	r.run()
	r.append("acme", 9)
	v := r.until(k, "backlog", func(v View) bool { return v.End.Events == 9 })
	if v.Status.State != Paused || b.count() != 0 {
		t.Fatalf("paused, and yet %d puts, %+v", b.count(), v.Status)
	}
	r.runner.Do(k, OrderResume)
	r.until(k, "end", caughtUp)
	if !slices.Equal(b.ids(t, "acme"), wanted(9)) {
		t.Error("events are missing after the pause")
	}
}

func TestARemovedSinkGoesOnWhereItStood(t *testing.T) {
	r := newRig(t)
	b := &bucket{}
	sink := dropSink("acme", b, nil)
	k := r.begin(sink)
	r.run()
	r.append("acme", 9)
	r.until(k, "end", caughtUp)
	r.runner.Swap(k, nil, time.Now().UnixMilli())
	r.append("acme", 9)
	v := r.until(k, "backlog", func(v View) bool { return v.End.Events == 18 })
	if v.Status.State != Paused || v.Fact.Pos.Events != 9 {
		t.Fatalf("removed, and yet %+v", v)
	}
	r.runner.Swap(k, sink, 0)
	v = r.until(k, "end", caughtUp)
	if !slices.Equal(b.ids(t, "acme"), wanted(18)) || v.Fact.Number != 2 {
		t.Errorf("ids %v, number %d", b.ids(t, "acme"), v.Fact.Number)
	}
}

func TestEmptyDropsUseTheirNumbers(t *testing.T) {
	r := newRig(t)
	b := &bucket{}
	k := r.begin(dropSink("acme", b, func(s *tenants.Sink) {
		s.Deliver = tenants.Deliver{Schedule: every(100 * time.Millisecond), Manifest: true, Empty: true}
	}))
	r.run()
	v := r.until(k, "three empty drops", func(v View) bool { return v.Fact.Number >= 3 })
	r.append("acme", 3)
	v = r.until(k, "end", caughtUp)
	r.halt()
	b.mu.Lock()
	defer b.mu.Unlock()
	objects, empties := 0, 0
	for key, body := range b.objs {
		if strings.HasSuffix(key, ".ndjson") {
			objects++
		} else if strings.Contains(string(body), `"events": 0`) {
			empties++
		}
	}
	if objects != 1 || empties < 3 || v.Fact.Delivered != 2 || v.Fact.Filtered != 1 {
		t.Errorf("%d objects, %d empty manifests, %+v", objects, empties, v.Fact)
	}
}

// TestDropsOfASizeAreEncodedOnce, nearly: an attempt that finds too little costs
// what a drop costs. A lane may make some until it knows its events.
func TestDropsOfASizeAreEncodedOnce(t *testing.T) {
	for _, out := range []tenants.Output{{Format: formats.NDJSON, Compression: formats.Zstd}, {Format: formats.Parquet, Compression: formats.Zstd}} {
		t.Run(string(out.Format), func(t *testing.T) {
			r := newRig(t)
			r.noisy = true
			r.run()
			for _, tenant := range []feeds.TenantID{"acme", "beta"} {
				var store bucket
				k := r.begin(dropSink(tenant, &store, func(s *tenants.Sink) {
					s.Output.Format, s.Output.Compression = out.Format, out.Compression
					s.Deliver = tenants.Deliver{MaxAge: time.Hour, MaxBytes: 60_000}
				}))
				before := r.runner.env.encodings.Load()
				events := uint64(0)
				idle := func(v View) bool { return v.End.Events == events && !r.atWork(k) }
				for store.count() < 10 {
					if r.append(tenant, 700); events > 200_000 {
						t.Fatalf("%d drops of %d events", store.count(), events)
					}
					events += 700
					r.until(k, "rest", idle)
				}
				drops, encoded := store.count(), int(r.runner.env.encodings.Load()-before)
				if encoded-drops > 7 {
					t.Errorf("%s: %d drops were encoded in %d attempts", tenant, drops, encoded)
				}
			}
		})
	}
}

// atWork says whether a lane of a sink has a turn or waits for one.
func (r *rig) atWork(k state.Key) bool {
	r.runner.mu.Lock()
	defer r.runner.mu.Unlock()
	for _, l := range r.runner.by[k] {
		if l.busy || l.queued {
			return true
		}
	}
	return false
}
