package parquet_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
	"pgregory.net/rapid"

	"datasync/formats/formatstest"
	"datasync/formats/parquet"
	"datasync/schemas"
)

// tb is what testing.T and rapid.T have in common.
type tb interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// encode makes a file of lines.
func encode(t tb, o parquet.Options, lines []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	e, err := parquet.NewEncoder(&out, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Write(lines); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func open(t tb, file []byte) *pq.File {
	t.Helper()
	f, err := pq.OpenFile(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func read[T any](t tb, file []byte) []T {
	t.Helper()
	r := pq.NewGenericReader[T](bytes.NewReader(file))
	defer r.Close()
	rows := make([]T, r.NumRows())
	if n, err := r.Read(rows); n != len(rows) || err != nil && err != io.EOF {
		t.Fatalf("read %d of %d rows: %v", n, len(rows), err)
	}
	return rows
}

// decoded is the rows that must come back of lines.
func decoded(t tb, lines []byte) (rows []row) {
	t.Helper()
	for line := range bytes.Lines(lines) {
		var e schemas.Event
		if err := schemas.Decode(line[:len(line)-1], &e); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, rowOf(&e))
	}
	return rows
}

func compare(t tb, want, got []row) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d rows came back of %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(want[i], got[i]) {
			w, _ := json.Marshal(want[i])
			g, _ := json.Marshal(got[i])
			t.Fatalf("row %d came back as\n%s\nwas\n%s", i, g, w)
		}
	}
}

// fill draws a value into v: every exported field absent or present, so that
// all kinds of nulls meet.
func fill(t *rapid.T, v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Struct:
		if ok := v.FieldByName("OK"); ok.IsValid() {
			if !rapid.Bool().Draw(t, name+" present") {
				return
			}
			ok.SetBool(true)
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != "OK" {
				fill(t, v.Field(i), f.Name)
			}
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 3).Draw(t, name+" length")
		for range n {
			item := reflect.New(v.Type().Elem()).Elem()
			fill(t, item, name)
			v.Set(reflect.Append(v, item))
		}
	case reflect.String:
		if name == "Extra" || name == "Unmapped" {
			v.SetString(rapid.SampledFrom([]string{"", `{"k":[1,null,"é"]}`, `{"a.b":{"c":"\""}}`}).Draw(t, name))
			return
		}
		v.SetString(rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, name) + rapid.StringN(0, 4, -1).Filter(utf8.ValidString).Draw(t, name+" end"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, name))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(-1e9, 1e9).Draw(t, name))
	case reflect.Int8:
		v.SetInt(int64(rapid.Int8().Draw(t, name)))
	case reflect.Int64:
		v.SetInt(int64(rapid.Int32().Draw(t, name)))
	default:
		t.Fatalf("%s: no way to draw a %s", name, v.Kind())
	}
}

// TestReadBack: what a reader finds is what the events say, nulls as nulls, for
// any events in any pattern.
func TestReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kinds := make([]schemas.Event, rapid.IntRange(1, 4).Draw(t, "kinds"))
		for i := range kinds {
			fill(t, reflect.ValueOf(&kinds[i]).Elem(), "event")
		}
		n := rapid.IntRange(0, 300).Draw(t, "events")
		rare := rapid.IntRange(1, 300).Draw(t, "one in")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		var lines []byte
		for range n {
			k := 0
			if r.IntN(rare) == 0 {
				k = r.IntN(len(kinds))
			}
			lines = append(schemas.AppendJSON(lines, &kinds[k]), '\n')
		}
		o := parquet.Options{Compression: rapid.SampledFrom([]string{"none", "snappy", "zstd"}).Draw(t, "compression")}
		compare(t, decoded(t, lines), read[row](t, encode(t, o, lines)))
	})
}

// TestSparse is the pattern in which the library's own way from structs gives
// zeros for nulls: a lone value at place y of 64.
func TestSparse(t *testing.T) {
	for _, y := range []int{0, 1, 2, 5, 16, 31, 32, 33, 63, 64, 65, 66} {
		events := make([]schemas.Event, 200)
		events[y].ClientIP = "192.0.2.1"
		events[y].HTTPStatus = schemas.Int{OK: true}
		events[y].Decision.OK = true
		lines := formatstest.Lines(events)
		compare(t, decoded(t, lines), read[row](t, encode(t, parquet.Options{}, lines)))
	}
}

// TestOutgrownDictionary: a column that was thought to have few values and has
// many reads back the same, and does not show in the next file.
func TestOutgrownDictionary(t *testing.T) {
	first := encode(t, parquet.Options{}, formatstest.Lines(formatstest.Events(1, 300)))
	events := formatstest.Events(2, 6000)
	for i := range events {
		events[i].RuleName = fmt.Sprintf("%0200d", i)
		if i%3 == 0 {
			events[i].RuleName = ""
		}
		events[i].Meta.OK = true
		events[i].Meta.Labels = []string{fmt.Sprintf("%0150d", i), fmt.Sprintf("%0150d", i+1)}
	}
	lines := formatstest.Lines(events)
	for range 2 {
		compare(t, decoded(t, lines), read[row](t, encode(t, parquet.Options{}, lines)))
		e, err := parquet.NewEncoder(io.Discard, parquet.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Write(lines); err != nil {
			t.Fatal(err)
		}
		e.Abandon() // in the middle of a column without a dictionary
		again := encode(t, parquet.Options{}, formatstest.Lines(formatstest.Events(1, 300)))
		if !bytes.Equal(first, again) {
			t.Fatal("a file depends on the one before it")
		}
	}
}

// TestDictionaryThatDoesNotPay: a column of values that do not come again goes on
// without its dictionary, one of values that do keeps it.
func TestDictionaryThatDoesNotPay(t *testing.T) {
	lines := formatstest.Lines(formatstest.Events(9, 6000))
	file := encode(t, parquet.Options{}, lines)
	compare(t, decoded(t, lines), read[row](t, file))
	pages := map[string][]format.PageEncodingStats{}
	for _, c := range open(t, file).Metadata().RowGroups[0].Columns {
		pages[strings.Join(c.MetaData.PathInSchema, ".")] = c.MetaData.EncodingStats
	}
	dictionary := format.PageEncodingStats{PageType: format.DictionaryPage, Encoding: format.Plain, Count: 1}
	plain := format.PageEncodingStats{PageType: format.DataPage, Encoding: format.Plain, Count: 1}
	numbers := format.PageEncodingStats{PageType: format.DataPage, Encoding: format.RLEDictionary, Count: 1}
	for name, want := range map[string][]format.PageEncodingStats{
		"session_id":  {dictionary, {PageType: format.DataPage, Encoding: format.Plain, Count: 2}, numbers},
		"http_path":   {dictionary, numbers},
		"source":      {dictionary, numbers},
		"client_fp":   {plain}, // nulls alone: no dictionary
		"severity":    {plain},
		"http_status": {plain},
	} {
		if got := pages[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestRowGroups: at most 128k rows and 32 MiB of lines each, in the given order.
func TestRowGroups(t *testing.T) {
	for _, c := range []struct {
		name        string
		events, pad int
		groups      []int64
	}{
		{"by rows", 131072 + 500, 0, []int64{131072, 500}},
		{"by bytes", 1200, 200_000 / 4 * 3, []int64{223, 223, 223, 223, 223, 85}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := schemas.Event{Extra: fmt.Sprintf(`{"pad":%q}`, strings.Repeat("x", c.pad))}
			if c.pad == 0 {
				e.Extra = ""
			}
			var out bytes.Buffer
			enc, err := parquet.NewEncoder(&out, parquet.Options{Fields: []string{"event_id"}})
			if err != nil {
				t.Fatal(err)
			}
			var line []byte
			for i := range c.events {
				e.EventID = fmt.Sprintf("%07d", i)
				line = append(schemas.AppendJSON(line[:0], &e), '\n')
				if err := enc.Write(line); err != nil {
					t.Fatal(err)
				}
			}
			if err := enc.Close(); err != nil {
				t.Fatal(err)
			}
			var groups []int64
			for _, g := range open(t, out.Bytes()).RowGroups() {
				groups = append(groups, g.NumRows())
			}
			if !reflect.DeepEqual(groups, c.groups) {
				t.Errorf("row groups of %v rows, expected %v", groups, c.groups)
			}
			for i, r := range read[struct {
				ID string `parquet:"event_id"`
			}](t, out.Bytes()) {
				if r.ID != fmt.Sprintf("%07d", i) {
					t.Fatalf("row %d is event %s", i, r.ID)
				}
			}
		})
	}
}

// TestPages: no page of data above 1 MiB, whatever the events.
func TestPages(t *testing.T) {
	events := formatstest.Events(4, 800)
	for i := range events {
		events[i].RequestID = strings.Repeat("u", i%7*4000)
		if i%50 == 0 {
			events[i].CorrelationID = strings.Repeat("q", 240<<10)
			events[i].HTTPQuery = fmt.Sprint(i, strings.Repeat("q", 120<<10))
		}
	}
	file := encode(t, parquet.Options{}, formatstest.Lines(events))
	f := open(t, file)
	compare(t, decoded(t, formatstest.Lines(events)), read[row](t, file))
	file = encode(t, parquet.Options{Compression: "none"}, formatstest.Lines(events))
	pages := 0
	for i, index := range open(t, file).OffsetIndexes() {
		for _, p := range index.PageLocations {
			if pages++; p.CompressedPageSize > 1<<20 {
				t.Errorf("column chunk %d has a page of %d bytes", i, p.CompressedPageSize)
			}
		}
	}
	if columns := len(f.Schema().Columns()); pages <= columns {
		t.Errorf("%d pages in %d columns: the events were too small to tell", pages, columns)
	}
}

// TestSchema: the types that readers rely on, in the order of the event.
func TestSchema(t *testing.T) {
	f := open(t, encode(t, parquet.Options{}, formatstest.Lines(formatstest.Events(5, 400))))
	var top []string
	for _, c := range f.Root().Columns() {
		top = append(top, c.Name())
	}
	var want []string
	for _, field := range schemas.Fields() {
		want = append(want, field.Name)
	}
	if want = append(want, "extra"); !reflect.DeepEqual(top, want) {
		t.Errorf("columns %v\nexpected %v", top, want)
	}
	text := parquet.Schema()
	for _, line := range []string{
		"required binary event_id (STRING);", "required int64 event_time (TIMESTAMP(isAdjustedToUTC=true,unit=MILLIS));",
		"required int32 severity (INT(8,true));", "required boolean enforced;", "optional int32 http_status (INT(32,true));",
		"optional int64 client_asn (INT(64,true));", "optional double score;", "optional binary extra (STRING);",
		"optional group tactics (LIST) {", "optional group matches (LIST) {", "repeated group list {", "required binary element (STRING);", "required group element {",
		"optional int64 first_seen (TIMESTAMP(isAdjustedToUTC=true,unit=MILLIS));",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the schema has no %q:\n%s", line, text)
		}
	}
	for _, g := range f.Metadata().RowGroups {
		for _, c := range g.Columns {
			for _, e := range c.MetaData.Encoding {
				if e != format.Plain && e != format.RLE && e != format.RLEDictionary {
					t.Errorf("%v is encoded as %v, which some readers cannot read", c.MetaData.PathInSchema, e)
				}
			}
			if c.MetaData.PathInSchema[0] == "" || c.MetaData.Codec != format.Uncompressed {
				t.Errorf("%v: codec %v", c.MetaData.PathInSchema, c.MetaData.Codec)
			}
		}
	}
	if by := f.Metadata().CreatedBy; by != "datasync version 1.0.0(build parquet-go)" {
		t.Errorf("created by %q", by)
	}
}

// TestFields: a projection has its columns alone, with the same values.
func TestFields(t *testing.T) {
	lines := formatstest.Lines(formatstest.Events(6, 500))
	file := encode(t, parquet.Options{Compression: "zstd", Fields: []string{"net", "client_ip", "event_time"}}, lines)
	var names []string
	for _, path := range open(t, file).Schema().Columns() {
		names = append(names, strings.Join(path, "."))
	}
	if got := strings.Join(names, " "); got != "event_time client_ip net.dst_ip net.dst_port net.transport net.direction net.payload_b64" {
		t.Errorf("columns %s", got)
	}
	type part struct {
		EventTime int64   `parquet:"event_time"`
		ClientIP  *string `parquet:"client_ip,optional"`
		Net       *netRow `parquet:"net"`
	}
	for i, r := range read[part](t, file) {
		w := decoded(t, lines)[i : i+1][0]
		if !reflect.DeepEqual(r, part{w.EventTime, w.ClientIP, w.Net}) {
			t.Fatalf("row %d differs", i)
		}
		if i > 20 {
			break
		}
	}
	if err := parquet.CheckFields([]string{"event_id", "http_verb"}); err == nil || !strings.Contains(err.Error(), "http_method") {
		t.Errorf("an unknown field gives %v", err)
	}
}

// TestBadLines: what is no event ends the file with an error that says where.
func TestBadLines(t *testing.T) {
	good := formatstest.Lines(formatstest.Events(7, 3))
	for _, bad := range []string{"{\n", "[]\n", `{"event_time":"x"}` + "\n", strings.Repeat("x", 800<<10) + "\n"} {
		e, err := parquet.NewEncoder(io.Discard, parquet.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = e.Write(append(good[:len(good):len(good)], bad...))
		if err == nil || len(bad) < 100 && !strings.Contains(err.Error(), "event 3") {
			t.Errorf("%.30q: %v", bad, err)
		}
		if e.Close() == nil {
			t.Errorf("%.30q: the file was ended", bad)
		}
	}
}
