package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/readers"
	"datasync/integration/servers"
)

const (
	topic   = "mitigations"
	tenants = 200
)

// world is every server that one run of the service works with.
type world struct {
	kafka    *servers.Kafka
	store    *servers.Store
	bucket   string // its folder
	streams  *servers.Kinesalite
	rsyslog  *servers.Receiver
	syslogNG *servers.Receiver
	certs    servers.Certs
}

func newWorld(t *testing.T) *world {
	t.Helper()
	servers.Credentials(t)
	w := &world{certs: servers.NewCerts(t), kafka: servers.NewKafka(t), streams: servers.NewKinesalite(t), store: servers.NewStore(t)}
	w.kafka.Topic(topic, 8)
	w.bucket = w.store.Bucket("lake")
	w.streams.Stream("plain", 4)
	w.streams.Stream("packed", 4)
	w.rsyslog, w.syslogNG = servers.NewRsyslog(t, w.certs, servers.Door{}), servers.NewSyslogNG(t, w.certs, servers.Door{Octet: true})
	return w
}

// service configures all tenants; odd ones emit to rsyslog, even ones to syslog-ng.
func (w *world) service(t *testing.T) *harness.Service {
	t.Helper()
	s := harness.NewService(t, "")
	s.Write("datasync.yaml", fmt.Sprintf(`data_dir: %[1]s/data
feeds:
  - name: mitigations
    kafka: {brokers: [%[2]q], topic: %[3]s, group: world}
    format: canonical
tenants: %[1]s/tenants
admin: {listen: %[4]q}
`, s.Dir, w.kafka.Addr, topic, s.Admin))
	for i := 1; i <= tenants; i++ {
		to := w.rsyslog.Doors[0]
		if i%2 == 0 {
			to = w.syslogNG.Doors[0]
		}
		s.Write(fmt.Sprintf("tenants/t%04d.yaml", i), fmt.Sprintf(`tenant: t%04d
sinks:
  - name: lake
    s3: {bucket: lake, region: us-east-1, endpoint: %[2]q, path_style: true}
    format: parquet
    deliver: {schedule: "* * * * *"}
  - name: drops
    s3: {bucket: lake, prefix: raw, region: us-east-1, endpoint: %[2]q, path_style: true}
    deliver: {max_bytes: 256KiB, max_age: 5s}
  - name: packed
    kinesis: {stream: packed, region: eu-west-1, endpoint: %[3]q, partition_key: client_ip, aggregate: true}
  - name: plain
    kinesis: {stream: plain, region: eu-west-1, endpoint: %[3]q, partition_key: client_ip}
  - name: siem
    emitter: {address: %[4]q, framing: %[5]s, tls: {ca: %[6]q, cert: %[7]q, key: %[8]q}, rotate_every: 3s, retry_max: 2s}
`, i, w.store.URL(), w.streams.URL(), to.Addr, to.Framing(), w.certs.CA, w.certs.Cert, w.certs.Key))
	}
	return s
}

// TestAcceptWorld: half of the events lie in Kafka, the others come while the
// service is stopped twice, killed, and loses its broker; every sink has
// exactly what it should have in the end, those in S3 once.
func TestAcceptWorld(t *testing.T) {
	n := harness.Events(t)
	w := newWorld(t)
	s := w.service(t)
	made := harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n/2), "--tenants", fmt.Sprint(tenants), "--seed", "1", "--to", w.to())
	t.Logf("generate: %s", strings.TrimSpace(made))
	began := time.Now()
	s.Up(time.Minute)
	gen := harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(n/100), "--count", fmt.Sprint(n-n/2), "--tenants", fmt.Sprint(tenants),
		"--seed", "2", "--to", w.to())
	harness.Pause(6 * time.Second)
	s.End(false) // SIGTERM
	s.Up(time.Minute)
	harness.Pause(4 * time.Second)
	at := read(t, s)
	s.End(true) // kill -9: the broker holds its partitions for its session, 10 s
	s.Up(time.Minute)
	harness.Until(t, 5*time.Minute, "reading after the kill", func() bool { return read(t, s) > max(at, int64(n/2)) })
	at = read(t, s)
	s.End(false) // SIGTERM
	if code := gen.Wait(5 * time.Minute); code != 0 {
		t.Fatalf("generate exited with %d: %s", code, gen.Output())
	}
	s.Up(time.Minute)
	harness.Until(t, time.Minute, "reading", func() bool { return read(t, s) > at })
	w.kafka.Kill() // in the middle of it, where the machine is not too fast
	at = read(t, s)
	says(t, s, "nothing listens there: check that the broker runs")
	w.kafka.Up()
	l := s.Delivered(int64(n), 20*time.Minute)
	took := time.Since(began)
	says(t, s, "all is well again")
	s.End(false)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l.Feeds)
	}
	w.check(t, n)
	if s.Peak > 500<<20 {
		t.Errorf("peak memory %d MB, the bound is 500", s.Peak>>20)
	}
	t.Logf("%d events (broker killed after %d) for %d tenants to their sinks of five kinds in %.0f s with all stops: %.0f events/s, %.1f CPU s per million events, peak memory %d MB",
		n, at, tenants, took.Seconds(), float64(n)/took.Seconds(), s.Used.Seconds()*1e6/float64(n), s.Peak>>20)
}

// to is where generate writes.
func (w *world) to() string { return "kafka://" + w.kafka.Addr + "/" + topic + "?compression=zstd" }

// read is how many events the feed took; 0 where the service does not answer.
func read(t *testing.T, s *harness.Service) (n int64) {
	t.Helper()
	l, _ := s.Ledger()
	for _, f := range l.Feeds {
		n += f.Read
	}
	return n
}

func says(t *testing.T, s *harness.Service, what string) {
	t.Helper()
	harness.Until(t, time.Minute, fmt.Sprintf("%q in the log", what), func() bool { return strings.Contains(s.Output(), what) })
}

// check holds what every server has to what was made for the tenants it serves.
func (w *world) check(t *testing.T, n int) {
	t.Helper()
	truth := readers.NewTruth(t, readers.Options{Retimed: true})
	of := owners(t, n, truth)
	all := func(int) bool { return true }
	harness.Drops(t, w.bucket, "drops") // their numbers
	harness.Drops(t, w.bucket, "lake")
	want(t, "NDJSON in S3", readers.Check(t, truth, w.bucket, "drops"), of, all, true)
	want(t, "Parquet in S3", readers.Check(t, truth, w.bucket, "lake"), of, all, true)
	records, ids := w.streams.IDs("plain")
	want(t, fmt.Sprintf("plain Kinesis (%d records)", records), ids, of, all, false)
	records, ids = w.streams.IDs("packed")
	want(t, fmt.Sprintf("aggregated Kinesis (%d records)", records), ids, of, all, false)
	w.rsyslog.Stop(30 * time.Second)
	w.syslogNG.Stop(30 * time.Second)
	want(t, "rsyslog", arrived(t, w.rsyslog.Doors[0].Out), of, func(i int) bool { return i%2 == 1 }, false)
	want(t, "syslog-ng", arrived(t, w.syslogNG.Doors[0].Out), of, func(i int) bool { return i%2 == 0 }, false)
}

// eventID is the first id in b, and what follows it.
func eventID(b []byte) (id string, rest []byte, ok bool) {
	_, rest, ok = bytes.Cut(b, []byte(`"event_id":"`))
	raw, rest, end := bytes.Cut(rest, []byte(`"`))
	return string(raw), rest, ok && end
}

// arrived counts the ids in a receiver's file. The kill may have torn a line
// on each of the service's connections.
func arrived(t *testing.T, path string) harness.IDs {
	t.Helper()
	ids, torn := harness.IDs{}, 0
	harness.EachLine(t, path, func(line []byte) {
		id, _, _ := eventID(line)
		if at := bytes.IndexByte(line, '{'); at < 0 || !json.Valid(line[at:]) {
			torn++
			return
		}
		ids[id]++
	})
	if torn > 0 {
		t.Logf("%s: %d lines torn by the kill", filepath.Base(path), torn)
	}
	if torn > tenants/2 {
		t.Errorf("%s: %d lines are not whole", filepath.Base(path), torn)
	}
	return ids
}

// owners generates the same events once more, at another time: by id, the
// number of the tenant, and what readers are to find of each.
func owners(t *testing.T, n int, truth *readers.Truth) map[string]int {
	t.Helper()
	of := make(map[string]int, n)
	for seed, count := range map[int]int{1: n / 2, 2: n - n/2} {
		path := filepath.Join(t.TempDir(), "events.ndjson")
		harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(count), "--tenants", fmt.Sprint(tenants), "--seed", fmt.Sprint(seed), "--to", path)
		truth.AddFile(path)
		harness.EachLine(t, path, func(line []byte) {
			var e struct {
				ID     string `json:"event_id"`
				Tenant string `json:"tenant_id"`
			}
			var i int
			err := json.Unmarshal(line, &e)
			if err == nil {
				_, err = fmt.Sscanf(e.Tenant, "t%d", &i)
			}
			if err != nil {
				t.Fatalf("%.200q: %v", line, err)
			}
			of[e.ID] = i
		})
	}
	if len(of) != n {
		t.Fatalf("%d ids were made, want %d", len(of), n)
	}
	return of
}

// want holds ids to those of the tenants that a sink serves.
func want(t *testing.T, where string, ids harness.IDs, of map[string]int, serves func(tenant int) bool, once bool) {
	t.Helper()
	should, missing, foreign, repeats := 0, 0, 0, 0
	for id, tenant := range of {
		if serves(tenant) {
			should++
			if ids[id] == 0 {
				missing++
			}
		}
	}
	for id, k := range ids {
		repeats += k - 1
		if tenant, ok := of[id]; !ok || !serves(tenant) {
			foreign++
		}
	}
	t.Logf("%s: %d events; %d missing, %d foreign, %d came again", where, should, missing, foreign, repeats)
	if should == 0 || missing > 0 || foreign > 0 || once && repeats > 0 {
		t.Errorf("%s does not have what it should have", where)
	}
}
