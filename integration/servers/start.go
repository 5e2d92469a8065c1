package servers

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// Installed is a program or file that a task installs: a command of the
// machine or an absolute path, or with a slash inside a path from integration/.
// A test without it fails.
func Installed(t testing.TB, name, task string) string {
	t.Helper()
	var path string
	var err error
	if strings.Contains(name, "/") && !filepath.IsAbs(name) {
		if path, err = filepath.Abs(filepath.Join("..", name)); err == nil {
			_, err = os.Stat(path)
		}
	} else {
		path, err = exec.LookPath(name)
	}
	if err != nil {
		t.Fatalf("%s is missing (task %s installs it): %v", name, task, err)
	}
	return path
}

// launch starts a server and waits until all its addresses take connections.
func launch(t testing.TB, name string, cmd *exec.Cmd, addrs ...string) *harness.Process {
	t.Helper()
	p := harness.Launch(t, name, cmd)
	for _, addr := range addrs {
		await(t, p, func() bool {
			c, err := net.DialTimeout("tcp", addr, time.Second)
			return err == nil && c.Close() == nil // it was only to see
		})
	}
	return p
}

// await waits until a server that was started is ready; one that ends fails the test.
func await(t testing.TB, p *harness.Process, ready func() bool) {
	t.Helper()
	harness.Until(t, 2*time.Minute, p.Name+" that is ready", func() bool {
		if !p.Running() {
			t.Fatalf("%s ended:\n%s", p.Name, p.Output())
		}
		return ready()
	})
}

// answers waits until a server says anything at all over HTTP.
func answers(t testing.TB, p *harness.Process, url string) {
	t.Helper()
	await(t, p, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		return err == nil && resp.Body.Close() == nil
	})
}

func port(t testing.TB, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func host(t testing.TB, addr string) string {
	t.Helper()
	h, _, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
