//go:build cost

package exporter_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"datasync/exporter/lane/shape"
	"datasync/exporter/tenants"
	"datasync/exporter/trial"
	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
	"datasync/formats"
	"datasync/schemas"
)

// figuresFile holds what the stages cost when they were last committed.
const figuresFile = "testdata/cost.json"

var update = flag.Bool("update", false, "commit the figures of this run")

const (
	costEvents = 20_000
	// worse is how much dearer than its figure a stage may be.
	worse = 1.25
	// tries is how often a stage that seems dearer is measured again: what else
	// the machine does shows in one try, a change of ours in all of them.
	tries = 8
	// passThrough is what a stage that hands bytes through may allocate, an event.
	passThrough = 0.02
)

// stage is a part of the hot path, run over all of the rig's events.
type stage struct {
	name    string
	through bool // it hands bytes through, and allocates nothing for an event
	run     func(*costRig, *testing.T)
}

var stages = []stage{
	{"intake and journal", true, (*costRig).submit},
	{"journal read and shape", true, (*costRig).read},
	{"NDJSON gzip", true, encode(formats.Options{Compression: formats.Gzip})},
	{"NDJSON zstd", true, encode(formats.Options{Compression: formats.Zstd})},
	{"Parquet zstd", false, encode(formats.Options{Format: formats.Parquet})},
}

// TestCost fails where a stage of the hot path has become dearer than its
// committed figure by more than a quarter, or a pass-through stage allocates for
// its events. Processor time is counted, in units of a SHA-256 of 1 MiB that is
// measured in between, so that the figures hold on other machines.
func TestCost(t *testing.T) {
	r := newCostRig(t)
	var known map[string]float64
	raw, err := os.ReadFile(figuresFile)
	if err == nil {
		err = json.Unmarshal(raw, &known)
	}
	if err != nil && !*update {
		t.Fatal(err)
	}
	now := map[string]float64{}
	for _, s := range stages {
		most := known[s.name] * worse
		if *update {
			most = 0 // all tries count
		}
		cost, allocs := r.cost(t, s, most)
		now[s.name] = math.Round(cost*1000) / 1000
		t.Logf("%-24s %6.3f of a SHA-256 of 1 MiB for 1,000 events (committed: %.3f), %.3f allocations an event", s.name, cost, known[s.name], allocs)
		if !*update && cost > most {
			t.Errorf("%s costs %.3f, more than a quarter above the %.3f of %s: profile it (task paths PROFILE=5), or commit the new figure with its reason (task cost -- -update)",
				s.name, cost, known[s.name], figuresFile)
		}
		if s.through && allocs > passThrough {
			t.Errorf("%s allocates %.3f times an event: it hands bytes through and should not", s.name, allocs)
		}
	}
	if *update {
		raw, _ := json.MarshalIndent(now, "", "  ") // numbers
		if err := os.WriteFile(figuresFile, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// costRig is what the stages work on.
type costRig struct {
	records []feeds.Record
	lines   []byte // of all tenants' chunks, as the journal gave them
	door    *intake.Door
	log     *journal.Journal
	shaper  *shape.Shaper
	chunk   journal.Chunk
}

func newCostRig(t *testing.T) *costRig {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "cost") // memory: a disk's share is not ours
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	store, err := journal.OpenStore(dir, journal.Options{ReserveBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	shard := func(name string) *journal.Journal {
		j, err := store.Shard(name)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	r := &costRig{log: shard("bench")}
	q, err := intake.OpenQuarantine(shard("quarantine"))
	if err != nil {
		t.Fatal(err)
	}
	if r.door, err = intake.New(intake.Options{Feed: "bench", Log: r.log, Quarantine: q, Trust: true}); err != nil {
		t.Fatal(err)
	}
	if r.shaper, err = shape.New(&tenants.Output{Kinds: schemas.AllKinds, Sample: 1}, nil, true); err != nil {
		t.Fatal(err)
	}
	g := trial.NewGenerator(trial.GeneratorOptions{Tenants: 20, Seed: 1})
	for range costEvents {
		line, _, _ := g.Next(nil)
		r.records = append(r.records, feeds.Record{Value: line})
	}
	r.submit(t)
	r.each(t, func(lines []byte) { r.lines = append(r.lines, lines...) })
	return r
}

// submit takes all records in, as many at once as a feed does.
func (r *costRig) submit(t *testing.T) {
	for part := range slices.Chunk(r.records, 1400) {
		res, err := r.door.Submit(context.Background(), &intake.Request{Format: "canonical", Records: slices.Values(part)})
		if err != nil || res.Accepted != len(part) {
			t.Fatalf("%d of %d taken, %v, %+v", res.Accepted, len(part), err, res.Rejected)
		}
	}
}

// read reads what submit wrote first, tenant by tenant, and shapes it.
func (r *costRig) read(t *testing.T) { r.each(t, func([]byte) {}) }

func (r *costRig) each(t *testing.T, use func(lines []byte)) {
	left := costEvents
	for _, tenant := range r.log.Tenants() {
		for p, more := (journal.Position{}), true; more && left > 0; p, more = r.chunk.Next, r.chunk.More {
			if err := r.log.Read(tenant, p, journal.ReadOptions{MaxBytes: 1 << 20}, &r.chunk); err != nil {
				t.Fatal(err)
			}
			s := r.shaper.Shape(&r.chunk)
			left -= int(s.Counts.Events)
			use(s.Lines)
		}
	}
}

// encode makes one drop of all lines.
func encode(o formats.Options) func(*costRig, *testing.T) {
	return func(r *costRig, t *testing.T) {
		e, err := formats.NewEncoder(io.Discard, o.WithDefaults())
		for rest := r.lines; err == nil && len(rest) > 0; {
			n := len(rest)
			if n > 1<<20 {
				n = bytes.LastIndexByte(rest[:1<<20], '\n') + 1
			}
			err = e.Write(rest[:n])
			rest = rest[n:]
		}
		if err == nil {
			err = e.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// cost is the least that a stage takes for 1,000 events, in SHA-256 sums of 1
// MiB, and allocates for one; it looks again while it is above most.
func (r *costRig) cost(t *testing.T, s stage, most float64) (best, allocs float64) {
	best, allocs = math.MaxFloat64, math.MaxFloat64
	text := make([]byte, 1<<20)
	sum := func() (d time.Duration) {
		began := cpuTime()
		for range 8 {
			sha256.Sum256(text)
		}
		return (cpuTime() - began) / 8
	}
	var before, after runtime.MemStats
	for try := range tries {
		for range 5 {
			unit := sum()
			runtime.ReadMemStats(&before)
			began := cpuTime()
			s.run(r, t)
			took := cpuTime() - began
			runtime.ReadMemStats(&after)
			unit = (unit + sum()) / 2
			best = min(best, float64(took)/float64(unit)*1000/costEvents)
			allocs = min(allocs, float64(after.Mallocs-before.Mallocs)/costEvents)
		}
		if try > 0 && best <= most {
			break
		}
	}
	return best, allocs
}

// cpuTime is the processor time of this process so far.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails for SELF
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
