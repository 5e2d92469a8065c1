//go:build cost

package exporter_test

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	costEvents = 5000
	// worse is how much dearer than its figure a stage may be.
	worse = 1.25
	// rounds is how often a stage is measured, and again up to tries times while it
	// seems dearer: what else the machine does shows for a while, a change of ours
	// in all of them.
	rounds, tries = 100, 20
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
// its events. Processor time is counted, in units of a fixed piece of work that is
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
			most = math.MaxFloat64
		}
		cost, allocs := r.cost(t, s, most)
		now[s.name] = math.Round(cost*1000) / 1000
		t.Logf("%-24s %6.3f units for 1,000 events (committed: %.3f), %.3f allocations an event", s.name, cost, known[s.name], allocs)
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
	deflate *flate.Writer
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
	if r.deflate, err = flate.NewWriter(io.Discard, flate.BestSpeed); err != nil {
		t.Fatal(err)
	}
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
		line = append(line, 10)
		r.records = append(r.records, feeds.Record{Value: line[:len(line)-1], Held: true})
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

// cost is what a stage takes for 1,000 events, in units, and allocates for one;
// it looks on while that is above most.
//
// Other work on the machine's cores makes both dearer, a stage more than a unit or
// less, for seconds on end. So a quiet moment of the one is divided by a quiet
// moment of the other: both are about as long and find as many. Not the least of
// each, which is the clock's worst error.
func (r *costRig) cost(t *testing.T, s stage, most float64) (cost, allocs float64) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // a thread that runs meanwhile is counted a tick late
	quiet := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/8])
	}
	cost, allocs = math.MaxFloat64, math.MaxFloat64
	var before, after runtime.MemStats
	for range tries {
		var took, units []time.Duration
		for range rounds {
			units = append(units, r.unit(t))
			runtime.ReadMemStats(&before)
			began := cpuTime()
			s.run(r, t)
			took = append(took, cpuTime()-began)
			runtime.ReadMemStats(&after)
			allocs = min(allocs, float64(after.Mallocs-before.Mallocs)/costEvents)
		}
		if cost = min(cost, quiet(took)/quiet(units)*1000/costEvents); cost <= most {
			break
		}
	}
	return cost, allocs
}

// unit is the processor time now of work that no change of ours makes cheaper or
// dearer, and that suffers from a busy machine as ours does: it looks at every
// byte, jumps, looks up, copies.
func (r *costRig) unit(t *testing.T) time.Duration {
	sample := r.lines[:1<<20]
	began := cpuTime()
	for line := range bytes.Lines(sample[:bytes.LastIndexByte(sample, '\n')]) {
		if !json.Valid(line) {
			t.Fatalf("not JSON: %s", line)
		}
	}
	r.deflate.Reset(io.Discard)
	_, _ = r.deflate.Write(sample) // io.Discard takes all
	sha256.Sum256(sample)
	return cpuTime() - began
}

// cpuTime is the processor time of this process so far.
func cpuTime() time.Duration {
	var at unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &at) // every Linux has it
	return time.Duration(at.Nano())
}
