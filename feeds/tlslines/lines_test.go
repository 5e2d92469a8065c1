package tlslines

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// cutAll cuts what comes in pieces, as a connection does, and gives the values,
// those that are bad with their reason behind a |.
func cutAll(limit int, pieces ...[]byte) (values []string, c *cutter) {
	c = &cutter{limit: limit}
	var buf []byte
	at := 0
	for i, p := range pieces {
		buf = append(buf, p...)
		at = c.cut(buf, at, i == len(pieces)-1)
	}
	for _, r := range c.take(buf, "peer") {
		v := string(r.Value)
		if r.Bad != "" {
			v += "|" + r.Bad
		}
		values = append(values, v)
	}
	return values, c
}

func TestCut(t *testing.T) {
	long := strings.Repeat("x", 3000)
	tooLong := "|line is longer than 1 KiB; this is its beginning"
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"nothing":                      {"", nil},
		"lines":                        {"{\"a\":1}\n{\"b\":2}\n", []string{`{"a":1}`, `{"b":2}`}},
		"the last without newline":     {"{\"a\":1}\n{\"b\":2}", []string{`{"a":1}`, `{"b":2}`}},
		"blank lines and CRLF":         {"\n\r\n{\"a\":1}\r\n \n{\"b\":2}\r\n\n", []string{`{"a":1}`, `{"b":2}`}},
		"a long line":                  {"{\"a\":1}\n{" + long + "}\n{\"b\":2}\n", []string{`{"a":1}`, "{" + long[:1023] + tooLong, `{"b":2}`}},
		"a long line that ends it":     {"{\"a\":1}\n{" + long, []string{`{"a":1}`, "{" + long[:1023] + tooLong}},
		"as long as may be, with CRLF": {long[:1024] + "\r\n{}\n", []string{long[:1024], "{}"}},
		"frames":                       {`7 {"a":1}7 {"b":2}`, []string{`{"a":1}`, `{"b":2}`}},
		"frames with newlines inside":  {"8 {\"a\":1}\n8 {\n\"b\":2}", []string{`{"a":1}`, "{\n\"b\":2}"}},
		"frames with newlines between": {"7 {\"a\":1}\n7 {\"b\":2}\n", []string{`{"a":1}`, `{"b":2}`}},
		"a frame cut off":              {`7 {"a":1}70 {"b":2}`, []string{`{"a":1}`, `{"b":2}|the connection ended in the middle of a frame: 7 of 70 bytes came`}},
		"a long frame":                 {"7 {\"a\":1}3002 {" + long + "}7 {\"b\":2}", []string{`{"a":1}`, "{" + long[:1023] + tooLong, `{"b":2}`}},
		"syslog frames":                {`66 <134>1 2026-01-01T00:00:00Z h app - - [x@1 a="]\" ["] ` + "\xef\xbb\xbf" + `{"a":1}`, []string{`{"a":1}`}},
		"a broken frame":               {"7 {\"a\":1}oops\n7 {\"b\":2}", []string{`{"a":1}`, "oops", `{"b":2}`}},
		"numbers that are no frame":    {"1795309107.123\tGET\t/\n12\tx\n", []string{"1795309107.123\tGET\t/", "12\tx"}},
		"a digit alone":                {"7", []string{"7"}},
		"lines of syslog":              {"<13>Oct 11 22:14:15 host tag[1]: {\"a\":1}\n<13>1 - - - - - - {\"b\":2}\n", []string{`{"a":1}`, `{"b":2}`}},
		"syslog without JSON":          {"<13>Oct 11 22:14:15 host hello\n", []string{"<13>Oct 11 22:14:15 host hello"}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "syslog frames" { // its length is counted here
				_, msg, _ := strings.Cut(c.in, " ")
				c.in = fmt.Sprintf("%d %s", len(msg), msg)
			}
			whole, _ := cutAll(1024, []byte(c.in))
			if !slices.Equal(whole, c.want) {
				t.Errorf("got %.300q\nwant %.300q", whole, c.want)
			}
			var single [][]byte
			for i := range len(c.in) {
				single = append(single, []byte{c.in[i]})
			}
			bytewise, _ := cutAll(1024, append(single, nil)...)
			if !slices.Equal(bytewise, c.want) {
				t.Errorf("byte by byte %.300q\nwant %.300q", bytewise, c.want)
			}
		})
	}
}

func TestPositions(t *testing.T) {
	c := &cutter{limit: 100}
	data := []byte("{}\n\n[]\n")
	c.cut(data, 0, false)
	rs := c.take(data, "192.0.2.1:77")
	c.done()
	if len(rs) != 2 || rs[0].Position != "192.0.2.1:77 line 1" || rs[1].Position != "192.0.2.1:77 line 3" {
		t.Errorf("%+v", rs)
	}
	more := []byte("{}\n")
	c.cut(more, 0, false)
	if rs := c.take(more, "192.0.2.1:77"); len(rs) != 1 || rs[0].Position != "192.0.2.1:77 line 4" {
		t.Errorf("%+v", rs)
	}
}

// However the bytes of a connection are split, the same records come of them.
func TestSplitsChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		item := rapid.OneOf(
			rapid.Map(rapid.IntRange(0, 90), func(n int) string { return "{" + strings.Repeat("a", n) + "}\n" }),
			rapid.Map(rapid.IntRange(0, 90), func(n int) string { return fmt.Sprintf("%d {%s}", n+2, strings.Repeat("b", n)) }),
			rapid.SampledFrom([]string{"\n", "\r\n", "x", "7 ", "99999999999 {", "<13>1 - - - - - [a b=\"]\"] {}\n", "<1>{", "12"}),
		)
		all := []byte(strings.Join(rapid.SliceOfN(item, 0, 12).Draw(t, "items"), ""))
		whole, _ := cutAll(40, all)
		var pieces [][]byte
		for rest := all; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		split, c := cutAll(40, append(pieces, nil)...)
		if !slices.Equal(whole, split) {
			t.Fatalf("%q\nwhole %q\nsplit %q", all, whole, split)
		}
		for _, p := range c.found {
			if p.to-p.from > 42 {
				t.Fatalf("a record of %d bytes", p.to-p.from)
			}
		}
	})
}

func FuzzCut(f *testing.F) {
	f.Add([]byte("7 {\"a\":1}\n{}\n<13>1 - - - - - [a b=\"]\"] {}"), 3)
	f.Fuzz(func(t *testing.T, data []byte, at int) {
		at = min(max(at, 0), len(data))
		values, _ := cutAll(64, data[:at], data[at:])
		total := 0
		for _, v := range values {
			v, _, _ = strings.Cut(v, "|")
			total += len(v)
		}
		if total > len(data) || !bytes.Contains(data, []byte(strings.Split(strings.Join(values, "|"), "|")[0])) {
			t.Errorf("%d bytes of records out of %d", total, len(data))
		}
	})
}

func BenchmarkCut(b *testing.B) {
	line := `{"event_id":"gen-1-1","tenant_id":"t0001","x":"` + strings.Repeat("y", 580) + "\"}\n"
	data := []byte(strings.Repeat(line, 800))
	c := &cutter{limit: 256 << 10}
	b.ReportAllocs()
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		c.cut(data, 0, false)
		c.take(data, "192.0.2.1:77")
		c.done()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/800, "ns/line")
}
