package shape_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"datasync/exporter/lane/shape"
	"datasync/exporter/tenants"
	"datasync/exporter/trial"
	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// sample is an event with what the naive model needs to know of it.
type sample struct {
	line    string // newline included
	kind    schemas.Kind
	members map[string]any
	at      int64
}

// samples are events of every kind from the generator, and a few whose times
// do not rise.
func samples(tb testing.TB, n int) []sample {
	g := trial.NewGenerator(trial.GeneratorOptions{Seed: 7, Requests: 0.4, Start: time.UnixMilli(1795309107000)})
	var out []sample
	var at time.Duration
	for i := range n {
		at += time.Duration(i*7919%5000) * time.Millisecond
		g.At(time.UnixMilli(1795309107000).Add(at % (20 * time.Second)))
		line, _, bad := g.Next(nil)
		if bad != "" {
			tb.Fatal("the generator was asked for good events only")
		}
		s := sample{line: string(bytes.TrimRight(line, "\n")) + "\n"}
		if err := json.Unmarshal(line, &s.members); err != nil {
			tb.Fatal(err)
		}
		s.kind, _ = schemas.ParseKind(s.members["kind"].(string))
		s.at = eventTime(tb, s.members)
		out = append(out, s)
	}
	return out
}

func eventTime(tb testing.TB, m map[string]any) int64 {
	switch v := m["event_time"].(type) {
	case float64:
		return int64(v)
	case string:
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			tb.Fatal(err)
		}
		return t.UnixMilli()
	}
	tb.Fatalf("no event_time in %v", m)
	return 0
}

// build makes a chunk of one span a group.
func build(groups [][]sample, whole func(i int) bool, holes []journal.Hole) *journal.Chunk {
	c := &journal.Chunk{Holes: holes}
	pos := journal.Position{Seq: 10, Events: 3, Bytes: 999}
	for i, g := range groups {
		sp := journal.Span{Off: len(c.Data), Events: len(g), Start: pos, Whole: whole(i)}
		for k, s := range g {
			c.Data = append(c.Data, s.line...)
			sp.Len += len(s.line)
			if n := len(sp.Kinds); n > 0 && sp.Kinds[n-1].Kind == uint8(s.kind) {
				sp.Kinds[n-1].Events++
				sp.Kinds[n-1].Bytes += uint32(len(s.line))
			} else {
				sp.Kinds = append(sp.Kinds, journal.KindRun{Kind: uint8(s.kind), Events: 1, Bytes: uint32(len(s.line))})
			}
			if k == 0 {
				sp.MinTime, sp.MaxTime = s.at, s.at
			}
			sp.MinTime, sp.MaxTime = min(sp.MinTime, s.at), max(sp.MaxTime, s.at)
			pos.Events, pos.Bytes = pos.Events+1, pos.Bytes+uint64(len(s.line))
		}
		if !sp.Whole { // the block's other events lie far off
			sp.MinTime, sp.MaxTime = 1, 1<<60
		}
		// Two steps of 3 between the first events, 5 between the others.
		if len(g) > 3 {
			sp.Steps = []journal.Step{{Count: 3, By: 3}, {Count: uint32(len(g) - 3), By: 5}}
		} else {
			sp.Steps = []journal.Step{{Count: uint32(len(g)), By: 3}}
		}
		c.Spans = append(c.Spans, sp)
		pos.Seq += 10_000
	}
	c.Next = pos
	return c
}

// filters pairs expressions with what they mean.
var filters = []struct {
	src  string
	pass func(map[string]any) bool
}{
	{"", func(map[string]any) bool { return true }},
	{"enforced", func(m map[string]any) bool { return m["enforced"] == true }},
	{"severity >= 3", func(m map[string]any) bool { s, _ := m["severity"].(float64); return s >= 3 }},
	{`client_country != "GB"`, func(m map[string]any) bool { c, _ := m["client_country"].(string); return c != "GB" }},
}

func TestShapeIsWhatANaiveModelSays(t *testing.T) {
	pool := samples(t, 400)
	rapid.Check(t, func(t *rapid.T) {
		f := filters[rapid.IntRange(0, len(filters)-1).Draw(t, "filter")]
		out := tenants.Output{
			Kinds:  schemas.KindSet(rapid.IntRange(0, int(schemas.AllKinds)).Draw(t, "kinds")),
			Filter: f.src,
			Sample: rapid.SampledFrom([]float64{1, 0.5, 0.1, 0}).Draw(t, "sample"),
			Fields: rapid.SampledFrom([][]string{nil, {"event_id", "kind", "no_such_field"}}).Draw(t, "fields"),
		}
		project := rapid.Bool().Draw(t, "project")
		if rapid.IntRange(0, 2).Draw(t, "all of it") == 0 { // as most sinks want it
			f, out = filters[0], tenants.Output{Kinds: schemas.AllKinds, Sample: 1}
		}
		sh, err := shape.New(&out, nil, project)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 3).Draw(t, "chunks") { // a shaper is used again
			var groups [][]sample
			for range rapid.IntRange(0, 4).Draw(t, "spans") {
				at := rapid.IntRange(0, len(pool)-1).Draw(t, "at")
				groups = append(groups, pool[at:min(at+rapid.IntRange(1, 12).Draw(t, "events"), len(pool))])
			}
			wholes := rapid.Uint8().Draw(t, "whole")
			holes := drawHoles(t)
			c := build(groups, func(i int) bool { return wholes&(1<<i) != 0 }, holes)
			before := bytes.Clone(c.Data)
			got := sh.Shape(c)
			hold(t, got, model(t, &out, f.pass, slices.Concat(groups...), project), holes)
			if !bytes.Equal(c.Data, before) {
				t.Fatal("the chunk was changed")
			}
			if total := uint64(c.Next.Events - 3); got.Counts.Sum() != total+missing(holes) {
				t.Fatalf("counts add up to %d, the chunk holds %d and misses %d", got.Counts.Sum(), total, missing(holes))
			}
		}
	})
}

func drawHoles(t *rapid.T) []journal.Hole {
	var hs []journal.Hole
	for range rapid.IntRange(0, 2).Draw(t, "holes") {
		from := rapid.Uint64Range(0, 100).Draw(t, "from")
		to := from + rapid.Uint64Range(1, 50).Draw(t, "missing")
		hs = append(hs, journal.Hole{From: journal.Position{Events: from}, To: journal.Position{Events: to}, Expired: rapid.Bool().Draw(t, "expired")})
	}
	return hs
}

func missing(hs []journal.Hole) (n uint64) {
	for _, h := range hs {
		n += h.To.Events - h.From.Events
	}
	return n
}

type expected struct {
	lines                []string // each with its newline
	filtered, sampledOut uint64
	lo, hi               int64
}

// model shapes event by event; whether a sample takes an event is asked of a
// shaper that sees nothing but that event.
func model(t *rapid.T, o *tenants.Output, pass func(map[string]any) bool, all []sample, project bool) expected {
	var e expected
	lone := tenants.Output{Kinds: schemas.AllKinds, Sample: o.Sample}
	for _, s := range all {
		sh, err := shape.New(&lone, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case !o.Kinds.Has(s.kind) || !pass(s.members):
			e.filtered++
			continue
		case len(sh.Shape(build([][]sample{{s}}, func(int) bool { return true }, nil)).Lines) == 0:
			e.sampledOut++
			continue
		}
		line := s.line
		if project && o.Fields != nil {
			kept := maps.Clone(s.members)
			maps.DeleteFunc(kept, func(name string, _ any) bool { return !slices.Contains(o.Fields, name) })
			raw, err := json.Marshal(kept) // keys sorted: event_id, kind
			if err != nil {
				t.Fatal(err)
			}
			line = string(raw) + "\n"
		}
		if len(e.lines) == 0 {
			e.lo, e.hi = s.at, s.at
		}
		e.lines = append(e.lines, line)
		e.lo, e.hi = min(e.lo, s.at), max(e.hi, s.at)
	}
	return e
}

func hold(t *rapid.T, got shape.Shaped, want expected, holes []journal.Hole) {
	if g := normal(t, string(got.Lines)); !slices.Equal(g, want.lines) && !slices.Equal(strings.SplitAfter(string(got.Lines), "\n"), append(want.lines, "")) {
		t.Fatalf("lines:\n%q\nwant:\n%q", got.Lines, want.lines)
	}
	c := got.Counts
	var expired, damaged uint64
	for _, h := range holes {
		if n := h.To.Events - h.From.Events; h.Expired {
			expired += n
		} else {
			damaged += n
		}
	}
	if c.Events != uint64(len(want.lines)) || c.Filtered != want.filtered || c.SampledOut != want.sampledOut || c.Refused != 0 || c.Expired != expired || c.Damaged != damaged {
		t.Fatalf("counts %+v, want %d events, %d filtered, %d sampled out, %d expired, %d damaged", c, len(want.lines), want.filtered, want.sampledOut, expired, damaged)
	}
	if c.Events > 0 && (c.FirstEvent != want.lo || c.LastEvent != want.hi) {
		t.Fatalf("times %d to %d, want %d to %d", c.FirstEvent, c.LastEvent, want.lo, want.hi)
	}
}

// normal sorts the members of each line.
func normal(t *rapid.T, lines string) []string {
	var out []string
	for line := range strings.Lines(lines) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(raw)+"\n")
	}
	return out
}

func TestASampleTakesItsShareAndTakesItAgain(t *testing.T) {
	pool := samples(t, 4000)
	passed := func(rate float64, chunk int) map[string]bool {
		sh, err := shape.New(&tenants.Output{Kinds: schemas.AllKinds, Sample: rate}, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for part := range slices.Chunk(pool, chunk) {
			s := sh.Shape(build([][]sample{part}, func(int) bool { return true }, nil))
			for line := range strings.Lines(string(s.Lines)) {
				got[line] = true
			}
		}
		return got
	}
	quarter, half := passed(0.25, 1000), passed(0.5, 1000)
	if n := len(quarter); n < 880 || n > 1120 {
		t.Errorf("a quarter of 4000 is %d", n)
	}
	if !maps.Equal(quarter, passed(0.25, 7)) {
		t.Error("how the journal cuts its chunks decides what is sampled")
	}
	for line := range quarter {
		if !half[line] {
			t.Fatal("an event of a smaller sample is not in the larger")
		}
	}
}

func TestAllOfAChunkIsHandedThrough(t *testing.T) {
	pool := samples(t, 64)
	c := build([][]sample{pool[:32], pool[32:]}, func(int) bool { return true }, nil)
	sh, err := shape.New(&tenants.Output{Kinds: schemas.AllKinds, Sample: 1}, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	s := sh.Shape(c)
	if &s.Lines[0] != &c.Data[0] || len(s.Lines) != len(c.Data) {
		t.Error("the lines were copied")
	}
	if n := testing.AllocsPerRun(100, func() { sh.Shape(c) }); n != 0 {
		t.Errorf("%v allocations a chunk of 64 events", n)
	}
	mixed, err := shape.New(&tenants.Output{Kinds: schemas.DefaultKinds, Sample: 1}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	mixed.Shape(c)
	if n := testing.AllocsPerRun(100, func() { mixed.Shape(c) }); n != 0 {
		t.Errorf("%v allocations a chunk of 64 events of which some are not wanted", n)
	}
}

func TestARefusedEventIsNamedByItsOwnNumber(t *testing.T) {
	g := samples(t, 8)
	for i := range g {
		g[i].kind = schemas.KindMatch
	}
	g[4].line, g[6].line = "{\"event_id\":\n", "not json\n"
	c := build([][]sample{g}, func(int) bool { return true }, nil)
	sh, err := shape.New(&tenants.Output{Kinds: schemas.AllKinds, Sample: 1, Filter: "severity >= 0"}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	s := sh.Shape(c)
	if s.Counts.Refused != 2 || s.Counts.Events != 6 || len(s.Refused) != 2 {
		t.Fatalf("%+v", s)
	}
	// Numbers are 10 13 16 21 26 31 36 41.
	for i, want := range []struct {
		seq feeds.Sequence
		at  int
	}{{26, 4}, {36, 6}} {
		r := s.Refused[i]
		if r.Pos.Seq != want.seq || r.Pos.Events != uint64(3+want.at) || string(r.Line)+"\n" != g[want.at].line || r.Reason == "" {
			t.Errorf("refusal %d: %+v, line %q", i, r.Pos, r.Line)
		}
	}
	c.Data[0] = 'X'
	if string(s.Refused[1].Line) != "not json" {
		t.Error("a refused line is no copy")
	}
}

func TestAFilterCompiledElsewhereIsUsedOnlyForItsOwnSource(t *testing.T) {
	other, err := tenants.CompileFilter("false")
	if err != nil {
		t.Fatal(err)
	}
	sh, err := shape.New(&tenants.Output{Kinds: schemas.AllKinds, Sample: 1, Filter: "true"}, other, false)
	if err != nil {
		t.Fatal(err)
	}
	if s := sh.Shape(build([][]sample{samples(t, 3)}, func(int) bool { return true }, nil)); s.Counts.Events != 3 {
		t.Errorf("a recorded drop was filtered by the sink's newer filter: %+v", s.Counts)
	}
	if _, err := shape.New(&tenants.Output{Filter: "no_such_field =="}, nil, false); err == nil {
		t.Error("a filter that does not compile was taken")
	}
}

func BenchmarkShape(b *testing.B) {
	pool := samples(b, 1400) // about 1 MiB
	whole := build([][]sample{pool}, func(int) bool { return true }, nil)
	part := build([][]sample{pool}, func(int) bool { return false }, nil)
	all := tenants.Output{Kinds: schemas.AllKinds, Sample: 1}
	for _, c := range []struct {
		name  string
		out   tenants.Output
		chunk *journal.Chunk
	}{
		{"through", all, whole},
		{"through a part of a block", all, part},
		{"kinds", tenants.Output{Kinds: schemas.DefaultKinds, Sample: 1}, whole},
		{"filter", tenants.Output{Kinds: schemas.AllKinds, Sample: 1, Filter: `enforced && client_country != "GB"`}, whole},
		{"sample", tenants.Output{Kinds: schemas.AllKinds, Sample: 0.5}, whole},
		{"fields", tenants.Output{Kinds: schemas.AllKinds, Sample: 1, Fields: []string{"event_id", "event_time", "client_ip", "action"}}, whole},
	} {
		b.Run(c.name, func(b *testing.B) {
			sh, err := shape.New(&c.out, nil, true)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(c.chunk.Data)))
			b.ReportAllocs()
			for b.Loop() {
				sh.Shape(c.chunk)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(pool)), "ns/event")
			b.ReportMetric(float64(len(c.chunk.Data))/float64(len(pool)), "bytes/event")
		})
	}
}
