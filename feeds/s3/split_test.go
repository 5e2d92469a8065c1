package s3feed

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// splitAll cuts what comes in pieces and gives the values, those that are bad
// with their reason behind a |.
func splitAll(limit int, pieces ...string) (values []string, s *splitter) {
	s = &splitter{limit: limit}
	var buf []byte
	at := 0
	for i, p := range pieces {
		buf = append(buf, p...)
		at = s.cut(buf, at, i == len(pieces)-1)
	}
	for _, p := range s.found {
		v := string(buf[p.from:p.to])
		if p.bad != "" {
			v += "|" + p.bad
		}
		values = append(values, strings.TrimSpace(v))
	}
	return values, s
}

func TestSplit(t *testing.T) {
	long := strings.Repeat("x", 2000)
	tooLong := "|record is longer than 1 KiB; this is its beginning"
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"nothing":                    {"", nil},
		"blanks":                     {" \n\r\n", nil},
		"lines":                      {"{\"a\":1}\r\n\n{\"b\":2}\n", []string{`{"a":1}`, `{"b":2}`}},
		"no last newline":            {"{\"a\":1}\n{\"b\":2}", []string{`{"a":1}`, `{"b":2}`}},
		"a BOM":                      {"\xef\xbb\xbf{\"a\":1}\n{\"b\":2}\n", []string{`{"a":1}`, `{"b":2}`}},
		"a broken line among lines":  {"{\"a\":1}\n{\"b\":\n{\"c\":\"]\n{\"d\":4}\n", []string{`{"a":1}`, `{"b":`, `{"c":"]`, `{"d":4}`}},
		"a broken first line":        {"{\"a\":\"\n{\"b\":2}\n", []string{`{"a":"`, `{"b":2}`}},
		"tab separated":              {"#Version: 1.0\n2026\tx\n", []string{"#Version: 1.0", "2026\tx"}},
		"an array":                   {` [{"a":"]}\"["}, {"b":[1,{}]} ,7,"x,y",true] `, []string{`{"a":"]}\"["}`, `{"b":[1,{}]}`, "7", `"x,y"`, "true"}},
		"an array with a BOM":        {"\xef\xbb\xbf[1,2]", []string{"1", "2"}},
		"arrays one after another":   {"[1]\n[2,3]\n", []string{"1", "[2,3]"}},
		"arrays in an array":         {"[[1,2],[3]]", []string{"[1,2]", "[3]"}},
		"an empty array":             {"[]", nil},
		"over many lines":            {"{\n \"a\": {\"x\": \"}\"}\n}\n{\n \"b\": 2\n}\n", []string{"{\n \"a\": {\"x\": \"}\"}\n}", "{\n \"b\": 2\n}"}},
		"one after another":          {"{\"a\":1}{\"b\":2} {\"c\":3}\n{\"d\":4}", []string{`{"a":1}`, `{"b":2}`, `{"c":3}`, `{"d":4}`}},
		"cut off in a value":         {"[{\"a\":1},{\"b\":", []string{`{"a":1}`, `{"b":|the object ends in the middle of a value`}},
		"stray brackets":             {"[{\"a\":1}}]5}", []string{`{"a":1}`, "}", "5", "}"}},
		"a long line":                {"{}\n" + long + "\n{\"b\":2}\n", []string{"{}", long[:1024] + tooLong, `{"b":2}`}},
		"a long last line":           {"{}\n" + long, []string{"{}", long[:1024] + tooLong}},
		"a long element":             {`[{"a":"` + long + `"},{"b":2}]`, []string{`{"a":"` + long[:1018] + tooLong, `{"b":2}`}},
		"a long element without end": {`[{"a":"` + long, []string{`{"a":"` + long[:1018] + tooLong}},
	} {
		t.Run(name, func(t *testing.T) {
			whole, _ := splitAll(1024, c.in)
			if !slices.Equal(whole, c.want) {
				t.Errorf("got %.300q\nwant %.300q", whole, c.want)
			}
			bytewise, _ := splitAll(1024, append(strings.Split(c.in, ""), "")...)
			if !slices.Equal(bytewise, c.want) {
				t.Errorf("byte by byte %.300q\nwant %.300q", bytewise, c.want)
			}
		})
	}
}

// However an object's bytes come, the same records are cut out of them.
func TestSplitsOfAnObjectChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		item := rapid.OneOf(
			rapid.Map(rapid.IntRange(0, 90), func(n int) string { return `{"a":"` + strings.Repeat("a", n) + `"}` }),
			rapid.SampledFrom([]string{"\n", "\r\n", "[", "]", ",", "{", "}", `"`, `\`, " ", "5", "x", "\xef\xbb\xbf", `{"b":[1,"]"]}`}),
		)
		all := strings.Join(rapid.SliceOfN(item, 0, 14).Draw(t, "items"), "")
		whole, _ := splitAll(40, all)
		var pieces []string
		for rest := all; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		split, _ := splitAll(40, append(pieces, "")...)
		if !slices.Equal(whole, split) {
			t.Fatalf("%q\nwhole %q\nsplit %q", all, whole, split)
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add(`[{"a":1},{"b":"]"}]`, 3)
	f.Add("{\"a\":1}\n{\"b\":\n", 9)
	f.Fuzz(func(t *testing.T, data string, at int) {
		at = min(max(at, 0), len(data))
		values, s := splitAll(64, data[:at], data[at:])
		end := 0
		for _, p := range s.found {
			if p.from < end || p.to < p.from || p.to-p.from > 66 || p.next < p.to && p.bad == "" {
				t.Fatalf("piece %+v behind %d of %q (%q)", p, end, data, values)
			}
			end = p.to
		}
	})
}

func TestAnnounced(t *testing.T) {
	direct := `{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","awsRegion":"eu-west-1","s3":{"bucket":{"name":"b"},"object":{"key":"a+b/%C3%A4.gz","eTag":"e1","versionId":"v1","size":7}}},
		{"eventSource":"aws:s3","eventName":"ObjectRemoved:Delete","s3":{"bucket":{"name":"b"},"object":{"key":"gone"}}}]}`
	want := []object{{"b", "a b/ä.gz", "v1", "e1", "eu-west-1"}}
	bridged := `{"version":"0","source":"aws.s3","detail-type":"Object Created","region":"eu-west-1","detail":{"bucket":{"name":"b"},"object":{"key":"a+b.gz","etag":"e1","version-id":"v1"}}}`
	for name, c := range map[string]struct {
		body string
		want []object
		bad  bool
	}{
		"direct":       {direct, want, false},
		"through SNS":  {fmt.Sprintf(`{"Type":"Notification","Message":%q}`, strings.ReplaceAll(direct, "\n\t\t", "")), want, false},
		"EventBridge":  {bridged, []object{{"b", "a+b.gz", "v1", "e1", "eu-west-1"}}, false},
		"a test":       {`{"Service":"Amazon S3","Event":"s3:TestEvent","Bucket":"b"}`, nil, false},
		"a deletion":   {strings.Replace(bridged, "Object Created", "Object Deleted", 1), nil, false},
		"no JSON":      {`hello`, nil, true},
		"something":    {`{"hello":1}`, nil, true},
		"other source": {`{"Records":[{"eventSource":"aws:sqs"}]}`, nil, true},
		"no key":       {`{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"b"}}}]}`, nil, true},
		"SNS of SNS":   {`{"Type":"Notification","Message":"{\"Type\":\"Notification\",\"Message\":\"x\"}"}`, nil, true},
		"bad escapes":  {strings.Replace(direct, "%C3", "%ZZ", 1), nil, true},
		"a list":       {`[1]`, nil, true},
		"no bucket":    {strings.Replace(bridged, `"name":"b"`, `"name":""`, 1), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := announced([]byte(c.body))
			if !slices.Equal(got, c.want) || (err != nil) != c.bad {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	a, b := object{Bucket: "b", Key: "k", ETag: "1"}, object{Bucket: "b", Key: "k", ETag: "2"}
	if a.id() == b.id() || a.id() != (object{Bucket: "b", Key: "k", ETag: `"1"`, Region: "x"}).id() {
		t.Error("an object's id does not stand for its content")
	}
}
