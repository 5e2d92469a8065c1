package servers

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/integration/harness"
)

// Kafka is Apache Kafka itself, one node with its data in a folder of its own,
// ended and started again as a test likes.
type Kafka struct {
	t    testing.TB
	dir  string
	Addr string
	*harness.Process
}

// NewKafka starts a broker without topics.
func NewKafka(t testing.TB) *Kafka {
	t.Helper()
	k := &Kafka{t: t, dir: t.TempDir(), Addr: twoPorts(t)}
	k.Up()
	return k
}

// twoPorts finds two free ports that follow each other, and gives the first.
func twoPorts(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := harness.FreePort(t)
		first, err := strconv.Atoi(port(t, addr))
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+1)); err == nil {
			_ = l.Close() // only looked
			return addr
		}
	}
	t.Fatal("no two free ports in a row")
	return ""
}

// Up starts the broker, and waits until it serves: a broker that the
// controller does not know yet names none, and makes no topics.
func (k *Kafka) Up() {
	k.t.Helper()
	k.Process = harness.Launch(k.t, "Kafka", exec.Command("bash", "../testbed/kafka.sh", "run", k.dir, port(k.t, k.Addr)))
	await(k.t, k.Process, func() bool {
		return k.ask(2*time.Second, func(ctx context.Context, c *kadm.Client) error {
			m, err := c.BrokerMetadata(ctx)
			if err == nil && len(m.Brokers) == 0 {
				err = fmt.Errorf("no brokers")
			}
			return err
		}) == nil
	})
}

// Topic makes a topic, and waits until the broker names leaders of all its
// partitions: right after it is made, clients may still be told that there is none.
func (k *Kafka) Topic(name string, partitions int) {
	k.t.Helper()
	err := k.ask(30*time.Second, func(ctx context.Context, c *kadm.Client) error {
		r, err := c.CreateTopic(ctx, int32(partitions), 1, nil, name)
		if err == nil {
			err = r.Err
		}
		return err
	})
	if err != nil {
		k.t.Fatalf("create topic %s: %v", name, err)
	}
	await(k.t, k.Process, func() bool {
		led := 0
		err := k.ask(2*time.Second, func(ctx context.Context, c *kadm.Client) error {
			topics, err := c.ListTopics(ctx, name)
			for _, p := range topics[name].Partitions {
				if p.Err == nil && p.Leader >= 0 {
					led++
				}
			}
			return err
		})
		return err == nil && led == partitions
	})
}

// ask calls with a client that knows nothing of before.
func (k *Kafka) ask(limit time.Duration, call func(context.Context, *kadm.Client) error) error {
	c, err := kadm.NewOptClient(kgo.SeedBrokers(k.Addr))
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return call(ctx, c)
}
