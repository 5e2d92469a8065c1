package firehose

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// body is a delivery of records.
func body(records ...string) []byte {
	var b strings.Builder
	b.WriteString(`{"requestId":"r","timestamp":1578090901599,"records":[`)
	for i, r := range records {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"data":%q}`, base64.StdEncoding.EncodeToString([]byte(r)))
	}
	return []byte(b.String() + `]}`)
}

// records are what Decode makes of a body, as text.
func records(b []byte) ([]string, error) {
	data, ends, err := Decode(bytes.Clone(b))
	var list []string
	from := 0
	for _, to := range ends {
		list = append(list, string(data[from:to]))
		from = to
	}
	return list, err
}

func TestDecode(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"the documentation's", `{"requestId":"ed4acda5-034f-9f42-bba1-f29aea6d7d8f","timestamp":1578090901599,"records":[{"data":"aGVsbG8="},{"data":"aGVsbG8gd29ybGQ="}]}`, []string{"hello", "hello world"}},
		{"empty records", string(body("", "a", "")), []string{"", "a", ""}},
		{"none", string(body()), nil},
		{"long ones", string(body(long, "b", long)), []string{long, "b", long}},
		{"strangers", `{"new":{"records":[1]},"records":[{"x":[{"data":"no"}],"data":"YQ==","y":1},{}],"data":"YQ=="}`, []string{"a"}},
		{"escapes", `{"records":[{"data":"\u0059\u0051=="},{"data":"Pz8\/"}]}`, []string{"a", "???"}},
		{"not base64", `{"records":[{"data":"{\"a\":1}"},{"data":"YQ=="},{"data":{"messageType":"x"}},{"data":null},{"data":"****"}]}`, []string{`{"a":1}`, "a", `{"messageType":"x"}`, "null", "****"}},
	} {
		got, err := records([]byte(c.body))
		if err != nil || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) {
			t.Errorf("%s: %.200q %v", c.name, got, err)
		}
	}
	for _, b := range []string{"", "7", "[]", "{}", `{"records":{}}`, `{"records":[7]}`, `{"records":[{"data":"YQ=="}`, `{"records":[{"data":"YQ=="]}`, `{"requestId":"r"}`} {
		if got, err := records([]byte(b)); err == nil || got != nil {
			t.Errorf("%s: %q %v", b, got, err)
		}
	}
}

func TestAppendAnswer(t *testing.T) {
	if got := string(AppendAnswer(nil, "ed4a", 1578090903599, "")); got != `{"requestId":"ed4a","timestamp":1578090903599}` {
		t.Error(got)
	}
	var a struct{ RequestID, ErrorMessage string }
	got := AppendAnswer(nil, "a\"b\n", 1, strings.Repeat("é", 9000))
	if err := json.Unmarshal(got, &a); err != nil || a.RequestID != "a\"b\n" || len(a.ErrorMessage) < maxMessage || len(got) > 8192 {
		t.Errorf("%v %s", err, got)
	}
}

// FuzzDecode: never more than came, and what encoding/json says of good bodies.
func FuzzDecode(f *testing.F) {
	f.Add(body("hello", "", `{"a":1}`))
	f.Add([]byte(`{"records":[{"data":"\u0059Q==","data":"YQ"},{"data":"\ud800é"}]}`))
	f.Add([]byte("{\"records\":[{\"data\":\"\xff\xfe\\u0041\"}]}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		data, ends, err := Decode(bytes.Clone(b))
		if err == nil && len(data) > len(b) {
			t.Fatalf("%d bytes became %d", len(b), len(data))
		}
		from := 0
		for _, to := range ends {
			if to < from {
				t.Fatalf("%v", ends)
			}
			from = to
		}
		if err == nil && from != len(data) {
			t.Fatalf("%v of %d", ends, len(data))
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	one := body(strings.Repeat(strings.Repeat("x", 1300)+"\n", 1000))
	buffer := make([]byte, len(one))
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buffer, one)
		if _, _, err := Decode(buffer); err != nil {
			b.Fatal(err)
		}
	}
}
