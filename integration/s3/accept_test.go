package s3

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/readers"
	"datasync/integration/servers"
)

// sinks are those of every tenant: NDJSON gzip by size, Parquet by a schedule.
func (g *gateway) sinks() string {
	return strings.ReplaceAll(`  - name: drops
    s3: {bucket: lake, prefix: "raw/{tenant}", region: us-east-1, endpoint: "{url}", path_style: true}
    deliver: {max_bytes: 256KiB, max_age: 5s, manifest: true}
  - name: lake
    s3: {bucket: lake, region: us-east-1, endpoint: "{url}", path_style: true}
    format: parquet
    deliver: {schedule: "@every 6s"}
`, "{url}", g.URL())
}

func TestAcceptS3EverythingArrives(t *testing.T) {
	n := harness.Events(t)
	servers.Credentials(t)
	g := newGateway(t, "lake")
	s := harness.NewService(t, "")
	s.Tenants(200, g.sinks())
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "200", "--seed", "1",
		"--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	began := time.Now()
	s.Up(30 * time.Second)
	l := s.Delivered(int64(n), 10*time.Minute)
	took := time.Since(began)
	s.End(false)
	g.check(t, s, l, 1, n)
	t.Logf("%d events for 200 tenants to two sinks each in %.1f s: %.1f CPU s per million events, peak memory %d MB, %d objects",
		n, took.Seconds(), s.Used.Seconds()*1e6/float64(n), s.Peak>>20, len(g.objects("lake")))
	if s.Peak > 500<<20 {
		t.Errorf("peak memory %d MB, the bound is 500", s.Peak>>20)
	}
}

// TestFaultS3: the store killed and started again, the program stopped and
// killed, each with drops under way.
func TestFaultS3(t *testing.T) {
	servers.Credentials(t)
	g := newGateway(t, "lake")
	s := harness.NewService(t, "")
	s.Tenants(20, g.sinks())
	s.Up(30 * time.Second)
	const n, rate = 60_000, 2000
	gen := harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(rate), "--count", fmt.Sprint(n),
		"--tenants", "20", "--seed", "2", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	harness.Pause(5 * time.Second)
	g.Kill()
	becomes(t, s, "t0001/drops", "waiting", "connect")
	g.Up()
	harness.Pause(4 * time.Second)
	s.End(false)
	s.Up(30 * time.Second)
	harness.Pause(4 * time.Second)
	for range 3 {
		s.End(true)
		s.Up(30 * time.Second)
		harness.Pause(2300 * time.Millisecond)
	}
	g.Kill()
	s.End(true) // with nobody there
	s.Up(30 * time.Second)
	g.Up()
	if code := gen.Wait(5 * time.Minute); code != 0 {
		t.Fatalf("generate exited with %d: %s", code, gen.Output())
	}
	l := s.Delivered(n, 3*time.Minute)
	s.End(false)
	g.check(t, s, l, 2, n)
}

// check holds what the store has to what was generated.
func (g *gateway) check(t *testing.T, s *harness.Service, l harness.Ledger, seed, n int) {
	t.Helper()
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	bucket := filepath.Join(g.Root, "lake")
	harness.Drops(t, bucket, "drops") // their numbers
	harness.Drops(t, bucket, "lake")
	truth := readers.NewTruth(t, readers.Options{}).AddFile(filepath.Join(s.Dir, "in", "a.ndjson"))
	readers.Check(t, truth, bucket, "drops").Want(t, "NDJSON in S3", seed, n, true)
	readers.Check(t, truth, bucket, "lake").Want(t, "Parquet in S3", seed, n, true)
	g.tidy("lake")
	t.Logf("%d events: none missing, none twice in %d objects", n, len(g.objects("lake")))
}

// TestS3Multipart: an object beyond 64 MiB goes in parts, and is whole; over
// TLS, where the parts' checksums follow their bytes.
func TestS3Multipart(t *testing.T) {
	const n = 150_000
	servers.Credentials(t)
	certs := servers.NewCerts(t)
	t.Setenv("AWS_CA_BUNDLE", certs.CA)
	g := &gateway{t, servers.NewTLSStore(t, certs, "lake")}
	s := harness.NewService(t, "")
	s.Tenants(1, fmt.Sprintf(`  - name: drops
    s3: {bucket: lake, prefix: big, region: us-east-1, endpoint: %q, path_style: true}
    compression: none
    deliver: {max_bytes: 90MiB, max_age: 10s}
`, g.URL()))
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "3",
		"--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	s.Delivered(n, 3*time.Minute)
	s.End(false)
	truth := readers.NewTruth(t, readers.Options{}).AddFile(filepath.Join(s.Dir, "in", "a.ndjson"))
	harness.Drops(t, filepath.Join(g.Root, "lake"), "drops") // their numbers
	readers.Check(t, truth, filepath.Join(g.Root, "lake"), "drops").Want(t, "NDJSON in S3", 3, n, true)
	g.tidy("lake")
	var most int64
	for key, info := range g.objects("lake") {
		most = max(most, info.Size())
		t.Logf("%s: %d bytes", key, info.Size())
	}
	if most < 64<<20 {
		t.Errorf("the largest object has %d bytes: nothing went in parts", most)
	}
	t.Logf("peak memory %d MB", s.Peak>>20)
	if s.Peak > 400<<20 {
		t.Errorf("peak memory %d MB", s.Peak>>20)
	}
}
