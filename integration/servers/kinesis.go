package servers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
)

// Kinesalite is a Kinesis in memory, and a client of it that shares nothing
// with the product. It asks for a signature and checks none.
type Kinesalite struct {
	t    testing.TB
	Addr string
	*harness.Process
}

// NewKinesalite starts one without streams. It holds a million events, which
// Node would refuse by itself.
func NewKinesalite(t testing.TB) *Kinesalite {
	t.Helper()
	Installed(t, "testbed/node_modules/kinesalite", "streams")
	k := &Kinesalite{t: t, Addr: harness.FreePort(t)}
	k.Process = launch(t, "kinesalite", exec.Command("node", "--max-old-space-size=8192", "../testbed/kinesalite.cjs", port(t, k.Addr)), k.Addr)
	return k
}

// URL is the endpoint of a sink.
func (k *Kinesalite) URL() string { return "http://" + k.Addr }

// Stream makes a stream and waits until it can be written to.
func (k *Kinesalite) Stream(name string, shards int) {
	k.t.Helper()
	k.call("CreateStream", map[string]any{"StreamName": name, "ShardCount": shards}, nil)
	harness.Until(k.t, 20*time.Second, "stream "+name, func() bool {
		var d struct{ StreamDescriptionSummary struct{ StreamStatus string } }
		k.call("DescribeStreamSummary", map[string]any{"StreamName": name}, &d)
		return d.StreamDescriptionSummary.StreamStatus == "ACTIVE"
	})
}

// Record is a record of a stream.
type Record struct {
	Data           []byte
	PartitionKey   string
	SequenceNumber string
}

// Each calls with every record of a stream, shard by shard in order.
func (k *Kinesalite) Each(stream string, call func(Record)) {
	k.t.Helper()
	var d struct {
		StreamDescription struct{ Shards []struct{ ShardId string } }
	}
	k.call("DescribeStream", map[string]any{"StreamName": stream}, &d)
	for _, shard := range d.StreamDescription.Shards {
		var at struct{ ShardIterator string }
		k.call("GetShardIterator", map[string]any{"StreamName": stream, "ShardId": shard.ShardId, "ShardIteratorType": "TRIM_HORIZON"}, &at)
		for at.ShardIterator != "" {
			var got struct {
				Records           []Record
				NextShardIterator string
			}
			k.call("GetRecords", map[string]any{"ShardIterator": at.ShardIterator, "Limit": 10000}, &got)
			for _, r := range got.Records {
				call(r)
			}
			if at.ShardIterator = got.NextShardIterator; len(got.Records) == 0 {
				break
			}
		}
	}
}

// IDs counts a stream's records and the ids of the events in them; an
// aggregated record holds its events as they are.
func (k *Kinesalite) IDs(stream string) (records int, ids harness.IDs) {
	k.t.Helper()
	ids = harness.IDs{}
	k.Each(stream, func(r Record) {
		records++
		ids.AddEvents(r.Data)
	})
	return records, ids
}

// call makes one API call.
func (k *Kinesalite) call(target string, in map[string]any, out any) {
	k.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		k.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, k.URL()+"/", bytes.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "Kinesis_20131202."+target)
	req.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=reader/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		k.t.Fatalf("%s: %v", target, err)
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
		k.t.Fatalf("%s: %v", target, err)
	}
}

// UserRecord is what the Kinesis Client Library hands to an application: an
// event, whether it came alone or in an aggregated record.
type UserRecord struct {
	Stream, Shard string
	Sequence      string // of the Kinesis record
	Sub           string // of the event in it
	Key           string
	Data          []byte
}

// KCL is a program on the Kinesis Client Library (testbed/kcl/Consumer.java)
// that reads streams of kinesalite from their beginning, with its leases in a
// dynalite of its own.
type KCL struct {
	// Versions are the library's and dynalite's.
	Versions string

	t     testing.TB
	cmd   *exec.Cmd
	stdin io.Closer
	errs  bytes.Buffer
	done  chan struct{} // all that it printed was taken in

	mu    sync.Mutex
	read  int    // records
	other string // what it printed that is no record
	ended string // how many records it says that it read
}

// KCL starts a reader of streams. each is called for every record, one at a
// time; the order is the library's: that of the stream within a shard.
func (k *Kinesalite) KCL(streams []string, each func(UserRecord)) *KCL {
	t := k.t
	t.Helper()
	Installed(t, "testbed/node_modules/dynalite", "streams")
	Installed(t, ".testbed/kcl/classes/Consumer.class", "consumers")
	leases := harness.FreePort(t)
	launch(t, "dynalite", exec.Command("node", "../testbed/dynalite.cjs", port(t, leases)), leases)
	args := append([]string{"run", k.URL(), "http://" + leases}, streams...)
	c := &KCL{t: t, cmd: exec.Command("../testbed/kcl.sh", args...), done: make(chan struct{})}
	c.cmd.Stderr = &c.errs
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("start the KCL: %v", err)
	}
	lines := bufio.NewReaderSize(out, 1<<20)
	first, err := lines.ReadString('\n')
	version, ok := strings.CutPrefix(first, "kcl\t")
	go func() { defer close(c.done); c.take(lines, each) }()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // gone already, at the worst
		<-c.done
		_ = c.cmd.Wait() // says that it was killed, or that it was waited for
		if t.Failed() {
			t.Logf("the KCL said first: %.8000s", c.errs.String())
		}
	})
	if err != nil || !ok {
		t.Fatalf("the KCL did not begin: %q (%v)", first, err)
	}
	c.Versions = fmt.Sprintf("KCL %s, dynalite %s", strings.TrimSpace(version), NPMVersion(t, "dynalite"))
	return c
}

// take takes in what it prints.
func (c *KCL) take(out io.Reader, each func(UserRecord)) {
	sc := bufio.NewScanner(out)
	sc.Buffer(make([]byte, 256<<10), 4<<20)
	for sc.Scan() {
		f := strings.SplitN(sc.Text(), "\t", 7)
		c.mu.Lock()
		switch {
		case f[0] == "record" && len(f) == 7:
			c.read++
			each(UserRecord{Stream: f[1], Shard: f[2], Sequence: f[3], Sub: f[4], Key: f[5], Data: []byte(f[6])})
		case f[0] == "end" && len(f) == 2:
			c.ended = f[1]
		case c.other == "":
			c.other = fmt.Sprintf("%.200q", sc.Text())
		}
		c.mu.Unlock()
	}
	if err := sc.Err(); err != nil {
		c.mu.Lock()
		c.other = err.Error()
		c.mu.Unlock()
	}
}

// Until waits until ok, which is called between two records, or until limit.
func (c *KCL) Until(limit time.Duration, what string, ok func() bool) {
	c.t.Helper()
	harness.Until(c.t, limit, what, func() bool {
		select {
		case <-c.done:
			c.t.Fatal("the KCL ended by itself")
		default:
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.other != "" {
			c.t.Fatalf("the KCL printed %s", c.other)
		}
		return ok()
	})
}

// Stop ends it in an orderly way: it notes in its leases how far it read, and
// says how many records that were.
func (c *KCL) Stop() {
	c.t.Helper()
	if err := c.stdin.Close(); err != nil {
		c.t.Fatal(err)
	}
	select {
	case <-c.done:
	case <-time.After(2 * time.Minute):
		c.t.Fatal("the KCL did not stop within 2 minutes")
	}
	if err := c.cmd.Wait(); err != nil {
		c.t.Fatalf("the KCL ended with %v", err)
	}
	if c.other != "" || c.ended != fmt.Sprint(c.read) {
		c.t.Fatalf("the KCL says that it read %s records, and %d arrived; not understood: %s", c.ended, c.read, c.other)
	}
}

// NPMVersion is the version of a package that task streams installed.
func NPMVersion(t testing.TB, name string) string {
	t.Helper()
	raw, err := os.ReadFile(Installed(t, "testbed/node_modules/"+name+"/package.json", "streams"))
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Version string }
	if err := json.Unmarshal(raw, &p); err != nil {
		t.Fatal(err)
	}
	return p.Version
}
