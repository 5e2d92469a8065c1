package formats_test

import (
	"fmt"
	"io"
	"syscall"
	"testing"

	"datasync/formats"
	"datasync/formats/formatstest"
)

// BenchmarkDrop is a drop of 8 MiB of lines, handed over in chunks of 1 MiB.
func BenchmarkDrop(b *testing.B) {
	const n = 11_000
	lines := formatstest.Lines(formatstest.Events(1, n))
	for _, o := range []formats.Options{
		{Compression: formats.None}, {Compression: formats.Gzip}, {Compression: formats.Gzip, Level: 5},
		{Compression: formats.Zstd}, {Compression: formats.Zstd, Level: 3},
		{Format: formats.Parquet, Compression: formats.None}, {Format: formats.Parquet, Compression: formats.Snappy},
		{Format: formats.Parquet, Compression: formats.Zstd},
		{Compression: formats.Gzip, Fields: []string{"event_id", "event_time", "client_ip", "action"}},
		{Format: formats.Parquet, Fields: []string{"event_id", "event_time", "client_ip", "action"}},
	} {
		o = o.WithDefaults()
		b.Run(fmt.Sprintf("%s-%s-%d-fields%d", o.Format, o.Compression, o.Level, len(o.Fields)), func(b *testing.B) {
			b.ReportAllocs()
			var size int64
			before := cpu(b)
			for b.Loop() {
				size = drop(b, o, lines)
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/n, "cpu-ns/event")
			b.ReportMetric(float64(len(lines))/float64(size), "ratio")
			b.ReportMetric(float64(len(lines))/n, "B/event")
		})
	}
}

// BenchmarkSmallDrop is a small tenant's drop.
func BenchmarkSmallDrop(b *testing.B) {
	for _, o := range []formats.Options{{}, {Compression: formats.Zstd}, {Format: formats.Parquet}} {
		for _, n := range []int{1, 10, 100} {
			lines := formatstest.Lines(formatstest.Events(1, n))
			o = o.WithDefaults()
			b.Run(fmt.Sprintf("%s-%s-%d", o.Format, o.Compression, n), func(b *testing.B) {
				b.ReportAllocs()
				var size int64
				for b.Loop() {
					size = drop(b, o, lines)
				}
				b.ReportMetric(float64(size), "B/drop")
			})
		}
	}
}

// cpu is the process's user and system time so far, in ns: other load on the
// machine does not show in it.
func cpu(tb testing.TB) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// drop encodes one and says its size.
func drop(tb testing.TB, o formats.Options, lines []byte) int64 {
	e, err := formats.NewEncoder(io.Discard, o)
	if err != nil {
		tb.Fatal(err)
	}
	for len(lines) > 0 {
		n := min(len(lines), 1<<20)
		for lines[n-1] != '\n' {
			n--
		}
		if err := e.Write(lines[:n]); err != nil {
			tb.Fatal(err)
		}
		lines = lines[n:]
	}
	if err := e.Close(); err != nil {
		tb.Fatal(err)
	}
	return e.Size()
}
