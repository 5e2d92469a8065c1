package servers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
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
