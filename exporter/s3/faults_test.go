package s3

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"datasync/exporter/lane"
	"datasync/exporter/tenants"
)

// TestRandomFaults: three calls in ten fail in any way, over drops of one
// request and of many, put by several lanes at once: the objects are the drops.
func TestRandomFaults(t *testing.T) { testRandomFaults(t, func(*fake, *tenants.S3Sink) {}, true) }

// TestRandomFaultsWithoutTheCondition: nothing is lost or other than planned
// without it either; an object may be written again, with the same bytes.
func TestRandomFaultsWithoutTheCondition(t *testing.T) {
	testRandomFaults(t, func(_ *fake, s *tenants.S3Sink) { s.ConditionalPut = false }, false)
	testRandomFaults(t, func(f *fake, _ *tenants.S3Sink) { f.ignores = true }, false)
}

func testRandomFaults(t *testing.T, change func(*fake, *tenants.S3Sink), once bool) {
	const seed, drops, share = 1, 120, 0.3
	all := ways()
	names := slices.Sorted(maps.Keys(all))
	f := newFake(t)
	set := f.settings()
	change(f, set)
	rnd, injected := rand.New(rand.NewPCG(seed, 0)), 0
	f.fault = func(string, int) *fault { // with the fake's lock held
		if rnd.Float64() >= share {
			return nil
		}
		injected++
		way := all[names[rnd.IntN(len(names))]]
		return &way
	}
	s := New(set, NewClients("abc123", small))
	ds := make([]*lane.Drop, drops)
	next := make(chan *lane.Drop, drops)
	for i := range ds {
		ds[i] = drop(i+1, strings.Repeat(fmt.Sprintf("%03d\n", i), 1+i*4)) // up to 1,900 bytes: half of them go in parts
		next <- ds[i]
	}
	close(next)
	var wg sync.WaitGroup
	var mu sync.Mutex
	tries := 0
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for d := range next {
				for n := 1; ; n++ {
					err := s.Put(context.Background(), d)
					mu.Lock()
					tries++
					mu.Unlock()
					if err == nil {
						break
					}
					refusal(t, err)
					if n == 200 {
						t.Errorf("%s never arrived: %v", d.Key, err)
						break
					}
				}
			}
		}()
	}
	wg.Wait()
	f.mu.Lock()
	calls, left := len(f.calls), len(f.uploads)
	for id := range f.uploads { // those of drops whose list was forbidden in their last try
		delete(f.uploads, id)
	}
	for k := range f.objects {
		if strings.Contains(k, "/.datasync-probe/") {
			delete(f.objects, k)
		}
	}
	again := 0
	for k, n := range f.writes {
		if !once && f.objects[k].body != "" {
			again += n - 1
			f.writes[k] = 1
		}
	}
	f.mu.Unlock()
	f.wants(t, ds...)
	t.Logf("seed %d: %d faults in %d calls, %d drops in %d tries: none missing, %d written again; %d uploads left to the bucket's rule", seed, injected, calls, drops, tries, again, left)
	if left > drops/20 {
		t.Errorf("%d uploads are left", left)
	}
}

// TestALifeThatWasKilled: whatever an earlier life had done of an upload when
// it was killed, this one makes the object and removes what was left.
func TestALifeThatWasKilled(t *testing.T) {
	for _, at := range []string{"create", "part", "complete", "abort"} {
		for _, done := range []bool{false, true} {
			f := newFake(t)
			d := drop(1, strings.Repeat("0123456789", 150))
			ctx, kill := context.WithCancel(context.Background())
			f.fault = func(st string, n int) *fault {
				if st == "complete" && at == "abort" {
					return &fault{status: 400, code: "WhoKnows"} // so that it is aborted
				}
				if st == at {
					kill()
				}
				if ctx.Err() != nil && (st != at || !done) { // the dead ask for nothing
					return &fault{}
				}
				return nil
			}
			if err := newSink(f, small).Put(ctx, d); err == nil && at != "complete" {
				t.Errorf("killed at %s: %v", at, err)
			}
			lists := f.count("list")
			f.mu.Lock()
			f.fault = func(st string, n int) *fault { // nor does a store that cannot say yet what is left let a drop pass
				if st == "list" && n <= lists+tries {
					return &fault{status: 500, code: "InternalError"}
				}
				return nil
			}
			f.mu.Unlock()
			s := newSink(f, small)
			refusal(t, s.Put(context.Background(), d))
			mustPut(t, s, d)
			f.wants(t, d)
		}
	}
}

// TestAStoreThatCannotListUploads: what it cannot do does not hold the drops.
func TestAStoreThatCannotListUploads(t *testing.T) {
	for _, flt := range []fault{{status: 501, code: "NotImplemented"}, {status: 403, code: "AccessDenied"}, {status: 405}, {status: 400, code: "InvalidRequest"}} {
		f := newFake(t)
		f.fault = on("list", 0, flt)
		d := drop(1, strings.Repeat("x", 1500))
		mustPut(t, newSink(f, small), d)
		f.wants(t, d)
	}
}
