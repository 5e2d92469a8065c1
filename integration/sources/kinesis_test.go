package sources

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// stream is what a test does at a kinesalite.
type stream struct {
	t    *testing.T
	url  string
	name string
}

// call makes one API call; kinesalite checks no signature.
func (s *stream) call(target string, in map[string]any, out any) {
	s.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "Kinesis_20131202."+target)
	req.Header.Set("X-Amz-Date", time.Now().UTC().Format("20060102T150405Z"))
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=w/20260101/us-east-1/kinesis/aws4_request, SignedHeaders=host, Signature=0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && out != nil {
		err = json.Unmarshal(answer, out)
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s %v: %.300s", target, resp.Status, err, answer)
	}
}

// put puts lines, one a record, each under a key of its own.
func (s *stream) put(lines []byte) {
	s.t.Helper()
	all := bytes.Split(bytes.TrimSpace(lines), []byte("\n"))
	for part := range slices.Chunk(all, 500) {
		var recs []map[string]any
		for i, l := range part {
			recs = append(recs, map[string]any{"Data": base64.StdEncoding.EncodeToString(l), "PartitionKey": fmt.Sprint(i)})
		}
		var out struct{ FailedRecordCount int }
		if s.call("PutRecords", map[string]any{"StreamName": s.name, "Records": recs}, &out); out.FailedRecordCount > 0 {
			s.t.Fatalf("%d of %d records were not put", out.FailedRecordCount, len(recs))
		}
	}
}

type shardOf struct {
	ShardId, ParentShardId string
	HashKeyRange           struct{ StartingHashKey, EndingHashKey string }
	SequenceNumberRange    struct{ EndingSequenceNumber string }
}

// open are the shards that take records, by where they begin.
func (s *stream) open() (out []shardOf) {
	s.t.Helper()
	harness.Until(s.t, time.Minute, "an active stream", func() bool {
		var d struct {
			StreamDescription struct {
				StreamStatus string
				Shards       []shardOf
			}
		}
		s.call("DescribeStream", map[string]any{"StreamName": s.name}, &d)
		out = slices.DeleteFunc(d.StreamDescription.Shards, func(sh shardOf) bool { return sh.SequenceNumberRange.EndingSequenceNumber != "" })
		return d.StreamDescription.StreamStatus == "ACTIVE"
	})
	slices.SortFunc(out, func(a, b shardOf) int {
		return strings.Compare(fmt.Sprintf("%040s", a.HashKeyRange.StartingHashKey), fmt.Sprintf("%040s", b.HashKeyRange.StartingHashKey))
	})
	return out
}

// reshard splits the first shard, or merges the first two.
func (s *stream) reshard(merge bool) {
	s.t.Helper()
	shards := s.open()
	if merge {
		s.call("MergeShards", map[string]any{"StreamName": s.name, "ShardToMerge": shards[0].ShardId, "AdjacentShardToMerge": shards[1].ShardId}, nil)
	} else {
		s.call("SplitShard", map[string]any{"StreamName": s.name, "ShardToSplit": shards[0].ShardId, "NewStartingHashKey": "1234567890123456789"}, nil)
	}
	s.open()
}

// TestFaultKinesisFeed: kinesalite; records put plain and by our own sink,
// packed as the KPL does; shards split and merged, the service killed -9 and stopped
// on the way. In drops each event is once.
func TestFaultKinesisFeed(t *testing.T) {
	const plain, packed, n = 41, 42, 4000
	servers.Credentials(t)
	k := servers.NewKinesalite(t)
	in := &stream{t, k.URL(), "in"}
	k.Stream("in", 2)
	k.Stream("packed", 2)
	feed := func(name, stream string) string {
		return fmt.Sprintf("  - name: %s\n    kinesis: {stream: %s, region: us-east-1, endpoint: %q, tenant: t0001}\n    format: canonical", name, stream, k.URL())
	}
	// What the second stream holds is put by another instance's sink.
	from := harness.NewService(t, "")
	from.Tenants(1, fmt.Sprintf("  - name: stream\n    kinesis: {stream: packed, region: us-east-1, endpoint: %q, aggregate: true}\n", k.URL()))
	from.Up(30 * time.Second)
	if err := os.WriteFile(filepath.Join(from.Dir, "in", "a.ndjson"), events(t, packed, n, 1), 0o600); err != nil {
		t.Fatal(err)
	}

	s := service(t, feed("plain", "in"), feed("packed", "packed"))
	s.Tenants(1, drops)
	s.Up(30 * time.Second)
	all := events(t, plain, n, 1)
	const parts = 4
	for i := range parts {
		in.put(all[cut(all, i, parts):cut(all, i+1, parts)])
		before, _ := taken(s, "plain")
		harness.Until(t, time.Minute, "records that are read", func() bool { now, _ := taken(s, "plain"); return now > before || now >= int64(n*(i+1)/parts)-10 })
		s.End(i%2 == 0) // kill -9, stop, kill -9, stop
		in.reshard(i%2 == 1)
		s.Up(30 * time.Second)
	}
	from.Delivered(n, time.Minute)
	from.End(false)
	s.Delivered(2*n, time.Minute)
	balanced(t, s)
	s.End(false)
	ids := harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops")
	ids.Of(plain).Want(t, "drops of the plain stream", plain, n, true)
	repeats := ids.Of(packed).Want(t, "drops of the packed stream", packed, n, false)
	if repeats > 0 {
		t.Errorf("%d packed events came twice, and the sink was not disturbed", repeats)
	}
	t.Logf("kinesalite, %d events plain and %d packed, two kills, two stops, two splits, two merges: lost 0, repeated 0", n, n)
}

// TestKinesisFeedNetacea: arrays of logs as Netacea's plugins put them.
func TestKinesisFeedNetacea(t *testing.T) {
	servers.Credentials(t)
	k := servers.NewKinesalite(t)
	in := &stream{t, k.URL(), "netacea"}
	k.Stream("netacea", 1)
	log := `{"Request":"GET /p HTTP/1.1","TimeUnixMsUTC":%d,"RealIp":"203.0.113.7","UserAgent":"curl","Status":"403","IntegrationType":"nginx","apiKey":"secret-key-7","NetaceaMitigationApplied":"ip_blocked"}`
	now := time.Now().UnixMilli()
	for i := range 3 {
		in.put(fmt.Appendf(nil, "["+log+","+log+"]", now+int64(i), now+int64(i)))
	}
	s := service(t, fmt.Sprintf("  - name: vendor\n    kinesis: {stream: netacea, region: us-east-1, endpoint: %q, tenant: t0001}\n    format: netacea", k.URL()))
	s.Tenants(1, drops)
	s.Up(30 * time.Second)
	takes(t, s, "vendor", 6)
	s.Delivered(6, time.Minute)
	balanced(t, s)
	s.End(false)
	ids := harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops")
	if len(ids) != 6 {
		t.Errorf("%d ids: %v", len(ids), ids)
	}
	for id, times := range ids {
		if !strings.HasPrefix(id, "kds:netacea:49") || !strings.HasSuffix(id, ":0") && !strings.HasSuffix(id, ":1") || times != 1 {
			t.Errorf("id %s, %d times", id, times)
		}
	}
}
