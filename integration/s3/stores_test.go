package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

const (
	accessKey = "AKIAINTEGRATION"
	secretKey = "not-so-secret-key"
)

// credentials puts the service's own into the environment of what the test starts.
func credentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", accessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", secretKey)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
}

// bed is a file that integration/testbed/s3.sh installs.
func bed(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../.testbed/" + name)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("%s is missing (task stores installs it): %v", name, err)
	}
	return path
}

// gateway is versitygw: buckets are the folders below root, objects plain files.
type gateway struct {
	t    *testing.T
	root string
	addr string
	tls  *harness.Certs
	*harness.Process
}

func newGateway(t *testing.T, buckets ...string) *gateway {
	g := &gateway{t: t, root: t.TempDir(), addr: harness.FreePort(t)}
	for _, b := range buckets {
		g.bucket(b)
	}
	return g
}

func (g *gateway) bucket(name string) {
	g.t.Helper()
	if err := os.Mkdir(filepath.Join(g.root, name), 0o755); err != nil {
		g.t.Fatal(err)
	}
}

// up starts it and waits until it answers.
func (g *gateway) up() {
	g.t.Helper()
	args := []string{"--access", accessKey, "--secret", secretKey, "--port", g.addr, "--quiet", "--keep-alive"}
	if g.tls != nil {
		args = append(args, "--cert", g.tls.Cert, "--key", g.tls.Key)
	}
	g.Process = harness.Launch(g.t, "versitygw", exec.Command(bed(g.t, "bin/versitygw"), append(args, "posix", g.root)...))
	if g.tls == nil {
		answers(g.t, g.url(), g.Process)
	}
}

func (g *gateway) url() string {
	if g.tls != nil {
		return "https://" + g.addr
	}
	return "http://" + g.addr
}

// answers waits until a server says anything at all.
func answers(t *testing.T, url string, p *harness.Process) {
	t.Helper()
	harness.Until(t, 30*time.Second, "answer of "+p.Name, func() bool {
		if !p.Running() {
			t.Fatalf("%s ended:\n%s", p.Name, p.Output())
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
}

// objects are the files of a bucket, by key.
func (g *gateway) objects(bucket string) map[string]fs.FileInfo {
	g.t.Helper()
	root := filepath.Join(g.root, bucket)
	got := map[string]fs.FileInfo{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		got[rel], err = d.Info()
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return got
}

// tidy fails the test where a bucket holds anything but drops: parts of
// uploads, objects of the probe.
func (g *gateway) tidy(bucket string) {
	g.t.Helper()
	for key := range g.objects(bucket) {
		if !strings.Contains(key, "/tenant=") && !strings.HasPrefix(key, "tenant=") {
			g.t.Errorf("%s is left in bucket %s", key, bucket)
		}
	}
}

// lane is what the API shows of a sink.
type lane struct{ State, Reason, Message string }

func sinkState(t *testing.T, s *harness.Service, sink string) lane {
	t.Helper()
	var l lane
	if !harness.Get(context.Background(), "http://"+s.Admin+"/v1/lanes/"+sink, &l) {
		return lane{}
	}
	return l
}

// becomes waits until a sink is in a state for a reason.
func becomes(t *testing.T, s *harness.Service, sink, state, reason string) lane {
	t.Helper()
	var l lane
	defer func() {
		if t.Failed() {
			t.Logf("%s is %+v", sink, l)
		}
	}()
	harness.Until(t, 30*time.Second, fmt.Sprintf("state %s for %q of %s", state, reason, sink), func() bool {
		l = sinkState(t, s, sink)
		return l.State == state && l.Reason == reason
	})
	return l
}

// python runs a script with moto's libraries and decodes what it prints.
func python(t *testing.T, into any, script string, args ...string) {
	t.Helper()
	cmd := exec.Command(bed(t, "moto/bin/python"), append([]string{"-c", script}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python: %v\n%s", err, errs.String())
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(out, into); err != nil {
		t.Fatalf("python said %q: %v", out, err)
	}
}
