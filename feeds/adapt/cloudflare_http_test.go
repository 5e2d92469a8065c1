package adapt

import "testing"

func TestSecurityArrays(t *testing.T) {
	const row = `{"EdgeStartTimestamp":1795309107,"RayID":"r",`
	for _, c := range []struct{ record, want string }{
		// The terminating rule's source is its own, wherever it stands.
		{`"SecurityAction":"block","SecurityRuleID":"b","SecurityRuleDescription":"B","SecurityActions":["log","block"],"SecurityRuleIDs":["a","b"],"SecuritySources":["firewallCustom","firewallManaged"]}`,
			"block block b firewallManaged a/firewallCustom/false b/firewallManaged/true(B)"},
		// Without a terminating rule the first action counts, one that blocks before others.
		{`"SecurityAction":"","SecurityActions":["log","skip"],"SecurityRuleIDs":["a","b"],"SecuritySources":["s","t"]}`, "log log a s a/s/false b/t/false"},
		{`"SecurityActions":["log","block"],"SecurityRuleIDs":["a","b"],"SecuritySources":["s","t"]}`, "block block b t a/s/false b/t/true"},
		{`"SecurityAction":"block","SecurityActions":["block"],"SecurityRuleIDs":["a"],"SecuritySources":["rateLimit"]}`, "rate_limit block a rateLimit a/rateLimit/true"},
		// Of different lengths, of other types, of the older names.
		{`"SecurityAction":"block","SecurityActions":["block"],"SecurityRuleIDs":[],"SecuritySources":["s",7]}`, "block block  s /s/true /7/none"},
		{`"FirewallMatchesActions":["simulate"],"FirewallMatchesRuleIDs":["a"],"FirewallMatchesSources":["waf"]}`, "log simulate a waf a/waf/false"},
		{`"SecurityAction":"managedChallenge","SecurityRuleID":"gone","SecurityActions":[],"SecurityRuleIDs":[],"SecuritySources":[]}`, "challenge managedChallenge gone "},
	} {
		line, e := adaptOne(t, "cloudflare-http", row+c.record)
		got := e.Action + " " + e.ActionRaw + " " + e.RuleID + " " + e.RuleSet
		for _, m := range e.Matches {
			got += " " + m.RuleID + "/" + m.Category + "/"
			switch {
			case !m.Blocking.OK:
				got += "none"
			case m.Blocking.V:
				got += "true"
			default:
				got += "false"
			}
			if m.Name != "" {
				got += "(" + m.Name + ")"
			}
		}
		if got != c.want {
			t.Errorf("%s\n got %q\nwant %q\n%s", c.record, got, c.want, line)
		}
	}
}

func TestCloudflareScores(t *testing.T) {
	for record, want := range map[string][2]float64{
		`"BotScore":2,"WAFAttackScore":90`: {98, 2}, `"BotScore":"99"`: {1, 99}, `"WAFAttackScore":12`: {88, 12}, `"BotScore":0,"WAFAttackScore":12`: {88, 12},
	} {
		_, e := adaptOne(t, "cloudflare-http", `{"EdgeStartTimestamp":1795309107,`+record+`}`)
		if e.Score.V != want[0] || e.ScoreRaw.V != want[1] || !e.Score.OK {
			t.Errorf("%s: %+v", record, e.Score)
		}
		if kind := map[bool]string{true: "bot_score", false: "waf_attack"}[want[0] == 98 || want[0] == 1]; e.ScoreKind != kind {
			t.Errorf("%s: %s", record, e.ScoreKind)
		}
	}
	for _, record := range []string{`"BotScore":0`, `"BotScore":-1`, `"BotScore":101`, `"WAFAttackScore":0`, `"BotScore":"x"`} {
		if _, e := adaptOne(t, "cloudflare-http", `{"EdgeStartTimestamp":1795309107,`+record+`}`); e.Score.OK || e.ScoreKind != "" || e.Meta.Unmapped == "" {
			t.Errorf("%s: %+v", record, e)
		}
	}
}

// TestOneRayInBothDataSets: tied by correlation_id, kept apart by event_id.
func TestOneRayInBothDataSets(t *testing.T) {
	_, fw := adaptOne(t, "cloudflare-firewall", readFile(t, "cloudflare_firewall_events.json"))
	_, rq := adaptOne(t, "cloudflare-http", readFile(t, "cloudflare_http_requests.json"))
	if fw.CorrelationID != rq.CorrelationID || fw.CorrelationID == "" || fw.EventID == rq.EventID || fw.RequestID != rq.RequestID {
		t.Errorf("%s %s, %s %s", fw.EventID, fw.CorrelationID, rq.EventID, rq.CorrelationID)
	}
}

func FuzzCloudflareHTTP(f *testing.F) {
	f.Add(readFile(f, "cloudflare_http_requests.json"))
	f.Add(`[{"EdgeStartTimestamp":"1795309107","SecurityActions":["a",7,[]],"SecurityRuleIDs":[{}],"BotTags":["x"],"Cookies":{"a":[{"name":"cookie","value":1}]}}]`)
	f.Add(`{"EdgeEndTimestamp":1.7e18,"ClientRequestURI":"/a?b\u2028","RequestHeaders":{"a":{"b":[[[[]]]]}}}`)
	fuzzCDN(f, "cloudflare-http")
}

func BenchmarkCloudflareHTTP(b *testing.B) {
	benchmarkFormat(b, "cloudflare-http", readFile(b, "cloudflare_http_requests.json"), 1)
}
