package sources

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// service is the built program with feeds.
func service(t *testing.T, feeds ...string) *harness.Service {
	t.Helper()
	s := harness.NewService(t, "")
	s.Write("datasync.yaml", fmt.Sprintf("data_dir: %[1]s/data\nfeeds:\n%[2]s\ntenants: %[1]s/tenants\nadmin: {listen: %[3]q}\n",
		s.Dir, strings.Join(feeds, "\n"), s.Admin))
	return s
}

const drops = `  - name: drops
    dir: {path: "{dir}/drops"}
    deliver: {max_age: 1s}
`

// events are n events of a seed, one a line, numbered from 1.
func events(t *testing.T, seed, n, tenants int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.ndjson")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(tenants), "--seed", fmt.Sprint(seed), "--to", path)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// of is those lines that are a tenant's.
func of(tenant string, lines []byte) (own []byte) {
	for line := range bytes.Lines(lines) {
		if bytes.Contains(line, fmt.Appendf(nil, `"tenant_id":%q`, tenant)) {
			own = append(own, line...)
		}
	}
	return own
}

// cut is where the i-th of n parts of lines begins.
func cut(lines []byte, i, n int) int {
	at := len(lines) * i / n
	if at == 0 || at == len(lines) {
		return at
	}
	return at + bytes.IndexByte(lines[at:], '\n') + 1
}

// says waits until the program has said something.
func says(t *testing.T, s *harness.Service, what string) {
	t.Helper()
	harness.Until(t, time.Minute, fmt.Sprintf("%q in the log", what), func() bool { return strings.Contains(s.Output(), what) })
}

// taken is how many events a feed took, of those that came.
func taken(s *harness.Service, feed string) (read, accepted int64) {
	l, _ := s.Ledger()
	for _, f := range l.Feeds {
		if f.Feed == feed {
			read, accepted = f.Read, f.Accepted
		}
	}
	return read, accepted
}

// takes waits until a feed has taken so many events.
func takes(t *testing.T, s *harness.Service, feed string, events int) {
	t.Helper()
	harness.Until(t, time.Minute, fmt.Sprintf("%d events of feed %s", events, feed), func() bool {
		_, n := taken(s, feed)
		return n >= int64(events)
	})
}

// balanced holds the ledger to what it promises.
func balanced(t *testing.T, s *harness.Service) {
	t.Helper()
	if l, ok := s.Ledger(); !ok || !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
}

func zipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
