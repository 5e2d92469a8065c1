package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const module = "datasync"

// layers are the folders in the order in which they build on each other: a
// package imports from earlier lines only, and from its own folder. Folders in
// one line don't know each other.
var layers = [][]string{
	{"failpoint"},
	{"schemas"},
	{"formats"},
	{"feeds"},
	{"feeds/adapt", "feeds/journal", "feeds/certs", "feeds/outage"},
	{"feeds/cloud"},
	{"feeds/intake"},
	{"feeds/http", "feeds/file", "feeds/kafka", "feeds/tlslines", "feeds/kinesis", "feeds/s3"},
	{"emitter"},
	{"exporter/state"},
	{"exporter/tenants"},
	{"exporter/lane"},
	{"exporter/check"}, // below the sinks: each tells its own steps
	{"exporter/dir", "exporter/emit", "exporter/s3", "exporter/kinesis"},
	{"exporter/admin"},
	{"exporter"},
	{"exporter/trial", "exporter/simulation"},
	{"cmd/datasync"},
}

// exact are the folders whose sub-folders have a line of their own.
var exact = []string{"feeds", "exporter"}

// arrows are imports that the order would allow and that are wrong all the same.
var arrows = []struct{ from, to, because string }{
	{"feeds/journal", "datasync/schemas", "the journal keeps bytes and facts; what an event means is not its business"},
	{"feeds/journal", "datasync/formats/ndjson", "what is in the log is already what goes on the wire"},
	{"feeds/journal", "datasync/formats/parquet", "what is in the log is already what goes on the wire"},
	{"feeds/adapt", "os", "an adapter is pure: bytes in, events out"},
	{"feeds/adapt", "net/http", "an adapter is pure: bytes in, events out"},
	{"feeds/adapt", "datasync/feeds/journal", "an adapter does not know what becomes of its events"},
	{"schemas", "os", "the schema is pure, so that every layer may use it"},
	{"schemas", "net/http", "the schema is pure, so that every layer may use it"},
	{"emitter", "datasync/exporter", "the emitter is usable alone"},
	{"emitter", "datasync/feeds", "the emitter is usable alone"},
	{"exporter/lane", "net", "a lane reaches the network through its sink only"},
	{"exporter/lane", "net/http", "a lane reaches the network through its sink only"},
	{"exporter/state", "os", "facts are written through the journal only; any other file would be a second truth"},
	{"exporter/admin", "datasync/exporter/lane", "the API shows what its Backend says, so that it can be tested and changed alone"},
	{"exporter/admin", "datasync/feeds/journal", "the API shows what its Backend says, so that it can be tested and changed alone"},
}

// homes say where a library may be imported. "" is anywhere.
var homes = []struct{ library, home, because string }{
	{"github.com/parquet-go/parquet-go", "formats/parquet", "heavy; its traps are known in one place"},
	{"github.com/klauspost/compress", "formats/compress", "encoders are pooled and bounded there"},
	{"go.yaml.in/yaml/v4", "exporter/tenants", "settings have lines and columns there"},
	{"github.com/robfig/cron/v3", "exporter/tenants", "schedules are compiled there"},
	{"github.com/google/cel-go", "exporter/tenants", "filters are compiled there"},
	{"github.com/fsnotify/fsnotify", "exporter/tenants feeds/file", "what is followed on disk is followed there"},
	{"github.com/prometheus/client_golang", "exporter/admin", "metrics are described once, there"},
	{"github.com/rs/zerolog", "exporter", "packages return errors or take a callback; one place logs"},
	{"github.com/alecthomas/kong", "cmd/datasync", "flags belong to the command"},
	{"github.com/segmentio/kafka-go", "feeds/kafka", "its traps are known in one place"},
	{"github.com/aws/aws-sdk-go-v2", "feeds/cloud feeds/kinesis feeds/s3 exporter/s3 exporter/kinesis", "heavy"},
	{"github.com/aws/smithy-go", "feeds/cloud feeds/kinesis feeds/s3 exporter/s3 exporter/kinesis", "the errors and middleware of aws-sdk-go-v2"},
	{"golang.org/x/sys", "", "system calls that the standard library lacks"},
	{"golang.org/x/time", "", "rate limits"},
	{"github.com/oklog/ulid/v2", "", "small"},
}

// testing libraries are for tests and for packages that serve tests.
var testing_ = []string{"testing", "pgregory.net/rapid", "go.uber.org/goleak"}

func TestImportsGoUpTheLayersOnly(t *testing.T) {
	f := newFinder(t, arrowExceptions)
	for _, s := range sources(t, func(s *source) bool { return productive(s) && inProduct(s) }) {
		from, rank := layerOf(s.dir)
		if from == "" {
			t.Errorf("%s: the folder %s has no place in the layout (layers, in arrows_test.go)", s.path, s.dir)
			continue
		}
		for _, i := range s.imports {
			dir, ours := strings.CutPrefix(i, module+"/")
			if !ours {
				continue
			}
			to, other := layerOf(dir)
			if other > rank || other == rank && to != from {
				f.found(s.dir+" -> "+dir, "%s imports from a folder that stands on it, or beside it", s.path)
			}
		}
	}
	f.done()
}

func TestArrowsWithReasons(t *testing.T) {
	for _, s := range sources(t, func(s *source) bool { return productive(s) && inProduct(s) }) {
		for _, a := range arrows {
			if s.dir != a.from {
				continue
			}
			for _, i := range s.imports {
				if i == a.to || strings.HasPrefix(a.to, module) && strings.HasPrefix(i, a.to+"/") {
					t.Errorf("%s may not import %s: %s", s.path, i, a.because)
				}
			}
		}
	}
}

func TestLibrariesStayAtHome(t *testing.T) {
	f := newFinder(t, homeExceptions)
	for _, s := range sources(t, func(s *source) bool { return productive(s) && inProduct(s) }) {
		for _, i := range s.imports {
			if why := homeless(s.dir, i); why != "" {
				f.found(s.dir+" -> "+i, "%s: %s", s.path, why)
			}
		}
	}
	f.done()
}

// homeless says why dir may not import the library, "" where it may.
func homeless(dir, library string) string {
	if library == "C" {
		return "no cgo: the program is built with Go and nothing else"
	}
	if slices.Contains(testing_, library) && !strings.HasSuffix(dir, "test") {
		return "a library for tests in the product; a package that serves tests has a name that ends with test"
	}
	if host, _, _ := strings.Cut(library, "/"); !strings.Contains(host, ".") || slices.Contains(testing_, library) {
		return "" // the standard library, and ours
	}
	for _, h := range homes {
		if library != h.library && !strings.HasPrefix(library, h.library+"/") {
			continue
		}
		if h.home == "" {
			return ""
		}
		for _, home := range strings.Fields(h.home) {
			if dir == home || strings.HasPrefix(dir, home+"/") && !slices.Contains(exact, home) {
				return ""
			}
		}
		return fmt.Sprintf("the home of %s is %s: %s", h.library, h.home, h.because)
	}
	return "this library has no home; give it one (homes, in arrows_test.go), with the reason"
}

// layerOf is the line of layers that a folder belongs to, and the folder in it.
func layerOf(dir string) (name string, rank int) {
	for i, line := range layers {
		for _, l := range line {
			if dir == l || strings.HasPrefix(dir, l+"/") && !slices.Contains(exact, l) {
				name, rank = l, i
			}
		}
	}
	return name, rank
}

// inProduct leaves out the module of the integration tests.
func inProduct(s *source) bool { return !strings.HasPrefix(s.dir, "integration") }

// The rules themselves: they must be able to fail.
func TestArrowRules(t *testing.T) {
	for dir, want := range map[string]string{"feeds/journal": "feeds/journal", "exporter/tenants/conf": "exporter/tenants", "exporter/new": "", "util": "", "feeds": "feeds", "feeds/new": ""} {
		if got, _ := layerOf(dir); got != want {
			t.Errorf("layerOf(%q) = %q, want %q", dir, got, want)
		}
	}
	for _, c := range []struct {
		dir, library string
		ok           bool
	}{
		{"formats/parquet", "github.com/parquet-go/parquet-go/compress", true},
		{"exporter/lane", "github.com/parquet-go/parquet-go", false},
		{"exporter/lane", "github.com/rs/zerolog", false},
		{"exporter", "github.com/rs/zerolog", true},
		{"exporter/lane", "github.com/new/thing", false},
		{"exporter/lane", "encoding/json", true},
		{"exporter/lane", "testing", false},
		{"emitter/emittertest", "testing", true},
		{"exporter/lane", "C", false},
	} {
		if got := homeless(c.dir, c.library) == ""; got != c.ok {
			t.Errorf("%s may import %s: %v, want %v", c.dir, c.library, got, c.ok)
		}
	}
}
