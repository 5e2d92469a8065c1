package adapt

import (
	"fmt"
	"strings"
	"testing"

	"datasync/schemas"
)

// cz is an audit record: members of its transaction, and its messages.
func cz(transaction, messages string) string {
	if transaction != "" {
		transaction = "," + transaction
	}
	return `{"transaction":{"unix_timestamp":1795310079222776066,"id":"tOBi"` + transaction + `},"messages":[` + messages + `]}`
}

// message is what a rule says that matched, with members of its data put in.
func message(id, msg string, severity int, more string) string {
	if more != "" {
		more = "," + more
	}
	return fmt.Sprintf(`{"message":%q,"data":{"id":%s,"msg":%q,"severity":%d%s}}`, msg, id, msg, severity, more)
}

// TestCorazaNormalisation holds the CZ rows of events.md.
func TestCorazaNormalisation(t *testing.T) {
	seen, stopped := decision{"alert", "log", "detected", false}, decision{"alert", "block", "blocked", true}
	for _, c := range []struct {
		record   string
		want     decision
		severity int8
	}{
		{cz(`"is_interrupted":true`, message("942100", "SQLi", 2, "")), stopped, 5},
		{cz(`"is_interrupted":"true"`, message("942100", "SQLi", 3, "")), stopped, 4},
		{cz(`"is_interrupted":true`, ""), stopped, 3},
		{cz(`"is_interrupted":false`, message("942100", "SQLi", 4, "")), seen, 3},
		{cz(``, message("942100", "SQLi", 5, "")), seen, 2},
		{cz(`"is_interrupted":null`, message("942100", "SQLi", 7, "")), seen, 1},
		{cz(``, message("942100", "SQLi", 4, "")+","+message("949110", "Inbound Anomaly Score Exceeded (Total Score: 3)", -1, "")+","+message("1", "worst", 2, "")), seen, 5},
		{cz(`"highest_severity":"CRITICAL"`, message("942100", "SQLi", -1, "")), seen, 5},
		{cz(``, message("942100", "SQLi", -1, "")), seen, 1},
		{cz(`"is_interrupted":false`, ""), decision{"request", "none", "allowed", false}, 1},
	} {
		_, e := adaptOne(t, "coraza", c.record)
		if got := decisionOf(&e); got != c.want || e.Severity != c.severity || e.Source != "coraza" || e.Score.OK {
			t.Errorf("%s:\n got %+v severity %d", c.record, got, e.Severity)
		}
	}
}

func TestCorazaScores(t *testing.T) {
	all := "Anomaly Scores: (Inbound Scores: blocking=%d, detection=9, per_pl=5-0-0-0, threshold=5) - (Outbound Scores: blocking=%d, detection=8, per_pl=0-0-0-0, threshold=4) - (SQLI=5, XSS=0, COMBINED_SCORE=5)"
	figure := func(v float64) schemas.Float { return schemas.Float{V: v, OK: v != 0} }
	for _, c := range []struct {
		messages         []string
		score, threshold float64
	}{
		{[]string{"Inbound Anomaly Score Exceeded (Total Score: 15)"}, 15, 0},
		{[]string{"Inbound Anomaly Score Exceeded (Total Inbound Score: 8 - SQLI=5,XSS=3)"}, 8, 0},
		{[]string{"Outbound Anomaly Score Exceeded (Total Score: 4)"}, 4, 0},
		{[]string{fmt.Sprintf(all, 5, 0)}, 5, 5},
		{[]string{"Inbound Anomaly Score Exceeded (Total Score: 5)", fmt.Sprintf(all, 5, 0)}, 5, 5},
		{[]string{fmt.Sprintf(all, 10, 0), "Inbound Anomaly Score Exceeded (Total Score: 5)"}, 10, 5},
		{[]string{fmt.Sprintf(all, 3, 4)}, 4, 4},
		{[]string{fmt.Sprintf(all, 3, 0)}, 3, 5},
		{[]string{fmt.Sprintf(all, 0, 3)}, 3, 4},
		{[]string{"Found User-Agent"}, 0, 0},
		{[]string{"Anomaly Scores: (Inbound Scores: blocking=many)"}, 0, 0},
	} {
		var list []string
		for i, m := range c.messages {
			list = append(list, message(fmt.Sprint(949110+i), m, -1, ""))
		}
		_, e := adaptOne(t, "coraza", cz("", strings.Join(list, ",")))
		if e.ScoreRaw != figure(c.score) || e.ScoreThreshold != figure(c.threshold) || (e.ScoreKind == "anomaly") != (c.score != 0) {
			t.Errorf("%v: %+v %+v %s", c.messages, e.ScoreRaw, e.ScoreThreshold, e.ScoreKind)
		}
	}
}

func TestCorazaFields(t *testing.T) {
	line, e := adaptOne(t, "coraza", cz(`"timestamp":"2026/11/22 01:14:39","client_ip":"2001:db8::7","client_port":51324,"host_ip":"192.0.2.10","host_port":443,"server_id":"",
		"request":{"method":"POST","protocol":"HTTP/2.0","uri":"/login?next=%2F","http_version":"","headers":{"host":["Shop.Example.com:8443"],"user-agent":["curl/8"],"referer":["https://r.example/"],"x-forwarded-for":["198.51.100.1","198.51.100.2"],
			"cookie":["sid=PLANTED"],"authorization":["Basic PLANTED"],"proxy-authorization":["PLANTED"],"x-api-key":["PLANTED"],"accept":["*/*"]},"body":"user=a","files":null,"args":{},"length":6},
		"response":{"protocol":"","status":403,"headers":{"content-length":["12"],"set-cookie":["sid=PLANTED"],"server":["x"]},"body":""},
		"producer":{"connector":"coraza-spoa","version":"1.2","server":"","rule_engine":"On","stopwatch":"1 2; combined=3","rulesets":["OWASP_CRS/4.25.0","local"]},"is_interrupted":true`,
		`{"actionset":"a","message":"SQL Injection","error_message":"[client \"x\"] Coraza: Warning. SQL","data":{"file":"f","line":1,"id":942100,"rev":"","msg":"SQL Injection","data":"Matched Data: s&1 found within ARGS:id: 1' or '1","severity":2,"ver":"OWASP_CRS/4.25.0","maturity":0,"accuracy":0,"tags":["attack-sqli","capec/1000/152"],"raw":"SecRule","hits":2}},`+
			message("949110", "Inbound Anomaly Score Exceeded (Total Score: 5)", -1, `"tags":["capec/1000/152","anomaly-evaluation"]`)))
	if e.RequestID != "tOBi" || e.ClientIP != "2001:db8::7" || e.ClientPort.V != 51324 || e.Net != (schemas.Net{OK: true, DstIP: "192.0.2.10", DstPort: schemas.Int{V: 443, OK: true}, Transport: "tcp"}) {
		t.Errorf("net: %s", line)
	}
	if e.HTTPMethod != "POST" || e.HTTPHost != "shop.example.com" || e.HTTPPath != "/login" || e.HTTPQuery != "next=%2F" || e.HTTPProtocol != "HTTP/2.0" || e.UserAgent != "curl/8" ||
		e.HTTPReferrer != "https://r.example/" || e.ForwardedFor != "198.51.100.1, 198.51.100.2" || e.HTTPStatus.V != 403 || e.BytesIn.V != 6 || e.BytesOut.V != 12 {
		t.Errorf("http: %s", line)
	}
	if e.RuleID != "942100" || e.RuleSet != "OWASP_CRS/4.25.0" || e.RuleCategory != "attack-sqli" || e.VendorVersion != "OWASP_CRS/4.25.0 local" || e.Integration != "coraza-spoa" {
		t.Errorf("rule: %s", line)
	}
	if len(e.Matches) != 2 || e.Matches[0].Location != "ARGS:id" || e.Matches[0].Blocking != (schemas.Bool{OK: true}) || e.Matches[1].RuleID != "949110" {
		t.Errorf("matches: %+v", e.Matches)
	}
	if strings.Join(e.Meta.Labels, " ") != "attack-sqli capec/1000/152 anomaly-evaluation" || strings.Contains(line, "PLANTED") {
		t.Errorf("%s", line)
	}
	want := `{"transaction":{"server_id":"","request":{"headers":{"accept":["*/*"]},"body":"user=a"},"response":{"protocol":"","headers":{"server":["x"]}},"producer":{"server":"","rule_engine":"On"}},"messages":[{"hits":2,"id":"942100"}],"version":"1.2"}`
	if e.Meta.Unmapped != want {
		t.Errorf("unmapped:\n got %s\nwant %s", e.Meta.Unmapped, want)
	}
}

// What a rule found in a cookie is a piece of the cookie.
func TestCorazaMatchesHoldNoSecrets(t *testing.T) {
	for data, location := range map[string]string{
		"Matched Data: x found within REQUEST_COOKIES:sid: PLANTED":               "REQUEST_COOKIES:sid",
		"Matched Data: x found within REQUEST_HEADERS:Authorization: Basic PLANT": "REQUEST_HEADERS:Authorization",
		"Matched Data: x found within REQUEST_HEADERS:Cookie: a=PLANTED":          "REQUEST_HEADERS:Cookie",
		"Matched Data: x found within RESPONSE_HEADERS:Set-Cookie: a=PLANTED":     "RESPONSE_HEADERS:Set-Cookie",
		"REQUEST_HEADERS:Cookie=PLANTED":                                          "REQUEST_HEADERS:Cookie",
		"REQUEST_COOKIES:sid=PLANTED":                                             "REQUEST_COOKIES:sid",
		"REQUEST_COOKIES=PLANTED":                                                 "REQUEST_COOKIES",
	} {
		line, e := adaptOne(t, "coraza", cz("", message("1", "m", 2, fmt.Sprintf(`"data":%q`, data))+","+message("2", "m", 2, fmt.Sprintf(`"data":%q`, data))))
		if strings.Contains(line, "PLANT") || e.Matches[1].Location != location || strings.Join(e.Meta.Redactions, " ") != "matches.data:credentials" {
			t.Errorf("%s: %s", data, line)
		}
	}
	for data, location := range map[string]string{
		"Matched Data: a found within ARGS_GET:q: a":     "ARGS_GET:q",
		"Matched Data: a found within REQUEST_FILENAME":  "REQUEST_FILENAME",
		"Matched Data: a found within REQUEST_BODY: a=b": "REQUEST_BODY",
		"ARGS:x=<script>":             "ARGS:x",
		"text/html; boundary=\"a b\"": "",
		"Some text":                   "",
		"":                            "",
	} {
		if _, e := adaptOne(t, "coraza", cz("", message("1", "m", 2, fmt.Sprintf(`"data":%q`, data)))); e.Matches[0].Data != data || e.Matches[0].Location != location {
			t.Errorf("%s: %+v", data, e.Matches[0])
		}
	}
}

// Without part K, messages have no data: the error log's line says the same.
func TestCorazaErrorLogAlone(t *testing.T) {
	_, e := adaptOne(t, "coraza", cz(`"is_interrupted":true`,
		`{"error_message":"[client \"203.0.113.7\"] Coraza: Warning. Found scanner [file \"f\"] [line \"1\"] [id \"913100\"] [rev \"\"] [msg \"Found scanner\"] [data \"Matched Data: sqlmap found within REQUEST_HEADERS:User-Agent: sqlmap\"] [severity \"critical\"] [ver \"OWASP_CRS/4.25.0\"] [tag \"attack-reputation-scanner\"] [tag \"OWASP_CRS\"]"},
		{"error_message":"[client \"203.0.113.7\"] Coraza: Access denied (phase 2). Inbound [id \"949110\"] [msg \"Inbound Anomaly Score Exceeded (Total Score: 5)\"] [severity \"unknown\"]"}`))
	if e.RuleID != "913100" || e.RuleName != "Found scanner" || e.RuleCategory != "attack-reputation-scanner" || e.RuleSet != "OWASP_CRS/4.25.0" || e.Severity != 5 || e.ScoreRaw.V != 5 {
		t.Errorf("%+v", e)
	}
	if len(e.Matches) != 2 || e.Matches[0].Location != "REQUEST_HEADERS:User-Agent" || !e.Matches[1].Blocking.V || e.Reason != "Inbound Anomaly Score Exceeded (Total Score: 5)" {
		t.Errorf("%+v %s", e.Matches, e.Reason)
	}
	// A rule that denies by itself names the event, whatever else matched.
	_, e = adaptOne(t, "coraza", cz(`"is_interrupted":true`, message("942100", "SQLi", 2, "")+`,{"message":"Not from here","error_message":"Coraza: Access denied (phase 1). x","data":{"id":1001,"msg":"Not from here","severity":4}}`))
	if e.RuleID != "1001" || e.Reason != "Not from here" || e.Severity != 5 {
		t.Errorf("%+v", e)
	}
}

func TestCorazaTimesAndBounds(t *testing.T) {
	for transaction, want := range map[string]struct {
		ms        int64
		precision string
	}{
		`"timestamp":"2026/11/22 01:14:39","unix_timestamp":1795310079222776066`: {1795310079222, "us"},
		`"unix_timestamp":1795310079`:                                            {1795310079000, "s"},
		`"timestamp":"2026/11/22 01:14:39 +0000"`:                                {1795310079000, "s"},
		`"timestamp":"2026/11/22 01:14:39 +0000","unix_timestamp":"soon"`:        {1795310079000, "s"},
	} {
		if _, e := adaptOne(t, "coraza", `{"transaction":{`+transaction+`}}`); e.EventTime != want.ms || e.TimePrecision != want.precision {
			t.Errorf("%s: %d %s", transaction, e.EventTime, e.TimePrecision)
		}
	}
	for record, reason := range map[string]string{
		`{"transaction":{"timestamp":"2026/11/22 01:14:39"}}`: "names no zone",
		`{"messages":[]}`:     "transaction is missing",
		`{"transaction":[1]}`: "transaction is missing",
		`{"transaction":{"unix_timestamp":1795310079,"id":"a","id":"b"}}`: "id is given twice",
	} {
		var out Output
		coraza(input(record), &out)
		if len(out.Events) != 0 || len(out.Bad) != 1 || !strings.Contains(out.Bad[0].Reason, reason) {
			t.Errorf("%s: %+v", record, out.Bad)
		}
	}
	_, e := adaptOne(t, "coraza", cz(`"request":{"body":"`+strings.Repeat("é", 5000)+`"}`, strings.Repeat(message("1", "m", 2, "")+",", 400)+message("2", "m", 2, "")))
	if len(e.Matches) != maxMatches || len(e.Meta.Unmapped) > maxBody+64 || strings.Join(e.Meta.Truncated, " ") != "meta.unmapped matches" {
		t.Errorf("%d matches, %d bytes, cut %v", len(e.Matches), len(e.Meta.Unmapped), e.Meta.Truncated)
	}
}

func FuzzCoraza(f *testing.F) {
	fuzzFormat(f, "coraza", cz(`"request":{"headers":{"host":[1],"cookie":{}},"body":1}`, `1,{"data":{"data":{"data":"REQUEST_COOKIES:a"}}},{"error_message":"[tag \"[id \""}`),
		cz("", message("980170", "Anomaly Scores: (Inbound Scores: blocking=5, threshold=5) - (Outbound Scores: blocking=", -1, "")))
}

func BenchmarkCoraza(b *testing.B) { benchFormat(b, "coraza") }
