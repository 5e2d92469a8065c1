package schemas

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestValues(t *testing.T) {
	cases := []struct {
		name, body string
		want       []string // "!" and the beginning of the reason for an error
	}{
		{"empty", "", nil},
		{"blank", " \n\r\n", nil},
		{"object", `{"a":1}`, []string{`{"a":1}`}},
		{"object over lines", "{\n \"a\":1\n}\n", []string{"{\n \"a\":1\n}"}},
		{"array", `[{"a":1},{"a":2} , 3]`, []string{`{"a":1}`, `{"a":2}`, "3"}},
		{"array over lines", "\n[\n{\"a\":1},\n{\"a\":2}\n]\n", []string{`{"a":1}`, `{"a":2}`}},
		{"empty array", " [ ] ", nil},
		{"nested array", `[[1],[2]]`, []string{"[1]", "[2]"}},
		{"lines", "{\"a\":1}\n\n{\"a\":2}\r\n{\"a\":3}", []string{`{"a":1}`, `{"a":2}`, `{"a":3}`}},
		{"arrays by line", "[1,2]\n[3]\n", []string{"1", "2", "3"}},
		{"broken line", "{\"a\":1}\n{\"a\":\n{\"a\":3}\n", []string{`{"a":1}`, "!not JSON: ends early", `{"a":3}`}},
		{"two values in a line", "{\"a\":1}\n{}{}\n{\"a\":3}\n", []string{`{"a":1}`, "!not JSON: more text behind the value", `{"a":3}`}},
		{"broken array", `[{"a":1},{"a":2},{"a":}, {"a":4}]`, []string{`{"a":1}`, `{"a":2}`, "!not JSON: a JSON value expected at byte 22"}},
		{"array cut short", `[{"a":1},{"a":2}`, []string{`{"a":1}`, `{"a":2}`, "!not JSON: ends early"}},
		{"array cut after a comma", `[{"a":1},`, []string{`{"a":1}`, "!not JSON: ends early"}},
		{"more behind an array", `[{"a":1}] x`, []string{`{"a":1}`, "!not JSON: more text behind"}},
		{"broken first line is one value", "{\"a\":\n{\"a\":2}\n", []string{"!not JSON: ends early"}},
		{"no JSON", "hello\nworld", []string{"!not JSON"}},
		{"invalid UTF-8 in a line", "{}\n\"\xff\"\n{}", []string{"{}", "!not JSON: invalid UTF-8", "{}"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for v, err := range Values([]byte(c.body)) {
				if err != nil {
					got = append(got, "!"+err.Error())
				} else {
					got = append(got, string(v))
				}
			}
			ok := len(got) == len(c.want)
			for i := range min(len(got), len(c.want)) {
				ok = ok && (got[i] == c.want[i] || c.want[i][0] == '!' && strings.HasPrefix(got[i], c.want[i]))
			}
			if !ok {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestValuesStopsWhenAsked(t *testing.T) {
	for _, body := range []string{"[1,2,3]", "1\n2\n3"} {
		n := 0
		for range Values([]byte(body)) {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%s: %d values", body, n)
		}
	}
}

const none = Look(0)

// looks are members with what the scanner should notice in them.
var looks = []struct {
	member string
	want   Look // bits that must be set; 0: no bit may be
}{
	{`"user_agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"`, none},
	{`"http_path":"/products/1842/reviews"`, none},
	{`"http_referrer":"https://shop.example.com/a"`, none},
	{`"forwarded_for":"203.0.113.245, 198.51.100.7"`, none},
	{`"duration_ms":1795309107123.25`, none},
	{`"event_id":"4111111111111111"`, none}, // opaque
	{`"meta":{"labels":["bot","awswaf:managed:sqli"]}`, none},
	{`"agg":{"count":3}`, none},
	{`"http_query":"page=2"`, LookParam},
	{`"http_query":"page=2&access_token=abc"`, LookParam | LookSecret},
	{`"http_query":"PassWord=abc"`, LookParam | LookSecret},
	{`"http_query":"a\u003db"`, LookParam | LookSecret | LookDigits},
	{`"reason":"Authorization: x"`, LookSecret},
	{`"reason":"pass_word = x"`, LookSecret | LookParam},
	{`"reason":"{\\\"api-key\\\" : 1}"`, LookSecret},
	{`"reason":"{\"name\":\"Cookie\",\"value\":1}"`, LookSecret},
	{`"reason":"X-CSRF: 1"`, LookSecret},
	{`"reason":"c.v.v: 1"`, LookSecret},
	{`"reason":"sk-abcdefgh"`, LookSecret},
	{`"reason":"glpat-abcdefgh"`, LookSecret},
	{`"http_query":"a=Bearer+abc"`, LookSecret | LookEncoded},
	{`"http_query":"a%3Db"`, LookEncoded},
	{`"http_referrer":"https:\/\/bob:pw@example.com\/"`, LookSecret},
	{`"net":{"payload_b64":"AAAA"}`, LookEncoded},
	{`"reason":"used Bearer abc.def"`, LookSecret},
	{`"reason":"{\"api_key\": 1}"`, LookSecret},
	{`"http_referrer":"https://bob:pw@example.com/"`, LookSecret},
	{`"x":"eyJhbGciOiJIUzI1NiJ9.e30.abc"`, LookSecret},
	{`"session_id":"eyJhbGciOiJIUzI1NiJ9.e30.abc"`, LookSecret},
	{`"rule_name":"AKIAIOSFODNN7EXAMPLE"`, LookSecret},
	{`"rule_name":"a ghp_16C7e42F292c6912E7"`, LookSecret},
	{`"rule_name":"-----BEGIN PRIVATE KEY-----"`, LookSecret},
	{`"rule_name":"xoxb-1-2"`, LookSecret},
	{`"x":{"headers":{"Authorization":"abc"}}`, LookSecret},
	{`"x":{"headers":[{"name":"cookie","value":"a"}]}`, LookSecret},
	{`"x_api_key":"abc"`, LookSecret},
	{`"http_query":"c=4111111111111111"`, LookParam | LookDigits},
	{`"reason":"card 4111 1111 1111 1111"`, LookDigits},
	{`"reason":"card 4111-1111-1111-1111."`, LookDigits},
	{`"reason":"card 4111.1111.1111.1111"`, LookDigits},
	{`"http_query":"4111+1111+1111+1111"`, LookDigits},
	{`"reason":"ssn 078-05-1120"`, LookDigits},
	{`"reason":"078051120"`, LookDigits},
	{`"reason":"78051120"`, none},
	{`"x":4111111111111111`, LookDigits},
	{`"x":{"y":[4111111111111111]}`, LookDigits},
	{`"x":["078-05-1120"]`, LookDigits},
}

func TestLook(t *testing.T) {
	for _, c := range looks {
		for pad := range 9 { // wherever it lies, also near the end of the line
			for _, line := range []string{
				with(strings.Replace(c.member, `":"`, `":"`+strings.Repeat("~", pad), 1)),
				minimal[:len(minimal)-1] + strings.Repeat(" ", pad) + "," + c.member + "}",
			} {
				var h Head
				if p := Scan([]byte(line), sampleNow, &h); p != nil {
					t.Fatalf("%v: %s", p, line)
				}
				if c.want == none && h.Look != none || h.Look&c.want != c.want {
					t.Errorf("%s: look %03b, want %03b", c.member, h.Look, c.want)
				}
			}
		}
	}
}

// TestLookFindsDigitsAnywhere moves a short run of digits over all places of a string.
func TestLookFindsDigitsAnywhere(t *testing.T) {
	for before := range 24 {
		for after := range 12 {
			s := strings.Repeat("a", before) + "078-05-1120" + strings.Repeat("b", after)
			plain := strings.Replace(s, "-", "", 2)
			for _, text := range []string{s, plain} {
				var h Head
				if p := Scan([]byte(with(`"reason":"`+text+`"`)), sampleNow, &h); p != nil || h.Look&LookDigits == 0 {
					t.Fatalf("%v: not seen in %s", p, text)
				}
			}
		}
	}
}

func TestAppendString(t *testing.T) {
	for in, want := range map[string]string{
		"":                 `""`,
		"plain":            `"plain"`,
		"a\"b\\c/d":        `"a\"b\\c/d"`,
		"\n\r\t\b\x00\x1f": `"\n\r\t\u0008\u0000\u001f"`,
		"é😀<>&\x7f":        "\"é😀<>&\x7f\"",
		"\u2028a\u2029":    `"\u2028a\u2029"`,
		"a\xffb\xc3":       "\"a\ufffdb\ufffd\"",
		"\xed\xa0\x80":     "\"\ufffd\ufffd\ufffd\"",
		"\ufffd":           "\"\ufffd\"",
	} {
		if got := AppendString(nil, in); string(got) != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
		if got := AppendString(nil, []byte(in)); string(got) != want {
			t.Errorf("%q as bytes: got %s, want %s", in, got, want)
		}
	}
}

// TestAppendJSONGolden shows the shape that adapters write.
func TestAppendJSONGolden(t *testing.T) {
	e := Event{Schema: Version, EventID: "i", TenantID: "acme", Source: "s", Kind: "alert", EventTime: 5, Severity: 2, UserAgent: "a\nb",
		ClientPort: Int{V: 80, OK: true}, Score: Float{V: 1e-9, OK: true}, ScoreRaw: Float{OK: true}, Tactics: []string{"x", "y"},
		Matches: []Match{{RuleID: "1", Blocking: Bool{OK: true}}, {}}, Net: Net{OK: true}, Agg: Agg{OK: true, FirstSeen: Int{V: 3, OK: true}},
		Meta: Meta{OK: true, Unmapped: `{ "k": "v w" }`}, Extra: ` {"z": [1, 2]} `}
	const want = `{"schema":"mitigation/1","event_id":"i","tenant_id":"acme","source":"s","kind":"alert","event_time":5,"enforced":false,` +
		`"matches":[{"rule_id":"1","blocking":false},{}],"score":1e-09,"score_raw":0,"severity":2,"tactics":["x","y"],"client_port":80,` +
		`"user_agent":"a\nb","net":{},"agg":{"first_seen":3},"meta":{"unmapped":{"k":"v w"}},"z":[1,2]}`
	if got := AppendJSON([]byte("> "), &e); string(got) != "> "+want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestSampleIsCanonical(t *testing.T) {
	var e Event
	if err := Decode(sample, &e); err != nil {
		t.Fatal(err)
	}
	if got := AppendJSON(nil, &e); string(got) != string(sample) {
		t.Errorf("got  %s\nwant %s", got, sample)
	}
}

func TestValue(t *testing.T) {
	var e Event
	line := with(`"tactics":["a"],"score":2.5,"http_status":403,"client_country":"GB","net":{"dst_ip":"192.0.2.1"}`)
	if err := Decode([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"source": "s", "kind": "alert", "event_time": int64(1795309107123), "enforced": false, "severity": int64(3), "score": 2.5,
		"http_status": int64(403), "client_country": "GB", "tactics": []string{"a"}, "ingest_time": nil, "user_agent": nil,
		"score_raw": nil, "bytes_in": nil, "techniques": nil, "net": nil, "matches": nil, "no_such_field": nil, "a_name_longer_than_any": nil,
	} {
		if got := e.Value(name); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %#v, want %#v", name, got, want)
		}
	}
	for _, f := range Fields() {
		if lookup(f.Name) < 0 {
			t.Errorf("%s is not found", f.Name)
		}
	}
}

func TestKinds(t *testing.T) {
	for k := range KindCount {
		back, ok := ParseKind(k.String())
		if !ok || back != k || !AllKinds.Has(k) || DefaultKinds.Has(k) != (k != KindRequest) {
			t.Errorf("kind %d (%s)", k, k)
		}
	}
	if _, ok := ParseKind("Alert"); ok || KindCount.String() != "unknown" || fmt.Sprint(KindAudit) != "audit" {
		t.Error("unknown kinds")
	}
	var v map[string]any
	if err := json.Unmarshal(JSONSchema(), &v); err != nil || v["title"] == nil {
		t.Errorf("JSON Schema: %v", err)
	}
}
