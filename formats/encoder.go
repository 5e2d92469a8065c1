package formats

import (
	"fmt"
	"io"

	"datasync/formats/compress"
	"datasync/formats/ndjson"
	"datasync/formats/parquet"
)

// Version is the encoders' version, recorded with each pending drop: it goes up
// with every change that gives other bytes for the same events.
const Version = 2

// Encoder writes one object. NewEncoder's caller owns it, uses it from one
// goroutine, and ends with Close or Abandon, either of which gives its memory to
// the next encoder. The bytes depend on the options and the lines alone: not on
// how the lines were split over Writes, on the load, or on what failed before.
// (Snappy's also depend on the processor's architecture.)
type Encoder interface {
	// Write appends whole canonical lines, each ended by its newline. The bytes
	// stay the caller's. An error stays: the caller abandons the encoder.
	Write(lines []byte) error
	// Size is how many bytes of the object the destination has so far; what the
	// encoder still holds (gzip and zstd some 128 KiB of input, Parquet a row
	// group) comes on top.
	Size() int64
	// Close ends the object, with nothing left in the encoder on a nil error. It
	// does not close the destination. Size is then the whole.
	Close() error
	// Abandon lets go of an object that is not to be finished; after Close it
	// does nothing.
	Abandon()
}

// Options says what the bytes depend on besides the lines.
type Options struct {
	Format      Format      // "": ndjson
	Compression Compression // "": gzip for ndjson, zstd for parquet
	Level       int         // of the compression; 0: the fastest
	Fields      []string    // top-level fields to keep, in the event's order; none: all
}

// WithDefaults is o with the format and the compression named.
func (o Options) WithDefaults() Options {
	if o.Format == "" {
		o.Format = NDJSON
	}
	if o.Compression == "" && o.Format == Parquet {
		o.Compression = Zstd
	}
	if o.Compression == "" {
		o.Compression = Gzip
	}
	return o
}

// Check says what is wrong with o, and what would be right.
func (o Options) Check() error {
	o = o.WithDefaults()
	if err := Check(o.Format, o.Compression); err != nil {
		return err
	}
	switch o.Compression {
	case Gzip, Zstd:
		if err := compress.CheckLevel(compress.Codec(o.Compression), o.Level); err != nil {
			return err
		}
	default:
		if o.Level != 0 {
			return fmt.Errorf("level %d: compression %q has no levels; leave it out", o.Level, o.Compression)
		}
	}
	if o.Format == Parquet {
		return parquet.CheckFields(o.Fields)
	}
	return nil
}

// NewEncoder starts an object on w.
func NewEncoder(w io.Writer, o Options) (Encoder, error) {
	o = o.WithDefaults()
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("start an object of %s: %w", o.Format, err)
	}
	if o.Format == Parquet {
		return parquet.NewEncoder(w, parquet.Options{
			Compression: string(o.Compression), Level: o.Level, Fields: o.Fields,
		})
	}
	return ndjson.NewEncoder(w, ndjson.Options{
		Compression: compress.Codec(o.Compression), Level: o.Level, Fields: o.Fields,
	})
}

// Set is a set of field names; nil is every field.
type Set = ndjson.Set

// NewSet is the set of names; nil where there are none.
func NewSet(names []string) Set { return ndjson.NewSet(names) }

// Project appends to dst the JSON object line with only the top-level members
// that are in fields: in the event's own order, their values as they are, with
// the newline if line has it.
func Project(dst, line []byte, fields Set) []byte { return ndjson.Project(dst, line, fields) }
