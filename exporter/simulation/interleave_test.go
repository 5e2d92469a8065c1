//go:build interleave

package simulation_test

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// interleaved says that goroutines may be overtaken at every lock; again is how
// one seed is run again.
const (
	interleaved = true
	crosses     = 40 // see steps: what happens at one instant is what this build is for
	again       = "task interleave SEED=%d"
)

// overtake lets other goroutines go first at locks that the seed draws; the
// overlay of package interleave asks at every one.
func overtake(seed uint64) (stop func()) {
	var asked atomic.Uint64
	sync.Yield = func() {
		// Splitmix64; a rand.Rand would want a lock.
		z := seed<<32 + asked.Add(1)
		z = (z + 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		z ^= z >> 31
		if z%2 != 0 {
			return
		}
		// Mostly one step of the others; sometimes enough of them for a whole post,
		// from its socket through the journal to the sinks.
		turns := uint64(1)
		if z>>3%2 == 0 {
			turns += z >> 6 % 64
		}
		for range turns {
			runtime.Gosched()
		}
	}
	return func() { sync.Yield = nil }
}
