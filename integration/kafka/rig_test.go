package kafka

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/integration/harness"
)

const topic = "mitigations"

// service is the built program with Kafka feeds.
func service(t *testing.T, feeds ...string) *harness.Service {
	t.Helper()
	s := harness.NewService(t, "")
	s.Write("datasync.yaml", fmt.Sprintf("data_dir: %[1]s/data\nfeeds:\n%[2]s\ntenants: %[1]s/tenants\nadmin: {listen: %[3]q}\n",
		s.Dir, strings.Join(feeds, "\n"), s.Admin))
	return s
}

// feed is a feed's YAML; more goes into its kafka settings.
func feed(name, broker, topic, more string) string {
	return fmt.Sprintf("  - name: %s\n    kafka: {brokers: [%q], topic: %s, group: %s%s}\n    format: canonical", name, broker, topic, name, more)
}

const drops = `  - name: drops
    dir: {path: "{dir}/drops"}
    deliver: {max_age: 1s, max_bytes: 4MiB}
`

// fake starts a broker in this process.
func fake(t *testing.T, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// client is a client of another make than the program's.
func client(t *testing.T, broker string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(broker), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(64 << 10)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// lines are n events of a seed, numbered from 1.
func lines(t *testing.T, seed, n, tenants int) [][]byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.ndjson")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(tenants), "--seed", fmt.Sprint(seed), "--to", path)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for line := range bytes.Lines(raw) {
		out = append(out, bytes.TrimSpace(line))
	}
	return out
}

// produce writes lines and waits until all are written.
func produce(t *testing.T, c *kgo.Client, to string, lines [][]byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, l := range lines {
		c.Produce(ctx, &kgo.Record{Topic: to, Value: l}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// received reads all drops below the folders of services: by id, each event
// as it came, and how often.
func received(t *testing.T, services ...*harness.Service) (events map[string]map[string]any, ids harness.IDs) {
	t.Helper()
	events, ids = map[string]map[string]any{}, harness.IDs{}
	for _, s := range services {
		paths, err := filepath.Glob(filepath.Join(s.Dir, "drops", "*", "sink=drops", "*", "*", "*.ndjson.gz"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			ids.AddLines(t, p)
			f, err := os.Open(p)
			if err != nil {
				t.Fatal(err)
			}
			sc := bufio.NewScanner(gunzip(t, f))
			sc.Buffer(nil, 1<<20)
			for sc.Scan() {
				e := map[string]any{}
				if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
					t.Fatal(err)
				}
				events[fmt.Sprint(e["event_id"])] = e
			}
			_ = f.Close() // only read
		}
	}
	return events, ids
}

// says waits until the program has said something.
func says(t *testing.T, s *harness.Service, limit time.Duration, what string) {
	t.Helper()
	harness.Until(t, limit, fmt.Sprintf("%q in the log", what), func() bool { return strings.Contains(s.Output(), what) })
}

// read is how many events the feeds took.
func read(s *harness.Service) (n int64) {
	l, _ := s.Ledger()
	for _, f := range l.Feeds {
		n += f.Read
	}
	return n
}
