// Package parquet encodes drops of typed columns, and is the only home of the
// Parquet library.
package parquet

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"datasync/schemas"
)

const (
	// batchRows is how many events are decoded before they go into the columns: few
	// enough to stay in the processor's nearest cache, measured.
	batchRows = 16
	// checkRows and checkBytes (of lines): pages are looked at after so many. A page
	// ends at the first look that finds pageBytes in it, so holds less than pageBytes
	// and checkBytes together, and so than the 1 MiB that Security Lake asks for.
	// Larger pages cost memory.
	checkRows  = 256
	checkBytes = 768 << 10
	pageBytes  = 64 << 10
	// groupRows and groupBytes (of lines) bound a row group, which is held until
	// it is written.
	groupRows  = 128 << 10
	groupBytes = 32 << 20
	// dictionaryMax is how large a dictionary gets before its column goes on
	// without, until the row group ends.
	dictionaryMax = 1 << 20
	// dictionaryTrial is how many values a dictionary has looked up before it must pay:
	// where fewer than an eighth of them were known, plain text costs less.
	dictionaryTrial = 2 << 10
	// indexBytes is how much of a text the page index has as its bound.
	indexBytes = 16
	// writeBytes is how much is written to the destination at once.
	writeBytes = 32 << 10
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

// Encoder writes one Parquet file. Where pages and row groups end depends on the
// lines alone, never on how they were split over Writes. Not for concurrent use.
type Encoder struct {
	*machine // nil: given back
	out      counter
	err      error
}

// machine is what an encoder holds that is dear to make: some megabytes of
// buffers for 95 columns. It goes from one Encoder to the next.
type machine struct {
	home   *pool
	chunks []chunk // the columns, in the schema's order
	press  *press
	footer *footer
	file   *bufio.Writer
	at     int64 // bytes of the file so far

	events []schemas.Event // the batch: strings alias the lines, or the event
	n      int             // events in it
	seen   uint64          // fields that any of them has

	rows  int      // of the row group
	bytes int      // of its lines
	check struct { // since pages were last looked at
		rows, bytes int
	}
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
	m, err := p.get()
	if err != nil {
		return nil, fmt.Errorf("parquet: %w", err)
	}
	e := &Encoder{machine: m, out: counter{w: w}}
	m.file.Reset(&e.out)
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
	if e.err == nil {
		e.flushBatch() // its strings alias the lines
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
	err := e.flushGroup()
	if err == nil {
		err = e.writeFooter()
	}
	e.Abandon()
	if err != nil {
		return fmt.Errorf("parquet: end the file: %w", err)
	}
	return nil
}

// Abandon gives back what the encoder holds.
func (e *Encoder) Abandon() {
	if e.machine != nil {
		e.give()
	}
	e.machine, e.err = nil, errClosed
}

// add takes one line into the batch.
func (m *machine) add(line []byte) error {
	if len(line) > checkBytes {
		return errLong
	}
	var err error
	switch {
	case m.rows == groupRows || m.bytes+len(line) > groupBytes:
		err = m.flushGroup()
	case m.check.rows == checkRows || m.check.bytes+len(line) > checkBytes:
		err = m.endPages(false)
	case m.n == batchRows:
		m.flushBatch()
	}
	if err != nil {
		return err
	}
	event := &m.events[m.n]
	if err := schemas.Decode(line[:len(line)-1], event); err != nil {
		return fmt.Errorf("parquet: decode event %d of the file: %w", m.total+m.n, err)
	}
	m.seen |= event.Seen()
	m.n++
	m.rows++
	m.bytes += len(line)
	m.check.rows++
	m.check.bytes += len(line)
	return nil
}

// flushBatch puts the batch into the columns that have something of it.
func (m *machine) flushBatch() {
	if m.n == 0 {
		return
	}
	for i := range m.chunks {
		if c := &m.chunks[i]; c.seen&m.seen != 0 {
			c.pad(m.rows - m.n)
			c.fill(c, m.events[:m.n])
			c.rows = m.rows
		}
	}
	m.total += m.n
	m.n, m.seen = 0, 0
}

// endPages ends the pages that are full, or all.
func (m *machine) endPages(all bool) error {
	m.flushBatch()
	for i := range m.chunks {
		c := &m.chunks[i]
		c.pad(m.rows)
		if !all && !c.full() {
			continue
		}
		if err := c.endPage(m.press); err != nil {
			return fmt.Errorf("parquet: end a page of column %s: %w", c.path, err)
		}
	}
	m.check.rows, m.check.bytes = 0, 0
	return nil
}

// flushGroup ends the row group.
func (m *machine) flushGroup() error {
	if m.rows == 0 {
		return nil
	}
	if err := m.endPages(true); err != nil {
		return err
	}
	if err := m.writeGroup(); err != nil {
		return fmt.Errorf("parquet: write a row group: %w", err)
	}
	m.rows, m.bytes = 0, 0
	for i := range m.chunks {
		m.chunks[i].reset()
	}
	return nil
}

// give puts the machine back, as new.
func (m *machine) give() {
	for i := range m.chunks {
		m.chunks[i].reset()
	}
	m.footer.reset()
	m.file.Reset(nil)
	clear(m.events) // they hold on to lines of the caller's
	m.at, m.n, m.seen, m.rows, m.bytes, m.total = 0, 0, 0, 0, 0, 0
	m.check.rows, m.check.bytes = 0, 0
	m.home.machines.Put(m)
}
