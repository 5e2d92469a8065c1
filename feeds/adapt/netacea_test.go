package adapt

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"datasync/feeds"
	"datasync/schemas"
)

// now is shortly after the samples' time.
const now = 1795309300000

func input(value string) *Input {
	return &Input{Value: []byte(value), Tenant: "acme", ID: "rec", Ingest: now, Now: now}
}

// adaptOne runs one record that must become exactly one event.
func adaptOne(t *testing.T, format, value string) (line string, e schemas.Event) {
	t.Helper()
	a, ok := For(format)
	if !ok {
		t.Fatalf("no adapter for %s", format)
	}
	var out Output
	a(input(value), &out)
	if len(out.Events) != 1 || len(out.Bad) != 0 {
		t.Fatalf("%d events, bad %+v, of %s", len(out.Events), out.Bad, value)
	}
	ev := out.Events[0]
	line = string(out.Arena[ev.Off : ev.Off+ev.Len])
	if !strings.HasSuffix(line, "}\n") || strings.Count(line, "\n") != 1 {
		t.Fatalf("no line: %q", line)
	}
	line = line[:len(line)-1]
	if err := schemas.Decode([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	if e.Kind != ev.Kind.String() || e.EventTime != ev.Time || e.TenantID != string(ev.Tenant) {
		t.Errorf("the head says %v %d %s, the line %s", ev.Kind, ev.Time, ev.Tenant, line)
	}
	return line, e
}

// v2 is a V2 log with a status and a mode.
func v2(status, mode string) string {
	s := `{"status":"403","method":"GET","path":"/p","client":"203.0.113.7","@timestamp":"2026-11-22T00:59:32.184+00:00"`
	if status != "" {
		s += fmt.Sprintf(`,"bc_type":%q`, status)
	}
	if mode != "" {
		s += fmt.Sprintf(`,"protection_mode":%q`, mode)
	}
	return s + "}"
}

// TestNormalisation holds every N row of events.md, and every case of the
// status table of the plugins.
func TestNormalisation(t *testing.T) {
	for _, c := range []struct {
		status, mode              string
		kind, action, disposition string
		enforced                  bool
		matchOn                   string
	}{
		{"", "MITIGATE", "request", "none", "allowed", false, ""},
		{"", "INJECT", "request", "none", "allowed", false, ""},
		{"ua_blocked", "MITIGATE", "mitigation", "block", "blocked", true, "ua"},
		{"ip_hardblocked", "MITIGATE", "mitigation", "block", "blocked", true, "ip"},
		{"headerFP_block", "MITIGATE", "mitigation", "block", "blocked", true, "header_fp"},
		{"datacenter_flagged", "MITIGATE", "mitigation", "block", "blocked", true, "datacenter"},
		{"ip_blocked", "", "mitigation", "block", "blocked", true, "ip"},
		{"ip_blocked,captcha_serve", "MITIGATE", "mitigation", "captcha", "captcha_served", true, "ip"},
		{"ip_blocked,captcha_cookiefail", "MITIGATE", "mitigation", "captcha", "captcha_served", true, "ip"},
		{"captcha_cookiefail", "MITIGATE", "mitigation", "captcha", "captcha_served", true, ""},
		{"ip_blocked,captcha_fail", "MITIGATE", "mitigation", "captcha", "captcha_failed", true, "ip"},
		{"ip_blocked,captcha_pass", "MITIGATE", "mitigation", "captcha", "captcha_passed", true, "ip"},
		{"ip_blocked,captcha_cookiepass", "MITIGATE", "mitigation", "allow", "bypassed", false, "ip"},
		{"visitor_allow", "MITIGATE", "mitigation", "allow", "allowed", true, "visitor"},
		{"sev_monetised", "MITIGATE", "mitigation", "redirect", "redirected", true, "sev"},
		{"asn_blocked,captcha_serve", "INJECT", "mitigation", "captcha", "detected", false, "asn"},
		{"ua_blocked", "INJECT", "mitigation", "block", "detected", false, "ua"},
		{"visitor_allow", "INJECT", "mitigation", "allow", "detected", false, "visitor"},
		{"country_monetised", "INJECT", "mitigation", "redirect", "detected", false, "country"},
		{"ip_blocked,captcha_cookiepass", "INJECT", "mitigation", "allow", "detected", false, "ip"},
		{"unknown_unknown", "MITIGATE", "mitigation", "none", "allowed", false, ""},
		{"unknown_unknown", "INJECT", "mitigation", "none", "allowed", false, ""},
		{"organisation_zapped", "MITIGATE", "mitigation", "none", "allowed", false, "organisation"},
		{"combination_blocked,captcha_dance", "MITIGATE", "mitigation", "none", "allowed", false, "combination"},
		{"error_open", "MITIGATE", "request", "none", "fail_open", false, ""},
		{"error_open", "INJECT", "request", "none", "fail_open", false, ""},
	} {
		_, e := adaptOne(t, "netacea", v2(c.status, c.mode))
		if e.Kind != c.kind || e.Action != c.action || e.Disposition != c.disposition || e.Enforced != c.enforced || e.MatchOn != c.matchOn {
			t.Errorf("%q %s: %s %s %s enforced=%v match_on=%q", c.status, c.mode, e.Kind, e.Action, e.Disposition, e.Enforced, e.MatchOn)
		}
		if e.ActionRaw != c.status || e.Mode != strings.ToLower(c.mode) {
			t.Errorf("%q %s: action_raw %q mode %q", c.status, c.mode, e.ActionRaw, e.Mode)
		}
		if e.Severity != severities[c.action] || e.Severity == 0 {
			t.Errorf("%q: severity %d", c.status, e.Severity)
		}
	}
}

// v1 is a V1 log with members put in.
func v1(extra string) string {
	s := `{"Request":"GET /p HTTP/2","TimeLocal":"Sun, 22 Nov 2026 00:59:31 GMT","RealIp":"203.0.113.7","UserAgent":"-","Status":"403","RequestTime":"0","BytesSent":"0","Referer":"-","NetaceaMitigationApplied":"ua_blocked"`
	if extra != "" {
		s += "," + extra
	}
	return s + "}"
}

func TestTimeSources(t *testing.T) {
	for _, c := range []struct {
		log, precision string
		want           int64
	}{
		{v1(""), "s", 1795309171000},
		{v1(`"TimeUnixMsUTC":1795309107123`), "ms", 1795309107123},
		{v1(`"@timestamp":"2026-11-22T00:59:32.184+00:00"`), "ms", 1795309172184},
		{v1(`"@timestamp":"2026-11-22T00:59:32.184+00:00","TimeUnixMsUTC":1795309107123`), "ms", 1795309107123},
		{v1(`"TimeUnixMsUTC":"soon"`), "s", 1795309171000},
		{`{"TimeLocal":"22/Nov/2026:01:59:31 +0100"}`, "s", 1795309171000},
		{`{"TimeLocal":1795309171123}`, "ms", 1795309171123},
		{`{"TimeLocal":1795309171123.5}`, "ms", 1795309171123},
	} {
		if _, e := adaptOne(t, "netacea", c.log); e.EventTime != c.want || e.TimePrecision != c.precision {
			t.Errorf("%s: %d %s, want %d %s", c.log, e.EventTime, e.TimePrecision, c.want, c.precision)
		}
	}
}

func TestRequestTimeAndNulls(t *testing.T) {
	for value, want := range map[string]schemas.Float{`"0"`: {}, `0`: {}, `"0.012"`: {V: 12, OK: true}, `"0.000"`: {OK: true}, `"1.5"`: {V: 1500, OK: true}, `"-"`: {}} {
		if _, e := adaptOne(t, "netacea", `{"TimeUnixMsUTC":1795309107123,"RequestTime":`+value+`}`); e.DurationMs != want {
			t.Errorf("RequestTime %s: %+v", value, e.DurationMs)
		}
	}
	line, e := adaptOne(t, "netacea", v1(`"RequestHost":"Shop.Example.COM:8443","XForwardedFor":"","Query":"?a=1"`))
	if e.UserAgent != "" || e.HTTPReferrer != "" || e.ForwardedFor != "" {
		t.Errorf("dashes and blanks are nothing: %s", line)
	}
	if e.HTTPHost != "shop.example.com" || e.HTTPQuery != "a=1" || e.HTTPStatus.V != 403 || e.BytesOut != (schemas.Int{OK: true}) {
		t.Errorf("%s", line)
	}
	_, e = adaptOne(t, "netacea", `{"TimeUnixMsUTC":1795309107123,"Request":"POST /a b?x=1&y=2 undefined"}`)
	if e.HTTPMethod != "POST" || e.HTTPPath != "/a b" || e.HTTPQuery != "x=1&y=2" || e.HTTPProtocol != "" {
		t.Errorf("request line: %+v", e)
	}
}

func TestSecretsAreStripped(t *testing.T) {
	v2cookie := "bWFj_/@#/1795309231_/@#/cJ8MSoNe9Dwlb2c3_/@#/YTM4_/@#/211"
	v3cookie := "cip=203.0.113.7&uid=cAbCdEfGhIjKlMnO&cid=x1&grp=60&mat=2&mit=1&cap=0&ist=1795309107&isr=no_session"
	for _, c := range []struct{ cookie, id, codes string }{
		{v2cookie, "cJ8MSoNe9Dwlb2c3", "211"}, {v3cookie, "cAbCdEfGhIjKlMnO", "210"},
		{"garbage", "", ""}, {"a_/@#/b_/@#/not an id!_/@#/d_/@#/1 1", "", ""},
	} {
		log := v1(fmt.Sprintf(`"apiKey":"KEYKEY","NetaceaUserIdCookie":%q,"cookie":"COOK1","x_cookie":"COOK2","Set-Cookie":"COOK3","api_key":"KEYKEY","optional":{"headerFingerprint":"h_1","cookieFingerprint":"c_1","captchaCookie":"COOK4","more":1},"NetaceaUserIdCookieStatus":2`, c.cookie))
		line, e := adaptOne(t, "netacea", log)
		for _, gone := range []string{"KEYKEY", "COOK", "YTM4", "isr="} {
			if strings.Contains(line, gone) {
				t.Errorf("%s is still there: %s", gone, line)
			}
		}
		if e.SessionID != c.id || e.CodesRaw != c.codes || e.SessionState != "existing" || e.ClientFP != "h_1" {
			t.Errorf("%s: %+v", c.cookie, e)
		}
		if e.Meta.Unmapped != `{"optional":{"cookieFingerprint":"c_1","more":1}}` {
			t.Errorf("unmapped: %s", e.Meta.Unmapped)
		}
	}
	_, e := adaptOne(t, "netacea", v1(fmt.Sprintf(`"UserId":"given","NetaceaUserIdCookie":%q`, v3cookie)))
	if e.SessionID != "given" {
		t.Errorf("UserId comes before the cookie: %q", e.SessionID)
	}
}

func TestUnknownFieldsAreKept(t *testing.T) {
	line, e := adaptOne(t, "netacea", v1(`"Colo":"LHR","Deep":{"a":[1, 2]},"ProtectionMode":"WATCH","NetaceaUserIdCookieStatus":9,"Optional":[]`))
	var got map[string]any
	if err := json.Unmarshal([]byte(e.Meta.Unmapped), &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	for _, want := range []string{"Colo", "Deep", "ProtectionMode", "NetaceaUserIdCookieStatus", "Optional"} {
		if _, ok := got[want]; !ok {
			t.Errorf("%s is lost: %s", want, line)
		}
	}
	if _, e = adaptOne(t, "netacea", v1(`"X":"`+strings.Repeat("é", 3000)+`","IntegrationType":"fastly"`)); e.Integration != "fastly" {
		t.Errorf("%+v", e)
	}
	long := `{"TimeUnixMsUTC":1795309107123,"UserAgent":"` + strings.Repeat("é", 1500) + `"}`
	if _, e = adaptOne(t, "netacea", long); len(e.UserAgent) != 2048 || len(e.Meta.Truncated) != 1 {
		t.Errorf("user agent of %d bytes, %v", len(e.UserAgent), e.Meta.Truncated)
	}
}

func TestFailOpenSaysWhy(t *testing.T) {
	for extra, want := range map[string]string{`"ProtectorStatus":500`: "protector_500", "": "error_open"} {
		log := strings.Replace(v1(extra), "ua_blocked", "error_open", 1)
		if _, e := adaptOne(t, "netacea", log); e.Reason != want || e.ActionRaw != "error_open" {
			t.Errorf("%s: reason %q", extra, e.Reason)
		}
	}
}

func TestArraysAndIDs(t *testing.T) {
	log := v1("")
	var out Output
	netacea(input("["+log+","+log+`,7,{"Request":"no time"}]`), &out)
	if len(out.Events) != 2 || len(out.Bad) != 2 || out.Bad[0].Index != 2 || out.Bad[1].Index != 3 {
		t.Fatalf("%+v %+v", out.Events, out.Bad)
	}
	for i, ev := range out.Events {
		if !strings.Contains(string(out.Arena[ev.Off:ev.Off+ev.Len]), fmt.Sprintf(`"event_id":"rec:%d"`, i)) {
			t.Errorf("event %d: %s", i, out.Arena[ev.Off:ev.Off+ev.Len])
		}
	}
	in := input(log)
	in.Tenant = ""
	out.Reset()
	netacea(in, &out)
	if len(out.Events) != 0 || len(out.Bad) != 1 || !strings.Contains(out.Bad[0].Reason, "tenant") {
		t.Errorf("no tenant: %+v", out.Bad)
	}
	out.Reset()
	netacea(input(`{"Status":"200","Status":"403","TimeUnixMsUTC":1795309107123}`), &out)
	if len(out.Bad) != 1 || out.Bad[0].Reason != "Status is given twice" {
		t.Errorf("twice: %+v", out.Bad)
	}
}

// check holds what every adapter promises of any input.
func check(t *testing.T, in *Input, out *Output) {
	for _, e := range out.Events {
		line := out.Arena[e.Off : e.Off+e.Len]
		var h schemas.Head
		if p := schemas.Scan(line[:len(line)-1], in.Now, &h); p != nil || !h.Compact || h.Has != schemas.HasAll {
			t.Fatalf("%v %+v: %s", p, h, line)
		}
		if strings.Count(string(line), "\n") != 1 {
			t.Fatalf("a raw newline: %q", line)
		}
		if !feeds.ValidName(string(e.Tenant)) {
			t.Fatalf("tenant %q", e.Tenant)
		}
	}
	if limit := 8*len(in.Value) + 4096*(len(out.Events)+1); len(out.Arena) > limit {
		t.Fatalf("%d bytes became %d", len(in.Value), len(out.Arena))
	}
	if n := len(out.Events) + len(out.Bad) + out.Suppressed; n > len(in.Value)+1 {
		t.Fatalf("%d bytes became %d values", len(in.Value), n)
	}
}

func FuzzNetacea(f *testing.F) {
	for _, file := range []string{"netacea_lua", "netacea_v1_blocked", "netacea_v1_captcha_serve", "netacea_v2_blocked"} {
		raw, err := os.ReadFile("testdata/" + file + ".json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(raw))
	}
	f.Add(v1(`"Optional":{"a":{}},"Deep":{"x":"\u2028"}`))
	f.Add("[" + v1("") + ",\n" + v2("ip_block,", "") + "]")
	f.Add("{\"a\":1}\n{\"TimeUnixMsUTC\":1795309107123,\"x\":\"\\ud800\"}\n")
	f.Fuzz(func(t *testing.T, value string) {
		in := input(value)
		var out Output
		netacea(in, &out)
		check(t, in, &out)
	})
}

func BenchmarkNetacea(b *testing.B) {
	raw, err := os.ReadFile("testdata/netacea_v1_blocked.json")
	if err != nil {
		b.Fatal(err)
	}
	in := input(string(raw))
	var out Output
	b.ReportAllocs()
	b.SetBytes(int64(len(raw)))
	for b.Loop() {
		out.Reset()
		netacea(in, &out)
		if len(out.Events) != 1 {
			b.Fatal(out.Bad)
		}
	}
}
