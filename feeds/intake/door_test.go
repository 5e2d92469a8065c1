package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake/redact"
	"datasync/feeds/journal"
	"datasync/schemas"
)

const eventTime = 1795309107123

var clock = time.UnixMilli(eventTime + 5000)

// event is a canonical event of a tenant ("" leaves it out), with members put in.
func event(id, tenant, extra string) string {
	s := `{"source":"edge","kind":"match","event_time":1795309107123,"time_precision":"ms","action":"log","disposition":"detected","enforced":false,"severity":1`
	if id != "" {
		s += fmt.Sprintf(`,"event_id":%q`, id)
	}
	if tenant != "" {
		s += fmt.Sprintf(`,"tenant_id":%q`, tenant)
	}
	if extra != "" {
		s += "," + extra
	}
	return s + "}"
}

// rig is a door with a fake journal on either side.
type rig struct {
	*Door
	main, bad *fakeLog
	q         *Quarantine
}

func newRig(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	r := &rig{main: &fakeLog{}, bad: &fakeLog{}}
	var err error
	if r.q, err = OpenQuarantine(r.bad); err != nil {
		t.Fatal(err)
	}
	o := Options{Feed: "edge", Log: r.main, Quarantine: r.q, Now: func() time.Time { return clock },
		Known: func(id feeds.TenantID) bool { return id != "ghost" }}
	if change != nil {
		change(&o)
	}
	if r.Door, err = New(o); err != nil {
		t.Fatal(err)
	}
	return r
}

func trust(o *Options) { o.Trust = true }

// request hands over values as records of a file.
func request(tenant feeds.TenantID, values ...string) *Request {
	var recs []feeds.Record
	for i, v := range values {
		recs = append(recs, feeds.Record{Value: []byte(v), Position: fmt.Sprintf("in/a.ndjson:%d", i), ID: fmt.Sprintf("f:%d", i)})
	}
	return &Request{Format: "canonical", Tenant: tenant, Records: slices.Values(recs)}
}

func (r *rig) submit(t testing.TB, req *Request) Result {
	t.Helper()
	res, err := r.Submit(context.Background(), req)
	if err != nil {
		t.Fatal(err)
	}
	if c := r.main.feed("edge"); !c.Balanced() {
		t.Errorf("the feed does not balance: %+v", c)
	}
	return res
}

func (r *rig) entries(t testing.TB) (list []Entry) {
	t.Helper()
	for e, err := range r.q.List(Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func TestSubmitKeepsEventsByTenant(t *testing.T) {
	r := newRig(t, trust)
	req := request("", event("e1", "acme", ""), event("e2", "beta", ""), event("e3", "acme", ""))
	req.Source = 42
	res := r.submit(t, req)
	if res.Accepted != 3 || len(res.Rejected) != 0 || res.Receipt.Commit != 1 || r.main.source != 42 {
		t.Errorf("%+v, source %d", res, r.main.source)
	}
	var got []string
	for _, e := range r.main.events {
		got = append(got, string(e.tenant))
		if e.kind != uint8(schemas.KindMatch) || e.time != eventTime || e.seq != 0 || !strings.HasSuffix(e.line, "}\n") {
			t.Errorf("%+v", e)
		}
	}
	if fmt.Sprint(got) != "[acme beta acme]" {
		t.Errorf("tenants %v", got)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 3, Accepted: 3}) {
		t.Errorf("%+v", c)
	}
}

func TestSequencesFollowTheSource(t *testing.T) {
	r := newRig(t, nil)
	at := feeds.Sequence(7 << feeds.SequenceBits)
	recs := []feeds.Record{{Value: []byte("[" + event("", "", "") + ",{}," + event("", "", "") + "]"), Seq: at, ID: "k:7", Time: time.UnixMilli(99)}}
	r.submit(t, &Request{Format: "canonical", Tenant: "acme", Records: slices.Values(recs)})
	if len(r.main.events) != 2 || r.main.events[0].seq != at || r.main.events[1].seq != at+2 {
		t.Fatalf("%+v", r.main.events)
	}
	for i, id := range []string{`"event_id":"k:7:0"`, `"event_id":"k:7:2"`} {
		if line := r.main.events[i].line; !strings.Contains(line, id) || !strings.Contains(line, `"ingest_time":99,`) {
			t.Errorf("event %d: %s", i, line)
		}
	}
}

func TestBadRecordsDoNotStopAFeed(t *testing.T) {
	r := newRig(t, trust)
	big := `"note":"` + strings.Repeat("x", 300<<10) + `"`
	good := event("", "acme", "")
	values := []string{
		good,
		`{"source":`,
		strings.Replace(good, "edge", "ed\nge", 1),
		strings.Replace(good, "false", `"no"`, 1),
		event("", "", ""),
		event("", "acme", big),
		strings.Replace(good, "edge", "ed\xffge", 1),
		strings.Replace(good, "1795309107123", "4950000000000", 1),
		event("", "acme", `"kind":"match"`),
		event("", "ghost", ""),
		good,
	}
	res := r.submit(t, request("", values...))
	if res.Accepted != 2 || len(res.Rejected) != 9 {
		t.Fatalf("%d accepted, rejected %+v", res.Accepted, res.Rejected)
	}
	for i, rej := range res.Rejected {
		if rej.Index != i+1 || rej.Reason == "" {
			t.Errorf("%+v", rej)
		}
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 11, Accepted: 2, Quarantined: 8, Unrouted: 1}) {
		t.Errorf("%+v", c)
	}
	list := r.entries(t)
	if len(list) != 9 {
		t.Fatalf("%d in quarantine", len(list))
	}
	for _, e := range list {
		if e.Feed != "edge" || e.Position == "" || e.Reason == "" || len(e.Data) == 0 || !e.Time.Equal(clock) || e.Format != "canonical" {
			t.Errorf("%.300v", e)
		}
		one, ok, err := r.q.Get(e.ID)
		if err != nil || !ok || string(one.Data) != string(e.Data) {
			t.Errorf("get %s: %v %v", e.ID, ok, err)
		}
	}
	if _, ok, err := r.q.Get("nothing"); ok || err != nil {
		t.Errorf("got nothing: %v %v", ok, err)
	}
	found := false
	for e, err := range r.q.List(Filter{Tenant: "ghost"}) {
		found = true
		if err != nil || !strings.Contains(e.Reason, "not known") || !strings.Contains(string(e.Data), `"tenant_id":"ghost"`) {
			t.Errorf("%+v %v", e, err)
		}
	}
	if !found {
		t.Error("the unrouted event is not kept")
	}
}

// What a transport knows to be no event is kept with the transport's reason,
// though an adapter could have read it.
func TestATransportsOwnRefusal(t *testing.T) {
	r := newRig(t, nil)
	req := request("acme", event("e1", "", ""), event("e2", "", ""))
	recs := slices.Collect(req.Records)
	recs[1].Bad = "line is too long"
	req.Records = slices.Values(recs)
	res := r.submit(t, req)
	if res.Accepted != 1 || len(res.Rejected) != 1 || res.Rejected[0] != (Rejection{1, "line is too long"}) {
		t.Errorf("%+v", res)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 2, Accepted: 1, Quarantined: 1}) {
		t.Errorf("counts %+v", c)
	}
	if es := r.entries(t); len(es) != 1 || es[0].Tenant != "acme" || es[0].Reason != "line is too long" || es[0].Position != "in/a.ndjson:1" || !strings.Contains(string(es[0].Data), `"e2"`) {
		t.Errorf("quarantine: %+v", es)
	}
}

func TestOnlyBadRecordsStillMoveTheSource(t *testing.T) {
	r := newRig(t, nil)
	req := request("acme", "garbage")
	req.Source = 9
	req.Facts = func(res *Result) []journal.Fact {
		if res.Accepted != 0 || len(res.Rejected) != 1 {
			t.Errorf("facts are asked of %+v", res)
		}
		return []journal.Fact{{Key: "file/x", Value: []byte("1")}}
	}
	r.submit(t, req)
	if r.main.source != 9 || string(r.main.facts["file/x"]) != "1" || len(r.entries(t)) != 1 {
		t.Errorf("source %d facts %v", r.main.source, r.main.facts)
	}
	empty := request("acme")
	r.submit(t, empty)
	if r.main.n != 1 {
		t.Errorf("nothing at all made a commit")
	}
}

func TestTenantsAreNotMixed(t *testing.T) {
	for _, c := range []struct {
		name        string
		trust       bool
		tenant, key string
		event, want string // whose event it is; "" is rejected
		reason      string
	}{
		{"path names, event silent", false, "acme", "", "", "acme", ""},
		{"path and event agree", false, "acme", "", "acme", "acme", ""},
		{"path and event differ", false, "acme", "", "beta", "", "beta"},
		{"event names, untrusted", false, "", "", "acme", "", "does not trust"},
		{"event names, trusted", true, "", "", "acme", "acme", ""},
		{"record key names", true, "", "beta", "", "beta", ""},
		{"record key and event differ", true, "", "beta", "acme", "", "acme"},
		{"record key is a partition key", true, "", "203.0.113.7", "acme", "acme", ""},
		{"record key of nobody we know", true, "", "ghost", "acme", "acme", ""},
		{"record key untrusted", false, "acme", "beta", "", "acme", ""},
		{"nobody named", true, "", "", "", "", "names no tenant"},
		{"name out of bounds", true, "", "", "ACME", "", "no valid name"},
	} {
		r := newRig(t, func(o *Options) { o.Trust = c.trust })
		rec := feeds.Record{Value: []byte(event("", c.event, "")), Key: []byte(c.key)}
		res := r.submit(t, &Request{Format: "canonical", Tenant: feeds.TenantID(c.tenant), Records: slices.Values([]feeds.Record{rec})})
		switch {
		case c.want == "":
			if len(res.Rejected) != 1 || !strings.Contains(res.Rejected[0].Reason, c.reason) || len(r.main.events) != 0 {
				t.Errorf("%s: %+v", c.name, res)
			}
		case len(r.main.events) != 1 || string(r.main.events[0].tenant) != c.want || !strings.Contains(r.main.events[0].line, `"tenant_id":"`+c.want+`"`):
			t.Errorf("%s: %+v %+v", c.name, res, r.main.events)
		}
	}
}

func TestSecretsReachNeitherJournalNorQuarantine(t *testing.T) {
	r := newRig(t, nil)
	secrets := map[string]string{"hunter2secret": "password=", "4111111111111111": "n=", "078-05-1120": "n=", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig": "n="}
	var values []string
	for s, name := range secrets {
		q := fmt.Sprintf(`"http_query":"a=1&%s%s"`, name, s)
		values = append(values,
			event("", "", q),                   // accepted
			event("", "", q+`,"kind":"match"`), // refused as a whole, valid JSON
			event("", "beta", q),               // another tenant's
			event("", "", q)+"}",               // broken
			name+s,                             // no JSON
			"\xff "+name+s+"\n",                // no text
			strings.Replace(event("", "", q), `"log"`, `"`+name+s+`"`, 1), // quoted in the reason
		)
	}
	values = append(values, `{"apiKey":"hunter2secret","NetaceaUserIdCookie":"hunter2secret"}`)
	res := r.submit(t, request("acme", values...))
	if res.Accepted != len(secrets) {
		t.Fatalf("%d accepted: %+v", res.Accepted, res.Rejected)
	}
	everything := r.main.all() + r.bad.all() + fmt.Sprint(res)
	for _, e := range r.entries(t) {
		everything += string(e.Data)
		if len(e.Redactions) == 0 {
			t.Errorf("nothing is named in %+v", e)
		}
	}
	for s := range secrets {
		if i := strings.Index(everything, s); i >= 0 {
			t.Errorf("%s is in …%s", s, everything[max(0, i-200):i+40])
		}
	}
	if !strings.Contains(r.main.all(), `"redactions":["http_query:credentials`) {
		t.Errorf("not named: %s", r.main.all())
	}
}

func TestATenantsOwnRules(t *testing.T) {
	rules, err := redact.Compile(redact.Spec{Builtin: []string{}, QueryParams: []string{"session"}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *Options) {
		o.Trust = true
		o.Rules = func(id feeds.TenantID) *redact.Rules {
			if id == "acme" {
				return rules
			}
			return nil
		}
	})
	q := `"http_query":"session=abc&password=xyz"`
	r.submit(t, request("", event("", "acme", q), event("", "beta", q)))
	if line := r.main.events[0].line; !strings.Contains(line, "session=[redacted]&password=xyz") {
		t.Errorf("acme: %s", line)
	}
	if line := r.main.events[1].line; !strings.Contains(line, "session=abc&password=[redacted]") {
		t.Errorf("beta: %s", line)
	}
}

// The quarantine comes first and the journal second: whichever fails, nothing
// is acknowledged, and the repeat adds nothing twice.
func TestFailuresAcknowledgeNothing(t *testing.T) {
	values := []string{event("", "", ""), "garbage"}
	r := newRig(t, nil)
	r.bad.before = func(*journal.Batch) error { return feeds.ErrFull }
	if _, err := r.Submit(context.Background(), request("acme", values...)); !errors.Is(err, feeds.ErrFull) {
		t.Fatalf("err %v", err)
	}
	if r.main.n != 0 {
		t.Fatal("events were kept before the quarantine was durable")
	}
	r.bad.before = nil
	r.main.before = func(*journal.Batch) error {
		if len(r.bad.events) == 0 {
			t.Error("the journal came before the quarantine")
		}
		return feeds.ErrStopped
	}
	if _, err := r.Submit(context.Background(), request("acme", values...)); !errors.Is(err, feeds.ErrStopped) {
		t.Fatalf("err %v", err)
	}
	r.main.before = nil
	// As after a crash: a new process over the same quarantine reads the same again.
	q, err := OpenQuarantine(r.bad)
	if err != nil {
		t.Fatal(err)
	}
	again := newRig(t, func(o *Options) { o.Quarantine = q })
	again.q = q
	again.submit(t, request("acme", values...))
	if list := again.entries(t); len(list) != 1 || len(r.bad.events) != 1 {
		t.Errorf("%d entries, %d lines", len(list), len(r.bad.events))
	}
	again.submit(t, request("acme", "other", "garbage"))
	if list := again.entries(t); len(list) != 2 {
		t.Errorf("other bytes in the same place are another entry: %d", len(list))
	}
}

func TestOptionsAndFormats(t *testing.T) {
	q, err := OpenQuarantine(&fakeLog{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{}, {Feed: "Edge", Log: &fakeLog{}, Quarantine: q}, {Feed: "edge", Quarantine: q}, {Feed: "edge", Log: &fakeLog{}}} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v passed", o)
		}
	}
	r := newRig(t, nil)
	if _, err := r.Submit(context.Background(), &Request{Format: "nope"}); !errors.Is(err, ErrFormat) {
		t.Errorf("err %v", err)
	}
	if err := r.Repeat(context.Background(), 3); err != nil {
		t.Fatal(err)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 3, Duplicate: 3}) || !c.Balanced() {
		t.Errorf("%+v", c)
	}
}

func TestConcurrentSubmits(t *testing.T) {
	r := newRig(t, trust)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", g, i)
				res, err := r.Submit(context.Background(), request("", event(id, fmt.Sprintf("t%d", i%7), ""), "bad "+id))
				if err != nil || res.Accepted != 1 || len(res.Rejected) != 1 {
					t.Errorf("%+v %v", res, err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, e := range r.main.events {
		var ev schemas.Event
		if err := schemas.Decode([]byte(e.line), &ev); err != nil || ev.TenantID != string(e.tenant) || seen[ev.EventID] {
			t.Errorf("%v %s", err, e.line)
		}
		seen[ev.EventID] = true
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 800, Accepted: 400, Quarantined: 400}) {
		t.Errorf("%+v", c)
	}
}

// discard keeps nothing: what is left is the cost of intake itself.
type discard struct{ fakeLog }

func (*discard) Append(context.Context, *journal.Batch) (journal.Receipt, error) {
	return journal.Receipt{}, nil
}

func manyEvents(n int) []feeds.Record {
	recs := make([]feeds.Record, n)
	for i := range recs {
		recs[i].Value = []byte(event(fmt.Sprintf("gen-%d", i), fmt.Sprintf("t%04d", i%200),
			`"client_ip":"203.0.113.7","user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0","http_method":"GET",`+
				`"http_host":"shop.example.com","http_path":"/products/42","http_query":"id=1&colour=red","http_status":403,"bytes_out":324`))
	}
	return recs
}

func TestSubmitAllocatesNothingPerEvent(t *testing.T) {
	log := &discard{}
	r := newRig(t, func(o *Options) { o.Trust, o.Log = true, log })
	recs := manyEvents(1000)
	req := &Request{Format: "canonical", Records: slices.Values(recs)}
	n := testing.AllocsPerRun(5, func() {
		if _, err := r.Submit(context.Background(), req); err != nil {
			t.Fatal(err)
		}
	})
	if n > 500 { // under the race detector pools forget now and then
		t.Errorf("%v allocations for 1000 events", n)
	}
}

func BenchmarkSubmit(b *testing.B) {
	log := &discard{}
	r := newRig(b, func(o *Options) { o.Trust, o.Log = true, log })
	recs := manyEvents(1000)
	req := &Request{Format: "canonical", Records: slices.Values(recs)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Submit(context.Background(), req); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/event")
}
