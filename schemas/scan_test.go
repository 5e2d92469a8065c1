package schemas

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const minimal = `{"source":"s","kind":"alert","event_time":1795309107123,"time_precision":"ms","action":"log","disposition":"detected","enforced":false,"severity":3}`

// with puts a member into the minimal event, in place of the one it has.
func with(member string) string {
	key := member[:strings.Index(member, ":")+1]
	if from := strings.Index(minimal, key); from >= 0 {
		to := from + strings.IndexAny(minimal[from:], ",}")
		return minimal[:from] + member + minimal[to:]
	}
	return "{" + member + "," + minimal[1:]
}

func without(key string) string {
	from := strings.Index(minimal, `"`+key+`"`)
	to := from + strings.IndexAny(minimal[from:], ",}")
	out := minimal[:from] + minimal[to:]
	return strings.NewReplacer("{,", "{", ",,", ",", ",}", "}").Replace(out)
}

var deep = strings.Repeat("[", 10000) + strings.Repeat("]", 10000)

// refused are bad lines, with the field and the beginning of the reason.
var refused = []struct {
	name, line, field, reason string
}{
	{"empty", "", "", "not JSON: ends early: a JSON object expected at byte 0"},
	{"array", "[" + minimal + "]", "", "an event is a JSON object"},
	{"cut", minimal[:60], "", "not JSON: ends"},
	{"two values", minimal + minimal, "", "not JSON: more text behind the value"},
	{"NaN", with(`"score":NaN`), "", "not JSON: a JSON value expected"},
	{"NaN in a required field", with(`"severity":NaN`), "", "not JSON: a JSON value expected"},
	{"comment", strings.Replace(minimal, ",", "/**/,", 1), "", "not JSON"},
	{"trailing comma", strings.Replace(minimal, "}", ",}", 1), "", "not JSON: a key expected"},
	{"10 MB", with(`"x":"` + strings.Repeat("a", 10<<20) + `"`), "", "event is 10241 KiB: more than 256 KiB"},
	{"depth 10000", with(`"x":` + deep), "", "not JSON: nested deeper than 128"},
	{"bad UTF-8", with("\"x\":\"a\xffb\""), "", "not JSON: invalid UTF-8 in a string"},
	{"bad UTF-8 in a known key's place", strings.Replace(minimal, "source", "sourc\xe9", 1), "", "not JSON: invalid UTF-8"},
	{"overlong UTF-8", with("\"x\":\"\xc0\xaf\""), "", "not JSON: invalid UTF-8 in a string"},
	{"raw surrogate", with("\"x\":\"\xed\xa0\x80\""), "", "not JSON: invalid UTF-8 in a string"},
	{"raw newline", with("\"x\":\"a\nb\""), "", "not JSON: raw newline in a string"},
	{"raw newline in an enum", with("\"action\":\"lo\ng\""), "", "not JSON: raw newline in a string"},
	{"raw NUL", with("\"x\":\"a\x00b\""), "", "not JSON: raw control character in a string"},
	{"raw tab", with("\"user_agent\":\"a\tb\""), "", "not JSON: raw control character in a string"},
	{"bad escape", with(`"x":"\x41"`), "", "not JSON: bad escape in a string"},
	{"bad number", with(`"x":01`), "", "not JSON: ',' or '}' expected"},
	{"duplicate known key", with(`"http_path":"/a","http_path":"/b"`), "http_path", "http_path is given twice"},
	{"duplicate unknown key", with(`"x":1,"x":2`), "x", `"x" is given twice`},
	{"duplicate by escape", with(`"x":1,"\u0078":2`), "x", `"x" is given twice`},
	{"duplicate known by escape", with(`"\u0073ource":"b"`), "source", "source is given twice"},
	{"duplicate among many", with(many(40) + `"k39":0`), "k39", `"k39" is given twice`},
	{"missing source", without("source"), "source", "source is missing"},
	{"missing kind", without("kind"), "kind", "kind is missing"},
	{"missing event_time", without("event_time"), "event_time", "event_time is missing"},
	{"missing time_precision", without("time_precision"), "time_precision", "time_precision is missing"},
	{"missing action", without("action"), "action", "action is missing"},
	{"missing disposition", without("disposition"), "disposition", "disposition is missing"},
	{"missing enforced", without("enforced"), "enforced", "enforced is missing"},
	{"missing severity", without("severity"), "severity", "severity is missing"},
	{"empty object", "{}", "source", "source is missing"},
	{"null source", with(`"source":null`), "source", "source is \"null\": not a string"},
	{"empty source", with(`"source":""`), "source", "source is empty"},
	{"null tenant", with(`"tenant_id":null`), "tenant_id", "tenant_id is \"null\": not a string"},
	{"empty id", with(`"event_id":""`), "event_id", "event_id is empty"},
	{"number for id", with(`"event_id":17`), "event_id", "event_id is \"17\": not a string"},
	{"text severity", with(`"severity":"3"`), "severity", `severity is "\"3\"": not a whole number from 0 to 5`},
	{"severity 6", with(`"severity":6`), "severity", `severity is "6": not a whole number from 0 to 5`},
	{"severity 33", with(`"severity":33`), "severity", `severity is "33": not a whole number from 0 to 5`},
	{"severity 3.5", with(`"severity":3.5`), "severity", "severity is"},
	{"severity -1", with(`"severity":-1`), "severity", "severity is"},
	{"text enforced", with(`"enforced":"true"`), "enforced", "enforced is"},
	{"text time", with(`"event_time":"2026-01-01"`), "event_time", "event_time is"},
	{"fractional time", with(`"event_time":1795309107123.5`), "event_time", "event_time is"},
	{"exponent time", with(`"event_time":1e12`), "event_time", "event_time is"},
	{"huge time", with(`"event_time":99999999999999999999`), "event_time", "event_time is"},
	{"time in seconds", with(`"event_time":1795309107`), "event_time", "event_time is 21 Jan 1970: before 2000"},
	{"100 years ahead", with(`"event_time":4950982800000`), "event_time", "event_time is 22 Nov 2126: more than 24 h ahead"},
	{"text ingest_time", with(`"ingest_time":"now"`), "ingest_time", "ingest_time is"},
	{"unknown action", with(`"action":"nuke"`), "action", `action is "nuke": not one of none block captcha`},
	{"unknown mode", with(`"mode":"fast"`), "mode", `mode is "fast": not one of mitigate`},
	{"number for mode", with(`"mode":1`), "mode", `mode is "1": not a string`},
	{"unknown match_on", with(`"match_on":"shoe"`), "match_on", "match_on is"},
	{"unknown score_kind", with(`"score_kind":"x"`), "score_kind", "score_kind is"},
	{"unknown session_state", with(`"session_state":"x"`), "session_state", "session_state is"},
	{"upper case kind", with(`"kind":"ALERT"`), "kind", `kind is "ALERT": not one of mitigation match alert audit request`},
	{"other schema", with(`"schema":"mitigation/2"`), "schema", `schema is "mitigation/2": not one of mitigation/1`},
}

func TestScanRefuses(t *testing.T) {
	for _, c := range refused {
		t.Run(c.name, func(t *testing.T) {
			var h Head
			p := Scan([]byte(c.line), sampleNow, &h)
			if p == nil {
				t.Fatalf("passed: %.300s", c.line)
			}
			if p.Field != c.field || !strings.HasPrefix(p.Reason, c.reason) || len(p.Reason) > 250 {
				t.Errorf("got field %q, %q\nwant %q, %q", p.Field, p.Reason, c.field, c.reason)
			}
		})
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"k%d":%d,`, i, i)
	}
	return b.String()
}

func TestScanAccepts(t *testing.T) {
	for _, line := range []string{
		minimal,
		with(`"mode":null`),
		with(`"http_path":null`),
		with(`"http_path":{"not":"text"}`), // wrong types of optional fields are Decode's Extra
		with(`"client_port":"80"`),
		with(`"ACTION":"upper case is another key"`),
		with(`"x":"\ud800 alone"`),
		with(`"x":"a\u0000b"`),
		with("\"x\":\"a\u2028b\""),
		with(`"action":"l\u006fg"`),
		with(many(40) + `"k40":0`),
		with(`"x":` + strings.Repeat("[", MaxDepth-1) + strings.Repeat("]", MaxDepth-1)),
		with(fmt.Sprintf(`"event_time":%d`, int64(sampleNow+Ahead))),
		with(`"event_time":946684800000`),
		" \t\r\n" + minimal + "\n",
		with(`"x":"` + strings.Repeat("a", MaxEvent-len(minimal)-len(`"x":"",`)) + `"`),
	} {
		var h Head
		if p := Scan([]byte(line), sampleNow, &h); p != nil {
			t.Errorf("%v\n%.300s", p, line)
		}
	}
}

func TestHead(t *testing.T) {
	line := []byte(`{"tenant_id":"acme","event_id":"a\u002f1","ingest_time":1795309107999,` + minimal[1:])
	var h Head
	if p := Scan(line, sampleNow, &h); p != nil {
		t.Fatal(p)
	}
	if string(h.Tenant) != "acme" || string(h.ID) != "a/1" || string(h.Source) != "s" || h.IngestTime != 1795309107999 ||
		h.Time != 1795309107123 || h.Kind != KindAlert || h.Severity != 3 || h.Has != HasAll&^HasSchema || !h.Compact {
		t.Errorf("%+v", h)
	}
	// The same Head again keeps nothing of the last event.
	if p := Scan([]byte(minimal), sampleNow, &h); p != nil || h.Tenant != nil || h.ID != nil || h.Has != 0 || h.IngestTime != 0 {
		t.Errorf("%v %+v", p, h)
	}
}

func TestAppendStored(t *testing.T) {
	add := &Additions{ID: "cf:1", Tenant: "acme", IngestTime: 42}
	spread := "\n" + strings.NewReplacer(":", " : ", ",", ",\n\t").Replace(strings.Replace(minimal, `"s"`, "\"a b\u2028\"", 1)) + " "
	for _, c := range []struct{ line, want string }{
		{minimal, `{"schema":"mitigation/1","event_id":"cf:1","tenant_id":"acme","ingest_time":42,` + minimal[1:]},
		{with(`"tenant_id":"beta"`), `{"schema":"mitigation/1","event_id":"cf:1","ingest_time":42,` + with(`"tenant_id":"beta"`)[1:]},
		{string(sample), string(sample)},
		{spread, `{"schema":"mitigation/1","event_id":"cf:1","tenant_id":"acme","ingest_time":42,` + strings.Replace(minimal, `"s"`, `"a b\u2028"`, 1)[1:]},
	} {
		var h Head
		if p := Scan([]byte(c.line), sampleNow, &h); p != nil {
			t.Fatal(p)
		}
		got := AppendStored(nil, []byte(c.line), &h, add)
		if string(got) != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		if p := Scan(got, sampleNow, &h); p != nil || h.Has != HasAll || !h.Compact {
			t.Errorf("stored event: %v %+v", p, h)
		}
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	var h Head
	if n := testing.AllocsPerRun(100, func() { Scan(sample, sampleNow, &h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCheckDepth(t *testing.T) {
	for depth, want := range map[int]bool{1: true, MaxDepth: true, MaxDepth + 1: false, 100000: false} {
		if got := Valid([]byte(strings.Repeat(`[`, depth) + strings.Repeat(`]`, depth))); got != want {
			t.Errorf("depth %d: %v", depth, got)
		}
		if got := Valid([]byte(strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat(`}`, depth))); got != want {
			t.Errorf("objects, depth %d: %v", depth, got)
		}
	}
}

// FuzzScan holds the scanner to encoding/json: a line is JSON for one exactly
// if it is for the other (and valid UTF-8, where encoding/json is lenient).
func FuzzScan(f *testing.F) {
	f.Add(sample)
	f.Add([]byte(minimal))
	for _, value := range []string{`0`, `-0.5e+7`, `01`, `1.`, `.5`, `"\ud83d\ude00"`, `"é\u2028"`, "\"\x00\"", `[1,[2,{}],{"a":null}]`, `tru`, ` [ ] `, `{"a":1,}`,
		`"` + strings.Repeat("a", 30) + `"`, "\"aaaaaaa\x7f\x80\"", `""`, `{"":""}`, `"\u00"`, `nulll`} {
		f.Add([]byte(value))
		f.Add([]byte(with(`"x":` + value)))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		want := json.Valid(line) && utf8.Valid(line)
		if got := Valid(line); got != want && !deeper(line) {
			t.Fatalf("Valid is %v, encoding/json says %v: %q", got, want, line)
		}
		var h Head
		p := Scan(line, sampleNow, &h)
		switch {
		case p == nil && !want:
			t.Fatalf("Scan accepted %q", line)
		case p == nil:
			stored := AppendStored(nil, line, &h, &Additions{ID: "i", Tenant: "t"})
			if !json.Valid(stored) || strings.ContainsAny(string(stored), "\n\r\u2028\u2029") {
				t.Fatalf("stored: %q", stored)
			}
			if at := EventTime(line, &Head{}); at != h.Time {
				t.Fatalf("EventTime is %d, Scan says %d: %q", at, h.Time, line)
			}
			var e Event
			if err := Decode(line, &e); err != nil {
				t.Fatalf("Decode refused what Scan accepted: %v: %q", err, line)
			}
		case strings.HasPrefix(p.Reason, "not JSON") && want && !deeper(line):
			t.Fatalf("Scan: %v, but it is JSON: %q", p, line)
		}
	})
}

// TestEventTime: wherever the key stands, and whatever looks like it.
func TestEventTime(t *testing.T) {
	const at, rest = 1795309107000, `"source":"x","kind":"mitigation","time_precision":"s","action":"block","disposition":"blocked","enforced":true,"severity":3`
	for _, line := range []string{
		`{"event_time":1795309107000,` + rest + `}`,
		`{` + rest + `,"event_time":1795309107000}`,
		`{"user_agent":"\"event_time\":1,","event_time":1795309107000,` + rest + `}`,
		`{"user_agent":",","event_time":1795309107000,` + rest + `}`,
		`{"meta":{"event_time":1},"event_time":1795309107000,` + rest + `}`,
		`{"matches":[],"event_time":1795309107000,` + rest + `}`,
		`{"http_path":"{","event_time":1795309107000,` + rest + `}`,
		`{"event\u005ftime":1795309107000,"x":{"a":1,"event_time":7},` + rest + `}`,
		`{"event_time": 1795309107000,` + rest + `}`,
		`{ "event_time":1795309107000 ,` + rest + `}`,
	} {
		if p := Scan([]byte(line), sampleNow, &Head{}); p != nil {
			t.Fatalf("%s: %v", line, p)
		}
		if got := EventTime([]byte(line), &Head{}); got != at {
			t.Errorf("%d: %s", got, line)
		}
	}
	if got := EventTime([]byte(`{"event_time":12`), &Head{}); got != 0 {
		t.Error(got)
	}
}

func BenchmarkEventTime(b *testing.B) {
	var h Head
	b.ReportAllocs()
	for b.Loop() {
		if EventTime(typical, &h) == 0 {
			b.Fatal()
		}
	}
}

// deeper says whether a text may nest deeper than MaxDepth.
func deeper(text []byte) bool {
	return strings.Count(string(text), "[")+strings.Count(string(text), "{") > MaxDepth
}

// TestMutants breaks good events by a byte at every place: the scanner and
// encoding/json agree on each.
func TestMutants(t *testing.T) {
	swaps := []byte{'"', '\\', '{', '}', '[', ',', ':', ' ', '\n', 0, '0', '.', '-', 'e', 't', 0x80, 0xE2}
	var h Head
	refused, total := 0, 0
	try := func(line []byte) {
		total++
		want := json.Valid(line) && utf8.Valid(line)
		if Valid(line) != want {
			t.Fatalf("Valid is %v: %q", !want, line)
		}
		p := Scan(line, sampleNow, &h)
		if p == nil && !want || p != nil && want && strings.HasPrefix(p.Reason, "not JSON") {
			t.Fatalf("Scan says %v, encoding/json %v: %q", p, want, line)
		}
		if p != nil {
			refused++
		}
	}
	for i := range typical {
		for _, c := range swaps {
			line := append([]byte(nil), typical...)
			line[i] = c
			try(line)
		}
		try(append(append([]byte(nil), typical[:i]...), typical[i+1:]...))
		try(append(append(append([]byte(nil), typical[:i]...), typical[i]), typical[i:]...))
		try(sample[:i])
	}
	if refused < total/3 {
		t.Errorf("only %d of %d mutants refused", refused, total)
	}
}

func TestProblemDay(t *testing.T) {
	if got := day(time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()); got != "1 Jan 2126" {
		t.Error(got)
	}
	if got := day(1 << 62); !strings.HasSuffix(got, " ms") {
		t.Error(got)
	}
}

func TestScanFirst(t *testing.T) {
	line := string(sample)
	var whole, first Head
	if p := Scan(sample, sampleNow, &whole); p != nil {
		t.Fatal(p)
	}
	for _, behind := range []string{"", ",", "]", "\n{}", " x", "}"} {
		if p := ScanFirst([]byte(line+behind), sampleNow, &first); p != nil || first.End != whole.End || first.Time != whole.Time || first.Look != whole.Look {
			t.Errorf("with %q behind: %v, %+v, want %+v", behind, p, first, whole)
		}
	}
	for _, text := range []string{line[:len(line)-1], "", "[" + line + "]", "{}", strings.Replace(line, `"source":"`, `"source":"`+strings.Repeat("x", MaxEvent), 1)} {
		if p := ScanFirst([]byte(text), sampleNow, &first); p == nil {
			t.Errorf("%.60s was taken", text)
		}
	}
}
