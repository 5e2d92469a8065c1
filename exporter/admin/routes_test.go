package admin

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestHealth(t *testing.T) {
	f := newFake()
	s := newServer(t, f, nil)
	if got := decode[status](t, ask(s, "GET", "/readyz"), 200); got.Status != "ready" {
		t.Errorf("%+v", got)
	}
	f.ready = errors.New("journal edge-n stopped: fsync failed twice")
	if got := decode[status](t, ask(s, "GET", "/readyz"), 503); got.Error != f.ready.Error() {
		t.Errorf("%+v", got)
	}
	decode[status](t, ask(s, "GET", "/healthz"), 200)
}

func TestLanes(t *testing.T) {
	s := newServer(t, newFake(), nil)
	all := decode[lanesAnswer](t, ask(s, "GET", "/v1/lanes"), 200).Lanes
	if len(all) != 2 || all[1].Behind.AgeSeconds != 90 || len(all[1].Shards) != 1 || all[1].Shards[0].Behind.AgeSeconds != 90 {
		t.Errorf("%+v", all)
	}
	if got := decode[lanesAnswer](t, ask(s, "GET", "/v1/lanes?shards=false&state=waiting"), 200).Lanes; len(got) != 1 || got[0].Sink != "siem" || got[0].Shards != nil {
		t.Errorf("%+v", got)
	}
	if w := ask(s, "GET", "/v1/lanes?tenant=other"); strings.TrimSpace(w.Body.String()) != `{"lanes":[]}` {
		t.Error(w.Body)
	}
	one := decode[LaneView](t, ask(s, "GET", "/v1/lanes/acme/siem"), 200)
	if one.Reason != "connect" || one.NextRetry == nil || one.Shards[0].Shard != "edge-n" {
		t.Errorf("%+v", one)
	}
	decode[failure](t, ask(s, "GET", "/v1/lanes/acme/none"), 404)
}

// The names that others' programs read.
func TestLaneNames(t *testing.T) {
	body := ask(newServer(t, newFake(), nil), "GET", "/v1/lanes/acme/siem").Body.String()
	for _, name := range []string{"tenant", "sink", "state", "reason", "message", "since", "next_retry", "behind", "events", "bytes", "oldest", "age_seconds",
		"totals", "received", "delivered", "filtered", "sampled_out", "refused", "expired", "damaged", "queued", "repeats", "replayed", "shards", "shard"} {
		if !strings.Contains(body, `"`+name+`":`) {
			t.Errorf("no %q in %s", name, body)
		}
	}
}

func TestActions(t *testing.T) {
	f := newFake()
	s := newServer(t, f, nil)
	jsonType := "Content-Type: application/json"
	for _, a := range []Action{Pause, Resume, Retry, Flush} {
		if got := decode[acted](t, ask(s, "POST", "/v1/lanes/acme/siem/"+string(a), jsonType), 200); got != (acted{"acme", "siem", a}) {
			t.Errorf("%+v", got)
		}
	}
	if want := []string{"pause acme/siem", "resume acme/siem", "retry acme/siem", "flush acme/siem"}; !slices.Equal(f.acts, want) {
		t.Errorf("%q", f.acts)
	}
	decode[failure](t, ask(s, "POST", "/v1/lanes/acme/none/pause", jsonType), 404)
	f.actErr = fmt.Errorf("the lane is parked: %w", ErrConflict)
	decode[failure](t, ask(s, "POST", "/v1/lanes/acme/siem/flush", jsonType), 409)
	f.actErr = errors.New("journal: no space left")
	if got := decode[failure](t, ask(s, "POST", "/v1/lanes/acme/siem/pause", jsonType), 500); !strings.Contains(got.Error, "pause of acme/siem: journal") {
		t.Error(got.Error)
	}
}

func TestTenants(t *testing.T) {
	f := newFake()
	s := newServer(t, f, nil)
	if got := decode[tenantsAnswer](t, ask(s, "GET", "/v1/tenants"), 200).Tenants; len(got) != 1 || got[0].File != "tenants/acme.yaml" {
		t.Errorf("%+v", got)
	}
	if got := decode[map[string]any](t, ask(s, "GET", "/v1/tenants/acme"), 200); got["tenant"] != "acme" {
		t.Errorf("%+v", got)
	}
	decode[failure](t, ask(s, "GET", "/v1/tenants/other"), 404)
}

func TestLedger(t *testing.T) {
	f := newFake()
	f.tenants = append(f.tenants, TenantView{Tenant: "beta"})
	s := newServer(t, f, nil)
	got := decode[Ledger](t, ask(s, "GET", "/v1/ledger"), 200)
	if !got.Balanced || len(got.Sinks) != 2 || len(got.Feeds) != 1 || !got.Sinks[1].Balanced || got.Sinks[1].Queued != 7 {
		t.Errorf("%+v", got)
	}
	if got := decode[Ledger](t, ask(s, "GET", "/v1/ledger?tenant=beta"), 200); len(got.Sinks) != 0 || len(got.Feeds) != 1 {
		t.Errorf("%+v", got)
	}
	decode[failure](t, ask(s, "GET", "/v1/ledger?tenant=nobody"), 404)
	f.lanes[0].Totals.Delivered--
	if got := decode[Ledger](t, ask(s, "GET", "/v1/ledger"), 200); got.Balanced || got.Sinks[0].Balanced || !got.Sinks[1].Balanced {
		t.Errorf("an event is missing, and the ledger says %+v", got)
	}
	f.lanes[0].Totals.Delivered++
	f.feeds[0].Accepted++
	if got := decode[Ledger](t, ask(s, "GET", "/v1/ledger"), 200); got.Balanced || got.Feeds[0].Balanced {
		t.Errorf("a feed has one too many, and the ledger says %+v", got)
	}
	f.ledgerErr = errors.New("shard gone")
	decode[failure](t, ask(s, "GET", "/v1/ledger"), 500)
}

func TestQuarantine(t *testing.T) {
	s := newServer(t, newFake(), nil)
	if got := decode[quarantineAnswer](t, ask(s, "GET", "/v1/quarantine"), 200).Entries; len(got) != 3 || got[0].Reason != "no tenant" {
		t.Errorf("%+v", got)
	}
	if got := decode[quarantineAnswer](t, ask(s, "GET", "/v1/quarantine?limit=1"), 200).Entries; len(got) != 1 {
		t.Errorf("%+v", got)
	}
	for _, limit := range []string{"0", "-1", "x"} {
		decode[failure](t, ask(s, "GET", "/v1/quarantine?limit="+limit), 400)
	}
	decode[failure](t, ask(s, "GET", "/v1/quarantine?limit=2000"), 500)
	if got := decode[quarantineAnswer](t, ask(s, "GET", "/v1/quarantine?tenant=acme&feed=edge"), 200).Entries; got[0].ID != "of acme and edge" {
		t.Errorf("%+v", got)
	}
	if got := decode[QuarantineView](t, ask(s, "GET", "/v1/quarantine/q1"), 200); got.Record != "all of it" {
		t.Errorf("%+v", got)
	}
	decode[failure](t, ask(s, "GET", "/v1/quarantine/other"), 404)
	decode[failure](t, ask(s, "GET", "/v1/quarantine/disk"), 500)
}

func TestQuarantineRetry(t *testing.T) {
	f := newFake()
	s := newServer(t, f, nil)
	jsonType := "Content-Type: application/json"
	if w := ask(s, "POST", "/v1/quarantine/q1/retry", jsonType); w.Code != 200 || strings.TrimSpace(w.Body.String()) != `{"id":"q1","accepted":1,"rejected":[]}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	decode[failure](t, ask(s, "POST", "/v1/quarantine/q2/retry", jsonType), 404)
	decode[failure](t, ask(s, "POST", "/v1/quarantine/q1/retry"), 415)
	f.actErr = fmt.Errorf("it was retried already: %w", ErrConflict)
	decode[failure](t, ask(s, "POST", "/v1/quarantine/q1/retry", jsonType), 409)
	f.actErr = errors.New("journal is full")
	if got := decode[failure](t, ask(s, "POST", "/v1/quarantine/q1/retry", jsonType), 500); !strings.Contains(got.Error, "journal is full") {
		t.Error(got.Error)
	}
}

// Every route is in the description, and every reference in it leads somewhere.
func TestOpenAPI(t *testing.T) {
	s := newServer(t, newFake(), nil)
	w := ask(s, "GET", "/openapi.json")
	doc := decode[struct {
		Paths      map[string]map[string]any
		Components struct{ Schemas map[string]any }
	}](t, w, 200)
	for _, r := range routes() {
		if doc.Paths[displayPath(r.Path)][strings.ToLower(r.Method)] == nil {
			t.Errorf("%s %s is missing", r.Method, r.Path)
		}
	}
	if doc.Paths["/metrics"]["get"] == nil {
		t.Error("/metrics is missing")
	}
	for _, part := range strings.Split(w.Body.String(), `"#/components/schemas/`)[1:] {
		name, _, _ := strings.Cut(part, `"`)
		if doc.Components.Schemas[name] == nil {
			t.Errorf("no schema %s", name)
		}
	}
}

func TestPageListsEveryRoute(t *testing.T) {
	w := ask(newServer(t, newFake(), nil), "GET", "/")
	for _, r := range routes() {
		if !strings.Contains(w.Body.String(), r.Method+" "+displayPath(r.Path)) {
			t.Errorf("%s %s is missing", r.Method, r.Path)
		}
	}
}

func TestWorse(t *testing.T) {
	if !Worse("parked", "paused") || !Worse("waiting", "running") || Worse("running", "running") {
		t.Error("the order of states is wrong")
	}
}

func TestProfiles(t *testing.T) {
	s := newServer(t, newFake(), nil)
	for _, name := range []string{"goroutine", "heap", "allocs", "profile?seconds=1"} {
		if w := ask(s, "GET", "/debug/pprof/"+name); w.Code != 200 || w.Body.Len() == 0 {
			t.Errorf("%s: %d, %d bytes", name, w.Code, w.Body.Len())
		}
	}
	if got := decode[failure](t, ask(s, "GET", "/debug/pprof/cmdline"), 404); !strings.Contains(got.Error, "goroutine") {
		t.Errorf("%+v", got)
	}
}
