package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/feeds/journal/journaltest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestManyAppendersShareCommits: each caller's events lie in order, every
// receipt is right, arrivals tell all, and a commit serves several callers.
func TestManyAppendersShareCommits(t *testing.T) {
	x := newShop(t, journal.Options{SegmentBytes: 256 << 10})
	var mu sync.Mutex
	arrived := map[journal.TenantRef]uint64{}
	x.j.Subscribe(func(as []journal.Arrival) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range as {
			if a.Start.Events != arrived[a.Tenant] {
				t.Errorf("arrival of %d starts at %d, want %d", a.Tenant, a.Start.Events, arrived[a.Tenant])
			}
			arrived[a.Tenant] += uint64(a.Events)
		}
	})
	const callers, rounds, n = 8, 40, 5
	var wg sync.WaitGroup
	commits := map[uint64]int{}
	for c := range callers {
		wg.Go(func() {
			id := feeds.TenantID(fmt.Sprintf("t%d", c%4))
			last := feeds.Sequence(0)
			for r := range rounds {
				b, _ := lineBatch(x.j, id, c*1_000_000+r*n, n)
				b.Facts = []journal.Fact{{Key: "total", Value: journal.AppendCounts(nil, n), Add: true}}
				rec, err := x.j.Append(context.Background(), b)
				if err != nil || rec.First <= last || rec.Last != rec.First+n-1 {
					t.Errorf("receipt %+v behind %d: %v", rec, last, err)
					return
				}
				last = rec.Last
				mu.Lock()
				commits[rec.Commit]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if v, _ := x.j.Fact("total"); journal.Counts(v)[0] != callers*rounds*n {
		t.Fatalf("total is %v", journal.Counts(v))
	}
	for c := range 4 {
		ref := x.j.Tenant(feeds.TenantID(fmt.Sprintf("t%d", c)))
		if e := x.j.Standing(ref).End.Events; e != 2*rounds*n || arrived[ref] != e {
			t.Fatalf("tenant %d has %d events, %d arrived", c, e, arrived[ref])
		}
		lines, _ := readLines(t, x.j, x.j.TenantID(ref))
		next := map[int]int{}
		for _, l := range lines {
			var id string
			var k int
			if _, err := fmt.Sscanf(strings.NewReplacer(`{"t":`, "", `,"n":`, " ", `,"pad"`, " ").Replace(l), "%q %d", &id, &k); err != nil {
				t.Fatal(err)
			}
			if k%1_000_000 != next[k/1_000_000] {
				t.Fatalf("caller %d: event %d, want %d", k/1_000_000, k%1_000_000, next[k/1_000_000])
			}
			next[k/1_000_000]++
		}
	}
	if len(commits) == callers*rounds {
		t.Log("no commit was shared; the disk of memory is too fast for that here")
	}
}

// blockSyncs stops at the first sync of a segment after arm until it is let go.
func blockSyncs(f *journaltest.FaultFS) (reached chan struct{}, let chan struct{}) {
	reached, let = make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.Fail(func(op journaltest.Op, path string) error {
		if op == journaltest.Sync && strings.HasSuffix(path, ".seg") {
			once.Do(func() {
				close(reached)
				<-let
			})
		}
		return nil
	})
	return reached, let
}

// TestNotAcknowledgedBeforeTheSync holds the fsync back: neither the append
// returns nor does a reader see the events before it has ended; a caller that
// gives up is told that its batch may still become durable, one that still
// waits that nothing was kept.
func TestNotAcknowledgedBeforeTheSync(t *testing.T) {
	faults := journaltest.NewFaultFS(journaltest.NewCrashFS(1))
	x := newShop(t, journal.Options{FS: faults})
	x.must(x.add("acme", 1))
	reached, let := blockSyncs(faults)
	first, second, third := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	batch := func(n int) *journal.Batch { b, _ := lineBatch(x.j, "acme", n, 1); return b }
	b1, b2, b3 := batch(100), batch(200), batch(300)
	go func() { _, err := x.j.Append(context.Background(), b1); first <- err }()
	<-reached
	select {
	case err := <-first:
		t.Fatalf("acknowledged before its fsync: %v", err)
	default:
	}
	if e := x.j.Standing(x.j.Tenant("acme")).End.Events; e != 1 {
		t.Fatalf("%d events are visible before the fsync", e)
	}
	go func() { _, err := x.j.Append(ctx, b2); second <- err }()
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "nothing was kept") {
		t.Fatalf("a caller that gave up while waiting: %v", err)
	}
	close(let)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	reached, let = blockSyncs(faults)
	ctx, cancel = context.WithCancel(context.Background())
	go func() { _, err := x.j.Append(ctx, b3); third <- err }()
	<-reached
	cancel()
	if err := <-third; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "may still become durable") {
		t.Fatalf("a caller that gave up during the fsync: %v", err)
	}
	close(let)
	x.reopen()
	if e := x.j.Standing(x.j.Tenant("acme")).End.Events; e != 3 {
		t.Fatalf("%d events, want the first, b1 and b3", e)
	}
}

// TestFailedSyncIsNotTriedAgain: after a failed fsync the old file is never
// written again, what was not acknowledged goes to a new segment, and after a
// restart what the failed file holds behind its durable end is ignored.
func TestFailedSyncIsNotTriedAgain(t *testing.T) {
	faults := journaltest.NewFaultFS(journaltest.NewCrashFS(1))
	x := newShop(t, journal.Options{FS: faults})
	x.must(x.add("acme", 10))
	failed := ""
	faults.Fail(func(op journaltest.Op, path string) error {
		switch {
		case op == journaltest.Sync && failed == "" && strings.HasSuffix(path, ".seg"):
			failed = path
			return syscall.EIO
		case failed == path && (op == journaltest.Write || op == journaltest.Sync || op == journaltest.Resize):
			t.Errorf("%s of %s after its fsync failed", op, path)
		}
		return nil
	})
	x.must(x.add("acme", 10)) // the caller notices nothing
	x.must(x.add("acme", 10))
	if failed == "" || !x.reports.has("fsync-failed") {
		t.Fatal("the failed fsync was not reported")
	}
	if m := x.kept("acme"); m > 0 {
		t.Fatalf("%d missing", m)
	}
	faults.Fail(nil)
	x.reopen()
	if m := x.kept("acme"); m > 0 || x.j.Standing(x.j.Tenant("acme")).End.Events != 30 {
		t.Fatalf("after a restart: %d missing, stands at %+v", m, x.j.Standing(x.j.Tenant("acme")))
	}
}

// TestIdleWitness: within a second of going idle a commit of facts alone
// follows the last events, and facts put later are durable.
func TestIdleWitness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := journaltest.NewCrashFS(1)
		s, err := journal.OpenStore("d", journal.Options{FS: disk, ReserveBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		j, err := s.Shard("s")
		if err != nil {
			t.Fatal(err)
		}
		b, lines := lineBatch(j, "acme", 0, 3)
		r, err := j.Append(context.Background(), b)
		if err != nil {
			t.Fatal(err)
		}
		j.PutLater(journal.Fact{Key: "later", Value: []byte("v")})
		synctest.Wait()
		<-time.After(time.Second) // of the bubble's clock
		synctest.Wait()
		ops := disk.Ops()
		<-time.After(time.Minute)
		synctest.Wait()
		if disk.Ops() != ops {
			t.Fatal("an idle shard goes on writing")
		}
		disk.Crash()
		_ = s.Close() // the machine is down
		if s, err = journal.OpenStore("d", journal.Options{FS: disk.Reboot(), ReserveBytes: 4096}); err != nil {
			t.Fatal(err)
		}
		if j, err = s.Shard("s"); err != nil {
			t.Fatal(err)
		}
		if v, _ := j.Fact("later"); string(v) != "v" {
			t.Fatalf("a fact put later is %q after a crash", v)
		}
		next, err := j.Append(context.Background(), &journal.Batch{})
		if err != nil || next.Commit < r.Commit+2 {
			t.Fatalf("commit %d follows %d: no witness between", next.Commit, r.Commit)
		}
		if got, _ := readLines(t, j, "acme"); strings.Join(got, "") != strings.Join(lines, "") {
			t.Fatalf("got %q", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestClockSetBack: what was committed under a clock that was ten years ahead
// counts as committed when it was set right.
func TestClockSetBack(t *testing.T) {
	x := newShop(t, journal.Options{})
	right := x.now()
	x.must(x.add("acme", 1))
	x.clock.Store(right.AddDate(10, 0, 0).UnixMilli())
	x.must(x.add("acme", 2))
	x.clock.Store(right.Add(time.Minute).UnixMilli())
	x.must(x.add("acme", 3))
	if !x.reports.has("clock") {
		t.Fatal("nobody said that the clock was set back")
	}
	check := func() {
		t.Helper()
		var c journal.Chunk
		x.must(x.j.Read(x.j.Tenant("acme"), journal.Position{}, journal.ReadOptions{Before: right.Add(2 * time.Minute).UnixMilli()}, &c))
		if c.Next.Events != 6 {
			t.Fatalf("%d events lie before now", c.Next.Events)
		}
		p, err := x.j.Seek(x.j.Tenant("acme"), right.Add(time.Second).UnixMilli())
		x.must(err)
		if p.Events != 1 {
			t.Fatalf("seek finds event %d, want 1", p.Events)
		}
	}
	check()
	x.reopen()
	check()
}

// TestSeek finds commits by their time over several segments.
func TestSeek(t *testing.T) {
	x := newShop(t, journal.Options{SegmentBytes: 8 << 10})
	start := x.now()
	for range 50 {
		x.must(x.add("acme", 10))
		x.tick(time.Second)
	}
	for _, s := range []int{0, 1, 17, 49, 50} {
		p, err := x.j.Seek(x.j.Tenant("acme"), start.Add(time.Duration(s)*time.Second).UnixMilli())
		if err != nil || p.Events != uint64(s*10) {
			t.Fatalf("second %d: %+v %v", s, p, err)
		}
	}
}

// TestBadBatches are refused before they can do harm to others.
func TestBadBatches(t *testing.T) {
	x := newShop(t, journal.Options{})
	ref := x.j.Tenant("acme")
	line := []byte("{}\n{}\n")
	ev := func(off, n uint32, seq feeds.Sequence) journal.Event {
		return journal.Event{Off: off, Len: n, Tenant: ref, Seq: seq}
	}
	x.must(func() error {
		_, err := x.j.Append(context.Background(), &journal.Batch{Arena: line, Events: []journal.Event{ev(0, 3, 10)}})
		return err
	}())
	bad := map[string]*journal.Batch{
		"no newline":       {Arena: line, Events: []journal.Event{ev(0, 2, 0)}},
		"outside":          {Arena: line, Events: []journal.Event{ev(4, 9, 0)}},
		"empty":            {Arena: line, Events: []journal.Event{ev(0, 0, 0)}},
		"some numbered":    {Arena: line, Events: []journal.Event{ev(0, 3, 11), ev(3, 3, 0)}},
		"falling":          {Arena: line, Events: []journal.Event{ev(0, 3, 12), ev(3, 3, 11)}},
		"below the shard":  {Arena: line, Events: []journal.Event{ev(0, 3, 10)}},
		"unknown tenant":   {Arena: line, Events: []journal.Event{{Len: 3, Tenant: 99}}},
		"kind":             {Arena: line, Events: []journal.Event{{Len: 3, Tenant: ref, Kind: 8}}},
		"fact without key": {Facts: []journal.Fact{{Value: []byte("v")}}},
		"huge fact":        {Facts: []journal.Fact{{Key: "k", Value: make([]byte, 2<<20)}}},
	}
	for name, b := range bad {
		if _, err := x.j.Append(context.Background(), b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := x.j.Append(context.Background(), bad["below the shard"]); !errors.Is(err, journal.ErrSequence) {
		t.Errorf("below the shard: %v", err)
	}
	if e := x.j.Standing(ref).End; e.Events != 1 {
		t.Fatalf("%d events", e.Events)
	}
}

// TestClosed: a closed store answers ErrStopped and keeps what was put later.
func TestClosed(t *testing.T) {
	x := newShop(t, journal.Options{})
	x.j.PutLater(journal.Fact{Key: "k", Value: []byte("v")})
	x.must(x.s.Close())
	if err := x.add("acme", 1); !errors.Is(err, feeds.ErrStopped) {
		t.Fatalf("append: %v", err)
	}
	if _, err := x.s.Shard("other"); !errors.Is(err, feeds.ErrStopped) {
		t.Fatalf("shard: %v", err)
	}
	x.open()
	if v, _ := x.j.Fact("k"); string(v) != "v" {
		t.Fatalf("fact is %q", v)
	}
	if _, err := journal.OpenStore("d", x.opts); err == nil {
		t.Fatal("two stores on one folder")
	}
}
