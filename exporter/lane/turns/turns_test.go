package turns

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"datasync/exporter/state"
	"datasync/feeds"
)

func key(i int) state.Key {
	return state.Key{Tenant: feeds.TenantID(fmt.Sprint("t", i)), Sink: "drops"}
}

// asked is a lane of the tests: its sink, its place, its number within the sink.
type asked struct {
	sink, number int
	place        string
}

// hang has lanes of one sink ask until no more get a turn, and says how many did.
func hang(ts *Turns[asked], sink, lanes int, place string) (got int) {
	for n := range lanes {
		if ts.Ask(asked{sink, n, place}, key(sink), place) {
			got++
		}
	}
	return got
}

func TestThoseThatHangLeaveTurnsToTheRest(t *testing.T) {
	const all = 1024
	ts := New[asked](all)
	if got := hang(ts, 0, 5000, "bucket"); got > all/perSink || got < all/perSink/2 {
		t.Errorf("one sink that hangs has %d of %d turns", got, all)
	}
	ts = New[asked](all)
	got := 0
	for s := range 2000 {
		got += hang(ts, s, 2, "bucket")
	}
	if got > all/perPlace || got < all/perPlace/2 {
		t.Errorf("2,000 sinks of a bucket that hangs have %d of %d turns", got, all)
	}
	if hang(ts, 9999, 1, "elsewhere") != 1 {
		t.Error("a sink elsewhere has none")
	}
	ts = New[asked](all)
	for b := range 50 { // one after the other, each with more lanes than there are turns
		for s := range 20 {
			hang(ts, b*20+s, 100, fmt.Sprint("bucket ", b))
		}
	}
	if hang(ts, 9999, 1, "elsewhere") != 1 {
		t.Errorf("with 50 buckets that hang, %d of %d turns are taken", ts.busy, all)
	}
	ts = New[asked](all)
	for range 100 { // together
		for b := range 200 {
			hang(ts, b, 1, fmt.Sprint("bucket ", b))
		}
	}
	if hang(ts, 9999, 1, "elsewhere") != 1 {
		t.Errorf("with 200 buckets that hang, %d of %d turns are taken", ts.busy, all)
	}
}

// TestNobodyIsForgotten: whoever asks has a turn in the end, one, in the order
// of its sink, and what ended leaves nothing behind.
func TestNobodyIsForgotten(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		all := 1 + rnd.IntN(40)
		ts := New[asked](all)
		numbers, last := map[int]int{}, map[int]int{}
		var under []asked
		begins := func(a asked) {
			under = append(under, a)
			if last[a.sink]++; a.number != last[a.sink] {
				t.Fatalf("seed %d: number %d of sink %d has its turn after %d", seed, a.number, a.sink, last[a.sink]-1)
			}
			if len(under) > all {
				t.Fatalf("seed %d: %d turns of %d", seed, len(under), all)
			}
		}
		ends := func() {
			i := rnd.IntN(len(under))
			a := under[i]
			under = append(under[:i], under[i+1:]...)
			for _, b := range ts.Done(key(a.sink), a.place) {
				begins(b)
			}
		}
		asks := 0
		for asks < 1000 {
			if len(under) > 0 && rnd.IntN(3) == 0 {
				ends()
				continue
			}
			s := rnd.IntN(30)
			numbers[s]++
			asks++
			a := asked{s, numbers[s], fmt.Sprint("bucket ", s%7)}
			if ts.Ask(a, key(s), a.place) {
				begins(a)
			}
		}
		had := 0
		for len(under) > 0 {
			ends()
		}
		for _, n := range last {
			had += n
		}
		if had != asks || ts.busy != 0 {
			t.Fatalf("seed %d: %d of %d had a turn, %d are under way", seed, had, asks, ts.busy)
		}
		for hang(ts, 0, 1, "bucket 0") == 1 && ts.busy < 1 {
			ts.Done(key(0), "bucket 0")
		}
		if len(ts.places) > 1 || len(ts.waiting) > 7 {
			t.Fatalf("seed %d: %d places and %d that wait are left", seed, len(ts.places), len(ts.waiting))
		}
	}
}

func BenchmarkATurn(b *testing.B) {
	ts := New[asked](1024)
	for s := range 5000 {
		hang(ts, s, 2, "bucket")
	}
	b.ReportAllocs()
	for b.Loop() {
		if ts.Ask(asked{}, key(9999), "elsewhere") {
			ts.Done(key(9999), "elsewhere")
		}
	}
}
