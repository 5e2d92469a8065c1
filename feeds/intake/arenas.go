package intake

import "sync"

// Arenas that are not in use, of all doors. A sync.Pool would let go of them at
// each collection, and growing one again by and by copies it twice over; the
// last one that came back is the next to go, since the caches still hold it.
const (
	keepArenas     = 16
	keepArenaBytes = 32 << 20 // together
)

type arenas struct {
	mu    sync.Mutex
	idle  [][]byte
	bytes int
}

var spare arenas

// take gives an empty arena, which may be nil.
func (a *arenas) take() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.idle)
	if n == 0 {
		return nil
	}
	b := a.idle[n-1]
	a.idle[n-1], a.idle = nil, a.idle[:n-1]
	a.bytes -= cap(b)
	return b[:0]
}

// give takes an arena back that nobody reads any more.
func (a *arenas) give(b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cap(b) == 0 || len(a.idle) == keepArenas || a.bytes+cap(b) > keepArenaBytes {
		return
	}
	a.idle = append(a.idle, b)
	a.bytes += cap(b)
}
