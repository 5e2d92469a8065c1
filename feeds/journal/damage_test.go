package journal_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/feeds/journal/journaltest"
)

// sample is a log on a disk of memory: what it holds, file by file and event
// by event.
type sample struct {
	opts  journal.Options
	files map[string][]byte
	lines map[feeds.TenantID][]string
	block int // the most events that one block holds
	whole int // the most events that one commit holds
}

const sampleTenants = 7

// makeSample writes a log of several sealed segments and an active one that
// ends with a witness.
func makeSample(t *testing.T, commits int) *sample {
	t.Helper()
	disk := journaltest.NewCrashFS(1)
	sm := &sample{opts: journal.Options{SegmentBytes: 256 << 10, ReserveBytes: 4 << 10}, lines: map[feeds.TenantID][]string{}, files: map[string][]byte{}}
	o := sm.opts
	o.FS = disk
	s, err := journal.OpenStore("d", o)
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Shard("s")
	if err != nil {
		t.Fatal(err)
	}
	for c := range commits {
		b := &journal.Batch{Facts: []journal.Fact{{Key: "n", Value: journal.AppendCounts(nil, uint64(c+1))}}}
		for i := range 70 {
			id := feeds.TenantID(fmt.Sprintf("t%d", i*i%sampleTenants))
			line := fmt.Sprintf("{\"tenant\":%q,\"commit\":%d,\"i\":%d,\"pad\":%q}\n", id, c, i, strings.Repeat("p", (i*13+c)%150))
			b.Events = append(b.Events, journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: j.Tenant(id), Kind: uint8(i % 2)})
			b.Arena = append(b.Arena, line...)
			sm.lines[id] = append(sm.lines[id], line)
		}
		if _, err := j.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	infos, err := disk.List("d/s")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		p := filepath.Join("d/s", i.Name())
		sm.files[p] = disk.Bytes(p)
	}
	sm.files["d/ID"] = disk.Bytes("d/ID")
	sm.block, sm.whole = 20, 70
	return sm
}

// mount gives a fresh disk with the sample on it, one file changed.
func (sm *sample) mount(path string, data []byte) *journaltest.CrashFS {
	disk := journaltest.NewCrashFS(2)
	_ = disk.Dir("d/s", false) // memory: cannot fail
	for p, d := range sm.files {
		if p == path {
			d = data
		}
		disk.SetBytes(p, d)
	}
	return disk
}

// outcome is what a damaged log gave.
type outcome struct {
	lost    int
	reports []journal.Incident
}

// read opens a disk and compares every event with the sample: never a wrong
// one, never out of order; what is missing lies in holes or at the end.
func (sm *sample) read(t *testing.T, disk *journaltest.CrashFS, what string) outcome {
	t.Helper()
	var got incidents
	o := sm.opts
	o.FS, o.Report = disk, got.add
	s, err := journal.OpenStore("d", o)
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	j, err := s.Shard("s")
	if err != nil {
		t.Fatalf("%s: open: %v", what, err)
	}
	lost := 0
	for id, lines := range sm.lines {
		var c journal.Chunk
		at := 0
		for p := (journal.Position{}); ; p = c.Next {
			if err := j.Read(j.Tenant(id), p, journal.ReadOptions{MaxBytes: 64 << 10}, &c); err != nil {
				t.Fatalf("%s: read: %v", what, err)
			}
			for _, s := range c.Spans {
				if int(s.Start.Events) < at {
					t.Fatalf("%s: %s goes back from event %d to %d", what, id, at, s.Start.Events)
				}
				lost += int(s.Start.Events) - at
				at = int(s.Start.Events)
				for l := range strings.Lines(string(c.Data[s.Off : s.Off+s.Len])) {
					if at >= len(lines) || l != lines[at] {
						t.Fatalf("%s: %s event %d is wrong: %q", what, id, at, l)
					}
					at++
				}
			}
			if !c.More {
				break
			}
		}
		lost += len(lines) - at
	}
	if err := s.Close(); err != nil {
		t.Fatalf("%s: close: %v", what, err)
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	return outcome{lost, got.list}
}

// size is what a test does: a little, or with JOURNAL_SIZE=full what the soak does.
func size(little, full int) int {
	if os.Getenv("JOURNAL_SIZE") == "full" {
		return full
	}
	return little
}

// TestFlips flips one bit anywhere in a log that was acknowledged and closed:
// never a wrong event, never more than one block lost (one commit, where the
// bit is in what names its blocks), and what is lost is reported.
func TestFlips(t *testing.T) {
	sm := makeSample(t, size(150, 1100)) // in full: 10 MB
	paths := sm.segments()
	total := 0
	for _, p := range paths {
		total += len(sm.files[p])
	}
	flips := size(200, 2000)
	seed := rand.Uint64()
	t.Logf("seed %d: %d flips in %d bytes, %d files", seed, flips, total, len(paths))
	rng := rand.New(rand.NewPCG(seed, 0))
	worst, silent, lossy := 0, 0, 0
	for range flips {
		at := rng.IntN(total)
		path := paths[0]
		for _, p := range paths {
			if path = p; at < len(sm.files[p]) {
				break
			}
			at -= len(sm.files[p])
		}
		data := slices.Clone(sm.files[path])
		data[at] ^= 1 << rng.IntN(8)
		what := fmt.Sprintf("seed %d: flip at %d of %s", seed, at, path)
		o := sm.read(t, sm.mount(path, data), what)
		if o.lost > sm.block {
			t.Fatalf("%s: %d events lost, a block holds %d: %+v", what, o.lost, sm.block, o.reports)
		}
		if o.lost > 0 && len(o.reports) == 0 {
			t.Fatalf("%s: %d events lost in silence", what, o.lost)
		}
		worst = max(worst, o.lost)
		if o.lost > 0 {
			lossy++
		}
		if len(o.reports) == 0 {
			silent++
		}
	}
	t.Logf("seed %d: %d flips; wrong events 0; %d lost events, each said so, the worst %d of one block; %d changed nothing that matters", seed, flips, lossy, worst, silent)
}

func (sm *sample) segments() []string {
	var out []string
	for p := range sm.files {
		if strings.HasSuffix(p, ".seg") {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// TestTails damages the end of the log: cut, zeroed, garbage behind it. It
// opens, everything before the damage is there, and what is set aside is kept.
func TestTails(t *testing.T) {
	sm := makeSample(t, 30)
	paths := sm.segments()
	path := paths[len(paths)-1]
	whole := sm.files[path]
	rng := rand.New(rand.NewPCG(7, 7))
	garbage := make([]byte, 1000)
	for i := range garbage {
		garbage[i] = byte(rng.Uint32())
	}
	damages := map[string]func([]byte, int) []byte{
		"cut":      func(d []byte, at int) []byte { return d[:at] },
		"zero":     func(d []byte, at int) []byte { return append(d[:at:at], make([]byte, len(d)-at)...) },
		"prealloc": func(d []byte, at int) []byte { return append(d[:at:at], make([]byte, 1<<20)...) },
		"garbage":  func(d []byte, at int) []byte { return append(d[:at:at], garbage...) },
	}
	offsets := size(200, 5000)
	step := max(1, 4*(len(whole)-1024)/offsets)
	tried := 0
	for name, damage := range damages {
		prev := -1
		for at := len(whole); at > 1024; at -= step {
			what := fmt.Sprintf("%s at %d of %d", name, at, len(whole))
			disk := sm.mount(path, damage(slices.Clone(whole), at))
			o := sm.read(t, disk, what)
			if prev >= 0 && o.lost < prev {
				t.Fatalf("%s: %d events lost, %d with more of the file kept", what, o.lost, prev)
			}
			if name == "garbage" && len(o.reports) == 0 {
				t.Fatalf("%s: garbage was not reported", what)
			}
			prev = o.lost
			tried++
			if again := sm.read(t, disk, what+", again"); again.lost != o.lost || len(again.reports) > 0 {
				t.Fatalf("%s: opening again lost %d (before %d): %+v", what, again.lost, o.lost, again.reports)
			}
		}
	}
	t.Logf("%d cuts, zeroed, preallocated and garbage tails of %d bytes: all open; wrong events 0; what was lost lay behind the damage", tried, len(whole))
}

// TestGarbageIsSetAside finds the garbage byte for byte in the folder set-aside.
func TestGarbageIsSetAside(t *testing.T) {
	sm := makeSample(t, 3)
	paths := sm.segments()
	path := paths[len(paths)-1]
	junk := []byte("this was never a commit")
	disk := sm.mount(path, append(slices.Clone(sm.files[path]), junk...))
	o := sm.read(t, disk, "junk")
	if o.lost > 0 || len(o.reports) != 1 || o.reports[0].What != "torn-tail" || o.reports[0].Bytes != int64(len(junk)) {
		t.Fatalf("lost %d, reports %+v", o.lost, o.reports)
	}
	infos, err := disk.List("d/set-aside")
	if err != nil || len(infos) != 1 {
		t.Fatalf("set aside: %v %v", infos, err)
	}
	if got := disk.Bytes(filepath.Join("d/set-aside", infos[0].Name())); !bytes.Equal(got, junk) {
		t.Fatalf("set aside was %q", got)
	}
}

// TestLostCommits wipes whole commits between others, head, tail and all: the
// range is named by a gap fact and set aside, its tenants see a hole that is
// not expired, what lies behind is delivered, and a restart says it no more.
func TestLostCommits(t *testing.T) {
	sm := makeSample(t, 12)
	path := sm.segments()[0]
	data := slices.Clone(sm.files[path])
	from, to := len(data)/3, len(data)/2
	for i := from; i < to; i++ {
		data[i] = 'x'
	}
	disk := sm.mount(path, data)
	o := sm.read(t, disk, "wiped")
	if o.lost == 0 || o.lost > 5*sm.whole || len(o.reports) == 0 || o.reports[0].What != "damage" {
		t.Fatalf("lost %d, reports %+v", o.lost, o.reports)
	}
	if infos, err := disk.List("d/set-aside"); err != nil || len(infos) == 0 {
		t.Fatalf("set aside: %v %v", infos, err)
	}
	again := sm.read(t, disk, "wiped, again")
	if again.lost != o.lost || len(again.reports) > 0 {
		t.Fatalf("again: lost %d, reports %+v", again.lost, again.reports)
	}
	opts := sm.opts
	opts.FS = disk
	s, err := journal.OpenStore("d", opts)
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Shard("s")
	if err != nil {
		t.Fatal(err)
	}
	missing := 0
	for _, ref := range j.Tenants() {
		var c journal.Chunk
		if err := j.Read(ref, journal.Position{}, journal.ReadOptions{}, &c); err != nil {
			t.Fatal(err)
		}
		for _, h := range c.Holes {
			if h.Expired {
				t.Fatalf("damage is said to have expired: %+v", h)
			}
			missing += int(h.To.Events - h.From.Events)
		}
	}
	gaps := 0
	for range j.Facts("journal/gap/") {
		gaps++
	}
	if missing != o.lost || gaps == 0 {
		t.Fatalf("holes hold %d events, %d are lost; %d gap facts", missing, o.lost, gaps)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestScrubFindsDamage before a reader does.
func TestScrubFindsDamage(t *testing.T) {
	sm := makeSample(t, 60)
	path := sm.segments()[0]
	data := slices.Clone(sm.files[path])
	at := bytes.Index(data, []byte(`"i":33`))
	data[at+1] ^= 2
	var got incidents
	o := sm.opts
	o.FS, o.Report = sm.mount(path, data), got.add
	s, err := journal.OpenStore("d", o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Shard("s"); err != nil {
		t.Fatal(err)
	}
	if got.has("damage") {
		t.Fatal("found while opening: then this test shows nothing")
	}
	if err := s.Scrub(context.Background(), 0); err != nil || !got.has("damage") {
		t.Fatalf("scrub: %v, incidents %+v", err, got.list)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
