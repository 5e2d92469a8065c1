package admin

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const metricsSummary = "Figures for Prometheus (docs/metrics.md)."

// snapshot is what one scrape reads from the backend, once.
type snapshot struct {
	now     time.Time
	ready   bool
	lanes   []LaneView
	ledger  Ledger
	failed  bool // the ledger could not be read
	process ProcessView
}

// emit takes one series of a metric: its value, and its labels in the table's order.
type emit func(v float64, labels ...string)

// metric is one row of the table: what is served, what docs/metrics.md says,
// and how a scrape fills it.
type metric struct {
	Name    string
	Type    prometheus.ValueType
	Help    string
	Labels  []string
	collect func(*snapshot, emit)
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

var ofLane = []string{"tenant", "sink"}

// metrics is every figure of our own; Go's and the process's are added by the
// library. A sink's shards are added up: with 10,000 sinks, a label more is
// 10,000 series more.
var metrics = []metric{
	{"datasync_build_info", gauge, "Always 1; the version is the label.", []string{"version"},
		func(s *snapshot, e emit) { e(1, s.process.Version) }},
	{"datasync_start_time_seconds", gauge, "When the service started, Unix time.", nil,
		func(s *snapshot, e emit) { e(seconds(s.process.Start)) }},
	{"datasync_ready", gauge, "1 where the service takes events, as /readyz says.", nil,
		func(s *snapshot, e emit) { e(number(s.ready)) }},
	{"datasync_ledger_balanced", gauge, "1 where every event is accounted for; 0 is a fault of the service; absent where the ledger could not be read.", nil,
		func(s *snapshot, e emit) {
			if !s.failed {
				e(number(s.ledger.Balanced))
			}
		}},
	{"datasync_feed_events_total", counter, "Events of a feed: read and made (alerts) came in, the other outcomes say where they went.", []string{"feed", "outcome"}, collectFeeds},
	{"datasync_alert_entities", gauge, "Entities (addresses, say) whose scores are summed for a tenant's alerts; absent where it has none.", []string{"tenant"},
		func(s *snapshot, e emit) {
			for _, a := range s.process.Alerts {
				e(float64(a.Entities), a.Tenant)
			}
		}},
	{"datasync_alert_entities_left_total", counter, "Entities whose sums were given up for newer ones: the tenant has more of them within its window than there is room for (16,384).", []string{"tenant"},
		func(s *snapshot, e emit) {
			for _, a := range s.process.Alerts {
				e(float64(a.Left), a.Tenant)
			}
		}},
	{"datasync_lanes", gauge, "How many sinks are in each state.", []string{"state"}, collectStates},
	{"datasync_lane_state", gauge, "1 for the state that a sink is in (running, waiting, suspended, paused, parked) and the reason class of its last failure.", []string{"tenant", "sink", "state", "reason"},
		perLane(func(_ *snapshot, l LaneView, e emit) { e(1, l.Tenant, l.Sink, l.State, l.Reason) })},
	{"datasync_lane_behind_events", gauge, "Events that wait for a sink.", ofLane,
		perLane(func(_ *snapshot, l LaneView, e emit) { e(float64(l.Behind.Events), l.Tenant, l.Sink) })},
	{"datasync_lane_behind_bytes", gauge, "Bytes of events that wait for a sink.", ofLane,
		perLane(func(_ *snapshot, l LaneView, e emit) { e(float64(l.Behind.Bytes), l.Tenant, l.Sink) })},
	{"datasync_lane_behind_age_seconds", gauge, "How long ago the oldest event that waits for a sink was committed; 0 where none waits.", ofLane, perLane(collectAge)},
	{"datasync_lane_last_delivered_timestamp_seconds", gauge, "When a sink last took an event, Unix time; absent where it never did.", ofLane,
		perLane(func(_ *snapshot, l LaneView, e emit) {
			if l.LastDelivered != nil {
				e(seconds(l.LastDelivered.At), l.Tenant, l.Sink)
			}
		})},
	{"datasync_received_events_total", counter, "Events that came in for a sink.", ofLane,
		perLane(func(_ *snapshot, l LaneView, e emit) { e(float64(l.Totals.Received), l.Tenant, l.Sink) })},
	{"datasync_delivered_events_total", counter, "Events that arrived at a sink.", ofLane,
		perLane(func(_ *snapshot, l LaneView, e emit) { e(float64(l.Totals.Delivered), l.Tenant, l.Sink) })},
	{"datasync_lane_events_total", counter, "Events of a sink that were not delivered, by outcome (filtered, sampled_out, refused, expired, damaged), and those delivered again (repeats, replayed); an outcome that never came up is absent.", []string{"tenant", "sink", "outcome"}, perLane(collectOutcomes)},
	{"datasync_journal_bytes", gauge, "Bytes that a shard's journal holds on disk.", []string{"shard"},
		func(s *snapshot, e emit) { counts(s.process.JournalBytes, e) }},
	{"datasync_journal_max_bytes", gauge, "The cap on all journals together (journal.max_bytes).", nil,
		func(s *snapshot, e emit) { e(float64(s.process.JournalMaxBytes)) }},
	{"datasync_journal_incidents_total", counter, "What happened to the journal that an operator must know, by kind (torn-tail, damage, fsync-failed, fail-stop, expired, full, ...).", []string{"kind"},
		func(s *snapshot, e emit) { counts(s.process.Incidents, e) }},
	{"datasync_quarantine_bytes", gauge, "Bytes of the entries that the quarantine holds.", nil,
		func(s *snapshot, e emit) { e(float64(s.process.QuarantineBytes)) }},
	{"datasync_quarantine_entries", gauge, "Entries that the quarantine holds.", nil,
		func(s *snapshot, e emit) { e(float64(s.process.QuarantineEntries)) }},
	{"datasync_quarantine_expired_total", counter, "Entries that were let go: older than 30 days, or the oldest of those with most where the quarantine had more than a tenth of journal.max_bytes.", nil,
		func(s *snapshot, e emit) { e(float64(s.process.QuarantineExpired)) }},
	{"datasync_quarantine_retried_events_total", counter, "Events of a feed that were read again out of the quarantine; they count as read once more.", []string{"feed"},
		func(s *snapshot, e emit) {
			for _, f := range s.ledger.Feeds {
				e(float64(f.Retried), f.Feed)
			}
		}},
	{"datasync_memory_bytes", gauge, "How much of the budget for encoding and buffers is in use.", nil,
		func(s *snapshot, e emit) { e(float64(s.process.MemoryBytes)) }},
	{"datasync_memory_max_bytes", gauge, "The budget for encoding and buffers (memory).", nil,
		func(s *snapshot, e emit) { e(float64(s.process.MemoryMaxBytes)) }},
}

func perLane(one func(*snapshot, LaneView, emit)) func(*snapshot, emit) {
	return func(s *snapshot, e emit) {
		for _, l := range s.lanes {
			one(s, l, e)
		}
	}
}

func collectFeeds(s *snapshot, e emit) {
	for _, f := range s.ledger.Feeds {
		e(float64(f.Read), f.Feed, "read")
		e(float64(f.Made), f.Feed, "made")
		e(float64(f.Accepted), f.Feed, "accepted")
		e(float64(f.Quarantined), f.Feed, "quarantined")
		e(float64(f.Unrouted), f.Feed, "unrouted")
		e(float64(f.Duplicate), f.Feed, "duplicate")
		e(float64(f.Suppressed), f.Feed, "suppressed")
	}
}

func collectStates(s *snapshot, e emit) {
	n := map[string]int{}
	for _, l := range s.lanes {
		n[l.State]++
	}
	for _, state := range States {
		e(float64(n[state]), state)
	}
}

func collectAge(s *snapshot, l LaneView, e emit) {
	age := 0.0
	if l.Behind.Oldest != nil {
		age = max(0, s.now.Sub(*l.Behind.Oldest).Seconds())
	}
	e(age, l.Tenant, l.Sink)
}

func collectOutcomes(_ *snapshot, l LaneView, e emit) {
	outcome := func(name string, n int64) {
		if n != 0 {
			e(float64(n), l.Tenant, l.Sink, name)
		}
	}
	outcome("filtered", l.Totals.Filtered)
	outcome("sampled_out", l.Totals.SampledOut)
	outcome("refused", l.Totals.Refused)
	outcome("expired", l.Totals.Expired)
	outcome("damaged", l.Totals.Damaged)
	outcome("repeats", l.Totals.Repeats)
	outcome("replayed", l.Totals.Replayed)
}

func counts(m map[string]int64, e emit) {
	for name, n := range m {
		e(float64(n), name)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }

// collector reads the backend at each scrape; between scrapes it holds nothing.
type collector struct {
	backend Backend
	now     func() time.Time
	descs   []*prometheus.Desc // of metrics, index by index
}

func newCollector(b Backend, now func() time.Time) *collector {
	c := &collector{backend: b, now: now}
	for _, m := range metrics {
		c.descs = append(c.descs, prometheus.NewDesc(m.Name, m.Help, m.Labels, nil))
	}
	return c
}

// Describe gives every row of the table.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect reads the backend once and fills every row from that.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := &snapshot{now: c.now(), ready: c.backend.Health.Ready() == nil, lanes: c.backend.Views.Lanes(false), process: c.backend.Health.Process()}
	var err error
	if s.ledger, err = c.backend.Views.Ledger(""); err != nil {
		s.failed, s.ledger = true, Ledger{}
	}
	for i, m := range metrics {
		m.collect(s, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(c.descs[i], m.Type, v, labels...)
		})
	}
}

func metricsHandler(b Backend, now func() time.Time) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(b, now), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// With 10,000 sinks a scrape is the dearest thing here; two at a time will do.
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 2})
}
