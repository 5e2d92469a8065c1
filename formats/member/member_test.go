package member

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzWalk holds the walker to encoding/json: on an object, the same names and
// values in the same order; on anything, no panic and nothing from outside it.
func FuzzWalk(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { } `, `{"a":1}`, "{\"a\":1,\"b\":\"x,}\\\\\\\"y\"}\n", `{ "a" : [1,{"b":"]"}] , "c":{"d":[]}, "e":null }`,
		`{"a":-1.5e9,"":true}`, `{"\u0061":"\\"}`, `[1]`, `{"a"}`, `{"a":}`, `{"a":1`, `{"a":"`, `{"a":"\`, ``, `{`, `{,}`, `{"a":[}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		type pair struct{ name, value string }
		var got []pair
		w := Of(line)
		for w.Next() {
			var name string
			if json.Unmarshal(append(append([]byte{'"'}, w.Name...), '"'), &name) != nil {
				name = string(w.Name)
			}
			got = append(got, pair{name, string(w.Value)})
			if !bytes.HasPrefix(w.Text, []byte{'"'}) || !bytes.HasSuffix(w.Text, w.Value) {
				t.Fatalf("text %q of value %q", w.Text, w.Value)
			}
		}
		if !json.Valid(line) {
			return
		}
		d := json.NewDecoder(bytes.NewReader(line))
		if open, err := d.Token(); err != nil || open != json.Delim('{') {
			if !w.Bad {
				t.Fatalf("%q passes for an object", line)
			}
			return
		}
		if w.Bad {
			t.Fatalf("%q does not pass for an object", line)
		}
		for i := 0; d.More(); i++ {
			name, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				t.Fatal(err)
			}
			if i >= len(got) || got[i] != (pair{name.(string), string(value)}) {
				t.Fatalf("member %d of %q: %q, encoding/json says %q: %s", i, line, got, name, value)
			}
		}
	})
}
