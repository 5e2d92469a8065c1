package exporter_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"datasync/exporter/trial"
	"datasync/feeds/adapt"
)

// records are one record of each source format. § stands where a client's text
// may stand, ¤ where the name alone says that the value is a secret, ID where an
// id stands that looks like a card number and must stay.
var records = map[string]string{
	"canonical": `{"event_id":"ID-#","source":"edge","kind":"match","event_time":1795309107123,"time_precision":"ms","action":"log","disposition":"detected","enforced":false,"severity":2,"request_id":"ID","client_ip":"203.0.113.7",` +
		`"http_path":"/§","http_query":"§","http_referrer":"§","user_agent":"§","forwarded_for":"203.0.113.7","reason":"§","rule_name":"§","action_raw":"§","stage":"§","matches":[{"rule_id":"942100","name":"§","location":"ARGS","data":"§"}],` +
		`"net":{"dst_ip":"10.0.0.1","payload_b64":"§64"},"audit":{"actor":"alice","change":"§"},"meta":{"labels":["§"],"unmapped":{"body":"§","password":"¤","headers":[{"name":"Authorization","value":"¤"}],"deep":{"api_key":"¤","note":"§"}}},"own":{"text":"§","token":"¤"}}`,
	"netacea": `{"Request":"GET /§ HTTP/2","TimeUnixMsUTC":1795309107123,"RealIp":"203.0.113.7","UserAgent":"§","Status":"403","RequestTime":"0","BytesSent":"5","Referer":"§","NetaceaUserIdCookie":"¤","NetaceaMitigationApplied":"ip_blocked","IntegrationType":"cloudflare",` +
		`"IntegrationVersion":"6.0.13","ProtectionMode":"MITIGATE","RequestHost":"shop.example.com","XForwardedFor":"203.0.113.7","Query":"§","RequestId":"ID","apiKey":"¤","more":{"note":"§","cookie":"¤","Authorization":"¤"}}`,
	"threatx": `{"message":"www.example.com/§","msg_type":"MatchEvent","timestamp":"2026-11-22T00:58:27Z","request_id":"ID","user_agent":"§","matches":[{"id":202202,"description":"§","classification":"SqlInjection","state":"Exploitation","contrib_score":100,"risk":70,"blocking":true,"beta":false}],` +
		`"ip":"203.0.113.7","dst_host":"www.example.com","uri":"/§","args":"§","status_code":0,"ssl":true,"risk":70,"request_method":"GET","content_type":"§","cookie":"¤","more":{"note":"§","password":"¤"}}`,
	"deepfence": `{"base_64_payload":"§64","category":"attack-sqli","count":3,"created_at":1795309107000,"destination_ip":"10.0.0.12","destination_port":8080,"direction":"inbound","event_type":"network_anomaly","headers":"§","host_name":"node-7","http_type":"request","masked":false,"node_id":"ID","node_type":"host",` +
		`"payload":"§","protocol":"tcp","request":"§","response":"§","references":"§","rule_id":"942100","severity":"high","source_ip":"203.0.113.7","source_port":51324,"summary":"§","tags":"OWASP_CRS","updated_at":1795309107000,"url":"/§","more":{"password":"¤","note":"§"}}`,
	"suricata": `{"timestamp":"2026-11-22T00:58:27.174123+0000","flow_id":298824096901438,"event_type":"alert","src_ip":"203.0.113.7","src_port":51324,"dest_ip":"10.0.0.12","dest_port":80,"proto":"TCP","app_proto":"http","alert":{"action":"allowed","gid":1,"signature_id":2010963,"rev":3,"signature":"§","category":"§","severity":1},` +
		`"http":{"hostname":"shop.example.com","url":"/§","http_user_agent":"§","http_refer":"§","http_method":"GET","protocol":"HTTP/1.1","status":200,"length":512,"request_headers":[{"name":"Cookie","value":"¤"},{"name":"X-Note","value":"§"}]},"payload":"§64","payload_printable":"§"}`,
	"coraza": `{"transaction":{"timestamp":"2026/11/22 01:14:39","unix_timestamp":1795310079222776066,"id":"ID","client_ip":"203.0.113.7","client_port":51324,"host_ip":"192.0.2.10","host_port":443,"request":{"method":"GET","protocol":"HTTP/1.1","uri":"/§","headers":{"authorization":["¤"],"cookie":["¤"],"host":["shop.example.com"],"user-agent":["§"],"referer":["§"]},"body":"§"},` +
		`"producer":{"rulesets":["OWASP_CRS/4.25.0"]},"is_interrupted":true},"messages":[{"message":"§","error_message":"§","data":{"id":942100,"msg":"§","data":"§","severity":2,"tags":["attack-sqli"],"file":"x.conf","line":1,"raw":"§"}}]}`,
	"cloudflare-firewall": `{"Action":"block","ClientASN":64500,"ClientCountry":"de","ClientIP":"203.0.113.7","ClientRequestHost":"shop.example.com","ClientRequestMethod":"GET","ClientRequestPath":"/§","ClientRequestProtocol":"HTTP/2","ClientRequestQuery":"?§","ClientRequestScheme":"https","ClientRequestUserAgent":"§","ClientRefererPath":"/§","ClientRefererQuery":"?§",` +
		`"Datetime":"2026-11-22T00:58:27Z","Description":"§","EdgeColoCode":"FRA","EdgeResponseStatus":403,"Kind":"firewall","MatchIndex":0,"Metadata":{"note":"§","token":"¤"},"OriginatorRayID":"00","RayID":"ID-#","RuleID":"7dc666e026974dab84884c73b3e2afe1","Source":"waf"}`,
	"cloudflare-http": `{"BotScore":2,"ClientASN":64500,"ClientCountry":"de","ClientIP":"203.0.113.7","ClientRequestHost":"shop.example.com","ClientRequestMethod":"GET","ClientRequestPath":"/§","ClientRequestProtocol":"HTTP/2","ClientRequestReferer":"§","ClientRequestURI":"/login?§","ClientRequestUserAgent":"§","Cookies":{"sid":"¤"},"RequestHeaders":{"authorization":"¤","x-note":"§"},` +
		`"EdgeColoCode":"FRA","EdgeResponseStatus":403,"EdgeStartTimestamp":"2026-11-22T00:58:27.174Z","RayID":"ID","SecurityAction":"block","SecurityActions":["block"],"SecurityRuleDescription":"§","SecurityRuleIDs":["7dc6"],"SecuritySources":["waf"],"ZoneName":"example.com"}`,
	"cloudfront": `{"date":"2026-11-22","time":"00:58:27","x-edge-location":"FRA56-P9","sc-bytes":"919","c-ip":"203.0.113.7","cs-method":"GET","cs(Host)":"d1.cloudfront.net","cs-uri-stem":"/§","sc-status":"403","cs(Referer)":"§","cs(User-Agent)":"§","cs-uri-query":"§","cs(Cookie)":"¤","x-edge-result-type":"Error","x-edge-request-id":"ID",` +
		`"x-host-header":"shop.example.com","cs-protocol":"https","cs-bytes":"78","time-taken":"0.002","x-forwarded-for":"-","cs-protocol-version":"HTTP/2.0","c-port":"51324","x-edge-detailed-result-type":"ClientGeoBlocked"}`,
	"aws-waf": `{"timestamp":1795309107123,"formatVersion":1,"webaclId":"arn:aws:wafv2:us-east-1:123456789012:global/webacl/shop/1","terminatingRuleId":"r1","terminatingRuleType":"REGULAR","action":"BLOCK","terminatingRuleMatchDetails":[{"conditionType":"SQL_INJECTION","location":"ALL_QUERY_ARGS","matchedData":["§"]}],"httpSourceName":"CF","httpSourceId":"E1","ruleGroupList":[],"nonTerminatingMatchingRules":[],` +
		`"httpRequest":{"clientIp":"203.0.113.50","country":"DE","headers":[{"name":"host","value":"api.example.com"},{"name":"authorization","value":"¤"},{"name":"cookie","value":"¤"},{"name":"X-Api-Key","value":"¤"},{"name":"user-agent","value":"§"},{"name":"referer","value":"§"}],"uri":"/§","args":"§","httpVersion":"HTTP/2.0","httpMethod":"POST","requestId":"ID"},"labels":[{"name":"awswaf:x"}]}`,
}

// cardLike is an id that would be a card number in text.
const cardLike = "4012888888881881"

// planted are texts with a secret; what must be nowhere of it is what leaked
// looks for. # is another number in each.
var planted = []string{
	"user=alice&password=S3CR3T-#&x=1", "user=alice&user[password]=S3CR3T-#", "next=%2Flogin%3Fpassword%3DS3CR3T-#%26user%3Dalice", "next=%252Flogin%253Fpassword%253DS3CR3T-#", "%70assword=S3CR3T-#",
	"user=alice&api_key=S3CR3T-#", "client_id=web&client_secret=S3CR3T#", "access_token=S3CR3T.#&state=ok", "csrf_token=S3CR3T#", `{"user":"alice","password":"S3CR3T-#","n":1}`, `q=%7B%22password%22%3A%22S3CR3T-#%22%7D`,
	"Authorization: Bearer S3CR3T#0123456789", "sent Bearer S3CR3T#0123456789 along", "h=Bearer%20S3CR3T#0123456789", "Cookie: a=b; sid=S3CR3T#; c=d", "Proxy-Authorization: Basic YWxpY2U6UzNDUjNUMQ==",
	"https://alice:S3CR3T-#@db.example.com/x", "u=https%3A%2F%2Falice%3AS3CR3T-#%40db.example.com", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJTM0NSM1QifQ.S3CR3T#-abcdefghijklmnop", "key AKIAS3CR3TEXAMPLE000 used", "ghp_S3CR3TabcdefghijklmnopqrstuvwxyzABCD",
	"X-Amz-Signature=S3CR3T#&X-Amz-Date=20261122", "card 4111770000000006 was used", "n=4111 7700 0000 0006&user=alice", "n=4111-7700-0000-0006", "n=4111+7700+0000+0006", "n=4111%207700%200000%200006", "n=%34111770000000006", "ssn 219-09-9999 of alice", "s=219%2D09%2D9999",
	"own=S3CR3T-#&user=alice", "OWN-S3CR3T-# here",
}

// leaked are what is left of a secret, in base64 too.
var leaked = []string{"S3CR3T", "UzNDUjNU", "TM0NSM1Q", "NDUjNU", "MzQ1IzVA", "411177", "4111 77", "4111-77", "4111+77", "4111%2077", "%34111770", "219-09", "219%2D09"}

// plant puts a secret into the at-th place of a record; false where it has none.
func plant(record string, at, n int) (string, bool) {
	parts := regexp.MustCompile(`§64|§|¤`).FindAllStringIndex(record, -1)
	if at >= len(parts) {
		return "", false
	}
	var b strings.Builder
	last := 0
	for i, p := range parts {
		b.WriteString(record[last:p[0]])
		last = p[1]
		text := strings.ReplaceAll(planted[n%len(planted)], "#", fmt.Sprint(n))
		switch kind := record[p[0]:p[1]]; {
		case i != at && kind == "§64":
			b.WriteString("AAAA")
		case i != at:
		case kind == "¤":
			b.WriteString(fmt.Sprint("S3CR3T", n))
		case kind == "§64":
			b.WriteString(base64.StdEncoding.EncodeToString([]byte("POST / HTTP/1.1\r\n\r\n" + text)))
		default:
			quoted, _ := json.Marshal(text) // it cannot fail
			b.Write(bytes.Trim(quoted, `"`))
		}
	}
	b.WriteString(record[last:])
	return strings.NewReplacer(`"ID"`, `"`+cardLike+`"`, "ID-#", fmt.Sprintf("%s-%d-%d", cardLike, at, n)).Replace(b.String()), true
}

// corpus is every place of a record with every secret: whole, broken, and the
// bare text.
func corpus(record string) (whole, broken []string) {
	for at := 0; ; at++ {
		for n := range planted {
			line, ok := plant(record, at, n)
			if !ok {
				return whole, broken
			}
			whole = append(whole, line)
			switch {
			case at == n%7: // some of them broken, in other places each time
				broken = append(broken, line[:len(line)-1-n%3], "["+line, line+"}")
			case at == 0:
				broken = append(broken, strings.ReplaceAll(planted[n], "#", fmt.Sprint(n)))
			}
		}
	}
}

// TestNoSecretIsKept sends every secret in every place of every source format
// through the service, and looks for it in all that there is afterwards: the
// journal, the quarantine, drops of three kinds, TLS lines, the log, answers.
func TestNoSecretIsKept(t *testing.T) {
	b := newBench(t)
	lines := receiver(t, filepath.Join(b.dir, "lines"))
	b.tenant("t0001", gzipDrops+fmt.Sprintf("  - name: plain\n    dir: {path: \"{out}\"}\n    compression: none\n    deliver: {max_age: 1s}\n"+
		"  - name: lake\n    dir: {path: \"{out}\"}\n    format: parquet\n    compression: none\n    deliver: {max_age: 1s}\n"+
		"  - name: siem\n    emitter: {address: %q, tls: {ca: %q}, rotate_every: 1s}\n", lines.Addr(), filepath.Join(b.dir, "lines", "ca.pem"))+
		"redact: {query_params: [own], patterns: ['OWN-[A-Z0-9-]+']}\n")
	b.up()
	sent := int64(0)
	var answers strings.Builder
	for _, format := range adapt.Formats() {
		record, ok := records[format]
		if !ok {
			t.Errorf("format %s has no record here: add one, with § and ¤ wherever a secret may stand", format)
			continue
		}
		whole, broken := corpus(record)
		sent += int64(len(whole))
		for _, body := range []string{strings.Join(whole, "\n"), strings.Join(broken, "\n"), strings.Join(whole[:10], "&")} {
			status, answer := b.send("/v1/ingest/"+format+"/t0001", body)
			answers.WriteString(answer)
			if body == strings.Join(whole, "\n") && !strings.Contains(answer, fmt.Sprintf(`"accepted":%d,`, len(whole))) {
				t.Errorf("%s: %d, %d records, %.300s", format, status, len(whole), answer)
			}
		}
	}
	b.delivered(sent)
	for _, e := range b.entries("?limit=1000") {
		answers.Write(b.get("/v1/quarantine/" + e.ID))
	}
	if len(b.entries("")) == 0 {
		t.Error("nothing is in the quarantine")
	}
	b.down()
	if err := lines.Close(); err != nil {
		t.Error(err)
	}
	look := func(where string, raw []byte) {
		for _, l := range leaked {
			if at := bytes.Index(raw, []byte(l)); at >= 0 {
				t.Errorf("%s holds a secret, at %d of %d: %q", where, at, len(raw), raw[max(0, at-200):min(len(raw), at+60)])
			}
		}
	}
	look("the log", b.log.Bytes())
	look("an answer", []byte(answers.String()))
	seen := b.look(look)
	for _, want := range []string{"alice", cardLike, "203.0.113.7", `"meta":{`, ":credentials", ":tokens", ":card_numbers", ":ssn", ":query_params", ":patterns"} {
		for where, text := range seen {
			if !strings.Contains(text, want) && (where != "lake" || !strings.ContainsAny(want, `{:`)) {
				t.Errorf("%s has lost %s", where, want)
			}
		}
	}
	for line := range strings.Lines(seen["plain"]) {
		if strings.Contains(line, "[redacted]") && !strings.Contains(line, `"redactions":["`) {
			t.Errorf("what was redacted is not named: %s", line)
		}
	}
}

// look gives f the bytes of every file of the test, unpacked, and what the sinks have.
func (b *bench) look(f func(string, []byte)) map[string]string {
	b.t.Helper()
	seen := map[string]string{"drops": "", "plain": "", "lake": "", "lines": ""}
	err := filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".pem") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".seg") || e.Name() == "RESERVE" {
			raw = bytes.TrimRight(raw, "\x00") // what was only allocated
		}
		if strings.HasSuffix(path, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(raw))
			if err != nil {
				return err
			}
			if raw, err = io.ReadAll(z); err != nil {
				return err
			}
		}
		f(path, raw)
		for name := range seen {
			if strings.Contains(path, "sink="+name+"/") || strings.HasSuffix(path, name+".ndjson") {
				seen[name] += string(raw)
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return seen
}

// send posts a body to the HTTP feed.
func (b *bench) send(path, body string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+b.svc.Addr("edge")+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key-of-t0001")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// receiver takes lines over TLS into dir.
func receiver(t *testing.T, dir string) *trial.Receiver {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	certs, err := trial.NewCerts(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := trial.NewReceiver(trial.ReceiveOptions{Listen: "127.0.0.1:0", Cert: certs.Cert, Key: certs.Key, Out: filepath.Join(dir, "lines.ndjson")})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(certs.CA, filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	return r
}
