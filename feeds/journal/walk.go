package journal

import (
	"bytes"
	"errors"
	"io"
	"slices"

	"datasync/feeds"
)

const (
	windowLen  = 256 << 10
	sectorLen  = 512
	zeroCounts = 32 // a zero part of a sector shorter than this proves nothing
)

// window reads a file through a buffer, up to limit.
type window struct {
	f     File
	limit int64
	buf   []byte
	off   int64
}

// at gives n bytes at off, fewer at the limit; valid until the next call.
func (w *window) at(off int64, n int64) ([]byte, error) {
	n = min(n, w.limit-off)
	if n <= 0 {
		return nil, nil
	}
	if off < w.off || off+n > w.off+int64(len(w.buf)) {
		size := min(max(n, windowLen), w.limit-off)
		w.buf = slices.Grow(w.buf[:0], int(size))[:size]
		w.off = off
		if err := readFull(w.f, w.buf, off); err != nil {
			w.buf = w.buf[:0]
			if errors.Is(err, io.EOF) {
				return nil, nil // the file is shorter than it was said to be
			}
			return nil, err
		}
	}
	return w.buf[off-w.off:][:n], nil
}

// commitAt is a commit as found in a file; dir and facts are copies.
type commitAt struct {
	off        int64
	head       commitHead
	dir, facts []byte
}

// end is where it ends.
func (c *commitAt) end() int64 { return c.off + c.head.size() }

// badRange is a part of a segment that is no commit, though a later one proves
// that it was.
type badRange struct {
	from, to    int64
	first, next uint64 // the number missing first, and that of the commit behind
	events      uint64 // how many events went with it
	seq, seqTo  feeds.Sequence
}

// walker goes through the commits of one segment.
type walker struct {
	w     window
	id    uint64
	acked uint64 // commits up to here are known durable from elsewhere
	next  uint64 // the number expected
	// what the commits so far add up to
	seq    feeds.Sequence
	events uint64

	visit func(*commitAt) error // every commit but the last
	bad   []badRange
	// set at the end
	last *commitAt // the last commit, not visited: the caller judges it
	tail int64     // where what follows the last commit begins
}

// walk goes from off to the limit. It stops at what has no later witness.
func (k *walker) walk(off int64) error {
	for {
		c, err := k.commit(off)
		if err != nil {
			return err
		}
		if c == nil {
			from := off
			if c, err = k.behind(from); err != nil {
				return err
			}
			if c == nil {
				k.tail = from
				return nil
			}
			if c.off > from {
				k.bad = append(k.bad, badRange{from: from, to: c.off, first: k.next, next: c.head.Number,
					events: c.head.Before - min(k.events, c.head.Before), seq: k.seq + 1, seqTo: c.head.First})
			}
		}
		if err := k.pass(); err != nil {
			return err
		}
		k.last, k.next = c, c.head.Number+1
		k.seq, k.events = c.head.Last, c.head.Before+uint64(c.head.Events)
		off = c.end()
	}
}

// pass visits the commit before the one just found.
func (k *walker) pass() error {
	if k.last == nil {
		return nil
	}
	c := k.last
	k.last = nil
	return k.visit(c)
}

// commit reads the commit at off; nil where its head is not whole.
func (k *walker) commit(off int64) (*commitAt, error) {
	p, err := k.w.at(off, commitHeadLen)
	if err != nil {
		return nil, err
	}
	h, err := decodeCommitHead(p, magicHead, k.id)
	if errors.Is(err, errNewer) {
		return nil, err
	}
	if err != nil || h.Number < k.next {
		return nil, nil
	}
	return k.load(off, h)
}

func (k *walker) load(off int64, h commitHead) (*commitAt, error) {
	p, err := k.w.at(off+commitHeadLen, int64(h.DirLen)+int64(h.FactsLen))
	if err != nil {
		return nil, err
	}
	p = bytes.Clone(p)
	n := min(int(h.DirLen), len(p)) // a torn commit may end in its directory
	return &commitAt{off: off, head: h, dir: p[:n], facts: p[n:]}, nil
}

// behind looks for a commit behind the damage at off that proves that what
// stood there was acknowledged; nil where there is none.
func (k *walker) behind(off int64) (*commitAt, error) {
	var found *commitAt
	for from := off; ; {
		at, h, tail, err := k.search(from)
		if err != nil {
			return nil, err
		}
		if at < 0 {
			break
		}
		from = at + 1
		if tail {
			start := at + commitHeadLen - h.size()
			if start < off || h.Number < k.next {
				continue
			}
			// Only the head is damaged: the tail says all that it said.
			at = start
		} else if h.Number < k.next {
			continue
		}
		if found == nil {
			if found, err = k.load(at, h); err != nil {
				return nil, err
			}
		}
		if at == off && tail || h.Durable >= k.next || k.acked >= k.next {
			return found, nil
		}
	}
	return nil, nil
}

// search finds the next whole head or tail at or behind from; -1 for none.
func (k *walker) search(from int64) (at int64, h commitHead, tail bool, err error) {
	w := window{f: k.w.f, limit: k.w.limit}
	mark := magicHead[:3]
	for from < k.w.limit {
		p, err := w.at(from, windowLen)
		if err != nil || len(p) == 0 {
			return -1, h, false, err
		}
		i := bytes.Index(p, mark)
		if i < 0 {
			from += max(1, int64(len(p)-len(mark)+1))
			continue
		}
		from += int64(i)
		c, err := w.at(from, commitHeadLen)
		if err != nil {
			return -1, h, false, err
		}
		if h, err = decodeCommitHead(c, magicHead, k.id); err == nil {
			return from, h, false, nil
		}
		if h, err = decodeCommitHead(c, magicTail, k.id); err == nil {
			return from, h, true, nil
		}
		from++
	}
	return -1, h, false, nil
}

// judgement of a last commit.
type judgement int

const (
	whole judgement = iota
	torn            // never written to its end: never acknowledged
	damaged
)

// judge says whether all that the last commit claims is there.
func (k *walker) judge(c *commitAt) (judgement, error) {
	if c.end()-commitHeadLen > k.w.limit {
		return torn, nil
	}
	n, ok := uint32(0), true
	facts := uint32(0)
	var m blockMeta
	lost := frames(c.dir, func(body []byte) {
		n++
		if _, _, err := decodeDirEntry(body, &m); err != nil || m.Off+int64(m.Stored) > int64(c.head.BlocksLen) {
			ok = false
			return
		}
		p, err := k.w.at(c.blocks()+m.Off, int64(m.Stored))
		ok = ok && err == nil && crcOf(p) == m.CRC
	})
	lost += frames(c.facts, func([]byte) { facts++ })
	if ok && lost == 0 && n == c.head.Blocks && facts == c.head.Facts {
		return whole, nil
	}
	zero, err := k.zeroSector(c.off, min(c.end(), k.w.limit))
	if zero {
		return torn, err
	}
	return damaged, err
}

// blocks is where the blocks of a commit begin.
func (c *commitAt) blocks() int64 {
	return c.off + commitHeadLen + int64(c.head.DirLen) + int64(c.head.FactsLen)
}

// zeroSector says whether a sector between from and to was never written:
// allocated files read as zero there, and JSON holds no zero byte.
func (k *walker) zeroSector(from, to int64) (bool, error) {
	for from < to {
		end := min(to, (from/sectorLen+1)*sectorLen)
		p, err := k.w.at(from, end-from)
		if err != nil {
			return false, err
		}
		if len(p) >= zeroCounts && allZero(p) {
			return true, nil
		}
		from = end
	}
	return false, nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// written is where the last byte that is not zero lies behind from, plus one;
// from where there is none.
func (k *walker) written(from int64) (int64, error) {
	end := from
	for at := from; at < k.w.limit; {
		p, err := k.w.at(at, windowLen)
		if err != nil {
			return 0, err
		}
		if len(p) == 0 {
			break
		}
		if n := len(bytes.TrimRight(p, "\x00")); n > 0 {
			end = at + int64(n)
		}
		at += int64(len(p))
	}
	return end, nil
}
