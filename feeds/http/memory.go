package httpfeed

import (
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// budget bounds the bytes of all bodies in memory.
type budget struct{ left atomic.Int64 }

// take takes n bytes if there are as many left.
func (b *budget) take(n int) bool {
	if b.left.Add(-int64(n)) >= 0 {
		return true
	}
	b.left.Add(int64(n))
	return false
}

func (b *budget) give(n int) { b.left.Add(int64(n)) }

// Buffers come in sizes of 4 KiB, 8 KiB … 16 MiB, one pool each; larger ones
// are left to the garbage collector.
const (
	minBuffer = 4 << 10
	sizes     = 13
)

var pools [sizes]sync.Pool // *[]byte

// class is the pool whose buffers hold n bytes; sizes where none does.
func class(n int) int {
	if n <= minBuffer {
		return 0
	}
	return min(bits.Len(uint(n-1)/minBuffer), sizes)
}

// buffer is memory out of the pools, paid for by a budget.
type buffer struct {
	b    []byte
	box  *[]byte // what came out of the pool
	paid int
}

// grow makes room for at least n bytes in all, keeping what is there; false
// where the budget does not have them.
func (m *buffer) grow(from *budget, n int) bool {
	if n <= cap(m.b) {
		return true
	}
	c, size := class(n), n
	if c < sizes {
		size = minBuffer << c
	}
	if !from.take(size) {
		return false
	}
	next := buffer{paid: size}
	if c < sizes {
		if box, ok := pools[c].Get().(*[]byte); ok {
			next.box = box
		}
	}
	if next.box == nil {
		fresh := make([]byte, size)
		next.box = &fresh
	}
	next.b = append((*next.box)[:0], m.b...)
	m.free(from)
	*m = next
	return true
}

// free gives the memory back; the bytes must not be used afterwards.
func (m *buffer) free(to *budget) {
	if m.box == nil {
		return
	}
	to.give(m.paid)
	if c := class(cap(*m.box)); c < sizes {
		pools[c].Put(m.box)
	}
	*m = buffer{}
}

// maxDecoders is how many bodies are decompressed at a time: it is work for the
// processors only, and each may need a window of 8 MiB.
func maxDecoders() int { return 2 * runtime.GOMAXPROCS(0) }
