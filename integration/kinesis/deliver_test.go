package kinesis

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

const (
	tenants = 4
	shards  = 3
)

func TestPlainAndAggregatedArriveWhole(t *testing.T) { arriveWhole(t, 20_000) }

// TestAcceptKinesis is the same with a fifth of an acceptance's events, 100,000
// at least: kinesalite takes some 4,000 records a second, and gives as many.
func TestAcceptKinesis(t *testing.T) { arriveWhole(t, max(harness.Events(t)/5, 100_000)) }

func arriveWhole(t *testing.T, count int) {
	servers.Credentials(t)
	k := servers.NewKinesalite(t)
	s := harness.NewService(t, "")
	s.Tenants(tenants, fmt.Sprintf(`  - name: plain
    kinesis: {stream: "{tenant}-plain", region: eu-west-1, endpoint: %[1]q, partition_key: client_ip}
  - name: packed
    kinesis: {stream: "{tenant}-packed", region: eu-west-1, endpoint: %[1]q, partition_key: client_ip, aggregate: true}
`, k.URL()))
	for i := 1; i <= tenants; i++ {
		k.Stream(tenantOf(i)+"-plain", shards)
		k.Stream(tenantOf(i)+"-packed", shards)
	}
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(count), "--tenants", fmt.Sprint(tenants),
		"--seed", "7", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	began := time.Now()
	s.Up(30 * time.Second)
	s.Delivered(int64(count), 10*time.Minute)
	took := time.Since(began)
	s.End(false)
	t.Logf("%d events to two sinks each in %v: %.1f CPU s, peak memory %d MB", count, took.Round(time.Second), s.Used.Seconds(), s.Peak>>20)
	var plain, packed []harness.IDs
	nPlain, nPacked := 0, 0
	for i := 1; i <= tenants; i++ {
		rs := read(k, tenantOf(i)+"-plain")
		nPlain += len(rs)
		plain = append(plain, ids(t, events(t, rs)))
		rs = read(k, tenantOf(i)+"-packed")
		nPacked += len(rs)
		packed = append(packed, ids(t, events(t, rs)))
	}
	merge(plain...).Want(t, "plain", 7, count, true)
	merge(packed...).Want(t, "packed", 7, count, true)
	t.Logf("%d records plain, %d packed", nPlain, nPacked)
	if nPacked*5 > nPlain {
		t.Errorf("%d aggregated records stand for %d: not even five to one", nPacked, nPlain)
	}
}
