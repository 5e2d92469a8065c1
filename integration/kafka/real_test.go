package kafka

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

const both = drops + `  - name: siem
    emitter: {address: "{receiver}", tls: {ca: "{ca}"}, rotate_every: 3s, retry_max: 2s}
`

// Kafka itself, 200 tenants, 8 partitions: everything arrives, once in drops,
// across two SIGTERMs, a kill -9, and a broker that is killed while it is read.
func TestAcceptRealKafka(t *testing.T) {
	n := harness.Events(t)
	k := servers.NewKafka(t)
	k.Topic(topic, 8)
	s := service(t, feed("mitigations", k.Addr, topic, ""))
	certs, receiver := servers.NewCerts(t), harness.FreePort(t)
	out := filepath.Join(s.Dir, "receiver.jsonl")
	rc := harness.Start(t, "datasync receive", "receive", "--listen", receiver, "--cert", certs.Cert, "--key", certs.Key, "--out", out)
	s.Tenants(200, strings.NewReplacer("{receiver}", receiver, "{ca}", certs.CA).Replace(both))
	s.Up(30 * time.Second)
	gen := harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(n/20), "--count", fmt.Sprint(n), "--tenants", "200",
		"--seed", "1", "--to", "kafka://"+k.Addr+"/"+topic+"?compression=zstd")
	harness.Pause(5 * time.Second)
	s.End(false) // SIGTERM
	s.Up(30 * time.Second)
	harness.Pause(4 * time.Second)
	s.End(true) // kill -9: the brokers hold its partitions for its session, 10 s
	s.Up(30 * time.Second)
	harness.Until(t, time.Minute, "reading after the kill", func() bool { return read(s) > int64(n/3) })
	s.End(false) // SIGTERM
	if code := gen.Wait(5 * time.Minute); code != 0 {
		t.Fatalf("generate exited with %d: %s", code, gen.Output())
	}
	s.Up(30 * time.Second)
	was := read(s)
	harness.Until(t, time.Minute, "reading", func() bool { return read(s) > was })
	k.Kill() // in the middle of it, where the machine is not too fast
	at := read(s)
	says(t, s, time.Minute, "nothing listens there: check that the broker runs")
	k.Up()
	l := s.Delivered(int64(n), 5*time.Minute)
	says(t, s, time.Minute, "all is well again")
	s.End(false)
	rc.Stop(30 * time.Second)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops").Want(t, "drops", 1, n, true)
	ids := harness.IDs{}
	ids.AddLines(t, out)
	repeats := ids.Want(t, "receiver", 1, n, false)
	if s.Peak > 500<<20 {
		t.Errorf("peak memory %d MB, the bound is 500", s.Peak>>20)
	}
	t.Logf("%d events (broker killed after %d): none missing, none twice in drops; %d lines repeated at the receiver; %.1f CPU s per million, peak %d MB",
		n, at, repeats, s.Used.Seconds()*1e6/float64(n), s.Peak>>20)
}

// The topic comes after the feed, and gets more partitions later: both are
// found without a restart.
func TestRealKafkaTopicComesAndGrows(t *testing.T) {
	k := servers.NewKafka(t)
	s := service(t, feed("mitigations", k.Addr, topic, ""))
	s.Tenants(20, drops)
	s.Up(30 * time.Second)
	says(t, s, time.Minute, "create the topic")
	k.Topic(topic, 1)
	p := client(t, k.Addr)
	in := lines(t, 1, 4000, 20)
	produce(t, p, topic, in[:2000])
	s.Delivered(2000, time.Minute)
	if _, err := kadm.NewClient(p).CreatePartitions(context.Background(), 2, topic); err != nil {
		t.Fatal(err)
	}
	says(t, s, time.Minute, "all is well again")
	p2 := client(t, k.Addr) // with fresh metadata
	produce(t, p2, topic, in[2000:])
	s.Delivered(4000, time.Minute)
	s.End(false)
	_, ids := received(t, s)
	ids.Want(t, "drops", 1, len(in), true)
	for _, line := range strings.Split(s.Output(), "\n") {
		if strings.Contains(line, `"level":"error"`) && !strings.Contains(line, "create the topic") && !strings.Contains(line, "all is well again") {
			t.Errorf("unexpected: %s", line)
		}
	}
}
