package parquet_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"

	"datasync/formats/formatstest"
	"datasync/formats/parquet"
)

// TestBounds: what a file says of its columns and pages is what is in them; a
// reader that skips by it would lose rows.
func TestBounds(t *testing.T) {
	events := formatstest.Events(8, 9000)
	for i := range events {
		if i/3000 == 1 { // pages of nulls, between others
			events[i].UserAgent, events[i].Score.OK, events[i].HTTPQuery = "", false, ""
		} else {
			events[i].HTTPQuery = fmt.Sprintf("q=%d&%s\xc3\xbf", i*7919%5000, strings.Repeat("é", i%90))
		}
		events[i].DurationMs.V -= 300
		events[i].Tactics = []string{"b", "a", "c"} // a dictionary, and pages enough for it to be in two
		events[i].RuleName = strings.Repeat("r", i%40) + fmt.Sprint(i/2000)
	}
	events[0].RequestID, events[1].EventID = strings.Repeat("\U0010FFFF", 9), "" // no higher bound of 16 bytes; the empty text
	many := 0
	for _, o := range []parquet.Options{{}, {Compression: "zstd"}} {
		file := encode(t, o, formatstest.Lines(events))
		f := open(t, file)
		for g, group := range f.RowGroups() {
			for i, chunk := range group.ColumnChunks() {
				checkHeaders(t, file, chunk)
				many = max(many, checkChunk(t, group.Schema().Columns()[i], chunk, &f.Metadata().RowGroups[g].Columns[i].MetaData))
			}
		}
	}
	if many < 4 {
		t.Errorf("%d pages in the column that has most: the events were too small to tell", many)
	}
}

// checkChunk compares what is said of a column with its pages, and counts those.
func checkChunk(t *testing.T, path []string, chunk pq.ColumnChunk, meta *format.ColumnMetaData) (pages int) {
	t.Helper()
	index, err := chunk.ColumnIndex()
	offsets, err2 := chunk.OffsetIndex()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	var all span
	row := int64(0)
	reader := chunk.Pages()
	defer reader.Close()
	for {
		page, err := reader.ReadPage()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v, page %d: %v", path, pages, err)
		}
		var s span
		values := make([]pq.Value, page.NumValues())
		if n, err := page.Values().ReadValues(values); n != len(values) || err != nil && err != io.EOF {
			t.Fatalf("%v, page %d: %d of %d values, %v", path, pages, n, len(values), err)
		}
		for _, v := range values {
			s.add(chunk.Type(), v)
			all.add(chunk.Type(), v)
		}
		lo, hi := index.MinValue(pages), index.MaxValue(pages)
		switch {
		case index.NullCount(pages) != s.nulls || index.NullPage(pages) != (s.values == 0) || offsets.FirstRowIndex(pages) != row:
			t.Errorf("%v, page %d from row %d: index says %d nulls from row %d", path, pages, row, index.NullCount(pages), offsets.FirstRowIndex(pages))
		case s.values > 0 && (chunk.Type().Compare(lo, s.lo) > 0 || chunk.Type().Compare(hi, s.hi) < 0):
			t.Errorf("%v, page %d: %v to %v in the index, %v to %v in the page", path, pages, lo, hi, s.lo, s.hi)
		case len(s.lo.Bytes()) <= 16 && !bytes.Equal(lo.Bytes(), s.lo.Bytes()) && s.values > 0:
			t.Errorf("%v, page %d: from %v in the index, %v in the page", path, pages, lo, s.lo)
		}
		row += page.NumRows()
		pages++
		pq.Release(page)
	}
	st := meta.Statistics
	if st.NullCount != all.nulls || meta.NumValues != all.nulls+all.values || (st.MinValue == nil) != (all.values == 0) ||
		all.values > 0 && (!bytes.Equal(st.MinValue, all.lo.Bytes()) || !bytes.Equal(st.MaxValue, all.hi.Bytes())) {
		t.Errorf("%v: %d values, %d nulls, from %q to %q: %+v", path, meta.NumValues, st.NullCount, st.MinValue, st.MaxValue, all)
	}
	if row != 9000 || pages != index.NumPages() || pages != offsets.NumPages() {
		t.Errorf("%v: %d rows in %d pages", path, row, pages)
	}
	return pages
}

// checkHeaders compares what stands before a column's pages with their index.
func checkHeaders(t *testing.T, file []byte, chunk pq.ColumnChunk) {
	t.Helper()
	index, err := chunk.ColumnIndex()
	offsets, err2 := chunk.OffsetIndex()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for p := range offsets.NumPages() {
		var h format.PageHeader
		at := file[offsets.Offset(p):]
		if err := thrift.NewDecoder(new(thrift.CompactProtocol).NewReaderFromBytes(at)).Decode(&h); err != nil {
			t.Fatal(err)
		}
		body := at[offsets.CompressedPageSize(p)-int64(h.CompressedPageSize) : offsets.CompressedPageSize(p)]
		if h.DataPageHeader.V.Statistics.NullCount != index.NullCount(p) || uint32(h.CRC) != crc32.ChecksumIEEE(body) {
			t.Errorf("column %d, page %d: %d nulls in the index, header %+v", chunk.Column(), p, index.NullCount(p), h)
		}
	}
}

// span is what some values are.
type span struct {
	values, nulls int64
	lo, hi        pq.Value
}

func (s *span) add(of pq.Type, v pq.Value) {
	if v.IsNull() {
		s.nulls++
		return
	}
	if s.values == 0 || of.Compare(v, s.lo) < 0 {
		s.lo = v.Clone()
	}
	if s.values == 0 || of.Compare(v, s.hi) > 0 {
		s.hi = v.Clone()
	}
	s.values++
}
