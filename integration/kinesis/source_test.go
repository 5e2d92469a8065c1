package kinesis

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/maphash"
	"os"
	"strconv"
	"testing"
)

var seed = maphash.MakeSeed()

// source is what generate made: of every event, by its number from 1 on, its
// tenant and a hash of its line.
type source struct {
	tenant []uint16
	line   []uint64
	of     map[uint16]int // events by tenant
}

// readSource reads a file of n events of one seed.
func readSource(t testing.TB, path string, n int) *source {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &source{tenant: make([]uint16, n+1), line: make([]uint64, n+1), of: map[uint16]int{}}
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 256<<10), 1<<20)
	lines := 0
	for sc.Scan() {
		lines++
		i, tenant, ok := identify(sc.Bytes())
		if !ok || i < 1 || i > n || s.tenant[i] != 0 {
			t.Fatalf("%s: line %d is no event that generate makes: %.200s", path, lines, sc.Bytes())
		}
		s.tenant[i], s.line[i] = tenant, maphash.Bytes(seed, sc.Bytes())
		s.of[tenant]++
	}
	if err := sc.Err(); err != nil || lines != n {
		t.Fatalf("%s: %d lines, want %d (%v)", path, lines, n, err)
	}
	return s
}

// identify finds an event's number and its tenant's: gen-<seed>-<number>, t<tenant>.
func identify(line []byte) (n int, tenant uint16, ok bool) {
	_, rest, ok := bytes.Cut(line, []byte(`"event_id":"gen-`))
	id, _, end := bytes.Cut(rest, []byte(`"`))
	_, number, dash := bytes.Cut(id, []byte("-"))
	_, rest, has := bytes.Cut(rest, []byte(`"tenant_id":"t`))
	name, _, quote := bytes.Cut(rest, []byte(`"`))
	if !ok || !end || !dash || !has || !quote {
		return 0, 0, false
	}
	n, err := strconv.Atoi(string(number))
	if err != nil {
		return 0, 0, false
	}
	of, err := strconv.ParseUint(string(name), 10, 16)
	return n, uint16(of), err == nil
}

// asMade takes the time of intake, which comes first in an event and is the
// only thing that the service adds, out of line, which it changes.
func asMade(line []byte) []byte {
	rest, ok := bytes.CutPrefix(line, []byte(`{"ingest_time":`))
	at := bytes.IndexByte(rest, ',')
	if !ok || at < 0 {
		return line
	}
	line[len(line)-len(rest)+at] = '{'
	return line[len(line)-len(rest)+at:]
}

// arrivals checks what arrives in one stream against the source: events of its
// tenant only, byte for byte but for ingest_time, and in order for each partition key where asked.
type arrivals struct {
	from    *source
	name    string
	tenant  uint16
	ordered bool

	seen     []bool
	have     int // different events
	events   int // repeats counted
	records  int // Kinesis records
	last     map[string]int
	overtook int
	foreign  int
	changed  int
	example  string // of what is wrong
}

// newArrivals is for the stream of the i-th tenant.
func newArrivals(from *source, name string, i int) *arrivals {
	return &arrivals{from: from, name: name, tenant: uint16(i), seen: make([]bool, len(from.tenant)), last: map[string]int{}}
}

// add takes in an event of a partition key.
func (a *arrivals) add(key string, line []byte) {
	a.events++
	n, tenant, ok := identify(line)
	if !ok || tenant != a.tenant || n < 1 || n >= len(a.seen) || a.from.tenant[n] != tenant {
		a.foreign++
		a.example = fmt.Sprintf("%.300s", line)
		return
	}
	if maphash.Bytes(seed, asMade(line)) != a.from.line[n] {
		a.changed++
		a.example = string(line)
	}
	if a.seen[n] {
		return
	}
	a.seen[n] = true
	a.have++
	if n < a.last[key] {
		a.overtook++
		if a.ordered {
			a.example = fmt.Sprintf("of key %s number %d came after %d", key, n, a.last[key])
		}
	}
	a.last[key] = max(n, a.last[key])
}

// want holds a stream to what it should have; it gives the repeats.
func (a *arrivals) want(t testing.TB) (repeats int) {
	t.Helper()
	if missing := a.from.of[a.tenant] - a.have; missing != 0 || a.foreign > 0 || a.changed > 0 {
		t.Errorf("%s: of %d events %d are missing; %d are not its own, %d are not what was made; such as %s",
			a.name, a.from.of[a.tenant], missing, a.foreign, a.changed, a.example)
	}
	if a.ordered && a.overtook > 0 {
		t.Errorf("%s: %d events overtook an earlier one of their key: %s", a.name, a.overtook, a.example)
	}
	return a.events - a.foreign - a.have
}
