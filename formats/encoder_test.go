package formats_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"datasync/formats"
	"datasync/formats/formatstest"
	"datasync/schemas"
)

var update = flag.Bool("update", false, "write the golden files of this version anew")

// all is every pair of a format and a compression, and the other options.
var all = []formats.Options{
	{},
	{Format: formats.NDJSON, Compression: formats.None},
	{Format: formats.NDJSON, Compression: formats.Gzip, Level: 6},
	{Format: formats.NDJSON, Compression: formats.Zstd},
	{Format: formats.NDJSON, Compression: formats.Zstd, Level: 7},
	{Format: formats.NDJSON, Compression: formats.None, Fields: []string{"event_id", "client_ip"}},
	{Format: formats.NDJSON, Compression: formats.Gzip, Fields: []string{"event_id", "client_ip"}},
	{Format: formats.Parquet},
	{Format: formats.Parquet, Compression: formats.None},
	{Format: formats.Parquet, Compression: formats.Snappy},
	{Format: formats.Parquet, Compression: formats.Zstd, Level: 3},
	{Format: formats.Parquet, Fields: []string{"client_ip", "event_id", "extra", "net", "matches"}},
}

func name(o formats.Options) string {
	o = o.WithDefaults()
	s := fmt.Sprintf("%s-%s-%d", o.Format, o.Compression, o.Level)
	if len(o.Fields) > 0 {
		s += "-" + strings.Join(o.Fields, "+")
	}
	return s
}

func starter(o formats.Options) formatstest.New {
	return func(w io.Writer) (formats.Encoder, error) { return formats.NewEncoder(w, o) }
}

func TestSuite(t *testing.T) {
	lines := formatstest.Lines(formatstest.Events(3, 600))
	for _, o := range all {
		if o.Level != 0 {
			continue // the same code: the golden sums and compress's own tests have the levels
		}
		t.Run(name(o), func(t *testing.T) { formatstest.Suite(t, starter(o), lines) })
	}
}

// TestGolden holds the bytes of this version to those that were once delivered
// under it: a retry of a drop must find its own object. When it fails, the
// change needs a new formats.Version, and then -update.
func TestGolden(t *testing.T) {
	dir := filepath.Join("testdata", fmt.Sprintf("v%d", formats.Version))
	input := filepath.Join(dir, "sample.ndjson")
	sums := filepath.Join(dir, "sha256.txt")
	if *update {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(input, formatstest.Lines(formatstest.Events(42, 60)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := os.ReadFile(input)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	many := bytes.Repeat(lines, 64) // over all chunks, windows and pages
	for _, o := range all {
		if o.Compression == formats.Snappy && runtime.GOARCH != "amd64" {
			continue // the library finds other matches in Go than in assembler
		}
		for i, in := range [][]byte{lines, many} {
			object := formatstest.Encode(t, starter(o), in, 0)
			sum := sha256.Sum256(object)
			fmt.Fprintf(&got, "%s  %s%s  %d bytes\n", hex.EncodeToString(sum[:]), name(o), []string{"", " x64"}[i], len(object))
		}
	}
	if *update {
		if err := os.WriteFile(sums, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	for sum := range strings.Lines(got.String()) {
		if strings.Contains(string(want), sum) {
			continue
		}
		t.Errorf("other bytes under the same formats.Version %d:\n%s\nwere\n%s", formats.Version, sum, want)
	}
}

func TestPassThrough(t *testing.T) {
	lines := formatstest.Lines(formatstest.Events(5, 300))
	plain := formatstest.Encode(t, starter(formats.Options{Compression: formats.None}), lines, 11)
	if !bytes.Equal(plain, lines) {
		t.Error("plain NDJSON is not the lines")
	}
	z, err := gzip.NewReader(bytes.NewReader(formatstest.Encode(t, starter(formats.Options{}), lines, 11)))
	if err != nil {
		t.Fatal(err)
	}
	if !z.ModTime.IsZero() || z.Name != "" || z.Comment != "" {
		t.Errorf("the gzip header tells of more than the content: %+v", z.Header)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, lines) {
		t.Errorf("gzip gives back %d of %d bytes: %v", len(got), len(lines), err)
	}
}

func TestCheckOptions(t *testing.T) {
	for _, c := range []struct {
		o    formats.Options
		want string // part of the error; "": none
	}{
		{formats.Options{}, ""},
		{formats.Options{Format: formats.Parquet}, ""},
		{formats.Options{Level: 9}, ""},
		{formats.Options{Level: 10}, "level 10"},
		{formats.Options{Level: -1}, "level -1"},
		{formats.Options{Compression: formats.Zstd, Level: 22}, ""},
		{formats.Options{Compression: formats.Zstd, Level: 23}, "level 23"},
		{formats.Options{Compression: formats.None, Level: 1}, "has no levels"},
		{formats.Options{Compression: formats.Snappy}, "does not go with format ndjson"},
		{formats.Options{Format: formats.Parquet, Compression: formats.Gzip}, "does not go with format parquet"},
		{formats.Options{Format: formats.Parquet, Level: 40}, "level 40"},
		{formats.Options{Format: formats.Parquet, Compression: formats.Snappy, Level: 2}, "has no levels"},
		{formats.Options{Format: "csv"}, "use ndjson or parquet"},
		{formats.Options{Fields: []string{"anything.of.the.vendor"}}, ""},
		{formats.Options{Format: formats.Parquet, Fields: []string{"client_ipp"}}, "client_ip,"},
	} {
		_, err := formats.NewEncoder(io.Discard, c.o)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v; expected %q", c.o, err, c.want)
		}
	}
}

func TestExtension(t *testing.T) {
	for o, want := range map[[2]string]string{
		{"ndjson", "none"}: "ndjson", {"ndjson", "gzip"}: "ndjson.gz", {"ndjson", "zstd"}: "ndjson.zst",
		{"parquet", "none"}: "parquet", {"parquet", "zstd"}: "parquet", {"parquet", "snappy"}: "parquet",
	} {
		if got := formats.Extension(formats.Format(o[0]), formats.Compression(o[1])); got != want {
			t.Errorf("%v: %s, expected %s", o, got, want)
		}
	}
}

// TestSample holds the sample to what intake lets in, so that the other tests
// speak of real events.
func TestSample(t *testing.T) {
	for line := range bytes.Lines(formatstest.Lines(formatstest.Events(9, 500))) {
		var h schemas.Head
		if p := schemas.Scan(line[:len(line)-1], 1795309107000, &h); p != nil || !h.Compact || h.Has != schemas.HasAll {
			t.Fatalf("%v: %s", p, line)
		}
	}
}
