package dir

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"datasync/exporter/lane"
)

// cpu is the processor time of this process so far, its system calls included.
func cpu(tb testing.TB) int64 {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkDrops stores objects of 50 KB, 64 at a time: each the first of its
// tenant, the first of its tenant in an hour, and one more in an hour.
func BenchmarkDrops(b *testing.B) {
	const tenants = 500
	one := drop("", strings.Repeat("0123456789", 5000))
	of := func(key string) *lane.Drop {
		d := *one
		d.Key = key
		return &d
	}
	for name, key := range map[string]func(n int) string{
		"of a tenant": func(n int) string { return fmt.Sprintf("tenant=t%d/sink=s/dt=2026-01-01/hour=00/%d.ndjson", n, n) },
		"of an hour": func(n int) string {
			return fmt.Sprintf("tenant=t%d/sink=s/dt=2026-01-01/hour=%d/%d.ndjson", n%tenants, n/tenants, n)
		},
		"later": func(n int) string {
			return fmt.Sprintf("tenant=t%d/sink=s/dt=2026-01-01/hour=00/%d.ndjson", n%tenants, n)
		},
	} {
		b.Run(name, func(b *testing.B) {
			root := b.TempDir()
			var n atomic.Int64
			sinks := make([]*Sink, tenants)
			for i := range sinks {
				sinks[i] = New(root, "abc123")
			}
			if name != "of a tenant" {
				for i := range sinks {
					put(b, sinks[i], of(key(i)))
				}
				n.Store(tenants)
			}
			b.ReportAllocs()
			b.SetParallelism(32)
			b.ResetTimer()
			began := cpu(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := int(n.Add(1) - 1)
					s := sinks[i%tenants]
					if name == "of a tenant" {
						s = New(root, "abc123")
					}
					if err := s.Put(context.Background(), of(key(i))); err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(cpu(b)-began)/float64(b.N), "cpu-ns/op")
		})
	}
}
