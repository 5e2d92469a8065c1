package parquet

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// A file is
//
//	"PAR1"
//	row groups: of each column the dictionary's page, if it has one, and its pages
//	the column indexes of all columns of all row groups
//	their offset indexes
//	the metadata (format.FileMetaData), its length in 4 bytes
//	"PAR1"
const magic = "PAR1"

// press makes pages of bytes, for all columns of a machine in turn.
type press struct {
	codec      compress.Codec // nil: pages stay as they are
	body, part []byte         // scratch: of a page, of a part of it
	packed     []byte         // and of a compressed one
	header     bytes.Buffer
	protocol   thrift.CompactProtocol
	encoder    *thrift.Encoder // to header
	data, dict format.PageHeader
	columns    format.ColumnIndex
	offsets    format.OffsetIndex
}

func newPress(codec compress.Codec) *press {
	p := &press{codec: codec}
	p.encoder = thrift.NewEncoder(p.protocol.NewWriter(&p.header))
	p.data.Type, p.data.DataPageHeader.Valid = format.DataPage, true
	p.dict.Type, p.dict.DictionaryPageHeader.Valid = format.DictionaryPage, true
	return p
}

// dataPage appends a page of data to dst, and says how large it is uncompressed.
func (p *press) dataPage(dst []byte, h *format.DataPageHeader, body []byte) ([]byte, int, error) {
	p.data.DataPageHeader.V = *h
	return p.page(dst, &p.data, body)
}

// dictPage appends a dictionary's page to dst, and says how large it is uncompressed.
func (p *press) dictPage(dst []byte, d *dictionary) ([]byte, int, error) {
	p.dict.DictionaryPageHeader.V = format.DictionaryPageHeader{NumValues: int32(d.len()), Encoding: format.Plain}
	return p.page(dst, &p.dict, d.texts)
}

func (p *press) page(dst []byte, h *format.PageHeader, body []byte) ([]byte, int, error) {
	h.UncompressedPageSize = int32(len(body))
	if p.codec != nil {
		packed, err := p.codec.Encode(p.packed[:0], body)
		if err != nil {
			return dst, 0, fmt.Errorf("compress a page: %w", err)
		}
		p.packed, body = packed, packed
	}
	h.CompressedPageSize = int32(len(body))
	h.CRC = int32(crc32.ChecksumIEEE(body))
	header, err := p.thrift(h)
	if err != nil {
		return dst, 0, err
	}
	dst = append(append(dst, header...), body...)
	return dst, len(header) + int(h.UncompressedPageSize), nil
}

// thrift is one of the format's structs as it stands in a file, until the next.
func (p *press) thrift(v any) ([]byte, error) {
	p.header.Reset()
	if err := p.encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a %T: %w", v, err)
	}
	return p.header.Bytes(), nil
}

// footer is what a file ends with, in the making.
type footer struct {
	about   format.FileMetaData // schema and names, the same for every file of the machine; and its row groups
	columns []byte              // column indexes
	offsets []byte              // offset indexes
	bounds  []byte              // what the row groups' statistics hold
}

func (f *footer) reset() {
	f.about.NumRows, f.about.RowGroups = 0, f.about.RowGroups[:0]
	f.columns, f.offsets, f.bounds = f.columns[:0], f.offsets[:0], f.bounds[:0]
}

// newFooter has what files of the schema say of themselves, as the library says it.
func newFooter(schema *pq.Schema, options ...pq.WriterOption) (*footer, error) {
	w := pq.NewGenericWriter[any](io.Discard, append(options, schema)...)
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("describe the schema: %w", err)
	}
	return &footer{about: *w.File().Metadata()}, nil
}

// group adds a row group, with room for its columns.
func (f *footer) group(rows, columns int) *format.RowGroup {
	n := len(f.about.RowGroups)
	if n < cap(f.about.RowGroups) {
		f.about.RowGroups = f.about.RowGroups[:n+1] // with the columns of an earlier file
	} else {
		f.about.RowGroups = append(f.about.RowGroups, format.RowGroup{})
	}
	g := &f.about.RowGroups[n]
	if len(g.Columns) != columns {
		g.Columns = make([]format.ColumnChunk, columns)
	}
	*g = format.RowGroup{Columns: g.Columns, NumRows: int64(rows), Ordinal: int16(n)}
	f.about.NumRows += int64(rows)
	return g
}

// keep is a value as statistics have it, good until the file's end.
func (f *footer) keep(v pq.Value) []byte {
	from := len(f.bounds)
	f.bounds = v.AppendBytes(f.bounds)
	return f.bounds[from:len(f.bounds):len(f.bounds)]
}

// writeGroup writes the row group's columns, whose pages are all done.
func (m *machine) writeGroup() error {
	if err := m.begin(); err != nil {
		return err
	}
	g := m.footer.group(m.rows, len(m.chunks))
	g.FileOffset = m.at
	for i := range m.chunks {
		if err := m.writeChunk(&m.chunks[i], &g.Columns[i]); err != nil {
			return fmt.Errorf("column %s: %w", m.chunks[i].path, err)
		}
		g.TotalByteSize += g.Columns[i].MetaData.TotalUncompressedSize
		g.TotalCompressedSize += g.Columns[i].MetaData.TotalCompressedSize
	}
	return nil
}

// writeChunk writes one column's pages and describes them in to.
func (m *machine) writeChunk(c *chunk, to *format.ColumnChunk) error {
	f := m.footer
	stats := to.MetaData.EncodingStats[:0]
	*to = format.ColumnChunk{MetaData: c.meta}
	to.MetaData.NumValues, to.MetaData.TotalUncompressedSize = c.count, c.unpacked
	from := m.at
	if c.dict != nil && c.dict.len() > 0 {
		page, unpacked, err := m.press.dictPage(m.press.body[:0], c.dict)
		if err != nil {
			return err
		}
		m.press.body = page
		to.MetaData.DictionaryPageOffset = m.at
		to.MetaData.TotalUncompressedSize += int64(unpacked)
		stats = append(stats, format.PageEncodingStats{PageType: format.DictionaryPage, Encoding: format.Plain, Count: 1})
		if err := m.write(page); err != nil {
			return err
		}
	}
	to.MetaData.DataPageOffset = m.at
	for i := range c.locations {
		c.locations[i].Offset += m.at
	}
	if err := m.write(c.pages); err != nil {
		return err
	}
	to.MetaData.TotalCompressedSize = m.at - from
	if n := int32(len(c.locations)) - c.numbered; n > 0 {
		stats = append(stats, format.PageEncodingStats{PageType: format.DataPage, Encoding: format.Plain, Count: n})
	}
	if c.numbered > 0 {
		stats = append(stats, format.PageEncodingStats{PageType: format.DataPage, Encoding: format.RLEDictionary, Count: c.numbered})
	}
	to.MetaData.EncodingStats = stats
	to.MetaData.Statistics.NullCount = c.nulls
	if lo, hi := c.all.values(c.typ.Kind()); c.all.any {
		to.MetaData.Statistics.MinValue, to.MetaData.Statistics.MaxValue = f.keep(lo), f.keep(hi)
	}
	m.press.columns = c.index.ColumnIndex()
	encoded, err := m.press.thrift(&m.press.columns)
	if err != nil {
		return err
	}
	to.ColumnIndexOffset, to.ColumnIndexLength = int64(len(f.columns)), int32(len(encoded))
	f.columns = append(f.columns, encoded...)
	m.press.offsets.PageLocations = c.locations
	if encoded, err = m.press.thrift(&m.press.offsets); err != nil {
		return err
	}
	to.OffsetIndexOffset, to.OffsetIndexLength = int64(len(f.offsets)), int32(len(encoded))
	f.offsets = append(f.offsets, encoded...)
	return nil
}

// begin writes what a file begins with, once.
func (m *machine) begin() error {
	if m.at > 0 {
		return nil
	}
	return m.write([]byte(magic))
}

// write writes on, and counts.
func (m *machine) write(b []byte) error {
	n, err := m.file.Write(b)
	m.at += int64(n)
	return err
}

// writeFooter ends the file.
func (m *machine) writeFooter() error {
	f := m.footer
	if err := m.begin(); err != nil {
		return err
	}
	columns, offsets := m.at, m.at+int64(len(f.columns))
	for _, g := range f.about.RowGroups {
		for i := range g.Columns {
			g.Columns[i].ColumnIndexOffset += columns
			g.Columns[i].OffsetIndexOffset += offsets
		}
	}
	if err := m.write(f.columns); err != nil {
		return err
	}
	if err := m.write(f.offsets); err != nil {
		return err
	}
	about, err := m.press.thrift(&f.about)
	if err != nil {
		return err
	}
	if err := m.write(about); err != nil {
		return err
	}
	if err := m.write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(about))), magic...)); err != nil {
		return err
	}
	return m.file.Flush()
}
