// Package parquet encodes drops of typed columns, and is the only home of the
// Parquet library.
package parquet

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	pq "github.com/parquet-go/parquet-go"

	"datasync/schemas"
)

const (
	// batchRows is how many events are written a column at a time: few enough
	// for the processor's cache, measured.
	batchRows = 256
	// batchBytes bounds a batch's lines, which it holds; a page ends before the
	// first batch that begins with pageBytes in it, so holds less than the two
	// together, and so than the 1 MiB that Security Lake asks for. Larger pages
	// cost memory: 256 KiB 33 MB an encoder instead of 13, for 2 % of size.
	batchBytes = 768 << 10
	pageBytes  = 64 << 10
	// groupRows and groupBytes (of lines) bound a row group, which is held until
	// it is written.
	groupRows  = 128 << 10
	groupBytes = 32 << 20
	// dictionaryMax is how large a dictionary gets before its column goes on
	// without, until the row group ends.
	dictionaryMax = 1 << 20
)

var (
	errClosed  = errors.New("parquet: the file is closed already")
	errNewline = errors.New("parquet: the last line has no newline")
	errLong    = errors.New("parquet: a line is longer than an event may be")
)

// Options says how the events are written; the zero value is every column,
// uncompressed.
type Options struct {
	Compression string   // of the pages: "" or "none", "snappy", "zstd"
	Level       int      // of zstd, 1 to 22; 0: the fastest
	Fields      []string // top-level fields to make columns of; none: all
}

// Encoder writes one Parquet file. Where batches, pages and row groups end
// depends on the lines alone, never on how they were split over Writes. Not for
// concurrent use.
type Encoder struct {
	*machine // nil: given back
	out      *counter
	err      error
}

// machine is what an encoder holds that is dear to make: some megabytes of
// buffers for 95 columns. It goes from one Encoder to the next.
type machine struct {
	home *pool
	//lint:ignore SA1019 its column writers take levels of our own: the generic writer makes zeros of nulls
	w      *pq.Writer
	cols   []column
	lines  []byte          // the batch
	events []schemas.Event // decoded: strings alias lines, or the event
	values []pq.Value      // of one column of the batch; text aliases the events
	n      int             // events in the batch

	rows  int // of the row group
	bytes int // of its lines
	total int // events before the batch
}

// counter counts what reached the destination.
type counter struct {
	w io.Writer
	n int64
}

// Write passes p on.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// NewEncoder starts a file on w.
func NewEncoder(w io.Writer, o Options) (*Encoder, error) {
	p, err := poolOf(o)
	if err != nil {
		return nil, fmt.Errorf("parquet: %w", err)
	}
	e := &Encoder{machine: p.get(), out: &counter{w: w}}
	e.w.Reset(e.out)
	return e, nil
}

// Write appends whole canonical lines, each ended by its newline; they are not
// kept. An error stays.
func (e *Encoder) Write(lines []byte) error {
	if e.err != nil {
		return e.err
	}
	if len(lines) > 0 && lines[len(lines)-1] != '\n' {
		e.err = errNewline
		return e.err
	}
	for len(lines) > 0 && e.err == nil {
		n := bytes.IndexByte(lines, '\n') + 1
		e.err = e.add(lines[:n])
		lines = lines[n:]
	}
	return e.err
}

// Size is how many bytes of the file the destination has: it grows with every
// row group.
func (e *Encoder) Size() int64 { return e.out.n }

// Close ends the file and gives back what the encoder holds.
func (e *Encoder) Close() error {
	if e.err != nil {
		err := e.err
		e.Abandon()
		return err
	}
	err := e.flushBatch()
	if err == nil {
		err = e.w.Close()
	}
	if err != nil {
		e.Abandon()
		return fmt.Errorf("parquet: end the file: %w", err)
	}
	e.give()
	e.machine, e.err = nil, errClosed
	return nil
}

// Abandon lets go of what the encoder holds. It is not used again: the library
// keeps rows of a column that outgrew its dictionary across a Reset.
func (e *Encoder) Abandon() { e.machine, e.err = nil, errClosed }

// add takes one line into the batch.
func (m *machine) add(line []byte) error {
	if len(line) > batchBytes {
		return errLong
	}
	if m.n == batchRows || len(m.lines)+len(line) > batchBytes {
		if err := m.flushBatch(); err != nil {
			return err
		}
	}
	if m.rows == groupRows || m.bytes+len(line) > groupBytes {
		if err := m.flushGroup(); err != nil {
			return err
		}
	}
	start := len(m.lines)
	m.lines = append(m.lines, line...) // never beyond its capacity: strings alias it
	if err := schemas.Decode(m.lines[start:len(m.lines)-1], &m.events[m.n]); err != nil {
		return fmt.Errorf("parquet: decode event %d of the file: %w", m.total+m.n, err)
	}
	m.n++
	m.rows++
	m.bytes += len(line)
	return nil
}

// flushBatch writes the batch, a column at a time.
func (m *machine) flushBatch() error {
	if m.n == 0 {
		return nil
	}
	for i, cw := range m.w.ColumnWriters() {
		m.values = m.cols[i].fill(m.values[:0], m.events[:m.n])
		if _, err := cw.WriteRowValues(m.values); err != nil {
			return fmt.Errorf("parquet: write column %s: %w", m.cols[i].path, err)
		}
	}
	m.total += m.n
	m.n, m.lines = 0, m.lines[:0]
	return nil
}

// flushGroup ends the row group.
func (m *machine) flushGroup() error {
	if err := m.flushBatch(); err != nil {
		return err
	}
	m.rows, m.bytes = 0, 0
	if err := m.w.Flush(); err != nil {
		return fmt.Errorf("parquet: write a row group: %w", err)
	}
	return nil
}

// give puts the machine back, as new: the file must be closed.
func (m *machine) give() {
	// Reset would clear the columns' names in place, in the memory that the next
	// file takes them from (0.32.0): it must not find them.
	for _, g := range m.w.File().Metadata().RowGroups {
		for i := range g.Columns {
			g.Columns[i].MetaData.PathInSchema = nil
		}
	}
	m.w.Reset(io.Discard)
	m.n, m.rows, m.bytes, m.total = 0, 0, 0, 0
	m.lines = m.lines[:0]
	m.home.machines.Put(m)
}
