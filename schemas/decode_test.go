package schemas

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// TestTableMatchesStructs holds the table's offsets and types to the structs.
func TestTableMatchesStructs(t *testing.T) {
	check(t, reflect.TypeFor[Event](), fields[:])
	check(t, reflect.TypeFor[Match](), matchMembers)
	for _, f := range fields {
		if f.Type == Struct {
			s, _ := fieldAt(reflect.TypeFor[Event](), f.at)
			if s.Type.Field(0).Name != "OK" || s.Type.Field(0).Offset != 0 {
				t.Errorf("%s: OK is not first", f.Name)
			}
			check(t, s.Type, f.Members)
		}
	}
}

func check(t *testing.T, in reflect.Type, table []Field) {
	t.Helper()
	want := map[Type]reflect.Type{String: reflect.TypeFor[string](), Enum: reflect.TypeFor[string](), Object: reflect.TypeFor[string](),
		Int32: reflect.TypeFor[Int](), Int64: reflect.TypeFor[Int](), Time: reflect.TypeFor[Int](), Int8: reflect.TypeFor[int8](),
		Float64: reflect.TypeFor[Float](), Boolean: reflect.TypeFor[Bool](), List: reflect.TypeFor[[]string](), StructList: reflect.TypeFor[[]Match]()}
	names := map[string]bool{}
	exported := 0
	for i := range in.NumField() {
		if f := in.Field(i); f.IsExported() && f.Name != "OK" && f.Name != "Extra" {
			exported++
		}
	}
	if exported != len(table) {
		t.Errorf("%s has %d fields, its table %d", in, exported, len(table))
	}
	for _, f := range table {
		s, ok := fieldAt(in, f.at)
		if !ok || strings.ReplaceAll(f.Name, "_", "") != strings.ToLower(s.Name) || names[f.Name] || f.Doc == "" || len(f.Name) > 15 {
			t.Errorf("%s.%s lies at %s, or has no description", in, f.Name, s.Name)
		}
		names[f.Name] = true
		for _, v := range f.Values {
			if len(v) > 16 {
				t.Errorf("%s: value %s is too long for a short", f.Name, v)
			}
		}
		goType := want[f.Type]
		if f.Required && f.Type == Time {
			goType = reflect.TypeFor[int64]()
		} else if f.Required && f.Type == Boolean {
			goType = reflect.TypeFor[bool]()
		}
		if f.Type != Struct && s.Type != goType {
			t.Errorf("%s.%s is %s, its Go type %s", in, f.Name, f.Type, s.Type)
		}
	}
}

func fieldAt(in reflect.Type, at uintptr) (reflect.StructField, bool) {
	for i := range in.NumField() {
		if in.Field(i).Offset == at {
			return in.Field(i), true
		}
	}
	return reflect.StructField{}, false
}

// TestSeen: whoever skips what an event has not seen misses nothing.
func TestSeen(t *testing.T) {
	bit := func(names ...string) (set uint64) {
		for _, name := range names {
			set |= 1 << lookup(name)
		}
		return set
	}
	extra := uint64(1) << len(Fields())
	var e Event
	for _, c := range []struct {
		line string
		seen uint64
	}{
		{`{"kind":"alert","net":{"dst_ip":"10.0.0.8","rule_id":"x"},"matches":[{"score":1}]}`, bit("kind", "net", "matches") | extra},
		{`{}`, 0},
		{`{"reason":null,"rul\u0065_id":"r","score":"high","rule_id":"s"}`, bit("reason", "rule_id", "score") | extra},
		{`{"unknown":1}`, extra},
	} {
		if err := Decode([]byte(c.line), &e); err != nil || e.Seen() != c.seen {
			t.Errorf("%s: %x, %v; expected %x", c.line, e.Seen(), err, c.seen)
		}
	}
	if len(Fields()) >= 64 {
		t.Error("more fields than bits")
	}
}

// oracle is the event as encoding/json reads it: its canonical fields of the
// right type, what else there is in extra.
func oracle(line []byte) (known map[string]any, extra map[string]any, err error) {
	var raw map[string]any
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	if err := dec.Decode(&raw); err != nil {
		return nil, nil, err
	}
	known, extra = map[string]any{}, map[string]any{}
	sortOut(raw, fields[:], "", known, extra)
	return known, extra, nil
}

func sortOut(raw map[string]any, table []Field, prefix string, known, extra map[string]any) {
	for name, v := range raw {
		n := -1
		for i := range table {
			if table[i].Name == name {
				n = i
			}
		}
		if n < 0 {
			extra[prefix+name] = v
			continue
		}
		f := &table[n]
		switch {
		case v == nil:
		case f.Type == Struct && isObject(v):
			inner := map[string]any{}
			sortOut(v.(map[string]any), f.Members, f.Name+".", inner, extra)
			known[name] = inner
		case f.Type == StructList && allObjects(v):
			var list []any
			for i, e := range v.([]any) {
				inner := map[string]any{}
				sortOut(e.(map[string]any), f.Members, f.Name+"."+json.Number(string(rune('0'+i))).String()+".", inner, extra)
				list = append(list, inner)
			}
			if len(list) > 0 {
				known[name] = list
			}
		case fitsType(f, v):
			if v != "" && !(f.Type == List && len(v.([]any)) == 0) {
				known[name] = number(f, v)
			}
		default:
			extra[prefix+name] = v
		}
	}
}

func number(f *Field, v any) any {
	if n, ok := v.(json.Number); ok && f.Type == Float64 {
		x, _ := n.Float64()
		return x
	}
	return v
}

func isObject(v any) bool { _, ok := v.(map[string]any); return ok }

func allObjects(v any) bool {
	list, ok := v.([]any)
	for _, e := range list {
		ok = ok && isObject(e)
	}
	return ok
}

func fitsType(f *Field, v any) bool {
	switch f.Type {
	case String, Enum:
		_, ok := v.(string)
		return ok
	case Boolean:
		_, ok := v.(bool)
		return ok
	case Object:
		return isObject(v)
	case List:
		list, ok := v.([]any)
		for _, e := range list {
			_, s := e.(string)
			ok = ok && s
		}
		return ok
	case Struct, StructList:
		return false
	}
	n, ok := v.(json.Number)
	if !ok {
		return false
	}
	if f.Type == Float64 {
		x, err := n.Float64()
		return err == nil && !math.IsInf(x, 0)
	}
	x, err := n.Int64()
	return err == nil && (f.Type != Int32 || x == int64(int32(x))) && (f.Type != Int8 || x == int64(int8(x)))
}

// compare holds one line's Decode and AppendJSON to encoding/json.
func compare(t interface {
	Fatalf(string, ...any)
}, line []byte, e *Event) {
	if err := Decode(line, e); err != nil {
		t.Fatalf("Decode: %v\n%s", err, line)
	}
	known, extra, err := oracle(line)
	if err != nil {
		t.Fatalf("encoding/json: %v\n%s", err, line)
	}
	again := AppendJSON(nil, e)
	if Check(again) != nil {
		t.Fatalf("AppendJSON wrote no JSON: %s", again)
	}
	gotKnown, gotExtra, err := oracle(again)
	if err != nil {
		t.Fatalf("encoding/json on what AppendJSON wrote: %v\n%s", err, again)
	}
	for _, required := range []string{"event_time", "severity", "enforced"} { // always written
		if _, ok := known[required]; !ok {
			delete(gotKnown, required)
		}
	}
	if !reflect.DeepEqual(gotKnown, known) || !reflect.DeepEqual(gotExtra, extra) {
		t.Fatalf("decoded otherwise than by encoding/json\nline  %s\nagain %s\nknown %v\ngot   %v\nextra %v\ngot   %v", line, again, known, gotKnown, extra, gotExtra)
	}
	var second Event
	if err := Decode(again, &second); err != nil {
		t.Fatalf("Decode of AppendJSON: %v\n%s", err, again)
	}
	if twice := AppendJSON(nil, &second); !bytes.Equal(twice, again) {
		t.Fatalf("not deterministic:\n%s\n%s", again, twice)
	}
}

func TestDecodeLikeEncodingJSON(t *testing.T) {
	var e Event // the same throughout: nothing may be left over from the line before
	for _, line := range []string{
		string(sample), minimal, "{}", " { } ",
		with(`"x":{"a":[1,2]},"y":null`),
		with(`"client_port":"80","bytes_out":1.5,"client_asn":1e3,"http_status":4294967296,"score":"high","tactics":"T1","rule_id":7`),
		with(`"tactics":["a","b"],"techniques":[],"meta":{"labels":["x","\u00e9"],"unmapped":{"k":[1, 2]},"raw_sha256":"00"}`),
		with(`"tactics":["a",1],"techniques":[["x"]]`),
		with(`"matches":[{"rule_id":"1","score":2.5,"blocking":true,"data":"x\ny"},{}],"net":{"dst_ip":"192.0.2.1","dst_port":443},"host":{},"agg":{"count":3,"first_seen":1795309107000}`),
		with(`"matches":[{"rule_id":1,"tag":"t"}],"net":{"vlan":7,"dst_port":99999999999},"audit":{"actor":["a"]}`),
		with(`"matches":[],"net":null,"host":"h","decision":[],"agg":{"count":null},"meta":{"unmapped":"text"}`),
		with(`"matches":[{"rule_id":"1"},2]`),
		with(`"score":1e999,"score_raw":-0.1e-3,"score_threshold":123456789012345678,"duration_ms":0.1`),
		with(`"score":0.30000000000000004,"score_raw":-7.25,"duration_ms":-0`),
		with(`"user_agent":"q\"\\\/\b\f\n\r\t\u0041\ud83d\ude00\ud800x","http_path":"/caf\u00e9/é"`),
		with(`"bytes_in":-5,"bytes_out":9223372036854775807,"client_asn":9223372036854775808`),
		"\n" + strings.NewReplacer(":", " :\t", ",", "\r\n, ").Replace(with(`"matches":[{"rule_id":"1","score":2},{"name":"n"}],"tactics":["a","b"],"x":[1,{"y":2}]`)) + " ",
	} {
		compare(t, []byte(line), &e)
	}
}

func TestDecodeErrors(t *testing.T) {
	var e Event
	for line, want := range map[string]string{
		`[]`:                     "decode event: not JSON: a JSON object expected at byte 0",
		`{"action":5}`:           `decode event: action is "5": not of type enum`,
		`{"event_time":null}`:    `decode event: event_time is "null": not of type timestamp`,
		`{"severity":300}`:       `decode event: severity is "300": not of type int8`,
		`{"matches":[{]}`:        "decode event: not JSON: a key expected at byte 13",
		`{"matches":[{},]}`:      "decode event: not JSON",
		`{"tactics":["a"`:        "decode event: not JSON: ends early",
		`{"net":{"dst_port":1x}`: "decode event: not JSON",
		`{"meta":{"unmapped":{]`: "decode event: not JSON",
		`{"enforced":truu}`:      "decode event: not JSON",
		"{\"user_agent\":\"\n\"": "decode event: not JSON: raw newline",
	} {
		if err := Decode([]byte(line), &e); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", line, err, want)
		}
	}
}

func TestDecodeKeepsInnerStrangers(t *testing.T) {
	var e Event
	line := with(`"net":{"dst_ip":"192.0.2.1","vlan":7},"x":[1, 2],"matches":[{"name":"n","tag":"t"}],"client_port":"80"`)
	if err := Decode([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	if want := `{"net.vlan":7,"x":[1, 2],"matches.0.tag":"t","client_port":"80"}`; e.Extra != want {
		t.Errorf("Extra is %s, want %s", e.Extra, want)
	}
	if e.Net.DstIP != "192.0.2.1" || len(e.Matches) != 1 || e.Matches[0].Name != "n" || e.ClientPort.OK {
		t.Errorf("%+v", e)
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	var e Event
	line := []byte(with(`"matches":[{"rule_id":"1"}],"tactics":["a"],"x":1`))
	if n := testing.AllocsPerRun(100, func() { _ = Decode(line, &e) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDecode compares with encoding/json on any line that decodes; repeated
// keys, on which the two differ by design, are Scan's to refuse.
func FuzzDecode(f *testing.F) {
	f.Add(sample)
	f.Add([]byte(with(`"net":{"dst_port":1,"x":[{}]},"matches":[{"score":1e5}],"tactics":["a"]`)))
	f.Fuzz(func(t *testing.T, line []byte) {
		var e Event
		err := Decode(line, &e)
		if !utf8.Valid(line) || !json.Valid(line) {
			if err == nil {
				t.Fatalf("Decode accepted %q", line)
			}
			return
		}
		if err != nil || len(e.Matches) > 9 || strings.Contains(e.Extra, ".") || repeats(line) {
			return
		}
		compare(t, line, &e)
	})
}

// repeats says whether any object in a line may have a key twice.
func repeats(line []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(line))
	seen := map[string]bool{}
	for {
		token, err := dec.Token()
		if err != nil {
			return false
		}
		if s, ok := token.(string); ok {
			if seen[s] {
				return true
			}
			seen[s] = true
		}
	}
}

// TestRoundTrip encodes random events and decodes them again.
func TestRoundTrip(t *testing.T) {
	text := rapid.StringOfN(rapid.RuneFrom([]rune("aZ09 \"\\/<>&\n\t\x00é\u2028😀")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		var e Event
		v := reflect.ValueOf(&e).Elem()
		randomize(t, v, text)
		e.Extra, e.Meta.Unmapped = "", ""
		line := AppendJSON(nil, &e)
		if !json.Valid(line) || !utf8.Valid(line) || bytes.ContainsAny(line, "\n\r\x00\u2028\u2029") {
			t.Fatalf("%q", line)
		}
		var back Event
		compare(t, line, &back)
		if again := AppendJSON(nil, &back); !bytes.Equal(line, again) {
			t.Fatalf("%s\n%s", line, again)
		}
		if back.Schema != e.Schema || back.UserAgent != e.UserAgent || back.ClientPort != e.ClientPort || back.Score != e.Score || back.Net != e.Net || back.Agg != e.Agg {
			t.Fatalf("%+v\n%+v", e, back)
		}
	})
}

// randomize fills every exported field of a struct.
func randomize(t *rapid.T, v reflect.Value, text *rapid.Generator[string]) {
	for i := range v.NumField() {
		f := v.Field(i)
		if !f.CanSet() {
			continue
		}
		switch p := f.Addr().Interface().(type) {
		case *string:
			*p = text.Draw(t, "s")
		case *int64:
			*p = rapid.Int64Range(0, 1<<50).Draw(t, "ms")
		case *int8:
			*p = rapid.Int8Range(0, 5).Draw(t, "severity")
		case *bool:
			*p = rapid.Bool().Draw(t, "b")
		case *Int:
			if *p = (Int{OK: rapid.Bool().Draw(t, "ok")}); p.OK {
				p.V = int64(rapid.Int32().Draw(t, "i"))
			}
		case *Float:
			if *p = (Float{OK: rapid.Bool().Draw(t, "ok")}); p.OK {
				p.V = rapid.Float64().Draw(t, "f")
			}
		case *Bool:
			if p.OK = rapid.Bool().Draw(t, "ok"); p.OK {
				p.V = rapid.Bool().Draw(t, "b")
			}
		case *[]string:
			*p = rapid.SliceOfN(text, 0, 3).Draw(t, "list")
		case *[]Match:
			*p = make([]Match, rapid.IntRange(0, 2).Draw(t, "n"))
			for n := range *p {
				randomize(t, reflect.ValueOf(&(*p)[n]).Elem(), text)
			}
		default:
			if f.FieldByName("OK").IsValid() && rapid.Bool().Draw(t, "present") {
				randomize(t, f, text)
				f.FieldByName("OK").SetBool(true)
			}
		}
	}
}
