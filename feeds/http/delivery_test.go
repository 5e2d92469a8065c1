package httpfeed

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"datasync/feeds/http/firehose"
)

// delivery is the body of a Firehose delivery.
func delivery(at int, records ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"requestId":"id-1","timestamp":%d,"records":[`, at)
	for i, r := range records {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"data":%q}`, base64.StdEncoding.EncodeToString([]byte(r)))
	}
	return b.String() + "]}"
}

// deliver sends one; the answer must keep Firehose's contract.
func (s *server) deliver(t *testing.T, path, id, body string, headers ...string) (reply, string) {
	t.Helper()
	got := s.post(t, path, strings.NewReader(body), append([]string{firehose.RequestID, id, "X-Amz-Firehose-Protocol-Version", "1.0", "Content-Type", "application/json"}, headers...)...)
	var a struct {
		RequestID    string
		Timestamp    int64
		ErrorMessage *string
	}
	if err := json.Unmarshal([]byte(got.body), &a); err != nil || a.RequestID != id || a.Timestamp != 1e12 || got.header.Get("Content-Type") != "application/json" || got.header.Get("Content-Length") == "" {
		t.Errorf("%v %v %s", err, got.header, got.body)
	}
	if (got.status == 200) != (a.ErrorMessage == nil) {
		t.Errorf("%d %s", got.status, got.body)
	}
	if a.ErrorMessage == nil {
		return got, ""
	}
	return got, *a.ErrorMessage
}

func firehoseOptions(w *world) Options {
	o := w.options()
	o.Now = func() time.Time { return time.UnixMilli(1e12) }
	o.Formats = func(f string) bool { return f == "aws-waf" || f == "cloudfront" || f == "cloudflare-firewall" }
	return o
}

func TestFirehoseDeliveries(t *testing.T) {
	w := newWorld()
	s := start(t, firehoseOptions(w))
	const path, k = "/v1/ingest/aws-waf/acme", firehose.AccessKey
	// Records of one object, of lines, of none, and one that is no JSON.
	if got, _ := s.deliver(t, path, "id-1", delivery(1, `{"a":1}`+"\n", "", `{"a":2}`+"\n"+`{"a":3}`, "nope", `[{"a":4}]`), k, "ka"); got.status != 200 {
		t.Errorf("%+v", got)
	}
	if got := strings.Join(w.took, " "); got != `{"a":1} {"a":2} {"a":3} {"a":4}` || len(w.places) != 5 {
		t.Errorf("taken %s, of %q", got, w.places)
	}
	for i, p := range w.places {
		if !strings.HasSuffix(p, fmt.Sprint("#", i)) {
			t.Errorf("place %d is %s", i, p)
		}
	}
	// Firehose tries again with the same id, and another time in the body.
	if got, _ := s.deliver(t, path, "id-1", pack(t, "gzip", delivery(2, `{"a":1}`+"\n", "", `{"a":2}`+"\n"+`{"a":3}`, "nope", `[{"a":4}]`)), k, "ka", "Content-Encoding", "gzip"); got.status != 200 || w.taken() != 4 || w.repeats != 5 {
		t.Errorf("again: %+v, %d taken, %d repeats", got, w.taken(), w.repeats)
	}
	// Its id is not an Idempotency-Key of the tenant's own.
	if got := s.post(t, path, strings.NewReader(`{"b":1}`), key, "ka", "Idempotency-Key", "id-1"); got.status != 200 || w.taken() != 5 || got.body != `{"accepted":1,"rejected":[]}` {
		t.Errorf("a key of that name: %+v", got)
	}
	// What cannot become an event is in the quarantine: Firehose must not try for ever.
	if got, _ := s.deliver(t, path, "id-2", delivery(1, "nope"), k, "ka"); got.status != 200 {
		t.Errorf("all bad: %+v", got)
	}
	if got, _ := s.deliver(t, path, "id-3", delivery(1, "", ""), k, "ka"); got.status != 200 {
		t.Errorf("empty records: %+v", got)
	}
	if w.taken() != 5 || s.Status().Memory != 0 {
		t.Errorf("%q, memory %d", w.took, s.Status().Memory)
	}
}

func TestFirehoseErrors(t *testing.T) {
	w := newWorld()
	s := start(t, firehoseOptions(w))
	const path, k = "/v1/ingest/aws-waf/acme", firehose.AccessKey
	big := delivery(1, strings.Repeat("x", 48<<10)) // 64 KiB in base64
	for _, c := range []struct {
		name, path, body string
		headers          []string
		status           int
		says             string
	}{
		{"no key", path, delivery(1, "{}"), nil, 401, "X-Amz-Firehose-Access-Key"},
		{"wrong key", path, delivery(1, "{}"), []string{k, "nope"}, 403, "nobody"},
		{"another tenant's", path, delivery(1, "{}"), []string{k, "kb"}, 403, "not tenant"},
		{"no such format", "/v1/ingest/wat/acme", delivery(1, "{}"), []string{k, "ka"}, 404, "formats are"},
		{"no delivery", path, `{"a":1}`, []string{k, "ka"}, 400, "records"},
		{"no JSON", path, `hello`, []string{k, "ka"}, 400, "no Firehose delivery"},
		{"too large", path, big, []string{k, "ka"}, 413, "larger than 65536"},
		{"too large unpacked", path, pack(t, "gzip", big), []string{k, "ka", "Content-Encoding", "gzip"}, 413, "decompressed"},
	} {
		if got, says := s.deliver(t, c.path, "id", c.body, c.headers...); got.status != c.status || !strings.Contains(says, c.says) {
			t.Errorf("%s: %d %q", c.name, got.status, says)
		}
	}
	w.err = errors.New("the journal is full")
	if got, says := s.deliver(t, path, "id", delivery(1, "{}"), k, "ka"); got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(says, "journal is full") {
		t.Errorf("%+v %q", got, says)
	}
	if got := s.post(t, path, strings.NewReader("{}"), firehose.RequestID, strings.Repeat("x", 300), k, "ka"); got.status != 400 || !strings.Contains(got.body, "longer than 256") {
		t.Errorf("a long id: %+v", got)
	}
	if w.taken() != 0 {
		t.Errorf("taken: %q", w.took)
	}
}

// TestUploadsStayWhole: rows that belong together must meet in one record.
func TestUploadsStayWhole(t *testing.T) {
	w := newWorld()
	s := start(t, firehoseOptions(w))
	s.post(t, "/v1/ingest/cloudflare-firewall/acme", strings.NewReader("{\"RayID\":1}\n{\"RayID\":1}\n"), key, "ka")
	if len(w.places) != 1 {
		t.Errorf("an upload became %d records", len(w.places))
	}
	s.deliver(t, "/v1/ingest/cloudfront/acme", "id-9", delivery(1, "a\tb\na\tc\n", "a\td\n"), firehose.AccessKey, "ka")
	if len(w.places) != 3 {
		t.Errorf("two records of a delivery became %d", len(w.places)-1)
	}
	s.post(t, "/v1/ingest/aws-waf/acme", strings.NewReader("{}\n{}\n"), key, "ka")
	if len(w.places) != 5 {
		t.Errorf("two lines became %d records", len(w.places)-3)
	}
}
