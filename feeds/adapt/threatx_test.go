package adapt

import (
	"fmt"
	"strings"
	"testing"

	"datasync/schemas"
)

// tx is a ThreatX event of a type with members put in.
func tx(kind, more string) string {
	s := fmt.Sprintf(`{"msg_type":%q,"timestamp":"2026-11-22T00:58:27Z","request_id":"d3f0","ip":"203.0.113.7","dst_host":"www.example.com","uri":"/item"`, kind)
	if more != "" {
		s += "," + more
	}
	return s + "}"
}

// TestThreatxNormalisation holds the TX rows of events.md.
func TestThreatxNormalisation(t *testing.T) {
	blocking := `"matches":[{"id":1,"risk":5,"blocking":false},{"id":2,"risk":1,"blocking":true}]`
	quiet := `"matches":[{"id":1,"risk":5,"blocking":false}]`
	for _, c := range []struct {
		event string
		want  decision
	}{
		{tx("BlockEvent", ""), decision{"mitigation", "block", "blocked", true}},
		{tx("BlockEvent", `"random_id":"r1","postblock_event":false`), decision{"mitigation", "block", "blocked", true}},
		{tx("MatchEvent", blocking), decision{"match", "block", "blocked", true}},
		{tx("MatchEvent", quiet), decision{"match", "log", "detected", false}},
		{tx("MatchEvent", `"matches":[]`), decision{"match", "log", "detected", false}},
		{tx("MatchEvent", ""), decision{"match", "log", "detected", false}},
		{tx("MatchEvent", quiet+`,"postblock_event":true`), decision{"match", "block", "blocked", true}},
		{tx("MatchEvent", quiet+`,"postblock_event":"true"`), decision{"match", "block", "blocked", true}},
		{tx("MatchEvent", quiet+`,"postblock_event":1`), decision{"match", "block", "blocked", true}},
		{tx("MatchEvent", quiet+`,"postblock_event":null`), decision{"match", "log", "detected", false}},
		{tx("MatchEvent", quiet+`,"js_fingerprint":"f1"`), decision{"match", "interrogate", "challenge_served", true}},
		{tx("MatchEvent", quiet+`,"random_id":"r1"`), decision{"match", "interrogate", "challenge_served", true}},
		{tx("MatchEvent", quiet+`,"random_id":77`), decision{"match", "interrogate", "challenge_served", true}},
		{tx("MatchEvent", blocking+`,"random_id":"r1"`), decision{"match", "block", "blocked", true}},
		{tx("MatchEvent", quiet+`,"random_id":0,"js_fingerprint":null`), decision{"match", "log", "detected", false}},
		{tx("MatchEvent", quiet+`,"random_id":"0","js_fingerprint":""`), decision{"match", "log", "detected", false}},
		{tx("MatchEvent", quiet+`,"random_id":false,"js_fingerprint":0`), decision{"match", "log", "detected", false}},
		{tx("MatchEvent", quiet+`,"tls_fingerprint":"t1"`), decision{"match", "log", "detected", false}},
		{strings.Replace(tx("", quiet), `"msg_type":"",`, "", 1), decision{"match", "log", "detected", false}},
		{tx("AuditEvent", ""), decision{"audit", "none", "logged", false}},
		{tx("SiteUpdated", ""), decision{"audit", "none", "logged", false}},
	} {
		_, e := adaptOne(t, "threatx", c.event)
		if got := decisionOf(&e); got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.event, got, c.want)
		}
		if e.Severity != severities[e.Action] || e.Source != "threatx" {
			t.Errorf("%s: severity %d, source %s", c.event, e.Severity, e.Source)
		}
	}
}

func TestThreatxFields(t *testing.T) {
	line, e := adaptOne(t, "threatx", tx("MatchEvent", `"message":"www.example.com/item","created":"2026-11-22T00:58:27.174+00:00","user_agent":"-","args":"?id=1&x=%2F",
		"status_code":403,"request_method":"PUT","content_length":12,"response_length":"345","upstream_response_time":7.5,"risk":101.5,
		"random_id":"r-1","js_fingerprint":"js","tls_fingerprint":"771,4865","cookie":"sid=PLANTED",
		"matches":[{"id":5,"description":"first","classification":"Xss","state":"Recon","risk":3,"blocking":false},{"id":"6","description":"second","classification":"SqlInjection","state":"Exploitation","contrib_score":40,"blocking":true,"beta":true}]`))
	if e.EventID != "tx:d3f0:MatchEvent" || e.RequestID != "d3f0" || e.EventTime != 1795309107174 || e.TimePrecision != "ms" {
		t.Errorf("id and time: %s", line)
	}
	if e.RuleID != "6" || e.RuleName != "second" || e.RuleCategory != "SqlInjection" || e.Stage != "Exploitation" {
		t.Errorf("the rule that blocks: %s", line)
	}
	want := []schemas.Match{
		{RuleID: "5", Name: "first", Category: "Xss", Stage: "Recon", Score: schemas.Float{V: 3, OK: true}, Blocking: schemas.Bool{OK: true}},
		{RuleID: "6", Name: "second", Category: "SqlInjection", Stage: "Exploitation", Score: schemas.Float{V: 40, OK: true}, Blocking: schemas.Bool{V: true, OK: true}},
	}
	if len(e.Matches) != 2 || e.Matches[0] != want[0] || e.Matches[1] != want[1] {
		t.Errorf("matches: %+v", e.Matches)
	}
	if e.ScoreRaw.V != 101.5 || e.Score.OK || e.ScoreKind != "risk" {
		t.Errorf("a risk past 100: %+v %+v", e.ScoreRaw, e.Score)
	}
	if e.SessionID != "r-1" || e.ClientFP != "js" || e.UserAgent != "" || e.HTTPQuery != "id=1&x=%2F" || e.HTTPStatus.V != 403 ||
		e.BytesIn.V != 12 || e.BytesOut.V != 345 || e.DurationMs.V != 7.5 || e.HTTPMethod != "PUT" {
		t.Errorf("%s", line)
	}
	if e.Meta.Unmapped != `{"matches":[{"contrib_score":40,"beta":true,"id":"6"}],"tls_fingerprint":"771,4865"}` || strings.Contains(line, "PLANTED") {
		t.Errorf("unmapped: %s", line)
	}
	if _, e = adaptOne(t, "threatx", tx("MatchEvent", `"status_code":0,"risk":70,"tls_fingerprint":"t","message":"something else"`)); e.HTTPStatus.OK || e.Score.V != 70 || e.ClientFP != "t" ||
		e.Meta.Unmapped != `{"message":"something else"}` {
		t.Errorf("%+v", e)
	}
}

func TestThreatxTimes(t *testing.T) {
	for stamp, want := range map[string]struct {
		ms        int64
		precision string
	}{
		`"timestamp":"2026-11-22T00:58:27Z"`:                                              {1795309107000, "s"},
		`"timestamp":"2026-11-22T00: 58: 27Z"`:                                            {1795309107000, "s"}, // as in the vendor's sample
		`"timestamp":"2026-11-22 00:58:27Z"`:                                              {1795309107000, "s"},
		`"timestamp":"2026-11-22T01:58:27.5+01:00"`:                                       {1795309107500, "ms"},
		`"timestamp":"2026-11-22T00:58:27Z","created":"2026-11-22T00:58:27.174+00:00"`:    {1795309107174, "ms"},
		`"timestamp":"2026-11-22T00:58:27Z","created":1795309107174`:                      {1795309107174, "ms"},
		`"timestamp":"2026-11-22T00:58:27Z","created":"soon"`:                             {1795309107000, "s"},
		`"timestamp":"2026-11-22T00:58:27Z","created":null`:                               {1795309107000, "s"},
		`"timestamp":1795309107,"created":0`:                                              {1795309107000, "s"},
		`"timestamp":"2026-11-22T00:58:27Z","created":"2026-11-22T00:58:27.174123+00:00"`: {1795309107174, "us"},
	} {
		_, e := adaptOne(t, "threatx", `{"msg_type":"BlockEvent",`+stamp+`}`)
		if e.EventTime != want.ms || e.TimePrecision != want.precision {
			t.Errorf("%s: %d %s", stamp, e.EventTime, e.TimePrecision)
		}
		if e.EventID != "rec:0" {
			t.Errorf("without request_id: %s", e.EventID)
		}
	}
}

func TestThreatxAuditIsKeptWhole(t *testing.T) {
	line, e := adaptOne(t, "threatx", `{"msg_type":"AuditEvent","timestamp":"2026-11-22T00:58:27Z","user":"ops@example.com","category":"site","action":"update","object_id":"shop","description":"blocking on","ip":"198.51.100.4","session_cookie":"PLANTED","detail":{"old":1,"api_key":"PLANTED"},"matches":7}`)
	if e.Audit != (schemas.Audit{OK: true, Actor: "ops@example.com", ObjectType: "site", ObjectID: "shop", Change: "blocking on"}) || e.ClientIP != "198.51.100.4" {
		t.Errorf("%+v", e.Audit)
	}
	if e.Meta.Unmapped != `{"msg_type":"AuditEvent","detail":{"old":1},"matches":7,"action":"update"}` || strings.Contains(line, "PLANTED") {
		t.Errorf("%s", line)
	}
	for event, change := range map[string]string{`"message":"m"`: "m", `"action":"a"`: "a", `"change":"c","message":"m"`: "c", `"user":{"id":7}`: ""} {
		if _, e := adaptOne(t, "threatx", `{"msg_type":"AuditEvent","timestamp":"2026-11-22T00:58:27Z",`+event+`}`); e.Audit.Change != change || !e.Audit.OK {
			t.Errorf("%s: %+v", event, e.Audit)
		}
	}
}

func TestThreatxRefusesAndSuppresses(t *testing.T) {
	for value, reason := range map[string]string{
		`{"msg_type":"BlockEvent"}`:            "no usable time",
		`{"timestamp":"2026-11-22T00:58:27Z"}`: "msg_type is missing",
		`{"message":"test1","x":1}`:            "msg_type is missing",
		`{"msg_type":"BlockEvent","timestamp":"2026-11-22T00:58:27Z","uri":"/a","uri":"/b"}`: "uri is given twice",
		`7`: "JSON object",
	} {
		var out Output
		threatx(input(value), &out)
		if len(out.Events) != 0 || len(out.Bad) != 1 || !strings.Contains(out.Bad[0].Reason, reason) || out.Suppressed != 0 {
			t.Errorf("%s: %+v", value, out)
		}
	}
	var out Output // how the vendor's guide tries a receiver
	threatx(input(`{"message":"test1"}`), &out)
	if len(out.Events)+len(out.Bad) != 0 || out.Suppressed != 1 {
		t.Errorf("the test message: %+v", out)
	}
}

func FuzzThreatx(f *testing.F) {
	fuzzFormat(f, "threatx", tx("AuditEvent", `"user":{"a":[1]},"x":{"cookie":1}`), tx("MatchEvent", `"matches":[1,{"id":{}},{"risk":1e300}],"created":1e17`))
}

func BenchmarkThreatx(b *testing.B) { benchFormat(b, "threatx") }
