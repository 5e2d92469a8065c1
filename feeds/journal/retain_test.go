package journal_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/feeds/journal/journaltest"
)

// shop is a store on a disk of memory with a clock that tests move.
type shop struct {
	t       *testing.T
	opts    journal.Options
	s       *journal.Store
	j       *journal.Journal
	clock   atomic.Int64 // ms
	reports incidents
	n       map[feeds.TenantID]int
	lines   map[feeds.TenantID][]string
}

func newShop(t *testing.T, o journal.Options) *shop {
	x := &shop{t: t, n: map[feeds.TenantID]int{}, lines: map[feeds.TenantID][]string{}}
	if o.FS == nil {
		o.FS = journaltest.NewCrashFS(1)
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 64 << 10 // it is memory
	}
	x.clock.Store(1e12)
	o.Now = x.now
	o.Report = x.reports.add
	x.opts = o
	x.open()
	t.Cleanup(func() { _ = x.s.Close() })
	return x
}

// now is the clock of the test; tick moves it.
func (x *shop) now() time.Time       { return time.UnixMilli(x.clock.Load()) }
func (x *shop) tick(d time.Duration) { x.clock.Add(d.Milliseconds()) }

func (x *shop) open() {
	x.t.Helper()
	var err error
	if x.s, err = journal.OpenStore("d", x.opts); err != nil {
		x.t.Fatal(err)
	}
	if x.j, err = x.s.Shard("s"); err != nil {
		x.t.Fatal(err)
	}
}

func (x *shop) reopen() {
	x.t.Helper()
	if err := x.s.Close(); err != nil {
		x.t.Fatal(err)
	}
	x.open()
}

// add appends n events of a tenant in one commit.
func (x *shop) add(id feeds.TenantID, n int) error {
	b, lines := lineBatch(x.j, id, x.n[id], n)
	_, err := x.j.Append(context.Background(), b)
	if err == nil {
		x.n[id] += n
		x.lines[id] = append(x.lines[id], lines...)
	}
	return err
}

func (x *shop) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *shop) releaseAll(id feeds.TenantID) {
	ref := x.j.Tenant(id)
	x.j.Release(ref, x.j.Standing(ref).End)
}

// kept checks that all but the first missing events of a tenant are there.
func (x *shop) kept(id feeds.TenantID) (missing int) {
	x.t.Helper()
	got, missing := readLines(x.t, x.j, id)
	if missing+len(got) != len(x.lines[id]) || strings.Join(got, "") != strings.Join(x.lines[id][missing:], "") {
		x.t.Fatalf("%s: %d lines, %d missing, want %d", id, len(got), missing, len(x.lines[id]))
	}
	return missing
}

func TestRetainKeepsDeliveredEventsForReplay(t *testing.T) {
	x := newShop(t, journal.Options{SegmentBytes: 16 << 10, Retain: time.Hour, MaxBytes: 8 << 20})
	for range 20 {
		x.must(x.add("acme", 50))
	}
	x.releaseAll("acme")
	x.must(x.s.Maintain())
	if m := x.kept("acme"); m != 0 {
		t.Fatalf("%d delivered events went before an hour was up", m)
	}
	x.tick(2 * time.Hour)
	used := x.s.Usage().Used
	x.must(x.s.Maintain())
	if m := x.kept("acme"); m == 0 || x.s.Usage().Used >= used {
		t.Fatalf("%d events went after two hours, %d of %d bytes used", m, x.s.Usage().Used, used)
	}
	x.reopen()
	x.kept("acme")
	st := x.j.Standing(x.j.Tenant("acme"))
	if st.End.Events != 1000 {
		t.Fatalf("stands at %+v: the total does not survive its segments", st)
	}
	x.must(x.add("acme", 1))
	x.kept("acme")
}

func TestUnreleasedTenantKeepsEverything(t *testing.T) {
	x := newShop(t, journal.Options{SegmentBytes: 16 << 10, Retain: time.Minute, MaxBytes: 8 << 20})
	for range 20 {
		x.must(x.add("acme", 50))
		x.must(x.add("beta", 5))
	}
	x.releaseAll("acme")
	x.tick(time.Hour)
	x.must(x.s.Maintain())
	if m := x.kept("beta"); m != 0 {
		t.Fatalf("%d events of a tenant that nobody released went", m)
	}
	if u := x.s.Usage().Undelivered; len(u) != 1 || u["beta"] == 0 {
		t.Fatalf("undelivered: %v", u)
	}
}

// TestNearTheCap goes through the order that the contract gives: passed first,
// then rewriting, then the tenant over its fair share, and never the others.
func TestNearTheCap(t *testing.T) {
	x := newShop(t, journal.Options{SegmentBytes: 64 << 10, Retain: time.Hour, MaxBytes: 1 << 20, ReserveBytes: 32 << 10})
	x.must(x.add("small", 20))
	for range 60 { // passed: far more than the cap
		x.must(x.add("acme", 400))
		x.releaseAll("acme")
	}
	if x.reports.has("expired") {
		t.Fatal("events expired though everything was passed or small")
	}
	if m := x.kept("small"); m != 0 {
		t.Fatalf("%d events of a laggard went", m)
	}
	rng := uint64(1)
	noise := func() string { // not to be compressed
		var b strings.Builder
		for range 200 {
			rng = rng*6364136223846793005 + 1442695040888963407
			b.WriteByte("0123456789abcdefghijklmnopqrstuvwxyz"[rng>>33%36])
		}
		return b.String()
	}
	var err error
	for i := 0; i < 400 && err == nil; i++ {
		var text strings.Builder
		for range 20 {
			text.WriteString(noise())
		}
		line := `{"noise":"` + text.String() + "\"}\n"
		b := &journal.Batch{Arena: []byte(line), Events: []journal.Event{{Len: uint32(len(line)), Tenant: x.j.Tenant("hog")}}}
		if _, err = x.j.Append(context.Background(), b); err == nil {
			x.lines["hog"] = append(x.lines["hog"], line)
		}
	}
	if err != nil {
		t.Fatalf("feeds were slowed though a tenant is over its share: %v", err)
	}
	if !x.reports.has("expired") {
		t.Fatal("nothing expired")
	}
	if m := x.kept("small"); m != 0 {
		t.Fatalf("%d events of a tenant below its share expired", m)
	}
	if m := x.kept("hog"); m == 0 {
		t.Fatal("the tenant over its share lost nothing")
	}
	if u := x.s.Usage(); u.Used > u.Cap {
		t.Fatalf("%d bytes used, the cap is %d", u.Used, u.Cap)
	}
	x.reopen()
	x.kept("small")
	x.kept("hog")
}

func TestFullWhenNobodyIsOver(t *testing.T) {
	x := newShop(t, journal.Options{SegmentBytes: 32 << 10, Retain: time.Hour, MaxBytes: 192 << 10, ReserveBytes: 8 << 10})
	var err error
	for i := 0; i < 4000 && err == nil; i++ {
		err = x.add("acme", 100)
	}
	if !errors.Is(err, feeds.ErrFull) {
		t.Fatalf("append: %v, want ErrFull", err)
	}
	x.must(x.j.Put(context.Background(), journal.Fact{Key: "p", Value: []byte("1")})) // delivery goes on
	x.kept("acme")
	x.releaseAll("acme")
	x.must(x.s.Maintain())
	end := x.j.Standing(x.j.Tenant("acme")).End
	x.must(x.add("acme", 100))
	if !x.reports.has("full") || !x.reports.has("space-back") {
		t.Fatalf("reports: %+v", x.reports.list)
	}
	var c journal.Chunk
	x.must(x.j.Read(x.j.Tenant("acme"), end, journal.ReadOptions{}, &c))
	if lines := x.lines["acme"]; string(c.Data) != strings.Join(lines[len(lines)-100:], "") || len(c.Holes) > 0 {
		t.Fatalf("%d bytes and holes %v behind the full disk", len(c.Data), c.Holes)
	}
}

// noisy is a batch of lines of size bytes in all, which hardly compress.
func noisy(j *journal.Journal, id feeds.TenantID, size int) *journal.Batch {
	b, rng := &journal.Batch{}, uint64(size)
	for len(b.Arena) < size {
		off := len(b.Arena)
		b.Arena = append(b.Arena, `{"noise":"`...)
		for range 1000 {
			rng = rng*6364136223846793005 + 1442695040888963407
			b.Arena = append(b.Arena, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/"[rng>>40%64])
		}
		b.Arena = append(b.Arena, "\"}\n"...)
		b.Events = append(b.Events, journal.Event{Off: uint32(off), Len: uint32(len(b.Arena) - off), Tenant: j.Tenant(id)})
	}
	return b
}

// TestShardsThatShareTheCap: four shards fill it with segments that are far from
// full. What is delivered makes room, though each shard begins with a small
// event of a tenant whose sink is away, and that event stays.
func TestShardsThatShareTheCap(t *testing.T) {
	for name, delivered := range map[string]bool{"delivered at once": true, "delivered when it is full": false} {
		t.Run(name, func(t *testing.T) {
			x := newShop(t, journal.Options{Retain: time.Hour, MaxBytes: 16 << 20, ReserveBytes: 64 << 10})
			var js []*journal.Journal
			for _, name := range []string{"a", "b", "c", "d"} {
				j, err := x.s.Shard(name)
				x.must(err)
				js = append(js, j)
				if delivered {
					b, _ := lineBatch(j, "late", 0, 1)
					_, err := j.Append(context.Background(), b)
					x.must(err)
				}
			}
			release := func() {
				for _, j := range js {
					ref := j.Tenant("acme")
					j.Release(ref, j.Standing(ref).End)
				}
			}
			appended, err := 0, error(nil)
			for ; err == nil && appended < 400; appended++ { // 40 MB
				j := js[appended%4]
				_, err = j.Append(context.Background(), noisy(j, "acme", 100<<10))
				if delivered {
					release()
				}
			}
			if errors.Is(err, feeds.ErrFull) == delivered {
				t.Fatalf("after %d appends: %v", appended, err)
			}
			release()
			x.must(x.s.Maintain())
			if u := x.s.Usage(); u.Used > u.Cap*4/5 {
				t.Errorf("%d of %d bytes are still used", u.Used, u.Cap)
			}
			for _, j := range js {
				_, err := j.Append(context.Background(), noisy(j, "acme", 100<<10))
				x.must(err)
				if got, _ := readLines(t, j, "late"); delivered && len(got) != 1 {
					t.Errorf("the laggard has %d lines", len(got))
				}
			}
			if x.reports.has("expired") || x.reports.has("damage") {
				t.Errorf("%+v", x.reports.list)
			}
		})
	}
}

// TestTenantsAlike: none of four tenants with as much undelivered each, but for
// a few batches, is over its share: events are refused, and none expires.
func TestTenantsAlike(t *testing.T) {
	x := newShop(t, journal.Options{Retain: time.Hour, MaxBytes: 16 << 20, ReserveBytes: 64 << 10})
	refused := 0
	for i := range 960 { // 24 MB
		if _, err := x.j.Append(context.Background(), noisy(x.j, []feeds.TenantID{"a", "b", "c", "d"}[i/4%4], 25<<10)); errors.Is(err, feeds.ErrFull) {
			refused++
		} else {
			x.must(err)
		}
		x.must(x.s.Maintain())
	}
	if refused == 0 || x.reports.has("expired") {
		t.Fatalf("%d appends were refused, and %+v", refused, x.reports.list)
	}
}

// TestOneOverItsShareSlowsNobody: what expires makes room at once, from
// segments that were rewritten a moment before as well.
func TestOneOverItsShareSlowsNobody(t *testing.T) {
	x := newShop(t, journal.Options{Retain: time.Hour, MaxBytes: 16 << 20, ReserveBytes: 64 << 10,
		Quota: func(id feeds.TenantID) int64 { return map[feeds.TenantID]int64{"capped": 1 << 20}[id] }})
	for i := range 300 { // 60 MB of the hog, 6 MB of the capped, 12 MB of the others
		for id, size := range map[feeds.TenantID]int{"hog": 200 << 10, "capped": 20 << 10, "other": 40 << 10} {
			if _, err := x.j.Append(context.Background(), noisy(x.j, id, size)); err != nil {
				t.Fatalf("round %d: %s: %v", i, id, err)
			}
		}
		x.releaseAll("other")
	}
	if !x.reports.has("expired") {
		t.Error("nothing expired")
	}
}

func TestQuotaAndPin(t *testing.T) {
	x := newShop(t, journal.Options{SegmentBytes: 16 << 10, MaxBytes: 8 << 20,
		Quota: func(id feeds.TenantID) int64 {
			if id == "acme" {
				return 20_000
			}
			return 0
		}})
	for range 20 {
		x.must(x.add("acme", 20))
		x.must(x.add("beta", 20))
	}
	ref := x.j.Tenant("acme")
	from := x.j.Standing(ref).Oldest
	to, err := x.j.Locate(ref, from.Seq+30)
	x.must(err)
	x.j.Pin(ref, from, to)
	x.must(x.s.Maintain())
	if u := x.s.Usage().Undelivered; u["acme"] > 20_000+int64(to.Bytes) || u["acme"] < 15_000 || u["beta"] < 40_000 {
		t.Fatalf("undelivered: %v", u)
	}
	var c journal.Chunk
	x.must(x.j.Read(ref, from, journal.ReadOptions{Until: to.Seq}, &c))
	if len(c.Holes) > 0 || c.Next.Events != to.Events {
		t.Fatalf("the pinned range is not whole: %+v, next %+v", c.Holes, c.Next)
	}
	x.must(x.j.Read(ref, to, journal.ReadOptions{}, &c))
	if len(c.Holes) != 1 || !c.Holes[0].Expired || c.Holes[0].From != to {
		t.Fatalf("behind the pinned range: %+v", c.Holes)
	}
	x.reopen()
	x.must(x.j.Read(x.j.Tenant("acme"), to, journal.ReadOptions{}, &c))
	if len(c.Holes) != 1 || !c.Holes[0].Expired {
		t.Fatalf("after a restart: %+v", c.Holes)
	}
}
