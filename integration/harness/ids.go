package harness

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// IDs counts how often each event id was seen.
type IDs map[string]int

// AddEvents counts the ids of all events in b, whatever lies between them.
func (ids IDs) AddEvents(b []byte) {
	for {
		_, rest, ok := bytes.Cut(b, []byte(`"event_id":"`))
		id, rest, end := bytes.Cut(rest, []byte(`"`))
		if !ok || !end {
			return
		}
		ids[string(id)]++
		b = rest
	}
}

// AddIDs adds the counts of others.
func (ids IDs) AddIDs(others IDs) {
	for id, n := range others {
		ids[id] += n
	}
}

// AddLines reads NDJSON, gzip or zstd or neither by its name, and counts the ids of its events.
func (ids IDs) AddLines(t testing.TB, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".gz":
		z, err := gzip.NewReader(bufio.NewReaderSize(f, 64<<10))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(f)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		defer z.Close()
		r = z
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 256<<10), 1<<20)
	for sc.Scan() {
		_, rest, ok := bytes.Cut(sc.Bytes(), []byte(`"event_id":"`))
		id, _, end := bytes.Cut(rest, []byte(`"`))
		if !ok || !end || !bytes.HasSuffix(sc.Bytes(), []byte("}")) {
			t.Fatalf("%s holds a line that is no whole event: %.120q", path, sc.Bytes())
		}
		ids[string(id)]++
	}
	if err := sc.Err(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// Drops counts the ids of all NDJSON drops below dir of the sink, and holds
// each object to one tenant and its numbers to no gap.
func Drops(t testing.TB, dir, sink string) IDs {
	t.Helper()
	ids := IDs{}
	numbers := map[string][]int{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "/sink="+sink+"/") {
			return err
		}
		name := filepath.Base(path)
		part := strings.Split(name, ".")
		if strings.HasSuffix(name, ".manifest.json") || len(part) < 5 {
			return nil
		}
		var n int
		if _, err := fmt.Sscanf(part[3], "%012d", &n); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		numbers[strings.Join(part[:3], ".")] = append(numbers[strings.Join(part[:3], ".")], n)
		if strings.Contains(name, ".ndjson") {
			ids.AddLines(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for shard, ns := range numbers {
		seen := map[int]int{}
		for _, n := range ns {
			seen[n]++
		}
		for n := 1; n <= len(ns); n++ {
			if seen[n] != 1 {
				t.Errorf("%s: number %d is there %d times among %d objects", shard, n, seen[n], len(ns))
			}
		}
	}
	return ids
}

// Of is the ids of one seed.
func (ids IDs) Of(seed int) IDs {
	of := IDs{}
	for id, n := range ids {
		if strings.HasPrefix(id, fmt.Sprintf("gen-%d-", seed)) {
			of[id] = n
		}
	}
	return of
}

// Want holds ids to the first n of a seed: none missing, none foreign, and
// none twice where once is set. It gives how many repeats there were.
func (ids IDs) Want(t testing.TB, where string, seed, n int, once bool) (repeats int) {
	t.Helper()
	missing, example := 0, ""
	for i := 1; i <= n; i++ {
		id := fmt.Sprintf("gen-%d-%d", seed, i)
		if ids[id] == 0 {
			missing++
			example = id
		}
	}
	for _, k := range ids {
		repeats += k - 1
	}
	switch {
	case missing > 0:
		t.Errorf("%s: %d of %d events are missing, such as %s", where, missing, n, example)
	case len(ids) != n:
		t.Errorf("%s: %d ids, and only %d were made", where, len(ids), n)
	}
	if once && repeats > 0 {
		t.Errorf("%s: %d events came again", where, repeats)
	}
	return repeats
}

// EachLine calls with every line of a file, its newline left out.
func EachLine(t testing.TB, path string, call func(line []byte)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 256<<10), 2<<20)
	for sc.Scan() {
		call(sc.Bytes())
	}
	if err := sc.Err(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
