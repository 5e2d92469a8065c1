package adapt

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// eve is an EVE record with members put in.
func eve(kind, more string) string {
	s := fmt.Sprintf(`{"timestamp":"2026-11-22T00:58:27.174123+0000","event_type":%q,"src_ip":"203.0.113.7","src_port":51324,"dest_ip":"10.0.0.12","dest_port":80,"proto":"TCP"`, kind)
	if more != "" {
		s += "," + more
	}
	return s + "}"
}

func alert(action string, severity int) string {
	return fmt.Sprintf(`"alert":{"action":%q,"gid":1,"signature_id":2010963,"signature":"S","category":"C","severity":%d}`, action, severity)
}

// TestSuricataNormalisation holds the SU rows of events.md.
func TestSuricataNormalisation(t *testing.T) {
	for _, c := range []struct {
		record, raw string
		want        decision
		severity    int8
		mode        string
	}{
		{eve("alert", alert("allowed", 1)), "allowed", decision{"alert", "log", "detected", false}, 4, ""},
		{eve("alert", alert("allowed", 2)), "allowed", decision{"alert", "log", "detected", false}, 3, ""},
		{eve("alert", alert("allowed", 3)), "allowed", decision{"alert", "log", "detected", false}, 2, ""},
		{eve("alert", alert("allowed", 4)), "allowed", decision{"alert", "log", "detected", false}, 1, ""},
		{eve("alert", alert("allowed", 255)), "allowed", decision{"alert", "log", "detected", false}, 1, ""},
		{eve("alert", alert("allowed", 0)), "allowed", decision{"alert", "log", "detected", false}, 1, ""},
		{eve("alert", alert("blocked", 1)), "blocked", decision{"alert", "block", "blocked", true}, 4, "ips"},
		{eve("alert", alert("blocked", 3)), "blocked", decision{"alert", "block", "blocked", true}, 2, "ips"},
		{eve("alert", `"alert":{}`), "", decision{"alert", "log", "detected", false}, 1, ""},
		{eve("alert", ""), "", decision{"alert", "log", "detected", false}, 1, ""},
		{eve("drop", `"drop":{"len":60,"reason":"rules"}`), "drop", decision{"alert", "block", "blocked", true}, 3, "ips"},
		{eve("drop", `"drop":{"reason":"rules"},`+alert("blocked", 1)), "blocked", decision{"alert", "block", "blocked", true}, 4, "ips"},
		{strings.Replace(eve("x", alert("allowed", 1)), `"event_type":"x",`, "", 1), "allowed", decision{"alert", "log", "detected", false}, 4, ""},
	} {
		_, e := adaptOne(t, "suricata", c.record)
		if got := decisionOf(&e); got != c.want || e.ActionRaw != c.raw || e.Severity != c.severity || e.Mode != c.mode || e.Source != "suricata" {
			t.Errorf("%s:\n got %+v %q severity %d mode %q", c.record, got, e.ActionRaw, e.Severity, e.Mode)
		}
		if e.Score.OK || e.ScoreRaw.OK && e.ScoreRaw.V > 0 && e.ScoreKind != "severity" {
			t.Errorf("%s: score %+v %+v %s", c.record, e.Score, e.ScoreRaw, e.ScoreKind)
		}
	}
}

func TestSuricataFields(t *testing.T) {
	line, e := adaptOne(t, "suricata", eve("alert", `"host":"sensor-1","in_iface":"eth0","flow_id":1790267450310274,"community_id":"1:abc","app_proto":"http","tx_id":0,
		"alert":{"action":"allowed","gid":1,"signature_id":2010963,"rev":3,"signature":"ET WEB","category":"Web","severity":1,"metadata":{"mitre_technique_id":["T1190","T1059"],"mitre_tactic_name":["Initial_Access"],"attack_target":["Server"]}},
		"http":{"hostname":"Shop.Example.com:8080","url":"http://shop.example.com/item?id=1","http_user_agent":"curl/8","http_refer":"https://r.example/","http_method":"POST","protocol":"HTTP/1.1","status":404,"length":512,"xff":"198.51.100.1","http_content_type":"text/html","http_port":8080},
		"tls":{"sni":"shop.example.com","ja3":{"hash":"e7d7","string":"771"},"ja4":"t13d"},"verdict":{"action":"alert"}`))
	if e.SourceInstance != "sensor-1" || e.CorrelationID != "1790267450310274" || e.RuleID != "2010963" || e.RuleSet != "1" || e.RuleName != "ET WEB" || e.RuleCategory != "Web" {
		t.Errorf("rule: %s", line)
	}
	if strings.Join(e.Techniques, " ") != "T1190 T1059" || strings.Join(e.Tactics, ",") != "Initial Access" {
		t.Errorf("mitre: %v %v", e.Techniques, e.Tactics)
	}
	if e.ClientIP != "203.0.113.7" || e.ClientPort.V != 51324 || e.Net.DstIP != "10.0.0.12" || e.Net.DstPort.V != 80 || e.Net.Transport != "tcp" || e.Net.Direction != "" {
		t.Errorf("net: %s", line)
	}
	if e.HTTPHost != "shop.example.com" || e.HTTPPath != "/item" || e.HTTPQuery != "id=1" || e.UserAgent != "curl/8" || e.HTTPReferrer != "https://r.example/" ||
		e.HTTPMethod != "POST" || e.HTTPProtocol != "HTTP/1.1" || e.HTTPStatus.V != 404 || e.BytesOut.V != 512 || e.ForwardedFor != "198.51.100.1" {
		t.Errorf("http: %s", line)
	}
	if e.TLSJA3 != "e7d7" || e.TLSJA4 != "t13d" || e.TimePrecision != "us" || e.EventTime != 1795309107174 {
		t.Errorf("%s", line)
	}
	want := `{"in_iface":"eth0","community_id":"1:abc","app_proto":"http","tx_id":0,"alert":{"rev":3,"metadata":{"attack_target":["Server"]}},"http":{"http_content_type":"text/html","http_port":8080},"tls":{"sni":"shop.example.com","ja3":{"string":"771"}},"verdict":{"action":"alert"}}`
	if e.Meta.Unmapped != want {
		t.Errorf("unmapped:\n got %s\nwant %s", e.Meta.Unmapped, want)
	}
	if _, e = adaptOne(t, "suricata", eve("alert", alert("allowed", 1)+`,"direction":"to_client"`)); e.ClientIP != "10.0.0.12" || e.ClientPort.V != 80 || e.Net.DstIP != "203.0.113.7" || e.Net.DstPort.V != 51324 {
		t.Errorf("found in an answer: %+v", e)
	}
	if _, e = adaptOne(t, "suricata", eve("drop", `"drop":{"reason":"stream midstream","ttl":64}`)); e.Reason != "stream midstream" || e.Meta.Unmapped != `{"drop":{"ttl":64}}` {
		t.Errorf("dropped: %+v", e)
	}
}

func TestSuricataPayloads(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	plain := "GET / HTTP/1.1\r\nHost: a\r\nCookie: sid=PLANTED\r\n folded=PLANTED\r\nX-Api-Key: PLANTED\r\nAccept: */*\r\n\r\n"
	line, e := adaptOne(t, "suricata", eve("alert", alert("allowed", 1)+fmt.Sprintf(`,"payload":%q,"payload_printable":%q,"packet":%q,"packet_info":{"linktype":1},
		"http":{"request_headers":[{"name":"Cookie","value":"PLANTED"},{"name":"Accept","value":"*/*"}],"http_request_body":%q,"http_request_body_printable":"a=1"}`, b64([]byte(plain)), plain, b64([]byte(plain)), b64([]byte(plain)))))
	got, err := base64.StdEncoding.DecodeString(e.Net.PayloadB64)
	if err != nil || string(got) != "GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n" {
		t.Errorf("payload %q %v", got, err)
	}
	if strings.Contains(line, "PLANTED") || strings.Contains(line, "linktype") {
		t.Errorf("%s", line)
	}
	if strings.Join(e.Meta.Truncated, " ") != "packet http_request_body" || strings.Join(e.Meta.Redactions, " ") != "net.payload_b64:credentials" {
		t.Errorf("meta %+v", e.Meta)
	}
	if want := `{"http":{"request_headers":[{"name":"Cookie"},{"name":"Accept","value":"*/*"}],"http_request_body_printable":"a=1"}}`; e.Meta.Unmapped != want {
		t.Errorf("unmapped %s", e.Meta.Unmapped)
	}
	if _, e = adaptOne(t, "suricata", eve("alert", fmt.Sprintf(`"payload_printable":%q`, plain))); strings.Contains(e.Meta.Unmapped, "PLANTED") || !strings.Contains(e.Meta.Unmapped, "Accept") {
		t.Errorf("text alone: %s", e.Meta.Unmapped)
	}
	if _, e = adaptOne(t, "suricata", eve("alert", fmt.Sprintf(`"payload":%q`, b64(make([]byte, 20<<10))))); len(e.Net.PayloadB64) != base64.StdEncoding.EncodedLen(maxPayload) || len(e.Meta.Truncated) != 1 {
		t.Errorf("a long one: %d %v", len(e.Net.PayloadB64), e.Meta.Truncated)
	}
	if _, e = adaptOne(t, "suricata", eve("alert", `"payload":"?!"`)); e.Net.PayloadB64 != "" || e.Meta.Unmapped != `{"payload":"?!"}` {
		t.Errorf("no base64: %+v", e.Meta)
	}
}

func TestSuricataSuppressesWhatIsNoDetection(t *testing.T) {
	var out Output
	suricata(input(strings.Join([]string{eve("flow", ""), eve("alert", alert("allowed", 1)), eve("dns", `"dns":{}`), `{"event_type":"stats","stats":{}}`, eve("http", ""), `{"x":1}`, `{"event_type":"alert"}`}, "\n")), &out)
	if len(out.Events) != 1 || out.Suppressed != 4 || len(out.Bad) != 2 {
		t.Fatalf("%d events, %d suppressed, bad %+v", len(out.Events), out.Suppressed, out.Bad)
	}
	if out.Events[0].Index != 1 || out.Bad[0].Index != 5 || !strings.Contains(out.Bad[0].Reason, "event_type is missing") || !strings.Contains(out.Bad[1].Reason, "no usable time") {
		t.Errorf("%+v %+v", out.Events, out.Bad)
	}
	if out.Reset(); out.Suppressed != 0 {
		t.Error("Reset keeps the count")
	}
}

// What makes an event too large goes before the event does.
func TestRecordsTooLargeAreCut(t *testing.T) {
	long := strings.Repeat("A", 200<<10)
	for _, c := range []struct{ name, record, cut string }{
		{"unknown", eve("alert", `"big":"`+long+long+`"`), "meta.unmapped"},
		{"url", eve("alert", `"http":{"url":"/`+long+`?`+long+`"}`), "http_path http_query"},
		{"escapes", eve("alert", `"http":{"url":"/`+strings.Repeat(`\u0001`, 30<<10)+`?`+long+`"}`), "http_path http_query"},
	} {
		line, e := adaptOne(t, "suricata", c.record)
		if got := strings.Join(e.Meta.Truncated, " "); got != c.cut || len(line) > 64<<10 {
			t.Errorf("%s: %d bytes, cut %s", c.name, len(line), got)
		}
	}
}

func FuzzSuricata(f *testing.F) {
	fuzzFormat(f, "suricata", eve("drop", `"drop":[],"alert":7,"http":{"url":"http://"}`), eve("alert", `"payload":"Q29va2llOiBhCg==","x":{"Cookie":[1,{"name":"cookie","value":{}}]}`))
}

func BenchmarkSuricata(b *testing.B) { benchFormat(b, "suricata") }
