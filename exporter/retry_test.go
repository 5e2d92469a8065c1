package exporter_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"datasync/exporter/admin"
)

// entries lists the quarantine.
func (b *bench) entries(query string) []admin.QuarantineView {
	b.t.Helper()
	var answer struct{ Entries []admin.QuarantineView }
	if err := json.Unmarshal(b.get("/v1/quarantine"+query), &answer); err != nil {
		b.t.Fatal(err)
	}
	return answer.Entries
}

func (b *bench) retry(id string) (int, string) {
	b.t.Helper()
	status, body := b.ask("POST", "/v1/quarantine/"+id+"/retry")
	return status, string(body)
}

// TestQuarantineRetry: a tenant's file is missing when its events come; made,
// they are retried, through restarts, and come once.
func TestQuarantineRetry(t *testing.T) {
	b := newBench(t)
	b.tenant("t0001", gzipDrops)
	b.up()
	line := func(id, tenant string) string {
		return fmt.Sprintf(`{"event_id":%q,"tenant_id":%q,`, id, tenant) + strings.SplitN(events("x", 1), ",", 3)[2]
	}
	b.write("in/a.ndjson", line("e1", "t0002")+line("e2", "t0001")+"{not json\n"+line("e3", "t0002"))
	l := b.delivered(4)
	list := b.entries("?tenant=t0002")
	if len(list) != 2 || len(b.entries("")) != 3 || len(b.entries("?tenant=_unrouted&feed=files")) != 1 {
		t.Fatalf("%+v\n%+v", b.entries(""), l)
	}
	for _, e := range list {
		var one admin.QuarantineView
		if err := json.Unmarshal(b.get("/v1/quarantine/"+e.ID), &one); err != nil {
			t.Fatal(err)
		}
		if status, body := b.retry(e.ID); status != http.StatusConflict || !strings.Contains(body, "t0002.yaml") || !strings.Contains(one.Record, `"tenant_id":"t0002"`) || one.Format != "canonical" {
			t.Errorf("before the fix: %d %s\n%+v", status, body, one)
		}
	}
	b.tenant("t0002", gzipDrops)
	b.svc.Reload()
	for i, e := range list {
		if status, body := b.retry(e.ID); status != http.StatusOK || body != fmt.Sprintf(`{"id":%q,"accepted":1,"rejected":[]}`+"\n", e.ID) {
			t.Errorf("%d %s", status, body)
		}
		if i == 0 {
			b.down()
			b.up()
		}
		if status, _ := b.retry(e.ID); status != http.StatusConflict {
			t.Errorf("twice: %d", status)
		}
	}
	l = b.delivered(6)
	for _, f := range l.Feeds {
		if f.Feed == "files" && f.FeedTotals != (admin.FeedTotals{Read: 6, Accepted: 3, Quarantined: 1, Unrouted: 2, Retried: 2}) {
			t.Errorf("%+v", f)
		}
	}
	if left := b.entries(""); len(left) != 1 || left[0].Tenant != "" {
		t.Errorf("%+v", left)
	}
	b.until("drops", func() bool { return len(b.ids("tenant=t0002/")) == 2 })
	for id, n := range b.ids("") {
		if n != 1 {
			t.Errorf("%s is there %d times", id, n)
		}
	}
	if status, _ := b.retry("nothing"); status != http.StatusNotFound {
		t.Errorf("%d", status)
	}
	if !strings.Contains(b.log.String(), `"audit":true`) || strings.Count(b.log.String(), "was retried") != 2 {
		t.Error("the log does not say who was retried")
	}
	text := string(b.get("/metrics"))
	if strings.Contains(text, "datasync_quarantine_bytes 0\n") {
		t.Error("the metrics say that the quarantine holds no bytes")
	}
	for _, want := range []string{"datasync_quarantine_entries 1", `datasync_quarantine_retried_events_total{feed="files"} 2`, "datasync_quarantine_expired_total 0"} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics do not say %s", want)
		}
	}
}
