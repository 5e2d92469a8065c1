package filefeed

import (
	"io"
	"math"

	"datasync/formats/compress"
)

// unpacked reads a compressed file forwards as if it were its content: ReadAt
// never behind what was asked for before.
type unpacked struct {
	z    io.ReadCloser
	at   int64  // of win's first byte
	win  []byte // what may be asked for again
	err  error
	file io.Seeker
}

func unpack(file io.ReadSeeker, encoding string, window int) (*unpacked, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	z, err := compress.NewReader(file, encoding, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	return &unpacked{z: z, win: make([]byte, 0, window), file: file}, nil
}

// ReadAt fills p, at most the window, from off on.
func (u *unpacked) ReadAt(p []byte, off int64) (int, error) {
	for {
		if drop := min(off-u.at, int64(len(u.win))); drop > 0 {
			u.win = u.win[:copy(u.win, u.win[drop:])]
			u.at += drop
		}
		for u.err == nil && len(u.win) < cap(u.win) {
			var n int
			n, u.err = u.z.Read(u.win[len(u.win):cap(u.win)])
			u.win = u.win[:len(u.win)+n]
		}
		if u.at == off || u.err != nil && len(u.win) == 0 {
			break
		}
	}
	if u.at != off {
		return 0, u.err
	}
	n := copy(p, u.win)
	if n == len(p) {
		return n, nil
	}
	return n, u.err
}

// packedAt is how many bytes of a compressed file were read.
func (t *tail) packedAt() int64 {
	if t.z == nil {
		return 0
	}
	at, err := t.z.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0
	}
	return at
}

func (t *tail) closePacked() {
	if t.z != nil {
		_ = t.z.z.Close() // gives memory back
		t.z = nil
	}
}
