package compress

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

var (
	// ErrTooLarge says that the decoded bytes pass the bound given.
	ErrTooLarge = errors.New("larger than allowed once decompressed")
	// ErrCorrupt says that the bytes are not what the codec writes, or end early.
	ErrCorrupt = errors.New("not valid compressed data")
	// ErrEncoding says that the encoding is none that can be read.
	ErrEncoding = errors.New("encoding is not gzip or zstd")
)

// maxWindow bounds the memory that one zstd reader can be made to take: what
// RFC 8878 asks decoders to accept, no more.
const maxWindow = 8 << 20

var (
	gzipReaders sync.Pool // *gzip.Reader
	zstdReaders sync.Pool // *zstd.Decoder
)

// NewReader decompresses r, of encoding gzip or zstd, and fails with ErrTooLarge
// as soon as there are more than maxDecoded bytes (which were then all handed
// out before); with ErrCorrupt where the data is not what it says; with r's own
// error where reading r fails. Memory is bounded by the encoding's window, 8 MiB
// at most, whatever the data claims. Close gives it back, without closing r.
func NewReader(r io.Reader, encoding string, maxDecoded int64) (io.ReadCloser, error) {
	src := &source{r: r}
	br := &reader{src: src, left: maxDecoded}
	switch Codec(encoding) {
	case Gzip:
		z, ok := gzipReaders.Get().(*gzip.Reader)
		if !ok {
			z = new(gzip.Reader)
		}
		br.release = func() { gzipReaders.Put(z) }
		br.z = z
		if err := z.Reset(src); err != nil {
			return nil, errors.Join(br.explain(noEOF(err)), br.Close())
		}
	case Zstd:
		z, ok := zstdReaders.Get().(*zstd.Decoder)
		if !ok {
			var err error
			z, err = zstd.NewReader(nil,
				zstd.WithDecoderConcurrency(1), // no goroutines to wait for
				zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(maxWindow),
				zstd.WithDecodeBuffersBelow(0)) // never the whole at once
			if err != nil {
				return nil, fmt.Errorf("make a zstd reader: %w", err)
			}
		}
		br.release = func() {
			if z.Reset(nil) == nil {
				zstdReaders.Put(z)
			}
		}
		br.z = z
		if err := z.Reset(src); err != nil {
			return nil, errors.Join(br.explain(noEOF(err)), br.Close())
		}
	default:
		return nil, fmt.Errorf("%w: %q", ErrEncoding, encoding)
	}
	return br, nil
}

// source remembers the error of the bytes' origin, to tell it from the codec's.
type source struct {
	r   io.Reader
	err error
}

// Read reads the origin.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// reader is a bounded decompressing reader.
type reader struct {
	z       io.Reader
	src     *source
	left    int64
	err     error
	release func()
}

// Read hands out decoded bytes, at most those allowed.
func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.left <= 0 {
		r.err = r.probe()
		return 0, r.err
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.z.Read(p)
	r.left -= int64(n)
	if err != nil {
		r.err = r.explain(err)
	}
	return n, r.err
}

// probe finds out, at the bound, whether the data ends there.
func (r *reader) probe() error {
	var one [1]byte
	n, err := io.ReadFull(r.z, one[:])
	if n > 0 {
		return ErrTooLarge
	}
	return r.explain(err)
}

// explain tells the end, the origin's failure and the codec's refusal apart.
func (r *reader) explain(err error) error {
	switch {
	case r.src.err != nil:
		return r.src.err
	case err == io.EOF:
		return io.EOF
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	default:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
}

// noEOF turns an end before the first byte of the object into an early end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Close gives the codec's memory back; reading afterwards fails.
func (r *reader) Close() error {
	if r.release != nil {
		r.release()
		r.release, r.z = nil, nil
		r.err = errClosed
	}
	return nil
}
