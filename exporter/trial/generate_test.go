package trial

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/schemas"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestGeneratedEventsAreCanonical(t *testing.T) {
	g := NewGenerator(GeneratorOptions{Tenants: 50, Seed: 7, Requests: 0.1, Start: start})
	kinds, sources, total, members := map[schemas.Kind]int{}, map[string]int{}, 0, 0
	const count = 20000
	for n := 1; n <= count; n++ {
		line, tenant, bad := g.Next(nil)
		var h schemas.Head
		if p := schemas.Scan(line, start.UnixMilli(), &h); p != nil || bad != "" {
			t.Fatalf("event %d: %v, bad %q\n%s", n, p, bad, line)
		}
		if want := fmt.Sprintf("gen-7-%d", n); string(h.ID) != want || string(h.Tenant) != tenant {
			t.Fatalf("event %d: id %s of %s, want %s of %s", n, h.ID, h.Tenant, want, tenant)
		}
		if !h.Compact || h.Has != schemas.HasAll&^schemas.HasIngestTime {
			t.Fatalf("event %d: compact %v, has %b", n, h.Compact, h.Has)
		}
		var e schemas.Event
		if err := schemas.Decode(line, &e); err != nil || e.Extra != "" {
			t.Fatalf("event %d: %v, extra %s", n, err, e.Extra)
		}
		if again := schemas.AppendJSON(nil, &e); !bytes.Equal(again, line) {
			t.Fatalf("event %d is not in canonical order:\n%s\n%s", n, line, again)
		}
		kinds[h.Kind]++
		sources[e.Source]++
		total += len(line)
		members += bytes.Count(line, []byte(`":`))
	}
	if len(kinds) != int(schemas.KindCount) || len(sources) < 6 {
		t.Errorf("kinds %v, sources %v: want all kinds and six sources", kinds, sources)
	}
	if share := float64(kinds[schemas.KindRequest]) / count; share < 0.08 || share > 0.12 {
		t.Errorf("%.3f are requests, want 0.1", share)
	}
	t.Logf("mean %d bytes, %d members; %v %v", total/count, members/count, kinds, sources)
	if mean := total / count; mean < 600 || mean > 900 {
		t.Errorf("mean event is %d bytes, want about 735", mean)
	}
}

func TestGeneratorIsDeterministicAndSkewed(t *testing.T) {
	make1 := func(seed uint64) (lines string, tenants map[string]int) {
		g := NewGenerator(GeneratorOptions{Tenants: 20, Seed: seed, Start: start, Bad: 0.01})
		tenants = map[string]int{}
		var buf []byte
		for range 5000 {
			line, tenant, _ := g.Next(nil)
			tenants[tenant]++
			if len(line) < 2000 {
				buf = append(buf, line...)
			}
		}
		return string(buf), tenants
	}
	a, tenants := make1(1)
	if b, _ := make1(1); a != b {
		t.Error("the same seed gave other events")
	}
	if c, _ := make1(2); a == c {
		t.Error("another seed gave the same events")
	}
	if len(tenants) != 20 || tenants["t0001"] < 5*tenants["t0020"] || tenants["t0020"] == 0 {
		t.Errorf("tenants are not Zipf distributed: %v", tenants)
	}
}

func TestNoRequestsUnlessAsked(t *testing.T) {
	g := NewGenerator(GeneratorOptions{Seed: 3, Start: start})
	for range 5000 {
		if line, _, _ := g.Next(nil); strings.Contains(string(line), `"kind":"request"`) {
			t.Fatalf("request event: %s", line)
		}
	}
}

func TestEveryBadKindIsRefused(t *testing.T) {
	g := NewGenerator(GeneratorOptions{Seed: 5, Start: start, Bad: 1})
	seen := map[string]int{}
	for range 400 {
		line, _, bad := g.Next(nil)
		seen[bad]++
		var h schemas.Head
		p := schemas.Scan(line, start.UnixMilli(), &h)
		if bad == "no tenant" {
			if p != nil || h.Has&schemas.HasTenant != 0 {
				t.Fatalf("no tenant: %v, has %b", p, h.Has)
			}
		} else if p == nil {
			t.Fatalf("%s passed: %.2000s", bad, line)
		}
	}
	for _, kind := range BadKinds {
		if seen[kind] < 20 {
			t.Errorf("%s came %d times in 400", kind, seen[kind])
		}
	}
	if len(seen) != len(BadKinds) {
		t.Errorf("seen %v", seen)
	}
}

func TestTimesFollowTheClock(t *testing.T) {
	g := NewGenerator(GeneratorOptions{Seed: 5, Start: start})
	var h schemas.Head
	last := start.UnixMilli()
	check := func() {
		for range 1000 {
			line, _, _ := g.Next(nil)
			if p := schemas.Scan(line, last, &h); p != nil || h.Time < last || h.Time > last+1 {
				t.Fatalf("%v: time %d behind %d", p, h.Time, last)
			}
			last = h.Time
		}
	}
	check()
	g.At(start.Add(time.Hour))
	last = start.Add(time.Hour).UnixMilli()
	check()
}

func TestAliasKeepsTheWeights(t *testing.T) {
	a := newAlias([]float64{5, 3, 2})
	g := NewGenerator(GeneratorOptions{Seed: 9})
	got := make([]int, 3)
	for range 100000 {
		got[a.pick(g.rng.Uint64())]++
	}
	if !slices.IsSortedFunc(got, func(x, y int) int { return y - x }) || got[0] < 49000 || got[0] > 51000 || got[2] < 19000 {
		t.Errorf("drew %v for weights 5 3 2", got)
	}
}

func BenchmarkNext(b *testing.B) {
	g := NewGenerator(GeneratorOptions{Tenants: 10000, Seed: 1, Start: start})
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _, _ = g.Next(buf[:0])
	}
}
