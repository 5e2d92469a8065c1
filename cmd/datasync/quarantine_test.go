package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"datasync/exporter/admin"
)

func entries(now time.Time) []admin.QuarantineView {
	return []admin.QuarantineView{
		{ID: "b2", Feed: "edge-0-x", Sink: "siem", Tenant: "acme", Position: "sequence 7", Reason: "too \x1blong", At: now.Add(-time.Minute), Bytes: 2048},
		{ID: "a1", Feed: "files", Position: "in/a.ndjson:7", Reason: "no JSON", At: now.Add(-time.Hour), Bytes: 9, Events: 3},
	}
}

func TestQuarantineTable(t *testing.T) {
	now := time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)
	var b strings.Builder
	if err := writeEntries(&b, entries(now), now); err != nil {
		t.Fatal(err)
	}
	want := `ID  AGE    TENANT  FROM       EVENTS  BYTES    POSITION
b2  1m00s  acme    sink siem  1       2.0 KiB  sequence 7
    too .long
a1  1h00m  -       files      3       9 B      in/a.ndjson:7
    no JSON
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := writeEntries(&b, nil, now); err != nil || b.String() != "There is nothing in the quarantine.\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestQuarantineListAndShow(t *testing.T) {
	s := newService(t, map[string]any{"entries": entries(time.Now())})
	if got := call(t, nil, "quarantine", "--tenant", "acme", "--feed", "files", "--limit", "5", "--admin", s.URL); got.code != exitOK || !strings.Contains(got.out, "\na1  ") {
		t.Errorf("%+v", got)
	}
	if want := "GET /v1/quarantine?feed=files&limit=5&tenant=acme  "; s.asked[0] != want {
		t.Errorf("asked %q", s.asked)
	}
	if got := call(t, nil, "quarantine", "list", "--json", "--admin", s.URL); got.code != exitOK || !strings.HasPrefix(got.out, `{"entries":[{"id":"b2"`) {
		t.Errorf("%+v", got)
	}
	s.answer = admin.QuarantineView{ID: "a1", Feed: "files", Format: "canonical", Reason: "no JSON", At: time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC), Bytes: 9, Record: "one\n\x1btwo\n", Redactions: []string{"tokens"}}
	want := "id        a1\nat        2026-03-01T13:00:00Z\nfeed      files\nformat    canonical\nbytes     9\nmasked    tokens\nreason    no JSON\n\none\n.two\n"
	if got := call(t, nil, "quarantine", "show", "a1", "--admin", s.URL); got.code != exitOK || got.out != want {
		t.Errorf("%+v", got)
	}
	s.answer = admin.QuarantineView{ID: "a1", Base64: "/wA="}
	if got := call(t, nil, "quarantine", "show", "a/1", "--raw", "--admin", s.URL); got.code != exitOK || got.out != "\xff\x00" || s.asked[len(s.asked)-1] != "GET /v1/quarantine/a%2F1  " {
		t.Errorf("%+v, asked %q", got, s.asked)
	}
}

func TestQuarantineRetry(t *testing.T) {
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.RequestURI())
		var answer any = map[string]any{"entries": append([]admin.QuarantineView{{ID: "c3", Feed: "files"}}, entries(time.Now())...)}
		switch {
		case strings.Contains(r.URL.Path, "/a1/"):
			answer = admin.Retried{ID: "a1", Accepted: 2, Rejected: []admin.Rejection{{Index: 1, Reason: "still \x1bbad"}}}
		case strings.Contains(r.URL.Path, "/c3/"):
			w.WriteHeader(http.StatusConflict)
			answer = map[string]string{"error": "entry c3 stays: no JSON"}
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	defer s.Close()
	got := call(t, nil, "quarantine", "retry", "c3", "a1", "--admin", s.URL)
	if got.code != exitFailed || got.out != "a1: 2 accepted; 1 still are none (still .bad)\n" || !strings.Contains(got.err, "entry c3 stays: no JSON") || !strings.Contains(got.err, "1 of 2 entries stay") {
		t.Errorf("%+v", got)
	}
	// Those of a feed, the oldest first; what a sink refused is not among them.
	asked = nil
	call(t, nil, "quarantine", "retry", "--feed", "files", "--admin", s.URL)
	if want := "GET /v1/quarantine?feed=files&limit=100 POST /v1/quarantine/a1/retry POST /v1/quarantine/c3/retry"; strings.Join(asked, " ") != want {
		t.Errorf("asked %q", asked)
	}
	if got := call(t, nil, "quarantine", "retry", "--admin", s.URL); got.code != exitUsage {
		t.Errorf("%+v", got)
	}
}
