package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func scalar(t Type, text string) (*Value, error) {
	v := &Value{typ: &t, text: text}
	return v, v.parse()
}

func TestSizesAndDurations(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "10": 10, "10B": 10, "1KB": 1000, "1kB": 1000, "1KiB": 1024, "1.5KiB": 1536, "10 MiB": 10 << 20, "1GB": 1e9, "50GiB": 50 << 30, "2TiB": 2 << 40} {
		if v, err := scalar(Size(0), text); err != nil || v.i != want {
			t.Errorf("%s: %d, %v; want %d", text, v.i, err, want)
		}
	}
	for text, want := range map[string]time.Duration{"10s": 10 * time.Second, "24h": 24 * time.Hour, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "250ms": 250 * time.Millisecond, "0s": 0} {
		if v, err := scalar(Duration(0), text); err != nil || time.Duration(v.i) != want {
			t.Errorf("%s: %d, %v; want %s", text, v.i, err, want)
		}
	}
	for _, text := range []string{"", "x", "1XB", "-1", "1e30TiB", "99999999999999999999TiB", "1.GiB"} {
		if _, err := scalar(Size(0), text); err == nil {
			t.Errorf("size %q was taken", text)
		}
	}
	for _, text := range []string{"", "10", "d", "1dx", "-1h", "999999d", "5 m"} {
		if _, err := scalar(Duration(0), text); err == nil {
			t.Errorf("duration %q was taken", text)
		}
	}
}

func TestReferences(t *testing.T) {
	r := Refs{
		Env: func(name string) (string, bool) { return "<" + name + ">", name != "UNSET" },
		ReadFile: func(path string) ([]byte, error) {
			if path == "big" {
				return make([]byte, maxReference+1), nil
			}
			return []byte("of " + path + "\r\n"), nil
		},
	}
	for in, want := range map[string]string{
		"${env:A}": "<A>", "x${env:A}y${file:p/q}z": "x<A>yof p/qz", "$${env:A}": "${env:A}", "$5 {a}": "$5 {a}", "$$${env:A}": "$${env:A}", "": "",
	} {
		if got, err := r.resolve(in); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"${", "${env:A", "${A}", "${env:}", "${env:UNSET}", "${file:big}", "a${b}"} {
		if got, err := r.resolve(in); err == nil {
			t.Errorf("%q gave %q", in, got)
		}
	}
	for in, want := range map[string]bool{"${env:A}": true, "${file:/x}": true, "x${env:A}": false, "${env:A}x": false, "plain": false, "${env:A}${env:B}": false} {
		if IsReference(in) != want {
			t.Errorf("IsReference(%q) = %v", in, !want)
		}
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"schedule", "max_bytes", "max_events", "s3", "dir"}
	for in, want := range map[string]string{"shedule": "schedule", "max_byte": "max_bytes", "schdeule": "schedule", "zzz": "", "s4": "s3", "": "", "x": "", strings.Repeat("s", 100): ""} {
		if got := Nearest(in, keys); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestDistanceIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-z_]{1,20}`).Draw(t, "word")
		at := rapid.IntRange(0, len(word)-1).Draw(t, "at")
		letter := rapid.StringMatching(`[0-9]`).Draw(t, "letter") // differs from all of word
		for what, s := range map[string]string{
			"deleted": word[:at] + word[at+1:], "inserted": word[:at] + letter + word[at:], "changed": word[:at] + letter + word[at+1:],
		} {
			if d := distance(word, s); d != 1 || distance(s, word) != d {
				t.Fatalf("%s: %q to %q is %d", what, word, s, d)
			}
		}
		if at > 0 && word[at-1] != word[at] {
			if d := distance(word, word[:at-1]+word[at:at+1]+word[at-1:at]+word[at+1:]); d != 1 {
				t.Fatalf("swapped at %d: %q is %d", at, word, d)
			}
		}
	})
}

var inner = NewObject(Object{Name: "item", OneOf: []string{"a", "b"}, Keys: []Key{
	{Name: "name", Type: String(), Required: true, Identity: true, Doc: "its name"},
	{Name: "a", Type: Int(0, 9), Doc: "a"}, {Name: "b", Type: Bool(), Doc: "b"},
	{Name: "words", Type: List(String()), Doc: "words"}, {Name: "share", Type: Float(0, 1), Default: "1.0", Doc: "share"},
}})

var outer = NewObject(Object{Name: "the file", Doc: "A file.", Keys: []Key{
	{Name: "items", Type: List(Obj(inner)), Doc: "items"}, {Name: "one", Type: Obj(inner), Doc: "one | two"},
	{Name: "key", Type: OneOrMore(Secret()), Doc: "key"}, {Name: "wait", Type: Duration(time.Second), Default: "5s", Doc: "wait"},
}})

func TestMergeIsByIdentity(t *testing.T) {
	parse := func(text string) *Value {
		v, ps := Parse("f", []byte(text), outer, Refs{})
		if len(ps) > 0 {
			t.Fatal(ps)
		}
		return v
	}
	base := parse("items: [{name: x, a: 1, words: [p]}, {name: y, a: 2}]\nwait: 2s\n")
	own := parse("items: [{name: z, b: true}, {name: x, b: true}]\n")
	before := base.Digest() + own.Digest()
	m := Merge(base, own)
	if ps := m.Complete(); len(ps) > 0 {
		t.Fatal(ps)
	}
	var got []string
	for _, i := range m.List("items") {
		got = append(got, i.Str("name"))
	}
	x := m.List("items")[0]
	if strings.Join(got, "") != "xyz" || x.Has("a") || !x.Bool("b") || x.Strs("words")[0] != "p" || m.Duration("wait") != 2*time.Second {
		t.Errorf("%v %+v", got, x)
	}
	if base.Digest()+own.Digest() != before {
		t.Error("merging changed what was merged")
	}
	if Merge(nil, own) != own || Merge(base, nil) != base {
		t.Error("merging with nothing")
	}
	if m.Digest() == base.Digest() || parse("wait: 2s").Digest() != parse("wait: 2s # same\n").Digest() || parse("wait: 2s").Digest() == parse("wait: 3s").Digest() {
		t.Error("the digest does not tell values apart")
	}
}

func TestAliasesAreBounded(t *testing.T) {
	twice := "one: &a {name: x, a: 1}\nitems: [*a, *a]\n"
	if v, ps := Parse("f", []byte(twice), outer, Refs{}); len(ps) > 0 || len(v.List("items")) != 2 || v.List("items")[1].Pos.Line != 2 {
		t.Error("an alias is not followed", ps)
	}
	if _, ps := Parse("f", []byte("one: &a {name: *a}\nitems: &b [*b]\n"), outer, Refs{}); len(ps) == 0 {
		t.Error("a loop was taken")
	}
}

func TestSchemaAndMarkdownComeFromTheTable(t *testing.T) {
	var s map[string]any
	if err := json.Unmarshal(JSONSchema(outer, "urn:x"), &s); err != nil {
		t.Fatal(err)
	}
	props := s["properties"].(map[string]any)
	one := props["one"].(map[string]any)
	if props["wait"].(map[string]any)["default"] != "5s" || one["additionalProperties"] != false || len(one["oneOf"].([]any)) != 2 || one["required"].([]any)[0] != "name" {
		t.Errorf("%v", s)
	}
	var page bytes.Buffer
	if err := Markdown(&page, outer); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## The file", "### `items[]`", "| `wait` | a duration, at least 1s | `5s` | wait |", `one \| two`, "The keys of `items[]`.", "Exactly one of a or b is given."} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("the page lacks %q:\n%s", want, page.String())
		}
	}
}

func TestProblems(t *testing.T) {
	ps := Problems{{"b", 1, 1, "x"}, {"a", 2, 1, "x"}, {"a", 1, 9, "x"}, {"a", 2, 1, "x"}, {"a", 0, 0, "whole"}}.Sorted()
	if want := "a: whole\na:1:9: x\na:2:1: x\nb:1:1: x"; ps.Error() != want {
		t.Errorf("%s", ps.Error())
	}
	if Problems(nil).Err() != nil {
		t.Error("no problems are an error")
	}
	var as Problems
	if !errors.As(ps.Err(), &as) || len(as) != 4 {
		t.Error("Problems is no error to errors.As")
	}
}
