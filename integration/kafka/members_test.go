package kafka

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// members has others join and leave the group under load, in turn: one that
// commits nothing, one that commits what it took, another instance of ours.
// Each record is then with us, or with the other instance, or with whoever
// committed it; in no drops twice; and what somebody else took is named.
func members(t *testing.T, k *servers.Kafka, n sizes) {
	const topic = "shared"
	k.Topic(topic, 4)
	p, w := client(t, k.Addr, kgo.RecordPartitioner(kgo.RoundRobinPartitioner())), newWritten(topic)
	first, second := service(t, feed(topic, k.Addr, topic, "")), service(t, feed(topic, k.Addr, topic, ""))
	for _, s := range []*harness.Service{first, second} {
		s.Tenants(5, drops)
	}
	first.Up(30 * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	in := lines(t, 4, n.rate*(60+20*n.cycles), 5)
	load.Go(func() { w.pour(ctx, t, p, in, n.rate) })
	defer load.Wait()
	defer cancel()

	foreign := harness.IDs{} // what a foreign member committed
	var one, two gaps
	committed := map[int32]int64{}
	for i := range n.cycles {
		switch i % 4 {
		case 0, 2:
			f := join(t, k.Addr, topic, time.Minute)
			f.leave(t, i%4 == 2)
			if i%4 == 2 {
				foreign.AddIDs(f.took)
			}
		case 1, 3:
			second.Up(30 * time.Second)
			moves(t, second)
			two.look(t, second)
			second.End(false)
		}
		moves(t, first)
		one.look(t, first)
		forward(t, p, topic, committed)
	}
	cancel()
	load.Wait()
	second.Up(30 * time.Second) // its lanes deliver what its journal holds, wherever the partitions are
	w.read(t, p, topic)
	for s, g := range map[*harness.Service]*gaps{first: &one, second: &two} {
		s.Delivered(1, time.Minute)
		g.look(t, s)
		s.End(false)
	}
	for _, s := range []*harness.Service{first, second} {
		if strings.Contains(s.Output(), "%!") || strings.Contains(s.Output(), "check brokers, the route and the network") {
			t.Errorf("an error that is not understood:\n%s", s.Output())
		}
	}
	mine, theirs := w.account(t, first, &one), w.account(t, second, &two)
	lost, both := 0, 0
	for id := range w.at {
		switch n := mine[id] + theirs[id] + min(foreign[id], 1); {
		case n == 0:
			lost++
		case n > 1:
			both++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d are nowhere", lost, len(w.at))
	}
	if len(foreign) == 0 || one.missed == 0 || two.missed == 0 || len(theirs) == 0 {
		t.Errorf("a foreign member committed %d, the second instance took %d; gaps of %d and %d", len(foreign), len(theirs), one.missed, two.missed)
	}
	t.Logf("%d members came and went: of %d records we delivered %d, our second instance %d, a foreign member committed %d; lost 0, twice in drops of one 0, with two of them %d; gaps of %d and %d records named",
		n.cycles, len(w.at), len(mine), len(theirs), len(foreign), both, one.missed, two.missed)
}

// pour writes lines at a rate until ctx ends.
func (w *written) pour(ctx context.Context, t *testing.T, c *kgo.Client, in [][]byte, rate int) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for n := rate / 5; len(in) >= n; in = in[n:] {
		select {
		case <-tick.C:
			w.write(t, c, in[:n])
		case <-ctx.Done():
			return
		}
	}
	<-ctx.Done()
}

// guest is a foreign member of the group, of another make.
type guest struct {
	*kgo.Client
	took harness.IDs
}

// join waits until the guest has a share of the partitions and took records of it.
func join(t *testing.T, broker, topic string, limit time.Duration) *guest {
	t.Helper()
	g := &guest{client(t, broker, kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic), kgo.Balancers(kgo.RangeBalancer()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), harness.IDs{}}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for len(g.took) == 0 {
		if ctx.Err() != nil {
			t.Fatalf("a foreign member took nothing within %v", limit)
		}
		g.PollFetches(ctx).EachRecord(func(r *kgo.Record) { g.took[idOf(r.Value)]++ })
	}
	return g
}

// leave commits what the guest took, or nothing, and leaves the group.
func (g *guest) leave(t *testing.T, commit bool) {
	t.Helper()
	if commit {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := g.CommitUncommittedOffsets(ctx); err != nil {
			t.Errorf("a foreign member cannot commit: %v", err)
		}
	}
	g.CloseAllowingRebalance()
}

// moves waits until a service reads on.
func moves(t *testing.T, s *harness.Service) {
	t.Helper()
	was := read(s)
	harness.Until(t, 2*time.Minute, "reading", func() bool { return read(s) > was })
}

// forward holds the group's offsets to never going back.
func forward(t *testing.T, c *kgo.Client, group string, was map[int32]int64) {
	t.Helper()
	at, err := kadm.NewClient(c).FetchOffsets(t.Context(), group)
	if err != nil {
		t.Fatal(err)
	}
	at.Each(func(o kadm.OffsetResponse) {
		if o.At < was[o.Partition] {
			t.Errorf("the group's offset of partition %d went back from %d to %d", o.Partition, was[o.Partition], o.At)
		}
		was[o.Partition] = o.At
	})
}
