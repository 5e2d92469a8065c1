package kills

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// blow is a way to die.
type blow struct {
	name  string
	share int // of a hundred
	deal  func(r *rig)
}

// blows are all of them. What SIGTERM begins may be cut short too.
var blows = []blow{
	{"while it works", 54, func(r *rig) {
		r.up()
		// Short lives as often as long ones.
		r.pause(0, []time.Duration{5, 25, 100, 400}[r.rng.IntN(4)]*time.Millisecond)
		r.Kill()
	}},
	{"after rotations of the emitters", 6, func(r *rig) {
		r.up()
		r.pause(1000*time.Millisecond, 2500*time.Millisecond)
		r.Kill()
	}},
	{"while it starts", 20, func(r *rig) {
		r.begin()
		r.pause(0, max(r.starting, 20*time.Millisecond))
		r.Kill()
	}},
	{"while it stops", 15, func(r *rig) {
		r.up()
		r.pause(0, 150*time.Millisecond)
		r.Signal(syscall.SIGTERM)
		r.pause(0, 60*time.Millisecond)
		r.Kill()
	}},
	{"by a second SIGTERM", 5, func(r *rig) {
		r.up()
		r.pause(0, 150*time.Millisecond)
		r.twice(r.between(0, 30*time.Millisecond))
	}},
}

// kills deals n blows under load and holds what arrived to what was
// acknowledged.
func kills(t *testing.T, n int) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("random instants of seed %d", seed)
	r := newRig(t, seed)
	r.ledger.run(2, 12*time.Millisecond, filepath.Join(r.Dir, "in", "a.ndjson"))
	began := time.Now()
	dealt := map[string]int{}
	for range n {
		at := r.rng.IntN(100)
		for _, b := range blows {
			if at -= b.share; at < 0 {
				dealt[b.name]++
				b.deal(r)
				r.Forget()
				break
			}
		}
	}
	took := time.Since(began)
	r.up()
	emitted, streamed := r.settle()
	var how string
	for _, b := range blows {
		how += fmt.Sprintf(", %d %s", dealt[b.name], b.name)
	}
	t.Logf("seed %d: %d kills in %.0f s%s; %d tenants, four sinks each; %d events acknowledged, %d of them read from a file, the others in %d posts (%d had to ask again); lost 0, repeats in drops 0, at the emitters' receiver %d, in Kinesis %d",
		seed, n, took.Seconds(), how, tenants, len(r.ledger.acked), r.ledger.written, r.ledger.posts, r.ledger.again, emitted, streamed)
}

// TestFaultKills: a hundred in CI.
func TestFaultKills(t *testing.T) { kills(t, 100) }
