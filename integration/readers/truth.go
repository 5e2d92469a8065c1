package readers

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The formats, as requests name them.
const (
	parquet = "parquet"
	ndjson  = "ndjson"
)

// apart are the columns that a row's digest leaves out, since a source's line
// may not say them: the product sets the one, and events generated anew have
// another value of the other. They are compared all the same.
var apart = []string{"event_time", "ingest_time"}

// Truth is what readers are to find of events: a digest of each, and its times.
type Truth struct {
	t       testing.TB
	of      map[string][]column // by format
	retimed bool
	events  map[string]*event
	paths   []string
	text    []byte // of the event that is being added
}

// event is one of a Truth. Its times are 0 until somebody has said them; all
// who read it afterwards must say the same.
type event struct {
	tenant  string
	path    int    // of its line, in paths
	row     []byte // its line, where it is in no file
	digests [2]digest
	times   [2]int64
	seen    [2]int // by DuckDB and by pyarrow, in one check
}

type digest [8]byte

// Options say what a Truth knows. The zero value: every column, times as the
// lines have them.
type Options struct {
	Fields []string // the columns of a projection
	// Retimed says that the lines were generated anew: their event_time is
	// another. Then whatever is read first must be read everywhere.
	Retimed bool
}

// NewTruth makes one without events.
func NewTruth(t testing.TB, o Options) *Truth {
	all := columns(o.Fields)
	return &Truth{t: t, of: map[string][]column{parquet: all, ndjson: withoutText(all)}, retimed: o.Retimed, events: map[string]*event{}}
}

// withoutText leaves out what is text in Parquet and an object in JSON.
func withoutText(of []column) (out []column) {
	for _, c := range of {
		if c.Type != "json" {
			c.Members = withoutText(c.Members)
			out = append(out, c)
		}
	}
	return out
}

// AddFile adds the events of a file of canonical lines.
func (u *Truth) AddFile(path string) *Truth {
	u.t.Helper()
	f, err := os.Open(path)
	if err != nil {
		u.t.Fatal(err)
	}
	defer f.Close()
	u.paths = append(u.paths, path)
	d := json.NewDecoder(bufio.NewReaderSize(f, 1<<20))
	d.UseNumber()
	for {
		var v map[string]any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return u
		} else if err != nil {
			u.t.Fatalf("%s: %v", path, err)
		}
		u.add(v, &event{path: len(u.paths) - 1})
	}
}

// Add adds one event, as a reader of Parquet is to find it: a line that has
// the texts of extra and of meta.unmapped as strings.
func (u *Truth) Add(row string) {
	u.t.Helper()
	u.add(u.decode([]byte(row)), &event{row: []byte(row)})
}

func (u *Truth) add(v map[string]any, e *event) {
	u.t.Helper()
	id, _ := v["event_id"].(string)
	if id == "" || u.events[id] != nil {
		u.t.Fatalf("no id, or one that was there before: %.200v", v)
	}
	tenant, _ := v["tenant_id"].(string)
	e.tenant = strings.Clone(tenant)
	for i, format := range []string{parquet, ndjson} {
		u.text = u.text[:0]
		if err := canonical(u.of[format], v, func(c *column, v any) (err error) {
			u.text, err = c.append(u.text, v, format)
			return err
		}); err != nil {
			u.t.Fatalf("event %s: %v", id, err)
		}
		sum := md5.Sum(u.text)
		e.digests[i] = digest(sum[:8])
	}
	for i, name := range apart {
		if n, ok := v[name].(json.Number); ok && !(u.retimed && name == "event_time") && u.has(name) {
			e.times[i], _ = n.Int64() // a whole number, or intake would not have taken it
		}
	}
	u.events[id] = e
}

func (u *Truth) has(name string) bool {
	return slices.ContainsFunc(u.of[ndjson], func(c column) bool { return c.Name == name })
}

func (u *Truth) decode(line []byte) map[string]any {
	u.t.Helper()
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		u.t.Fatalf("%v: %.200q", err, line)
	}
	return v
}

// texts are an event's canonical texts by column, made again from its line.
func (u *Truth) texts(id, format string) []string {
	u.t.Helper()
	e := u.events[id]
	line := e.row
	if line == nil {
		text, err := os.ReadFile(u.paths[e.path])
		if err != nil {
			u.t.Fatal(err)
		}
		at := bytes.Index(text, []byte(`"event_id":"`+id+`"`))
		line = text[bytes.LastIndexByte(text[:at], '\n')+1:]
		line, _, _ = bytes.Cut(line, []byte("\n"))
	}
	var texts []string
	if err := canonical(u.of[format], u.decode(line), func(c *column, v any) error {
		text, err := c.append(nil, v, format)
		texts = append(texts, string(text))
		return err
	}); err != nil {
		u.t.Fatal(err)
	}
	return texts
}

// canonical calls with every column but those apart, and an event's value.
func canonical(of []column, v map[string]any, call func(c *column, v any) error) error {
	for i := range of {
		if c := &of[i]; !slices.Contains(apart, c.Name) {
			if err := call(c, v[c.Name]); err != nil {
				return err
			}
		}
	}
	return nil
}

// append appends a value's canonical text, as duckdb.mjs describes it. No value
// is null; in Parquet so are an empty string and an empty list, in NDJSON they
// stay what they are.
func (c *column) append(b []byte, v any, format string) ([]byte, error) {
	switch x := v.(type) {
	case nil:
		return append(b, '-'), nil
	case string:
		if c.Type == "string" || c.Type == "json" {
			if x == "" && format == parquet {
				return append(b, '-'), nil
			}
			return appendString(b, x), nil
		}
	case bool:
		if c.Type == "bool" && x {
			return append(b, "b1"...), nil
		} else if c.Type == "bool" {
			return append(b, "b0"...), nil
		}
	case json.Number:
		return c.appendNumber(b, x)
	case map[string]any:
		if c.Type == "struct" {
			return c.appendMembers(b, x, format)
		}
	case []any:
		if c.Type == "list" || c.Type == "structs" {
			return c.appendList(b, x, format)
		}
	}
	return b, fmt.Errorf("%s is %T, not %s", c.Name, v, c.Type)
}

// appendString appends a string with its length.
func appendString(b []byte, s string) []byte {
	return append(append(strconv.AppendInt(b, int64(len(s)), 10), ':'), s...)
}

var bits = map[string]int{"int8": 8, "int32": 32, "int64": 64, "time": 64}

func (c *column) appendNumber(b []byte, n json.Number) ([]byte, error) {
	if c.Type == "double" {
		f, err := n.Float64()
		return strconv.AppendInt(append(b, 'f'), int64(math.Float64bits(f)), 10), err
	}
	i, err := strconv.ParseInt(n.String(), 10, max(bits[c.Type], 1))
	if bits[c.Type] == 0 || err != nil {
		return b, fmt.Errorf("%s is %s, not %s", c.Name, n, c.Type)
	}
	mark := byte('i')
	if c.Type == "time" {
		mark = 't'
	}
	return strconv.AppendInt(append(b, mark), i, 10), nil
}

// appendList appends a list: its elements are strings that stay as they are, or objects.
func (c *column) appendList(b []byte, items []any, format string) (_ []byte, err error) {
	if len(items) == 0 && format == parquet {
		return append(b, '-'), nil
	}
	b = append(strconv.AppendInt(append(b, 'l'), int64(len(items)), 10), '(')
	for _, item := range items {
		text, isText := item.(string)
		object, isObject := item.(map[string]any)
		switch {
		case isText && c.Type == "list":
			b = appendString(b, text)
		case isObject && c.Type == "structs":
			b, err = c.appendMembers(b, object, format)
		default:
			err = fmt.Errorf("%s holds a %T", c.Name, item)
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

// appendMembers appends an object's.
func (c *column) appendMembers(b []byte, v map[string]any, format string) (_ []byte, err error) {
	b = append(b, 'o')
	for i := range c.Members {
		m := &c.Members[i]
		if b, err = m.append(b, v[m.Name], format); err != nil {
			return b, err
		}
	}
	return b, nil
}

func parseDigest(s string) (d digest, err error) {
	if hex.DecodedLen(len(s)) != len(d) {
		return d, fmt.Errorf("%q is no digest", s)
	}
	_, err = hex.Decode(d[:], []byte(s))
	return d, err
}
