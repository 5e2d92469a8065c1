package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"datasync/integration/harness"
)

// The credentials that a Store takes.
const (
	AccessKey = "AKIAINTEGRATION"
	SecretKey = "not-so-secret-key"
)

// Credentials puts them into the environment of what the test starts from then
// on, and nothing of the machine's own. kinesalite takes any.
func Credentials(t testing.TB) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", SecretKey)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	t.Setenv("AWS_CA_BUNDLE", "")                        // so that it comes back afterwards
	if err := os.Unsetenv("AWS_CA_BUNDLE"); err != nil { // else each sink reads all of the machine's authorities
		t.Fatal(err)
	}
}

// Store is versitygw, ended and started again as a test likes: buckets are the
// folders below Root, objects plain files.
type Store struct {
	t    testing.TB
	Root string
	addr string
	tls  *Certs
	*harness.Process
}

// NewStore starts a store with buckets.
func NewStore(t testing.TB, buckets ...string) *Store {
	t.Helper()
	return newStore(t, nil, buckets)
}

// NewTLSStore starts one that speaks https with the certificate.
func NewTLSStore(t testing.TB, c Certs, buckets ...string) *Store {
	t.Helper()
	return newStore(t, &c, buckets)
}

func newStore(t testing.TB, tls *Certs, buckets []string) *Store {
	t.Helper()
	s := &Store{t: t, Root: t.TempDir(), addr: harness.FreePort(t), tls: tls}
	for _, b := range buckets {
		s.Bucket(b)
	}
	s.Up()
	return s
}

// Bucket makes a bucket and gives its folder.
func (s *Store) Bucket(name string) string {
	s.t.Helper()
	dir := filepath.Join(s.Root, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	return dir
}

// Up starts it and waits until it answers.
func (s *Store) Up() {
	s.t.Helper()
	args := []string{"--access", AccessKey, "--secret", SecretKey, "--port", s.addr, "--quiet", "--keep-alive"}
	if s.tls != nil {
		args = append(args, "--cert", s.tls.Cert, "--key", s.tls.Key)
	}
	s.Process = launch(s.t, "versitygw", exec.Command(Installed(s.t, ".testbed/bin/versitygw", "stores"), append(args, "posix", s.Root)...), s.addr)
	if s.tls == nil { // https would need the authority
		answers(s.t, s.Process, s.URL())
	}
}

// URL is the endpoint of a sink.
func (s *Store) URL() string {
	if s.tls != nil {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// NewMoto starts moto, a second S3 with STS and IAM, and gives its URL. What
// INITIAL_NO_AUTH_ACTION_COUNT says, it takes from the environment.
func NewMoto(t testing.TB) (url string) {
	t.Helper()
	addr := harness.FreePort(t)
	url = "http://" + addr
	p := harness.Launch(t, "moto", exec.Command(Installed(t, ".testbed/moto/bin/moto_server", "stores"), "-H", "127.0.0.1", "-p", port(t, addr)))
	answers(t, p, url+"/moto-api/")
	return url
}
