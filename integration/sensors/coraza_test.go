package sensors

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	txhttp "github.com/corazawaf/coraza/v3/http"

	"datasync/integration/harness"
	"datasync/schemas"
)

// site is a web server behind Coraza with the Core Rule Set, which writes its
// audit log as docs/sources.md has it.
func site(t *testing.T, auditLog string) *httptest.Server {
	t.Helper()
	waf, err := coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(`
Include @coraza.conf-recommended
SecRuleEngine On
SecAuditEngine On
SecAuditLogParts ABIJDEFHKZ
SecAuditLogType Serial
SecAuditLogFormat JSON
SecAuditLog ` + auditLog + `
Include @crs-setup.conf.example
Include @owasp_crs/*.conf
SecRuleUpdateActionById 980170 "auditlog"
`))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(txhttp.WrapHandler(waf, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	})))
	t.Cleanup(server.Close)
	return server
}

// attack is a request, and what must become of it.
type attack struct {
	name, method, path, agent, body string
	rule                            string // which names the event; "" for none
	score                           float64
}

// secret is planted where secrets lie.
const secret = "PLANTED"

// attacks are each sent several times.
var attacks = []attack{
	{"scanner", "GET", "/", "sqlmap/1.7 (https://sqlmap.org)", "", "913100", 5},
	{"SQL injection", "GET", "/item?id=1%27%20OR%20%271%27=%271", "Mozilla/5.0", "", "942100", 5},
	{"XSS", "GET", "/item?q=%3Cscript%3Ealert(1)%3C/script%3E", "Mozilla/5.0", "", "941100", 20},
	{"SQL injection in a password", "POST", "/login", "Mozilla/5.0", "user=a&password=" + secret + "%27%20UNION%20SELECT%20x%20FROM%20users--", "942100", 15},
	{"path traversal", "GET", "/get?file=../../../../etc/passwd", "Mozilla/5.0", "", "930100", 30},
	{"nothing", "GET", "/plain?page=2", "Mozilla/5.0", "", "", 0},
}

// send makes a request and holds the answer to what the rule set decided.
func (a *attack) send(t *testing.T, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, a.method, url+a.path, strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "shop.example.com"
	for name, value := range map[string]string{"User-Agent": a.agent, "Cookie": "sid=" + secret, "Authorization": "Bearer " + secret, "X-Api-Key": secret, "Accept": "*/*"} {
		req.Header.Set(name, value)
	}
	if a.body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if want := map[bool]int{true: 200, false: 403}[a.rule == ""]; resp.StatusCode != want {
		t.Errorf("%s: %s, want %d", a.name, resp.Status, want)
	}
}

// audited gives the ids of the transactions in audit logs, with their URIs.
func audited(t *testing.T, files ...string) map[string]string {
	t.Helper()
	uris := map[string]string{}
	for _, file := range files {
		harness.EachLine(t, file, func(line []byte) {
			var r struct {
				Transaction struct {
					ID      string
					Request struct{ URI string }
				}
			}
			if err := json.Unmarshal(line, &r); err != nil || r.Transaction.ID == "" {
				t.Fatalf("%s: %v: %.200s", file, err, line)
			}
			uris[r.Transaction.ID] = r.Transaction.Request.URI
		})
	}
	return uris
}

// A live source of scores and thresholds: every transaction arrives once, with
// what the rule set found and reckoned, whatever happens to the program between.
func TestCorazaAcrossAKill(t *testing.T) {
	s := newService(t, "coraza")
	log := filepath.Join(s.Dir, "in", "coraza.json")
	web := site(t, log)
	sent := int64(0)
	round := func(times int) {
		for range times {
			for i := range attacks {
				attacks[i].send(t, web.URL)
				sent++
			}
		}
	}
	round(3)
	s.Up(limit)
	feeds(t, s, sent)
	round(3)
	s.End(true) // mostly within what it has not yet delivered
	round(3)
	// The log is rotated while nobody reads it; the server goes on in the old file.
	old := filepath.Join(s.Dir, "in", "coraza-1.json")
	if err := os.Rename(log, old); err != nil {
		t.Fatal(err)
	}
	round(1)
	web = site(t, log)
	s.Up(limit)
	round(3)
	// A record that was cut goes to the quarantine, with no more secrets in it.
	whole, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	cut := whole[:bytes.Index(whole, []byte(secret))+len(secret)+1]
	if err := os.WriteFile(filepath.Join(s.Dir, "in", "coraza-cut.json"), append(cut, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	got := feeds(t, s, sent+1)
	if c := got["coraza"]; c != (counts{Feed: "coraza", Read: sent + 1, Accepted: sent, Quarantined: 1}) {
		t.Errorf("%d were sent, and the feed says %+v", sent, c)
	}
	s.End(false)

	want := audited(t, old, log)
	if int64(len(want)) != sent {
		t.Errorf("%d requests left %d audit records", sent, len(want))
	}
	transaction := func(e *schemas.Event) string { return e.RequestID }
	all := delivered(t, s, "all", transaction)
	alerts := delivered(t, s, "drops", transaction)
	for id, uri := range want {
		e, there := all[id]
		if !there {
			t.Errorf("%s %s was not delivered", id, uri)
			continue
		}
		_, alerted := alerts[id]
		holds(t, &e, uri, alerted)
	}
	if len(all) != len(want) || len(alerts) != len(want)*(len(attacks)-1)/len(attacks) {
		t.Errorf("%d transactions, %d events, %d of them alerts", len(want), len(all), len(alerts))
	}
	nowhere(t, s, secret)
}

// holds an event to what was sent.
func holds(t *testing.T, e *schemas.Event, uri string, alerted bool) {
	t.Helper()
	for i := range attacks {
		a := &attacks[i]
		if a.path != uri {
			continue
		}
		path, query, _ := strings.Cut(uri, "?")
		if e.Source != "coraza" || e.HTTPPath != path || e.HTTPQuery != query || e.HTTPMethod != a.method || e.UserAgent != a.agent || e.HTTPHost != "shop.example.com" || e.ClientIP != "127.0.0.1" || !e.ClientPort.OK {
			t.Errorf("%s: the request: %+v", a.name, e)
		}
		if a.rule == "" {
			if e.Kind != "request" || e.Action != "none" || e.Disposition != "allowed" || alerted {
				t.Errorf("%s: %s %s %s, delivered as an alert: %v", a.name, e.Kind, e.Action, e.Disposition, alerted)
			}
			return
		}
		if e.Kind != "alert" || e.Action != "block" || e.Disposition != "blocked" || !e.Enforced || e.Severity != 5 || !alerted {
			t.Errorf("%s: %s %s %s enforced=%v severity %d, delivered as an alert: %v", a.name, e.Kind, e.Action, e.Disposition, e.Enforced, e.Severity, alerted)
		}
		if e.RuleID != a.rule || !strings.HasPrefix(e.RuleSet, "OWASP_CRS/4.") || !strings.HasPrefix(e.RuleCategory, "attack-") {
			t.Errorf("%s: rule %s of %s, %s; want %s", a.name, e.RuleID, e.RuleSet, e.RuleCategory, a.rule)
		}
		if e.ScoreRaw.V != a.score || e.ScoreThreshold.V != 5 || e.ScoreKind != "anomaly" || e.Reason != fmt.Sprintf("Inbound Anomaly Score Exceeded (Total Score: %v)", a.score) {
			t.Errorf("%s: score %+v of %+v (%s), %s; want %v", a.name, e.ScoreRaw, e.ScoreThreshold, e.ScoreKind, e.Reason, a.score)
		}
		ids := map[string]bool{}
		for _, m := range e.Matches {
			ids[m.RuleID] = true
		}
		if !ids[a.rule] || !ids["949110"] || !ids["980170"] {
			t.Errorf("%s: matches %+v", a.name, e.Matches)
		}
		return
	}
	t.Errorf("nobody asked for %s", uri)
}
