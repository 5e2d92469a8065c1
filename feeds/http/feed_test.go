package httpfeed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/formats/compress"
)

const key = "Authorization"

func pack(t testing.TB, encoding, s string) string {
	return packReader(t, encoding, strings.NewReader(s))
}

func packReader(t testing.TB, encoding string, r io.Reader) string {
	t.Helper()
	var b bytes.Buffer
	z, err := compress.NewWriter(&b, compress.Codec(encoding), 0)
	if err == nil {
		_, err = io.Copy(z, r)
		if err == nil {
			_, err = z.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// exchange is a request and what it is answered with.
type exchange struct {
	name, method, path, body string
	headers                  []string
	status                   int
	says                     string // in the body
}

func TestBodies(t *testing.T) {
	big := `{"a":"` + strings.Repeat("x", 64<<10) + `"}`
	form := []string{key, "ka", "Content-Type", "application/x-www-form-urlencoded; charset=utf-8"}
	for _, c := range []exchange{
		{"path tenant", "POST", "/v1/ingest/canonical/acme", `{}`, []string{key, "ka"}, 200, `{"accepted":1,"rejected":[]}`},
		{"trailing slash, Netacea's header", "POST", "/v1/ingest/netacea/acme/", `{}`, []string{"X-Netacea-API-Key", "ka", "content-type", "application/json"}, 200, `"accepted":1`},
		{"key's tenant", "POST", "/v1/ingest/netacea", `{}`, []string{key, "Bearer ka"}, 200, `"accepted":1`},
		{"key's tenant, slash", "POST", "/v1/ingest/netacea/", `{}`, []string{key, "bearer ka"}, 200, `"accepted":1`},
		{"array", "POST", "/v1/ingest/netacea", " [{},\n{}] ", []string{key, "ka"}, 200, `"accepted":2`},
		{"lines", "POST", "/v1/ingest/netacea", "{}\n{}\r\n\n{}", []string{key, "ka"}, 200, `"accepted":3`},
		{"pretty", "POST", "/v1/ingest/netacea", "{\n\"a\": 1\n}\n", []string{key, "ka"}, 200, `"accepted":1`},
		{"some bad", "POST", "/v1/ingest/netacea", "{}\n7\nnope\n{}", []string{key, "ka"}, 200, `{"accepted":2,"rejected":[{"index":1,"reason":"not an object: 7"},{"index":2,"reason":"not an object: nope"}]}`},
		{"broken array", "POST", "/v1/ingest/netacea", `[{}, {"a":]`, []string{key, "ka"}, 200, `{"accepted":1,"rejected":[{"index":1,"reason":"not an object: {\"a\":]"}]}`},
		{"all bad", "POST", "/v1/ingest/canonical", "nope", []string{key, "ka"}, 400, `{"accepted":0,"rejected":[{"index":0,"reason":"not an object: nope"}]}`},
		{"empty array", "POST", "/v1/ingest/netacea", "[]", []string{key, "ka"}, 200, `"accepted":0`},
		{"empty", "POST", "/v1/ingest/canonical", "", []string{key, "ka"}, 400, "empty"},
		{"blank", "POST", "/v1/ingest/canonical", " \n ", []string{key, "ka"}, 400, "empty"},
		{"gzip", "POST", "/v1/ingest/netacea", pack(t, "gzip", "{}\n{}"), []string{key, "ka", "Content-Encoding", "gzip"}, 200, `"accepted":2`},
		{"zstd", "POST", "/v1/ingest/netacea", pack(t, "zstd", "{}\n{}"), []string{key, "ka", "Content-Encoding", "ZSTD"}, 200, `"accepted":2`},
		{"gzip unsaid", "POST", "/v1/ingest/canonical", pack(t, "gzip", "{}"), []string{key, "ka"}, 200, `"accepted":1`},
		{"identity", "POST", "/v1/ingest/canonical", "{}", []string{key, "ka", "Content-Encoding", "identity"}, 200, `"accepted":1`},
		{"no gzip", "POST", "/v1/ingest/canonical", "{}", []string{key, "ka", "Content-Encoding", "gzip"}, 400, "not valid gzip"},
		{"cut zstd", "POST", "/v1/ingest/canonical", pack(t, "zstd", "{}\n{}")[:9], []string{key, "ka", "Content-Encoding", "zstd"}, 400, "not valid zstd"},
		{"empty gzip", "POST", "/v1/ingest/canonical", "", []string{key, "ka", "Content-Encoding", "gzip"}, 400, "empty"},
		{"brotli", "POST", "/v1/ingest/canonical", "{}", []string{key, "ka", "Content-Encoding", "br"}, 415, "gzip, zstd"},
		{"two encodings", "POST", "/v1/ingest/canonical", "{}", []string{key, "ka", "Content-Encoding", "gzip, zstd"}, 415, "gzip, zstd"},
		{"form", "POST", "/v1/ingest/netacea", "Request=GET+%2F&Status=200", form, 415, "form"},
		{"multipart", "POST", "/v1/ingest/netacea", "--x", []string{key, "ka", "Content-Type", "multipart/form-data; boundary=x"}, 415, "form"},
		{"JSON called a form", "POST", "/v1/ingest/netacea", "{}", form, 200, `"accepted":1`},
		{"text/plain", "POST", "/v1/ingest/netacea", "{}", []string{key, "ka", "Content-Type", "text/plain"}, 200, `"accepted":1`},
		{"large", "POST", "/v1/ingest/canonical", big, []string{key, "ka"}, 413, "65536"},
		{"large decompressed", "POST", "/v1/ingest/canonical", pack(t, "gzip", big), []string{key, "ka", "Content-Encoding", "gzip"}, 413, "once decompressed"},
		{"four times too large", "POST", "/v1/ingest/canonical", strings.Repeat(big, 4)[:4*64<<10], []string{key, "ka"}, 413, "max_body"},
		{"largest", "POST", "/v1/ingest/canonical", big[:8] + big[16:], []string{key, "ka"}, 200, `"accepted":1`},
		{"long idempotency key", "POST", "/v1/ingest/netacea/acme", `{}`, []string{key, "ka", "Idempotency-Key", strings.Repeat("k", 1025)}, 400, "UUID"},
	} {
		c.run(t)
	}
}

func TestAddressesAndKeys(t *testing.T) {
	for _, c := range []exchange{
		{"no key", "POST", "/v1/ingest/canonical/acme", "{}", nil, 401, "X-Netacea-API-Key"},
		{"empty key", "POST", "/v1/ingest/canonical/acme", "{}", []string{key, "Bearer "}, 401, "no key"},
		{"wrong key", "POST", "/v1/ingest/canonical/acme", "{}", []string{key, "nope"}, 403, "nobody"},
		{"other tenant's key", "POST", "/v1/ingest/canonical/acme", "{}", []string{key, "Bearer kb"}, 403, "not tenant"},
		{"no such tenant", "POST", "/v1/ingest/canonical/nobody", "{}", []string{key, "ka"}, 403, "not tenant"},
		{"no such tenant, any key", "POST", "/v1/ingest/canonical/nobody", "{}", []string{key, "any"}, 404, "no tenant"},
		{"any key", "POST", "/v1/ingest/netacea/beta", "{}", []string{key, "any"}, 200, `"accepted":1`},
		{"events name the tenant", "POST", "/v1/ingest/canonical", "{}", []string{key, "any"}, 200, `"accepted":1`},
		{"nobody names the tenant", "POST", "/v1/ingest/netacea", "{}", []string{key, "any"}, 400, "/v1/ingest/netacea/{tenant}"},
		{"unknown format", "POST", "/v1/ingest/wat/acme", "{}", []string{key, "ka"}, 404, "formats are canonical, netacea"},
		{"no format", "POST", "/v1/ingest/", "{}", []string{key, "ka"}, 404, "formats are canonical, netacea"},
		{"too deep", "POST", "/v1/ingest/canonical/acme/x", "{}", []string{key, "ka"}, 404, "{format}/{tenant}"},
		{"other path", "POST", "/v1/ingestion", "{}", []string{key, "ka"}, 404, "{format}/{tenant}"},
		{"root", "GET", "/", "", nil, 404, "{format}/{tenant}"},
		{"GET", "GET", "/v1/ingest/canonical/acme", "", []string{key, "ka"}, 405, "POST"},
		{"PUT", "PUT", "/v1/ingest/canonical/acme", "{}", []string{key, "ka"}, 405, "POST"},
		{"Deepfence tries", "POST", "/v1/ingest/deepfence/acme", `{"text":"Test message from Deepfence"}`, []string{key, "ka"}, 200, `"accepted":0`},
		{"Deepfence tries without key", "POST", "/v1/ingest/deepfence/acme", `{"text":"x"}`, nil, 401, ""},
		{"Cloudflare tries", "POST", "/v1/ingest/cloudflare-http/acme", pack(t, "gzip", `{"content":"tests"}`), []string{key, "ka"}, 200, `"accepted":0`},
		{"Cloudflare tries too", "POST", "/v1/ingest/cloudflare-firewall/acme", pack(t, "gzip", "{\"content\":\"tests\"}\n"), []string{key, "ka", "Content-Encoding", "gzip"}, 200, `"accepted":0`},
		{"Deepfence without adapter", "POST", "/v1/ingest/deepfence/acme", `[{"rule_id":"x"}]`, []string{key, "ka"}, 404, "formats are canonical, netacea"},
		{"text is an event elsewhere", "POST", "/v1/ingest/netacea/acme", `{"text":"x"}`, []string{key, "ka"}, 200, `"accepted":1`},
	} {
		c.run(t)
	}
}

// run makes the request twice: with a length, and in chunks.
func (c exchange) run(t *testing.T) {
	t.Run(c.name, func(t *testing.T) {
		w := newWorld()
		s := start(t, w.options())
		for how, body := range map[string]io.Reader{"sized": strings.NewReader(c.body), "chunked": chunked(c.body)} {
			got, err := s.try(c.method, c.path, body, c.headers...)
			if err != nil {
				t.Fatal(how, err)
			}
			if got.status != c.status || !strings.Contains(got.body, c.says) {
				t.Errorf("%s: %d %s, want %d with %s", how, got.status, got.body, c.status, c.says)
			}
			if !json.Valid([]byte(got.body)) || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("%s: not JSON: %s", how, got.body)
			}
			if got.status == 405 && got.header.Get("Allow") != "POST" {
				t.Error("no Allow")
			}
		}
		if c.status != 200 && w.taken() > 0 {
			t.Errorf("answered %d and took %q", c.status, w.took)
		}
	})
}

func TestWhoseEventsTheyAre(t *testing.T) {
	w := newWorld()
	s := start(t, w.options())
	s.post(t, "/v1/ingest/netacea/acme", strings.NewReader("{}"), key, "ka")
	s.post(t, "/v1/ingest/canonical", strings.NewReader("{}"), key, "kb")
	s.post(t, "/v1/ingest/canonical", strings.NewReader("{}"), key, "any")
	for i, want := range []struct{ format, tenant string }{{"netacea", "acme"}, {"canonical", "beta"}, {"canonical", ""}} {
		if got := w.asked[i]; got.Format != want.format || string(got.Tenant) != want.tenant {
			t.Errorf("request %d: %s for %q, want %v", i, got.Format, got.Tenant, want)
		}
	}
}

func TestEveryRecordHasANameOfItsOwn(t *testing.T) {
	w := newWorld()
	s := start(t, w.options())
	for range 2 {
		s.post(t, "/v1/ingest/netacea", strings.NewReader(strings.Repeat("7\n", 200)), key, "ka")
	}
	w.crash = true
	for range 2 { // nothing accepted, so taken twice: but by the same names
		s.post(t, "/v1/ingest/netacea", strings.NewReader(strings.Repeat("7\n", 200)), key, "ka", "Idempotency-Key", "k")
	}
	names := map[string]bool{}
	for _, p := range w.places {
		names[p] = true
	}
	if len(w.places) != 800 || len(names) != 600 || !strings.HasSuffix(w.places[399], "#199") || !strings.HasPrefix(w.places[0], "127.0.0.1:") {
		t.Errorf("%d of %d: %q", len(names), len(w.places), w.places[390:410])
	}
}

// TestCanonicalBodiesGoOnWhole: their adapter takes them apart in the pass that
// judges them.
func TestCanonicalBodiesGoOnWhole(t *testing.T) {
	w := newWorld()
	s := start(t, w.options())
	body := "[{},\n{}]"
	s.post(t, "/v1/ingest/canonical", strings.NewReader(body), key, "ka", "Idempotency-Key", "k")
	if len(w.places) != 1 || !strings.HasSuffix(w.places[0], "#0") || w.last != body {
		t.Errorf("%q, %q", w.places, w.last)
	}
}

func TestFeedOfOneFormatAndTenant(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.Format, o.Tenant = "netacea", "acme"
	s := start(t, o)
	for _, c := range []struct {
		path, key string
		status    int
	}{
		{"/v1/ingest", "ka", 200}, {"/v1/ingest/", "ka", 200}, {"/v1/ingest/netacea/", "ka", 200}, {"/v1/ingest/netacea/acme", "ka", 200},
		{"/v1/ingest/netacea", "any", 200}, {"/v1/ingest/netacea", "kb", 403}, {"/v1/ingest/netacea/beta", "kb", 403},
		{"/v1/ingest/canonical/acme", "ka", 404},
	} {
		if got := s.post(t, c.path, strings.NewReader("{}"), key, c.key); got.status != c.status {
			t.Errorf("%s with %s: %d %s", c.path, c.key, got.status, got.body)
		}
	}
	for _, r := range w.asked {
		if r.Format != "netacea" || r.Tenant != "acme" {
			t.Errorf("submitted as %s of %s", r.Format, r.Tenant)
		}
	}
}

func TestQuota(t *testing.T) {
	w := newWorld()
	o := w.options()
	now := time.Unix(1e9, 0)
	o.Now = func() time.Time { return now }
	o.Rate = func(id feeds.TenantID) float64 { return map[feeds.TenantID]float64{"acme": 10}[id] }
	s := start(t, o)
	send := func(k string, n int) reply {
		return s.post(t, "/v1/ingest/canonical", strings.NewReader(strings.Repeat("{}\n", n)), key, k)
	}
	if got := send("ka", 40); got.status != 200 { // a batch above the burst is taken, and owed
		t.Fatal(got)
	}
	got := send("ka", 1)
	if got.status != 429 || got.header.Get("Retry-After") != "4" || !strings.Contains(got.body, "events_per_second") {
		t.Errorf("past the quota: %+v", got)
	}
	if got := send("kb", 100); got.status != 200 {
		t.Errorf("another tenant suffers: %+v", got)
	}
	now = now.Add(4 * time.Second)
	if got := send("ka", 1); got.status != 200 {
		t.Errorf("after Retry-After: %+v", got)
	}
}

func TestNothingIsAnsweredWith200UnlessItIsDurable(t *testing.T) {
	w := newWorld()
	var told []string
	ready := error(nil)
	o := w.options()
	o.OnError = func(err error) { told = append(told, err.Error()) }
	o.Ready = func() error { return ready }
	s := start(t, o)
	for _, err := range []error{feeds.ErrFull, feeds.ErrStopped, errors.New("disk on fire")} {
		w.err = err
		got := s.post(t, "/v1/ingest/canonical", strings.NewReader("{}"), key, "ka")
		if got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, err.Error()) {
			t.Errorf("%v: %+v", err, got)
		}
	}
	w.err, ready = nil, errors.New("disk is full")
	if got := s.post(t, "/v1/ingest/canonical", strings.NewReader("{}"), key, "ka"); got.status != 503 || !strings.Contains(got.body, "disk is full") {
		t.Errorf("not ready: %+v", got)
	}
	ready = nil
	if got := s.post(t, "/v1/ingest/canonical", strings.NewReader("{}"), key, "ka"); got.status != 200 {
		t.Errorf("ready again: %+v", got)
	}
	if len(told) != 2 || !strings.Contains(told[0], "journal is full") || !strings.Contains(told[1], "4 were refused") {
		t.Errorf("told %q", told)
	}
	if st := s.Status(); st.ByStatus[503] != 4 || st.Accepted != 1 || st.Memory != 0 || st.InFlight != 0 {
		t.Errorf("status %+v", st)
	}
}

// panicky is an intake with a bug.
type panicky struct{ world }

func (*panicky) Submit(context.Context, *intake.Request) (intake.Result, error) { panic("a bug") }

func TestAPanicIsToldAndCostsOneConnection(t *testing.T) {
	told := make(chan string, 1)
	o := newWorld().options()
	o.Intake = &panicky{}
	o.OnError = func(err error) { told <- err.Error() }
	s := start(t, o)
	if r, err := s.try("POST", "/v1/ingest/canonical", strings.NewReader("{}"), key, "ka"); err == nil {
		t.Errorf("answered %+v", r)
	}
	if m := <-told; !strings.Contains(m, "a bug") {
		t.Errorf("told %s", m)
	}
	if st := s.Status(); st.Memory != 0 || st.InFlight != 0 {
		t.Errorf("still taken: %+v", st)
	}
	if r := s.post(t, "/v1/ingest/canonical", strings.NewReader(""), key, "ka"); r.status != 400 {
		t.Errorf("afterwards: %+v", r)
	}
}

func TestLongAnswersAreCut(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.MaxBody = 1 << 20
	s := start(t, o)
	got := s.post(t, "/v1/ingest/canonical", strings.NewReader("{}\n"+strings.Repeat("7\n", 100_000)), key, "ka")
	var a struct {
		Rejected []any `json:"rejected"`
		More     int   `json:"rejected_more"`
	}
	if err := json.Unmarshal([]byte(got.body), &a); err != nil || len(got.body) > 600<<10 || len(a.Rejected)+a.More != 100_000 || got.status != 200 {
		t.Errorf("%d: %d bytes, %d + %d: %v", got.status, len(got.body), len(a.Rejected), a.More, err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	w := newWorld()
	for name, change := range map[string]func(*Options){
		"name": func(o *Options) { o.Name = "Edge" }, "intake": func(o *Options) { o.Intake = nil }, "facts": func(o *Options) { o.Facts = nil },
		"format": func(o *Options) { o.Format = "wat" }, "cert": func(o *Options) { o.Cert = "x.pem" }, "limit": func(o *Options) { o.MaxBody = -1 },
	} {
		o := w.options()
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), "http feed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var _ http.Handler = (*Feed)(nil)
