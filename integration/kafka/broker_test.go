package kafka

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// sizes are how hard Apache Kafka is tried.
type sizes struct {
	flips  int // of each place and codec
	freeze int // how often records are deleted under a service that stands still
	cycles int // members that come and go
	rate   int // events a second meanwhile
}

// What Apache Kafka itself does to us, at once and through one broker: it
// deletes what we have not read, bits flip on the way from it, partitions go to
// others and come back.
func TestFaultRealKafka(t *testing.T) { realKafka(t, sizes{flips: 2, freeze: 2, cycles: 4, rate: 300}) }

func realKafka(t *testing.T, n sizes) {
	w := newWire(t, uint64(time.Now().UnixNano()))
	k := servers.NewKafkaBehind(t, w.Addr().String())
	w.serve(t, k.Behind)
	t.Run("all", func(t *testing.T) {
		t.Run("retention", func(t *testing.T) { t.Parallel(); retention(t, k) })
		t.Run("deleted while it runs", func(t *testing.T) { t.Parallel(); deletedUnderUs(t, k, n.freeze) })
		t.Run("bits", func(t *testing.T) { t.Parallel(); bits(t, k, w, n.flips) })
		t.Run("members", func(t *testing.T) { t.Parallel(); members(t, k, n) })
	})
}

// retention has the topic's own retention overtake a service that is down: what
// it took is named for ever and told once, all else arrives.
func retention(t *testing.T, k *servers.Kafka) {
	const topic = "short"
	k.Topic(topic, 2, "retention.bytes=1048576", "segment.bytes=1048576")
	p, w, in := client(t, k.Addr, kgo.ProducerBatchCompression(kgo.NoCompression())), newWritten(topic), lines(t, 1, 16_000, 5)
	adm := kadm.NewClient(p)
	s := service(t, feed(topic, k.Addr, topic, ""))
	s.Tenants(5, drops)
	s.Up(30 * time.Second)
	w.write(t, p, in[:800])
	w.read(t, p, topic)
	s.End(false)
	w.write(t, p, in[800:15_000])
	var first kadm.ListedOffsets
	harness.Until(t, time.Minute, "retention that has passed both partitions", func() bool {
		was := first
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		var err error
		first, err = adm.ListStartOffsets(ctx, topic)
		passed, same := 0, err == nil && was != nil
		first.Each(func(o kadm.ListedOffset) {
			if o.Offset > 1000 {
				passed++
			}
			before, _ := was.Lookup(topic, o.Partition)
			same = same && before.Offset == o.Offset
		})
		return passed == 2 && same
	})
	s.Up(30 * time.Second)
	w.write(t, p, in[15_000:])
	w.read(t, p, topic)
	s.Delivered(1, time.Minute)
	var g gaps
	g.look(t, s)
	named(t, s, &g, "they were deleted before they could be")
	if len(g.seen) < 2 || g.missed < 2000 {
		t.Errorf("the ledger names %v", g.seen)
	}
	s.End(false)
	w.account(t, s, &g)
	s.Up(30 * time.Second)
	var again gaps
	again.look(t, s)
	s.End(false)
	if !reflect.DeepEqual(again, g) || strings.Contains(s.Output(), "were not read") {
		t.Errorf("after another start the ledger names %v, before %v, and the log says\n%s", again, g, s.Output())
	}
	t.Logf("%d of %d records deleted by the topic's retention while the service was down: each named, none other missing, none twice", g.missed, w.count())
}

// deletedUnderUs deletes records that a service has not read yet, while it
// stands still and its membership goes on.
func deletedUnderUs(t *testing.T, k *servers.Kafka, times int) {
	// More than the two answers of 1 MiB hold that the broker may have given
	// before it deletes.
	const topic, each = "frozen", 5000
	k.Topic(topic, 2)
	p, w, in := client(t, k.Addr, kgo.ProducerBatchCompression(kgo.NoCompression())), newWritten(topic), lines(t, 2, each*(times+1), 5)
	adm := kadm.NewClient(p)
	s := service(t, feed(topic, k.Addr, topic, ""))
	s.Tenants(5, drops)
	s.Up(30 * time.Second)
	w.write(t, p, in[:each])
	w.read(t, p, topic)
	var g gaps
	for i := 1; i <= times; i++ {
		s.Signal(syscall.SIGSTOP)
		w.write(t, p, in[i*each:(i+1)*each])
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		ends, err := adm.ListEndOffsets(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		to := kadm.Offsets{}
		ends.Each(func(e kadm.ListedOffset) {
			to.Add(kadm.Offset{Topic: topic, Partition: e.Partition, At: e.Offset - each/10})
		})
		r, err := adm.DeleteRecords(ctx, to)
		if err == nil {
			err = r.Error()
		}
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		s.Signal(syscall.SIGCONT)
		w.read(t, p, topic)
		was := g.missed
		if g.look(t, s); g.missed <= was {
			t.Errorf("round %d: nothing was missed, and %v deleted", i, to)
		}
	}
	named(t, s, &g, "they were deleted before they could be")
	s.Delivered(1, time.Minute)
	s.End(false)
	w.account(t, s, &g)
	t.Logf("%d of %d records deleted under a running service, in %d rounds: each named, none other missing, none twice", g.missed, w.count(), times)
}

// bits flips bits in what the broker sends, batches of each kind, until each
// place was hit so often: no sink gets any of it, and all arrives.
func bits(t *testing.T, k *servers.Kafka, w *wire, each int) {
	codecs := map[string]kgo.CompressionCodec{"plain": kgo.NoCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	var fs []string
	for name := range codecs {
		k.Topic(name, 1)
		fs = append(fs, feed(name, w.Addr().String(), name, ""))
	}
	s := service(t, fs...)
	s.Tenants(5, drops)
	s.Up(30 * time.Second)
	const part = 100
	in := lines(t, 3, max(20_000, 400*part*each), 5)
	clients := map[string]*kgo.Client{}
	for name, codec := range codecs {
		clients[name] = client(t, k.Addr, kgo.ProducerBatchCompression(codec))
	}
	n := 0
	harness.Until(t, time.Hour, "bits in every place", func() bool {
		done := true
		for name, c := range clients {
			if w.least(name) < each {
				done = false
				produce(t, c, name, in[n:n+part])
				n += part
			}
		}
		return done || n+len(clients)*part > len(in)
	})
	s.Delivered(int64(n), 2*time.Minute)
	s.End(false)
	flips, where := w.said()
	for name := range codecs {
		if w.least(name) < each {
			t.Errorf("%s: not every place was hit %d times: %s", name, each, where)
		}
		if !strings.Contains(s.Output(), "topic "+name) {
			t.Errorf("nothing is said of topic %s", name)
		}
	}
	if !strings.Contains(s.Output(), "the broker's answer is damaged") || strings.Contains(s.Output(), "were not read") {
		t.Errorf("%s flipped, and the log says:\n%s", where, s.Output())
	}
	events, ids := received(t, s)
	ids.Want(t, "drops", 3, n, true)
	for _, line := range in[:n] {
		want := decode(t, line)
		got := events[fmt.Sprint(want["event_id"])]
		delete(got, "ingest_time")
		delete(want, "ingest_time")
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("an event has changed:\n got %v\nwant %v", got, want)
		}
	}
	t.Logf("%d bits flipped (%s): %d events arrived once, as they were written", flips, where, n)
}
