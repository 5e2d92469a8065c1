package adapt

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// cdnSamples are the samples of the CDN and WAF formats.
var cdnSamples = []struct{ file, format string }{
	{"cloudflare_firewall_events.json", "cloudflare-firewall"},
	{"cloudflare_firewall_merged.ndjson", "cloudflare-firewall"},
	{"cloudflare_http_requests.json", "cloudflare-http"},
	{"cloudfront_realtime.tsv", "cloudfront"},
	{"cloudfront_standard_v2.json", "cloudfront"},
	{"aws_waf.json", "aws-waf"},
	{"aws_waf_captcha.json", "aws-waf"},
}

func TestGoldenCDNSamples(t *testing.T) {
	for _, s := range cdnSamples {
		raw, err := os.ReadFile("testdata/" + s.file)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := For(s.format)
		in := input(string(raw))
		var out Output
		a(in, &out)
		check(t, in, &out)
		if len(out.Bad) > 0 || len(out.Events) == 0 {
			t.Errorf("%s: %+v", s.file, out.Bad)
		}
		name, _, _ := strings.Cut(s.file, ".")
		golden := "testdata/" + name + ".golden"
		if *update {
			if err := os.WriteFile(golden, out.Arena, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(out.Arena) != string(want) {
			t.Errorf("%s:\n got %s\nwant %s", s.file, out.Arena, want)
		}
	}
}

// TestNormalisationOfCDNs holds every CF, AW and CFR row of events.md.
func TestNormalisationOfCDNs(t *testing.T) {
	firewall := func(action, source string) string {
		return `{"Action":"` + action + `","Datetime":"2026-11-22T00:58:27Z","RayID":"r1","MatchIndex":0,"RuleID":"x","Source":"` + source + `"}`
	}
	http := func(action string) string {
		return `{"SecurityAction":"` + action + `","EdgeStartTimestamp":"2026-11-22T00:58:27Z","RayID":"r1"}`
	}
	waf := func(action, rule, kind, more string) string {
		return `{"timestamp":1795309107123,"action":"` + action + `","terminatingRuleId":"` + rule + `","terminatingRuleType":"` + kind + `"` + more + `}`
	}
	edge := func(status, detail string) string {
		return `{"date":"2026-11-22","time":"00:58:27","sc-status":"` + status + `","x-edge-detailed-result-type":"` + detail + `"}`
	}
	count := `,"nonTerminatingMatchingRules":[{"ruleId":"counted","action":"COUNT"}]`
	for _, c := range []struct{ format, log, want string }{
		{"cloudflare-firewall", firewall("block", "waf"), "mitigation block blocked true"},
		{"cloudflare-firewall", firewall("BLOCK", "waf"), "mitigation block blocked true"},
		{"cloudflare-firewall", firewall("block", "ratelimit"), "mitigation rate_limit blocked true"},
		{"cloudflare-firewall", firewall("challenge", "waf"), "mitigation captcha captcha_served true"},
		{"cloudflare-firewall", firewall("jschallenge", "waf"), "mitigation challenge challenge_served true"},
		{"cloudflare-firewall", firewall("managedchallenge", "waf"), "mitigation challenge challenge_served true"},
		{"cloudflare-firewall", firewall("challengesolved", "waf"), "mitigation captcha captcha_passed true"},
		{"cloudflare-firewall", firewall("jschallengesolved", "waf"), "mitigation challenge challenge_passed true"},
		{"cloudflare-firewall", firewall("managedchallengeinteractivesolved", "waf"), "mitigation challenge challenge_passed true"},
		{"cloudflare-firewall", firewall("managedchallengenoninteractivesolved", "waf"), "mitigation challenge challenge_passed true"},
		{"cloudflare-firewall", firewall("challengefailed", "waf"), "mitigation captcha captcha_failed true"},
		{"cloudflare-firewall", firewall("jschallengefailed", "waf"), "mitigation challenge challenge_failed true"},
		{"cloudflare-firewall", firewall("challengebypassed", "waf"), "mitigation captcha bypassed true"},
		{"cloudflare-firewall", firewall("jschallengebypassed", "waf"), "mitigation challenge bypassed true"},
		{"cloudflare-firewall", firewall("managedchallengebypassed", "waf"), "mitigation challenge bypassed true"},
		{"cloudflare-firewall", firewall("managedchallengeskipped", "waf"), "mitigation challenge bypassed true"},
		{"cloudflare-firewall", firewall("precursorinterstitialpage", "waf"), "mitigation challenge challenge_served true"},
		{"cloudflare-firewall", firewall("precursorinterstitialpagesolved", "waf"), "mitigation challenge challenge_passed true"},
		{"cloudflare-firewall", firewall("log", "waf"), "match log logged false"},
		{"cloudflare-firewall", firewall("allow", "waf"), "mitigation allow allowed true"},
		{"cloudflare-firewall", firewall("bypass", "waf"), "mitigation allow bypassed false"},
		{"cloudflare-firewall", firewall("skip", "waf"), "mitigation allow bypassed false"},
		{"cloudflare-firewall", firewall("connectionclose", "l7ddos"), "mitigation close blocked true"},
		{"cloudflare-firewall", firewall("unknown", "waf"), "mitigation none allowed false"},
		{"cloudflare-firewall", firewall("teleport", "waf"), "mitigation none allowed false"},
		{"cloudflare-http", http(""), "request none allowed false"},
		{"cloudflare-http", http("unknown"), "request none allowed false"},
		{"cloudflare-http", http("block"), "mitigation block blocked true"},
		{"cloudflare-http", http("managedChallenge"), "mitigation challenge challenge_served true"},
		{"cloudflare-http", http("jsChallenge"), "mitigation challenge challenge_served true"},
		{"cloudflare-http", http("challengeSolved"), "mitigation captcha captcha_passed true"},
		{"cloudflare-http", http("managedChallengeInteractiveSolved"), "mitigation challenge challenge_passed true"},
		{"cloudflare-http", http("managedChallengeBypassed"), "mitigation challenge bypassed true"},
		{"cloudflare-http", http("connectionClose"), "mitigation close blocked true"},
		{"cloudflare-http", http("skip"), "mitigation allow bypassed false"},
		{"cloudflare-http", http("log"), "match log logged false"},
		{"aws-waf", waf("BLOCK", "r", "REGULAR", ""), "mitigation block blocked true"},
		{"aws-waf", waf("BLOCK", "Default_Action", "REGULAR", count), "mitigation block blocked true"},
		{"aws-waf", waf("BLOCK", "r", "RATE_BASED", ""), "mitigation rate_limit blocked true"},
		{"aws-waf", waf("ALLOW", "r", "REGULAR", count), "mitigation allow allowed true"},
		{"aws-waf", waf("ALLOW", "Default_Action", "REGULAR", ""), "request allow allowed true"},
		{"aws-waf", waf("ALLOW", "Default_Action", "REGULAR", count), "match count detected false"},
		{"aws-waf", waf("COUNT", "r", "REGULAR", ""), "match count detected false"},
		{"aws-waf", waf("CAPTCHA", "r", "REGULAR", ""), "mitigation captcha captcha_served true"},
		{"aws-waf", waf("CHALLENGE", "r", "REGULAR", ""), "mitigation challenge challenge_served true"},
		{"aws-waf", waf("EXPLODE", "r", "REGULAR", ""), "mitigation none allowed false"},
		{"cloudfront", edge("403", "ClientGeoBlocked"), "mitigation block blocked true"},
		{"cloudfront", edge("403", "InvalidRequestBlocked"), "mitigation block blocked true"},
		{"cloudfront", edge("200", "ClientGeoBlocked"), "mitigation block blocked true"}, // an error page with a status of its own
		{"cloudfront", edge("403", "Error"), "request none allowed false"},
		{"cloudfront", edge("200", "Hit"), "request none allowed false"},
	} {
		_, e := adaptOne(t, c.format, c.log)
		if got := fmt.Sprint(e.Kind, " ", e.Action, " ", e.Disposition, " ", e.Enforced); got != c.want || e.Severity != severities[e.Action] {
			t.Errorf("%s: %s severity %d, want %s", c.log, got, e.Severity, c.want)
		}
	}
}

func TestTimesOfCDNs(t *testing.T) {
	for value, want := range map[string]instant{
		`"2026-11-22T00:58:27Z"`: {1795309107000, "s"}, `1795309107`: {1795309107000, "s"}, `"1795309107"`: {1795309107000, "s"},
		`1795309107174000000`: {1795309107174, "us"}, `"1795309107174000000"`: {1795309107174, "us"}, `1.795309107174e18`: {1795309107174, "us"},
		`"2026-11-22T00:58:27.174Z"`: {1795309107174, "ms"}, `"2026-11-22T01:58:27.174123+01:00"`: {1795309107174, "us"},
		`1795309107174`: {1795309107174, "ms"}, `1795309107174000`: {1795309107174, "us"}, `"1795309107.174"`: {1795309107174, "ms"},
	} {
		for format, name := range map[string]string{"cloudflare-firewall": "Datetime", "cloudflare-http": "EdgeStartTimestamp", "aws-waf": "timestamp", "cloudfront": "timestamp"} {
			_, e := adaptOne(t, format, `{"`+name+`":`+value+`}`)
			if e.EventTime != want.ms || e.TimePrecision != want.precision {
				t.Errorf("%s %s: %d %s", format, value, e.EventTime, e.TimePrecision)
			}
		}
	}
	for _, value := range []string{`0`, `-5`, `"soon"`, `""`, `null`, `{}`, `"NaN"`, `1e30`, `true`} {
		for format, name := range map[string]string{"cloudflare-firewall": "Datetime", "cloudflare-http": "EdgeEndTimestamp", "aws-waf": "timestamp", "cloudfront": "timestamp"} {
			a, _ := For(format)
			var out Output
			a(input(`{"`+name+`":`+value+`}`), &out)
			if len(out.Bad) != 1 || len(out.Events) != 0 || !strings.Contains(out.Bad[0].Reason, "time") {
				t.Errorf("%s %s: %+v", format, value, out)
			}
		}
	}
}

// run adapts a record.
func run(t *testing.T, format, record string) *Output {
	t.Helper()
	a, _ := For(format)
	in, out := input(record), new(Output)
	a(in, out)
	check(t, in, out)
	return out
}

// lines are the events of an Output, as text.
func (o *Output) lines() (all []string) {
	for _, e := range o.Events {
		all = append(all, string(o.Arena[e.Off:e.Off+e.Len]))
	}
	return all
}

// TestSecretsOfCDNs: no cookie or key survives, wherever such a log may hold one.
func TestSecretsOfCDNs(t *testing.T) {
	rt := strings.TrimRight(readFile(t, "cloudfront_realtime.tsv"), "\n")
	cols := strings.Split(rt, "\t")
	cols[rtCookie] = "session=PLANTED"
	for len(cols) < 40 {
		cols = append(cols, "-")
	}
	cols[37] = "Host:shop.example.com%0ACookie:session=PLANTED%0aAuthorization:Basic%20PLANTED%0AX-Api-Key%3APLANTED%0AAccept:*/*"
	line := strings.Join(cols, "\t")
	late := strings.Replace(line, "1795309107.174", "4795309107.174", 1)
	w3c := "#Version: 1.0\n#Fields: date time c-ip cs(Cookie) sc-status x-edge-request-id\n2026-11-22\t00:58:27\t203.0.113.7\tsession=PLANTED\t200\tid==\n"
	for _, c := range []struct{ name, format, record string }{
		{"cookie header", "aws-waf", `{"timestamp":1795309107123,"httpRequest":{"headers":[{"name":"Cookie","value":"PLANTED"},{"name":"authorization","value":"PLANTED"},{"name":"Proxy-Authorization","value":"PLANTED"},{"name":"x-api-key","value":"PLANTED"},{"name":"Accept","value":"*/*"}]}}`},
		{"other cookies", "aws-waf", `{"timestamp":1795309107123,"cookies":"PLANTED","requestHeadersInserted":[{"name":"cookie","value":"PLANTED"}],"new":{"deep":[{"Set-Cookie":"PLANTED"}]}}`},
		{"matched data", "aws-waf", `{"timestamp":1795309107123,"terminatingRuleId":"x","terminatingRuleMatchDetails":[{"conditionType":"XSS","location":"COOKIE","matchedData":["PLANTED"]},{"location":"HEADER","matchedFieldName":"authorization","matchedData":["PLANTED"]}]}`},
		{"rate key", "aws-waf", `{"timestamp":1795309107123,"rateBasedRuleList":[{"rateBasedRuleName":"n","limitKey":"CUSTOMKEYS","customValues":[{"key":"COOKIE","name":"sid","value":"PLANTED"},{"key":"HEADER","name":"Authorization","value":"PLANTED"}]}]}`},
		{"custom fields", "cloudflare-http", `{"EdgeStartTimestamp":1795309107,"Cookies":{"session":"PLANTED"},"RequestHeaders":{"cookie":"PLANTED","authorization":"PLANTED","accept":"*/*"},"ResponseHeaders":{"set-cookie":"PLANTED"}}`},
		{"rows", "cloudflare-firewall", `{"Datetime":1795309107,"RayID":"a","MatchIndex":0}` + "\n" + `{"Datetime":1795309107,"RayID":"a","MatchIndex":1,"Cookies":"PLANTED","Metadata":{"cookie":"PLANTED"}}`},
		{"standard", "cloudfront", `{"timestamp(ms)":"1795309107174","cs(Cookie)":"PLANTED","cs-cookie":"PLANTED"}`},
		{"real-time", "cloudfront", line},
		{"w3c", "cloudfront", w3c},
	} {
		out := run(t, c.format, c.record)
		if len(out.Events) != 1 || strings.Contains(string(out.Arena), "PLANTED") {
			t.Errorf("%s: %s %+v", c.name, out.Arena, out.Bad)
		}
		if strings.Contains(c.record, "*/*") && !strings.Contains(string(out.Arena), "*/*") {
			t.Errorf("%s: the harmless header is lost: %s", c.name, out.Arena)
		}
	}
	// A line that is no event goes to the quarantine, which knows no columns.
	shifted := strings.Join(append(append([]string{}, cols[:2]...), cols[4:]...), "\t")
	for name, record := range map[string]string{"of the future": late, "of another order": shifted, "w3c": strings.Replace(w3c, "2026", "2126", 1)} {
		out := run(t, "cloudfront", record)
		if len(out.Bad) != 1 || strings.Contains(string(out.Bad[0].Data), "PLANTED") || !strings.Contains(string(out.Bad[0].Data), "203.0.113.7") {
			t.Errorf("%s: %+v", name, out.Bad)
		}
	}
}

func readFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestUnknownFieldsOfCDNs: what has no place, or does not fit there, is kept.
func TestUnknownFieldsOfCDNs(t *testing.T) {
	for _, c := range []struct{ format, record, unmapped string }{
		{"cloudflare-firewall", `{"Datetime":1795309107,"New":[1, {"a":null}],"ClientIP":"nobody","ClientASN":"x","ClientCountry":"T1","EdgeResponseStatus":"teapot","Action":["block"]}`,
			`{"New":[1,{"a":null}],"ClientIP":"nobody","ClientASN":"x","ClientCountry":"T1","EdgeResponseStatus":"teapot","Action":["block"]}`},
		{"cloudflare-http", `{"EdgeStartTimestamp":1795309107,"BotScore":0,"BotTags":"x","SecurityActions":"block","JA4Signals":{"q":0.5},"ParentRayID":"9"}`,
			`{"BotScore":0,"BotTags":"x","SecurityActions":"block","JA4Signals":{"q":0.5},"ParentRayID":"9"}`},
		{"cloudfront", `{"timestamp":1795309107,"sc-status":"000","time-taken":"long","new":"x","c-country":"-","odd":"-","x-edge-request-id":"a b"}`,
			`{"time-taken":"long","new":"x","x-edge-request-id":"a b"}`},
		{"aws-waf", `{"timestamp":1795309107123,"clientAsn":-1,"labels":{"a":1},"httpRequest":{"clientIp":"x","fragment":"f","headers":"h","args":""},"oversizeFields":["BODY"],"cfDistributionTenantId":"t","ruleGroupList":[{"ruleGroupId":"g","terminatingRule":null,"nonTerminatingMatchingRules":[],"excludedRules":null}]}`,
			`{"clientAsn":-1,"labels":{"a":1},"oversizeFields":["BODY"],"cfDistributionTenantId":"t","httpRequest":{"clientIp":"x","fragment":"f","headers":"h"}}`},
	} {
		if line, e := adaptOne(t, c.format, c.record); e.Meta.Unmapped != c.unmapped {
			t.Errorf("%s\n got %s\nwant %s\n%s", c.format, e.Meta.Unmapped, c.unmapped, line)
		}
	}
	for _, c := range [][2]string{{"cloudflare-http", `{"EdgeStartTimestamp":1,"EdgeStartTimestamp":2}`}, {"aws-waf", `{"timestamp":1,"timestamp":1}`}, {"cloudfront", `{"timestamp":1,"timestamp":1}`}, {"cloudflare-firewall", `{"Datetime":1,"Datetime":1}`}} {
		if out := run(t, c[0], c[1]); len(out.Bad) != 1 || !strings.Contains(out.Bad[0].Reason, "twice") {
			t.Errorf("%s: %+v", c[0], out.Bad)
		}
	}
}

// TestUserAgentsOfCDNs: cut at 2 kB, and CloudFront's escapes undone once.
func TestUserAgentsOfCDNs(t *testing.T) {
	long := strings.Repeat("x", 3000)
	for format, record := range map[string]string{
		"cloudflare-http": `{"EdgeStartTimestamp":1795309107,"ClientRequestUserAgent":"` + long + `"}`,
		"aws-waf":         `{"timestamp":1795309107123,"httpRequest":{"headers":[{"name":"User-Agent","value":"` + long + `"}]}}`,
		"cloudfront":      `{"timestamp":1795309107,"cs(User-Agent)":"` + long + `"}`,
	} {
		if line, e := adaptOne(t, format, record); len(e.UserAgent) != 2048 || len(e.Meta.Truncated) != 1 {
			t.Errorf("%s: %s", format, line)
		}
	}
	for raw, want := range map[string]string{"Mozilla/5.0%20(X11)": "Mozilla/5.0 (X11)", "a%2520b": "a%20b", "100%": "100%", "a%0Ab": "a%0Ab", "a%ffb": "a%ffb"} {
		if _, e := adaptOne(t, "cloudfront", `{"timestamp":1795309107,"cs(User-Agent)":"`+raw+`"}`); e.UserAgent != want {
			t.Errorf("%s: %q, want %q", raw, e.UserAgent, want)
		}
	}
}
