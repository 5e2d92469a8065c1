package compress

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// blockEncoder and blockDecoder serve every block, for any number of goroutines:
// one at a time encodes, one a processor decodes.
var (
	blockEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := newZstd(0, zstd.WithSingleSegment(true)) // or a frame below 256 bytes says no length
		if err != nil {
			panic(err) // fixed options: cannot happen
		}
		return e
	})
	blockDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(0),
			zstd.WithDecoderLowmem(true),
			zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err) // fixed options: cannot happen
		}
		return d
	})
)

// AppendZstd appends src to dst as one zstd frame that says its decoded length;
// the same src gives the same bytes. For concurrent use.
func AppendZstd(dst, src []byte) []byte { return blockEncoder().EncodeAll(src, dst) }

// DecodeZstd appends the decoded form of one frame of AppendZstd to dst. A frame
// that says more than maxDecoded bytes is refused with ErrTooLarge before any
// memory is taken; anything but a whole frame, or one that says no length, with
// ErrCorrupt; dst is then returned as it was. Below 256 bytes a frame that says
// no length is one of exactly maxDecoded. For concurrent use.
func DecodeZstd(dst, src []byte, maxDecoded int) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return dst, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !h.HasFCS && !h.Skippable && maxDecoded < 256 { // of an earlier AppendZstd
		h.HasFCS, h.FrameContentSize = true, uint64(max(maxDecoded, 0))
	}
	if h.Skippable || !h.HasFCS {
		return dst, fmt.Errorf("%w: a frame that does not say its length", ErrCorrupt)
	}
	if h.FrameContentSize > uint64(max(maxDecoded, 0)) {
		return dst, fmt.Errorf("%w: %d bytes, allowed are %d", ErrTooLarge, h.FrameContentSize, maxDecoded)
	}
	n := int(h.FrameContentSize)
	room := dst
	if cap(dst)-len(dst) < n {
		room = append(make([]byte, 0, len(dst)+n), dst...)
	}
	// The cap is the limit: a frame that holds more than it said is an error.
	out, err := blockDecoder().DecodeAll(src, room[:len(dst):len(dst)+n])
	if err != nil {
		return dst, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(out) != len(dst)+n {
		return dst, fmt.Errorf("%w: %d bytes where the frame says %d", ErrCorrupt, len(out)-len(dst), n)
	}
	return out, nil
}
