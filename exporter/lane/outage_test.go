package lane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// outage is a day in virtual time: many lanes over a real journal, turned by
// hand, of which every tenth has a destination that is away.
type outage struct {
	*ground
	t      *testing.T
	runner *Runner
	shard  *Shard
	lanes  []state.Key
	stores []*counting
	away   bool
	sent   []int // events a lane
	order  []int // lanes, as they stored drops
}

// counting is a destination that keeps only counts.
type counting struct {
	o      *outage
	lane   int
	dead   bool
	events uint64
}

// table is a state.Log in memory: a sync for each turn, one at a time, would
// make the day last a day.
type table map[string][]byte

// Put is state.Log's.
func (m table) Put(_ context.Context, fs ...journal.Fact) error {
	set(m, fs)
	return nil
}

// PutLater is state.Log's.
func (m table) PutLater(fs ...journal.Fact) { set(m, fs) }

// Fact is state.Log's.
func (m table) Fact(key string) ([]byte, bool) { v, ok := m[key]; return v, ok }

// Facts is state.Log's.
func (m table) Facts(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for k, v := range m {
			if strings.HasPrefix(k, prefix) && !yield(k, v) {
				return
			}
		}
	}
}

var errAway = errors.New("away for a day")

// Put is lane.DropSink's.
func (c *counting) Put(_ context.Context, d *Drop) error {
	if c.dead && c.o.away {
		return &Error{Verdict: Away, Class: Timeout, Err: errAway}
	}
	body := make([]byte, d.Size)
	if _, err := d.Body.ReadAt(body, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	c.events += uint64(bytes.Count(body, []byte{'\n'}))
	c.o.order = append(c.o.order, c.lane)
	return nil
}

func newOutage(t *testing.T, lanes int) *outage {
	o := &outage{ground: newGround(t), t: t, away: true, sent: make([]int, lanes)}
	log := o.logs[0]
	var err error
	if o.spools, err = spool.NewBudget(1<<20, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	o.shard = &Shard{Name: "edge-0-abc123", Journal: log, Home: state.At(table{})}
	o.runner = NewRunner(RunnerOptions{Spools: o.spools, Quarantine: &refused{}, JournalID: "abc123", Now: o.now})
	for i := range lanes {
		c := &counting{o: o, lane: i, dead: i%10 == 3}
		sink := dropSink(feeds.TenantID(fmt.Sprintf("t%05d", i)), nil, func(s *tenants.Sink) {
			s.Deliver = tenants.Deliver{MaxAge: 5 * time.Minute, MaxEvents: 100, MaxBytes: 1 << 20}
		})
		sink.Drops = c
		k := state.Key{Tenant: sink.Settings.Tenant, Sink: "drops"}
		o.lanes, o.stores = append(o.lanes, k), append(o.stores, c)
		o.runner.Add(Beginning{Key: k, Shard: o.shard, Tenant: log.Tenant(k.Tenant), Sink: sink})
	}
	return o
}

// append gives events to lanes, as many at once as ground holds arrivals of.
func (o *outage) append(lanes []int) {
	for some := range slices.Chunk(lanes, cap(o.told[0])) {
		o.commit(some)
	}
}

// commit appends an event of each lane, and tells the runner.
func (o *outage) commit(lanes []int) {
	b := journal.Batch{}
	now := o.now().UnixMilli()
	for _, i := range lanes {
		o.sent[i]++
		line := fmt.Sprintf(`{"event_id":"%d-%d","tenant_id":"%s","kind":"mitigation"}`+"\n", i, o.sent[i], o.lanes[i].Tenant)
		b.Events = append(b.Events, journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: o.logs[0].Tenant(o.lanes[i].Tenant),
			Kind: uint8(schemas.KindMitigation), Time: now})
		b.Arena = append(b.Arena, line...)
	}
	if _, err := o.logs[0].Append(context.Background(), &b); err != nil {
		o.t.Fatal(err)
	}
	for seen := 0; seen < len(lanes); { // the arrivals of the commit
		a := <-o.told[0]
		o.runner.Arrived(o.shard, []journal.Arrival{a})
		seen += int(a.Events)
	}
}

// pass lets time pass, and gives every turn that becomes due.
func (o *outage) pass(d time.Duration) {
	end := o.clock.Load() + d.Milliseconds()
	for {
		o.turns()
		o.runner.mu.Lock()
		next := end
		if len(o.runner.timers) > 0 {
			next = min(end, o.runner.timers[0].due)
		}
		o.runner.mu.Unlock()
		o.clock.Store(max(next, o.clock.Load()))
		o.runner.fire()
		o.runner.mu.Lock()
		quiet := len(o.runner.queue) == 0
		o.runner.mu.Unlock()
		if quiet && next == end {
			return
		}
	}
}

func (o *outage) turns() {
	o.runner.mu.Lock()
	defer o.runner.mu.Unlock()
	for len(o.runner.queue) > 0 {
		o.runner.first()
	}
}

// TestADayOfOutage: every tenth of the lanes is away for a day, with events by
// Zipf's law for all. The others go on; memory stays where it was; the journal
// holds what the dead have not had and no more; and when they are back, each
// gets a turn before any has its second. LANES=10000 is the full size.
func TestADayOfOutage(t *testing.T) {
	lanes := 200
	if text := os.Getenv("LANES"); text != "" {
		var err error
		if lanes, err = strconv.Atoi(text); err != nil || lanes < 100 {
			t.Fatalf("LANES=%q: a number from 100 on", text)
		}
	}
	o := newOutage(t, lanes)
	rng := rand.New(rand.NewPCG(21, 1))
	zipf := rand.NewZipf(rng, 1.1, 10, uint64(lanes-1))
	var all []int
	for i := range lanes {
		all = append(all, i)
	}
	o.append(all)
	o.pass(10 * time.Minute)
	before := inUse()
	for range 24 * 6 {
		var some []int
		for range lanes / 10 {
			some = append(some, int(zipf.Uint64()))
		}
		o.append(some)
		o.pass(10 * time.Minute)
	}
	grown := int64(inUse()) - int64(before)
	if bound := int64(1000*lanes + 4<<20); grown > bound {
		t.Errorf("memory grew by %d KB, more than %d", grown>>10, bound>>10)
	}
	o.day()
	// They are back, and all looked after at once: turn by turn.
	o.away, o.order = false, nil
	back := 0
	for i, c := range o.stores {
		if c.dead {
			back++
			o.runner.Do(o.lanes[i], OrderRetry)
		}
	}
	o.turns()
	turns := map[int]int{}
	for at, lane := range o.order {
		if turns[lane]++; at < back && turns[lane] > 1 {
			t.Fatalf("lane %d has its second turn after %d of %d lanes had their first", lane, at, back)
		}
	}
	drained := len(o.order)
	o.pass(10 * time.Minute)
	events := 0
	for i, c := range o.stores {
		if c.events != uint64(o.sent[i]) {
			t.Fatalf("lane %d stored %d of %d events", i, c.events, o.sent[i])
		}
		events += o.sent[i]
	}
	most := 0
	for _, n := range turns {
		most = max(most, n)
	}
	if len(turns) != back || most < 2 {
		t.Errorf("%d of %d lanes came back, with up to %d drops", len(turns), back, most)
	}
	t.Logf("seed 21: %d lanes, %d of them away for 24 h, %d events; memory grew by %d KB; drained in %d turns, up to %d a lane, no second before another's first",
		lanes, back, events, grown>>10, drained, most)
}

// day checks what stands at the end of the day: the living have all, the dead
// nothing since it began, and the journal counts what they lack.
func (o *outage) day() {
	o.t.Helper()
	undelivered := o.store.Usage().Undelivered
	for i, c := range o.stores {
		switch left := undelivered[o.lanes[i].Tenant]; {
		case !c.dead && c.events != uint64(o.sent[i]):
			o.t.Fatalf("lane %d, which is well, stored %d of %d events", i, c.events, o.sent[i])
		case !c.dead && left != 0:
			o.t.Fatalf("lane %d, which is well, holds %d bytes", i, left)
		case c.dead && c.events != 0:
			o.t.Fatalf("lane %d, which is away, stored %d events", i, c.events)
		}
		if want := o.bytes(i); c.dead && undelivered[o.lanes[i].Tenant] != want {
			o.t.Fatalf("lane %d holds %d bytes undelivered, want %d", i, undelivered[o.lanes[i].Tenant], want)
		}
	}
}

// bytes are those of all events of a lane.
func (o *outage) bytes(i int) (n int64) {
	for k := 1; k <= o.sent[i]; k++ {
		n += int64(len(fmt.Sprintf(`{"event_id":"%d-%d","tenant_id":"%s","kind":"mitigation"}`, i, k, o.lanes[i].Tenant)) + 1)
	}
	return n
}
