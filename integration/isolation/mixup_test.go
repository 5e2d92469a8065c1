package isolation

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// tenantNames finds the tenants of this test in any bytes.
var tenantNames = regexp.MustCompile(`tn[0-9a-f]{6}zz`)

// TestTenantsAreNeverMixed: tenants with random filters, projections, formats
// and schedules, to a folder, S3, Kinesis (plain and aggregated) and TLS lines,
// their events shuffled through two feeds. Every name that stands in an event is
// its tenant's: no object, record, connection, path or key holds two.
func TestTenantsAreNeverMixed(t *testing.T) { neverMixed(t, 28, 30, 6000) }

func neverMixed(t *testing.T, seed uint64, tenants, events int) {
	servers.Credentials(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	store, streams, lines := servers.NewStore(t), servers.NewKinesalite(t), listen(t, servers.NewCerts(t))
	bucket := store.Bucket("all")
	streams.Stream("plain", 2)
	streams.Stream("packed", 2)
	s := service(t, "", "")
	var names []string
	for range tenants {
		n := fmt.Sprintf("tn%06xzz", rng.IntN(1<<24))
		names = append(names, n)
		tenant(s, n, "", mixedSinks(rng, s, store, streams)+lines.sink())
	}
	s.Up(time.Minute)
	var file, body strings.Builder
	for i := range events {
		n := names[rng.IntN(tenants)]
		line := event(fmt.Sprintf("%s-%d", n, i), n, fmt.Sprintf(`,"client_ip":"192.0.2.%d","user_agent":"u-%s","own":{"deep":["%s"]},"rule_id":"r-%s"`, rng.IntN(256), n, n, n))
		line = strings.Replace(line, `"severity":3`, fmt.Sprintf(`"severity":%d`, rng.IntN(6)), 1)
		if i%2 == 0 {
			file.WriteString(line + "\n")
			continue
		}
		body.Reset()
		body.WriteString(line)
		if i%50 == 1 { // and an event of another's that a key must not bring in
			other := names[0]
			if other == n {
				other = names[1]
			}
			body.WriteString("\n" + event(other+"-foreign", other, `,"foreign":true`))
		}
		if a, err := post(ingest(s, n), "key-of-"+n, strings.NewReader(body.String())); err != nil || a.status != http.StatusOK {
			t.Fatalf("%v %+v", err, a)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "in", "a.ndjson"), []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	l := s.Delivered(int64(events), 5*time.Minute)
	s.End(false)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	folder, objects := objectsOf(t, filepath.Join(s.Dir, "drops")), objectsOf(t, bucket)
	records := 0
	for _, stream := range []string{"plain", "packed"} {
		streams.Each(stream, func(r servers.Record) {
			records++
			only(t, "a record of "+stream, append([]byte(r.PartitionKey+" "), r.Data...))
		})
	}
	lines.mu.Lock()
	conns, mixed := lines.conns, lines.mixed
	lines.mu.Unlock()
	if mixed > 0 {
		t.Errorf("%d connections held lines of two tenants", mixed)
	}
	if folder < tenants || objects < tenants || records < events/10 || conns < tenants {
		t.Errorf("only %d files, %d objects, %d records and %d connections were there to look at", folder, objects, records, conns)
	}
	t.Logf("seed %d: %d events of %d tenants: %d files, %d objects, %d records, %d connections, none mixed", seed, events, tenants, folder, objects, records, conns)
}

// mixedSinks are a tenant's sinks of every kind, each with settings by chance.
func mixedSinks(rng *rand.Rand, s *harness.Service, store *servers.Store, streams *servers.Kinesalite) string {
	one := func(of ...string) string { return of[rng.IntN(len(of))] }
	output := func() string {
		return one("", "    filter: 'severity > 2'\n", "    filter: 'client_ip != \"192.0.2.7\"'\n") + one("", "    fields: [event_id, client_ip, severity]\n", "    fields: [event_id, tenant_id, event_time, client_ip, user_agent]\n") + one("", "    sample: 0.7\n")
	}
	drops := func() string {
		return one("    format: ndjson\n    compression: gzip\n", "    format: ndjson\n    compression: zstd\n", "    format: ndjson\n    compression: none\n", "    format: parquet\n    compression: none\n") +
			one("    deliver: {max_age: 1s}\n", "    deliver: {max_age: 1s, max_events: 17}\n", "    deliver: {max_age: 2s, manifest: true}\n")
	}
	return fmt.Sprintf("  - name: files\n    dir: {path: %q}\n", s.Dir+"/drops") + drops() + output() +
		fmt.Sprintf("  - name: lake\n    s3: {bucket: all, region: us-east-1, endpoint: %q, path_style: true}\n", store.URL()) + drops() + output() +
		fmt.Sprintf("  - name: plain\n    kinesis: {stream: plain, region: us-east-1, endpoint: %q, partition_key: %s}\n", streams.URL(), one("event_id", "client_ip")) + output() +
		fmt.Sprintf("  - name: packed\n    kinesis: {stream: packed, region: us-east-1, endpoint: %q, partition_key: event_id, aggregate: true}\n", streams.URL()) + output()
}

// objectsOf looks at every file below a folder, with its path, and counts them.
func objectsOf(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "/tenant=") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var r io.Reader = bytes.NewReader(raw)
		switch filepath.Ext(path) {
		case ".gz":
			r, err = gzip.NewReader(r)
		case ".zst":
			var z *zstd.Decoder
			if z, err = zstd.NewReader(r); err == nil {
				defer z.Close()
				r = z
			}
		}
		if err != nil {
			return err
		}
		if raw, err = io.ReadAll(r); err == nil {
			n++
			only(t, path, append([]byte(path+" "), raw...))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// only holds bytes to the names of one tenant, which they have.
func only(t *testing.T, what string, b []byte) {
	t.Helper()
	seen := map[string]bool{}
	for _, n := range tenantNames.FindAll(b, -1) {
		seen[string(n)] = true
	}
	if len(seen) != 1 || bytes.Contains(b, []byte(`"foreign":true`)) {
		t.Errorf("%s names %d tenants: %v", what, len(seen), seen)
	}
}
