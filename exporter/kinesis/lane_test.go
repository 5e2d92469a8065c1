package kinesis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/exporter/lane"
	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// kept is a quarantine in memory.
type kept struct {
	mu sync.Mutex
	rs []lane.Refusal
}

// Refused is lane.Quarantine's.
func (k *kept) Refused(_ context.Context, rs []lane.Refusal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range rs {
		r.Line = []byte(string(r.Line))
		k.rs = append(k.rs, r)
	}
	return nil
}

// life is one life of a journal, a Runner and a sink.
type life struct {
	t      *testing.T
	store  *journal.Store
	log    *journal.Journal
	runner *lane.Runner
	sink   *Sink
	cancel context.CancelFunc
	ended  chan struct{}
}

var key = state.Key{Tenant: "acme", Sink: "stream"}

func live(t *testing.T, dir string, f *fakeStream, q *kept) *life {
	l := &life{t: t, ended: make(chan struct{})}
	var err error
	if l.store, err = journal.OpenStore(dir, journal.Options{}); err != nil {
		t.Fatal(err)
	}
	if l.log, err = l.store.Shard("edge-0"); err != nil {
		t.Fatal(err)
	}
	spools, err := spool.NewBudget(1<<20, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l.runner = lane.NewRunner(lane.RunnerOptions{Spools: spools, Quarantine: q, JournalID: l.store.ID()})
	l.sink = newSink(Options{Stream: f.Name, Tuning: quick, Buffer: 64 << 10}, l.runner, direct{f})
	sh := &lane.Shard{Name: "edge-0-x", Journal: l.log, Home: state.At(l.log)}
	fact, _, err := sh.Home.Lane(key)
	if err != nil {
		t.Fatal(err)
	}
	l.log.Subscribe(func(as []journal.Arrival) { l.runner.Arrived(sh, as) })
	l.runner.Add(lane.Beginning{Key: key, Shard: sh, Tenant: l.log.Tenant(key.Tenant), Fact: fact, Sink: &lane.Sink{Stream: l.sink.stream,
		Settings: &tenants.Sink{Tenant: key.Tenant, Name: key.Sink, Kinesis: &tenants.KinesisSink{},
			Output: tenants.Output{Schema: "canonical", Kinds: schemas.DefaultKinds, Sample: 1}}}})
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() { defer close(l.ended); l.runner.Run(ctx) }()
	return l
}

// die ends it without a flush.
func (l *life) die() {
	l.t.Helper()
	if err := l.sink.Close(); err != nil {
		l.t.Error(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := l.runner.Stop(ctx); err != nil {
		l.t.Error(err)
	}
	l.cancel()
	<-l.ended
	if err := l.store.Close(); err != nil {
		l.t.Error(err)
	}
}

func (l *life) append(first, n int) {
	l.t.Helper()
	var b journal.Batch
	for i := first; i < first+n; i++ {
		kind, pad := schemas.KindMitigation, 100
		switch {
		case i%10 == 0:
			kind = schemas.KindRequest
		case i%100 == 55:
			pad = 5000
		}
		line := fmt.Sprintf(`{"event_id":"e%d","kind":"%s","event_time":1795309107000,"pad":"%s"}`+"\n", i, kind, strings.Repeat("x", pad))
		b.Events = append(b.Events, journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: l.log.Tenant(key.Tenant), Kind: uint8(kind), Time: 1795309107000})
		b.Arena = append(b.Arena, line...)
	}
	if _, err := l.log.Append(context.Background(), &b); err != nil {
		l.t.Fatal(err)
	}
}

// Over a journal and a Runner, with lives cut off in the middle, the ledger
// balances: delivered, filtered, refused and in the quarantine.
func TestLedgerBalancesOverManyLives(t *testing.T) {
	f := newFakeStream(t, 2)
	f.MaxRecord, f.Failing, f.Codes = 3000, 0.3, []string{"InternalFailure"}
	q := &kept{}
	dir := t.TempDir()
	for i := range 5 {
		l := live(t, dir, f, q)
		l.append(i*2000, 2000)
		l.die()
	}
	l := live(t, dir, f, q)
	defer l.die()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var fact state.Lane
	for fact.Settled() < 10_000 {
		select {
		case <-tick.C:
			fact = l.runner.Views(&key)[0].Fact
		case <-deadline:
			t.Fatalf("after 20 s: %+v", fact)
		}
	}
	if fact.Filtered != 1000 || fact.Refused != 100 || fact.Delivered != 8900 {
		t.Errorf("the ledger says %+v", fact)
	}
	f.Lock()
	defer f.Unlock()
	if len(f.have) != 8900 {
		t.Errorf("%d events are there, want 8900", len(f.have))
	}
	refused := map[string]bool{}
	for _, r := range q.rs {
		refused[string(scalar(r.Line, member("event_id")))] = true
		if r.Key != key || r.Shard != "edge-0-x" || !strings.Contains(r.Reason, "records.") {
			t.Fatalf("quarantined %+v", r)
		}
	}
	if len(refused) != 100 {
		t.Errorf("%d events are in the quarantine, want 100", len(refused))
	}
}
