package lane

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/journal"
)

// hanging is a DropSink whose puts end when they are told to.
type hanging struct{ puts atomic.Int64 }

func (h *hanging) Put(ctx context.Context, _ *Drop) error {
	h.puts.Add(1)
	<-ctx.Done()
	return ctx.Err()
}

// TestASinkThatHangsCostsOthersNothing: a sink with more lanes than there are
// turns, and a bucket with more sinks, whose puts all hang; the others' drops
// and lines come as soon as they would.
func TestASinkThatHangsCostsOthersNothing(t *testing.T) {
	delay := func(lanes, sinks int) (drops, lines time.Duration, puts int64) {
		r := newRig(t)
		r.runner = NewRunner(RunnerOptions{Spools: r.runner.env.spools, Quarantine: &r.kept, JournalID: "abc123"})
		runner, shard := r.runner, r.shard
		r.log.Subscribe(func(as []journal.Arrival) { runner.Arrived(shard, as) })
		r.append("acme", 1)
		h := &hanging{}
		each := func(s *tenants.Sink) { s.Deliver = tenants.Deliver{MaxEvents: 1, MaxAge: time.Nanosecond} }
		one := dropSink("acme", nil, each)
		one.Drops = h
		for i := range lanes {
			fs := &facts{hard: map[string][]byte{}, now: map[string][]byte{}}
			sh := &Shard{Name: fmt.Sprintf("edge-%d-abc123", i), Journal: r.log, Home: state.At(fs)}
			r.runner.Add(Beginning{Key: state.Key{Tenant: "acme", Sink: "drops"}, Shard: sh, Tenant: r.log.Tenant("acme"), Sink: one})
		}
		for i := range sinks {
			tenant := feeds.TenantID(fmt.Sprint("t", i))
			s := dropSink(tenant, nil, each)
			s.Drops, s.Place = h, "a bucket"
			r.append(tenant, 1)
			r.begin(s)
		}
		well, to := dropSink("beta", &bucket{}, each), &taking{}
		stream := streamSink("beta", to)
		a, b := r.begin(well), r.begin(stream)
		r.run()
		r.until(a, "others that hang or wait", func(View) bool {
			r.runner.mu.Lock()
			defer r.runner.mu.Unlock()
			return len(r.runner.queue) == 0
		})
		var took [2][]time.Duration
		for range 20 {
			from := time.Now()
			r.append("beta", 1)
			r.until(a, "drop", caughtUp)
			took[0] = append(took[0], time.Since(from))
			r.until(b, "line", func(v View) bool {
				r.runner.mu.Lock()
				defer r.runner.mu.Unlock()
				return r.runner.by[b][0].sent.Events == v.End.Events
			})
			took[1] = append(took[1], time.Since(from))
		}
		r.runner.cancel() // the puts that hang
		r.halt()
		for i := range took {
			slices.Sort(took[i])
		}
		return took[0][len(took[0])/2], took[1][len(took[1])/2], h.puts.Load()
	}
	drops, lines, _ := delay(0, 0)
	hangDrops, hangLines, puts := delay(1500, 1500)
	t.Logf("median delay of a drop %v, of a line %v; with 1,500 lanes of a sink and 1,500 sinks of a bucket that hang, %d puts of them under way: %v and %v", drops, lines, puts, hangDrops, hangLines)
	if puts < 100 || puts > 400 {
		t.Errorf("%d puts hang at once", puts)
	}
	const noise = 50 * time.Millisecond // of a machine that does other things too
	if hangDrops > drops*2+noise || hangLines > lines*2+noise {
		t.Error("others wait for those that hang")
	}
}
