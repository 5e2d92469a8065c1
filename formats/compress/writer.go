// Package compress is the only home of the compression library: pooled writers
// whose bytes depend on nothing but their input, readers that a bomb cannot
// hurt, and zstd for blocks.
package compress

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Codec is a compression by the name that settings and HTTP know it by.
type Codec string

// The codecs.
const (
	Gzip Codec = "gzip"
	Zstd Codec = "zstd"
)

const (
	// chunk is what the codec is handed at a time, whatever Write was handed:
	// so its output cannot depend on how the input was split.
	chunk = 64 << 10
	// window is zstd's: four times what a block holds is all the gain there is
	// in lines as alike as events, and an encoder needs twice of it in memory.
	window = 1 << 20
	// maxGzip and maxZstd are the highest levels; the lowest is 1.
	maxGzip = 9
	maxZstd = 22
)

// errClosed is what Write and Close say after Close or Abandon.
var errClosed = errors.New("compress: write on a writer that is closed")

// encoder is what gzip's and zstd's writers have in common.
type encoder interface {
	io.WriteCloser
	Reset(io.Writer)
}

// Writer compresses one object: NewWriter, Write as often as wanted, then Close
// or Abandon, each of which gives its memory back for the next. The same input
// at the same codec and level gives the same bytes, however it was split over
// Writes and whatever GOMAXPROCS is. Not for concurrent use.
type Writer struct {
	enc  encoder
	pool *sync.Pool // where the writer goes back to; nil: it is there already
	home *sync.Pool
	out  counter
	fill []byte // less than a chunk of input that waits
	err  error
}

// counter counts the bytes that reached the destination.
type counter struct {
	w io.Writer
	n int64
}

// Write passes p on and counts it.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// pools holds idle writers, one pool a codec and level: at most 31 of them.
var pools [2][maxZstd + 1]sync.Pool

// CheckLevel says what is wrong with a level of a codec; 0, the default, is
// always right.
func CheckLevel(c Codec, level int) error {
	top := maxZstd
	switch c {
	case Gzip:
		top = maxGzip
	case Zstd:
	default:
		return fmt.Errorf("compression %q is unknown; use gzip or zstd", c)
	}
	if level < 0 || level > top {
		return fmt.Errorf("level %d does not go with %s; use 1 to %d, or 0 for the fastest", level, c, top)
	}
	return nil
}

// NewWriter starts a compressed object on w. Level 0 is the fastest: gzip 1 and
// zstd's fastest; else gzip 1 to 9, zstd 1 to 22 (of which the library knows
// four kinds).
func NewWriter(w io.Writer, c Codec, level int) (*Writer, error) {
	if err := CheckLevel(c, level); err != nil {
		return nil, err
	}
	pool := &pools[0][level]
	if c == Zstd {
		pool = &pools[1][level]
	}
	cw, ok := pool.Get().(*Writer)
	if !ok {
		enc, err := newEncoder(c, level)
		if err != nil {
			return nil, err
		}
		cw = &Writer{enc: enc, home: pool, fill: make([]byte, 0, chunk)}
	}
	cw.pool, cw.err, cw.fill = pool, nil, cw.fill[:0]
	cw.out = counter{w: w}
	cw.enc.Reset(&cw.out)
	if z, ok := cw.enc.(*gzip.Writer); ok {
		z.ModTime = time.Unix(0, 0) // the header says "no time"; time.Time{} would say 2042
	}
	return cw, nil
}

// newEncoder makes the library's encoder.
func newEncoder(c Codec, level int) (encoder, error) {
	if c == Gzip {
		return gzip.NewWriterLevel(io.Discard, max(level, 1))
	}
	return newZstd(level)
}

// newZstd makes a zstd encoder of one goroutine: with more, where blocks end
// would depend on the machine.
func newZstd(level int, more ...zstd.EOption) (*zstd.Encoder, error) {
	speed := zstd.SpeedFastest
	if level > 0 {
		speed = zstd.EncoderLevelFromZstd(level)
	}
	return zstd.NewWriter(nil, append(more,
		zstd.WithEncoderLevel(speed),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(window),
		zstd.WithLowerEncoderMem(true),
		zstd.WithZeroFrames(true))...)
}

// Write compresses p, which it does not keep. An error is the destination's and
// stays: only Abandon is left to do.
func (w *Writer) Write(p []byte) (int, error) {
	if w.pool == nil {
		return 0, errClosed
	}
	if w.err != nil {
		return 0, w.err
	}
	n := len(p)
	if len(w.fill) > 0 {
		k := min(chunk-len(w.fill), len(p))
		w.fill, p = append(w.fill, p[:k]...), p[k:]
		if len(w.fill) < chunk {
			return n, nil
		}
		if _, w.err = w.enc.Write(w.fill); w.err != nil {
			return 0, w.err
		}
		w.fill = w.fill[:0]
	}
	for len(p) >= chunk {
		if _, w.err = w.enc.Write(p[:chunk]); w.err != nil {
			return 0, w.err
		}
		p = p[chunk:]
	}
	w.fill = append(w.fill, p...)
	return n, nil
}

// Size is how many compressed bytes reached the destination so far: behind what
// was written by up to a chunk and what the codec holds back.
func (w *Writer) Size() int64 { return w.out.n }

// Close ends the compressed object, without closing the destination, gives the
// writer back and says how many compressed bytes there are in all. The writer
// must not be used again, not even for Size.
func (w *Writer) Close() (size int64, err error) {
	if w.pool == nil {
		return 0, errClosed
	}
	err = w.err
	if err == nil && len(w.fill) > 0 {
		_, err = w.enc.Write(w.fill)
	}
	if err == nil {
		err = w.enc.Close()
	}
	size = w.out.n
	w.Abandon()
	return size, err
}

// Abandon gives the writer back without ending the object; nothing after Close.
func (w *Writer) Abandon() {
	if w.pool == nil {
		return
	}
	w.pool = nil
	w.out.w = nil
	w.enc.Reset(io.Discard)
	w.home.Put(w)
}
