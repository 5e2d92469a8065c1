package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// pluginKey is acme's key, which must be nowhere but in its file.
const pluginKey = "nk-PLANTED-key-of-acme"

// step is a visitor's request, and what must come of it.
type step struct {
	Name     string `json:"name"`
	Mode     string `json:"mode"`
	Method   string `json:"method"`
	Path     string `json:"path"`
	IP       string `json:"ip"`
	Agent    string `json:"agent"` // names the step in its event
	CookieOf string `json:"cookieOf,omitempty"`
	Timeout  int    `json:"timeout,omitempty"`

	codes   string // the Protector's: match, mitigate, captcha; "!" fails, "" hangs
	visitor int
	raw     string // action_raw
	want    string // kind action disposition enforced reason
}

// steps are the decisions of sources.md's table (1.3).
func steps() []step {
	list := []step{
		{Name: "allowed", codes: "000", visitor: 200, want: "request none allowed false"},
		{Name: "ua-block", codes: "110", visitor: 403, raw: "ua_blocked", want: "mitigation block blocked true"},
		{Name: "hard-block", codes: "230", visitor: 403, raw: "ip_hardblocked", want: "mitigation block blocked true"},
		{Name: "captcha", codes: "211", visitor: 403, raw: "ip_blocked,captcha_serve", want: "mitigation captcha captcha_served true"},
		{Name: "captcha-pass", Method: "POST", Path: "/AtaVerifyCaptcha", codes: "212", visitor: 200, raw: "ip_blocked,captcha_pass", want: "mitigation captcha captcha_passed true"},
		{Name: "captcha-fail", Method: "POST", Path: "/AtaVerifyCaptcha", codes: "213", visitor: 403, raw: "ip_blocked,captcha_fail", want: "mitigation captcha captcha_failed true"},
		{Name: "cookie-pass", CookieOf: "captcha-pass", codes: "212", visitor: 200, raw: "ip_blocked,captcha_cookiepass", want: "mitigation allow bypassed false"},
		{Name: "cookie-fail", CookieOf: "captcha-fail", codes: "213", visitor: 403, raw: "ip_blocked,captcha_cookiefail", want: "mitigation captcha captcha_served true"},
		{Name: "trusted", codes: "320", visitor: 200, raw: "visitor_allow", want: "mitigation allow allowed true"},
		{Name: "header-fp", codes: "b40", visitor: 403, raw: "headerFP_block", want: "mitigation block blocked true"},
		{Name: "unknown", codes: "z50", visitor: 200, raw: "unknown_unknown", want: "mitigation none allowed false"},
		{Name: "protector-500", codes: "!", visitor: 200, raw: "error_open", want: "request none fail_open false protector_500"},
		{Name: "protector-hangs", codes: "", Timeout: 300, visitor: 200, raw: "error_open", want: "request none fail_open false error_open"},
		{Name: "inject", Mode: "INJECT", codes: "711", visitor: 200, raw: "asn_blocked,captcha_serve", want: "mitigation captcha detected false"},
	}
	for i := range list {
		s := &list[i]
		if s.Mode == "" {
			s.Mode = "MITIGATE"
		}
		if s.Method == "" {
			s.Method, s.Path = "GET", "/products/42"
		}
		s.IP = fmt.Sprintf("203.0.113.%d", i+1)
		for _, of := range list[:i] {
			if of.Name == s.CookieOf {
				s.IP = of.IP // another address would be another session
			}
		}
	}
	return list
}

// protector is Netacea's mitigation API as the plugin meets it: it answers by
// the visitor's address.
func protector(t *testing.T, list []step) *httptest.Server {
	done := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Netacea-API-Key") != pluginKey {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		for _, s := range list {
			if s.IP != r.Header.Get("X-Netacea-Client-IP") {
				continue
			}
			switch s.codes {
			case "":
				<-done
			case "!":
				w.WriteHeader(http.StatusInternalServerError)
			default:
				w.Header().Set("X-Netacea-Match", s.codes[:1])
				w.Header().Set("X-Netacea-Mitigate", s.codes[1:2])
				w.Header().Set("X-Netacea-Captcha", s.codes[2:])
				fmt.Fprint(w, "<html>captcha</html>")
			}
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(func() { close(done); srv.Close() })
	return srv
}

// result is what netacea.mjs tells of a step.
type result struct {
	Name    string
	Visitor int
	Answers []struct {
		Status int
		Body   string
	}
	Error, Cookie string
}

// plugin is a release of the plugin and how it is set up.
type plugin struct{ name, module, release, version string }

// drive runs the steps through a plugin; it gives the session cookies that the
// visitors got.
func drive(t *testing.T, s *harness.Service, p plugin, list []step) (cookies []string) {
	t.Helper()
	list = append([]step(nil), list...)
	for i := range list {
		list[i].Agent = "agent of " + p.name + "/" + list[i].Name
	}
	plan, err := json.Marshal(map[string]any{"package": p.module, "version": p.version, "key": pluginKey, "steps": list,
		"protector": protector(t, list).URL, "ingest": "http://" + s.Feed + "/v1/ingest/netacea/acme"})
	if err != nil {
		t.Fatal(err)
	}
	s.Write("plan.json", string(plan))
	servers.Installed(t, "node_modules/"+p.module+"/package.json", "readers")
	script := servers.Installed(t, "testbed/netacea.mjs", "nothing: it is in the repository")
	var said bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, servers.Installed(t, "node", "readers"), script, filepath.Join(s.Dir, "plan.json"))
	cmd.Stderr = &said
	out, err := cmd.Output()
	var results []result
	if err == nil {
		err = json.Unmarshal(out, &results)
	}
	if err != nil || len(results) != len(list) {
		t.Fatalf("%s: %v: %d results: %s\n%s", p.name, err, len(results), out, said.String())
	}
	for i, r := range results {
		if r.Visitor != list[i].visitor || r.Error != "" || len(r.Answers) != 1 || r.Answers[0].Status != 200 || r.Answers[0].Body != `{"accepted":1,"rejected":[]}` {
			t.Errorf("%s/%s: %+v, want the visitor's %d", p.name, r.Name, r, list[i].visitor)
		}
		for part := range strings.SplitSeq(r.Cookie, "_/@#/") {
			if len(part) > 20 { // the signatures
				cookies = append(cookies, part)
			}
		}
	}
	return cookies
}

const pluginSink = `tenant: acme
api_keys: [` + pluginKey + `]
sinks:
  - name: drops
    dir: {path: "%s/drops"}
    compression: none
    kinds: [mitigation, match, alert, audit, request]
    deliver: {max_age: 1s}
`

// TestNetaceaPlugin: the releases that customers run post to us as to Netacea,
// and what was decided arrives, the program killed and stopped on the way.
func TestNetaceaPlugin(t *testing.T) {
	s := harness.NewService(t, "")
	s.Write("tenants/acme.yaml", fmt.Sprintf(pluginSink, s.Dir))
	all := steps()
	// Release 5 knows no INJECT or error in its log.
	var early []step
	for _, st := range all {
		if strings.Contains("allowed ua-block hard-block captcha trusted", st.Name) {
			early = append(early, st)
		}
	}
	log := ""
	want := map[string]step{}
	planted := []string{"PLANTED", "of-the-visitor"}
	for i, run := range []struct {
		plugin
		steps []step
	}{
		{plugin{"v6-V1", "@netacea/cloudflare", "6.0.13", "V1"}, all},
		{plugin{"v6-V2", "@netacea/cloudflare", "6.0.13", "V2"}, all},
		{plugin{"v5-V1", "netacea-cloudflare-5", "5.1.47", "V1"}, early},
	} {
		s.Up(time.Minute)
		planted = append(planted, drive(t, s, run.plugin, run.steps)...)
		for _, st := range run.steps {
			st.Agent = run.release
			want["agent of "+run.name+"/"+st.Name] = st
		}
		if i == 2 {
			reject(t, s)
			if l := s.Delivered(int64(len(want)+1), time.Minute); !l.Balanced {
				t.Errorf("the ledger does not balance: %+v", l)
			}
		}
		log += s.Output()
		s.End(i != 2) // two kill -9, one SIGTERM
	}
	if len(planted) < 20 {
		t.Errorf("only %d secrets were there to be found: %q", len(planted), planted)
	}
	holds(t, s, want)
	log += s.Output()
	nowhere(t, s, log, planted)
}

// reject posts a log that cannot become an event, so that the quarantine has
// one with all that is secret in it.
func reject(t *testing.T, s *harness.Service) {
	t.Helper()
	body := `{"Request":"GET / HTTP/2","TimeLocal":"never","apiKey":"` + pluginKey + `","NetaceaUserIdCookie":"PLANTED_/@#/1_/@#/id_/@#/PLANTED_/@#/110","cookie":"a=PLANTED"}`
	got := post(t, s, "netacea/acme/", pluginKey, []byte(body), "Content-Type", "application/json")
	if got.status != 400 || !strings.Contains(got.body, "time") || strings.Contains(got.body, "PLANTED") {
		t.Errorf("a log without a time: %d %s", got.status, got.body)
	}
	if got := post(t, s, "netacea/acme/", pluginKey, []byte("Request=GET+%2F&Status=200"), "Content-Type", "application/x-www-form-urlencoded"); got.status != http.StatusUnsupportedMediaType {
		t.Errorf("a form: %d %s", got.status, got.body)
	}
}

// holds compares the events in the drops with the steps.
func holds(t *testing.T, s *harness.Service, want map[string]step) {
	t.Helper()
	got := map[string]int{}
	for _, e := range events(t, s, "acme") {
		st, ok := want[e.UserAgent]
		got[e.UserAgent]++
		if !ok {
			t.Errorf("an event of nobody: %+v", e)
			continue
		}
		if text := strings.TrimSpace(fmt.Sprint(e.Kind, " ", e.Action, " ", e.Disposition, " ", e.Enforced, " ", e.Reason)); text != st.want || e.ActionRaw != st.raw {
			t.Errorf("%s: %s %q, want %s %q", e.UserAgent, text, e.ActionRaw, st.want, st.raw)
		}
		if e.ClientIP != st.IP || e.HTTPStatus != st.visitor || e.HTTPMethod != st.Method || e.HTTPPath != st.Path || e.HTTPProtocol != "HTTP/2" || e.Source != "netacea" || e.VendorVersion != st.Agent || e.Integration != "cloudflare" {
			t.Errorf("%s: %+v", e.UserAgent, e)
		}
		if !strings.HasSuffix(e.UserAgent, "hangs") && !strings.HasSuffix(e.UserAgent, "500") && e.SessionID == "" {
			t.Errorf("%s: no session: %+v", e.UserAgent, e)
		}
	}
	for agent := range want {
		if got[agent] != 1 {
			t.Errorf("%s: %d events", agent, got[agent])
		}
	}
}
