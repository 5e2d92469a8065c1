package servers

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
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
	via  string
	Addr string
	// Behind is where the broker listens for a proxy: whoever is led there is
	// told that the broker is where NewKafkaBehind was told.
	Behind string
	*harness.Process
}

// NewKafka starts a broker without topics.
func NewKafka(t testing.TB) *Kafka {
	t.Helper()
	return NewKafkaBehind(t, "")
}

// NewKafkaBehind starts a broker that a proxy at an address stands before.
func NewKafkaBehind(t testing.TB, proxy string) *Kafka {
	t.Helper()
	addrs := threePorts(t)
	k := &Kafka{t: t, dir: t.TempDir(), Addr: addrs[0], Behind: addrs[2], via: proxy}
	if proxy == "" {
		k.via = k.Behind
	}
	k.Up()
	return k
}

// threePorts finds three free ports that follow each other, below those that
// the system gives to outgoing connections: nobody else takes them while the
// broker starts, or between two of its lives.
func threePorts(t testing.TB) (addrs [3]string) {
	t.Helper()
	for range 100 {
		first, free := 20_000+rand.IntN(12_000), 0
		for n := range addrs {
			addrs[n] = fmt.Sprintf("127.0.0.1:%d", first+n)
			if l, err := net.Listen("tcp", addrs[n]); err == nil {
				_ = l.Close() // only looked
				free++
			}
		}
		if free == len(addrs) {
			return addrs
		}
	}
	t.Fatal("no three free ports in a row")
	return addrs
}

// Up starts the broker, and waits until it serves: a broker that the
// controller does not know yet names none, and makes no topics.
func (k *Kafka) Up() {
	k.t.Helper()
	k.Process = harness.Launch(k.t, "Kafka", exec.Command("bash", "../testbed/kafka.sh", "run", k.dir, port(k.t, k.Addr), k.via))
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
// settings are its own, such as "retention.bytes=1048576".
func (k *Kafka) Topic(name string, partitions int, settings ...string) {
	k.t.Helper()
	own := map[string]*string{}
	for _, s := range settings {
		key, value, _ := strings.Cut(s, "=")
		own[key] = &value
	}
	err := k.ask(30*time.Second, func(ctx context.Context, c *kadm.Client) error {
		r, err := c.CreateTopic(ctx, int32(partitions), 1, own, name)
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
