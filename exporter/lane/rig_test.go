package lane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/formats"
	"datasync/schemas"
)

var errTest = errors.New("made by the test")

// rig is a journal with one shard and a runner over it, which can be crashed
// and started again over the same journal.
type rig struct {
	t      *testing.T
	dir    string
	store  *journal.Store
	log    *journal.Journal
	shard  *Shard
	runner *Runner
	stop   func()
	events map[feeds.TenantID]int
	kept   refused
	noisy  bool // events that do not compress to nothing
}

type refused struct {
	mu     sync.Mutex
	rs     []Refusal
	broken bool
	asked  int
}

func (q *refused) Refused(_ context.Context, rs []Refusal) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.asked++; q.broken {
		return errTest
	}
	q.rs = append(q.rs, rs...)
	return nil
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, dir: t.TempDir(), events: map[feeds.TenantID]int{}}
	r.open()
	t.Cleanup(func() {
		r.halt()
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) open() {
	var err error
	if r.store, err = journal.OpenStore(r.dir, journal.Options{}); err != nil {
		r.t.Fatal(err)
	}
	if r.log, err = r.store.Shard("edge-0"); err != nil {
		r.t.Fatal(err)
	}
	r.shard = &Shard{Name: "edge-0-abc123", Journal: r.log, Home: state.At(r.log)}
	spools, err := spool.NewBudget(1<<20, r.t.TempDir())
	if err != nil {
		r.t.Fatal(err)
	}
	runner := NewRunner(RunnerOptions{Spools: spools, Quarantine: &r.kept, JournalID: "abc123", Workers: 4})
	r.runner = runner
	shard := r.shard
	r.log.Subscribe(func(as []journal.Arrival) { runner.Arrived(shard, as) })
}

// begin adds the lane of a sink as its facts say it stands.
func (r *rig) begin(sink *Sink) state.Key {
	k := state.Key{Tenant: sink.Settings.Tenant, Sink: sink.Settings.Name}
	fact, _, err := r.shard.Home.Lane(k)
	if err != nil {
		r.t.Fatal(err)
	}
	drop, err := r.shard.Home.Pending(k)
	if err != nil {
		r.t.Fatal(err)
	}
	r.runner.Add(Beginning{Key: k, Shard: r.shard, Tenant: r.log.Tenant(k.Tenant), Fact: fact, Drop: drop, Sink: sink})
	return k
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	runner := r.runner
	go func() { defer close(done); runner.Run(ctx) }()
	r.stop = func() {
		sctx, scancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer scancel()
		if err := runner.Stop(sctx); err != nil {
			r.t.Error("stop:", err)
		}
		cancel()
		<-done
	}
}

func (r *rig) halt() {
	if r.stop != nil {
		r.stop()
		r.stop = nil
	}
}

// more is what an event has besides.
func (r *rig) more() string {
	if !r.noisy {
		return ""
	}
	return fmt.Sprintf(`,"user_agent":"%016x%016x%016x"`, rand.Uint64(), rand.Uint64(), rand.Uint64())
}

// append puts n events of a tenant into the journal, of rising numbers, every
// third a request.
func (r *rig) append(tenant feeds.TenantID, n int) {
	b := journal.Batch{}
	ref := r.log.Tenant(tenant)
	now := time.Now().UnixMilli()
	for range n {
		r.events[tenant]++
		i := r.events[tenant]
		kind := schemas.KindMitigation
		if i%3 == 0 {
			kind = schemas.KindRequest
		}
		line := fmt.Sprintf(`{"schema":"mitigation/1","event_id":"%s-%d","tenant_id":"%s","source":"test","kind":"%s","event_time":%d,"time_precision":"ms","ingest_time":%d,"action":"block","disposition":"blocked","enforced":true,"severity":3,"client_country":"%s"%s}`+"\n",
			tenant, i, tenant, kind, now, now, []string{"GB", "DE"}[i%2], r.more())
		b.Events = append(b.Events, journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: ref, Kind: uint8(kind), Time: now})
		b.Arena = append(b.Arena, line...)
	}
	if _, err := r.log.Append(context.Background(), &b); err != nil {
		r.t.Fatal(err)
	}
}

// until waits for a condition of a lane.
func (r *rig) until(k state.Key, what string, ok func(View) bool) View {
	r.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		vs := r.runner.Views(&k)
		if len(vs) == 1 && ok(vs[0]) {
			return vs[0]
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("no %s: %+v", what, vs)
		}
	}
}

func caughtUp(v View) bool { return v.Fact.Pos.Events == v.End.Events }

// bucket is a DropSink in memory that fails as told.
type bucket struct {
	mu    sync.Mutex
	objs  map[string][]byte
	puts  int
	fail  func(put int, d *Drop) error // before storing
	after func(put int, d *Drop) error // after storing: the answer was lost
}

func (b *bucket) Put(_ context.Context, d *Drop) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.puts++
	if b.fail != nil {
		if err := b.fail(b.puts, d); err != nil {
			return err
		}
	}
	body := make([]byte, d.Size)
	if _, err := io.ReadFull(io.NewSectionReader(d.Body, 0, d.Size), body); err != nil {
		return err
	}
	if old, ok := b.objs[d.Key]; ok {
		if !bytes.Equal(old, body) && !d.Differs {
			return &Error{Verdict: Away, Park: true, Class: Invalid, Err: fmt.Errorf("%w: %s", ErrForeign, d.Key)}
		}
	} else {
		if b.objs == nil {
			b.objs = map[string][]byte{}
		}
		b.objs[d.Key] = body
	}
	if b.after != nil {
		return b.after(b.puts, d)
	}
	return nil
}

func dropSink(tenant feeds.TenantID, b *bucket, change func(*tenants.Sink)) *Sink {
	set := &tenants.Sink{Tenant: tenant, Name: "drops", Dir: &tenants.DirSink{Path: "unused"},
		Output:  tenants.Output{Format: formats.NDJSON, Compression: formats.None, Schema: "canonical", Kinds: schemas.DefaultKinds, Sample: 1},
		Deliver: tenants.Deliver{MaxAge: 30 * time.Millisecond, MaxEvents: 1000, MaxBytes: 1 << 20}}
	if change != nil {
		change(set)
	}
	return &Sink{Settings: set, Drops: b}
}
