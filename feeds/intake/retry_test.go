package intake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
)

// retry does what the service does with an entry; died ends it at a step.
func (r *rig) retry(t *testing.T, id string, died int) (Result, error) {
	t.Helper()
	e, ok, err := r.q.Get(id)
	if err != nil || !ok {
		t.Fatalf("entry %s: %v %v", id, ok, err)
	}
	tenant := e.Tenant
	if tenant == "" {
		tenant = Unrouted
	}
	if _, done := r.main.Fact(retriedPrefix + id); !done {
		if res, err := r.Retry(context.Background(), &e); err != nil || died == 1 {
			return res, err
		}
	}
	return Result{}, r.q.Forget(context.Background(), id, tenant)
}

func known(tenants ...feeds.TenantID) func(*Options) {
	return func(o *Options) {
		o.Trust, o.Known = true, func(id feeds.TenantID) bool { return slices.Contains(tenants, id) }
	}
}

func TestRetryAfterAFix(t *testing.T) {
	r := newRig(t, known("acme"))
	bad := `{"event_id":"bad"}`
	r.submit(t, request("", event("e1", "ghost", ""), bad, event("e2", "acme", "")))
	list := r.entries(t)
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	at := maps.Collect(func(yield func(string, Entry) bool) {
		for _, e := range list {
			yield(e.Reason[:6], e)
		}
	})
	ghost := at["tenant"]
	res, err := r.retry(t, ghost.ID, 0)
	if !errors.Is(err, ErrNoEvent) || len(res.Rejected) != 1 || !strings.Contains(res.Rejected[0].Reason, "ghost") {
		t.Errorf("before the fix: %+v %v", res, err)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 3, Accepted: 1, Quarantined: 1, Unrouted: 1}) || len(r.entries(t)) != 2 {
		t.Errorf("a retry in vain counts: %+v", c)
	}
	r.Door.o.Known = func(feeds.TenantID) bool { return true }
	if _, err := r.retry(t, ghost.ID, 0); err != nil {
		t.Fatal(err)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 4, Accepted: 2, Quarantined: 1, Unrouted: 1, Retried: 1}) || !c.Balanced() {
		t.Errorf("%+v", c)
	}
	if got := r.entries(t); len(got) != 1 || got[0].ID == ghost.ID || r.q.Sizes().Entries != 1 || !r.q.WasRetried(ghost.ID) {
		t.Errorf("listed: %+v, %+v", got, r.q.Sizes())
	}
	if last := r.main.events[len(r.main.events)-1]; last.tenant != "ghost" || !strings.Contains(last.line, `"event_id":"e1"`) {
		t.Errorf("%+v", last)
	}
	// The source reads the same again: it is not there anew.
	r.Door.o.Known = func(feeds.TenantID) bool { return false }
	if r.submit(t, request("", event("e1", "ghost", ""))); len(r.entries(t)) != 1 {
		t.Error("what was retried is listed again")
	}
}

// TestARetryThatSucceedsInPart: what is no event yet stands in an entry of its
// own, wherever the program dies on the way.
func TestARetryThatSucceedsInPart(t *testing.T) {
	for died := range 3 {
		r := newRig(t, known("acme"))
		array := "[" + event("e1", "", "") + `,"x",` + event("e2", "", "") + "]"
		if err := r.q.Put(context.Background(), Entry{ID: "whole", Time: clock, Tenant: "acme", Feed: "edge", Format: "canonical", Position: "in/a.ndjson:7", Reason: "why", Data: []byte(array)}); err != nil {
			t.Fatal(err)
		}
		steps := 0
		if died == 2 { // between the quarantine and the journal
			r.main.before = func(*journal.Batch) error {
				if steps++; steps == 1 {
					return feeds.ErrStopped
				}
				return nil
			}
		}
		_, err := r.retry(t, "whole", died)
		if (err != nil) != (died == 2) {
			t.Fatal(err)
		}
		r.q = open(t, r.bad)
		r.Door.o.Quarantine = r.q
		list := r.entries(t)
		switch {
		case died == 0 && (len(list) != 1 || list[0].Of != "whole" || string(list[0].Data) != `"x"` || list[0].Position != "in/a.ndjson:7"):
			t.Errorf("%+v", list)
		case died == 2 && (len(list) != 1 || list[0].ID != "whole"):
			t.Errorf("died between quarantine and journal: %+v", list)
		}
		if died > 0 {
			if _, err := r.retry(t, "whole", 0); err != nil {
				t.Fatal(err)
			}
		}
		if list = r.entries(t); len(list) != 1 || string(list[0].Data) != `"x"` {
			t.Errorf("in the end: %+v", list)
		}
		if got := strings.Count(r.main.all(), "\n"); got != 2 {
			t.Errorf("died at %d: %d events", died, got)
		}
		if c := r.main.feed("edge"); c != (Counts{Read: 3, Accepted: 2, Quarantined: 1, Retried: 3}) {
			t.Errorf("died at %d: %+v", died, c)
		}
		if _, err := r.retry(t, list[0].ID, 0); !errors.Is(err, ErrNoEvent) || len(r.entries(t)) != 1 {
			t.Errorf("the rest: %v", err)
		}
	}
}

func TestRetriedEventsHaveTheSameIDs(t *testing.T) {
	var ids [2]string
	for i := range ids {
		r := newRig(t, known("acme"))
		if err := r.q.Put(context.Background(), Entry{ID: "q1", Time: clock, Tenant: "acme", Feed: "edge", Format: "canonical", Data: []byte(event("", "", ""))}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.retry(t, "q1", 1); err != nil {
			t.Fatal(err)
		}
		ids[i] = r.main.all()
	}
	if ids[0] != ids[1] || !strings.Contains(ids[0], `"event_id":"quarantine:q1:0"`) {
		t.Errorf("%s%s", ids[0], ids[1])
	}
}

func TestRetriedFactsAreFoundAfterACrash(t *testing.T) {
	s := &site{t: t, dir: t.TempDir(), now: clock}
	s.open()
	defer func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	q := s.doors[0].o.Quarantine
	if err := q.Put(context.Background(), Entry{ID: "q1", Time: clock, Feed: "edge", Format: "canonical", Tenant: "acme", Data: []byte(event("e1", "", ""))}); err != nil {
		t.Fatal(err)
	}
	e, _, err := q.Get("q1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.doors[0].Retry(context.Background(), &e); err != nil {
		t.Fatal(err)
	}
	s.restart()
	if got := fmt.Sprint(maps.Collect(Retried(s.logs[0].Facts))); got != "map[q1:acme]" {
		t.Errorf("%s", got)
	}
	s.logs[0].PutLater(RetriedFact("q1"))
	if got := maps.Collect(Retried(s.logs[0].Facts)); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestEntriesExpireByAge(t *testing.T) {
	log := &fakeLog{}
	q := open(t, log)
	for i := range 10 {
		if err := q.Put(context.Background(), Entry{ID: fmt.Sprint(i), Time: clock.Add(time.Duration(i) * 24 * time.Hour), Tenant: feeds.TenantID([]string{"acme", ""}[i%2]), Feed: "x", Data: []byte("d")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Forget(context.Background(), "2", "acme"); err != nil {
		t.Fatal(err)
	}
	log.events[len(log.events)-1].time = clock.Add(9 * 24 * time.Hour).UnixMilli()
	for _, c := range []struct {
		days    int
		want    string
		expired uint64
	}{
		{30, "[0 4 6 8 1 3 5 7 9]", 0}, {34, "[4 6 8 5 7 9]", 3}, {34, "[4 6 8 5 7 9]", 3}, {38, "[8 9]", 7}, {60, "[]", 9},
	} {
		if err := q.Expire(context.Background(), clock.Add(time.Duration(c.days)*24*time.Hour), 1<<30); err != nil {
			t.Fatal(err)
		}
		for _, q := range []*Quarantine{q, open(t, log)} {
			if got, s := fmt.Sprint(ids(t, q, Filter{})), q.Sizes(); got != c.want || s.Expired != c.expired || s.Entries != len(ids(t, q, Filter{})) {
				t.Errorf("after %d days: %s, %+v; want %s, %d expired", c.days, got, s, c.want, c.expired)
			}
		}
	}
	if s := q.Sizes(); s.Bytes != 0 || len(q.gone) != 0 {
		t.Errorf("%+v, %d remembered", s, len(q.gone))
	}
}

// TestEntriesExpireBySize: who has most loses its oldest; who has little, none.
func TestEntriesExpireBySize(t *testing.T) {
	log := &fakeLog{}
	q := open(t, log)
	for i := range 100 {
		for _, e := range []Entry{{Tenant: "much"}, {Tenant: "less"}, {Tenant: "least"}} {
			if e.Tenant == "less" && i%4 != 0 || e.Tenant == "least" && i != 0 {
				continue
			}
			e.ID, e.Time, e.Feed, e.Data = fmt.Sprintf("%s-%d", e.Tenant, i), clock, "x", []byte(strings.Repeat("x", 1000))
			if err := q.Put(context.Background(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	one := q.Sizes().Bytes / 126
	if err := q.Expire(context.Background(), clock, 80*one); err != nil {
		t.Fatal(err)
	}
	n := map[feeds.TenantID]int{}
	for _, tenant := range []feeds.TenantID{"much", "less", "least"} {
		list := ids(t, q, Filter{Tenant: tenant})
		n[tenant] = len(list)
		if tenant == "much" && list[len(list)-1] != "much-99" {
			t.Errorf("the newest went: %v", list)
		}
	}
	s := q.Sizes()
	if n["less"] != 25 || n["least"] != 1 || n["much"] < 50 || n["much"] > 54 || s.Bytes > 80*one || s.Expired != uint64(100-n["much"]) {
		t.Errorf("%v, %+v", n, s)
	}
	if err := q.Expire(context.Background(), clock, 6*one); err != nil {
		t.Fatal(err)
	}
	if got := len(ids(t, q, Filter{Tenant: "less"})); got > 3 || got == 0 {
		t.Errorf("%d of the second", got)
	}
}

// TestEntriesExpireOnTheRealJournal: what expired stays so, and stays counted.
func TestEntriesExpireOnTheRealJournal(t *testing.T) {
	s := &site{t: t, dir: t.TempDir(), now: clock}
	s.open()
	defer func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	put := func(id string) {
		t.Helper()
		if err := s.doors[0].o.Quarantine.Put(context.Background(), Entry{ID: id, Time: s.now, Tenant: "acme", Feed: "edge", Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	put("old")
	s.now = s.now.Add(KeepFor + time.Hour)
	put("new")
	if err := s.doors[0].o.Quarantine.Expire(context.Background(), s.now, 1<<30); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		q := s.doors[0].o.Quarantine
		if got, size := fmt.Sprint(ids(t, q, Filter{})), q.Sizes(); got != "[new]" || size.Expired != 1 || size.Entries != 1 || size.Bytes == 0 {
			t.Errorf("%s, %+v", got, size)
		}
		s.restart()
	}
}

// TestARetryBetweenNumberedRecords: a partition's shard counts on for what is
// retried, and the partition's own numbers lie above that.
func TestARetryBetweenNumberedRecords(t *testing.T) {
	s := &site{t: t, dir: t.TempDir(), now: clock}
	s.open()
	defer func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	e := Entry{ID: "q1", Time: clock, Tenant: "acme", Feed: "edge", Format: "canonical", Position: "partition 0 offset 0", Data: []byte("[" + event("r1", "", "") + "," + event("r2", "", "") + "]")}
	for _, offset := range []feeds.Sequence{0, 5, 6} {
		if offset > 0 { // of offset 0 nothing was an event
			rec := feeds.Record{Value: []byte(event(fmt.Sprint("k", offset), "", "")), Seq: offset<<feeds.SequenceBits | 1}
			if _, err := s.doors[0].Submit(context.Background(), &Request{Format: "canonical", Tenant: "acme", Source: uint64(offset) + 1, Records: slices.Values([]feeds.Record{rec})}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.doors[0].Retry(context.Background(), &e); err != nil {
			t.Fatal(err)
		}
	}
	if got := readIDs(t, s.logs[0], "acme"); got != "r1 r2 k5 r1 r2 k6 r1 r2 " || s.logs[0].Source() != 7 {
		t.Errorf("%s, source %d", got, s.logs[0].Source())
	}
}
