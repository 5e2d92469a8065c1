package adapt

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"datasync/schemas"
)

// df is a Deepfence alert with members put in.
func df(more string) string {
	s := `{"created_at":1795309107000,"rule_id":"942100","severity":"high","source_ip":"203.0.113.7","source_port":51324,"destination_ip":"10.0.0.12","destination_port":8080`
	if more != "" {
		s += "," + more
	}
	return s + "}"
}

// violation is one of a policy, with members put in.
func violation(more string) string {
	s := `{"executed_at":1795309107,"action":"block","alert_id":"a-1","applied_by":"policy-7","block_ip":"203.0.113.7","node_policy_type":"network","severity":"critical"`
	if more != "" {
		s += "," + more
	}
	return s + "}"
}

// TestDeepfenceNormalisation holds the DF rows of events.md.
func TestDeepfenceNormalisation(t *testing.T) {
	seen, stopped := decision{"alert", "log", "detected", false}, decision{"alert", "block", "blocked", true}
	for _, c := range []struct {
		record   string
		want     decision
		severity int8
	}{
		{df(""), seen, 4},
		{df(`"masked":false`), seen, 4},
		{df(`"masked":"false"`), seen, 4},
		{df(`"masked":0`), seen, 4},
		{df(`"masked":null`), seen, 4},
		{strings.Replace(df(""), "high", "critical", 1), seen, 5},
		{strings.Replace(df(""), "high", "MEDIUM", 1), seen, 3},
		{strings.Replace(df(""), "high", "low", 1), seen, 2},
		{strings.Replace(df(""), "high", "info", 1), seen, 1},
		{strings.Replace(df(""), "high", "odd", 1), seen, 1},
		{strings.Replace(df(""), `"high"`, `7`, 1), seen, 1},
		{violation(""), stopped, 5},
		{`{"created_at":1795309107,"packet_direction":"inbound","severity":"low"}`, stopped, 2},
		{`{"created_at":1795309107,"block_ip":"203.0.113.7"}`, stopped, 3},
		{`{"created_at":1795309107,"config_id":"c"}`, stopped, 3},
	} {
		_, e := adaptOne(t, "deepfence", c.record)
		if got := decisionOf(&e); got != c.want || e.Severity != c.severity || e.Source != "deepfence" {
			t.Errorf("%s:\n got %+v severity %d", c.record, got, e.Severity)
		}
	}
}

func TestDeepfenceDirections(t *testing.T) {
	int32of := func(v int64) schemas.Int { return schemas.Int{V: v, OK: v != 0} }
	for _, c := range []struct {
		record, client    string
		port              int64
		dst               string
		dstPort           int64
		direction, remain string
	}{
		{df(`"direction":"inbound"`), "203.0.113.7", 51324, "10.0.0.12", 8080, "inbound", ""},
		{df(""), "203.0.113.7", 51324, "10.0.0.12", 8080, "", ""},
		{df(`"direction":"Outbound"`), "10.0.0.12", 8080, "10.0.0.12", 8080, "outbound", `{"source_ip":"203.0.113.7","source_port":51324}`},
		{df(`"direction":"sideways"`), "203.0.113.7", 51324, "10.0.0.12", 8080, "", `{"direction":"sideways"}`},
		{`{"created_at":1795309107,"direction":"inbound","local_ip":"10.0.0.12","local_port":443,"remote_ip":"203.0.113.7","remote_port":5}`, "203.0.113.7", 5, "10.0.0.12", 443, "inbound", ""},
		{`{"created_at":1795309107,"packet_direction":"egress","local_ip":"10.0.0.12","local_port":44,"remote_ip":"203.0.113.7","remote_port":5}`, "203.0.113.7", 5, "203.0.113.7", 5, "outbound", `{"source_ip":"10.0.0.12","source_port":44}`},
		{violation(""), "203.0.113.7", 0, "", 0, "", `{"applied_by":"policy-7","node_policy_type":"network"}`},
		{`{"created_at":1795309107,"remote_ip":"203.0.113.7","block_ip":"203.0.113.0"}`, "203.0.113.7", 0, "", 0, "", `{"block_ip":"203.0.113.0"}`},
		{`{"created_at":1795309107,"source_ip":"nobody","source_port":0,"destination_port":70000}`, "", 0, "", 0, "", `{"source_ip":"nobody","destination_port":70000}`},
	} {
		line, e := adaptOne(t, "deepfence", c.record)
		if e.ClientIP != c.client || e.ClientPort != int32of(c.port) || e.Net.DstIP != c.dst || e.Net.DstPort != int32of(c.dstPort) || e.Net.Direction != c.direction || e.Meta.Unmapped != c.remain {
			t.Errorf("%s:\n%s", c.record, line)
		}
	}
}

func TestDeepfenceTimes(t *testing.T) {
	for member, want := range map[string]struct {
		ms        int64
		precision string
	}{
		`"created_at":1795309107`:                            {1795309107000, "s"},
		`"created_at":1795309107.25`:                         {1795309107250, "ms"},
		`"created_at":1795309107123`:                         {1795309107123, "ms"},
		`"created_at":"1795309107123"`:                       {1795309107123, "ms"},
		`"created_at":1795309107123456`:                      {1795309107123, "us"},
		`"created_at":1795309107123456789`:                   {1795309107123, "us"},
		`"created_at":"2026-11-22T00:58:27Z"`:                {1795309107000, "s"},
		`"created_at":0,"updated_at":1795309107`:             {1795309107000, "s"},
		`"@timestamp":1795309107123456`:                      {1795309107123, "us"},
		`"timestamp":1795309107123456`:                       {1795309107123, "us"},
		`"updated_at":1795309109,"created_at":1795309107`:    {1795309107000, "s"},
		`"executed_at":1795309107123,"updated_at":179530999`: {1795309107123, "ms"},
	} {
		if _, e := adaptOne(t, "deepfence", "{"+member+"}"); e.EventTime != want.ms || e.TimePrecision != want.precision {
			t.Errorf("%s: %d %s", member, e.EventTime, e.TimePrecision)
		}
	}
}

func TestDeepfenceFields(t *testing.T) {
	payload := "POST /item?id=1 HTTP/1.1\r\nHost: shop.example.com\r\nAuthorization: Bearer PLANTED\r\n\r\nx"
	line, e := adaptOne(t, "deepfence", df(fmt.Sprintf(`"updated_at":1795309109000,"count":"3","direction":"inbound","protocol":"tcp","category":"attack-sqli","summary":"SQLi","tactics":["Initial Access"],"techniques":"T1190","tags":"OWASP_CRS, sqli",
		"alert_id":"al-9","host_name":"node-7","node_id":"n1","node_type":"pod","pod_name":"p","container_name":"c","container_id":"cid","kubernetes_cluster_id":"ki","kubernetes_cluster_name":"kn",
		"event_type":"network_anomaly","encrypted":false,"headers":"Host: Shop.Example.com:80\r\nUser-Agent: curl\r\nCookie: sid=PLANTED","base_64_payload":%q,"payload":%q,"request":"GET / HTTP/1.1\nCookie: PLANTED\nX: y","url":"/item?id=1"`,
		base64.StdEncoding.EncodeToString([]byte(payload)), payload)))
	if e.RuleID != "942100" || e.RuleName != "SQLi" || e.RuleCategory != "attack-sqli" || e.CorrelationID != "al-9" || strings.Join(e.Tactics, "") != "Initial Access" || strings.Join(e.Techniques, "") != "T1190" || strings.Join(e.Meta.Labels, "|") != "OWASP_CRS|sqli" {
		t.Errorf("rule: %s", line)
	}
	if e.Host != (schemas.Host{OK: true, Name: "node-7", Container: "c", Pod: "p", ClusterID: "ki", ClusterName: "kn", NodeID: "n1"}) || e.SourceInstance != "n1" {
		t.Errorf("host: %+v", e.Host)
	}
	if e.Agg != (schemas.Agg{OK: true, Count: schemas.Int{V: 3, OK: true}, FirstSeen: schemas.Int{V: 1795309107000, OK: true}, LastSeen: schemas.Int{V: 1795309109000, OK: true}}) {
		t.Errorf("agg: %+v", e.Agg)
	}
	if e.HTTPMethod != "POST" || e.HTTPHost != "shop.example.com" || e.HTTPPath != "/item" || e.HTTPQuery != "id=1" || e.HTTPProtocol != "HTTP/1.1" || e.UserAgent != "curl" || e.Net.Transport != "tcp" {
		t.Errorf("http: %s", line)
	}
	got, err := base64.StdEncoding.DecodeString(e.Net.PayloadB64)
	if err != nil || strings.Contains(string(got)+line, "PLANTED") || !strings.Contains(string(got), "Host: shop") {
		t.Errorf("payload %q, %s", got, line)
	}
	want := `{"node_type":"pod","event_type":"network_anomaly","encrypted":false,"request":"GET / HTTP/1.1\nX: y","payload":"POST /item?id=1 HTTP/1.1\r\nHost: shop.example.com\r\n\r\nx","headers":"Host: Shop.Example.com:80\r\nUser-Agent: curl","container_id":"cid"}`
	if e.Meta.Unmapped != want {
		t.Errorf("unmapped:\n got %s\nwant %s", e.Meta.Unmapped, want)
	}
	if _, e = adaptOne(t, "deepfence", df(`"payload":"GET /a?b=c HTTP/1.0","protocol":"quic"`)); e.HTTPPath != "/a" || e.HTTPQuery != "b=c" || e.Net.PayloadB64 != base64.StdEncoding.EncodeToString([]byte("GET /a?b=c HTTP/1.0")) || e.Meta.Unmapped != `{"protocol":"quic"}` {
		t.Errorf("%+v", e)
	}
	if _, e = adaptOne(t, "deepfence", df(`"base_64_payload":"?!"`)); e.Meta.Unmapped != `{"base_64_payload":"?!"}` || e.Net.PayloadB64 != "" {
		t.Errorf("no base64: %s", e.Meta.Unmapped)
	}
}

func TestDeepfenceSuppressesWhatIsMasked(t *testing.T) {
	var out Output
	deepfence(input("["+df("")+","+df(`"masked":true`)+","+df(`"masked":"true"`)+`,{"text":"Test message from Deepfence"},`+violation("")+`,{"text":"and","more":1},{"rule_id":"no time"},7]`), &out)
	if len(out.Events) != 2 || out.Suppressed != 3 || len(out.Bad) != 3 || out.Events[1].Index != 4 {
		t.Fatalf("%+v, %d suppressed, bad %+v", out.Events, out.Suppressed, out.Bad)
	}
	out.Reset()
	deepfence(input(`{"created_at":1795309107,"rule_id":"a","rule_id":"b"}`), &out)
	if len(out.Bad) != 1 || out.Bad[0].Reason != "rule_id is given twice" {
		t.Errorf("twice: %+v", out.Bad)
	}
}

func FuzzDeepfence(f *testing.F) {
	fuzzFormat(f, "deepfence", "["+df(`"masked":true`)+","+violation(`"tags":[1,{}],"payload":"GET  HTTP/"`)+"]", df(`"headers":"Cookie:\n a\nHost:","base_64_payload":"R0VUIC8gSFRUUC8xLjEKQ29va2llOiBhCg=="`))
}

func BenchmarkDeepfence(b *testing.B) { benchFormat(b, "deepfence") }
