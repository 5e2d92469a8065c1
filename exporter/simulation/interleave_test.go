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
		if (z^z>>31)%8 == 0 {
			runtime.Gosched()
		}
	}
	return func() { sync.Yield = nil }
}
