package ndjson_test

import (
	"bytes"
	"io"
	"testing"

	"datasync/formats/formatstest"
	"datasync/formats/ndjson"
)

func TestProject(t *testing.T) {
	for _, c := range []struct{ name, line, want string }{
		{"order is the event's", `{"b":1,"a":2,"c":3}`, `{"b":1,"a":2}`},
		{"values stay as they are spelled", `{"a":1.50e+00,"b":"\u00e9\/"}`, `{"a":1.50e+00,"b":"\u00e9\/"}`},
		{"inner members are not looked at", `{"c":{"a":1},"b":{"a":[1,{"c":2}],"x":"}"}}`, `{"b":{"a":[1,{"c":2}],"x":"}"}}`},
		{"a name in a value is none", `{"c":"\"a\":1,","a":2}`, `{"a":2}`},
		{"backslashes before a quote", `{"c":"\\","a":"\\\"","b":"x\\"}`, `{"a":"\\\"","b":"x\\"}`},
		{"nothing left", `{"c":1}`, `{}`},
		{"empty", `{}`, `{}`},
		{"the newline stays", "{\"a\":1,\"c\":2}\n", "{\"a\":1}\n"},
		{"white space", "{ \"c\" : 1 , \"a\" : [ 1 ] }\n", "{\"a\" : [ 1 ]}\n"},
		{"no object", `[1]`, `[1]`},
	} {
		got := ndjson.Project([]byte("before "), []byte(c.line), ndjson.NewSet([]string{"a", "b", "missing"}))
		if string(got) != "before "+c.want {
			t.Errorf("%s: %s, expected %s", c.name, got, c.want)
		}
	}
	if got := ndjson.Project(nil, []byte(`{"x":1}`), nil); string(got) != `{"x":1}` {
		t.Errorf("no fields named: %s, expected all", got)
	}
}

func TestEncoderProjects(t *testing.T) {
	var out bytes.Buffer
	e, err := ndjson.NewEncoder(&out, ndjson.Options{Fields: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Write([]byte("{\"a\":1,\"b\":2}\n{\"b\":3}\n")); err != nil {
		t.Fatal(err)
	}
	if err := e.Write([]byte("7\n")); err == nil {
		t.Error("a line that is no object was taken, with all it holds")
	}
	if out.String() != "{\"a\":1}\n{}\n" {
		t.Errorf("wrote %q", out.String())
	}
	if _, err := ndjson.NewEncoder(io.Discard, ndjson.Options{Compression: "lz4"}); err == nil {
		t.Error("an unknown compression was taken")
	}
}

func BenchmarkProject(b *testing.B) {
	line := formatstest.Lines(formatstest.Events(1, 1))
	set := ndjson.NewSet([]string{"event_id", "event_time", "client_ip", "action"})
	var buf []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		buf = ndjson.Project(buf[:0], line, set)
	}
}
