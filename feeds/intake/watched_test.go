package intake

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake/alerts"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// watching gives acme alerts at 10 points of a client's address within a minute.
func watching(logs func() []alerts.Log, now func() time.Time) *alerts.Book {
	s := &alerts.Settings{Entity: "client_ip", Window: time.Minute, Threshold: 10, DisabledRules: []string{"off"}, Direction: "inbound"}
	return alerts.NewBook(alerts.Options{Logs: logs, Now: now, Settings: func(id feeds.TenantID) *alerts.Settings {
		if id == "acme" {
			return s
		}
		return nil
	}})
}

func scored(id, tenant, ip string, points float64) string {
	return event(id, tenant, fmt.Sprintf(`"ingest_time":1795309107123,"client_ip":%q,"rule_id":"r1","score":%g`, ip, points))
}

func watch(o *Options) { o.Trust, o.Alerts = true, watching(nil, o.Now).Watch }

func TestAlertsLieInTheCommitOfTheirEvents(t *testing.T) {
	r := newRig(t, watch)
	res := r.submit(t, request("", scored("e1", "acme", "192.0.2.1", 6), scored("e2", "beta", "192.0.2.1", 60), scored("e3", "acme", "192.0.2.1", 6), scored("e4", "acme", "192.0.2.1", 6)))
	if res.Accepted != 4 || len(r.main.events) != 5 || res.Receipt.Commit != 1 {
		t.Fatalf("%+v\n%s", res, r.main.all())
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 4, Made: 1, Accepted: 5}) {
		t.Errorf("%+v", c)
	}
	// Each record's alerts stand behind its events.
	a := r.main.events[3]
	if a.tenant != "acme" || a.kind != uint8(schemas.KindAlert) || a.time != eventTime || !strings.Contains(a.line, `"correlation_id":"e3"`) || !strings.Contains(a.line, `"score":12`) || !strings.HasSuffix(a.line, "}\n") {
		t.Errorf("%+v", a)
	}
}

func TestAlertsHaveNumbersWhereTheSourceNumbers(t *testing.T) {
	r := newRig(t, watch)
	array := "[" + strings.Join([]string{scored("e1", "acme", "192.0.2.1", 10), `"bad"`, scored("e2", "acme", "192.0.2.2", 10), scored("e3", "acme", "192.0.2.2", 1)}, ",") + "]"
	first := feeds.Sequence(7<<feeds.SequenceBits | 1)
	r.submit(t, &Request{Format: "canonical", Records: slices.Values([]feeds.Record{{Value: []byte(array), Seq: first}, {Value: []byte(scored("e4", "acme", "192.0.2.1", 1)), Seq: first + 1<<feeds.SequenceBits}})})
	var got []feeds.Sequence
	for _, e := range r.main.events {
		got = append(got, e.seq-first)
	}
	if want := []feeds.Sequence{0, 2, 3, 4, 5, 1 << feeds.SequenceBits}; !slices.Equal(got, want) {
		t.Errorf("numbers %v, want %v", got, want)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 5, Made: 2, Accepted: 6, Quarantined: 1}) {
		t.Errorf("%+v", c)
	}
}

func TestDisabledRulesAreSuppressed(t *testing.T) {
	r := newRig(t, watch)
	res := r.submit(t, request("acme", event("e1", "", `"rule_id":"off"`), event("e2", "", `"rule_id":"on"`)))
	if c := r.main.feed("edge"); c != (Counts{Read: 2, Accepted: 1, Suppressed: 1}) || res.Accepted != 2 || len(res.Rejected) != 0 || len(r.main.events) != 1 {
		t.Errorf("%+v, %+v", c, res)
	}
	res = r.submit(t, request("acme", event("e3", "", `"rule_id":"off"`)))
	if c := r.main.feed("edge"); c != (Counts{Read: 3, Accepted: 1, Suppressed: 2}) || res.Accepted != 1 {
		t.Errorf("%+v, %+v", c, res)
	}
}

func TestAlertsOfEventsThatWereNotKept(t *testing.T) {
	r := newRig(t, watch)
	req := request("acme", scored("e1", "", "192.0.2.1", 6), scored("e2", "", "192.0.2.1", 6))
	var lost string
	r.main.before = func(b *journal.Batch) error {
		last := b.Events[len(b.Events)-1]
		lost = string(b.Arena[last.Off:last.Off+last.Len]) + string(last.Rest)
		return feeds.ErrFull
	}
	if _, err := r.Submit(context.Background(), req); !errors.Is(err, feeds.ErrFull) {
		t.Fatal(err)
	}
	r.main.before = nil
	r.submit(t, req)
	if len(r.main.events) != 3 || r.main.events[2].line != lost {
		t.Errorf("%s\nbefore: %s", r.main.all(), lost)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 2, Made: 1, Accepted: 3}) {
		t.Errorf("%+v", c)
	}
}

// site is two feeds' doors over the real journal, which can be closed and
// opened again.
type site struct {
	t     *testing.T
	dir   string
	now   time.Time
	store *journal.Store
	doors [2]*Door
	logs  [2]*journal.Journal
}

func (s *site) open() {
	s.t.Helper()
	var err error
	now := func() time.Time { return s.now }
	if s.store, err = journal.OpenStore(s.dir, journal.Options{ReserveBytes: 1 << 20, Now: now}); err != nil {
		s.t.Fatal(err)
	}
	q, err := s.store.Shard(QuarantineShard)
	if err != nil {
		s.t.Fatal(err)
	}
	book := watching(func() []alerts.Log { return []alerts.Log{s.logs[0], s.logs[1]} }, now)
	for i := range s.doors {
		if s.logs[i], err = s.store.Shard(fmt.Sprintf("edge-%d", i)); err != nil {
			s.t.Fatal(err)
		}
		if s.doors[i], err = New(Options{Feed: "edge", Log: s.logs[i], Quarantine: open(s.t, q), Alerts: book.Watch, Now: now}); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) restart() {
	s.t.Helper()
	if err := s.store.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.open()
}

// post submits an event of acme that happens now and says how many alerts the
// door had made for it.
func (s *site) post(door int, id string, points float64) (made uint64) {
	s.t.Helper()
	before := s.made(door)
	line := strings.Replace(scored(id, "", "192.0.2.1", points), "1795309107123", fmt.Sprint(s.now.UnixMilli()), 2)
	if _, err := s.doors[door].Submit(context.Background(), request("acme", line)); err != nil {
		s.t.Fatal(err)
	}
	return s.made(door) - before
}

func (s *site) made(door int) uint64 {
	value, _ := s.logs[door].Fact(CountsKey("edge"))
	c := ParseCounts(value)
	if !c.Balanced() {
		s.t.Errorf("%+v", c)
	}
	return c.Made
}

// TestAlertsAcrossShardsAndRestarts: the matches of one client come through two
// feeds, and the program starts anew between any two of them.
func TestAlertsAcrossShardsAndRestarts(t *testing.T) {
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "journal"), now: clock}
	s.open()
	defer func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i, step := range []struct {
		pass   time.Duration
		door   int
		points float64
		alert  uint64
	}{
		{0, 0, 6, 0},
		{10 * time.Second, 1, 5, 1}, // 11 points over both
		{10 * time.Second, 0, 50, 0},
		{39 * time.Second, 1, 50, 0}, // told of less than a minute ago
		{13 * time.Second, 0, 1, 1},  // and again: 50 + 1 points
		{2 * time.Minute, 0, 9, 0},
		{59 * time.Second, 1, 2, 1},
		{48 * time.Hour, 0, 9, 0}, // long after the last, with nothing of it left
		{10 * time.Second, 0, 2, 1},
	} {
		s.now = s.now.Add(step.pass)
		if got := s.post(step.door, fmt.Sprint("e", i), step.points); got != step.alert {
			t.Errorf("step %d: %d alerts, want %d", i, got, step.alert)
		}
		s.restart()
	}
}

// TestAlertsGoOnWhereTheSourceStoodStill: the program was down for hours, and
// its source goes on where it was.
func TestAlertsGoOnWhereTheSourceStoodStill(t *testing.T) {
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "journal"), now: clock}
	s.open()
	defer func() {
		if err := s.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	s.post(0, "e1", 6)
	at := s.now.Add(time.Second)
	s.now = s.now.Add(5 * time.Hour)
	s.restart()
	line := strings.Replace(scored("e2", "", "192.0.2.1", 6), "1795309107123", fmt.Sprint(at.UnixMilli()), 2)
	if _, err := s.doors[0].Submit(context.Background(), request("acme", line)); err != nil {
		t.Fatal(err)
	}
	if s.made(0) != 1 {
		t.Errorf("%d alerts", s.made(0))
	}
}

// TestOneAlertHoweverManyAtOnce: a client's matches come through both doors,
// many at a time.
func TestOneAlertHoweverManyAtOnce(t *testing.T) {
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "journal"), now: clock}
	s.open()
	var wg sync.WaitGroup
	const each, posters = 25, 8
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				if _, err := s.doors[p%2].Submit(context.Background(), request("acme", scored(fmt.Sprintf("e%d-%d", p, i), "", "192.0.2.1", 1))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.made(0) + s.made(1); n != 1 {
		t.Errorf("%d alerts", n)
	}
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkAlerts is the door with an event of a tenant with alerts and of one without.
func BenchmarkAlerts(b *testing.B) {
	for _, tenant := range []string{"beta", "acme"} {
		b.Run(map[string]string{"beta": "without", "acme": "alerts"}[tenant], func(b *testing.B) {
			r := newRig(b, watch)
			r.main.before = func(*journal.Batch) error { return errKept }
			var values []string
			for i := range 100 {
				values = append(values, scored(fmt.Sprint("e", i), tenant, fmt.Sprintf("192.0.2.%d", i), 0.001))
			}
			req := request("", values...)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Submit(context.Background(), req); !errors.Is(err, errKept) {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
		})
	}
}

// errKept stands for what a journal costs: nothing.
var errKept = errors.New("not kept")
