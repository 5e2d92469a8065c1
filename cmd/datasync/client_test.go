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

// service is an admin API that answers one thing and notes what it was asked.
type service struct {
	*httptest.Server
	status int
	answer any
	asked  []string // "METHOD path auth content-type"
}

func newService(t *testing.T, answer any) *service {
	s := &service{status: 200, answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked = append(s.asked, strings.Join([]string{r.Method, r.URL.RequestURI(), r.Header.Get("Authorization"), r.Header.Get("Content-Type")}, " "))
		if s.status == http.StatusFound {
			http.Redirect(w, r, "/elsewhere", s.status)
			return
		}
		w.WriteHeader(s.status)
		if text, ok := s.answer.(string); ok {
			_, _ = w.Write([]byte(text))
			return
		}
		if err := json.NewEncoder(w).Encode(s.answer); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func lanes(now time.Time) []admin.LaneView {
	oldest, retry := now.Add(-75*time.Second), now.Add(5*time.Second)
	return []admin.LaneView{
		{Tenant: "acme", Sink: "drops", State: "running", Since: now.Add(-50 * time.Hour), Totals: admin.Totals{Received: 1234567, Delivered: 1234567},
			LastDelivered: &admin.Delivered{EventTime: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), At: now.Add(-3 * time.Second)}},
		{Tenant: "acme", Sink: "siem", State: "suspended", Reason: "connect", Message: "dial siem:6514: connection \x1b[31mrefused", Since: now.Add(-2 * time.Minute),
			NextRetry: &retry, Behind: admin.Behind{Events: 4200, Bytes: 3 << 20, Oldest: &oldest, AgeSeconds: 75}},
		{Tenant: "beta", Sink: "lake", State: "parked", Reason: "forbidden", Since: now},
	}
}

func TestStatusTable(t *testing.T) {
	now := time.Date(2026, 3, 1, 13, 0, 0, 0, time.UTC)
	var b strings.Builder
	if err := writeStatus(&b, lanes(now), now); err != nil {
		t.Fatal(err)
	}
	want := `3 sinks: 1 running, 1 suspended, 1 parked

SINK        STATE      REASON     FOR    BEHIND  BYTES    OLDEST  DELIVERED  LAST EVENT, DELIVERED
beta/lake   parked     forbidden  0s     0       0 B      -       0          -
acme/siem   suspended  connect    2m00s  4,200   3.0 MiB  1m15s   0          -
    dial siem:6514: connection .[31mrefused; next try in 5s
acme/drops  running    -          2d02h  0       0 B      -       1,234,567  2026-03-01T12:00:00Z, 3s ago
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	if err := writeStatus(&b, nil, now); err != nil || b.String() != "There are no sinks.\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestStatusAsksTheService(t *testing.T) {
	s := newService(t, map[string]any{"lanes": lanes(time.Now())})
	t.Setenv("DATASYNC_ADMIN", s.URL+"/")
	got := call(t, map[string]string{"DATASYNC_ADMIN_TOKEN": "s3cret"}, "status")
	if got.code != exitOK || !strings.Contains(got.out, "acme/siem") {
		t.Errorf("%+v", got)
	}
	// A flag wins over the environment, and needs no scheme.
	t.Setenv("DATASYNC_ADMIN", "http://127.0.0.1:1")
	got = call(t, nil, "status", "--json", "--admin", strings.TrimPrefix(s.URL, "http://"))
	var answer struct{ Lanes []admin.LaneView }
	if err := json.Unmarshal([]byte(got.out), &answer); err != nil || len(answer.Lanes) != 3 {
		t.Errorf("%v in %+v", err, got)
	}
	want := []string{"GET /v1/lanes?shards=false Bearer s3cret ", "GET /v1/lanes  "}
	if strings.Join(s.asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked %q, want %q", s.asked, want)
	}
}

func TestMoves(t *testing.T) {
	s := newService(t, map[string]any{})
	for _, verb := range []string{"pause", "resume", "retry", "flush"} {
		s.asked = nil
		got := call(t, nil, verb, "acme/siem", "--admin", s.URL)
		if got.code != exitOK || got.out != verb+" acme/siem: done\n" || s.asked[0] != "POST /v1/lanes/acme/siem/"+verb+"  application/json" {
			t.Errorf("%+v, asked %q", got, s.asked)
		}
	}
}

func TestLedger(t *testing.T) {
	l := admin.NewLedger(
		[]admin.SinkRow{{Tenant: "acme", Sink: "siem", Totals: admin.Totals{Received: 1200, Delivered: 1000, Queued: 200, Repeats: 3}}},
		[]admin.FeedRow{{Feed: "edge", FeedTotals: admin.FeedTotals{Read: 1205, Accepted: 1200, Quarantined: 5, Retried: 2}}})
	s := newService(t, l)
	got := call(t, nil, "ledger", "acme", "--admin", s.URL)
	want := `FEED  READ   + MADE  = ACCEPTED  + QUARANTINED  + UNROUTED  + DUPLICATE  + SUPPRESSED  | RETRIED
edge  1,205  0       1,200       5              0           0            0             2

SINK       RECEIVED  = DELIVERED  + FILTERED  + SAMPLED OUT  + REFUSED  + EXPIRED  + DAMAGED  + QUEUED  | REPEATS  REPLAYED
acme/siem  1,200     1,000        0           0              0          0          0          200       3          0

The ledger balances.
`
	if got.code != exitOK || got.out != want {
		t.Errorf("exit %d, got\n%s\nwant\n%s", got.code, got.out, want)
	}
	if s.asked[0] != "GET /v1/ledger?tenant=acme  " {
		t.Errorf("asked %q", s.asked)
	}
	l.Sinks[0].Delivered--
	s.answer = admin.NewLedger(l.Sinks, l.Feeds)
	if got := call(t, nil, "ledger", "--admin", s.URL); got.code != exitFailed || !strings.Contains(got.out, "NOT balance") || !strings.Contains(got.out, "<- does not balance") {
		t.Errorf("%+v", got)
	}
	if got := call(t, nil, "ledger", "--json", "--admin", s.URL); got.code != exitFailed || !json.Valid([]byte(got.out)) {
		t.Errorf("%+v", got)
	}
}

// What a feed never read is no part of the balance, and is named.
func TestLedgerNamesGaps(t *testing.T) {
	found := time.Date(2026, 11, 22, 15, 1, 18, 0, time.UTC)
	s := newService(t, admin.NewLedger(nil, []admin.FeedRow{{Feed: "mitigations", FeedTotals: admin.FeedTotals{Read: 10, Accepted: 10}, Missed: 1210, Gaps: []admin.Gap{
		{Topic: "mit", Partition: 2, From: 9, To: 19, Why: "consumed", Found: found.Add(time.Minute)},
		{Topic: "mit", Partition: 0, From: 2000, To: 3200, Why: "deleted", Found: found},
	}}, {Feed: "vendor", Gaps: []admin.Gap{{Topic: "logs", Shard: "shardId-0", Why: "deleted", Found: found, Message: "records may be missing"}}}}))
	got := call(t, nil, "ledger", "--admin", s.URL)
	want := `mitigations never read 1,210 records of its topic:
  2026-11-22 15:02:18  mit partition 2, offsets 9 to 18: another consumer of the group took them
  2026-11-22 15:01:18  mit partition 0, offsets 2000 to 3199: they were deleted before they could be read

vendor may not have read all of its stream:
  2026-11-22 15:01:18  records may be missing

The ledger balances.
`
	if got.code != exitOK || !strings.HasSuffix(got.out, want) {
		t.Errorf("exit %d, got\n%s\nwant\n%s", got.code, got.out, want)
	}
}

func TestWhatTheServiceRefusesIsTold(t *testing.T) {
	s := newService(t, map[string]any{"error": "send the admin token"})
	s.status = 401
	if got := call(t, nil, "status", "--admin", s.URL); got.code != exitFailed || !strings.Contains(got.err, "401: send the admin token") {
		t.Errorf("%+v", got)
	}
	s.status, s.answer = 502, "<html>bad gateway"
	if got := call(t, nil, "status", "--admin", s.URL); got.code != exitFailed || !strings.Contains(got.err, "502: <html>bad gateway") {
		t.Errorf("%+v", got)
	}
	s.status = 200
	if got := call(t, nil, "status", "--admin", s.URL); got.code != exitFailed || !strings.Contains(got.err, "right service") {
		t.Errorf("%+v", got)
	}
	s.status, s.asked = http.StatusFound, nil
	if got := call(t, nil, "status", "--admin", s.URL); got.code != exitFailed || len(s.asked) != 1 {
		t.Errorf("%+v, asked %q: a redirect carries the token away", got, s.asked)
	}
	s.Close()
	if got := call(t, nil, "pause", "acme/siem", "--admin", s.URL); got.code != exitFailed || !strings.Contains(got.err, "is it running?") {
		t.Errorf("%+v", got)
	}
}

func TestFiguresForPeople(t *testing.T) {
	for got, want := range map[string]string{
		size(1023): "1023 B", size(1536): "1.5 KiB", size(5 << 40): "5.0 TiB",
		thousands(0): "0", thousands(999): "999", thousands(1000): "1,000", thousands(-123456): "-123,456", thousands(1234567): "1,234,567",
		span(-time.Second): "0s", span(59 * time.Second): "59s", span(3661 * time.Second): "1h01m",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
