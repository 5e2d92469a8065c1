package tenants

import (
	"strings"
	"testing"

	"datasync/schemas"
)

func sample() *schemas.Event {
	return &schemas.Event{
		EventID: "e1", TenantID: "acme", Kind: "mitigation", EventTime: 1795309107000, Action: "block",
		Disposition: "blocked", Enforced: true, Severity: 3, ClientIP: "10.1.2.3", ClientCountry: "DE",
		Score: schemas.Float{V: 72.5, OK: true}, HTTPStatus: schemas.Int{V: 403, OK: true},
		HTTPPath: "/login", Techniques: []string{"T1190"}, UserAgent: "curl/8",
		Matches: []schemas.Match{{RuleID: "942100", Blocking: schemas.Bool{V: true, OK: true}}},
		Net:     schemas.Net{OK: true, DstIP: "192.0.2.1"},
	}
}

func TestFilterMatches(t *testing.T) {
	for src, want := range map[string]bool{
		`enforced && client_country != "GB"`: true,
		`client_country == "GB"`:             false,
		`score > 50 && http_status == 403`:   true,
		`score > 80`:                         false,
		`score_raw == 0.0 && http_host == "" && !host.name.contains("x")`: true,
		`client_port == 0 && size(tactics) == 0`:                          true,
		`"T1190" in techniques`:                                           true,
		`matches.exists(m, m.rule_id == "942100" && m.blocking)`:          true,
		`matches.exists(m, m.name != "")`:                                 false,
		`net.dst_ip == "192.0.2.1"`:                                       true,
		`cidr("10.0.0.0/8", client_ip)`:                                   true,
		`cidr("10.0.0.0/8", forwarded_for)`:                               false,
		`http_path.startsWith("/log") && user_agent.matches("^curl")`:     true,
		`kind in ["mitigation", "match"]`:                                 true,
		`event_time > 1700000000000`:                                      true,
		`http_path.lowerAscii().split("/")[1] == "login"`:                 true,
		`severity >= 3`:                   true,
		`matches(user_agent, "(?i)CURL")`: true,
	} {
		f, err := CompileFilter(src)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		if got, err := f.Match(sample()); err != nil || got != want {
			t.Errorf("%s = %v, %v; want %v", src, got, err, want)
		}
	}
}

func TestFilterMistakes(t *testing.T) {
	for src, want := range map[string]string{
		`client_contry == "GB"`:            `unknown field or function "client_contry"; did you mean "client_country"? (at 1:1 of the expression)`,
		`enforced &&`:                      `(at 1:12 of the expression)`,
		`client_country`:                   `the filter gives string, not true or false; compare it with something`,
		`score == "high"`:                  `found no matching overload for '_==_' applied to '(double, string)' (at 1:7 of the expression)`,
		`cidr("10.0.0.0", client_ip)`:      `"10.0.0.0" is no prefix; write one as 10.0.0.0/8 (at 1:6 of the expression)`,
		`user_agent.matches("(")`:          `invalid matches argument (at 1:20 of the expression)`,
		`net.dst_pi == ""`:                 `unknown field or function "net.dst_pi"; did you mean "net.dst_ip"? (at 1:1 of the expression)`,
		strings.Repeat("!", 9000) + "true": "longer than",
		``:                                 "the filter is empty",
	} {
		_, err := CompileFilter(src)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40s: %v\nwant %s", src, err, want)
		}
	}
}

func TestFilterCostIsBounded(t *testing.T) {
	f, err := CompileFilter(`http_path.split("").exists(a, http_path.split("").exists(b, a + b == "zz"))`)
	if err != nil {
		t.Fatal(err)
	}
	e := sample()
	e.HTTPPath = strings.Repeat("x", 4_000)
	if ok, err := f.Match(e); err == nil {
		t.Fatalf("an expensive filter ended with %v and no error", ok)
	}
}

func TestFilterSeesEveryField(t *testing.T) {
	for _, f := range schemas.Fields() {
		name := f.Name
		if f.Type == schemas.Struct {
			name += "." + f.Members[0].Name
		}
		if _, err := CompileFilter(name + " == " + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	f, err := CompileFilter(`enforced && client_country != "GB"`)
	if err != nil {
		b.Fatal(err)
	}
	e := sample()
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := f.Match(e); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkCompileFilter(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CompileFilter(`enforced && client_country != "GB"`); err != nil {
			b.Fatal(err)
		}
	}
}
