package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/exporter/kinesis/kinesistest"
	"datasync/integration/harness"
	"datasync/integration/servers"
)

const topic = "mitigations"

// plan is what a run does.
type plan struct {
	seed        uint64        // of the faults; 0: of now
	lasts       time.Duration // faults come
	every       time.Duration // from fault to fault
	stretch     time.Duration // the service itself is ended in every other one only
	rate        float64       // events/s of all feeds; 0: share of what is measured
	share       float64
	tenants     int
	outstanding int           // events on the way at most, in any sink
	maxAge      time.Duration // of drops
	rotate      time.Duration // of emitters
	retain      time.Duration // of the journal
	journal     int64         // its cap, bytes
	fileSize    int64         // of the files that the file feed follows
	rest        bool          // in the end the service is looked at when it has nothing to do
}

// rig is the service with everything around it. The test's goroutine alone
// begins and ends faults.
type rig struct {
	t *testing.T
	plan
	*harness.Service
	rng      *rand.Rand
	began    time.Time
	broker   *servers.Kafka
	s3       *servers.Faulty // before the store
	bucket   string          // its folder
	streams  kinesistest.Account
	kinesis  *httptest.Server
	receiver *servers.Receive
	rsyslog  *servers.Receiver
	certs    servers.Certs // rsyslog's

	tally  *tally
	load   *load
	poster *poster
	files  *files
	gather *gatherer
	watch  *watcher
}

func newRig(t *testing.T, o plan) *rig {
	t.Helper()
	servers.Credentials(t)
	store := servers.NewStore(t, "lake")
	r := &rig{t: t, plan: o, rng: rand.New(rand.NewPCG(o.seed, 30)), began: time.Now(),
		Service: harness.NewService(t, ""), broker: servers.NewKafka(t), s3: servers.NewFaulty(t, store.URL(), o.seed),
		bucket: filepath.Join(store.Root, "lake"), receiver: servers.NewReceive(t), certs: servers.NewCerts(t), tally: newTally()}
	r.rsyslog = servers.NewRsyslog(t, r.certs, servers.Door{})
	r.topic()
	r.streams = kinesistest.Account{}
	for i, name := range []string{"plain", "packed"} {
		s := kinesistest.NewStream(name, 4, o.seed+uint64(i))
		s.Stored = func(rec kinesistest.Record) { r.tally.arriveAll(stream, rec.Data) }
		r.streams[name] = s
	}
	r.kinesis = httptest.NewServer(r.streams)
	t.Cleanup(func() { r.kinesis.CloseClientConnections(); r.kinesis.Close() })
	r.Write("datasync.yaml", fmt.Sprintf(`data_dir: %[1]s/data
journal: {retain: %[2]s, max_bytes: %[3]d}
feeds:
  - name: edge
    http: {listen: %[4]q}
    format: auto
  - name: files
    file: {path: "%[1]s/in/*.ndjson", follow: true}
    format: canonical
  - name: kafka
    kafka: {brokers: [%[5]q], topic: %[6]s, group: soak}
    format: canonical
tenants: %[1]s/tenants
admin: {listen: %[7]q}
`, r.Dir, o.retain, o.journal, r.Feed, r.broker.Addr, topic, r.Admin))
	for i := 1; i <= o.tenants; i++ {
		r.tenant(i, settings{})
	}
	r.sources()
	r.gather = newGatherer(r)
	r.watch = &watcher{r: r}
	return r
}

// topic makes the topic, of which old records go while the run lasts.
func (r *rig) topic() {
	r.t.Helper()
	r.broker.Topic(topic, 4)
	c, err := kadm.NewOptClient(kgo.SeedBrokers(r.broker.Addr))
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	set := func(name, value string) kadm.AlterConfig {
		return kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value}
	}
	answers, err := c.AlterTopicConfigs(ctx, []kadm.AlterConfig{set("retention.ms", "900000"), set("segment.bytes", "33554432")}, topic)
	if err == nil {
		_, err = answers.On(topic, func(a *kadm.AlterConfigsResponse) error { return a.Err })
	}
	if err != nil {
		r.t.Fatalf("settings of the topic: %v", err)
	}
}

// sources are the three feeds' own.
func (r *rig) sources() {
	r.t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(r.broker.Addr), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(c.Close)
	r.poster, r.files = newPoster(r.Feed), &files{dir: filepath.Join(r.Dir, "in"), limit: r.fileSize}
	intoTopic, spoilTopic := intoKafka(c)
	r.load = &load{t: r.t, tally: r.tally, most: r.outstanding, ended: make(chan struct{}), sources: []*source{
		{feed: "kafka", share: 0.5, pulse: 50 * time.Millisecond, put: intoTopic, spoil: spoilTopic},
		{feed: "edge", share: 0.25, pulse: 250 * time.Millisecond, put: r.poster.put, spoil: r.poster.spoil},
		{feed: "files", share: 0.25, pulse: 50 * time.Millisecond, put: r.files.put, spoil: r.files.spoil},
	}}
	for i, s := range r.load.sources {
		s.seed = r.seed%1_000_000*10 + uint64(i) + 1
		s.gen = newMaker(r.t, r.tenants, s.seed)
	}
}

// settings are what a fault changes of a tenant's file; the zero value is as
// all are.
type settings struct {
	without string // a sink that is left out
	other   bool   // other limits, compressions, rotations
	extra   bool   // one more sink
	invalid bool
}

// tenant writes the file of tenant i. Odd and even ones have each kind of sink
// at another kind of place.
func (r *rig) tenant(i int, s settings) {
	r.t.Helper()
	s3 := fmt.Sprintf("s3: {bucket: lake, region: us-east-1, endpoint: %q, path_style: true}", r.s3.URL)
	dir := fmt.Sprintf("dir: {path: %q}", filepath.Join(r.Dir, "drops"))
	values := []string{"{drops}", s3, "{lake}", dir, "{stream}", "packed", "{packed}", "true",
		"{siem}", r.receiver.In(`address: "{receiver}", tls: {ca: "{ca}"}`)}
	if i%2 == 0 {
		values = []string{"{drops}", dir, "{lake}", s3, "{stream}", "plain", "{packed}", "false",
			"{siem}", fmt.Sprintf("address: %q, tls: {ca: %q, cert: %q, key: %q}", r.rsyslog.Doors[0].Addr, r.certs.CA, r.certs.Cert, r.certs.Key)}
	}
	age, rotate, ndjson := r.maxAge, r.rotate, "gzip"
	if s.other {
		age, rotate, ndjson = age/2, rotate/2, "zstd"
	}
	values = append(values, "{age}", age.String(), "{rotate}", rotate.String(), "{gzip}", ndjson, "{kinesis}", r.kinesis.URL, "{dir}", r.Dir)
	sinks := []string{
		"  - name: drops\n    {drops}\n    compression: {gzip}\n    deliver: {max_age: {age}, max_events: 5000, manifest: true}\n",
		"  - name: lake\n    {lake}\n    format: parquet\n    deliver: {max_age: {age}, max_events: 10000}\n",
		"  - name: stream\n    kinesis: {stream: {stream}, region: eu-west-1, endpoint: \"{kinesis}\", partition_key: client_ip, aggregate: {packed}}\n",
		"  - name: siem\n    emitter: {{siem}, rotate_every: {rotate}, retry_max: 2s}\n",
	}
	text := fmt.Sprintf("tenant: t%04d\napi_keys: [key-of-t%04[1]d]\nsinks:\n", i)
	for k, sink := range sinks {
		if kindNames[k] != s.without {
			text += sink
		}
	}
	if s.extra {
		text += "  - name: extra\n    dir: {path: \"{dir}/extra\"}\n    compression: none\n    deliver: {max_age: 1s}\n"
	}
	if s.invalid {
		text += "  - nam: lake\n    s3: {bucket: 7}\n"
	}
	r.Write(fmt.Sprintf("tenants/t%04d.yaml", i), strings.NewReplacer(values...).Replace(text))
}

// say prints a line with the time of the run.
func (r *rig) say(format string, args ...any) {
	r.t.Logf("%7.1fs  %s", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}
