package s3

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// TestFaultS3Refusals: what a person must mend is told with its reason class
// and what to do, and once it is mended the sink goes on without a restart.
func TestFaultS3Refusals(t *testing.T) {
	servers.Credentials(t)
	for _, k := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(k, "") // from a file this time, so that they can be rotated
	}
	dir := t.TempDir()
	keys, bundle := filepath.Join(dir, "credentials"), filepath.Join(dir, "ca.pem")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", keys)
	t.Setenv("AWS_CA_BUNDLE", bundle)
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret := func(s string) {
		write(keys, fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", servers.AccessKey, s))
	}
	certs, others := servers.NewCerts(t), servers.NewCerts(t)
	pem := func(path string) string {
		t.Helper()
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	secret("wrong")
	write(bundle, pem(others.CA))

	g, https := newGateway(t, "lake"), servers.NewTLSStore(t, certs, "lake")
	s := harness.NewService(t, "")
	sink := func(tenant, bucket, url string) {
		t.Helper()
		s.Write("tenants/"+tenant+".yaml", fmt.Sprintf(`tenant: %s
sinks:
  - name: lake
    s3: {bucket: %s, region: us-east-1, endpoint: %q, path_style: true}
    deliver: {max_age: 1s}
`, tenant, bucket, url))
	}
	sink("t0001", "lake", g.URL())
	sink("t0002", "missing", g.URL())
	sink("t0003", "lake", "http://store.invalid:9000")
	sink("t0004", "lake", https.URL())
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "400", "--tenants", "4", "--seed", "4", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	says := func(tenant, state, reason, hint string) {
		t.Helper()
		if l := becomes(t, s, tenant+"/lake", state, reason); !strings.Contains(l.Message, hint) {
			t.Errorf("%s: %q does not say %q", tenant, l.Message, hint)
		}
	}
	says("t0001", "parked", "auth", "credentials")
	says("t0003", "waiting", "dns", "does not resolve")
	says("t0004", "parked", "tls-verify", "AWS_CA_BUNDLE")
	secret(servers.SecretKey)
	says("t0002", "parked", "not-found", "make the bucket")
	becomes(t, s, "t0001/lake", "running", "")
	write(bundle, pem(certs.CA))
	sink("t0003", "lake", g.URL())
	g.Bucket("missing")
	s.Delivered(400, time.Minute)
	s.End(false)
	ids := harness.Drops(t, g.Root, "lake")
	for id, n := range harness.Drops(t, https.Root, "lake") {
		ids[id] += n
	}
	ids.Want(t, "the stores", 4, 400, true)
}

// TestFaultS3ForeignObject: an object of somebody else under a drop's key
// stays as it is, and parks the sink until it is moved away.
func TestFaultS3ForeignObject(t *testing.T) {
	servers.Credentials(t)
	g := newGateway(t, "lake")
	s := harness.NewService(t, "")
	s.Tenants(1, fmt.Sprintf("  - name: lake\n    s3: {bucket: lake, region: us-east-1, endpoint: %q, path_style: true}\n    compression: none\n    deliver: {max_events: 100, max_age: 1h}\n", g.URL()))
	in := filepath.Join(s.Dir, "in", "a.ndjson")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "100", "--tenants", "1", "--seed", "5", "--to", in)
	s.Up(30 * time.Second)
	s.Delivered(100, 30*time.Second)
	taken := ""
	for key := range g.objects("lake") {
		taken = filepath.Join(g.Root, "lake", strings.Replace(key, "000000000001", "000000000002", 1))
	}
	rel, err := filepath.Rel(filepath.Join(g.Root, "lake"), taken)
	if err != nil {
		t.Fatal(err)
	}
	python(t, nil, `import boto3, sys
boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1").put_object(Bucket="lake", Key=sys.argv[2], Body=b"somebody's")`, g.URL(), rel)
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "100", "--tenants", "1", "--seed", "6", "--to", filepath.Join(s.Dir, "in", "b.ndjson"))
	l := becomes(t, s, "t0001/lake", "parked", "invalid")
	if !strings.Contains(l.Message, "000000000002") || !strings.Contains(l.Message, "move that object away") {
		t.Errorf("it says %q", l.Message)
	}
	if raw, err := os.ReadFile(taken); err != nil || string(raw) != "somebody's" {
		t.Errorf("it became %.50q, %v", raw, err)
	}
	if err := os.Remove(taken); err != nil {
		t.Fatal(err)
	}
	s.Delivered(200, time.Minute)
	s.End(false)
	ids := harness.IDs{}
	for key := range g.objects("lake") {
		ids.AddLines(t, filepath.Join(g.Root, "lake", key))
	}
	if len(ids) != 200 {
		t.Errorf("%d of 200 events", len(ids))
	}
}
