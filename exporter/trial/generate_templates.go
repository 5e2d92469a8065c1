package trial

import (
	"bytes"
	"strconv"
	"strings"
)

// template is an event's text with slots between its pieces.
type template struct {
	texts []string // one more than slots
	slots []slot
}

// slot appends what varies.
type slot func(*Generator, []byte) []byte

// parseTemplate cuts a template at its <slots>.
func parseTemplate(text string) template {
	var t template
	text = strings.NewReplacer("\n", "", "\t", "").Replace(text)
	for {
		from := strings.IndexByte(text, '<')
		if from < 0 {
			t.texts = append(t.texts, text)
			return t
		}
		to := from + strings.IndexByte(text[from:], '>')
		t.texts = append(t.texts, text[:from])
		t.slots = append(t.slots, slots[text[from+1:to]])
		text = text[to+1:]
	}
}

// head begins every template.
const head = `{"schema":"mitigation/1","event_id":"<id>","tenant_id":"<tenant>",`

// client and web are what edges know of a client and its request.
const client = `"client_ip":"<ip>","client_port":<port>,"client_asn":<asn>,"client_country":"<country>","user_agent":"<ua>",`
const web = `"http_method":"<method>","http_host":"<host>","http_path":"<path>","http_query":"<query>","http_protocol":"HTTP/2",`

const netacea = head + `"source":"netacea","source_instance":"w-<hex4>","vendor_version":"6.0.13","integration":"cloudflare",
	"kind":"mitigation","event_time":<time>,"time_precision":"ms","request_id":"<hex16>","action":`

const netaceaTail = `"match_on":"ip","severity":2,` + client + `"session_id":"<session>","session_state":"existing",` + web +
	`"http_referrer":"https://shop.example.com/","http_status":403,"bytes_out":<small>,"bytes_in":<small>,"duration_ms":<duration>}`

// mixes are the events and how often each comes, in percent.
var mixes = []struct {
	weight float64
	text   string
}{
	{14, netacea + `"block","disposition":"blocked","enforced":true,"mode":"mitigate","action_raw":"ip_blocked","codes_raw":"210",` + netaceaTail},
	{10, netacea + `"captcha","disposition":"captcha_served","enforced":true,"mode":"mitigate","action_raw":"ip_blocked,captcha_serve","codes_raw":"211",` + netaceaTail},
	{4, netacea + `"captcha","disposition":"captcha_passed","enforced":true,"mode":"mitigate","action_raw":"ip_blocked,captcha_pass","codes_raw":"213",` + netaceaTail},
	{3, netacea + `"allow","disposition":"allowed","enforced":true,"mode":"mitigate","action_raw":"ua_allow","codes_raw":"120",` + netaceaTail},
	{4, head + `"source":"netacea","integration":"nginx","kind":"mitigation","event_time":<time>,"time_precision":"ms","request_id":"<hex16>",
		"action":"block","disposition":"detected","enforced":false,"mode":"inject","action_raw":"visitor_blocked","codes_raw":"310","match_on":"visitor",
		"severity":2,` + client + `"session_id":"<session>",` + web + `"http_status":200,"bytes_out":<large>,"duration_ms":<duration>}`},
	{12, head + `"source":"cloudflare","source_instance":"LHR","kind":"mitigation","event_time":<time>,"time_precision":"s","request_id":"<hex16>",
		"correlation_id":"<hex16>","action":"block","disposition":"blocked","enforced":true,"action_raw":"block","rule_id":"<hex16>",
		"rule_name":"Scraper user agents","rule_set":"firewallcustom","severity":3,` + client + web + `"http_status":403}`},
	{9, head + `"source":"cloudflare","source_instance":"FRA","kind":"mitigation","event_time":<time>,"time_precision":"s","request_id":"<hex16>",
		"action":"challenge","disposition":"challenge_served","enforced":true,"action_raw":"managedchallenge","rule_id":"<hex16>",
		"rule_set":"botManagement","score":<score>,"score_kind":"bot_score","severity":2,` + client +
		`"tls_ja4":"t13d1516h2_8daaf6152771_<hex12>",` + web + `"http_status":403,"bytes_out":<small>}`},
	{5, head + `"source":"cloudflare","source_instance":"CDG","kind":"match","event_time":<time>,"time_precision":"s","request_id":"<hex16>",
		"action":"log","disposition":"logged","enforced":false,"action_raw":"log","rule_id":"<hex16>","rule_set":"ratelimit","severity":1,` + client + web + `"http_status":200}`},
	{8, head + `"source":"aws_waf","source_instance":"regional/webacl/edge/<hex4>","integration":"ALB","kind":"mitigation","event_time":<time>,
		"time_precision":"ms","request_id":"1-<hex16>","action":"block","disposition":"blocked","enforced":true,"action_raw":"BLOCK",
		"rule_id":"AWSManagedRulesSQLiRuleSet","rule_set":"ManagedRules","rule_category":"SQL_INJECTION","severity":3,` + client + web + `"meta":{"labels":["awswaf:managed:sqli"]}}`},
	{4, head + `"source":"aws_waf","integration":"CF","kind":"match","event_time":<time>,"time_precision":"ms","request_id":"1-<hex16>",
		"action":"count","disposition":"detected","enforced":false,"action_raw":"COUNT","rule_id":"RateByIP",
		"matches":[{"rule_id":"RateByIP","stage":"count","blocking":false}],"severity":1,` + client + web + `"http_status":200}`},
	{6, head + `"channel_id":"reseller-1","source":"threatx","kind":"mitigation","event_time":<time>,"time_precision":"ms","request_id":"<hex16>",
		"action":"block","disposition":"blocked","enforced":true,"rule_id":"<rule>","rule_name":"SQL Injection Probe","rule_category":"SqlInjection",
		"score":<score>,"score_raw":<score>,"score_kind":"risk","score_threshold":60,"severity":4,"stage":"Exploitation",` + client + web + `"http_status":403}`},
	{5, head + `"channel_id":"reseller-1","source":"threatx","kind":"match","event_time":<time>,"time_precision":"ms","request_id":"<hex16>",
		"action":"log","disposition":"detected","enforced":false,"rule_id":"<rule>","rule_category":"Scanning",
		"matches":[{"rule_id":"<rule>","name":"Forced browsing","category":"Scanning","score":<score>,"blocking":false,"location":"uri"}],
		"score":<score>,"score_kind":"risk","severity":2,"stage":"Reconnaissance",` + client + web + `"http_status":404}`},
	{6, head + `"source":"suricata","kind":"alert","event_time":<time>,"time_precision":"us","correlation_id":"flow-<hex12>","action":"log",
		"disposition":"detected","enforced":false,"mode":"ids","action_raw":"allowed","rule_id":"20<rule>","rule_name":"ET SCAN Suspicious inbound to SQL port",
		"rule_set":"1","rule_category":"Potentially Bad Traffic","score_raw":2,"score_kind":"severity","severity":3,"techniques":["T1595"],
		"client_ip":"<ip>","client_port":<port>,"net":{"dst_ip":"192.0.2.10","dst_port":1433,"transport":"tcp","direction":"inbound"}}`},
	{4, head + `"source":"coraza","kind":"alert","event_time":<time>,"time_precision":"us","request_id":"<hex16>","action":"block","disposition":"blocked",
		"enforced":true,"rule_id":"9<rule>","rule_name":"SQL Injection Attack Detected via libinjection","rule_set":"OWASP_CRS/4.25.0","rule_category":"attack-sqli",
		"score_raw":10,"score_kind":"anomaly","score_threshold":5,"severity":4,` + client + web + `"http_status":403}`},
	{4, head + `"source":"deepfence","source_instance":"node-<hex4>","kind":"alert","event_time":<time>,"time_precision":"ms","correlation_id":"<hex16>",
		"action":"log","disposition":"detected","enforced":false,"mode":"ids","rule_id":"<rule>","rule_name":"Outbound connection to a rare port",
		"rule_category":"network","severity":3,"tactics":["Command and Control"],"techniques":["T1071"],"client_ip":"<ip>","client_port":<port>,
		"net":{"dst_ip":"198.51.100.25","dst_port":4444,"transport":"tcp","direction":"outbound"},
		"host":{"name":"web-1","container":"shop","pod":"shop-<hex4>","cluster_name":"edge","node_id":"n-<hex4>"},"agg":{"count":<small>}}`},
	{2, head + `"source":"netacea","kind":"audit","event_time":<time>,"time_precision":"s","action":"none","disposition":"logged","enforced":false,
		"severity":1,"client_ip":"<ip>","audit":{"actor":"ops@example.com","object_type":"policy","object_id":"policy-<rule>","change":"threshold set to <small>"}}`},
}

// requestTemplate is a request on which nothing was decided.
const requestTemplate = head + `"source":"netacea","source_instance":"w-<hex4>","integration":"nginx","kind":"request","event_time":<time>,
	"time_precision":"ms","request_id":"<hex16>","action":"none","disposition":"allowed","enforced":false,"mode":"mitigate","severity":0,` + client +
	`"session_id":"<session>",` + web + `"http_status":200,"bytes_out":<large>,"bytes_in":<small>,"duration_ms":<duration>}`

const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// slots are what the templates' names stand for.
var slots = map[string]slot{
	"id":     func(g *Generator, d []byte) []byte { return strconv.AppendUint(append(d, g.prefix...), g.n, 10) },
	"tenant": func(g *Generator, d []byte) []byte { return append(d, g.tenant...) },
	"time":   func(g *Generator, d []byte) []byte { return strconv.AppendInt(d, g.ms, 10) },
	"ip":     func(g *Generator, d []byte) []byte { return append(d, g.ips[min(g.below(1024), g.below(1024))]...) },
	"port":   func(g *Generator, d []byte) []byte { return strconv.AppendInt(d, int64(1024+g.below(64000)), 10) },
	"asn":    func(g *Generator, d []byte) []byte { return strconv.AppendInt(d, int64(64496+g.below(16)), 10) },
	"rule":   func(g *Generator, d []byte) []byte { return strconv.AppendInt(d, int64(10000+g.below(300)), 10) },
	"small":  func(g *Generator, d []byte) []byte { return strconv.AppendInt(d, int64(g.below(900)), 10) },
	"large":  func(g *Generator, d []byte) []byte { return strconv.AppendInt(d, int64(g.below(200000)), 10) },
	"score": func(g *Generator, d []byte) []byte { // the same throughout an event
		return append(strconv.AppendUint(d, g.n*37%100, 10), ".5"...)
	},
	"duration": func(g *Generator, d []byte) []byte {
		return append(strconv.AppendInt(d, int64(g.below(400)), 10), ".25"...)
	},
	"hex4":    func(g *Generator, d []byte) []byte { return g.chars(d, 4, 16) },
	"hex12":   func(g *Generator, d []byte) []byte { return g.chars(d, 12, 16) },
	"hex16":   func(g *Generator, d []byte) []byte { return g.chars(d, 16, 16) },
	"session": func(g *Generator, d []byte) []byte { return g.chars(d, 16, 62) },
	"country": oneOf("GB", "US", "DE", "FR", "NL", "SG", "BR", "JP"),
	"method":  oneOf("GET", "GET", "GET", "GET", "POST", "HEAD"),
	"host":    oneOf("shop.example.com", "www.example.org", "api.example.net"),
	"path":    oneOf("/", "/products", "/products/1842/reviews", "/search", "/login", "/api/v2/stock", "/basket/add", "/wp-login.php", "/café"),
	"query":   oneOf("page=2", "page=7&sort=new", "q=trainers", "id=1842", "utm_source=mail", "q=%27+OR+1%3D1"),
	"ua": oneOf("curl/8.5.0", "python-requests/2.32", "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0", "Go-http-client/2.0",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile"),
}

func oneOf(values ...string) slot {
	return func(g *Generator, d []byte) []byte { return append(d, values[g.below(len(values))]...) }
}

// chars appends n random letters of the first base ones.
func (g *Generator) chars(d []byte, n, base int) []byte {
	var r uint64
	for i := range n {
		if i%8 == 0 {
			g.below(2)
			r = g.bits
		}
		d = append(d, letters[(r>>56)*uint64(base)>>8])
		r <<= 8
	}
	return d
}

// spoil appends a good event's line to dst with one fault.
func spoil(dst, line []byte, bad string) []byte {
	replace := func(old, by string) []byte { return append(dst, bytes.Replace(line, []byte(old), []byte(by), 1)...) }
	switch bad {
	case "broken JSON":
		return append(dst, line[:len(line)*2/3]...)
	case "raw newline":
		return replace(`"source":"`, `"note":"two`+"\n"+`lines","source":"`)
	case "wrong type":
		return replace(`"enforced":`, `"enforced":"no","was":`)
	case "no tenant":
		return replace(`"tenant_id":`, `"whose":`)
	case "300 KiB":
		return replace(`"source":"`, `"note":"`+strings.Repeat("long ", 60<<10)+`","source":"`)
	case "invalid UTF-8":
		return replace(`"source":"`, `"note":"`+"\xff\xfe"+`","source":"`)
	case "100 years ahead":
		return replace(`"event_time":1`, `"event_time":4`)
	default: // repeated key
		return replace(`"source":"`, `"source":"twice","source":"`)
	}
}
