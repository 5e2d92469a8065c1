package emitter_test

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"pgregory.net/rapid"

	"datasync/emitter"
	"datasync/emitter/emittertest"
)

// TestAnyFaultsLoseNothing: whatever happens in whatever order, every line
// offered arrives at least once, in order apart from repeats, and is confirmed.
func TestAnyFaultsLoseNothing(t *testing.T) {
	if err := flag.Set("rapid.checks", "8"); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		answer := rapid.SampledFrom([]emittertest.Answer{emittertest.Orderly, emittertest.BareFIN}).Draw(rt, "answer")
		keeps := time.Duration(0)
		if answer == emittertest.Orderly {
			keeps = rapid.SampledFrom([]time.Duration{0, 3 * time.Millisecond}).Draw(rt, "own queue")
		}
		r := emittertest.New(t, emittertest.Options{Answer: answer, StoreAfter: keeps})
		o := quick(r)
		o.DrainTimeout = 100 * time.Millisecond
		o.RotateBytes = int64(rapid.IntRange(20_000, 1<<20).Draw(rt, "rotate bytes"))
		o.Buffer = rapid.IntRange(1000, 300_000).Draw(rt, "buffer")
		f := feed(t, o, 0)
		n := 0
		deaths := []emittertest.Death{emittertest.RST}
		if answer == emittertest.Orderly {
			// A weak receiver that dies within the milliseconds of a drain passes
			// for one that answered it (DESIGN.md): its lines may be lost.
			deaths = append(deaths, emittertest.Shutdown, emittertest.Kill)
		}
		death := rapid.SampledFrom(deaths)
		steps := map[string]func(rt *rapid.T){
			"lines": func(rt *rapid.T) { n += rapid.IntRange(1, 400).Draw(rt, "lines"); f.to(n) },
			"pause": func(rt *rapid.T) { pause(t, time.Duration(rapid.IntRange(1, 30).Draw(rt, "ms"))*time.Millisecond) },
			"end":   func(rt *rapid.T) { r.End(death.Draw(rt, "how")) },
			"stop":  func(rt *rapid.T) { r.Stop(death.Draw(rt, "how")); pause(t, 3*time.Millisecond); r.Start() },
			"hold":  func(*rapid.T) { r.Hold() },
			"go on": func(*rapid.T) { r.Release() },
			"flush": func(*rapid.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				defer cancel()
				_ = f.flush(ctx) // may fail while the receiver is away
			},
		}
		if keeps > 0 {
			// Nobody watches a receiver between a flush and the next connection:
			// if it dies there, with what it read in its own memory, that is lost.
			// An end by a bare FIN is as good as a drain of a weak receiver.
			delete(steps, "flush")
		}
		rt.Repeat(steps)
		r.Release()
		n++
		f.to(n)
		f.allConfirmed(n)
		f.mu.Lock()
		rt.Logf("losses %+v, status %+v", f.lost, f.c.Status())
		f.mu.Unlock()
		arrived(rt, r.Lines(), n)
		f.stop()
	})
}

// sink is a receiver that costs as little as it can.
func sink(b *testing.B, set emittertest.CertSet) net.Listener {
	b.Helper()
	cfg, err := set.Server(false)
	if err != nil {
		b.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() }) // nothing depends on it
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 64<<10))
				_ = c.Close() // the sender's end, answered
			}()
		}
	}()
	return l
}

// BenchmarkLines is an event of 735 bytes through TLS over loopback until it is
// read; the CPU of the receiver, in the same process, is in it. Offers of one
// line, and of a block of lines as a lane hands them over.
func BenchmarkLines(b *testing.B) {
	for _, lines := range []int{1, 90} {
		b.Run(fmt.Sprintf("%d a call", lines), func(b *testing.B) {
			set := emittertest.Certs(b)
			l := sink(b, set)
			room := make(chan struct{}, 1)
			c, err := emitter.New(emitter.Options{
				Addresses: []string{l.Addr().String()}, TLS: emitter.TLS{CA: set.CA},
				Events: emitter.Events{OnRoom: func() { poke(room) }, OnLost: func(_ uint64, err error) { b.Error(err) }},
			})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			block := make([]byte, 0, 735*lines)
			for i := range lines {
				line := []byte(testLine(i))
				block = append(append(block, line...), make([]byte, 734-len(line))...)
				block = append(block, '\n')
			}
			offer := func() {
				for {
					if _, ok := c.Offer(block); ok {
						return
					}
					<-room
				}
			}
			offer()
			if err := c.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(735)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += lines {
				offer()
			}
			if err := c.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
