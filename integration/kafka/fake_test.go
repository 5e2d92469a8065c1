package kafka

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

func gunzip(t *testing.T, r io.Reader) io.Reader {
	t.Helper()
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// Every codec, by two makers of producers, batch next to batch in the same partitions.
func TestCodecs(t *testing.T) {
	c := fake(t, kfake.SeedTopics(4, topic))
	broker := c.ListenAddrs()[0]
	s := service(t, feed("mitigations", broker, topic, ""))
	s.Tenants(20, drops)
	s.Up(30 * time.Second)
	seed, n := 0, 3000
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		seed++
		harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "20", "--seed", fmt.Sprint(seed),
			"--to", "kafka://"+broker+"/"+topic+"?compression="+codec)
	}
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		seed++
		produce(t, client(t, broker, kgo.ProducerBatchCompression(codec)), topic, lines(t, seed, n, 20))
	}
	l := s.Delivered(int64(seed*n), time.Minute)
	s.End(false)
	if !l.Balanced || l.Feeds[0].Accepted != int64(seed*n) {
		t.Errorf("ledger %+v", l.Feeds)
	}
	_, ids := received(t, s)
	for sd := 1; sd <= seed; sd++ {
		for i := 1; i <= n; i++ {
			if id := fmt.Sprintf("gen-%d-%d", sd, i); ids[id] != 1 {
				t.Fatalf("%s is there %d times", id, ids[id])
			}
		}
	}
}

// Reading begins at the oldest record, and goes on after a stop and a kill
// where the journal stands; ingest_time is the record's timestamp.
func TestGoesOnAfterStopAndKill(t *testing.T) {
	c := fake(t, kfake.SeedTopics(3, topic))
	broker := c.ListenAddrs()[0]
	p := client(t, broker)
	in := lines(t, 1, 30_000, 20)
	produce(t, p, topic, in[:10_000])
	s := service(t, feed("mitigations", broker, topic, ""))
	s.Tenants(20, drops)
	s.Up(30 * time.Second)
	produce(t, p, topic, in[10_000:15_000])
	s.End(false)
	produce(t, p, topic, in[15_000:20_000])
	s.Up(30 * time.Second)
	harness.Until(t, time.Minute, "the beginning of the rest", func() bool { return read(s) > 0 })
	s.End(true)
	before := time.Now().UnixMilli()
	produce(t, p, topic, in[20_000:])
	harness.Pause(1500 * time.Millisecond)
	up := time.Now().UnixMilli()
	s.Up(30 * time.Second)
	s.Delivered(int64(len(in)), 2*time.Minute)
	s.End(false)
	events, ids := received(t, s)
	ids.Want(t, "drops", 1, len(in), true)
	if at := events["gen-1-30000"]["ingest_time"].(float64); at < float64(before) || at >= float64(up) {
		t.Errorf("ingest_time %v is not the record's timestamp, between %d and %d", at, before, up)
	}
	offsets, err := kadm.NewClient(p).FetchOffsets(context.Background(), "mitigations")
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	offsets.Each(func(o kadm.OffsetResponse) { sum += o.At })
	if sum != int64(len(in)) {
		t.Errorf("offsets committed at the stop add up to %d, want %d", sum, len(in))
	}
}

// TLS with a wrong authority and a login that the broker does not know yet:
// each is told once with a hint, and over without a restart once mended.
func TestTLSAndLogins(t *testing.T) {
	certs, other := servers.NewCerts(t), servers.NewCerts(t)
	pair, err := tls.LoadX509KeyPair(certs.Cert, certs.Key)
	if err != nil {
		t.Fatal(err)
	}
	c := fake(t, kfake.SeedTopics(2, "plain", "scram256", "scram512", "late"), kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}),
		kfake.EnableSASL(), kfake.Superuser("PLAIN", "p", "pw-p"), kfake.Superuser("SCRAM-SHA-256", "s2", "pw-2"), kfake.Superuser("SCRAM-SHA-512", "s5", "pw-5"))
	broker := c.ListenAddrs()[0]
	login := func(mechanism, user, password string) string {
		return fmt.Sprintf(", tls: {ca: %s}, sasl: {mechanism: %s, username: %s, password: %s}", certs.CA, mechanism, user, password)
	}
	s := service(t, feed("f1", broker, "plain", login("plain", "p", "pw-p")), feed("f2", broker, "scram256", login("scram-sha-256", "s2", "pw-2")),
		feed("f3", broker, "scram512", login("scram-sha-512", "s5", "pw-5")), feed("f4", broker, "late", login("scram-sha-256", "late", "pw-late")))
	s.Tenants(5, drops)
	right := rename(t, certs.CA, other.CA)
	p := client(t, broker, kgo.DialTLSConfig(&tls.Config{InsecureSkipVerify: true}), kgo.SASL(scram.Auth{User: "s2", Pass: "pw-2"}.AsSha256Mechanism()))
	in := lines(t, 1, 4000, 5)
	for i, to := range []string{"plain", "scram256", "scram512", "late"} {
		produce(t, p, to, in[i*1000:(i+1)*1000])
	}
	s.Up(30 * time.Second)
	says(t, s, 20*time.Second, "set tls.ca to the authority that signed the broker's certificate")
	if n := read(s); n != 0 {
		t.Fatalf("%d events through a connection that cannot be trusted", n)
	}
	right()
	s.Delivered(3000, time.Minute)
	says(t, s, 20*time.Second, "check sasl.username and sasl.password")
	_, err = kadm.NewClient(p).AlterUserSCRAMs(context.Background(), nil, []kadm.UpsertSCRAM{{User: "late", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "pw-late"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Delivered(4000, time.Minute)
	says(t, s, 20*time.Second, "topic late: all is well again")
	if out := s.Output(); strings.Contains(out, "pw-") {
		t.Errorf("a password is in the log:\n%s", out)
	}
	s.End(false)
	_, ids := received(t, s)
	ids.Want(t, "drops", 1, len(in), true)
}

// rename puts the content of another file into path until the function is called.
func rename(t *testing.T, path, other string) (back func()) {
	t.Helper()
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(wrong)
	return func() { write(was) }
}

// What retention took before we came is no gap; what it takes while we are
// away is, named to the offset, in the log, the metrics and the journal.
func TestDeletedRecordsAreNamed(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, topic))
	broker := c.ListenAddrs()[0]
	p := client(t, broker)
	adm := kadm.NewClient(p)
	deleteTo := func(offset int64) {
		t.Helper()
		r, err := adm.DeleteRecords(context.Background(), kadm.Offsets{topic: {0: {Topic: topic, Partition: 0, At: offset}}})
		if err == nil {
			err = r.Error()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	in := lines(t, 1, 5000, 5)
	produce(t, p, topic, in[:2000])
	deleteTo(500)
	s := service(t, feed("mitigations", broker, topic, ""))
	s.Tenants(5, drops)
	s.Up(30 * time.Second)
	s.Delivered(1500, time.Minute)
	s.End(false)
	if strings.Contains(s.Output(), "kafka-gap") {
		t.Errorf("a gap before the beginning:\n%s", s.Output())
	}
	produce(t, p, topic, in[2000:4000])
	deleteTo(3210)
	s.Up(30 * time.Second)
	produce(t, p, topic, in[4000:])
	s.Delivered(1500+1790, time.Minute)
	says(t, s, 10*time.Second, "offsets 2000 to 3209 (1210) of topic mitigations partition 0 were not read: they were deleted")
	s.End(false)
	_, ids := received(t, s)
	for i := 1; i <= len(in); i++ {
		want := 1
		if i <= 500 || i > 2000 && i <= 3210 {
			want = 0
		}
		if id := fmt.Sprintf("gen-1-%d", i); ids[id] != want {
			t.Fatalf("%s is there %d times, want %d", id, ids[id], want)
		}
	}
	s.Up(30 * time.Second) // and it is told once
	produce(t, p, topic, lines(t, 2, 10, 5))
	s.Delivered(1500+1790+10, time.Minute)
	s.End(false)
	if strings.Contains(s.Output(), "were not read") {
		t.Errorf("told again:\n%s", s.Output())
	}
}

// Transactions: what was aborted is not exported, markers are no gap.
func TestTransactions(t *testing.T) {
	c := fake(t, kfake.SeedTopics(1, topic))
	broker := c.ListenAddrs()[0]
	s := service(t, feed("mitigations", broker, topic, ""))
	s.Tenants(5, drops)
	s.Up(30 * time.Second)
	p := client(t, broker, kgo.TransactionalID("tx"))
	in := lines(t, 1, 4000, 5)
	for i := range 8 {
		if err := p.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		produce(t, p, topic, in[i*500:(i+1)*500])
		if err := p.EndTransaction(context.Background(), kgo.TransactionEndTry(i%3 != 1)); err != nil {
			t.Fatal(err)
		}
	}
	s.Delivered(2500, time.Minute)
	s.End(false)
	_, ids := received(t, s)
	for i := 1; i <= len(in); i++ {
		want := 1
		if (i-1)/500%3 == 1 {
			want = 0
		}
		if id := fmt.Sprintf("gen-1-%d", i); ids[id] != want {
			t.Fatalf("%s is there %d times, want %d", id, ids[id], want)
		}
	}
	if out := s.Output(); strings.Contains(out, "kafka") {
		t.Errorf("something was wrong:\n%s", out)
	}
}

// A bit flipped on the wire reaches no sink, wherever in a fetch it flips.
func TestFlippedBitsReachNoSink(t *testing.T) {
	flips := &flipper{every: 3}
	c := fake(t, kfake.SeedTopics(2, topic), kfake.ListenFn(flips.listen))
	broker := c.ListenAddrs()[0]
	p := client(t, broker, kgo.ProducerBatchCompression(kgo.NoCompression()))
	in := lines(t, 1, 30_000, 5)
	produce(t, p, topic, in)
	s := service(t, feed("mitigations", broker, topic, ""))
	s.Tenants(5, drops)
	s.Up(30 * time.Second)
	s.Delivered(int64(len(in)), 4*time.Minute)
	s.End(false)
	if flips.count() < 4 || !strings.Contains(s.Output(), "the broker's answer is damaged") {
		t.Errorf("%d bits were flipped, and the log says:\n%s", flips.count(), s.Output())
	}
	events, ids := received(t, s)
	ids.Want(t, "drops", 1, len(in), true)
	for _, line := range in {
		want := decode(t, line)
		got := events[fmt.Sprint(want["event_id"])]
		delete(got, "ingest_time")
		delete(want, "ingest_time")
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("an event has changed:\n got %v\nwant %v", got, want)
		}
	}
	t.Logf("%d bits flipped, %d events all right", flips.count(), len(events))
}
