// Package ndjson encodes drops of JSON lines: the lines as they are, or some of
// their members, plain or compressed.
package ndjson

import (
	"errors"
	"fmt"
	"io"

	"datasync/formats/compress"
)

// Options says how the lines are written; the zero value is plain and whole.
type Options struct {
	Compression compress.Codec // "" or "none": plain
	Level       int            // 0: the fastest
	Fields      []string       // top-level members to keep; none: all
}

// Encoder writes one object of JSON lines. Not for concurrent use.
type Encoder struct {
	out    io.Writer
	z      *compress.Writer // nil: plain, or given back
	n      int64            // what reached the destination, where z is nil
	fields Set
	buf    []byte
	err    error
}

var (
	errClosed  = errors.New("ndjson: the object is closed already")
	errNewline = errors.New("ndjson: the last line has no newline")
)

// NewEncoder starts an object on w.
func NewEncoder(w io.Writer, o Options) (*Encoder, error) {
	e := &Encoder{out: w, fields: NewSet(o.Fields)}
	if o.Compression == "" || o.Compression == "none" {
		return e, nil
	}
	z, err := compress.NewWriter(w, o.Compression, o.Level)
	if err != nil {
		return nil, fmt.Errorf("ndjson: %w", err)
	}
	e.z, e.out = z, z
	return e, nil
}

// Write appends whole lines, each ended by its newline; they are not kept.
func (e *Encoder) Write(lines []byte) error {
	switch {
	case e.err != nil:
		return e.err
	case len(lines) == 0:
		return nil
	case lines[len(lines)-1] != '\n':
		return errNewline
	}
	if e.fields != nil {
		if lines, e.err = e.project(lines); e.err != nil {
			return e.err
		}
	}
	n, err := e.out.Write(lines)
	if e.z == nil {
		e.n += int64(n)
	}
	e.err = err
	return err
}

// Size is how many bytes of the object reached the destination; compressed, a
// block or two wait in the encoder until Close.
func (e *Encoder) Size() int64 {
	if e.z != nil {
		return e.z.Size()
	}
	return e.n
}

// Close ends the object and gives back what the encoder holds.
func (e *Encoder) Close() error {
	if e.err != nil {
		err := e.err
		e.Abandon()
		return err
	}
	e.err = errClosed
	if e.z == nil {
		return nil
	}
	n, err := e.z.Close()
	e.n, e.z = n, nil
	return err
}

// Abandon gives back what the encoder holds; the object stays unfinished.
func (e *Encoder) Abandon() {
	if e.z != nil {
		e.n = e.z.Size()
		e.z.Abandon()
		e.z = nil
	}
	e.err = errClosed
}
