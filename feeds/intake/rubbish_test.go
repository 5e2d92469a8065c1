package intake

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"datasync/feeds"
)

func TestRubbishIsKeptWithoutGrowing(t *testing.T) {
	r := newRig(t, nil)
	const n = 40_000
	body := strings.Repeat("x\n", n)
	recs := func(yield func(feeds.Record) bool) {
		for i := range n {
			if !yield(feeds.Record{Value: []byte(body[2*i : 2*i+2])}) {
				return
			}
		}
	}
	res := r.submit(t, &Request{Format: "canonical", Tenant: "acme", Records: recs})
	if len(res.Rejected) != maxListed || res.More != n-maxListed || res.Rejected[maxListed-1].Index != maxListed-1 {
		t.Fatalf("%d rejected and %d more", len(res.Rejected), res.More)
	}
	count, kept := 0, 0
	for _, e := range r.entries(t) {
		count += e.Count
		kept += strings.Count(string(e.Data), "x")
	}
	if count != n || kept != n {
		t.Errorf("%d counted, %d kept", count, kept)
	}
	if size := len(r.bad.all()); size > 3*len(body)+ownEntries*400 {
		t.Errorf("%d bytes of rubbish became %d", len(body), size)
	}
}

// TestAnArrayOfRubbishIsBounded: Kafka hands over a record as it is, and one
// of 4 MB may hold two million values that are no events.
func TestAnArrayOfRubbishIsBounded(t *testing.T) {
	r := newRig(t, nil)
	const n = 2_000_000
	good := event("e1", "acme", "")
	body := []byte("[" + strings.Repeat("1,", n/2) + good + strings.Repeat(",1", n/2) + "]")
	r.submit(t, &Request{Format: "canonical", Tenant: "acme", Records: slices.Values([]feeds.Record{{Value: []byte("[" + good + ",7]"), Seq: 1 << 30}})})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	res := r.submit(t, &Request{Format: "canonical", Tenant: "acme", Records: slices.Values([]feeds.Record{{Value: body, Position: "partition 0 offset 1"}})})
	runtime.ReadMemStats(&after)
	if c := r.main.feed("edge"); res.Accepted != 1 || c.Quarantined != n+1 || len(res.Rejected)+res.More != n {
		t.Errorf("%d accepted, %d rejected and %d more: %+v", res.Accepted, len(res.Rejected), res.More, c)
	}
	count, kept := 0, 0
	for _, e := range r.entries(t) {
		count += e.Count
		kept += strings.Count(string(e.Data), "1")
	}
	if count != n+1 || kept != n {
		t.Errorf("%d counted, %d kept", count, kept)
	}
	if sys := after.HeapSys - before.HeapSys; int64(sys) > 100<<20 {
		t.Errorf("the heap grew by %d MiB for a record of %d", sys>>20, len(body)>>20)
	}
}
