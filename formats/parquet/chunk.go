package parquet

import (
	"bytes"
	"encoding/binary"
	"math"
	"unsafe"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/rle"
	"github.com/parquet-go/parquet-go/format"
)

// chunk is a column of the row group in the making: the pages that are done and
// the one that grows. A page (data page v1) is
//
//	length, repetition levels   where the column lies in a list
//	length, definition levels   where it may be null
//	values                      that are not null: PLAIN, or numbers of the dictionary
//
// A column that an event says nothing about is not touched for it: pad makes up
// for that before the next value, or at the page's end.
type chunk struct {
	column
	index pq.ColumnIndexer // the bounds of the pages that are done
	dict  *dictionary      // nil: none

	// The page that grows.
	reps, defs levels
	values     []byte  // PLAIN
	bits       int     // of booleans, in values
	numbers    []int32 // of the dictionary, in place of values
	bounds     bounds

	// The row group.
	rows      int  // up to here
	outgrown  bool // the dictionary: it is for the pages before
	pages     []byte
	locations []format.PageLocation // from where the pages begin
	first     int                   // row of the page that grows
	count     int64                 // of values, nulls among them, in the pages that are done
	nulls     int64
	unpacked  int64 // bytes of the pages before compression
	numbered  int32 // pages with numbers
	looked    int   // values in them
	all       bounds
}

// reset makes it as new.
func (c *chunk) reset() {
	if c.dict != nil {
		c.dict.reset()
	}
	c.index.Reset()
	c.nextPage()
	c.all.any = false
	c.pages, c.locations = c.pages[:0], c.locations[:0]
	c.rows, c.first, c.count, c.nulls, c.unpacked, c.numbered, c.looked, c.outgrown = 0, 0, 0, 0, 0, 0, 0, false
}

// nextPage begins a page.
func (c *chunk) nextPage() {
	c.reps.reset()
	c.defs.reset()
	c.values, c.numbers, c.bits = c.values[:0], c.numbers[:0], 0
	c.bounds.any = false
}

// pad makes the events up to row, which have nothing for this column, nulls.
func (c *chunk) pad(row int) {
	if n := row - c.rows; n > 0 {
		c.reps.add(0, n)
		c.defs.add(0, n)
		c.rows = row
	}
}

// full says whether the page should end.
func (c *chunk) full() bool {
	return len(c.values)+4*len(c.numbers)+len(c.defs.mixed)+len(c.reps.mixed) >= pageBytes || c.tooMany()
}

// tooMany says that the dictionary has grown too large to be used any further, or
// that it does not pay.
func (c *chunk) tooMany() bool {
	if c.dict == nil || c.outgrown {
		return false
	}
	values := c.looked + len(c.numbers)
	return len(c.dict.texts) > dictionaryMax || values >= dictionaryTrial && c.dict.len() > values-values/8
}

// endPage moves the page that grows, which ends at c.rows, to those that are done.
func (c *chunk) endPage(p *press) error {
	values := c.defs.n
	if values == 0 {
		return nil
	}
	h := format.DataPageHeader{NumValues: int32(values), Encoding: format.Plain,
		DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE}
	nulls := int64(values - c.defs.count(c.maxDef))
	h.Statistics.NullCount = nulls
	body := c.reps.appendTo(p.body[:0], c.maxRep, p)
	body = c.defs.appendTo(body, c.maxDef, p)
	if c.dict != nil && !c.outgrown && c.dict.len() > 0 {
		h.Encoding = format.RLEDictionary
		c.numbered++
		c.looked += len(c.numbers)
		p.part, _ = new(rle.DictionaryEncoding).EncodeInt32(p.part[:0], c.numbers) // numbers always fit
		body = append(body, p.part...)
	} else {
		body = append(body, c.values...)
	}
	p.body = body
	before := len(c.pages)
	var unpacked int
	var err error
	if c.pages, unpacked, err = p.dataPage(c.pages, &h, body); err != nil {
		return err
	}
	c.locations = append(c.locations, format.PageLocation{
		Offset: int64(before), CompressedPageSize: int32(len(c.pages) - before), FirstRowIndex: int64(c.first),
	})
	lo, hi := c.bounds.values(c.typ.Kind())
	c.index.IndexPage(int64(values), nulls, lo, hi)
	c.all.merge(&c.bounds)
	c.first = c.rows
	c.count += int64(values)
	c.nulls += nulls
	c.unpacked += int64(unpacked)
	c.nextPage()
	c.outgrown = c.outgrown || c.tooMany()
	return nil
}

// text adds a value. It is copied.
func (c *chunk) text(s string) {
	if c.dict == nil || c.outgrown {
		c.values = binary.LittleEndian.AppendUint32(c.values, uint32(len(s)))
		c.values = append(c.values, s...)
		c.bounds.text(s)
		return
	}
	n := c.dict.find(s)
	c.numbers = append(c.numbers, n)
	if page := int32(len(c.locations)); c.dict.pages[n] != page {
		c.dict.pages[n] = page
		c.bounds.text(s)
	}
}

func (c *chunk) int32(v int32) {
	c.values = binary.LittleEndian.AppendUint32(c.values, uint32(v))
	c.bounds.integer(int64(v))
}

func (c *chunk) int64(v int64) {
	c.values = binary.LittleEndian.AppendUint64(c.values, uint64(v))
	c.bounds.integer(v)
}

func (c *chunk) double(v float64) {
	c.values = binary.LittleEndian.AppendUint64(c.values, math.Float64bits(v))
	c.bounds.double(v)
}

func (c *chunk) boolean(v bool) {
	if c.bits%8 == 0 {
		c.values = append(c.values, 0)
	}
	n := int64(0)
	if v {
		n = 1
	}
	c.values[len(c.values)-1] |= byte(n << (c.bits % 8))
	c.bits++
	c.bounds.integer(n)
}

// levels are a page's levels of one kind: a byte each once two differ, a number
// before that.
type levels struct {
	n     int
	first byte
	mixed []byte // empty: all are first
}

func (l *levels) reset() { l.n, l.mixed = 0, l.mixed[:0] }

// add adds a level, so many times.
func (l *levels) add(level byte, times int) {
	switch {
	case times == 0:
		return
	case l.n == 0:
		l.first = level
	case len(l.mixed) == 0 && level == l.first:
	case len(l.mixed) > 0 && times == 1:
		l.mixed = append(l.mixed, level)
	default:
		l.mix(level, times)
	}
	l.n += times
}

// mix adds a level to others.
func (l *levels) mix(level byte, times int) {
	if len(l.mixed) == 0 {
		l.mixed = repeat(l.mixed, l.first, l.n)
	}
	l.mixed = repeat(l.mixed, level, times)
}

func repeat(dst []byte, b byte, n int) []byte {
	for range n {
		dst = append(dst, b)
	}
	return dst
}

// count is how many there are of a level.
func (l *levels) count(level byte) int {
	if len(l.mixed) == 0 {
		if l.first == level {
			return l.n
		}
		return 0
	}
	return bytes.Count(l.mixed, []byte{level})
}

// appendTo appends them to a page, behind their length; nothing where the highest
// level is 0.
func (l *levels) appendTo(dst []byte, highest byte, p *press) []byte {
	switch {
	case highest == 0:
		return dst
	case len(l.mixed) == 0:
		p.part = append(binary.AppendUvarint(p.part[:0], uint64(l.n)<<1), l.first)
	case highest == 1:
		p.part, _ = (&rle.Encoding{BitWidth: 1}).EncodeLevels(p.part[:0], l.mixed) // no error with such a width
	default:
		p.part, _ = (&rle.Encoding{BitWidth: 2}).EncodeLevels(p.part[:0], l.mixed)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p.part)))
	return append(dst, p.part...)
}

// bounds are the lowest and the highest of some values, of one type.
type bounds struct {
	any    bool
	lo, hi struct {
		text    []byte
		integer int64
		double  float64
	}
}

func (b *bounds) text(s string) {
	if !b.any {
		b.any = true
		b.lo.text, b.hi.text = append(b.lo.text[:0], s...), append(b.hi.text[:0], s...)
	} else if s > view(b.hi.text) {
		b.hi.text = append(b.hi.text[:0], s...)
	} else if s < view(b.lo.text) {
		b.lo.text = append(b.lo.text[:0], s...)
	}
}

// view is bytes as a string, without a copy.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func (b *bounds) integer(v int64) {
	if !b.any {
		b.any, b.lo.integer, b.hi.integer = true, v, v
		return
	}
	b.lo.integer, b.hi.integer = min(b.lo.integer, v), max(b.hi.integer, v)
}

func (b *bounds) double(v float64) {
	if !b.any {
		b.any, b.lo.double, b.hi.double = true, v, v
		return
	}
	b.lo.double, b.hi.double = min(b.lo.double, v), max(b.hi.double, v)
}

// merge takes another's values in.
func (b *bounds) merge(o *bounds) {
	if !o.any {
		return
	}
	any := b.any
	b.text(view(o.lo.text))
	b.any = any
	b.integer(o.lo.integer)
	b.any = any
	b.double(o.lo.double)
	b.text(view(o.hi.text))
	b.integer(o.hi.integer)
	b.double(o.hi.double)
}

// values are the bounds as the library's values; nulls where there are none.
func (b *bounds) values(kind pq.Kind) (lo, hi pq.Value) {
	if !b.any {
		return lo, hi
	}
	switch kind {
	case pq.ByteArray:
		return pq.ByteArrayValue(b.lo.text), pq.ByteArrayValue(b.hi.text)
	case pq.Int32:
		return pq.Int32Value(int32(b.lo.integer)), pq.Int32Value(int32(b.hi.integer))
	case pq.Int64:
		return pq.Int64Value(b.lo.integer), pq.Int64Value(b.hi.integer)
	case pq.Double:
		return pq.DoubleValue(b.lo.double), pq.DoubleValue(b.hi.double)
	default:
		return pq.BooleanValue(b.lo.integer != 0), pq.BooleanValue(b.hi.integer != 0)
	}
}
