package bench

import (
	"os"
	"testing"

	"datasync/integration/harness"
)

// path is one row of the table: what runs, where its events come from and
// where they go. A source, a sink or a system that is new is a function beside
// those there are.
type path struct {
	name string
	run  func(*testing.T, job) cost
	from func(*testing.T, *bed, int) source
	to   func(*testing.T, *bed) sink
}

// paths are measured in this order, one after the other.
var paths = []path{
	{name: "Kafka → journal", run: datasync, from: kafka, to: journal},
	{name: "Kafka, zstd batches → journal", run: datasync, from: kafkaZstd, to: journal},
	{name: "files → journal", run: datasync, from: files, to: journal},
	{name: "HTTP, arrays of 500 → journal", run: datasync, from: posts, to: journal},
	{name: "HTTP, one event a request → journal", run: datasync, from: singles, to: journal},
	{name: "Kafka → folder, NDJSON gzip", run: datasync, from: kafka, to: folder("ndjson", "gzip")},
	{name: "Kafka → folder, NDJSON zstd", run: datasync, from: kafka, to: folder("ndjson", "zstd")},
	{name: "Kafka → folder, Parquet zstd", run: datasync, from: kafka, to: folder("parquet", "zstd")},
	{name: "Kafka → S3, NDJSON gzip", run: datasync, from: kafka, to: bucket("ndjson", "gzip")},
	{name: "Kafka → S3, NDJSON zstd", run: datasync, from: kafka, to: bucket("ndjson", "zstd")},
	{name: "Kafka → S3, Parquet zstd", run: datasync, from: kafka, to: bucket("parquet", "zstd")},
	{name: "Kafka → Kinesis", run: datasync, from: kafka, to: stream(false)},
	{name: "Kafka → Kinesis, aggregated", run: datasync, from: kafka, to: stream(true)},
	{name: "Kafka → TLS, JSON lines", run: datasync, from: kafka, to: lines},
	{name: "Kafka → S3 gzip, Kinesis and TLS at once", run: datasync, from: kafka, to: together(bucket("ndjson", "gzip"), stream(false), lines)},
}

// TestBench measures every path, and fails where an event is missing at the
// end of one, or is twice where the promise is once. It measures and does not
// judge: how fast a path is depends on the machine.
func TestBench(t *testing.T) {
	b := newBed(t, usual())
	var rows []row
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) {
			rows = append(rows, b.measure(t, p))
		})
	}
	write(os.Stdout, b.conditions(t), rows)
}

// measure runs one path.
func (b *bed) measure(t *testing.T, p path) row {
	t.Helper()
	n := harness.Events(t)
	j := job{scale: b.scale, events: n, source: p.from(t, b, n), sink: p.to(t, b)}
	before := b.calibrate()
	c := p.run(t, j)
	c.sum = (before + b.calibrate()) / 2
	missing := n - len(c.ids) // that none is foreign is looked at here
	repeats := c.ids.Want(t, p.name, seed, n, j.sink.once)
	c.ids = nil // a million a row is too much to keep
	return row{name: p.name, job: j, cost: c, missing: missing, repeats: repeats}
}
