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

// lakes is the tenant's file of sinks in buckets of stores, named.
func lakes(s *harness.Service, sinks ...[3]string) {
	var b strings.Builder
	for _, k := range sinks {
		fmt.Fprintf(&b, "  - name: %s\n    s3: {bucket: %s, prefix: bots, region: us-east-1, endpoint: %q, path_style: true}\n    deliver: {max_age: 1s}\n", k[0], k[1], k[2])
	}
	s.Tenants(1, b.String())
}

// TestTestSinkS3: each mistake is told before events flow as the lanes tell it
// when they do; what works leaves nothing in the bucket.
func TestTestSinkS3(t *testing.T) {
	servers.Credentials(t)
	a, other := servers.NewAuthority(t, "test CA"), servers.NewAuthority(t, "another CA")
	t.Setenv("AWS_CA_BUNDLE", a.CA())
	g, https := newGateway(t, "lake"), servers.NewTLSStore(t, a.Local("good", time.Hour), "lake")
	foreign, old := servers.NewTLSStore(t, other.Local("foreign", time.Hour), "lake"), servers.NewTLSStore(t, a.Local("old", -time.Minute), "lake")
	s := harness.NewService(t, "")
	lakes(s, [3]string{"good", "lake", g.URL()}, [3]string{"tls", "lake", https.URL()},
		[3]string{"bucket", "missing", g.URL()}, [3]string{"dns", "lake", "http://store.invalid:9000"},
		[3]string{"connect", "lake", "http://" + harness.FreePort(t)}, [3]string{"metadata", "lake", "http://169.254.169.254"},
		[3]string{"ca", "lake", foreign.URL()}, [3]string{"expired", "lake", old.URL()})
	for sink, steps := range map[string]string{
		"good": "credentials egress connect bucket write conditional read remove", "tls": "credentials egress connect tls bucket write conditional read remove",
	} {
		r := s.TestSink("t0001/" + sink)
		var names []string
		for _, step := range r.Steps {
			names = append(names, step.Name)
		}
		if got := strings.Join(names, " "); !r.Works || got != steps {
			t.Errorf("%s: %+v", sink, r)
		}
	}
	if left := g.objects("lake"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "data")); err == nil {
		t.Error("test-sink touched data_dir")
	}
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "10", "--tenants", "1", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	for _, c := range [][3]string{{"bucket", "write", "not-found"}, {"dns", "resolve", "dns"}, {"connect", "connect", "connect"},
		{"metadata", "egress", "forbidden"}, {"ca", "tls", "tls-verify"}, {"expired", "tls", "tls-verify"}} {
		s.SinkFails("t0001/"+c[0], c[1], c[2])
	}
	if r := s.TestSink("t0001/expired"); !strings.Contains(r.Steps[len(r.Steps)-1].Seen, "EXPIRED") {
		t.Errorf("whose certificate has expired is not told: %+v", r)
	}
	s.End(false)
}

// TestTestSinkWrongSecret: the store alone knows that.
func TestTestSinkWrongSecret(t *testing.T) {
	servers.Credentials(t)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	g := newGateway(t, "lake")
	s := harness.NewService(t, "")
	lakes(s, [3]string{"lake", "lake", g.URL()})
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "10", "--tenants", "1", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	s.SinkFails("t0001/lake", "write", "auth")
	s.End(false)
}

// TestTestSinkAsARole: moto enforces the policies of docs/s3.md, under which
// the test object stays, since a sink need not delete.
func TestTestSinkAsARole(t *testing.T) {
	servers.Credentials(t)
	t.Setenv("INITIAL_NO_AUTH_ACTION_COUNT", "1000")
	url := servers.NewMoto(t)
	var user struct{ ID, Secret, Role string }
	python(t, &user, prepare, url)
	t.Setenv("AWS_ACCESS_KEY_ID", user.ID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", user.Secret)
	s := harness.NewService(t, "")
	sink := func(name, prefix, external string) string {
		return fmt.Sprintf("  - name: %s\n    s3: {bucket: lake, prefix: %s, region: us-east-1, endpoint: %q, path_style: true, role_arn: %q, external_id: %s}\n    deliver: {max_age: 1s}\n",
			name, prefix, url, user.Role, external)
	}
	s.Tenants(1, sink("lake", "bots", "acme-7")+sink("elsewhere", "other", "acme-7"))
	r := s.TestSink("t0001/lake")
	if _, seen := r.Step(t, "role"); !r.Works || !strings.Contains(seen, user.Role+" assumed") {
		t.Errorf("%+v", r)
	}
	if result, seen := r.Step(t, "remove"); result != "note" || !strings.Contains(seen, "s3://lake/bots/tenant=t0001/sink=lake/.datasync-test-") {
		t.Errorf("what stays is not told: %s: %s", result, seen)
	}
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "10", "--tenants", "1", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	s.SinkFails("t0001/elsewhere", "write", "forbidden")
	s.End(false)
}
