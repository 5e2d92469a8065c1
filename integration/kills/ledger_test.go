package kills

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/integration/harness"
)

// ledger is what the service owes: this process keeps it, which nobody kills.
type ledger struct {
	t     testing.TB
	feed  string // host:port
	seed  uint64
	count int // of tenants

	mu      sync.Mutex
	acked   map[string]bool // ids
	posts   int
	again   int // of posts, those that had no answer the first time
	written int // events, to the file
	pool    [][]byte
	batch   int // lines a post
	pools   int
	stopped chan struct{}
	wg      sync.WaitGroup
}

func newLedger(t testing.TB, feed string, seed uint64, tenants int) *ledger {
	return &ledger{t: t, feed: feed, seed: seed, count: tenants, acked: map[string]bool{}, batch: 20, stopped: make(chan struct{})}
}

// run posts with some senders, each a batch every so often, until stop, and
// appends to a file that the service follows.
func (l *ledger) run(senders int, every time.Duration, file string) {
	for range senders {
		l.repeat(every, l.post)
	}
	l.repeat(5*every, func() error { return l.append(file) })
}

func (l *ledger) repeat(every time.Duration, f func() error) {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if err := f(); err != nil {
				l.t.Error(err)
				return
			}
			select {
			case <-tick.C:
			case <-l.stopped:
				return
			}
		}
	}()
}

// append writes one batch to a file: nobody acknowledges it, and it lies there
// to be read again.
func (l *ledger) append(path string) error {
	body, _, _ := l.next()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	ids := harness.IDs{}
	ids.AddEvents(body)
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range ids {
		l.acked[id] = true
	}
	l.written += len(ids)
	return nil
}

// stop waits for the posts under way: the service must be up.
func (l *ledger) stop() {
	close(l.stopped)
	l.wg.Wait()
}

// post sends one batch of a tenant until it is acknowledged, always under the
// same key: what came in without an answer must not come in twice.
func (l *ledger) post() error {
	body, tenant, key := l.next()
	for try := 0; ; try++ {
		n, err := send(l.feed, tenant, key, body)
		if err == nil {
			return l.enter(body, n, try)
		}
		if fatal, ok := err.(wrongAnswer); ok {
			return fatal
		}
		if try > 60_000 {
			return fmt.Errorf("post %s is never acknowledged: %w", key, err)
		}
		harness.Pause(3 * time.Millisecond)
	}
}

// enter notes that a post was acknowledged.
func (l *ledger) enter(body []byte, accepted, tries int) error {
	ids := harness.IDs{}
	ids.AddEvents(body)
	if accepted != len(ids) {
		return fmt.Errorf("of %d events %d were accepted", len(ids), accepted)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range ids {
		l.acked[id] = true
	}
	l.posts++
	if tries > 0 {
		l.again++
	}
	return nil
}

// wrongAnswer is an answer that no death explains.
type wrongAnswer struct{ error }

// send posts once and gives how many events were accepted.
func send(feed, tenant, key string, body []byte) (accepted int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+feed+"/v1/ingest/canonical/"+tenant, bytes.NewReader(body))
	if err != nil {
		return 0, wrongAnswer{err}
	}
	req.Header.Set("Authorization", "Bearer key-of-"+tenant)
	req.Header.Set("Idempotency-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	var a struct{ Accepted int }
	switch {
	case resp.StatusCode == http.StatusServiceUnavailable:
		return 0, fmt.Errorf("%s: %s", resp.Status, answer)
	case resp.StatusCode != http.StatusOK:
		return 0, wrongAnswer{fmt.Errorf("post %s: %s: %s", key, resp.Status, answer)}
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, wrongAnswer{fmt.Errorf("post %s: %q: %w", key, answer, err)}
	}
	return a.Accepted, nil
}

// next is the next batch: a few events of one tenant.
func (l *ledger) next() (body []byte, tenant, key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pool) == 0 {
		l.refill()
	}
	body = l.pool[0]
	l.pool = l.pool[1:]
	var e struct {
		Tenant string `json:"tenant_id"`
		ID     string `json:"event_id"`
	}
	first, _, _ := bytes.Cut(body, []byte("\n"))
	if err := json.Unmarshal(first, &e); err != nil {
		l.t.Errorf("%q: %v", first, err)
	}
	return body, e.Tenant, "after-" + e.ID
}

// refill generates events and makes batches of them, in the order of their
// first events.
func (l *ledger) refill() {
	const n = 10_000
	l.pools++
	path := filepath.Join(l.t.TempDir(), "events.ndjson")
	// Seeds of a run lie close together; those of another are far away.
	harness.Run(l.t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(l.count),
		"--seed", fmt.Sprint(l.seed%1_000_000*1000+uint64(l.pools)), "--to", path)
	raw, err := os.ReadFile(path)
	if err != nil {
		l.t.Fatal(err)
	}
	open := map[string]int{} // the batch of a tenant that has room
	for line := range bytes.Lines(raw) {
		_, rest, _ := strings.Cut(string(line), `"tenant_id":"`)
		tenant, _, _ := strings.Cut(rest, `"`)
		at, ok := open[tenant]
		if !ok {
			at = len(l.pool)
			l.pool, open[tenant] = append(l.pool, nil), at
		}
		l.pool[at] = append(l.pool[at], line...)
		if bytes.Count(l.pool[at], []byte("\n")) >= l.batch {
			delete(open, tenant)
		}
	}
}

// settle holds what arrived somewhere to what was acknowledged: all of it, and
// nothing else. It gives how many events came again.
func (l *ledger) settle(where string, ids harness.IDs) (repeats int) {
	l.t.Helper()
	lost, foreign, example := 0, 0, ""
	for id := range l.acked {
		if ids[id] == 0 {
			lost++
			example = id
		}
	}
	for id, n := range ids {
		repeats += n - 1
		if !l.acked[id] {
			foreign++
			example = id
		}
	}
	if lost > 0 || foreign > 0 || len(l.acked) == 0 {
		l.t.Errorf("%s: %d of %d acknowledged events are lost, %d were never sent, such as %s", where, lost, len(l.acked), foreign, example)
	}
	return repeats
}
