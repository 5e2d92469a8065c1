package emit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
	"datasync/exporter/lane"
	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// rig is a journal with two shards, a runner and an emitter sink of one tenant.
type rig struct {
	t      *testing.T
	dir    string
	rc     *emittertest.Receiver
	store  *journal.Store
	logs   [2]*journal.Journal
	shards [2]*lane.Shard
	runner *lane.Runner
	stream *lane.Stream
	stop   func()
	made   [2]int
}

var key = state.Key{Tenant: "acme", Sink: "siem"}

type nowhere struct{}

func (nowhere) Refused(context.Context, []lane.Refusal) error { return nil }

func newRig(t *testing.T, o emittertest.Options) *rig {
	r := &rig{t: t, dir: t.TempDir(), rc: emittertest.New(t, o)}
	r.open()
	t.Cleanup(func() { r.crash() })
	return r
}

// open starts the service's part of it over what the journal says.
func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.store, err = journal.OpenStore(r.dir, journal.Options{}); err != nil {
		r.t.Fatal(err)
	}
	spools, err := spool.NewBudget(1<<20, r.t.TempDir())
	if err != nil {
		r.t.Fatal(err)
	}
	runner := lane.NewRunner(lane.RunnerOptions{Spools: spools, Quarantine: nowhere{}, JournalID: r.store.ID()})
	r.runner = runner
	r.stream, err = New(Options{
		Client: emitter.Options{
			Addresses: []string{r.rc.Addr()}, TLS: emitter.TLS{CA: r.rc.Certs().CA}, RotateEvery: 60 * time.Millisecond,
			DrainTimeout: time.Second, RetryMax: 50 * time.Millisecond,
			Tuning: emitter.Tuning{IdleAfter: 30 * time.Millisecond, Grace: 30 * time.Millisecond, RetryMin: 5 * time.Millisecond, MinRotate: 10 * time.Millisecond},
		},
		Learned: func(string, string) {},
	}, runner)
	if err != nil {
		r.t.Fatal(err)
	}
	sink := &lane.Sink{Stream: r.stream, Settings: &tenants.Sink{Tenant: key.Tenant, Name: key.Sink,
		Emitter: &tenants.EmitterSink{}, Output: tenants.Output{Schema: "canonical", Kinds: schemas.DefaultKinds, Sample: 1}}}
	for i := range r.logs {
		log, err := r.store.Shard(fmt.Sprintf("edge-%d", i))
		if err != nil {
			r.t.Fatal(err)
		}
		sh := &lane.Shard{Name: fmt.Sprintf("edge-%d-x", i), Journal: log, Home: state.At(log)}
		r.logs[i], r.shards[i] = log, sh
		fact, _, err := sh.Home.Lane(key)
		if err != nil {
			r.t.Fatal(err)
		}
		log.Subscribe(func(as []journal.Arrival) { runner.Arrived(sh, as) })
		runner.Add(lane.Beginning{Key: key, Shard: sh, Tenant: log.Tenant(key.Tenant), Fact: fact, Sink: sink})
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); runner.Run(ctx) }()
	r.stop = func() { cancel(); <-done }
}

// crash ends it without a flush, as a killed process would.
func (r *rig) crash() {
	if r.stop == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := r.runner.Stop(ctx); err != nil {
		r.t.Error(err)
	}
	r.stop()
	r.stop = nil
	// The journal first: what the sink says in its end is not known any more.
	if err := r.store.Close(); err != nil {
		r.t.Error(err)
	}
	if err := r.stream.Sink.Close(); err != nil {
		r.t.Error(err)
	}
}

// append puts n events into a shard; every fifth is a request, which the sink does not want.
func (r *rig) append(shard, n int) {
	r.t.Helper()
	var b journal.Batch
	for range n {
		r.made[shard]++
		kind := schemas.KindMitigation
		if r.made[shard]%5 == 0 {
			kind = schemas.KindRequest
		}
		line := fmt.Sprintf(`{"event_id":"s%d-%d","kind":"%s","event_time":1795309107000,"pad":"%s"}`+"\n", shard, r.made[shard], kind, strings.Repeat("x", 200))
		b.Events = append(b.Events, journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: r.logs[shard].Tenant(key.Tenant), Kind: uint8(kind), Time: 1795309107000})
		b.Arena = append(b.Arena, line...)
	}
	if _, err := r.logs[shard].Append(context.Background(), &b); err != nil {
		r.t.Fatal(err)
	}
}

// settled waits until all lanes have everything confirmed.
func (r *rig) settled() []lane.View {
	r.t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		vs := r.runner.Views(&key)
		left := uint64(0)
		for _, v := range vs {
			left += v.End.Events - v.Fact.Pos.Events
		}
		if left == 0 {
			return vs
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("%d events are not confirmed: %+v", left, vs)
		}
	}
}

// check holds the receiver to: nothing missing, no foreign line, in each shard
// no event before an earlier one was there, and the accounts to the events.
func (r *rig) check(vs []lane.View) (repeats int) {
	r.t.Helper()
	seen := map[string]bool{}
	top := [2]int{}
	for _, line := range r.rc.Lines() {
		var shard, n int
		if _, err := fmt.Sscanf(line, `{"event_id":"s%d-%d"`, &shard, &n); err != nil {
			r.t.Fatalf("a broken line: %.100q", line)
		}
		id := fmt.Sprintf("%d-%d", shard, n)
		if seen[id] {
			repeats++
		} else {
			next := top[shard] + 1
			if next%5 == 0 {
				next++
			}
			if n != next {
				r.t.Fatalf("shard %d: event %d came before %d", shard, n, next)
			}
			top[shard] = n
		}
		seen[id] = true
	}
	for shard, made := range r.made {
		if want := made - made/5; len(slices.DeleteFunc(keys(seen), func(id string) bool { return !strings.HasPrefix(id, fmt.Sprint(shard)) })) != want {
			r.t.Errorf("shard %d: the receiver has not all of %d", shard, want)
		}
	}
	for _, v := range vs {
		f := v.Fact
		if f.Settled() != f.Pos.Events-f.Start.Events || f.Filtered != f.Pos.Events/5 || f.Read.Seq < f.Pos.Seq {
			r.t.Errorf("the account is off: %+v", f)
		}
	}
	return repeats
}

func keys(m map[string]bool) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	return ks
}

func TestLinesArriveOnceWithoutFaults(t *testing.T) {
	r := newRig(t, emittertest.Options{})
	for i := range 40 {
		r.append(i%2, 50)
	}
	if repeats := r.check(r.settled()); repeats != 0 {
		t.Errorf("%d repeats, and nothing broke", repeats)
	}
}

func TestOnlyFilteredEventsAreSettledToo(t *testing.T) {
	r := newRig(t, emittertest.Options{})
	r.made[0] = 4
	r.append(0, 1)
	r.settled()
	r.made[0] = 0
	if n := len(r.rc.Lines()); n != 0 {
		t.Errorf("%d lines", n)
	}
}

func TestNothingIsMissingAcrossDeaths(t *testing.T) {
	for _, death := range []emittertest.Death{emittertest.Shutdown, emittertest.Kill, emittertest.RST} {
		t.Run(fmt.Sprint(death), func(t *testing.T) {
			r := newRig(t, emittertest.Options{ReadPause: 200 * time.Microsecond, ReadSize: 4096})
			for i := range 12 {
				r.append(i%2, 200)
				switch i % 4 {
				case 1:
					r.rc.End(death)
				case 3:
					r.rc.Stop(death)
					r.append(0, 20)
					r.rc.Start()
				}
			}
			r.check(r.settled())
		})
	}
}

func TestNothingIsMissingAcrossOurOwnDeaths(t *testing.T) {
	r := newRig(t, emittertest.Options{})
	for i := range 10 {
		r.append(i%2, 300)
		if i%3 == 2 {
			r.rc.End(emittertest.Kill)
		}
		r.crash()
		r.open()
	}
	r.check(r.settled())
}

// TestAStopWithoutAnAnswer: the receiver had read, and not stored, and its host
// fell silent unnoticed; a stop in order that gets no answer begins again at what
// was confirmed.
func TestAStopWithoutAnAnswer(t *testing.T) {
	r := newRig(t, emittertest.Options{StoreAfter: 2 * time.Second})
	r.append(0, 20)
	read := func() bool { return r.runner.Views(&key)[0].Fact.ReadCounts.Events == 16 }
	for deadline := time.After(time.Minute); !read(); {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatalf("not read: %+v", r.runner.Views(&key))
		}
	}
	r.rc.Hold()
	r.append(0, 20)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := r.runner.Drain(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := r.stream.Sink.Flush(ctx); err == nil {
		t.Fatal("a receiver that stands still answered")
	}
	if err := r.stream.Sink.Close(); err != nil {
		t.Error(err)
	}
	r.crash()
	r.rc.Stop(emittertest.Kill)
	r.rc.Release()
	r.rc.Start()
	r.open()
	vs := r.settled()
	for deadline := time.After(time.Minute); len(r.rc.Lines()) < 32; {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%d lines are there", len(r.rc.Lines()))
		}
	}
	r.check(vs)
}

func TestAFullPeerHoldsNothingButItsOwnLanes(t *testing.T) {
	r := newRig(t, emittertest.Options{})
	r.rc.Hold()
	for i := range 40 {
		r.append(i%2, 500)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 100 {
		<-tick.C
	}
	for _, v := range r.runner.Views(&key) {
		if v.Fact.Pos.Events == v.End.Events {
			t.Error("confirmed, and the peer reads nothing")
		}
	}
	r.rc.Release()
	r.check(r.settled())
}
