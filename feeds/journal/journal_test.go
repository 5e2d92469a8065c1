package journal

import (
	"context"
	"fmt"
	"testing"

	"datasync/feeds"
)

// batchOf makes a batch of lines, each "tenant:text".
func batchOf(j *Journal, tenants []string, from int) *Batch {
	b := &Batch{}
	for i, t := range tenants {
		line := fmt.Sprintf(`{"tenant_id":%q,"n":%d}`+"\n", t, from+i)
		b.Events = append(b.Events, Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)),
			Tenant: j.Tenant(feeds.TenantID(t)), Kind: uint8(i % 3), Time: int64(1000 + from + i)})
		b.Arena = append(b.Arena, line...)
	}
	return b
}

func openTest(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	if o.Report == nil {
		o.Report = func(i Incident) { t.Logf("incident: %s %s", i.What, i.Message) }
	}
	s, err := OpenStore(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readAll(t *testing.T, j *Journal, tenant string) (string, []Hole, Position) {
	t.Helper()
	var c Chunk
	var out []byte
	var holes []Hole
	p := Position{}
	for {
		if err := j.Read(j.Tenant(feeds.TenantID(tenant)), p, ReadOptions{}, &c); err != nil {
			t.Fatal(err)
		}
		out = append(out, c.Data...)
		holes = append(holes, c.Holes...)
		p = c.Next
		if !c.More {
			return string(out), holes, p
		}
	}
}

// TestReadsOfBlocksTakeThemWhole: no block is read twice for a part of it.
func TestReadsOfBlocksTakeThemWhole(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	defer s.Close()
	j, err := s.Shard("http-0")
	if err != nil {
		t.Fatal(err)
	}
	b := benchBatch(j, 1, 1)
	if _, err := j.Append(context.Background(), b); err != nil {
		t.Fatal(err)
	}
	var c Chunk
	var p Position
	events := 0
	for more := true; more; more = c.More {
		if err := j.Read(0, p, ReadOptions{MaxBytes: 50_000, Blocks: true}, &c); err != nil {
			t.Fatal(err)
		}
		for _, sp := range c.Spans {
			if !sp.Whole || len(c.Data) > 50_000 {
				t.Fatalf("%d bytes, with %+v", len(c.Data), sp)
			}
			events += sp.Events
		}
		p = c.Next
	}
	if events != len(b.Events) {
		t.Errorf("%d of %d events", events, len(b.Events))
	}
	// A block that alone is too large comes in parts.
	if err := j.Read(0, Position{}, ReadOptions{MaxBytes: 2000, Blocks: true}, &c); err != nil || len(c.Spans) != 1 || c.Spans[0].Events != 2 || !c.More {
		t.Errorf("%v, %+v", err, c.Spans)
	}
}

func TestAppendReadReopen(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	id := s.ID()
	j, err := s.Shard("http-0")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	tenants := []string{"acme", "beta", "acme", "gamma", "acme", "beta"}
	for n := range 50 {
		b := batchOf(j, tenants, n*10)
		for i, e := range b.Events {
			want[tenants[i]] += string(b.Arena[e.Off : e.Off+e.Len])
		}
		b.Source = uint64(n + 1)
		b.Facts = []Fact{{Key: "last", Value: fmt.Append(nil, n)}, {Key: "count", Value: AppendCounts(nil, 1, 2), Add: true}}
		if _, err := j.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	check := func(j *Journal) {
		t.Helper()
		for tenant, text := range want {
			got, holes, p := readAll(t, j, tenant)
			if got != text || len(holes) > 0 {
				t.Fatalf("%s: %d bytes, want %d; holes %v", tenant, len(got), len(text), holes)
			}
			if end := j.Standing(j.Tenant(feeds.TenantID(tenant))).End; p != end || end.Bytes != uint64(len(text)) {
				t.Fatalf("%s: ends at %+v, stands at %+v", tenant, p, end)
			}
		}
		if v, _ := j.Fact("last"); string(v) != "49" {
			t.Fatalf("fact last is %q", v)
		}
		if v, _ := j.Fact("count"); fmt.Sprint(Counts(v)) != "[50 100]" {
			t.Fatalf("counts are %v", Counts(v))
		}
		if j.Source() != 50 {
			t.Fatalf("source is %d", j.Source())
		}
	}
	check(j)
	for range 3 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, dir, Options{Report: func(i Incident) { t.Errorf("incident: %+v", i) }})
		if s.ID() != id {
			t.Fatalf("id changed from %s to %s", id, s.ID())
		}
		if j, err = s.Shard("http-0"); err != nil {
			t.Fatal(err)
		}
		check(j)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestSmallCache reads through a cache that holds one segment at a time.
func TestSmallCache(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{SegmentBytes: 16 << 10, ReserveBytes: 4096})
	s.cache.budget = 1
	j, err := s.Shard("x")
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for n := range 100 {
		b := batchOf(j, []string{"acme", "beta", "acme", "gamma"}, n*10)
		want += string(b.Arena[b.Events[1].Off:][:b.Events[1].Len])
		if _, err := j.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if got, holes, _ := readAll(t, j, "beta"); got != want || len(holes) > 0 {
			t.Fatalf("%d bytes, want %d; holes %v", len(got), len(want), holes)
		}
		if n := len(s.cache.held); n > 2 {
			t.Fatalf("%d segments are open", n)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFactLayers: values put later stand on what is durable, deletion and
// addition too, and Facts shows each key once, sorted.
func TestFactLayers(t *testing.T) {
	f := newFactTable()
	f.settleCommit([]Fact{{Key: "b", Value: []byte("1")}, {Key: "n", Value: AppendCounts(nil, 5, 1)}, {Key: "gone", Value: []byte("x")}})
	f.putLater([]Fact{{Key: "b", Value: []byte("2")}, {Key: "n", Value: AppendCounts(nil, 2), Add: true}, {Key: "gone"}, {Key: "a", Value: []byte("new")}})
	f.take()
	f.putLater([]Fact{{Key: "n", Value: AppendCounts(nil, 1, 1, 1), Add: true}, {Key: "n", Value: AppendCounts(nil, 1), Add: true}, {Key: "b"}})
	show := func() string {
		out := ""
		for k, v := range f.all("") {
			if k == "n" {
				v = fmt.Append(nil, Counts(v))
			}
			out += k + "=" + string(v) + " "
		}
		return out
	}
	const want = "a=new n=[9 2 1] "
	if got := show(); got != want {
		t.Fatalf("with a commit under way: %q", got)
	}
	f.giveBack()
	if got := show(); got != want {
		t.Fatalf("after the commit failed: %q", got)
	}
	taken := f.take()
	if len(taken) != 4 {
		t.Fatalf("taken: %v", taken)
	}
	f.settleCommit(taken)
	if got := show(); got != want || f.pending() {
		t.Fatalf("after the commit: %q", got)
	}
}
