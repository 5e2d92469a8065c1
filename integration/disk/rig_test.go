package disk

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/integration/harness"
)

// perRequest is how many events a producer sends at once.
const perRequest = 50

// producer sends events over HTTP as a careful client does: each request again,
// under its Idempotency-Key, until it is answered with 200.
type producer struct {
	t      testing.TB
	url    string
	bodies [][]byte

	mu     sync.Mutex
	acked  int                // requests
	status map[int]int        // answers other than 200, by status; 0 is none
	said   string             // the last of them
	cancel context.CancelFunc // ends sending
	done   chan struct{}
}

// events are n generated events of a seed, all of tenant t0001, as bodies.
func events(t testing.TB, seed, n int) [][]byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.ndjson")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", fmt.Sprint(seed), "--to", path)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for lines := range slices.Chunk(slices.Collect(bytes.Lines(raw)), perRequest) {
		out = append(out, bytes.Join(lines, nil))
	}
	return out
}

// produce begins to send bodies to a service, requests a second (0: as fast as
// they are answered) on two connections.
func produce(t testing.TB, s *harness.Service, bodies [][]byte, rate int) *producer {
	ctx, cancel := context.WithCancel(context.Background())
	p := &producer{t: t, url: "http://" + s.Feed + "/v1/ingest/canonical/t0001", bodies: bodies,
		status: map[int]int{}, cancel: cancel, done: make(chan struct{})}
	next := make(chan int)
	go func() {
		defer close(next)
		pace := time.NewTicker(time.Second / time.Duration(max(rate, 1)))
		defer pace.Stop()
		for i := range bodies {
			if rate > 0 {
				<-pace.C
			}
			select {
			case next <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range next {
				p.send(ctx, i)
			}
		})
	}
	go func() { wg.Wait(); close(p.done) }()
	t.Cleanup(func() { cancel(); <-p.done })
	return p
}

// send sends one request until it is taken.
func (p *producer) send(ctx context.Context, i int) {
	for ctx.Err() == nil {
		status, said := p.post(ctx, i)
		p.mu.Lock()
		if status == http.StatusOK {
			p.acked++
			p.mu.Unlock()
			return
		}
		p.status[status]++
		p.said = said
		p.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (p *producer) post(ctx context.Context, i int) (status int, said string) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(p.bodies[i]))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Authorization", "Bearer key-of-t0001")
	req.Header.Set("Idempotency-Key", fmt.Sprintf("request-%d", i))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch want := fmt.Sprintf(`{"accepted":%d,"rejected":[]}`, bytes.Count(p.bodies[i], []byte("\n"))); {
	case err != nil:
		return 0, err.Error()
	case resp.StatusCode == http.StatusOK && strings.TrimSpace(string(text)) != want:
		p.t.Errorf("request %d: %s", i, text)
	case resp.StatusCode != http.StatusOK && resp.Header.Get("Retry-After") == "":
		p.t.Errorf("request %d: %d without Retry-After", i, resp.StatusCode)
	}
	return resp.StatusCode, string(text)
}

// taken is how many requests were answered with 200.
func (p *producer) taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}

// refusals are the other answers, by status.
func (p *producer) refusals() map[int]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.status)
}

// wait waits until everything was taken.
func (p *producer) wait(limit time.Duration) {
	p.t.Helper()
	harness.Until(p.t, limit, "answer to every request", func() bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
}

// says waits until the program has said something.
func says(t testing.TB, s *harness.Service, limit time.Duration, what string) {
	t.Helper()
	harness.Until(t, limit, fmt.Sprintf("%q in the log", what), func() bool { return strings.Contains(s.Output(), what) })
}

// ready is what /readyz answers with.
func ready(t testing.TB, s *harness.Service) int {
	t.Helper()
	resp, err := http.Get("http://" + s.Admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close() // nothing of it is wanted
	return resp.StatusCode
}

// journalSettings puts settings of the journal into the service's file, and the
// data folder elsewhere where dir says so.
func journalSettings(s *harness.Service, dir, settings string) {
	if dir == "" {
		dir = s.Dir + "/data"
	}
	s.Write("datasync.yaml", fmt.Sprintf(`data_dir: %[2]s
journal: {%[3]s}
feeds:
  - name: edge
    http: {listen: %[4]q}
    format: auto
  - name: files
    file: {path: "%[1]s/in/*.ndjson", follow: true}
    format: canonical
tenants: %[1]s/tenants
admin: {listen: %[5]q}
`, s.Dir, dir, settings, s.Feed, s.Admin))
}
