package admin

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

func scrape(t *testing.T, f *fake) string {
	t.Helper()
	w := ask(newServer(t, f, nil), "GET", "/metrics")
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	body := scrape(t, newFake())
	for _, line := range []string{
		`datasync_build_info{version="v1"} 1`,
		`datasync_ready 1`,
		`datasync_ledger_balanced 1`,
		`datasync_feed_events_total{feed="edge",outcome="read"} 25`,
		`datasync_feed_events_total{feed="edge",outcome="quarantined"} 4`,
		`datasync_lanes{state="running"} 1`,
		`datasync_lanes{state="parked"} 0`,
		`datasync_lane_state{reason="connect",sink="siem",state="waiting",tenant="acme"} 1`,
		`datasync_lane_behind_events{sink="siem",tenant="acme"} 7`,
		`datasync_lane_behind_bytes{sink="siem",tenant="acme"} 700`,
		`datasync_lane_behind_age_seconds{sink="siem",tenant="acme"} 90`,
		`datasync_lane_behind_age_seconds{sink="drops",tenant="acme"} 0`,
		`datasync_lane_last_delivered_timestamp_seconds{sink="drops",tenant="acme"} 1.7723664e+09`,
		`datasync_delivered_events_total{sink="drops",tenant="acme"} 20`,
		`datasync_received_events_total{sink="siem",tenant="acme"} 20`,
		`datasync_lane_events_total{outcome="filtered",sink="siem",tenant="acme"} 2`,
		`datasync_lane_events_total{outcome="repeats",sink="siem",tenant="acme"} 4`,
		`datasync_journal_bytes{shard="edge-n"} 4096`,
		`datasync_journal_incidents_total{kind="torn-tail"} 2`,
		`datasync_quarantine_bytes 77`,
		`datasync_quarantine_entries 3`,
		`datasync_quarantine_expired_total 2`,
		`datasync_quarantine_retried_events_total{feed="edge"} 1`,
		`datasync_alert_entities{tenant="acme"} 3`,
		`datasync_memory_max_bytes 10`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	for _, m := range metrics {
		if !strings.Contains(body, "\n# TYPE "+m.Name+" ") {
			t.Errorf("%s has no series", m.Name)
		}
	}
	if strings.Contains(body, `outcome="expired"`) {
		t.Error("an outcome that never came up has a series")
	}
}

func TestMetricsWhileNotWell(t *testing.T) {
	f := newFake()
	f.ready, f.ledgerErr = errors.New("stopping"), errors.New("shard gone")
	body := scrape(t, f)
	if !strings.Contains(body, "\ndatasync_ready 0\n") || strings.Contains(body, "\ndatasync_ledger_balanced ") {
		t.Error("a service that is not well looks well")
	}
	f = newFake()
	f.lanes[0].Totals.Received++
	if !strings.Contains(scrape(t, f), "\ndatasync_ledger_balanced 0\n") {
		t.Error("an unbalanced ledger looks balanced")
	}
}

// Names and helps follow Prometheus' conventions, so that its linters are quiet.
func TestMetricsTable(t *testing.T) {
	name := regexp.MustCompile(`^datasync_[a-z]+(_[a-z]+)*$`)
	seen := map[string]bool{}
	for _, m := range metrics {
		if !name.MatchString(m.Name) || seen[m.Name] {
			t.Errorf("name %q is odd or there twice", m.Name)
		}
		seen[m.Name] = true
		if strings.HasSuffix(m.Name, "_total") != (m.Type == counter) {
			t.Errorf("%s: counters, and nothing else, end with _total", m.Name)
		}
		if !strings.HasSuffix(m.Help, ".") || strings.Contains(m.Help, "|") {
			t.Errorf("%s: help %q is no sentence, or breaks the page's table", m.Name, m.Help)
		}
	}
}

func TestMetricsOf10000Sinks(t *testing.T) {
	f := newFake()
	f.lanes = nil
	for i := range 10_000 {
		f.lanes = append(f.lanes, LaneView{Tenant: fmt.Sprintf("t%05d", i), Sink: "drops", State: "running", Since: start})
	}
	began := time.Now()
	body := scrape(t, f)
	series := strings.Count(body, `sink="drops"`)
	t.Logf("%d series, %d bytes, %v", series, len(body), time.Since(began))
	if series > 65_000 {
		t.Errorf("%d series for 10,000 idle sinks: too many to scrape", series)
	}
}

func TestMetricsPageIsFresh(t *testing.T) {
	const path = "../../docs/metrics.md"
	if *update {
		if err := os.WriteFile(path, metricsPage(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, metricsPage()) {
		t.Errorf("%s is not what the table says; go test ./exporter/admin -run MetricsPage -update", path)
	}
}

// metricsPage is docs/metrics.md: the table for people.
func metricsPage() []byte {
	var b bytes.Buffer
	b.WriteString("# Metrics\n\n`GET /metrics` of the admin listener, in the Prometheus format. Made from the table in `exporter/admin/metrics.go`:\n" +
		"`go test ./exporter/admin -run MetricsPage -update`. Beside these stand Go's (`go_…`) and the process's (`process_…`).\n\n" +
		"| name | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range slices.SortedFunc(slices.Values(metrics), func(a, b metric) int { return strings.Compare(a.Name, b.Name) }) {
		kind := "gauge"
		if m.Type == counter {
			kind = "counter"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, kind, strings.Join(m.Labels, ", "), m.Help)
	}
	return b.Bytes()
}
