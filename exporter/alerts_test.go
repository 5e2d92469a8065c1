package exporter_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// attack is a body of matches of one client, each worth three points.
func attack(from string, n int, ip string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"event_id":"%s-%d","source":"coraza","kind":"match","event_time":%d,"time_precision":"ms","action":"log","disposition":"detected",`+
			`"enforced":false,"severity":3,"rule_id":"942100","client_ip":%q}`+"\n", from, i, time.Now().UnixMilli(), ip)
	}
	return b.String()
}

// made is how many alerts the feeds have made.
func (b *bench) made() (n int64) {
	b.t.Helper()
	l, err := b.svc.Views().Ledger("")
	if err != nil {
		b.t.Fatal(err)
	}
	if !l.Balanced {
		b.t.Errorf("the ledger does not balance: %+v", l)
	}
	for _, f := range l.Feeds {
		n += f.Made
	}
	return n
}

// TestThresholdAlerts: matches through two feeds, a restart and new settings on
// the way; each alert reaches the sink, and once.
func TestThresholdAlerts(t *testing.T) {
	b := newBench(t)
	with := func(settings string) {
		b.tenant("t0001", gzipDrops+"alerts: {"+settings+"}\n")
	}
	with("threshold: 12, window: 1h")
	b.tenant("t0002", gzipDrops)
	b.up()
	send := func(tenant, body string) {
		t.Helper()
		n := strings.Count(body, "\n")
		if status, answer := b.post(tenant, body); status != http.StatusOK || !strings.Contains(answer, fmt.Sprintf(`"accepted":%d,`, n)) {
			t.Fatalf("%d %s, want %d accepted", status, answer, n)
		}
	}
	send("t0001", attack("a", 3, "192.0.2.1"))
	send("t0002", attack("b", 100, "192.0.2.1")) // another tenant's, which has no alerts
	if n := b.made(); n != 0 {
		t.Fatalf("%d alerts", n)
	}
	b.down()
	b.up() // the sums are read back
	body := strings.ReplaceAll(attack("c", 1, "192.0.2.1"), `{"event_id"`, `{"tenant_id":"t0001","event_id"`)
	b.write("in/c.ndjson", body)
	b.delivered(1 + 3 + 100)
	if n := b.made(); n != 1 {
		t.Errorf("%d alerts", n)
	}
	send("t0001", attack("d", 20, "192.0.2.1")) // told of already
	send("t0001", attack("e", 3, "192.0.2.2"))
	with("threshold: 9, window: 1h, disabled_rules: [off]") // what was read of the other client reaches that
	b.svc.Reload()
	send("t0001", attack("f", 1, "192.0.2.2")+strings.ReplaceAll(attack("g", 2, "192.0.2.3"), "942100", "off"))
	if n := b.made(); n != 2 {
		t.Errorf("%d alerts", n)
	}
	b.delivered(1 + 3 + 100 + 20 + 3 + 3)
	alerts, rest := 0, 0
	for id, n := range b.ids("tenant=t0001/") {
		if rest++; strings.HasPrefix(id, "alert:") {
			alerts++
		}
		if n != 1 || strings.HasPrefix(id, "g-") {
			t.Errorf("%s is there %d times", id, n)
		}
	}
	if alerts != 2 || rest-alerts != 3+1+20+3+1 {
		t.Errorf("%d alerts and %d events in the drops", alerts, rest-alerts)
	}
	text := string(b.get("/metrics"))
	for _, want := range []string{`datasync_feed_events_total{feed="edge",outcome="made"} 1`, `datasync_feed_events_total{feed="edge",outcome="suppressed"} 2`,
		`datasync_alert_entities{tenant="t0001"} 2`, `datasync_alert_entities_left_total{tenant="t0001"} 0`} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics do not say %s", want)
		}
	}
	if strings.Contains(text, `datasync_alert_entities{tenant="t0002"}`) {
		t.Error("a tenant without alerts has sums")
	}
}

// get asks the admin API.
func (b *bench) get(path string) []byte {
	b.t.Helper()
	status, body := b.ask("GET", path)
	if status != http.StatusOK {
		b.t.Fatalf("GET %s: %d %s", path, status, body)
	}
	return body
}
