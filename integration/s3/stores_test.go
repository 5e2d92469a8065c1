package s3

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// gateway is a store whose files are looked at.
type gateway struct {
	t *testing.T
	*servers.Store
}

func newGateway(t *testing.T, buckets ...string) *gateway {
	t.Helper()
	return &gateway{t, servers.NewStore(t, buckets...)}
}

// objects are the files of a bucket, by key.
func (g *gateway) objects(bucket string) map[string]fs.FileInfo {
	g.t.Helper()
	root := filepath.Join(g.Root, bucket)
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
	cmd := exec.Command(servers.Installed(t, ".testbed/moto/bin/python", "stores"), append([]string{"-c", script}, args...)...)
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
