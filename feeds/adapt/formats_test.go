package adapt

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datasync/schemas"
)

var update = flag.Bool("update", false, "write the golden files")

// sample is one record of a format, as its source sends it.
type sample struct{ format, name, value string }

// samples gives every record that testdata has of the formats: NAME_*.json or
// .tsv, the format's dashes as underscores.
func samples(t testing.TB) (list []sample) {
	t.Helper()
	for _, format := range Formats() {
		if format == "canonical" { // its records are events already
			list = append(list, sample{format, "", whole})
			continue
		}
		n := len(list)
		for _, ext := range []string{".json", ".tsv"} {
			files, err := filepath.Glob("testdata/" + strings.ReplaceAll(format, "-", "_") + "*" + ext)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				raw, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, sample{format, strings.TrimSuffix(file, ext), strings.TrimRight(string(raw), "\n")})
			}
		}
		if len(list) == n {
			t.Errorf("there is no sample of %s in testdata", format)
		}
	}
	return list
}

// json says that the sample is an object, into which members can be put.
func (s *sample) json() bool { return s.value[0] == '{' }

// with is the sample with members put in front.
func (s *sample) with(members string) string { return "{" + members + "," + s.value[1:] }

// of is what a record becomes.
func (s *sample) of(t *testing.T, value string) *Output {
	t.Helper()
	a, ok := For(s.format)
	if !ok {
		t.Fatalf("no adapter for %s", s.format)
	}
	var out Output
	in := input(value)
	a(in, &out)
	check(t, in, &out)
	return &out
}

// Golden files are read by a person before they are accepted.
func TestGoldenSamples(t *testing.T) {
	for _, s := range samples(t) {
		out := s.of(t, s.value)
		if len(out.Bad) > 0 || len(out.Events) == 0 {
			t.Errorf("%s: %d events, bad %+v", s.name, len(out.Events), out.Bad)
		}
		if s.name == "" {
			continue
		}
		golden := s.name + ".golden"
		if *update {
			if err := os.WriteFile(golden, out.Arena, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(out.Arena) != string(want) {
			t.Errorf("%s:\n got %s\nwant %s", s.name, out.Arena, want)
		}
	}
}

// TestEveryFormat holds all adapters to what they have in common.
func TestEveryFormat(t *testing.T) {
	for _, s := range samples(t) {
		t.Run(s.format+"/"+filepath.Base(s.name), func(t *testing.T) {
			if a, b := s.of(t, s.value), s.of(t, s.value); string(a.Arena) != string(b.Arena) {
				t.Errorf("not the same twice:\n%s%s", a.Arena, b.Arena)
			}
			adapter, _ := For(s.format)
			in := input(s.value)
			if in.Tenant = ""; s.format != "canonical" {
				var out Output
				if adapter(in, &out); len(out.Events) != 0 || len(out.Bad) != 1 || !strings.Contains(out.Bad[0].Reason, "tenant") {
					t.Errorf("of no tenant: %d events, bad %+v", len(out.Events), out.Bad)
				}
			}
			if !s.json() {
				return
			}
			s.holdsToShapes(t)
			s.holdsToMembers(t)
			s.holdsToTypes(t, s.value)
		})
	}
}

// holdsToShapes: a record, its lines and an array of it say the same; what is
// broken is told, with its bytes, and takes nothing else along.
func (s *sample) holdsToShapes(t *testing.T) {
	for n := 1; n < 8; n++ {
		out := s.of(t, s.value[:len(s.value)*n/8])
		if len(out.Events) != 0 || len(out.Bad) != 1 || len(out.Bad[0].Data) == 0 {
			t.Errorf("cut at %d/8: %d events, bad %+v", n, len(out.Events), out.Bad)
		}
	}
	if s.format == "canonical" {
		return // lines are the transports' to split
	}
	lines, array := s.of(t, s.value+"\n"+s.value+"\n"), s.of(t, "[\n"+s.value+" ,"+s.value+"]")
	if string(lines.Arena) != string(array.Arena) || len(lines.Bad)+len(array.Bad) > 0 {
		t.Errorf("lines %+v and array %+v differ:\n%s%s", lines.Bad, array.Bad, lines.Arena, array.Arena)
	}
	out := s.of(t, s.value+"\n7\n[8]\n\"x\"\nnull\n{\"cut\n"+s.value)
	if len(out.Events) == 0 || len(out.Bad) != 5 {
		t.Errorf("among rubbish: %d events, bad %+v", len(out.Events), out.Bad)
	}
}

// holdsToMembers: unknown members survive, secrets do not.
func (s *sample) holdsToMembers(t *testing.T) {
	unknown := `"zz_new":{"deep":[1,"é\n",{"a":null}]}`
	if out := s.of(t, s.with(unknown)); len(out.Events) == 0 || !strings.Contains(string(out.Arena), unknown) {
		t.Errorf("an unknown member is lost: %+v %s", out.Bad, out.Arena)
	}
	if s.format == "canonical" {
		return // its bytes stay; the door redacts them
	}
	for _, name := range []string{"cookie", "Cookie", "set-cookie", "apiKey", "api_key", "Authorization"} {
		if out := s.of(t, s.with(fmt.Sprintf(`%q:"PLANTED"`, name))); len(out.Events)+len(out.Bad) == 0 || strings.Contains(string(out.Arena), "PLANTED") {
			t.Errorf("%s is kept: %s", name, out.Arena)
		}
	}
}

// holdsToTypes: whatever a member of an object of it holds, the record becomes
// something that is counted.
func (s *sample) holdsToTypes(t *testing.T, object string) {
	values := []string{`null`, `true`, `0`, `-1`, `1e999`, `99999999999999999999`, `""`, `"-"`, `"x"`, `"\u0000\u2028\ud800"`, `[]`, `{}`, `[null,1,"a",{}]`, `{"a":[{}]}`,
		`"` + strings.Repeat("é", 3000) + `"`}
	members([]byte(object), func(key string, value []byte) {
		if value[0] == '{' {
			s.holdsToTypes(t, string(value))
		}
		for _, v := range values {
			changed := strings.Replace(s.value, fmt.Sprintf("%q:%s", key, value), fmt.Sprintf("%q:%s", key, v), 1)
			if changed == s.value && v != string(value) {
				t.Fatalf("%s cannot be changed", key)
			}
			if out := s.of(t, changed); len(out.Events)+len(out.Bad)+out.Suppressed != 1 {
				t.Errorf("%s: %.60s became %d events, %d bad, %d suppressed", key, v, len(out.Events), len(out.Bad), out.Suppressed)
			}
		}
	})
}

func TestFormatsAreTheSwitch(t *testing.T) {
	for _, f := range Formats() {
		if _, ok := For(f); !ok {
			t.Errorf("%s is listed and has no adapter", f)
		}
	}
	if _, ok := For("nonsense"); ok {
		t.Error("nonsense has an adapter")
	}
	for a := range severities {
		if severity(a) < 1 || severity(a) > 5 {
			t.Errorf("%s: %d", a, severity(a))
		}
	}
}

// decision is what a normalisation row sets.
type decision struct {
	kind, action, disposition string
	enforced                  bool
}

func decisionOf(e *schemas.Event) decision {
	return decision{e.Kind, e.Action, e.Disposition, e.Enforced}
}

// fuzzFormat fuzzes an adapter, from its samples and others.
func fuzzFormat(f *testing.F, format string, more ...string) {
	f.Helper()
	for _, s := range samples(f) {
		if s.format == format {
			f.Add(s.value)
			f.Add("[" + s.value + ",\n" + s.value + "]")
			f.Add(s.value + "\n{\"a\":\"\\ud800\u2028\"}\n" + s.value[:len(s.value)/2])
		}
	}
	for _, v := range more {
		f.Add(v)
	}
	a, _ := For(format)
	f.Fuzz(func(t *testing.T, value string) {
		in := input(value)
		var out Output
		a(in, &out)
		check(t, in, &out)
		first := string(out.Arena)
		out.Reset()
		a(in, &out)
		if string(out.Arena) != first { // what an Output keeps of a record must not show in the next
			t.Fatalf("not the same twice:\n%s%s", first, out.Arena)
		}
	})
}

func benchFormat(b *testing.B, format string) {
	b.Helper()
	for _, s := range samples(b) {
		if s.format != format {
			continue
		}
		b.Run(filepath.Base(s.name), func(b *testing.B) {
			a, _ := For(format)
			in := input(s.value)
			var out Output
			b.ReportAllocs()
			b.SetBytes(int64(len(s.value)))
			for b.Loop() {
				out.Reset()
				a(in, &out)
				if len(out.Events) != 1 {
					b.Fatal(out.Bad)
				}
			}
		})
	}
}
