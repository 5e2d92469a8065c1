package parquet

import (
	"encoding/binary"
	"hash/maphash"
	"unsafe"
)

// dictionary numbers the different texts of a column in the order in which they
// come. The hash decides where a text is looked for, never its number: a file does
// not depend on the seed.
type dictionary struct {
	texts  []byte   // the content of the dictionary's page: each text behind its length
	starts []uint32 // where in texts each begins
	pages  []int32  // the page that each was last in
	slots  []slot   // open addressing; a power of two, at most half full
	last   string   // the text asked for last: runs of one are common
	number int32    // and its number
}

// slot is one place of the hash table.
type slot struct {
	tag    uint32 // of the hash
	start  uint32 // where in texts it begins
	number int32  // of the text, from 1; 0: free
}

// minSlots is how large a table begins.
const minSlots = 64

var seed = maphash.MakeSeed()

// len is how many texts there are.
func (d *dictionary) len() int { return len(d.starts) }

// find is the number of a text, which is copied if it is new.
func (d *dictionary) find(s string) int32 {
	if s == d.last && len(d.starts) > 0 {
		return d.number
	}
	if 2*len(d.starts) >= len(d.slots) {
		d.grow()
	}
	h := maphash.String(seed, s)
	tag, mask := uint32(h>>32), uint64(len(d.slots)-1)
	for i := h & mask; ; i = (i + 1) & mask {
		at := &d.slots[i]
		if at.number == 0 {
			*at = slot{tag: tag, start: uint32(len(d.texts)), number: int32(len(d.starts) + 1)}
			d.starts = append(d.starts, uint32(len(d.texts)))
			d.pages = append(d.pages, -1)
			d.texts = binary.LittleEndian.AppendUint32(d.texts, uint32(len(s)))
			d.texts = append(d.texts, s...)
		} else if at.tag != tag || d.text(at.start) != s {
			continue
		}
		d.number = at.number - 1
		d.last = d.text(at.start)
		return d.number
	}
}

// text is the text that begins at start; it stays as it is until the dictionary is reset.
func (d *dictionary) text(start uint32) string {
	b := d.texts[start:]
	n := binary.LittleEndian.Uint32(b)
	return unsafe.String(unsafe.SliceData(b[4:]), n)
}

// grow makes room for more texts.
func (d *dictionary) grow() {
	d.slots = make([]slot, max(minSlots, 2*len(d.slots)))
	mask := uint64(len(d.slots) - 1)
	for n, start := range d.starts {
		h := maphash.String(seed, d.text(start))
		i := h & mask
		for d.slots[i].number != 0 {
			i = (i + 1) & mask
		}
		d.slots[i] = slot{tag: uint32(h >> 32), start: start, number: int32(n + 1)}
	}
}

// reset forgets all texts. A table that was far too large for them goes: to clear
// it would cost a small file more than all else.
func (d *dictionary) reset() {
	switch n := len(d.starts); {
	case n == 0:
		return
	case len(d.slots) > minSlots && 16*n < len(d.slots):
		d.slots = nil
	default:
		clear(d.slots)
	}
	d.texts, d.starts, d.pages, d.last = d.texts[:0], d.starts[:0], d.pages[:0], ""
}
