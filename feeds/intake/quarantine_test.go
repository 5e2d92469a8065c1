package intake

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
)

func open(t *testing.T, log QLog) *Quarantine {
	t.Helper()
	q, err := OpenQuarantine(log)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func ids(t *testing.T, q *Quarantine, f Filter) (got []string) {
	t.Helper()
	for e, err := range q.List(f) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.ID)
	}
	return got
}

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	log := &fakeLog{}
	q := open(t, log)
	want := []Entry{
		{ID: "a1", Time: clock.UTC(), Tenant: "acme", Feed: "edge", Format: "netacea", Position: "p:1", Index: 2, Count: 1, Reason: "why \"this\"", Size: 9, Data: []byte("text\n\u2028é"), Redactions: []string{"tokens"}},
		{ID: "b1", Time: clock.UTC(), Feed: "edge", Reason: "bytes", Count: 7, Size: 3, Data: []byte{0xff, 0, '\n'}},
		{ID: "c1", Time: clock.UTC(), Tenant: "beta", Feed: "", Sink: "siem", Reason: "refused", Count: 1, Size: 0, Data: []byte{}},
	}
	if err := q.Put(context.Background(), want...); err != nil {
		t.Fatal(err)
	}
	for _, q := range []*Quarantine{q, open(t, log)} {
		for _, w := range want {
			got, ok, err := q.Get(w.ID)
			if err != nil || !ok || fmt.Sprintf("%q", fmt.Sprint(got)) != fmt.Sprintf("%q", fmt.Sprint(w)) {
				t.Errorf("%v %v:\n got %+v\nwant %+v", ok, err, got, w)
			}
		}
	}
	for _, e := range log.events {
		if strings.Count(e.line, "\n") != 1 {
			t.Errorf("not one line: %q", e.line)
		}
	}
	if log.events[1].tenant != Unrouted || feeds.ValidName(string(Unrouted)) {
		t.Errorf("a record of nobody lies with %q", log.events[1].tenant)
	}
}

func TestListFilters(t *testing.T) {
	q := open(t, &fakeLog{})
	for i := range 9 {
		tenant := feeds.TenantID([]string{"acme", "beta", ""}[i%3])
		e := Entry{ID: fmt.Sprint(i), Time: clock.Add(time.Duration(i) * time.Second), Tenant: tenant, Feed: []string{"x", "y"}[i%2], Data: []byte("d")}
		if err := q.Put(context.Background(), e, e); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "[0 3 6 1 4 7 2 5 8]"},
		{Filter{Tenant: "beta"}, "[1 4 7]"},
		{Filter{Tenant: Unrouted}, "[2 5 8]"},
		{Filter{Feed: "y"}, "[3 1 7 5]"},
		{Filter{Since: clock.Add(6 * time.Second)}, "[6 7 8]"},
		{Filter{Tenant: "nobody"}, "[]"},
	} {
		if got := ids(t, q, c.f); fmt.Sprint(got) != c.want {
			t.Errorf("%+v: %v, want %s", c.f, got, c.want)
		}
	}
	newest, err := q.Newest(Filter{}, 4)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range newest {
		got = append(got, e.ID)
	}
	if fmt.Sprint(got) != "[8 7 6 5]" {
		t.Errorf("newest: %v", got)
	}
	for range q.List(Filter{}) {
		break // an early end must not go on
	}
}

func TestManyEntriesGoInChunks(t *testing.T) {
	log := &fakeLog{}
	appends := 0
	log.before = func(b *journal.Batch) error {
		appends++
		if len(b.Arena) > chunkBytes+2<<20 {
			t.Errorf("%d bytes at once", len(b.Arena))
		}
		if appends == 3 {
			return feeds.ErrFull
		}
		return nil
	}
	q := open(t, log)
	var entries []Entry
	for i := range 12 {
		entries = append(entries, Entry{ID: fmt.Sprint(i), Feed: "edge", Data: []byte(strings.Repeat("x", 1<<20))})
	}
	if err := q.Put(context.Background(), entries...); !errors.Is(err, feeds.ErrFull) {
		t.Fatalf("err %v", err)
	}
	if err := q.Put(context.Background(), entries...); err != nil { // the same again
		t.Fatal(err)
	}
	if got := ids(t, q, Filter{}); len(got) != 12 || len(log.events) != 12 {
		t.Errorf("%d entries, %d lines", len(got), len(log.events))
	}
}

func TestRepeatsInTheLogAreShownOnce(t *testing.T) {
	log := &fakeLog{}
	a, b := open(t, log), open(t, log) // two that do not know each other: as two at once
	for _, q := range []*Quarantine{a, b} {
		if err := q.Put(context.Background(), Entry{ID: "same", Feed: "edge"}); err != nil {
			t.Fatal(err)
		}
	}
	if len(log.events) != 2 || len(ids(t, a, Filter{})) != 1 {
		t.Errorf("%d lines, listed %v", len(log.events), ids(t, a, Filter{}))
	}
}

func TestDamagedEntriesAreAnError(t *testing.T) {
	log := &fakeLog{}
	q := open(t, log)
	log.Tenant("acme")
	log.events = append(log.events, fakeEvent{tenant: "acme", line: "{broken\n"})
	if _, _, err := q.Get("x"); err == nil {
		t.Error("no error")
	}
	if _, err := q.Newest(Filter{}, 1); err == nil {
		t.Error("no error")
	}
}

// The whole door on the real journal, closed and opened again.
func TestOnTheRealJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	store, err := journal.OpenStore(dir, journal.Options{ReserveBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	shard := func(name string) *journal.Journal {
		j, err := store.Shard(name)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	q := open(t, shard(QuarantineShard))
	main := shard("edge-0")
	d, err := New(Options{Feed: "edge", Log: main, Quarantine: q, Trust: true, Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	want := map[feeds.TenantID]string{}
	for i := range 20 {
		var values []string
		for n := range 30 {
			tenant := feeds.TenantID(fmt.Sprintf("t%d", n%4))
			line := event(fmt.Sprintf("%d-%d", i, n), string(tenant), "")
			values = append(values, line, fmt.Sprintf("bad %d-%d", i, n))
			want[tenant] += fmt.Sprintf("%d-%d ", i, n)
		}
		res, err := d.Submit(context.Background(), request("", values...))
		if err != nil || res.Accepted != 30 || len(res.Rejected) != 30 {
			t.Fatalf("%+v %v", res, err)
		}
	}
	for tenant, ids := range want {
		if got := readIDs(t, main, tenant); got != ids {
			t.Errorf("%s: %s\nwant %s", tenant, got, ids)
		}
	}
	value, _ := main.Fact(CountsKey("edge"))
	if c := ParseCounts(value); c != (Counts{Read: 1200, Accepted: 600, Quarantined: 600}) {
		t.Errorf("%+v", c)
	}
	if got := ids(t, q, Filter{}); len(got) != 600 {
		t.Errorf("%d entries", len(got))
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

func readIDs(t *testing.T, j *journal.Journal, tenant feeds.TenantID) string {
	t.Helper()
	var out strings.Builder
	var c journal.Chunk
	for at := (journal.Position{}); ; at = c.Next {
		if err := j.Read(j.Tenant(tenant), at, journal.ReadOptions{MaxBytes: 4096}, &c); err != nil {
			t.Fatal(err)
		}
		for line := range lines(c.Data) {
			_, rest, _ := strings.Cut(string(line), `"event_id":"`)
			id, _, _ := strings.Cut(rest, `"`)
			out.WriteString(id + " ")
		}
		if !c.More {
			return out.String()
		}
	}
}
