package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"strconv"
	"strings"
)

// route is one endpoint: what serves it, and what /openapi.json and the page
// at / say of it.
type route struct {
	Method, Path, Summary string
	// Query are the query parameters, name and meaning.
	Query [][2]string
	// Answer is a value of the type that a 200 holds; nil where it is no JSON.
	Answer any
	serve  func(*Server, http.ResponseWriter, *http.Request)
}

const metricsPath = "/metrics"

// quarantineLimit is how many entries /v1/quarantine gives unless asked.
const quarantineLimit = 100

// routes is every endpoint but /metrics, which the metrics library serves.
func routes() []route {
	lane := "/v1/lanes/{tenant}/{sink}"
	act := func(a Action, what string) route {
		return route{"POST", lane + "/" + string(a), what, nil, acted{}, serveAction(a)}
	}
	return []route{
		{"GET", "/healthz", "Says that the process answers.", nil, status{}, serveHealth},
		{"GET", "/readyz", "200 where the service takes events, else 503 with why not.", nil, status{}, serveReady},
		{"GET", "/v1/lanes", "Every sink's lanes: state, reason, how far behind, last delivered, totals.",
			[][2]string{{"tenant", "only this tenant's"}, {"state", "only those in this state"}, {"shards", "false leaves the shards out"}},
			lanesAnswer{}, serveLanes},
		{"GET", lane, "One sink's lanes, each shard under shards.", nil, LaneView{}, serveLane},
		act(Pause, "Stops delivering; everything is kept, across restarts."),
		act(Resume, "Goes on after a pause."),
		act(Retry, "Tries now instead of at the next retry."),
		act(Flush, "Cuts and sends what is there without waiting for a limit."),
		{"GET", "/v1/tenants", "Every tenant, its sinks, and what is wrong with its file.", nil, tenantsAnswer{}, serveTenants},
		{"GET", "/v1/tenants/{tenant}", "The tenant's file as JSON, secrets masked.", nil, map[string]any{}, serveTenant},
		{"GET", "/v1/ledger", "The account of every event, and whether it balances.",
			[][2]string{{"tenant", "only this tenant's sinks"}}, Ledger{}, serveLedger},
		{"GET", "/v1/quarantine", "Records that could not become events, newest first.",
			[][2]string{{"limit", "how many, 100 unless given"}, {"tenant", "only this tenant's; _unrouted: those of nobody"}, {"feed", "only this feed's"}},
			quarantineAnswer{}, serveQuarantine},
		{"GET", "/v1/quarantine/{id}", "One of them, with the whole record.", nil, QuarantineView{}, serveEntry},
		{"POST", "/v1/quarantine/{id}/retry", "Submits the record once more through its feed; what is an event now is durable, and the entry is gone.", nil, Retried{}, serveRetry},
		{"GET", profilePath, "A profile of the program, for go tool pprof: profile (CPU), trace, heap, allocs, goroutine…",
			[][2]string{{"seconds", "how long to look, for profile and trace"}}, nil, serveProfile},
		{"GET", "/openapi.json", "This description.", nil, map[string]any{}, serveOpenAPI},
		{"GET", "/{$}", "The list of endpoints.", nil, nil, servePage},
	}
}

type (
	status struct {
		Status string `json:"status"`
		Error  string `json:"error,omitempty"`
	}
	failure struct {
		Error string `json:"error"`
	}
	acted struct {
		Tenant string `json:"tenant"`
		Sink   string `json:"sink"`
		Done   Action `json:"done"`
	}
	lanesAnswer struct {
		Lanes []LaneView `json:"lanes"`
	}
	tenantsAnswer struct {
		Tenants []TenantView `json:"tenants"`
	}
	quarantineAnswer struct {
		Entries []QuarantineView `json:"entries"`
	}
)

func serveHealth(_ *Server, w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, status{Status: "ok"})
}

func serveReady(s *Server, w http.ResponseWriter, _ *http.Request) {
	if err := s.backend.Health.Ready(); err != nil {
		writeJSON(w, http.StatusServiceUnavailable, status{Status: "not ready", Error: err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, status{Status: "ready"})
}

func serveLanes(s *Server, w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	out := lanesAnswer{Lanes: []LaneView{}}
	for _, l := range s.backend.Views.Lanes(q.Get("shards") != "false") {
		if (q.Get("tenant") == "" || q.Get("tenant") == l.Tenant) && (q.Get("state") == "" || q.Get("state") == l.State) {
			out.Lanes = append(out.Lanes, s.aged(l))
		}
	}
	writeJSON(w, http.StatusOK, out)
}

func serveLane(s *Server, w http.ResponseWriter, r *http.Request) {
	l, ok := s.backend.Views.Lane(r.PathValue("tenant"), r.PathValue("sink"))
	if !ok {
		writeError(w, http.StatusNotFound, "there is no sink "+quote(r.PathValue("tenant")+"/"+r.PathValue("sink")))
		return
	}
	writeJSON(w, http.StatusOK, s.aged(l))
}

// aged fills in the age of the oldest undelivered event, here and in the shards.
func (s *Server) aged(l LaneView) LaneView {
	if l.Behind.Oldest != nil {
		l.Behind.AgeSeconds = max(0, s.now().Sub(*l.Behind.Oldest).Seconds())
	}
	for i := range l.Shards {
		l.Shards[i] = s.aged(l.Shards[i])
	}
	return l
}

func serveAction(a Action) func(*Server, http.ResponseWriter, *http.Request) {
	return func(s *Server, w http.ResponseWriter, r *http.Request) {
		tenant, sink := r.PathValue("tenant"), r.PathValue("sink")
		err := s.backend.Control.Act(r.Context(), tenant, sink, a)
		switch {
		case errors.Is(err, ErrNotFound):
			writeError(w, http.StatusNotFound, "there is no sink "+quote(tenant+"/"+sink))
		case errors.Is(err, ErrConflict):
			writeError(w, http.StatusConflict, err.Error())
		case err != nil:
			writeError(w, http.StatusInternalServerError, fmt.Sprintf("%s of %s/%s: %v", a, tenant, sink, err))
		default:
			writeJSON(w, http.StatusOK, acted{tenant, sink, a})
		}
	}
}

func serveTenants(s *Server, w http.ResponseWriter, _ *http.Request) {
	out := tenantsAnswer{Tenants: s.backend.Views.Tenants()}
	if out.Tenants == nil {
		out.Tenants = []TenantView{}
	}
	writeJSON(w, http.StatusOK, out)
}

func serveTenant(s *Server, w http.ResponseWriter, r *http.Request) {
	t, ok := s.backend.Views.Tenant(r.PathValue("tenant"))
	if !ok {
		writeError(w, http.StatusNotFound, "there is no tenant "+quote(r.PathValue("tenant")))
		return
	}
	writeJSON(w, http.StatusOK, t.Settings)
}

func serveLedger(s *Server, w http.ResponseWriter, r *http.Request) {
	tenant := r.URL.Query().Get("tenant")
	if tenant != "" {
		if _, ok := s.backend.Views.Tenant(tenant); !ok {
			writeError(w, http.StatusNotFound, "there is no tenant "+quote(tenant))
			return
		}
	}
	l, err := s.backend.Views.Ledger(tenant)
	if err != nil {
		writeError(w, http.StatusInternalServerError, fmt.Sprintf("reading the ledger: %v", err))
		return
	}
	writeJSON(w, http.StatusOK, l)
}

func serveQuarantine(s *Server, w http.ResponseWriter, r *http.Request) {
	limit := quarantineLimit
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			writeError(w, http.StatusBadRequest, "limit "+quote(text)+" is not a number above 0")
			return
		}
		limit = n
	}
	list, err := s.backend.Quarantine.Entries(r.URL.Query().Get("tenant"), r.URL.Query().Get("feed"), limit)
	if err != nil {
		writeError(w, http.StatusInternalServerError, fmt.Sprintf("reading the quarantine: %v", err))
		return
	}
	if list == nil {
		list = []QuarantineView{}
	}
	writeJSON(w, http.StatusOK, quarantineAnswer{list})
}

func serveEntry(s *Server, w http.ResponseWriter, r *http.Request) {
	e, ok, err := s.backend.Quarantine.Entry(r.PathValue("id"))
	switch {
	case err != nil:
		writeError(w, http.StatusInternalServerError, fmt.Sprintf("reading the quarantine: %v", err))
	case !ok:
		noEntry(w, r)
	default:
		writeJSON(w, http.StatusOK, e)
	}
}

func serveRetry(s *Server, w http.ResponseWriter, r *http.Request) {
	// What has begun is brought to its end, whoever still listens.
	res, err := s.backend.Quarantine.Retry(context.WithoutCancel(r.Context()), r.PathValue("id"))
	switch {
	case errors.Is(err, ErrNotFound):
		noEntry(w, r)
	case errors.Is(err, ErrConflict):
		writeError(w, http.StatusConflict, err.Error())
	case err != nil:
		writeError(w, http.StatusInternalServerError, fmt.Sprintf("retrying %s: %v", quote(r.PathValue("id")), err))
	default:
		if res.Rejected == nil {
			res.Rejected = []Rejection{}
		}
		writeJSON(w, http.StatusOK, res)
	}
}

func noEntry(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusNotFound, "there is no entry "+quote(r.PathValue("id"))+" in the quarantine; it may have expired")
}

func serveOpenAPI(_ *Server, w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, openAPI())
}

func servePage(_ *Server, w http.ResponseWriter, _ *http.Request) {
	var b strings.Builder
	b.WriteString("<!doctype html><meta charset=utf-8><title>Data Sync</title><h1>Data Sync</h1><ul>\n")
	line := func(method, path, summary string) {
		fmt.Fprintf(&b, "<li><code>%s %s</code> %s\n", method, html.EscapeString(path), html.EscapeString(summary))
	}
	for _, r := range routes() {
		line(r.Method, displayPath(r.Path), r.Summary)
	}
	line("GET", metricsPath, metricsSummary)
	b.WriteString("</ul>\n")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(b.String())) // the client's trouble, and nobody to tell
}

// displayPath is a route's path without the mux's end mark.
func displayPath(p string) string { return strings.TrimSuffix(p, "{$}") }

func writeError(w http.ResponseWriter, code int, why string) { writeJSON(w, code, failure{why}) }

func writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		code, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(body, '\n')) // the client's trouble, and nobody to tell
}

// quote shows what a client sent, cut short.
func quote(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return strconv.Quote(s)
}
