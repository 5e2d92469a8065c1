package journal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"datasync/feeds"
)

// benchBatch makes a batch of 735-byte events of Zipf-distributed tenants, about 4 MiB.
func benchBatch(j *Journal, tenants int, seed uint64) *Batch {
	rng := rand.New(rand.NewPCG(seed, 1))
	z := rand.NewZipf(rng, 1.1, 1, uint64(tenants-1))
	refs := make([]TenantRef, tenants)
	for i := range refs {
		refs[i] = j.Tenant(feeds.TenantID(fmt.Sprintf("t%05d", i)))
	}
	b := &Batch{}
	line := `{"schema":"mitigation/1","pad":"` + strings.Repeat("x", 700)
	line = line[:732] + "\"}\n"
	for len(b.Arena) < 4<<20-735 {
		t := TenantRef(0)
		if tenants > 1 {
			t = refs[z.Uint64()]
		}
		b.Events = append(b.Events, Event{Off: uint32(len(b.Arena)), Len: 735, Tenant: t, Kind: uint8(rng.IntN(3)), Time: 1e12})
		b.Arena = append(b.Arena, line...)
	}
	return b
}

// cpuTime is the processor time of this process so far, user and system.
func cpuTime() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // never fails for SELF
	return u.Utime.Nano() + u.Stime.Nano()
}

func BenchmarkAppend(b *testing.B) {
	for _, tenants := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("tenants=%d", tenants), func(b *testing.B) {
			s, err := OpenStore(b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			j, err := s.Shard("bench")
			if err != nil {
				b.Fatal(err)
			}
			batch := benchBatch(j, tenants, 1)
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime()
			for range b.N {
				if _, err := j.Append(context.Background(), batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Events)), "ns/event")
			b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N*len(batch.Events)), "cpu-ns/event")
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkRead(b *testing.B) {
	for _, tenants := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("tenants=%d", tenants), func(b *testing.B) {
			s, err := OpenStore(b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			j, err := s.Shard("bench")
			if err != nil {
				b.Fatal(err)
			}
			for i := range 40 {
				if _, err := j.Append(context.Background(), benchBatch(j, tenants, uint64(i))); err != nil {
					b.Fatal(err)
				}
			}
			var c Chunk
			events := 0
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime()
			for range b.N {
				for _, t := range j.Tenants() {
					for p := (Position{}); ; p = c.Next {
						if err := j.Read(t, p, ReadOptions{}, &c); err != nil {
							b.Fatal(err)
						}
						for _, s := range c.Spans {
							events += s.Events
						}
						if !c.More {
							break
						}
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
			b.ReportMetric(float64(cpuTime()-cpu)/float64(events), "cpu-ns/event")
			b.StopTimer()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
