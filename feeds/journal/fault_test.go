package journal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"datasync/feeds"
	"datasync/feeds/journal"
	"datasync/feeds/journal/journaltest"
)

// incidents collects what a store reports.
type incidents struct {
	mu   sync.Mutex
	list []journal.Incident
}

func (r *incidents) add(i journal.Incident) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, i)
}

func (r *incidents) has(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range r.list {
		if i.What == what {
			return true
		}
	}
	return false
}

// lineBatch is a batch of n lines of one tenant, numbered from from.
func lineBatch(j *journal.Journal, id feeds.TenantID, from, n int) (*journal.Batch, []string) {
	b := &journal.Batch{}
	var lines []string
	for i := range n {
		line := fmt.Sprintf("{\"t\":%q,\"n\":%d,\"pad\":%q}\n", id, from+i, strings.Repeat("p", 80))
		b.Events = append(b.Events, journal.Event{Off: uint32(len(b.Arena)), Len: uint32(len(line)), Tenant: j.Tenant(id)})
		b.Arena = append(b.Arena, line...)
		lines = append(lines, line)
	}
	return b, lines
}

// TestFaults injects one fault, or the same fault for ever, into each kind of
// call. Whatever happens: what was acknowledged is there after a power cut, and
// what was refused is not, but for the one batch that was under way when the
// shard stopped (its outcome is unknown, as in any crash).
func TestFaults(t *testing.T) {
	ops := []journaltest.Op{journaltest.Create, journaltest.Write, journaltest.Sync, journaltest.Resize,
		journaltest.SyncDir, journaltest.Remove, journaltest.Read, journaltest.Open, journaltest.List}
	for _, op := range ops {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
			for _, forever := range []bool{false, true} {
				for skip := range 4 {
					t.Run(fmt.Sprintf("%s/%v/forever=%v/after=%d", op, errno, forever, skip), func(t *testing.T) {
						faultCase(t, op, errno, forever, skip)
					})
				}
			}
		}
	}
}

func faultCase(t *testing.T, op journaltest.Op, errno syscall.Errno, forever bool, skip int) {
	disk := journaltest.NewCrashFS(uint64(skip) + 1)
	faults := journaltest.NewFaultFS(disk)
	var reports incidents
	opts := journal.Options{FS: faults, SegmentBytes: 8 << 10, MaxBytes: 1 << 20, ReserveBytes: 8 << 10, Report: reports.add}
	s, err := journal.OpenStore("d", opts)
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Shard("s")
	if err != nil {
		t.Fatal(err)
	}
	var acked, last []string // last: refused when the shard stopped
	failures := 0
	n := 0
	step := func(rounds int) {
		for range rounds {
			b, lines := lineBatch(j, "acme", n, 10)
			n += 10
			_, err := j.Append(context.Background(), b)
			switch {
			case err == nil:
				acked = append(acked, lines...)
			case errors.Is(err, feeds.ErrFull) && errno == syscall.ENOSPC, errors.Is(err, feeds.ErrStopped):
				if failures++; last == nil && j.Err() != nil {
					last = lines
				}
			default:
				t.Fatalf("append: %v, neither ErrFull (on a full disk) nor ErrStopped", err)
			}
		}
	}
	step(3)
	left := skip
	faults.Fail(func(o journaltest.Op, path string) error {
		if o != op || !strings.HasSuffix(path, ".seg") && !strings.HasSuffix(path, "/s") {
			return nil
		}
		if left > 0 {
			left--
			return nil
		}
		if !forever {
			left = 1 << 30
		}
		return errno
	})
	step(20)
	if !forever && failures > 1 {
		t.Fatalf("one fault made %d appends fail", failures)
	}
	stopped := j.Err() != nil
	faults.Fail(nil)
	failures = 0
	step(5)
	if stopped && failures != 5 {
		t.Fatalf("a stopped shard acknowledged %d of 5 appends", 5-failures)
	}
	if !stopped && failures > 0 {
		t.Fatalf("%d appends failed after the fault was gone", failures)
	}
	if stopped && !reports.has("fail-stop") {
		t.Fatal("stopped without saying so")
	}
	disk.Crash()
	_ = s.Close() // the machine is down
	opts.FS = disk.Reboot()
	if s, err = journal.OpenStore("d", opts); err != nil {
		t.Fatal(err)
	}
	if j, err = s.Shard("s"); err != nil {
		t.Fatal(err)
	}
	got, missing := readLines(t, j, "acme")
	if len(got) > len(acked) {
		acked = append(acked, last...)
	}
	if missing > 0 || strings.Join(got, "") != strings.Join(acked, "") {
		t.Fatalf("%d lines and %d missing, acknowledged were %d", len(got), missing, len(acked))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
