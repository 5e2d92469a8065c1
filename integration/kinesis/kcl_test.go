package kinesis

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

func TestKCLReadsEverything(t *testing.T) { readByKCL(t, 10_000) }

// TestAcceptKCL is the same with a fifth of an acceptance's events, between
// 100,000 and 200,000: kinesalite takes some 4,000 records a second.
func TestAcceptKCL(t *testing.T) { readByKCL(t, min(max(harness.Events(t)/5, 100_000), 200_000)) }

// readByKCL: what the built program puts into kinesalite is what the Kinesis
// Client Library gives to an application: every event of every tenant as it was
// made, from plain records (half of the tenants ordered) and from aggregated
// ones, which the library unpacks. It reads while the program writes.
//
// Shards are not split on the way: the library wants GetRecords to name a
// closed shard's children, and kinesalite does not.
func readByKCL(t *testing.T, count int) {
	const tenants, shards, seed = 8, 2, 11
	servers.Credentials(t)
	k := servers.NewKinesalite(t)
	s := harness.NewService(t, "")
	path := filepath.Join(s.Dir, "in", "a.ndjson")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(count), "--tenants", fmt.Sprint(tenants), "--seed", fmt.Sprint(seed), "--to", path)
	from := readSource(t, path, count)
	streams := map[string]*arrivals{}
	var names []string
	for i := 1; i <= tenants; i++ {
		ordered := i%2 == 1
		s.Write("tenants/"+tenantOf(i)+".yaml", fmt.Sprintf(`tenant: %[1]s
sinks:
  - name: plain
    kinesis: {stream: "%[1]s-plain", region: eu-west-1, endpoint: %[2]q, partition_key: client_ip, ordered: %[3]v}
  - name: packed
    kinesis: {stream: "%[1]s-packed", region: eu-west-1, endpoint: %[2]q, partition_key: client_ip, aggregate: true}
`, tenantOf(i), k.URL(), ordered))
		for _, sink := range []string{"plain", "packed"} {
			name := tenantOf(i) + "-" + sink
			k.Stream(name, shards)
			a := newArrivals(from, name, i)
			a.ordered = ordered && sink == "plain"
			streams[name], names = a, append(names, name)
		}
	}
	began := time.Now()
	c := k.KCL(names, sorted(t, streams))
	s.Up(30 * time.Second)
	s.Delivered(int64(count), 10*time.Minute)
	delivered := time.Since(began)
	s.End(false)
	before, since := 0, time.Now()
	c.Until(15*time.Minute, "end of what arrives at the KCL", func() bool {
		have := 0
		for _, a := range streams {
			have += a.have
		}
		if have != before {
			before, since = have, time.Now()
		}
		return have == 2*count || time.Since(since) > 2*time.Minute // then the rest is missing
	})
	c.Stop()
	plain, packed, repeats := 0, 0, 0
	for name, a := range streams {
		repeats += a.want(t)
		if strings.HasSuffix(name, "-packed") {
			packed += a.records
		} else {
			plain += a.records
		}
	}
	t.Logf("%s, kinesalite %s", c.Versions, servers.NPMVersion(t, "kinesalite"))
	t.Logf("%d events of %d tenants delivered twice in %v, all with the KCL after %v: %d plain Kinesis records, %d aggregated ones (%.1f times fewer), %d repeats",
		count, tenants, delivered.Round(time.Second), time.Since(began).Round(time.Second), plain, packed, float64(count)/float64(packed), repeats)
	// A stream's first 256 aggregated records are small.
	if packed*5 > count+5*256*tenants || packed*5 > count && count >= 100_000 || plain < count {
		t.Errorf("%d plain records and %d aggregated ones for %d events", plain, packed, count)
	}
}

// sorted sorts the KCL's records by stream and counts the Kinesis records that
// they came from.
func sorted(t testing.TB, streams map[string]*arrivals) func(servers.UserRecord) {
	known := map[string]bool{}
	return func(r servers.UserRecord) {
		a := streams[r.Stream]
		if a == nil {
			t.Errorf("a record of stream %q, which nobody made", r.Stream)
			return
		}
		if id := r.Stream + r.Shard + r.Sequence; !known[id] {
			known[id] = true
			a.records++
		}
		a.add(r.Key, r.Data)
	}
}
