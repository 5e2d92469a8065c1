package journal_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/feeds/journal/journaltest"
)

// TestFullDisk fills the disk under the journal: events are refused, facts go
// on in the room of the reserve, and all resumes by itself.
func TestFullDisk(t *testing.T) {
	faults := journaltest.NewFaultFS(journaltest.NewCrashFS(1))
	x := newShop(t, journal.Options{FS: faults, SegmentBytes: 1 << 20, MaxBytes: 64 << 20, ReserveBytes: 1 << 20})
	x.must(x.add("acme", 10))
	freed := false
	whole := syscall.ENOSPC // what making the reserve whole again meets
	faults.Fail(func(op journaltest.Op, path string) error {
		switch reserve := strings.HasSuffix(path, "/RESERVE"); {
		case reserve && op == journaltest.Resize && freed && whole != 0:
			return whole
		case reserve && op == journaltest.Resize:
			freed = true
		case !freed && (op == journaltest.Write || op == journaltest.Create):
			return syscall.ENOSPC
		}
		return nil
	})
	if err := x.add("acme", 10); !errors.Is(err, feeds.ErrFull) {
		t.Fatalf("append on a full disk: %v", err)
	}
	x.must(x.j.Put(context.Background(), journal.Fact{Key: "position", Value: []byte("1")}))
	if !freed || !x.reports.has("reserve-released") {
		t.Fatal("the reserve was not given to facts")
	}
	x.must(x.s.Maintain())
	if err := x.add("acme", 10); !errors.Is(err, feeds.ErrFull) {
		t.Fatalf("an append into the room that is kept for facts: %v", err)
	}
	x.reopen() // the same after a restart
	if err := x.add("acme", 10); !errors.Is(err, feeds.ErrFull) {
		t.Fatalf("an append into the room that is kept for facts, after a restart: %v", err)
	}
	faults.Fail(nil)
	x.must(x.s.Maintain())
	x.must(x.add("acme", 10))
	if !x.reports.has("space-back") {
		t.Fatal("nobody said that there is room again")
	}
	x.kept("acme")
	x.reopen()
	x.kept("acme")
	if v, _ := x.j.Fact("position"); string(v) != "1" {
		t.Fatalf("fact is %q", v)
	}
}

// TestFactsDoNotRaiseTheCap: facts may pass max_bytes by what they are, and
// what is allocated for them is not filled with events.
func TestFactsDoNotRaiseTheCap(t *testing.T) {
	const most = 1 << 20
	x := newShop(t, journal.Options{SegmentBytes: 8 << 20, MaxBytes: most, ReserveBytes: 16 << 10})
	refused := 0
	for i := range 400 {
		err := x.add("acme", 50) // nobody released them: nothing can go
		if errors.Is(err, feeds.ErrFull) {
			refused++
		} else {
			x.must(err)
		}
		x.must(x.j.Put(context.Background(), journal.Fact{Key: "n", Value: journal.AppendCounts(nil, uint64(i))}))
	}
	if used := x.s.Usage().Used; refused == 0 || used > most+256<<10 {
		t.Fatalf("%d bytes are used, the cap is %d; %d of 400 appends were refused", used, most, refused)
	}
	x.kept("acme")
}

// TestFailedDeletionsAreTriedAgain: what could not be deleted counts, and goes
// once the disk lets it; nothing of it comes back at a restart.
func TestFailedDeletionsAreTriedAgain(t *testing.T) {
	disk := journaltest.NewCrashFS(3)
	faults := journaltest.NewFaultFS(disk)
	x := newShop(t, journal.Options{FS: faults, SegmentBytes: 16 << 10, Retain: time.Minute, MaxBytes: 8 << 20})
	for range 20 {
		x.must(x.add("acme", 50))
	}
	x.releaseAll("acme")
	x.tick(time.Hour)
	faults.Fail(func(op journaltest.Op, _ string) error {
		if op == journaltest.Remove {
			return syscall.EIO
		}
		return nil
	})
	used := x.s.Usage().Used
	for range 3 {
		if err := x.s.Maintain(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("maintain: %v", err)
		}
	}
	if now := x.s.Usage().Used; now < used {
		t.Fatalf("%d bytes are said to be used, %d before nothing could be deleted", now, used)
	}
	faults.Fail(nil)
	x.must(x.s.Maintain())
	var files int64
	infos, err := disk.List("d/s")
	x.must(err)
	for _, i := range infos {
		files += i.Size()
	}
	if now := x.s.Usage().Used; now >= used/2 || files+64<<10 != now {
		t.Fatalf("%d bytes are said to be used; files hold %d, the reserve 64 KiB", now, files)
	}
	x.reopen()
	x.kept("acme")
}

// TestAnUnsealedSegmentGoesToo: where sealing fails and the cap leaves no room
// for a next segment, the one that was left makes room.
func TestAnUnsealedSegmentGoesToo(t *testing.T) {
	faults := journaltest.NewFaultFS(journaltest.NewCrashFS(4))
	x := newShop(t, journal.Options{FS: faults, SegmentBytes: 2 << 20, MaxBytes: 512 << 10, ReserveBytes: 16 << 10})
	for {
		if err := x.add("acme", 50); errors.Is(err, feeds.ErrFull) {
			break
		} else {
			x.must(err)
		}
	}
	x.releaseAll("acme")
	failed := false
	faults.Fail(func(op journaltest.Op, _ string) error {
		if op != journaltest.Resize || failed {
			return nil
		}
		failed = true
		return syscall.EIO
	})
	_ = x.s.Maintain() // it may say so, or not: what counts comes next
	if !x.reports.has("fsync-failed") {
		t.Fatal("nothing was sealed: then this test shows nothing")
	}
	x.must(x.s.Maintain())
	x.must(x.add("acme", 50))
	x.kept("acme")
}

// TestAFullDiskFreesWhatWasPassed: where the disk is smaller than max_bytes,
// what every lane has passed goes as it does at the cap, and nothing else.
func TestAFullDiskFreesWhatWasPassed(t *testing.T) {
	disk := journaltest.NewCrashFS(5)
	faults := journaltest.NewFaultFS(disk)
	x := newShop(t, journal.Options{FS: faults, SegmentBytes: 64 << 10, MaxBytes: 1 << 30, ReserveBytes: 64 << 10, Retain: time.Hour})
	faults.Fail(func(op journaltest.Op, path string) error {
		if !strings.HasSuffix(path, ".seg") || op != journaltest.Create && op != journaltest.Resize {
			return nil
		}
		used := int64(len(disk.Bytes("d/RESERVE")))
		infos, err := disk.List("d/s")
		for _, i := range infos {
			used += i.Size()
		}
		if err != nil || used > 1<<20 {
			return syscall.ENOSPC
		}
		return nil
	})
	x.must(x.add("late", 1))
	fill := func() {
		for {
			err := x.add("acme", 50)
			if errors.Is(err, feeds.ErrFull) {
				return
			}
			x.must(err)
		}
	}
	fill()
	for range 3 {
		x.must(x.s.Maintain())
	}
	if m := x.kept("acme"); m != 0 {
		t.Fatalf("%d events that nobody had passed went for a full disk", m)
	}
	for range 3 {
		x.releaseAll("acme")
		had := x.n["acme"]
		x.must(x.s.Maintain())
		fill()
		if x.n["acme"] < had+500 {
			t.Fatalf("only %d more events were taken once all was delivered", x.n["acme"]-had)
		}
	}
	if m := x.kept("late"); m != 0 {
		t.Fatal("an event that nobody had passed went")
	}
}
