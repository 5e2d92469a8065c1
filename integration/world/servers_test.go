package world

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/integration/harness"
)

// absolute is a file's path from anywhere; a test without the file fails.
func absolute(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%s is missing (task readers brokers installs it): %v", name, err)
	}
	return path
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// opens waits until a server takes connections.
func opens(t *testing.T, p *harness.Process, addr string) *harness.Process {
	t.Helper()
	harness.Until(t, time.Minute, "open port of "+p.Name, func() bool {
		if !p.Running() {
			t.Fatalf("%s ended:\n%s", p.Name, p.Output())
		}
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return p
}

// kafka is Apache Kafka itself, one node.
type kafka struct {
	t    *testing.T
	dir  string
	addr string
	*harness.Process
}

// newKafka starts a broker with a topic.
func newKafka(t *testing.T, topic string, partitions int32) *kafka {
	t.Helper()
	k := &kafka{t: t, dir: t.TempDir()}
	for range 100 { // it takes the port that follows as well
		k.addr = harness.FreePort(t)
		next, err := strconv.Atoi(port(k.addr))
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", next+1)); err == nil {
			_ = l.Close() // only looked
			break
		}
	}
	k.up()
	c, err := kgo.NewClient(kgo.SeedBrokers(k.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	harness.Until(t, time.Minute, "topic", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		r, err := kadm.NewClient(c).CreateTopic(ctx, partitions, 1, nil, topic)
		return err == nil && r.Err == nil
	})
	return k
}

func (k *kafka) up() {
	k.t.Helper()
	k.Process = opens(k.t, harness.Launch(k.t, "Kafka", exec.Command("bash", "../testbed/kafka.sh", "run", k.dir, port(k.addr))), k.addr)
}

const accessKey, secretKey = "AKIAINTEGRATION", "not-so-secret-key"

// credentials puts the service's own into the environment of what the test starts.
func credentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
}

// newStore starts versitygw with a bucket, which is a folder.
func newStore(t *testing.T) (url, bucket string) {
	t.Helper()
	root, addr := t.TempDir(), harness.FreePort(t)
	bucket = filepath.Join(root, "lake")
	if err := os.Mkdir(bucket, 0o755); err != nil {
		t.Fatal(err)
	}
	opens(t, harness.Launch(t, "versitygw", exec.Command(absolute(t, "../.testbed/bin/versitygw"),
		"--access", accessKey, "--secret", secretKey, "--port", addr, "--quiet", "--keep-alive", "posix", root)), addr)
	return "http://" + addr, bucket
}

// streams is kinesalite.
type streams struct {
	t    *testing.T
	addr string
}

func newStreams(t *testing.T, names ...string) *streams {
	t.Helper()
	s := &streams{t: t, addr: harness.FreePort(t)}
	absolute(t, "../testbed/node_modules/kinesalite")
	opens(t, harness.Launch(t, "kinesalite", exec.Command("node", "--max-old-space-size=8192", "../testbed/kinesalite.cjs", port(s.addr))), s.addr)
	for _, name := range names {
		s.call("CreateStream", map[string]any{"StreamName": name, "ShardCount": 4}, nil)
		harness.Until(t, 20*time.Second, "stream "+name, func() bool {
			var d struct{ StreamDescriptionSummary struct{ StreamStatus string } }
			s.call("DescribeStreamSummary", map[string]any{"StreamName": name}, &d)
			return d.StreamDescriptionSummary.StreamStatus == "ACTIVE"
		})
	}
	return s
}

// call makes one API call, with nothing of the product's.
func (s *streams) call(target string, in map[string]any, out any) {
	s.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "Kinesis_20131202."+target)
	req.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=reader/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("%s: %v", target, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.300s", resp.Status, answer)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(answer, out)
	}
	if err != nil {
		s.t.Fatalf("%s: %v", target, err)
	}
}

// each calls with the data of every record of a stream.
func (s *streams) each(stream string, call func(data []byte)) {
	s.t.Helper()
	var d struct {
		StreamDescription struct{ Shards []struct{ ShardId string } }
	}
	s.call("DescribeStream", map[string]any{"StreamName": stream}, &d)
	for _, shard := range d.StreamDescription.Shards {
		var at struct{ ShardIterator string }
		s.call("GetShardIterator", map[string]any{"StreamName": stream, "ShardId": shard.ShardId, "ShardIteratorType": "TRIM_HORIZON"}, &at)
		for at.ShardIterator != "" {
			var got struct {
				Records           []struct{ Data []byte }
				NextShardIterator string
			}
			s.call("GetRecords", map[string]any{"ShardIterator": at.ShardIterator, "Limit": 10000}, &got)
			for _, r := range got.Records {
				call(r.Data)
			}
			if at.ShardIterator = got.NextShardIterator; len(got.Records) == 0 {
				break
			}
		}
	}
}

// receiver is a TLS receiver that asks for a client's certificate, and the
// file its lines end in.
type receiver struct {
	addr, out string
	*harness.Process
}

// rsyslog takes JSON lines.
func rsyslog(t *testing.T, c harness.Certs) *receiver {
	t.Helper()
	dir := t.TempDir()
	r := &receiver{addr: harness.FreePort(t), out: filepath.Join(dir, "rsyslog.log")}
	conf := write(t, filepath.Join(dir, "rsyslog.conf"), fmt.Sprintf(`global(workDirectory=%q maxMessageSize="1m" defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" maxSessions="1000" keepAlive="on" maxFrameSize="1000000")
template(name="json" type="string" string="%%rawmsg%%\n")
ruleset(name="lines" queue.type="Direct") {
  action(type="omfile" file=%q template="json" asyncWriting="off" flushOnTXEnd="on")
}
input(type="imtcp" address="127.0.0.1" port=%q ruleset="lines" name="lines"
  streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
`, dir, c.CA, c.Cert, c.Key, r.out, port(r.addr)))
	r.Process = opens(t, harness.Launch(t, "rsyslog", exec.Command("/usr/sbin/rsyslogd", "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))), r.addr)
	return r
}

// syslogNG takes octet-counted frames, no more than it can store.
func syslogNG(t *testing.T, c harness.Certs) *receiver {
	t.Helper()
	dir := t.TempDir()
	r := &receiver{addr: harness.FreePort(t), out: filepath.Join(dir, "syslog-ng.log")}
	conf := write(t, filepath.Join(dir, "syslog-ng.conf"), fmt.Sprintf(`@version: 3.38
options { stats-freq(0); log-msg-size(1048576); keep-hostname(yes); };
source s { syslog(ip("127.0.0.1") port(%s) transport("tls") max-connections(1000) log-iw-size(100000)
  tls(key-file(%q) cert-file(%q) ca-file(%q) peer-verify(required-trusted))); };
destination d { file(%q template("${ISODATE}|${PROGRAM}|${MSGID}|${MSG}\n")); };
log { source(s); destination(d); flags(flow-control); };
`, port(r.addr), c.Key, c.Cert, c.CA, r.out))
	bed := absolute(t, "../.testbed/syslog-ng")
	cmd := exec.Command(bed+"/usr/sbin/syslog-ng", "-F", "--no-caps", "--module-path="+bed+"/usr/lib/syslog-ng/3.38", "-f", conf,
		"-p", filepath.Join(dir, "pid"), "-R", filepath.Join(dir, "persist"), "-c", filepath.Join(dir, "ctl"))
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+bed+"/usr/lib/syslog-ng")
	r.Process = opens(t, harness.Launch(t, "syslog-ng", cmd), r.addr)
	return r
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
