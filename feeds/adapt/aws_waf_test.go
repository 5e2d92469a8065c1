package adapt

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// wafLog is a log of AWS WAF with members put in.
func wafLog(more string) string {
	return `{"timestamp":1795309107123,"httpRequest":{"requestId":"q"},` + more + `}`
}

func TestAWSWAFMatches(t *testing.T) {
	for _, c := range []struct{ name, more, want string }{
		{"terminating", `"action":"BLOCK","terminatingRuleId":"sqli","terminatingRuleType":"REGULAR","terminatingRuleMatchDetails":[{"conditionType":"SQL_INJECTION","sensitivityLevel":"HIGH","location":"HEADER","matchedFieldName":"x","matchedData":["10","AND","1"]}]`,
			`rule sqli////0 category SQL_INJECTION: [{"rule_id":"sqli","category":"SQL_INJECTION","blocking":true,"location":"HEADER:x","data":"10 AND 1"}]`},
		{"of a group", `"action":"BLOCK","terminatingRuleId":"mine","terminatingRuleType":"GROUP","ruleGroupList":[{"ruleGroupId":"none","terminatingRule":null,"nonTerminatingMatchingRules":[]},{"ruleGroupId":"g","terminatingRule":{"ruleId":"inner","action":"BLOCK","ruleMatchDetails":[{"conditionType":"XSS","location":"BODY","matchedData":["<"]}]},"nonTerminatingMatchingRules":[{"ruleId":"other","action":"COUNT","ruleMatchDetails":[]}],"excludedRules":[{"exclusionType":"EXCLUDED_AS_COUNT","ruleId":"old"}]}]`,
			`rule mine/inner/g//0 category XSS: [{"rule_id":"mine","blocking":true},{"rule_id":"other","blocking":false},{"rule_id":"old","blocking":false},{"rule_id":"inner","category":"XSS","blocking":true,"location":"BODY","data":"<"}]`},
		{"a group that only counts", `"action":"ALLOW","terminatingRuleId":"Default_Action","terminatingRuleType":"REGULAR","ruleGroupList":[{"ruleGroupId":"g","terminatingRule":{"ruleId":"inner","action":"BLOCK"}}],"nonTerminatingMatchingRules":[{"ruleId":"mine","action":"COUNT","ruleMatchDetails":[]}]`,
			`rule mine////0 category : [{"rule_id":"inner","blocking":false},{"rule_id":"mine","blocking":false}]`},
		{"rate limit", `"action":"BLOCK","terminatingRuleId":"rate","terminatingRuleType":"RATE_BASED","rateBasedRuleList":[{"rateBasedRuleId":"id1","rateBasedRuleName":"rate","limitKey":"IP","maxRateAllowed":100},{"rateBasedRuleName":"other","limitKey":"FORWARDED_IP"}]`,
			`rule rate////0 category RATE_BASED: [{"rule_id":"rate","category":"RATE_BASED","blocking":true,"location":"IP"},{"rule_id":"other","category":"RATE_BASED","location":"FORWARDED_IP"}]`},
		{"challenge", `"action":"CHALLENGE","terminatingRuleId":"c","terminatingRuleType":"REGULAR","challengeResponse":{"responseCode":202,"solveTimestamp":1,"failureReason":"TOKEN_EXPIRED"},"captchaResponse":{"responseCode":405,"failureReason":"TOKEN_MISSING"}`,
			`rule c///TOKEN_EXPIRED/202 category : [{"rule_id":"c","blocking":true}]`},
		{"captcha passed on the way", `"action":"ALLOW","terminatingRuleId":"Default_Action","nonTerminatingMatchingRules":[{"ruleId":"cap","action":"CAPTCHA","captchaResponse":{"solveTimestamp":5}}]`,
			`rule Default_Action////0 category : [{"rule_id":"cap","blocking":false}]`},
	} {
		line, e := adaptOne(t, "aws-waf", wafLog(c.more))
		var m struct {
			Matches json.RawMessage `json:"matches"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("rule %s/%s/%s/%s/%d category %s: %s", e.RuleID, e.RuleName, e.RuleSet, e.Reason, e.HTTPStatus.V, e.RuleCategory, m.Matches)
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s\n%s", c.name, got, c.want, line)
		}
	}
}

// TestAWSWAFKeepsWhatMatchesCannotSay: what a match has no room for stays as
// it came.
func TestAWSWAFKeepsWhatMatchesCannotSay(t *testing.T) {
	for _, c := range []struct{ more, kept string }{
		{`"nonTerminatingMatchingRules":[{"ruleId":"cap","action":"CAPTCHA"}]`, `"nonTerminatingMatchingRules":[{"ruleId":"cap","action":"CAPTCHA"}]`},
		{`"nonTerminatingMatchingRules":[{"ruleId":"a","action":"COUNT","overriddenAction":"BLOCK"}]`, `"overriddenAction":"BLOCK"`},
		{`"action":"BLOCK","terminatingRuleId":"x","terminatingRuleMatchDetails":[{"location":"A"},{"location":"B"}]`, `"terminatingRuleMatchDetails":[{"location":"A"},{"location":"B"}]`},
		{`"ruleGroupList":[{"ruleGroupId":"g","customerConfig":"c"}]`, `"ruleGroupList":[{"customerConfig":"c","ruleGroupId":"g"}]`},
		{`"ruleGroupList":[{"ruleGroupId":"g","terminatingRule":{"ruleId":"r","action":"BLOCK","new":1}}]`, `"terminatingRule":{"ruleId":"r","action":"BLOCK","new":1}`},
		{`"rateBasedRuleList":[{"rateBasedRuleName":"n","maxRateAllowed":100,"customValues":[{"key":"HEADER","name":"dog","value":"ella"}]}]`, `"customValues":[{"key":"HEADER","name":"dog","value":"ella"}]`},
		{`"requestHeadersInserted":[{"name":"x","value":"y"}]`, `"requestHeadersInserted":[{"name":"x","value":"y"}]`},
		{`"captchaResponse":{"responseCode":0,"solveTimestamp":7}`, `"captchaResponse":{"responseCode":0,"solveTimestamp":7}`},
		{`"terminatingRuleType":"REGULAR"`, `"terminatingRuleType":"REGULAR"`},
	} {
		if _, e := adaptOne(t, "aws-waf", wafLog(c.more)); !strings.Contains(e.Meta.Unmapped, c.kept) {
			t.Errorf("%s\nis not in %s", c.kept, e.Meta.Unmapped)
		}
	}
}

func TestAWSWAFHeaders(t *testing.T) {
	line, e := adaptOne(t, "aws-waf", `{"timestamp":1795309107123,"httpRequest":{"headers":[{"name":"Host","value":"Shop.example.com:443"},{"name":"REFERER","value":"https://a/"},{"name":"X-Forwarded-For","value":"192.0.2.1"},{"name":"x-forwarded-for","value":"192.0.2.2"},{"name":"Accept","value":"a\u2028"},7],"args":"a=1"}}`)
	if e.HTTPHost != "shop.example.com" || e.HTTPReferrer != "https://a/" || e.ForwardedFor != "192.0.2.1" || e.HTTPQuery != "a=1" {
		t.Errorf("%s", line)
	}
	if want := `{"httpRequest":{"headers":[{"name":"x-forwarded-for","value":"192.0.2.2"},{"name":"Accept","value":"a\u2028"},7]}}`; e.Meta.Unmapped != want {
		t.Errorf(" got %s\nwant %s", e.Meta.Unmapped, want)
	}
}

// TestManyMatchesAreBounded: an array of a million small things does not become
// a hundred times its size.
func TestManyMatchesAreBounded(t *testing.T) {
	many := strings.Repeat(`{},`, 5000) + `{}`
	for format, record := range map[string]string{
		"aws-waf":         wafLog(`"labels":[` + strings.Repeat(`{"name":"x"},`, 2000) + `{}],"nonTerminatingMatchingRules":[` + many + `],"rateBasedRuleList":[` + many + `]`),
		"cloudflare-http": `{"EdgeStartTimestamp":1795309107,"BotTags":[` + strings.Repeat("7,", 5000) + `7],"SecurityActions":[` + strings.Repeat(`"log",`, 5000) + `"log"]}`,
	} {
		line, e := adaptOne(t, format, record)
		if len(e.Matches) != maxMatched || len(e.Meta.Labels) != maxMatched || !strings.Contains(line, `"truncated":["matches"]`) {
			t.Errorf("%s: %d matches, %d labels, %v", format, len(e.Matches), len(e.Meta.Labels), e.Meta.Truncated)
		}
		for _, kept := range map[string][]string{"aws-waf": {"labels", "nonTerminatingMatchingRules"}, "cloudflare-http": {"BotTags", "SecurityActions"}}[format] {
			if !strings.Contains(e.Meta.Unmapped, `"`+kept+`":[`) {
				t.Errorf("%s: %s is not kept whole", format, kept)
			}
		}
	}
}

func FuzzAWSWAF(f *testing.F) {
	f.Add(readFile(f, "aws_waf.json"))
	f.Add(readFile(f, "aws_waf_captcha.json"))
	f.Add(wafLog(`"rateBasedRuleList":[{"customValues":[{"key":"COOKIE","value":"x"}]}],"nonTerminatingMatchingRules":[{"ruleId":"a","action":"COUNT","ruleMatchDetails":[{"matchedData":["\u2028"]}]}],"labels":[{"name":"l"}]`))
	fuzzCDN(f, "aws-waf")
}

func BenchmarkAWSWAF(b *testing.B) { benchmarkFormat(b, "aws-waf", readFile(b, "aws_waf.json"), 1) }
