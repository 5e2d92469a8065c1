package bench

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

const seed = 1

// scale is how many there are of what a path may grow by.
type scale struct {
	tenants    int // each with one sink; one is the job that programs without tenants do
	partitions int
}

// usual has as many tenants as DATASYNC_TENANTS says, 200 where it says nothing.
func usual() scale {
	n, err := strconv.Atoi(os.Getenv("DATASYNC_TENANTS"))
	if err != nil || n < 1 {
		n = 200
	}
	return scale{tenants: n, partitions: 16}
}

// bed is what all paths share: the broker with its topics, and the same events
// as a file.
type bed struct {
	scale
	t      *testing.T // of all paths, so that these outlive a row
	broker *servers.Kafka
	topics map[string]bool
	files  map[string]string
	bytes  float64   // an event's, on average
	sums   []float64 // what calibrate found, ms, sorted
}

func newBed(t *testing.T, s scale) *bed {
	t.Helper()
	servers.Credentials(t)
	return &bed{scale: s, t: t, topics: map[string]bool{}, files: map[string]string{}}
}

// generate makes the first n events of the one seed, for all paths the same.
func (b *bed) generate(n int, to string) {
	b.t.Helper()
	said := harness.Run(b.t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(b.tenants), "--seed", fmt.Sprint(seed), "--to", to)
	var made int
	var mb float64
	if _, err := fmt.Sscanf(said, "%d events (%f MB)", &made, &mb); err != nil || made != n {
		b.t.Fatalf("generate said %q: %v", said, err)
	}
	b.bytes = mb * 1e6 / float64(n)
}

// topic is a topic that holds n events in batches of a compression.
func (b *bed) topic(compression string, n int) string {
	b.t.Helper()
	if b.broker == nil {
		b.broker = servers.NewKafka(b.t)
		coordinator(b.t, b.broker.Addr)
	}
	name := fmt.Sprintf("events-%s-%d-%d-%d", compression, n, b.tenants, b.partitions)
	if !b.topics[name] {
		b.broker.Topic(name, b.partitions)
		to := "kafka://" + b.broker.Addr + "/" + name + "?compression=" + compression
		if b.tenants == 1 {
			to += "&key=none" // else one partition would have all of them
		}
		b.generate(n, to)
		b.topics[name] = true
	}
	return name
}

// calibrate says what this machine does now, beside a row: the processor time,
// in ms, of a SHA-256 of 1 MiB. Other work on a core's other half makes both dearer.
func (b *bed) calibrate() float64 {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	text, best := make([]byte, 1<<20), math.MaxFloat64
	for range 20 {
		began := threadTime()
		sha256.Sum256(text)
		best = min(best, float64((threadTime()-began).Nanoseconds())/1e6)
	}
	b.sums = append(b.sums, best)
	slices.Sort(b.sums)
	return best
}

// threadTime is the processor time of this thread so far.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // never fails for this clock
	return time.Duration(t.Nano())
}

// coordinator asks for a group's, on which a new broker first makes the topic of
// all groups' offsets; else the first row would wait for that.
func coordinator(t *testing.T, addr string) {
	t.Helper()
	c, err := kadm.NewOptClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	harness.Until(t, time.Minute, "coordinator of groups", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r := c.FindGroupCoordinators(ctx, "any")
		return r.Error() == nil
	})
}

// file holds n events, one a line.
func (b *bed) file(n int) string {
	b.t.Helper()
	key := fmt.Sprintf("%d of %d", n, b.tenants)
	if b.files[key] == "" {
		path := filepath.Join(b.t.TempDir(), fmt.Sprintf("%d-%d.ndjson", n, b.tenants))
		b.generate(n, path)
		b.files[key] = path
	}
	return b.files[key]
}

// conditions are what the figures depend on, a line each.
func (b *bed) conditions(t *testing.T) []string {
	t.Helper()
	return []string{
		fmt.Sprintf("%s, %d cores of %s, %s", time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), cpuModel(t), builtWith(t, harness.Binary(t)).GoVersion),
		fmt.Sprintf("a SHA-256 of 1 MiB took %.2f ms of processor time at best, %.2f ms in the middle", b.sums[0], b.sums[len(b.sums)/2]),
		fmt.Sprintf("events of %.0f B on average, of %d tenants (Zipf), %d partitions where nothing else is said", b.bytes, b.tenants, b.partitions),
		fmt.Sprintf("Kafka %s, versitygw %s", kafkaVersion(t),
			builtWith(t, servers.Installed(t, ".testbed/bin/versitygw", "stores")).Main.Version),
	}
}

func cpuModel(t *testing.T) string {
	t.Helper()
	model := runtime.GOARCH // where the kernel names none
	harness.EachLine(t, "/proc/cpuinfo", func(line []byte) {
		if key, value, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
		}
	})
	return model
}

func builtWith(t *testing.T, program string) *buildinfo.BuildInfo {
	t.Helper()
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// kafkaVersion is that of the broker's jar.
func kafkaVersion(t *testing.T) string {
	t.Helper()
	jars, err := filepath.Glob("../.kafka/*/kafka_*.jar")
	if err != nil || len(jars) != 1 {
		t.Fatalf("Kafka's jar (task brokers installs it): %q, %v", jars, err)
	}
	_, version, _ := strings.Cut(strings.TrimSuffix(filepath.Base(jars[0]), ".jar"), "-")
	return version
}
