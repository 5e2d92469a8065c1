package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fake is a backend that holds still.
type fake struct {
	lanes     []LaneView
	tenants   []TenantView
	feeds     []FeedRow
	ready     error
	ledgerErr error
	actErr    error

	mu   sync.Mutex
	acts []string
}

func (f *fake) Lanes(shards bool) []LaneView {
	out := make([]LaneView, len(f.lanes))
	for i, l := range f.lanes {
		if !shards {
			l.Shards = nil
		}
		out[i] = l
	}
	return out
}

func (f *fake) Lane(tenant, sink string) (LaneView, bool) {
	for _, l := range f.lanes {
		if l.Tenant == tenant && l.Sink == sink {
			return l, true
		}
	}
	return LaneView{}, false
}

func (f *fake) Tenants() []TenantView { return f.tenants }

func (f *fake) Tenant(tenant string) (TenantView, bool) {
	for _, t := range f.tenants {
		if t.Tenant == tenant {
			t.Settings = json.RawMessage(`{"tenant":"` + tenant + `","api_keys":[{"secret":"set"}]}`)
			return t, true
		}
	}
	return TenantView{}, false
}

func (f *fake) Ledger(tenant string) (Ledger, error) {
	var rows []SinkRow
	for _, l := range f.lanes {
		if tenant == "" || tenant == l.Tenant {
			rows = append(rows, SinkRow{Tenant: l.Tenant, Sink: l.Sink, Totals: l.Totals})
		}
	}
	return NewLedger(rows, append([]FeedRow(nil), f.feeds...)), f.ledgerErr
}

func (f *fake) Act(_ context.Context, tenant, sink string, a Action) error {
	if _, ok := f.Lane(tenant, sink); !ok {
		return fmt.Errorf("sink %s/%s: %w", tenant, sink, ErrNotFound)
	}
	if f.actErr != nil {
		return f.actErr
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.acts = append(f.acts, fmt.Sprintf("%s %s/%s", a, tenant, sink))
	return nil
}

func (f *fake) Ready() error { return f.ready }

func (f *fake) Entries(tenant, feed string, limit int) ([]QuarantineView, error) {
	if tenant != "" || feed != "" {
		return []QuarantineView{{ID: "of " + tenant + " and " + feed}}, nil
	}
	if limit > 1000 {
		return nil, errors.New("disk on fire")
	}
	var out []QuarantineView
	for i := range min(limit, 3) {
		out = append(out, QuarantineView{ID: fmt.Sprint("q", i), Feed: "edge", Position: "line 1", Reason: "no tenant", At: start, Bytes: 10})
	}
	return out, nil
}

func (f *fake) Entry(id string) (QuarantineView, bool, error) {
	if id == "disk" {
		return QuarantineView{}, false, errors.New("disk on fire")
	}
	return QuarantineView{ID: id, Record: "all of it"}, id == "q1", nil
}

func (f *fake) Retry(_ context.Context, id string) (Retried, error) {
	if id == "q2" {
		return Retried{}, fmt.Errorf("entry q2: %w", ErrNotFound)
	}
	return Retried{ID: id, Accepted: 1}, f.actErr
}

func (f *fake) Process() ProcessView {
	return ProcessView{Version: "v1", Start: start, JournalBytes: map[string]int64{"edge-n": 4096}, JournalMaxBytes: 1 << 30,
		Incidents: map[string]int64{"torn-tail": 2}, MemoryBytes: 5, MemoryMaxBytes: 10, QuarantineBytes: 77, QuarantineEntries: 3, QuarantineExpired: 2,
		Alerts: []AlertsView{{Tenant: "acme", Entities: 3, Left: 1}}}
}

func newFake() *fake {
	oldest := start.Add(-90 * time.Second)
	retry := start.Add(5 * time.Second)
	siem := LaneView{Tenant: "acme", Sink: "siem", State: "waiting", Reason: "connect", Message: "dial tcp: connection refused",
		Since: start, NextRetry: &retry, Behind: Behind{Events: 7, Bytes: 700, Oldest: &oldest},
		Totals: Totals{Received: 20, Delivered: 10, Filtered: 2, SampledOut: 1, Queued: 7, Repeats: 4}}
	shard := siem
	shard.Shard = "edge-n"
	siem.Shards = []LaneView{shard}
	return &fake{
		lanes: []LaneView{
			{Tenant: "acme", Sink: "drops", State: "running", Since: start, LastDelivered: &Delivered{start.Add(-time.Minute), start},
				Totals: Totals{Received: 20, Delivered: 20}},
			siem,
		},
		tenants: []TenantView{{Tenant: "acme", File: "tenants/acme.yaml", Sinks: []string{"drops", "siem"}}},
		feeds:   []FeedRow{{Feed: "edge", FeedTotals: FeedTotals{Read: 25, Made: 1, Accepted: 20, Quarantined: 4, Unrouted: 1, Duplicate: 1, Retried: 1}}},
	}
}

func (f *fake) backend() Backend { return Backend{f, f, f, f} }
