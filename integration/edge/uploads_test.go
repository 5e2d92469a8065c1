package edge

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const rays = 500

// firewallRows are the rows of an upload of firewall_events: one to three a
// request, in any order, their times in the three formats of Logpush.
func firewallRows() []byte {
	when := time.Now().Truncate(time.Second)
	times := []string{when.UTC().Format(`"2006-01-02T15:04:05Z"`), fmt.Sprint(when.Unix()), fmt.Sprint(when.UnixNano())}
	var rows []string
	for ray := range rays {
		for i := range 1 + ray%3 {
			action := []string{"block", "log", "skip"}[i]
			rows = append(rows, fmt.Sprintf(`{"Action":%q,"ClientIP":"203.0.113.7","ClientRequestPath":"/fw","Datetime":%s,"MatchIndex":%d,"OriginatorRayID":"00","RayID":"ray%05d","RuleID":"rule-%d","Source":"firewallcustom","New":{"kept":true}}`,
				action, times[ray%3], i, ray, i))
		}
	}
	rand.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	return []byte(strings.Join(rows, "\n") + "\n")
}

// requestRows are the same requests in http_requests.
func requestRows() []byte {
	var b bytes.Buffer
	for ray := range rays {
		fmt.Fprintf(&b, `{"EdgeStartTimestamp":%q,"ClientIP":"203.0.113.7","ClientRequestPath":"/http","RayID":"ray%05d","SecurityAction":"block","SecurityActions":["block"],"SecurityRuleIDs":["rule-0"],"SecuritySources":["firewallCustom"],"BotScore":2,"Cookies":{"session":"PLANTED"},"RequestHeaders":{"cookie":"PLANTED","authorization":"Basic PLANTED"}}`+"\n",
			time.Now().UTC().Format(time.RFC3339Nano), ray)
	}
	return b.Bytes()
}

// waf is a record of AWS WAF.
func waf(n int) string {
	return fmt.Sprintf(`{"timestamp":%d,"formatVersion":1,"webaclId":"acl","terminatingRuleId":"r","terminatingRuleType":"REGULAR","action":"BLOCK","httpSourceName":"CF","httpRequest":{"clientIp":"203.0.113.50","country":"DE","headers":[{"name":"Cookie","value":"session=PLANTED"},{"name":"Authorization","value":"Basic PLANTED"},{"name":"Host","value":"api.example.com"}],"uri":"/waf","httpMethod":"POST","requestId":"waf%05d"}}`,
		time.Now().UnixMilli(), n)
}

// delivery is the body of a Firehose delivery.
func delivery(t *testing.T, id string, records ...string) []byte {
	t.Helper()
	type record struct {
		Data string `json:"data"`
	}
	body := struct {
		RequestID string   `json:"requestId"`
		Timestamp int64    `json:"timestamp"`
		Records   []record `json:"records"`
	}{id, time.Now().UnixMilli(), []record{}}
	for _, r := range records {
		body.Records = append(body.Records, record{base64.StdEncoding.EncodeToString([]byte(r))})
	}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// deliver sends a delivery as Firehose does and holds the answer to its contract.
func deliver(t *testing.T, s *harness.Service, id string, body []byte, status int) {
	t.Helper()
	headers := []string{"X-Amz-Firehose-Protocol-Version", "1.0", "X-Amz-Firehose-Request-Id", id, "X-Amz-Firehose-Access-Key", uploadKey,
		"X-Amz-Firehose-Source-Arn", "arn:aws:firehose:us-east-1:123456789012:deliverystream/aws-waf-logs-shop", "Content-Type", "application/json"}
	if bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
		headers = append(headers, "Content-Encoding", "gzip")
	}
	got := post(t, s, "aws-waf/acme", "", body, headers...)
	var a struct {
		RequestID    string
		Timestamp    int64
		ErrorMessage string
	}
	if err := json.Unmarshal([]byte(got.body), &a); err != nil || got.status != status || a.RequestID != id || a.Timestamp < 1e12 || (a.ErrorMessage == "") != (status == 200) ||
		got.header.Get("Content-Type") != "application/json" || got.header.Get("Content-Length") == "" || got.header.Get("Content-Encoding") != "" {
		t.Errorf("delivery %s: %d %s %v, want %d", id, got.status, got.body, got.header, status)
	}
}

const uploadKey = "uk-PLANTED-key-of-acme"

// TestUploads: what Cloudflare Logpush and Firehose send, the program killed
// between an answer and Firehose's next try.
func TestUploads(t *testing.T) {
	s := harness.NewService(t, "")
	s.Write("tenants/acme.yaml", strings.NewReplacer(pluginKey, uploadKey, "%s", s.Dir).Replace(pluginSink))
	s.Up(time.Minute)
	for _, format := range []string{"cloudflare-firewall", "cloudflare-http"} {
		if got := post(t, s, format+"/acme", uploadKey, packed(t, []byte(`{"content":"tests"}`)), "Content-Encoding", "gzip"); got.status != 200 {
			t.Errorf("%s: Cloudflare's validation got %d %s", format, got.status, got.body)
		}
	}
	taken := fmt.Sprintf(`{"accepted":%d,"rejected":[]}`, rays)
	if got := post(t, s, "cloudflare-firewall/acme", uploadKey, packed(t, firewallRows()), "Content-Encoding", "gzip", "Content-Type", "text/plain"); got.status != 200 || got.body != taken {
		t.Errorf("firewall_events: %d %.300s", got.status, got.body)
	}
	if got := post(t, s, "cloudflare-http", uploadKey, packed(t, requestRows())); got.status != 200 || got.body != taken {
		t.Errorf("http_requests: %d %.300s", got.status, got.body)
	}
	first, second := delivery(t, "d1", waf(1), waf(2)+"\n"+waf(3)+"\n", ""), packed(t, delivery(t, "d2", waf(4), strings.Replace(waf(6), `"timestamp":`, `"never":`, 1), waf(5)))
	deliver(t, s, "d1", first, 200)
	deliver(t, s, "d2", second, 200)
	log := s.Output()
	s.End(true)
	s.Up(time.Minute)
	deliver(t, s, "d1", first, 200) // it did not hear the answer
	deliver(t, s, "d2", second, 200)
	deliver(t, s, "d3", delivery(t, "d3", "nothing of use"), 200)
	deliver(t, s, "d4", []byte(`{"requestId":"d4"}`), 400)
	deliver(t, s, "d5", delivery(t, "d5", strings.Repeat("x", 8<<20)), 413)
	const unique = 2*rays + 5 + 2 // those of WAF, and what went to the quarantine
	l := s.Delivered(unique+6, time.Minute)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	log += s.Output()
	s.End(false)
	got := map[string]int{}
	for _, e := range events(t, s, "acme") {
		got[e.HTTPPath]++
		switch e.HTTPPath {
		case "/fw":
			var ray int
			if n, err := fmt.Sscanf(e.EventID, "cf:ray%05d:0", &ray); n != 1 || err != nil || len(e.Matches) != 1+ray%3 || e.Action != "block" || e.RuleID != "rule-0" || e.CorrelationID != e.RequestID {
				t.Errorf("firewall_events: %+v", e)
			}
		case "/http":
			if e.EventID != "cf:"+e.CorrelationID+":http" || e.Action != "block" || e.Source != "cloudflare" {
				t.Errorf("http_requests: %+v", e)
			}
		default:
			if e.EventID != "aw:"+e.RequestID || e.Action != "block" || e.Source != "aws_waf" {
				t.Errorf("AWS WAF: %+v", e)
			}
		}
	}
	if got["/fw"] != rays || got["/http"] != rays || got["/waf"] != 5 || len(got) != 3 {
		t.Errorf("arrived: %v", got)
	}
	nowhere(t, s, log, []string{uploadKey, "session=PLANTED", "Basic PLANTED", `"session":"PLANTED"`})
}
