// Package formats names the encodings of a drop and makes their encoders:
// ndjson, parquet; the same events always give the same bytes.
package formats

import "fmt"

// Format is the shape of a drop.
type Format string

// The formats.
const (
	NDJSON  Format = "ndjson"
	Parquet Format = "parquet"
)

// Compression is a drop's compression: of the whole object for NDJSON, of the
// pages for Parquet.
type Compression string

// The compressions; gzip only for NDJSON, snappy only for Parquet.
const (
	None   Compression = "none"
	Gzip   Compression = "gzip"
	Zstd   Compression = "zstd"
	Snappy Compression = "snappy"
)

// Extension is what the key of a drop ends with: "ndjson.gz", "parquet".
func Extension(f Format, c Compression) string {
	switch {
	case f == Parquet:
		return "parquet"
	case c == Gzip:
		return "ndjson.gz"
	case c == Zstd:
		return "ndjson.zst"
	default:
		return "ndjson"
	}
}

// Check says what is wrong with a pair, and what would be right.
func Check(f Format, c Compression) error {
	switch {
	case f == NDJSON && (c == None || c == Gzip || c == Zstd):
	case f == Parquet && (c == None || c == Snappy || c == Zstd):
	case f == NDJSON:
		return fmt.Errorf("compression %q does not go with format ndjson; use none, gzip or zstd", c)
	case f == Parquet:
		return fmt.Errorf("compression %q does not go with format parquet; use none, snappy or zstd", c)
	default:
		return fmt.Errorf("format %q is unknown; use ndjson or parquet", f)
	}
	return nil
}
