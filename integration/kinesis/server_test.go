package kinesis

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
)

// server is a kinesalite, and a client of it that shares nothing with the product.
type server struct {
	t    testing.TB
	addr string
	cmd  *exec.Cmd
	out  bytes.Buffer
}

func newServer(t testing.TB) *server {
	t.Helper()
	s := &server{t: t, addr: harness.FreePort(t)}
	s.up()
	t.Cleanup(s.down)
	return s
}

func (s *server) up() {
	s.t.Helper()
	_, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command("node", "../testbed/kinesalite.cjs", port)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start kinesalite (integration/testbed/kinesis.sh installs it): %v", err)
	}
	harness.Until(s.t, 30*time.Second, "kinesalite", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

// down ends it, with all that it holds.
func (s *server) down() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // gone already, at the worst
	_ = s.cmd.Wait()         // says that it was killed
	s.cmd = nil
	if s.t.Failed() {
		s.t.Logf("kinesalite said: %s", s.out.String())
	}
}

// call makes one API call.
func (s *server) call(target string, in map[string]any, out any) {
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
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s: %v: %s", target, resp.Status, err, answer)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(answer, out); err != nil {
		s.t.Fatalf("%s: %v: %s", target, err, answer)
	}
}

// create makes a stream and waits until it can be written to.
func (s *server) create(stream string, shards int) {
	s.t.Helper()
	s.call("CreateStream", map[string]any{"StreamName": stream, "ShardCount": shards}, nil)
	harness.Until(s.t, 20*time.Second, "stream "+stream, func() bool {
		var d struct{ StreamDescriptionSummary struct{ StreamStatus string } }
		s.call("DescribeStreamSummary", map[string]any{"StreamName": stream}, &d)
		return d.StreamDescriptionSummary.StreamStatus == "ACTIVE"
	})
}

// stored is a record of a stream.
type stored struct {
	Data           []byte
	PartitionKey   string
	SequenceNumber string
}

// read gives all records of a stream, shard by shard in order.
func (s *server) read(stream string) (out []stored) {
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
				Records           []stored
				NextShardIterator string
			}
			s.call("GetRecords", map[string]any{"ShardIterator": at.ShardIterator, "Limit": 10000}, &got)
			out = append(out, got.Records...)
			if at.ShardIterator = got.NextShardIterator; len(got.Records) == 0 {
				break
			}
		}
	}
	return out
}

// events unpacks records: each is an event, or an aggregated record of the KPL.
func events(t testing.TB, rs []stored) (out [][]byte) {
	t.Helper()
	for _, r := range rs {
		if !strings.HasPrefix(string(r.Data), "\xf3\x89\x9a\xc2") {
			out = append(out, r.Data)
			continue
		}
		body, sum := r.Data[4:len(r.Data)-16], r.Data[len(r.Data)-16:]
		if got := md5.Sum(body); !bytes.Equal(got[:], sum) {
			t.Fatalf("record %s: the checksum is wrong", r.SequenceNumber)
		}
		for n, v := range fields(t, body) {
			if n != 3 {
				continue
			}
			for _, rec := range v {
				for n, v := range fields(t, rec) {
					if n == 3 {
						out = append(out, v...)
					}
				}
			}
		}
	}
	return out
}

// fields reads a protobuf message: the values of each length-delimited field.
func fields(t testing.TB, b []byte) map[uint64][][]byte {
	t.Helper()
	out := map[uint64][][]byte{}
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			t.Fatal("no protobuf")
		}
		b = b[n:]
		return v
	}
	for len(b) > 0 {
		tag := next()
		switch v := next(); tag & 7 {
		case 0:
		case 2:
			if v > uint64(len(b)) {
				t.Fatal("a field is longer than its message")
			}
			out[tag>>3] = append(out[tag>>3], b[:v])
			b = b[v:]
		default:
			t.Fatalf("wire type %d", tag&7)
		}
	}
	return out
}

// ids counts the event ids of a stream's events.
func ids(t testing.TB, evs [][]byte) harness.IDs {
	t.Helper()
	out := harness.IDs{}
	for _, e := range evs {
		var ev struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal(e, &ev); err != nil || ev.ID == "" {
			t.Fatalf("no event: %.200q (%v)", e, err)
		}
		out[ev.ID]++
	}
	return out
}

// merge adds counts up.
func merge(all ...harness.IDs) harness.IDs {
	out := harness.IDs{}
	for _, ids := range all {
		for id, n := range ids {
			out[id] += n
		}
	}
	return out
}

// tenantOf is the name of the i-th tenant that generate makes events for.
func tenantOf(i int) string { return fmt.Sprintf("t%04d", i) }
