package adapt

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"datasync/schemas"
)

// bare is a canonical event without the members that intake adds.
const bare = `"source":"edge","kind":"mitigation","event_time":1795309107123,"time_precision":"ms","action":"block","disposition":"blocked","enforced":true,"severity":3,"x":{"y":[1,2]}`

// whole has them all.
const whole = `{"schema":"mitigation/1","event_id":"e1","tenant_id":"acme","ingest_time":1795309108000,` + bare + `}`

func TestCanonicalPassesThroughByteForByte(t *testing.T) {
	line, _ := adaptOne(t, "canonical", whole)
	if line != whole {
		t.Errorf(" got %s\nwant %s", line, whole)
	}
}

func TestCanonicalGetsWhatItLacks(t *testing.T) {
	line, _ := adaptOne(t, "canonical", "{"+bare+"}")
	want := fmt.Sprintf(`{"schema":"mitigation/1","event_id":"rec:0","tenant_id":"acme","ingest_time":%d,%s}`, int64(now), bare)
	if line != want {
		t.Errorf(" got %s\nwant %s", line, want)
	}
	line, _ = adaptOne(t, "canonical", "\n { "+strings.ReplaceAll(bare, ",", " ,\r\n\t")+" } \n")
	if line != want {
		t.Errorf("with whitespace:\n got %s\nwant %s", line, want)
	}
	in := input("{" + bare + "}")
	in.ID = ""
	var a, b Output
	canonical(in, &a)
	canonical(in, &b)
	var x, y schemas.Event
	if schemas.Decode(a.Arena, &x) != nil || schemas.Decode(b.Arena, &y) != nil || len(x.EventID) != 26 || x.EventID == y.EventID {
		t.Errorf("ULIDs %q %q", x.EventID, y.EventID)
	}
	if x.EventID[:10] != y.EventID[:10] {
		t.Errorf("ULIDs of one ms %q %q", x.EventID, y.EventID)
	}
}

func TestCanonicalRefuses(t *testing.T) {
	big := `"note":"` + strings.Repeat("x", 300<<10) + `"`
	edge := `"note":"` + strings.Repeat("x", schemas.MaxEvent-len(bare)-60) + `"`
	for _, c := range []struct{ name, value, reason string }{
		{"broken", `{"source":`, "not JSON"},
		{"text", `hello`, "not JSON"},
		{"raw newline", "{" + strings.Replace(bare, "edge", "ed\nge", 1) + "}", "not JSON"},
		{"invalid utf-8", "{" + strings.Replace(bare, "edge", "ed\xffge", 1) + "}", "UTF-8"},
		{"wrong type", "{" + strings.Replace(bare, "true", `"yes"`, 1) + "}", "enforced"},
		{"enum", "{" + strings.Replace(bare, `"block"`, `"bloc"`, 1) + "}", "action"},
		{"missing", `{"source":"edge"}`, "missing"},
		{"repeated", "{" + bare + `,"kind":"match"}`, "twice"},
		{"in 2126", "{" + strings.Replace(bare, "1795309107123", "4950000000000", 1) + "}", "24 h ahead"},
		{"in 1926", "{" + strings.Replace(bare, "1795309107123", "-1360000000000", 1) + "}", "before 2000"},
		{"300 KiB", "{" + bare + "," + big + "}", "256 KiB"},
		{"too long with what is added", "{" + bare + "," + edge + "}", "256 KiB"},
		{"another tenant", "{" + bare + `,"tenant_id":"beta"}`, "beta"},
		{"array in array", "[[" + whole + "]]", "object"},
	} {
		var out Output
		canonical(input(c.value), &out)
		if len(out.Events) != 0 || len(out.Bad) != 1 || !strings.Contains(out.Bad[0].Reason, c.reason) {
			t.Errorf("%s: %d events, bad %.300v", c.name, len(out.Events), out.Bad)
			continue
		}
		if !strings.Contains(c.value, string(out.Bad[0].Data)) || len(out.Bad[0].Data) == 0 {
			t.Errorf("%s: kept %.80q", c.name, out.Bad[0].Data)
		}
		if len(out.Arena) != 0 {
			t.Errorf("%s: %d bytes left in the arena", c.name, len(out.Arena))
		}
	}
}

func TestCanonicalTenants(t *testing.T) {
	in := input(whole)
	in.Tenant = ""
	var out Output
	canonical(in, &out)
	if len(out.Events) != 1 || out.Events[0].Tenant != "acme" {
		t.Errorf("its own tenant: %+v %+v", out.Events, out.Bad)
	}
	for value, reason := range map[string]string{"{" + bare + "}": "names no tenant", "{" + bare + `,"tenant_id":"../etc"}`: "no valid name"} {
		in := input(value)
		in.Tenant = ""
		var out Output
		canonical(in, &out)
		if len(out.Bad) != 1 || !strings.Contains(out.Bad[0].Reason, reason) {
			t.Errorf("%s: %+v", value, out.Bad)
		}
	}
}

func TestLinesAndArraysGoOnBehindABadOne(t *testing.T) {
	var out Output
	canonical(input("["+whole+`,{"source":1},`+whole+"]"), &out)
	if len(out.Events) != 2 || len(out.Bad) != 1 || out.Bad[0].Index != 1 || string(out.Bad[0].Data) != `{"source":1}` {
		t.Errorf("array: %+v %+v", out.Events, out.Bad)
	}
	out.Reset()
	canonical(input("[]"), &out)
	if len(out.Events)+len(out.Bad) != 0 {
		t.Errorf("an empty array holds nothing: %+v", out.Bad)
	}
	out.Reset()
	netacea(input(v1("")+"\nbroken\n"+v1("")), &out)
	if len(out.Events) != 2 || len(out.Bad) != 1 || string(out.Bad[0].Data) != "broken" {
		t.Errorf("lines: %+v %+v", out.Events, out.Bad)
	}
	out.Reset()
	netacea(input("["+v1("")+`,{"broken`), &out)
	if len(out.Events) != 1 || len(out.Bad) != 1 {
		t.Errorf("cut array: %+v %+v", out.Events, out.Bad)
	}
}

// sameAsEachAlone holds a body to what becomes of its values when each is
// judged alone, once it is known where it ends.
func sameAsEachAlone(t *testing.T, in *Input, got *Output) {
	t.Helper()
	var want Output
	want.values(in, func(index int, v []byte) { want.add(in, index, v, v) })
	if !bytes.Equal(got.Arena, want.Arena) || len(got.Events) != len(want.Events) || len(got.Bad) != len(want.Bad) {
		t.Fatalf("%q: %d events, %d bad (%+v), want %d and %d (%+v)", in.Value, len(got.Events), len(got.Bad), got.Bad, len(want.Events), len(want.Bad), want.Bad)
	}
	for i := range got.Events {
		if !reflect.DeepEqual(got.Events[i], want.Events[i]) {
			t.Fatalf("%q: event %+v, want %+v", in.Value, got.Events[i], want.Events[i])
		}
	}
	for i := range got.Bad {
		g, w := &got.Bad[i], &want.Bad[i]
		if g.Index != w.Index || g.Reason != w.Reason || !bytes.Equal(g.Data, w.Data) || g.Tenant != w.Tenant || g.More != w.More {
			t.Fatalf("%q: bad %+v, want %+v", in.Value, g, w)
		}
	}
}

func TestBodiesAreTakenApart(t *testing.T) {
	in := "{" + bare + "}"
	big := strings.Replace(in, "edge", strings.Repeat("e", 300<<10), 1)
	for _, body := range []string{
		"[]", " [ ] ", "[" + in + "]", "[" + in + " , \n" + in + "]\n", in + "\n" + in, in + "\r\n\n" + in + "\n", "[" + in + "]\n[" + in + "," + in + "]",
		"[" + in + ",7," + in + "]", "[" + in + "," + in[:40] + "]", "[" + in + `,{"a":1},` + in + ",", "[" + in + in + "]", "[" + in + "]]", "[" + in + "] x",
		in + "\n7\nnope\n" + in, in + " x\n" + in, in + "\n" + in + " x", in + "\n" + in[:50] + "\n" + in, "[" + big + "," + in + "]", big + "\n" + in, in + "\n" + big,
		strings.ReplaceAll(in, ",", ",\n") + "\n", strings.ReplaceAll(in, ",", ",\n") + in, "[" + strings.ReplaceAll(in, ",", ",\n") + "]", "\n\n", "[", "[,]", "[" + in + ",]",
	} {
		var out Output
		canonical(input(body), &out)
		sameAsEachAlone(t, input(body), &out)
	}
}

func FuzzCanonical(f *testing.F) {
	f.Add(whole)
	f.Add("{" + bare + "}")
	f.Add(" [" + whole + ",\n{" + bare + "}]")
	f.Add(whole + "\n{" + bare + "}\n7\n" + whole + " x")
	f.Add(strings.Replace(whole, "edge", `e\u2028 é\ud83d\ude00`, 1))
	f.Add(strings.Replace(whole, "edge", "e\u2028", 1))
	f.Fuzz(func(t *testing.T, value string) {
		in := input(value)
		if len(value)%2 == 0 {
			in.Tenant = ""
		}
		var out Output
		canonical(in, &out)
		check(t, in, &out)
		if i := firstByte(in.Value); i < len(value) && (value[i] != '{' || strings.Contains(value[i:], "\n")) {
			sameAsEachAlone(t, in, &out)
		}
	})
}

// padded is an event of about the size that limits.md measured with.
var padded = "{" + bare + `,"client_ip":"203.0.113.7","client_country":"GB","client_asn":64500,` +
	`"user_agent":"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0","http_method":"GET","http_host":"shop.example.com",` +
	`"http_path":"/products/42","http_query":"id=1&colour=red","http_referrer":"https://www.example.org/","http_status":403,"bytes_out":324,` +
	`"duration_ms":12.5,"match_on":"ip","action_raw":"ip_blocked","session_id":"cJ8MSoNe9Dwlb2c3","session_state":"existing"}`

func TestCanonicalAllocatesNothing(t *testing.T) {
	in := input(padded)
	in.ID = ""
	var out Output
	n := testing.AllocsPerRun(1000, func() {
		out.Reset()
		canonical(in, &out)
		if len(out.Events) != 1 {
			t.Fatal(out.Bad)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

func BenchmarkCanonical(b *testing.B) {
	in := input(padded)
	var out Output
	b.ReportAllocs()
	b.SetBytes(int64(len(padded)))
	for b.Loop() {
		out.Reset()
		canonical(in, &out)
		if len(out.Events) != 1 {
			b.Fatal(out.Bad)
		}
	}
}
