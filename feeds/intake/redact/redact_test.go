package redact

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"datasync/schemas"
)

// event is a canonical line with extra members put in.
func event(extra string) string {
	base := `{"schema":"mitigation/1","event_id":"01JD9X3T5V7Q2M4N6P8R0S1T2V","tenant_id":"acme","source":"netacea","kind":"mitigation",` +
		`"event_time":1795309107123,"time_precision":"ms","ingest_time":1795309108000,"action":"block","disposition":"blocked",` +
		`"enforced":true,"severity":3`
	if extra != "" {
		base += "," + extra
	}
	return base + "}"
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// planted are texts with a secret in each, and what must not be left of it.
var planted = []struct{ name, text, secret, group string }{
	{"query password", "user=alice&password=hunter2&x=1", "hunter2", "credentials"},
	{"query api key", "api_key=k-9f8e7d6c5b4a&page=2", "k-9f8e7d6c5b4a", "credentials"},
	{"query with dash", "x-api-key=zzzTopSecret", "zzzTopSecret", "credentials"},
	{"bracketed", "user[password]=hunter2&user[name]=bob", "hunter2", "credentials"},
	{"encoded brackets", "user%5Bpassword%5D=hunter2", "hunter2", "credentials"},
	{"client secret", "client_id=web&client_secret=s3cr3tvalue", "s3cr3tvalue", "credentials"},
	{"camel case", "newPassword=hunter2", "hunter2", "credentials"},
	{"encoded pair", "next=%2Flogin%3Fpassword%3Dhunter2%26x%3D1", "hunter2", "credentials"},
	{"encoded twice", "next=%252Flogin%253Fpassword%253Dhunter2", "hunter2", "credentials"},
	{"encoded value", "password=hunter%26two%3Dthree&z=1", "hunter%26two", "credentials"},
	{"encoded letters", "%70assword=hunter2", "hunter2", "credentials"},
	{"access token", "access_token=ya29.a0AfH6SMBx&state=ok", "ya29.a0AfH6SMBx", "tokens"},
	{"csrf token", "csrf_token=abcdef0123456789", "abcdef0123456789", "tokens"},
	{"jwt", "u=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", "eyJzdWIiOiIxMjM0In0", "tokens"},
	{"bearer", "Authorization: Bearer abc123def456ghi", "abc123def456ghi", "tokens|credentials"},
	{"bearer in text", "sent Bearer abc123def456ghi to us", "abc123def456ghi", "tokens"},
	{"bearer encoded", "h=Bearer%20abc123def456ghi", "abc123def456ghi", "tokens"},
	{"basic", "h=Basic YWxpY2U6aHVudGVyMg==", "YWxpY2U6aHVudGVyMg", "credentials"},
	{"cookie header", "Cookie: a=b; sid=verysecret; c=d", "verysecret", "credentials"},
	{"aws key", "id AKIAIOSFODNN7EXAMPLE there", "AKIAIOSFODNN7EXAMPLE", "credentials"},
	{"aws signature", "X-Amz-Signature=fe5f80f77d5fa3beca038a248ff027d0", "fe5f80f77d5fa3beca038a248ff027d0", "tokens"},
	{"github token", "t ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "tokens"},
	{"json", `body {"user":"bob","password":"hun\"ter2","n":1}`, "ter2", "credentials"},
	{"json encoded", `q=%7B%22password%22%3A%22hunter2%22%7D`, "hunter2", "credentials"},
	{"userinfo", "https://alice:hunter2@db.example.com/x", "hunter2", "credentials"},
	{"userinfo encoded", "u=https%3A%2F%2Falice%3Ahunter2%40db.example.com", "hunter2", "credentials"},
	{"visa", "card 4111111111111111 was used", "4111111111111111", "card_numbers"},
	{"visa grouped", "n=4111 1111 1111 1111", "1111 1111", "card_numbers"},
	{"visa dashes", "n=4111-1111-1111-1111", "1111-1111", "card_numbers"},
	{"visa plus", "n=4111+1111+1111+1111&x=1", "1111+1111", "card_numbers"},
	{"visa encoded", "n=4111%201111%201111%201111", "1111%201111", "card_numbers"},
	{"visa dash encoded", "n=4111%2D1111%2D1111%2D1111", "1111%2D1111", "card_numbers"},
	{"amex", "371449635398431", "371449635398431", "card_numbers"},
	{"mastercard 2", "x 2223003122003222.", "2223003122003222", "card_numbers"},
	{"cvv", "cvv=123&x=1", "=123", "card_numbers"},
	{"ssn", "my ssn 078-05-1120 ok", "078-05-1120", "ssn"},
	{"ssn parameter", "ssn=078051120", "078051120", "ssn"},
	{"ssn encoded", "v=078%2D05%2D1120", "05%2D1120", "ssn"},
	{"found by a WAF", "Matched Data: s&1 found within ARGS:password: hunter2' or 1=1 x9", "or 1=1 x9", "credentials"},
	{"found by a WAF in JSON", "Matched Data: a found within ARGS:json.user.password: hunter2", "hunter2", "credentials"},
	{"found by a WAF in a cookie", "Matched Data: a found within REQUEST_COOKIES:lang: hunter2", "hunter2", "credentials"},
	{"found by a WAF in a header", "found within REQUEST_HEADERS:X-Api-Key: hunter2 x", "hunter2 x", "credentials"},
	{"header list", `"cookie":["a=1","sid=hunter2"],"host":["x"]`, "hunter2", "credentials"},
	{"header list cut", `"cookie":["a=1","sid=hunter2`, "hunter2", "credentials"},
	{"object", `"credentials": {"x":["}","hunter2"]}`, "hunter2", "credentials"},
	{"private key", "-----BEGIN RSA PRIVATE KEY-----\nMIIEabc\n-----END RSA PRIVATE KEY-----", "MIIEabc", "credentials"},
}

// mask runs the way intake does: scan, gate, line.
func mask(t *testing.T, r *Rules, line string) string {
	t.Helper()
	var h schemas.Head
	if p := schemas.Scan([]byte(line), 1795309107123, &h); p != nil {
		t.Fatalf("not an event: %v: %s", p, line)
	}
	if !r.Wants([]byte(line), h.Look) {
		return line
	}
	out, changed := r.Line(nil, []byte(line))
	if !changed {
		return line
	}
	if p := schemas.Scan(out, 1795309107123, &h); p != nil {
		t.Fatalf("masking broke the event: %v\n%s", p, out)
	}
	again, changed := r.Line(nil, out)
	if changed {
		t.Errorf("masking again changed it:\n%.500s\n%.500s", out, again)
	}
	return string(out)
}

func TestPlantedSecretsAreMaskedEverywhere(t *testing.T) {
	places := map[string]func(string) string{
		"http_query":    func(s string) string { return `"http_query":` + quote(s) },
		"user_agent":    func(s string) string { return `"user_agent":` + quote(s) },
		"http_referrer": func(s string) string { return `"http_referrer":` + quote(s) },
		"unknown":       func(s string) string { return `"note":` + quote(s) },
		"matches":       func(s string) string { return `"matches":[{"rule_id":"1","data":` + quote(s) + `}]` },
		"meta.unmapped": func(s string) string { return `"meta":{"unmapped":{"deep":[{"note":` + quote(s) + `}]}}` },
		"audit":         func(s string) string { return `"audit":{"actor":"bob","change":` + quote(s) + `}` },
	}
	for _, p := range planted {
		for place, put := range places {
			out := mask(t, nil, event(put(p.text)))
			if strings.Contains(out, p.secret) {
				t.Errorf("%s in %s: the secret is still there: %s", p.name, place, out)
			}
			if !strings.Contains(out, Mask) || !strings.Contains(out, `"redactions":["`) {
				t.Errorf("%s in %s: not named: %s", p.name, place, out)
			}
			named := false
			for g := range strings.SplitSeq(p.group, "|") {
				named = named || strings.Contains(out, ":"+g)
			}
			if !named {
				t.Errorf("%s in %s: meta.redactions does not say %s: %s", p.name, place, p.group, out)
			}
		}
		for _, raw := range []string{p.text, `{"broken":"` + p.text, `{"q":` + quote(p.text) + `}`} {
			out, found := (*Rules)(nil).Record(nil, []byte(raw))
			if strings.Contains(string(out), p.secret) || len(found) == 0 {
				t.Errorf("%s as a raw record %s: %s (%v)", p.name, raw, out, found)
			}
		}
	}
}

func TestMembersNamedLikeSecretsAreMasked(t *testing.T) {
	for in, secret := range map[string]string{
		`"password":"hunter2"`:                                           "hunter2",
		`"Authorization":"Negotiate abc"`:                                "Negotiate",
		`"pass\u0077ord":"hunter2"`:                                      "hunter2",
		`"meta":{"unmapped":{"apiKey":"k1k1k1"}}`:                        "k1k1k1",
		`"meta":{"unmapped":{"token":12345678}}`:                         "12345678",
		`"meta":{"unmapped":{"credentials":{"x":"zzz9"}}}`:               "zzz9",
		`"meta":{"unmapped":{"h":[{"name":"Cookie","value":"a=zzz9"}]}}`: "zzz9",
		`"net":{"payload_b64":"cGFzc3dvcmQ9aHVudGVyMg=="}`:               "aHVudGVyMg",
	} {
		out := mask(t, nil, event(in))
		if strings.Contains(out, secret) {
			t.Errorf("%s: still there: %s", in, out)
		}
	}
}

func TestWhatIsNoSecretIsLeftAlone(t *testing.T) {
	for _, in := range []string{
		`"request_id":"4111111111111111","session_id":"4111111111111111","correlation_id":"078-05-1120","rule_id":"378282246310005"`,
		`"client_ip":"203.0.113.7","forwarded_for":"203.0.113.7, 2001:db8:85a3::8a2e:370:7334","net":{"dst_ip":"10.1.2.3","dst_port":443}`,
		`"client_fp":"h_5376b894b345ad","tls_ja3":"e7d705a3286e19ea42f587b344ee6865","tls_ja4":"t13d1516h2_8daaf6152771_02713d6af862"`,
		`"bytes_out":4111111111111111,"score_raw":4111111111111111`,
		`"http_query":"id=1&page=2&user=alice&username=bob&email=a%40b.example&ts=1795309107123&uuid=0d094cdd-42ca-4909-b7ef-4ca9d106c307"`,
		`"http_query":"order=4111111111111112&phone=020-7946-0958&ref=12345678-4111-1111-1111-111111111111"`,
		`"http_query":"t=1795309107.4111111111111111&v=0.4111111111111111"`,
		`"http_path":"/orders/01JD9X3T5V7Q2M4N6P8R0S1T2V/2026-11-22/000-12-3456/987-65-4320"`,
		`"user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"`,
		`"trace_id":"4111111111111111","meta":{"unmapped":{"flow_id":"4111111111111111","src_ip":"1.2.3.4","signature":"ET SCAN"}}`,
		`"meta":{"labels":["awswaf:managed:token:absent"],"raw_sha256":"4111111111111111411111111111111141111111111111114111111111111111"}`,
		`"reason":"TOKEN_MISSING","rule_name":"Password spraying","rule_category":"CredentialAccess"`,
		`"meta":{"unmapped":{"token":null,"password":"","secret":true}}`,
	} {
		line := event(in)
		out, changed := (*Rules)(nil).Line(nil, []byte(line))
		if changed {
			t.Errorf("changed:\n%s\n%s", line, out)
		}
	}
}

func TestRedactionsAreNamedWhereMetaIs(t *testing.T) {
	q := `"http_query":"password=x1y2z3"`
	for in, want := range map[string]string{
		q:                                  `"meta":{"redactions":["http_query:credentials"]}}`,
		`"meta":{},` + q:                   `"meta":{"redactions":["http_query:credentials"]},`,
		`"meta":null,` + q:                 `"meta":{"redactions":["http_query:credentials"]},`,
		`"meta":{"labels":["a"]},` + q:     `"meta":{"redactions":["http_query:credentials"],"labels":["a"]},`,
		`"meta":{"redactions":["x"]},` + q: `"meta":{"redactions":["x","http_query:credentials"]},`,
		`"meta":{"redactions":[]},` + q:    `"meta":{"redactions":["http_query:credentials"]},`,
		`"meta":{"redactions":null},` + q:  `"meta":{"redactions":["http_query:credentials"]},`,
		`"meta":{"unmapped":{"redactions":[1]}},` + q: `"meta":{"redactions":["http_query:credentials"],"unmapped":`,
	} {
		out := mask(t, nil, event(in))
		if !strings.Contains(out, want) || !json.Valid([]byte(out)) {
			t.Errorf("%s:\n got %s\nwant %s", in, out, want)
		}
	}
}

func TestOwnRules(t *testing.T) {
	r, err := Compile(Spec{QueryParams: []string{"Session"}, Fields: []string{"http_referrer", "client_port", "meta.unmapped.note"}, Patterns: []string{`EMP-\d{4}`}})
	if err != nil {
		t.Fatal(err)
	}
	out := mask(t, r, event(`"http_query":"session=abc&id=EMP-1234","http_referrer":"https://x.example/","client_port":443,"meta":{"unmapped":{"note":"n1","keep":"n2"}}`))
	for _, gone := range []string{"abc", "EMP-1234", "x.example", "443", `"n1"`} {
		if strings.Contains(out, gone) {
			t.Errorf("%s is still there: %s", gone, out)
		}
	}
	for _, want := range []string{`"client_port":null`, `"http_referrer":"[redacted]"`, `"keep":"n2"`, "http_query:query_params", "http_query:patterns", "http_referrer:fields"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s: %s", want, out)
		}
	}
	params, err := Compile(Spec{QueryParams: []string{"session"}})
	if err != nil {
		t.Fatal(err)
	}
	if out := mask(t, params, event(`"matches":[{"data":"Matched Data: a found within ARGS:Session: abc def"}]`)); strings.Contains(out, "abc") || strings.Contains(out, "def") || !strings.Contains(out, "matches.data:query_params") {
		t.Errorf("found by a WAF in a tenant's own parameter: %s", out)
	}
	off, err := Compile(Spec{Builtin: []string{"ssn"}})
	if err != nil {
		t.Fatal(err)
	}
	if out := mask(t, off, event(`"http_query":"password=x&s=078-05-1120"`)); !strings.Contains(out, "password=x") || strings.Contains(out, "1120") {
		t.Errorf("only ssn is on: %s", out)
	}
	if r, err := Compile(Spec{Builtin: []string{}}); err != nil || mask(t, r, event(`"http_query":"password=x"`)) != event(`"http_query":"password=x"`) {
		t.Errorf("nothing is on, yet: %v", err)
	}
}

func TestCompileNamesEveryMistake(t *testing.T) {
	_, err := Compile(Spec{Builtin: []string{"cards"}, QueryParams: []string{"a=b"}, Fields: []string{"event_id"}, Patterns: []string{"(", "a*", strings.Repeat("x", MaxPattern+1)}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"cards", "a=b", "event_id", `"("`, "empty text", "at most 512"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in: %v", want, err)
		}
	}
}

func TestLongTextIsSearchedToItsEnd(t *testing.T) {
	for _, fill := range []string{"x", "é", `"`, "a,b ", "%41"} {
		long := strings.Repeat(fill, 80_000/len(fill))
		out := mask(t, nil, event(`"note":`+quote(long+" &password=hunter2")))
		if strings.Contains(out, "hunter2") {
			t.Errorf("%q: the secret behind %d bytes is still there", fill, len(long))
		}
		out = mask(t, nil, event(`"note":`+quote("password="+long)))
		if !json.Valid([]byte(out)) {
			t.Errorf("%q: a long secret broke the line", fill)
		}
	}
}

// A text made to be slow to search must not be: each of these takes minutes
// with a search that starts anew at every word.
func TestHostileTextsTakeNoLonger(t *testing.T) {
	for _, unit := range []string{"A-", "eyJ-", "eyJa.", "password:", "password=\\\"", "name:\\\"", `name:"cookie",value:`, "Basic+", "Bearer+", "sk-", "://a:", "1 ",
		"1111-", "-----BEGIN PRIVATE KEY", "%25", "token%3D", "\\", "a[b]=", "ssn="} {
		text := strings.Repeat(unit, 60_000/len(unit))
		start := time.Now()
		(*Rules)(nil).Record(nil, []byte(text))
		(*Rules)(nil).Line(nil, []byte(event(`"note":`+quote(text))))
		took := time.Since(start)
		if took > 3*time.Second {
			t.Errorf("%q: %v", unit, took)
		}
	}
}

func FuzzLine(f *testing.F) {
	for _, p := range planted {
		f.Add(p.text)
		f.Add(url.QueryEscape(p.text))
	}
	f.Add("\\u0022\\\\\" password:\\")
	f.Fuzz(func(t *testing.T, text string) {
		line := event(`"http_query":` + quote(text) + `,"x":{"note":` + quote(text) + `}`)
		out, changed := (*Rules)(nil).Line(nil, []byte(line))
		if !changed {
			return
		}
		var h schemas.Head
		if p := schemas.Scan(out, 1795309107123, &h); p != nil {
			t.Fatalf("broke the event: %v\n%s\n%s", p, line, out)
		}
		raw, _ := (*Rules)(nil).Record(nil, []byte(text))
		if len(raw) > 16*(len(text)+16) {
			t.Fatalf("%d bytes became %d", len(text), len(raw))
		}
	})
}

// slipped are texts that the gate once let pass.
var slipped = []string{"user 5Bpassword%5B%3Dhunter2%26user%5D", "pAss %3A0", "pAss\xff%3A0", ".BeArer%20000000A0", "%pAss%3A0", "%3A%2F%2F%3A0@", "user%5Bpassword%5D%3Dx", "sent+Bearer+abc123def456ghi", "\x92CvC%3A0", "pAsswo%2Drd%3A0", "pass%5Dword%3D0", ".001-01-0010", "my ssn 078-05-1120.", "v1.2 078-05-1120", "078-05-1120 1.2", "a\nauth%3Dx", "a\nauth=x", `a\auth%3Dx`, "é\u2028pwd%3Ax", "user%5Bpassword%5DD%3Dhunter2", "uus5Bpassword%5DD%3Dhun", "id_078-05-1120", "my+ssn^_+078-05-1120+o2", "\xa6\xaapAss %3A0"}

// FuzzGate holds the cheap gate to the full search: it may never say no where
// there is something to mask.
func FuzzGate(f *testing.F) {
	for _, s := range slipped {
		f.Add(s)
	}
	for _, p := range planted {
		f.Add(p.text)
		f.Add(url.QueryEscape(p.text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		line := []byte(event(`"http_query":` + quote(text) + `,"net":{"payload_b64":` + quote(base64.StdEncoding.EncodeToString([]byte(text))) + `},"x":[{"note":` + quote(text) + `}]`))
		if len(text)%2 == 0 {
			line = []byte(event(`"http_referrer":` + quote(text) + `,"x":[{"note":` + quote(text) + `}]`))
		}
		var h schemas.Head
		if schemas.Scan(line, 1795309107123, &h) != nil {
			return
		}
		if (*Rules)(nil).Wants(line, h.Look) {
			return
		}
		if out, changed := (*Rules)(nil).Line(nil, line); changed {
			t.Fatalf("the gate let this pass:\n%s\n%s", line, out)
		}
	})
}

const plainEvent = `"request_id":"5f0c6d2e9a7b4c31","correlation_id":"a8c1","client_ip":"203.0.113.7","client_country":"GB","client_asn":64500,` +
	`"user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0","http_method":"GET","http_host":"shop.example.com",` +
	`"http_path":"/products/42","http_query":"id=1&colour=red&page=2","http_referrer":"https://www.example.org/list","http_status":403,` +
	`"bytes_out":324,"duration_ms":12.5,"match_on":"ip","action_raw":"ip_blocked"`

func BenchmarkWantsNothing(b *testing.B) {
	line := []byte(event(plainEvent))
	var h schemas.Head
	if p := schemas.Scan(line, 1795309107123, &h); p != nil {
		b.Fatal(p)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		if (*Rules)(nil).Wants(line, h.Look) {
			b.Fatal("nothing to redact here")
		}
	}
}

func BenchmarkLineNothingFound(b *testing.B) {
	line := []byte(event(plainEvent))
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = (*Rules)(nil).Line(dst[:0], line)
	}
}

func BenchmarkLineOneSecret(b *testing.B) {
	line := []byte(event(plainEvent + `,"x":"password=hunter2"`))
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = (*Rules)(nil).Line(dst[:0], line)
	}
}
