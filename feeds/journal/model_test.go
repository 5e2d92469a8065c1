package journal_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/feeds/journal/journaltest"

	"pgregory.net/rapid"
)

// modelEvent is an event as the model keeps it.
type modelEvent struct {
	seq       feeds.Sequence
	kind      uint8
	data      string
	bytes     uint64 // of the tenant before it
	committed int64
	gone      bool // may be missing: released and retired, or expired
	expired   bool // must be missing
}

type model struct {
	t       *rapid.T
	fs      *journaltest.CrashFS
	opts    journal.Options
	s       *journal.Store
	j       *journal.Journal
	clock   *atomic.Int64 // ms; the writer looks too
	events  map[feeds.TenantID][]modelEvent
	release map[feeds.TenantID]journal.Position
	facts   map[string]string
	later   map[string][]string // what a crash may leave under a key put later
	seq     feeds.Sequence
	mu      sync.Mutex // the writer reports while it is crashed
	reports []journal.Incident
}

func (m *model) open() {
	m.opts.FS = m.fs
	clock := m.clock
	m.opts.Now = func() time.Time { return time.UnixMilli(clock.Load()) }
	m.opts.Report = func(i journal.Incident) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.reports = append(m.reports, i)
	}
	var err error
	if m.s, err = journal.OpenStore("data", m.opts); err != nil {
		m.t.Fatal(err)
	}
	if m.j, err = m.s.Shard("shard"); err != nil {
		m.t.Fatal(err)
	}
	for id, p := range m.release {
		m.j.Release(m.j.Tenant(id), p)
	}
}

func (m *model) close() {
	if err := m.s.Close(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) position(id feeds.TenantID, i int) journal.Position {
	evs := m.events[id]
	if i < len(evs) {
		return journal.Position{Seq: evs[i].seq, Events: uint64(i), Bytes: evs[i].bytes}
	}
	if len(evs) == 0 {
		return journal.Position{}
	}
	l := evs[len(evs)-1]
	return journal.Position{Seq: l.seq + 1, Events: uint64(len(evs)), Bytes: l.bytes + uint64(len(l.data))}
}

var modelTenants = []feeds.TenantID{"acme", "beta", "gamma", "delta", "eps"}

func (m *model) append(n int, kafka bool) {
	t := m.t
	b := &journal.Batch{}
	type add struct {
		id feeds.TenantID
		e  modelEvent
	}
	var adds []add
	seq := m.seq
	for i := range n {
		id := rapid.SampledFrom(modelTenants).Draw(t, "tenant")
		line := fmt.Sprintf(`{"t":%q,"n":%d,"pad":%q}`+"\n", id, int(seq)+i, strings.Repeat("x", rapid.IntRange(0, 300).Draw(t, "pad")))
		e := journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: m.j.Tenant(id),
			Kind: uint8(rapid.IntRange(0, 2).Draw(t, "kind")), Time: int64(rapid.IntRange(0, 1000).Draw(t, "time"))}
		if kafka {
			seq += feeds.Sequence(rapid.IntRange(1, 5).Draw(t, "step"))
			e.Seq = seq
		} else {
			seq++
		}
		if rapid.Bool().Draw(t, "held") { // by its feed, most of it
			e.Len = 1
			e.Rest = []byte(line[1:])
		}
		b.Arena = append(b.Arena, line[:e.Len]...)
		b.Events = append(b.Events, e)
		adds = append(adds, add{id, modelEvent{seq: seq, kind: e.Kind, data: line, committed: m.clock.Load()}})
	}
	r, err := m.j.Append(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	if r.First != adds[0].e.seq || r.Last != seq {
		t.Fatalf("receipt %+v, want %d to %d", r, adds[0].e.seq, seq)
	}
	m.seq = seq
	for _, a := range adds {
		a.e.bytes = m.position(a.id, len(m.events[a.id])).Bytes
		m.events[a.id] = append(m.events[a.id], a.e)
	}
	m.settleLater()
}

// settleLater: a commit carried what was put later.
func (m *model) settleLater() {
	for k, vs := range m.later {
		m.facts[k] = vs[len(vs)-1]
	}
	clear(m.later)
}

// commitLater makes a commit, where the model can't know whether there was one.
func (m *model) commitLater() {
	if err := m.j.Put(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	m.settleLater()
}

// check reads a tenant from event i on and compares.
func (m *model) check(id feeds.TenantID, i int, o journal.ReadOptions) {
	t := m.t
	evs := m.events[id]
	p := m.position(id, i)
	if i == 0 {
		p = journal.Position{}
	}
	var c journal.Chunk
	if err := m.j.Read(m.j.Tenant(id), p, o, &c); err != nil {
		t.Fatal(err)
	}
	at, size, count := i, 0, 0
	spans, holes := c.Spans, c.Holes
	for len(spans) > 0 || len(holes) > 0 {
		if len(holes) > 0 && (len(spans) == 0 || holes[0].From.Events < spans[0].Start.Events) {
			h := holes[0]
			holes = holes[1:]
			if int(h.From.Events) != at || !h.Expired || h.To.Events <= h.From.Events {
				t.Fatalf("%s: hole %+v at event %d", id, h, at)
			}
			for ; at < int(h.To.Events); at++ {
				if !evs[at].gone && !evs[at].expired {
					t.Fatalf("%s: event %d is missing: hole %+v", id, at, h)
				}
			}
			continue
		}
		s := spans[0]
		spans = spans[1:]
		if s.Off != size || int(s.Start.Events) != at {
			t.Fatalf("%s: span %+v, want event %d at %d", id, s, at, size)
		}
		m.checkSpan(id, c.Data[s.Off:s.Off+s.Len], s, at)
		at += s.Events
		size += s.Len
		count += s.Events
	}
	if size != len(c.Data) {
		t.Fatalf("%s: spans cover %d of %d bytes", id, size, len(c.Data))
	}
	if int(c.Next.Events) != at {
		t.Fatalf("%s: next %+v, want event %d", id, c.Next, at)
	}
	m.checkLimits(id, at, count, size, o, &c)
}

func (m *model) checkSpan(id feeds.TenantID, data []byte, s journal.Span, at int) {
	t, evs := m.t, m.events[id]
	if want := m.position(id, at); s.Start != want {
		t.Fatalf("%s: span starts at %+v, want %+v", id, s.Start, want)
	}
	seq, kinds := s.Start.Seq, slices.Clone(s.Kinds)
	k, step, left := 0, 0, int(s.Steps[0].Count)-1
	for i, line := range bytes.SplitAfter(data, []byte("\n"))[:s.Events] {
		e := evs[at+i]
		if i > 0 {
			for left == 0 {
				step++
				left = int(s.Steps[step].Count)
			}
			left--
			seq += feeds.Sequence(s.Steps[step].By)
		}
		for kinds[k].Events == 0 {
			k++
		}
		kinds[k].Events--
		kinds[k].Bytes -= uint32(len(line))
		if string(line) != e.data || seq != e.seq || kinds[k].Kind != e.kind || e.expired || s.Committed != e.committed {
			t.Fatalf("%s: event %d is %q seq %d kind %d at %d, want %+v", id, at+i, line, seq, kinds[k].Kind, s.Committed, e)
		}
	}
	for _, k := range kinds {
		if k.Events != 0 || k.Bytes != 0 {
			t.Fatalf("%s: runs %+v do not add up (left: %+v)", id, s.Kinds, kinds)
		}
	}
}

func (m *model) checkLimits(id feeds.TenantID, at, count, size int, o journal.ReadOptions, c *journal.Chunk) {
	t, evs := m.t, m.events[id]
	if o.MaxEvents > 0 && count > o.MaxEvents {
		t.Fatalf("%s: %d events, limit %d", id, count, o.MaxEvents)
	}
	limit := o.MaxBytes
	if limit == 0 {
		limit = 1 << 20
	}
	if size > limit && count > 1 {
		t.Fatalf("%s: %d bytes in %d events, limit %d", id, size, count, limit)
	}
	follows := false
	for i := at; i < len(evs); i++ {
		if o.Until != 0 && evs[i].seq >= o.Until || o.Before != 0 && evs[i].committed >= o.Before {
			break
		}
		follows = follows || !evs[i].gone && !evs[i].expired
	}
	if follows && !c.More {
		t.Fatalf("%s: more events follow event %d of %d, but More is false (options %+v)", id, at, len(evs), o)
	}
	if o.Until != 0 && count > 0 && evs[at-1].seq >= o.Until && !evs[at-1].gone && !evs[at-1].expired {
		t.Fatalf("%s: event %d lies behind Until %d", id, evs[at-1].seq, o.Until)
	}
}

func (m *model) checkAll() {
	for _, id := range modelTenants {
		m.check(id, 0, journal.ReadOptions{MaxBytes: 1 << 30})
		end := m.j.Standing(m.j.Tenant(id)).End
		if want := m.position(id, len(m.events[id])); end != want {
			m.t.Fatalf("%s stands at %+v, want %+v", id, end, want)
		}
	}
	got := map[string]string{}
	for k, v := range m.j.Facts("f/") {
		got[k] = string(v)
	}
	if !maps.Equal(got, m.facts) {
		m.t.Fatalf("facts are %v, want %v", got, m.facts)
	}
}

func (m *model) crash() {
	m.mu.Lock()
	known := len(m.reports)
	m.fs.Crash()
	m.mu.Unlock()
	_ = m.s.Close() // fails: the machine is down
	m.reports = m.reports[:known]
	m.fs = m.fs.Reboot()
	m.open()
	// What was put later may or may not have reached the disk.
	for k, vs := range m.later {
		old, had := m.facts[k]
		v, ok := m.j.Fact(k)
		if !(ok == had && string(v) == old) && !(ok && slices.Contains(vs, string(v))) {
			m.t.Fatalf("fact %s is %q after a crash, neither %q nor one of %q", k, v, old, vs)
		}
		if ok {
			m.facts[k] = string(v)
		}
	}
	clear(m.later)
}

func (m *model) actions() map[string]func(*rapid.T) {
	pick := func(t *rapid.T) (feeds.TenantID, int) {
		id := rapid.SampledFrom(modelTenants).Draw(t, "tenant")
		return id, rapid.IntRange(0, len(m.events[id])).Draw(t, "event")
	}
	return map[string]func(*rapid.T){
		"append":         func(t *rapid.T) { m.append(rapid.IntRange(1, 40).Draw(t, "n"), false) },
		"appendNumbered": func(t *rapid.T) { m.append(rapid.IntRange(1, 40).Draw(t, "n"), true) },
		"tick": func(t *rapid.T) {
			m.clock.Add(int64(rapid.IntRange(1, 5000).Draw(t, "ms")))
		},
		"put": func(t *rapid.T) {
			k, v := fmt.Sprintf("f/%d", rapid.IntRange(0, 5).Draw(t, "k")), rapid.StringN(0, 20, 40).Draw(t, "v")
			if err := m.j.Put(context.Background(), journal.Fact{Key: k, Value: []byte(v)}); err != nil {
				t.Fatal(err)
			}
			m.settleLater()
			if m.facts[k] = v; v == "" {
				delete(m.facts, k)
			}
		},
		"putLater": func(t *rapid.T) {
			k, v := fmt.Sprintf("f/later%d", rapid.IntRange(0, 3).Draw(t, "k")), rapid.StringN(1, 20, 40).Draw(t, "v")
			m.j.PutLater(journal.Fact{Key: k, Value: []byte(v)})
			m.later[k] = append(m.later[k], v)
			if got, _ := m.j.Fact(k); string(got) != v {
				t.Fatalf("fact put later is %q, want %q", got, v)
			}
		},
		"read": func(t *rapid.T) {
			id, i := pick(t)
			o := journal.ReadOptions{MaxBytes: rapid.SampledFrom([]int{0, 1, 200, 3000}).Draw(t, "bytes"), MaxEvents: rapid.SampledFrom([]int{0, 1, 7}).Draw(t, "events"),
				Blocks: rapid.Bool().Draw(t, "blocks")}
			if rapid.Bool().Draw(t, "until") {
				o.Until = feeds.Sequence(rapid.IntRange(1, int(m.seq)+2).Draw(t, "until"))
			}
			if rapid.Bool().Draw(t, "before") {
				o.Before = m.clock.Load() - int64(rapid.IntRange(0, 9000).Draw(t, "ago"))
			}
			m.check(id, i, o)
		},
		"locate": func(t *rapid.T) {
			id, i := pick(t)
			want := m.position(id, i)
			if i < len(m.events[id]) && !m.events[id][i].gone && !m.events[id][i].expired {
				got, err := m.j.Locate(m.j.Tenant(id), want.Seq)
				if err != nil || got != want {
					t.Fatalf("locate %s %d: %+v %v, want %+v", id, want.Seq, got, err, want)
				}
			}
		},
		"expire": func(t *rapid.T) {
			id, i := pick(t)
			if len(m.events[id]) == 0 {
				return
			}
			from := 0
			if p, ok := m.release[id]; ok {
				from = int(p.Events)
			}
			if err := m.j.Expire(m.j.Tenant(id), m.position(id, i)); err != nil {
				t.Fatal(err)
			}
			m.commitLater()
			for k := from; k < i; k++ {
				m.events[id][k].expired = true
			}
		},
		"release": func(t *rapid.T) {
			id, i := pick(t)
			if int(m.release[id].Events) > i {
				return
			}
			m.release[id] = m.position(id, i)
			m.j.Release(m.j.Tenant(id), m.release[id])
		},
		"maintain": func(t *rapid.T) {
			for id, p := range m.release {
				for k := range m.events[id][:p.Events] {
					m.events[id][k].gone = true
				}
			}
			m.commitLater() // a pass may commit
			if err := m.s.Maintain(); err != nil {
				t.Fatal(err)
			}
		},
		"reopen": func(t *rapid.T) {
			m.close()
			m.settleLater()
			m.open()
		},
		"crash": func(t *rapid.T) { m.crash() },
		"": func(t *rapid.T) {
			for k, vs := range m.later {
				if got, _ := m.j.Fact(k); string(got) != vs[len(vs)-1] {
					t.Fatalf("fact %s is %q", k, got)
				}
			}
		},
	}
}

// TestModel runs random operations against a model: nothing that was
// acknowledged is ever missing, wrong or out of order, across clean restarts,
// power cuts, retention, rewriting and expiry.
func TestModel(t *testing.T) {
	var done, crashes int
	var seeds []string
	for want := size(3000, 1_000_000); done < want && !t.Failed(); {
		seeds = append(seeds, reseed(t))
		rapid.Check(t, func(t *rapid.T) {
			ops, cuts := modelRun(t)
			done, crashes = done+ops, crashes+cuts
		})
	}
	t.Logf("seed %s: %d random operations in %d runs of 100, %d power cuts among them: equal to the model", seeds[0], done, len(seeds), crashes)
}

// reseed gives rapid a seed to name where -rapid.seed names none; the next one
// follows from it, so that the first tells a whole run.
func reseed(t *testing.T) string {
	t.Helper()
	f := flag.Lookup("rapid.seed")
	if f.Value.String() == "0" {
		must(t, f.Value.Set(fmt.Sprint(rand.Uint64()>>1)))
	} else if reseeded {
		n, err := strconv.ParseUint(f.Value.String(), 10, 64)
		must(t, err)
		must(t, f.Value.Set(fmt.Sprint(n+1)))
	}
	reseeded = true
	return f.Value.String()
}

var reseeded bool

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// modelRun is one run; it counts its operations, and the power cuts among them.
func modelRun(t *rapid.T) (ops, cuts int) {
	m := &model{t: t, fs: journaltest.NewCrashFS(rapid.Uint64().Draw(t, "seed")), clock: &atomic.Int64{},
		events: map[feeds.TenantID][]modelEvent{}, release: map[feeds.TenantID]journal.Position{},
		facts: map[string]string{}, later: map[string][]string{}}
	m.opts = journal.Options{SegmentBytes: 16 << 10, Retain: 2 * time.Second, MaxBytes: rapid.SampledFrom([]int64{64 << 20, 1 << 20}).Draw(t, "cap"), ReserveBytes: 4 << 10}
	m.clock.Store(1_700_000_000_000)
	m.open()
	actions := m.actions()
	for name, act := range actions {
		if name != "" {
			actions[name] = func(t *rapid.T) { ops++; act(t) }
		}
	}
	power := actions["crash"]
	actions["crash"] = func(t *rapid.T) { cuts++; power(t) }
	t.Repeat(actions)
	m.close()
	m.settleLater()
	m.open()
	m.checkAll()
	m.close()
	for _, i := range m.reports {
		if i.What != "expired" && i.What != "torn-tail" {
			t.Fatalf("incident: %+v", i)
		}
	}
	return ops, cuts
}
