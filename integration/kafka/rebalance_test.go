package kafka

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"datasync/integration/harness"
)

// commits watches the offsets that are committed.
type commits struct {
	mu   sync.Mutex
	at   map[int32]int64
	n    int
	back []string
}

func watchCommits(c *kfake.Cluster) *commits {
	w := &commits{at: map[int32]int64{}}
	c.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, t := range r.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range t.Partitions {
				if w.n++; p.Offset < w.at[p.Partition] {
					w.back = append(w.back, fmt.Sprintf("partition %d from %d to %d", p.Partition, w.at[p.Partition], p.Offset))
				}
				w.at[p.Partition] = p.Offset
			}
		}
		return nil, nil, false
	})
	return w
}

func (w *commits) check(t *testing.T, sum int64) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	got := int64(0)
	for _, o := range w.at {
		got += o
	}
	if len(w.back) > 0 || got != sum {
		t.Errorf("%d commits, %d of them backwards: %v; the last add up to %d, want %d", w.n, len(w.back), w.back, got, sum)
	}
}

// generating has the program write n events to the topic, over about so long.
func generating(t *testing.T, broker string, n int, over time.Duration) *harness.Process {
	t.Helper()
	return harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(float64(n)/over.Seconds()), "--count", fmt.Sprint(n),
		"--tenants", "20", "--seed", "1", "--to", "kafka://"+broker+"/"+topic)
}

// Members that come and go, and commit nothing: our offsets are ours, so
// nothing comes twice and no commit goes backwards.
func TestRebalanceChurn(t *testing.T) {
	c := fake(t, kfake.SeedTopics(4, topic), kfake.GroupMinSessionTimeout(time.Second))
	broker := c.ListenAddrs()[0]
	seen := watchCommits(c)
	s := service(t, feed("mitigations", broker, topic, ""))
	s.Tenants(20, drops)
	s.Up(30 * time.Second)
	const n = 24_000
	gen := generating(t, broker, n, 18*time.Second)
	for gen.Running() {
		other := client(t, broker, kgo.ConsumerGroup("mitigations"), kgo.ConsumeTopics(topic), kgo.Balancers(kgo.RangeBalancer()),
			kgo.DisableAutoCommit(), kgo.SessionTimeout(2*time.Second), kgo.HeartbeatInterval(200*time.Millisecond))
		ctx, cancel := context.WithTimeout(context.Background(), 2500*time.Millisecond)
		for ctx.Err() == nil {
			other.PollFetches(ctx)
		}
		cancel()
		other.Close() // leaves
		harness.Pause(500 * time.Millisecond)
	}
	if code := gen.Wait(time.Minute); code != 0 {
		t.Fatalf("generate: exit %d", code)
	}
	s.Delivered(n, time.Minute)
	s.End(false)
	_, ids := received(t, s)
	ids.Want(t, "drops", 1, n, true)
	seen.check(t, n)
}

// Two of us in one group, one of which comes and goes: together they deliver
// each event once, and each names what the other took.
func TestTwoInstances(t *testing.T) {
	c := fake(t, kfake.SeedTopics(4, topic))
	broker := c.ListenAddrs()[0]
	seen := watchCommits(c)
	var both [2]*harness.Service
	for i := range both {
		both[i] = service(t, feed("mitigations", broker, topic, ""))
		both[i].Tenants(20, drops)
	}
	both[0].Up(30 * time.Second)
	const n = 20_000
	gen := generating(t, broker, n, 20*time.Second)
	for gen.Running() {
		both[1].Up(30 * time.Second)
		harness.Pause(5 * time.Second)
		both[1].End(false)
		harness.Pause(time.Second)
	}
	if code := gen.Wait(time.Minute); code != 0 {
		t.Fatalf("generate: exit %d", code)
	}
	harness.Until(t, time.Minute, "all commits", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		sum := int64(0)
		for _, o := range seen.at {
			sum += o
		}
		return sum == n
	})
	both[1].Up(30 * time.Second) // its lanes deliver what its journal holds, wherever the partitions are
	for _, s := range both {
		s.Delivered(1, time.Minute)
		s.End(false)
	}
	_, ids := received(t, both[0], both[1])
	ids.Want(t, "drops of both", 1, n, true)
	seen.check(t, n)
	for i, s := range both {
		if _, mine := received(t, s); len(mine) < 1000 || !strings.Contains(s.Output(), "were not read: the group mitigations had committed") && i == 0 {
			t.Errorf("instance %d took %d events; its log:\n%s", i, len(mine), s.Output())
		}
	}
}
