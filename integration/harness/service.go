package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Service is a configuration of the program in a folder of its own, started
// and stopped as often as a test likes.
type Service struct {
	t     testing.TB
	Dir   string
	Admin string // host:port
	Feed  string // host:port of the HTTP feed "edge"
	Netns string // the network namespace to run in; "" is the test's
	*Process
	// Peak is the largest resident set of all its processes so far, bytes.
	Peak int64
	// Used is the processor time of all its ended processes.
	Used time.Duration
}

// NewService writes the service's file: an HTTP feed "edge", a file feed
// "files" over in/*.ndjson that follows, an admin API. extra is added at the end.
func NewService(t testing.TB, extra string) *Service {
	t.Helper()
	s := &Service{t: t, Dir: t.TempDir(), Admin: FreePort(t), Feed: FreePort(t)}
	for _, d := range []string{"in", "tenants", "drops"} {
		if err := os.MkdirAll(filepath.Join(s.Dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.Write("datasync.yaml", fmt.Sprintf(`data_dir: %[1]s/data
feeds:
  - name: edge
    http: {listen: %[2]q}
    format: auto
  - name: files
    file: {path: "%[1]s/in/*.ndjson", follow: true}
    format: canonical
tenants: %[1]s/tenants
admin: {listen: %[3]q}
%[4]s`, s.Dir, s.Feed, s.Admin, extra))
	return s
}

// Write writes a file below Dir, whole or not at all.
func (s *Service) Write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

// Tenants writes the files of tenants t0001 to n; sinks is the YAML of their
// sinks, in which {dir} is Dir and {tenant} the tenant.
func (s *Service) Tenants(n int, sinks string) {
	s.t.Helper()
	for i := 1; i <= n; i++ {
		t := fmt.Sprintf("t%04d", i)
		text := strings.NewReplacer("{dir}", s.Dir, "{tenant}", t).Replace(sinks)
		s.Write("tenants/"+t+".yaml", fmt.Sprintf("tenant: %s\napi_keys: [key-of-%s]\nsinks:\n%s", t, t, text))
	}
}

// Up starts the program and waits until it is ready.
func (s *Service) Up(limit time.Duration) {
	s.t.Helper()
	s.Process = Launch(s.t, "datasync run", Within(s.Netns, exec.Command(Binary(s.t), "run", "--config", filepath.Join(s.Dir, "datasync.yaml"))))
	p := s.Process
	Until(s.t, limit, "readiness", func() bool {
		if !p.Running() {
			s.t.Fatalf("the service ended: %v\n%s", p.err, p.Output())
		}
		var any struct{}
		return Get(context.Background(), "http://"+s.Admin+"/readyz", &any)
	})
}

// End notes what the process used, and ends it: kill -9, or SIGTERM and exit 0.
func (s *Service) End(kill bool) {
	s.t.Helper()
	s.Peak = max(s.Peak, s.PeakMemory())
	if kill {
		s.Kill()
	} else {
		s.Stop(45 * time.Second)
	}
	s.Used += s.CPU()
}

// Ledger is what GET /v1/ledger answers.
type Ledger struct {
	Balanced bool `json:"balanced"`
	Sinks    []struct {
		Tenant, Sink                                                              string
		Received, Delivered, Filtered, Refused, Expired, Damaged, Queued, Repeats int64
	} `json:"sinks"`
	Feeds []struct {
		Feed                                  string
		Read, Accepted, Quarantined, Unrouted int64
		Missed                                int64
		Gaps                                  []Gap
	} `json:"feeds"`
}

// Gap is a range of offsets that a Kafka feed never read: [From, To).
type Gap struct {
	Topic, Why string
	Partition  int
	From, To   int64
}

// Ledger asks for the ledger; false where the service does not answer.
func (s *Service) Ledger() (Ledger, bool) {
	var l Ledger
	ok := Get(context.Background(), "http://"+s.Admin+"/v1/ledger", &l)
	return l, ok
}

// Delivered waits until n events were read and every sink has all of its.
func (s *Service) Delivered(n int64, limit time.Duration) Ledger {
	s.t.Helper()
	var l Ledger
	last := time.Now()
	Until(s.t, limit, fmt.Sprintf("delivery of %d events", n), func() bool {
		var ok bool
		if l, ok = s.Ledger(); !ok {
			return false
		}
		var read, queued int64
		for _, f := range l.Feeds {
			read += f.Read
		}
		for _, k := range l.Sinks {
			queued += k.Queued
		}
		if time.Since(last) > 10*time.Second {
			last = time.Now()
			s.t.Logf("%d of %d read, %d deliveries to go", read, n, queued)
		}
		return read >= n && queued == 0
	})
	return l
}
