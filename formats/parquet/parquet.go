// Package parquet encodes drops of typed columns, and is the only home of the
// Parquet library.
package parquet

import "io"

// Options says how the events are written.
type Options struct {
	Compression string   // of the pages: "" or "none", "snappy", "zstd"
	Level       int      // of zstd; 0: the fastest
	Fields      []string // top-level fields to make columns of; none: all
}

// Encoder writes one Parquet file. Not for concurrent use.
type Encoder struct{}

// NewEncoder starts a file on w.
func NewEncoder(w io.Writer, o Options) (*Encoder, error) { return &Encoder{}, nil }

// CheckFields says which of the names are no field of an event.
func CheckFields(names []string) error { return nil }

// Schema is the schema of a file with every column, as text.
func Schema() string { return "" }

// Write appends whole lines.
func (e *Encoder) Write(lines []byte) error { return nil }

// Size is how many bytes of the file reached the destination.
func (e *Encoder) Size() int64 { return 0 }

// Close ends the file.
func (e *Encoder) Close() error { return nil }

// Abandon gives back what the encoder holds.
func (e *Encoder) Abandon() {}
