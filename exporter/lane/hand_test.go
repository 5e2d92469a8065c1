package lane

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// ground is a journal with two shards on which many models are run one after
// another, each with a tenant of its own.
type ground struct {
	clock  atomic.Int64 // ms UTC; stands still unless the test moves it
	store  *journal.Store
	logs   [2]*journal.Journal
	told   [2]chan journal.Arrival // as the journal's writer told them
	spools *spool.Budget
	runs   int
}

func newGround(t *testing.T) *ground {
	g := &ground{}
	g.clock.Store(1_795_309_100_000)
	store, err := journal.OpenStore(t.TempDir(), journal.Options{Now: g.now, MaxBytes: 1 << 30, ReserveBytes: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	g.store = store
	for i := range g.logs {
		if g.logs[i], err = store.Shard(fmt.Sprintf("edge-%d", i)); err != nil {
			t.Fatal(err)
		}
		told := make(chan journal.Arrival, 1000)
		g.told[i] = told
		g.logs[i].Subscribe(func(as []journal.Arrival) {
			for _, a := range as {
				told <- a
			}
		})
	}
	g.store = store
	if g.spools, err = spool.NewBudget(1<<20, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *ground) now() time.Time { return time.UnixMilli(g.clock.Load()) }

// facts is a state.Log of which a crash takes an end of what was put later.
type facts struct {
	hard  map[string][]byte // durable
	soft  [][]journal.Fact  // put later, in order
	now   map[string][]byte // what holds
	gone  bool              // the process is dead: nothing counts any more
	onPut func() (durable bool, err error)
}

func set(m map[string][]byte, fs []journal.Fact) {
	for _, f := range fs {
		if len(f.Value) == 0 {
			delete(m, f.Key)
		} else {
			m[f.Key] = f.Value
		}
	}
}

func (f *facts) Put(_ context.Context, fs ...journal.Fact) error {
	durable, err := true, error(nil)
	if f.onPut != nil {
		durable, err = f.onPut()
	}
	if f.gone || !durable {
		return errors.Join(errTest, err)
	}
	f.harden(len(f.soft))
	set(f.hard, fs)
	if err == nil {
		set(f.now, fs)
	}
	return err
}

func (f *facts) PutLater(fs ...journal.Fact) {
	if !f.gone {
		f.soft = append(f.soft, fs)
		set(f.now, fs)
	}
}

func (f *facts) Fact(key string) ([]byte, bool) { v, ok := f.now[key]; return v, ok }

func (f *facts) Facts(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(f.now)) {
			if strings.HasPrefix(k, prefix) && !yield(k, f.now[k]) {
				return
			}
		}
	}
}

// harden makes the first n of what was put later durable.
func (f *facts) harden(n int) {
	for _, fs := range f.soft[:n] {
		set(f.hard, fs)
	}
	f.soft = f.soft[n:]
}

// hand turns a Runner by hand: no goroutine gives turns, no timer fires, and
// whatever happens meanwhile happens where the model says.
type hand struct {
	rapid.TB
	draw   *rapid.T // nil where nothing is left to chance
	g      *ground
	key    state.Key
	runner *Runner
	sink   *Sink
	shards [2]*Shard
	facts  [2]*facts
	made   [2]int               // events appended
	seqs   [2][]feeds.Sequence  // their numbers
	coming [2][]journal.Arrival // told and not yet handed to the runner
	chunk  int                  // bytes of the journal's answers
	broken map[string]int       // how many reads are to fail yet, by "read"
}

func newHand(t rapid.TB, draw *rapid.T, g *ground) *hand {
	g.runs++
	h := &hand{TB: t, draw: draw, g: g, key: state.Key{Tenant: feeds.TenantID(fmt.Sprintf("t%d", g.runs)), Sink: "out"}, broken: map[string]int{}}
	for i := range h.facts {
		h.facts[i] = &facts{hard: map[string][]byte{}, now: map[string][]byte{}}
	}
	return h
}

// read is the journal with short answers, which fails as told.
type read struct {
	*journal.Journal
	h *hand
}

// Read is lane.Journal's.
func (j read) Read(t journal.TenantRef, from journal.Position, o journal.ReadOptions, c *journal.Chunk) error {
	if j.h.broken["read"] > 0 {
		j.h.broken["read"]--
		return errTest
	}
	if j.h.chunk > 0 {
		o.MaxBytes = j.h.chunk
	}
	return j.Journal.Read(t, from, o, c)
}

// start begins a life over the facts; the caller adds the sink before.
func (h *hand) start() {
	h.runner = NewRunner(RunnerOptions{Spools: h.g.spools, Quarantine: &refused{}, JournalID: "abc123", Now: h.g.now})
	h.coming = [2][]journal.Arrival{} // Standing knows them
	for i, log := range h.g.logs {
		f := h.facts[i]
		f.soft, f.gone, f.now = nil, false, maps.Clone(f.hard)
		h.shards[i] = &Shard{Name: fmt.Sprintf("edge-%d-abc123", i), Journal: read{log, h}, Home: state.At(f)}
		fact, _, err := h.shards[i].Home.Lane(h.key)
		if err != nil {
			h.Fatal(err)
		}
		drop, err := h.shards[i].Home.Pending(h.key)
		if err != nil {
			h.Fatal(err)
		}
		h.runner.Add(Beginning{Key: h.key, Shard: h.shards[i], Tenant: log.Tenant(h.key.Tenant), Fact: fact, Drop: drop, Sink: h.sink})
	}
}

// crash ends the life: an end of what was put later is lost.
func (h *hand) crash() {
	for _, f := range h.facts {
		f.harden(h.below(len(f.soft)+1, "facts that survive"))
		f.gone = true
	}
}

func (h *hand) below(n int, what string) int { return rapid.IntRange(0, n-1).Draw(h.draw, what) }

// append puts n events into a shard; every third is of a kind that is not wanted.
func (h *hand) append(shard, n int) {
	log := h.g.logs[shard]
	b := journal.Batch{}
	for range n {
		h.made[shard]++
		kind := schemas.KindMitigation
		if h.made[shard]%3 == 0 {
			kind = schemas.KindRequest
		}
		line := fmt.Sprintf(`{"schema":"mitigation/1","event_id":"%d-%d","tenant_id":"%s","source":"test","kind":"%s","event_time":1795309107000,"time_precision":"ms","ingest_time":1795309107000,"action":"block","disposition":"blocked","enforced":true,"severity":3}`+"\n", shard, h.made[shard], h.key.Tenant, kind)
		b.Events = append(b.Events, journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: log.Tenant(h.key.Tenant), Kind: uint8(kind), Time: 1795309107000})
		b.Arena = append(b.Arena, line...)
	}
	got, err := log.Append(context.Background(), &b)
	if err != nil {
		h.Fatal(err)
	}
	for seq := got.First; seq <= got.Last; seq++ {
		h.seqs[shard] = append(h.seqs[shard], seq)
	}
	h.coming[shard] = append(h.coming[shard], <-h.g.told[shard])
}

// arrive hands the oldest arrival of a shard to the runner.
func (h *hand) arrive(shard int) bool {
	if len(h.coming[shard]) == 0 {
		return false
	}
	a := h.coming[shard][0]
	h.coming[shard] = h.coming[shard][1:]
	if s := h.runner.Arrived(h.shards[shard], []journal.Arrival{a}); len(s) != 0 {
		h.Fatalf("a stranger: %+v", s)
	}
	return true
}

// turn gives the next lane its turn.
func (h *hand) turn() bool {
	h.runner.mu.Lock()
	some := len(h.runner.queue) > 0
	if some {
		h.runner.first() // a model that ends in it leaves mu unlocked: no defer
	}
	h.runner.mu.Unlock()
	return some
}

// wait moves the clock to the next timer, at most by ms; false where there is none.
func (h *hand) wait(ms int64) bool {
	h.runner.mu.Lock()
	due := int64(0)
	if len(h.runner.timers) > 0 {
		due = h.runner.timers[0].due
	}
	h.runner.mu.Unlock()
	if due == 0 {
		return false
	}
	if now := h.g.clock.Load(); due > now {
		h.g.clock.Store(min(due, now+ms))
	}
	h.runner.fire()
	return true
}

// jump sets the clock, as a person or NTP does, and has the service see it.
func (h *hand) jump(d time.Duration) {
	h.runner.Tidy()
	h.g.clock.Add(d.Milliseconds())
	h.runner.Tidy()
	if err := h.g.store.Maintain(); err != nil {
		h.Fatal(err)
	}
	h.runner.fire()
}

// balance holds each lane's account to the events.
func (h *hand) balance() {
	for _, v := range h.runner.Views(&h.key) {
		f := v.Fact
		if f.Settled() != f.Pos.Events-f.Start.Events {
			h.Fatalf("%s: %d settled, and it stands at %d: %+v", v.Shard, f.Settled(), f.Pos.Events, f)
		}
		if f.Read.Events < f.Pos.Events || f.ReadCounts.Sum() != f.Read.Events-f.Pos.Events {
			h.Fatalf("%s: read to %d, settled to %d, and the counts between are %+v", v.Shard, f.Read.Events, f.Pos.Events, f.ReadCounts)
		}
	}
}

// late fails with what is left undone though nothing is under way.
func (h *hand) late() {
	h.runner.mu.Lock()
	defer h.runner.mu.Unlock()
	for _, l := range h.runner.by[h.key] {
		if l.fact.Pos.Events < l.end.Events {
			h.Fatalf("nobody will wake %s: at %d of %d, sent %d, %+v, queued %v busy %v again %v wantsRoom %v due %d", l.shard.Name,
				l.fact.Pos.Events, l.end.Events, l.sent.Events, l.status, l.queued, l.busy, l.again, l.wantsRoom, l.due)
		}
	}
}
