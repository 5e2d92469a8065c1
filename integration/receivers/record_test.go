package receivers

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"datasync/integration/servers"
)

// record is what arrived at one receiver, in the order in which it was stored.
type record struct {
	path   string
	offset int64
	parse  func(rest []byte, each func(conn, id, hash string)) (used int)

	seen    map[string]int    // how often each id came
	hashes  map[string]string // of its line
	order   []string          // ids, as they came first
	torn    int
	differ  int // lines that are not the same as the first of their id
	repeats int

	// Of peers, which note the connection. A connection may still be read when the
	// next one has begun, where a proxy has died between.
	conns  map[string]int // those that carried lines, counted
	count  []int          // lines on each
	lastOn map[string]int // the latest connection on which an id came
	backs  []int          // connections that began with what had come already
	oldest int            // the first connection whose lines may come again on the latest one
	tooOld int            // lines that came again, and last before that
}

func newRecord(path string, parse func([]byte, func(conn, id, hash string)) int) *record {
	return &record{path: path, parse: parse, seen: map[string]int{}, hashes: map[string]string{}, conns: map[string]int{}, lastOn: map[string]int{}}
}

// read takes in what came since, and gives the number of events that are there.
func (r *record) read(t testing.TB) int {
	t.Helper()
	f, err := os.Open(r.path)
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, r.offset, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	r.offset += int64(r.parse(b, r.add))
	return len(r.seen)
}

func (r *record) add(conn, id, hash string) {
	if id == "torn" {
		r.torn++
		return
	}
	again := r.seen[id] > 0
	if conn != "" {
		n, known := r.conns[conn]
		if !known {
			n = len(r.count)
			r.conns[conn], r.count = n, append(r.count, 0)
			r.began(n, again)
		}
		r.count[n]++
		if again && r.lastOn[id] < r.oldest {
			r.tooOld++
		}
		r.lastOn[id] = max(r.lastOn[id], n)
	}
	r.seen[id]++
	switch {
	case !again:
		r.order = append(r.order, id)
		r.hashes[id] = hash
	case r.hashes[id] != hash:
		r.differ++
	}
	if again {
		r.repeats++
	}
}

// began notes a connection. Two rotations are at stake at an abnormal end. If the
// connection after it ends abnormally too, it has confirmed nothing, and the next
// one begins where it began: at the same two rotations.
func (r *record) began(n int, again bool) {
	inRow := len(r.backs) > 0 && r.backs[len(r.backs)-1] == n-1
	if !again || !inRow {
		r.oldest = n - 2
	}
	if again {
		r.backs = append(r.backs, n)
	}
}

// rotations is how many lines the two connections carried before each that
// began again.
func (r *record) rotations() (lines int) {
	for _, n := range r.backs {
		for k := max(n-2, 0); k < n; k++ {
			lines += r.count[k]
		}
	}
	return lines
}

// whole holds a record to n events: none missing or foreign, the first of each
// in the order of their making, and every line like its first.
func (r *record) whole(t testing.TB, name string, n int) (lost int) {
	t.Helper()
	r.read(t)
	for i := 1; i <= n; i++ {
		if r.seen[fmt.Sprintf("gen-1-%d", i)] == 0 {
			lost++
		}
	}
	if lost > 0 || len(r.seen) != n {
		t.Errorf("%s: %d of %d events are lost; %d ids", name, lost, n, len(r.seen))
	}
	last := 0
	for _, id := range r.order {
		var i int
		if _, err := fmt.Sscanf(id, "gen-1-%d", &i); err != nil || i <= last {
			t.Errorf("%s: %s came after gen-1-%d", name, id, last)
			break
		}
		last = i
	}
	if r.differ > 0 {
		t.Errorf("%s: %d lines came again with other bytes", name, r.differ)
	}
	return lost
}

// entries parses what peers store.
func entries(b []byte, each func(conn, id, hash string)) (used int) {
	for {
		line, _, ok := bytes.Cut(b[used:], []byte{'\n'})
		if !ok {
			return used
		}
		used += len(line) + 1
		f := bytes.Fields(line)
		if len(f) != 3 {
			each("", "torn", "")
			continue
		}
		each(string(f[0]), string(f[1]), string(f[2]))
	}
}

// plainLines parses a file of JSON lines of a receiver of other makers.
func plainLines(b []byte, each func(conn, id, hash string)) (used int) {
	for {
		line, _, ok := bytes.Cut(b[used:], []byte{'\n'})
		if !ok {
			return used
		}
		used += len(line) + 1
		if at := bytes.LastIndex(line, []byte(head)); at > 0 { // behind the half line that a kill left
			each("", "torn", "")
			line = line[at:]
		}
		f := bytes.Fields(entry(nil, "-", line))
		each("", string(f[1]), string(f[2]))
	}
}

// echoes parses what gnutls-serv says.
func echoes() func(b []byte, each func(conn, id, hash string)) int {
	var rest []byte
	return func(b []byte, each func(conn, id, hash string)) int {
		lines, used := servers.Echoed(b)
		rest = append(rest, lines...)
		rest = append([]byte(nil), rest[plainLines(rest, each):]...)
		return used
	}
}

// TestWhatMayComeAgain: two connections' lines after an abnormal end, the same
// ones after another behind it, and never older ones.
func TestWhatMayComeAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		conns  []string // the lines of each, a letter a line
		tooOld int
	}{
		{"nothing", []string{"ab", "cd", "ef"}, 0},
		{"two rotations", []string{"ab", "cd", "ef", "cdef"}, 0},
		{"a third", []string{"ab", "cd", "ef", "abcdef"}, 2},
		{"two ends in a row", []string{"ab", "cd", "ef", "c", "cdefg"}, 0},
		{"two ends in a row, too far", []string{"ab", "cd", "ef", "c", "bcdefg"}, 1},
		{"rotations between", []string{"ab", "cd", "ef", "cdef", "gh", "ij", "cd"}, 2},
	} {
		r := newRecord("", nil)
		for i, lines := range c.conns {
			for _, id := range lines {
				r.add(fmt.Sprint(i), string(id), "")
			}
		}
		if r.tooOld != c.tooOld {
			t.Errorf("%s: %d too old, want %d", c.name, r.tooOld, c.tooOld)
		}
	}
}
