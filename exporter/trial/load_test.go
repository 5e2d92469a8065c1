package trial

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// door takes what is posted, as the HTTP feed does.
type door struct {
	mu     sync.Mutex
	lines  map[string][]string // by tenant
	seen   map[string]bool     // idempotency keys answered with 200
	keys   map[string]bool
	refuse int // so many requests get 503
	status int // where not 0, all get this
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys[r.Header.Get("Authorization")] = true
	switch {
	case d.status != 0:
		w.WriteHeader(d.status)
		fmt.Fprint(w, `{"error":"it is so"}`)
		return
	case d.refuse > 0:
		d.refuse--
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case d.seen[r.Header.Get("Idempotency-Key")]:
		panic("a key came twice")
	}
	d.seen[r.Header.Get("Idempotency-Key")] = true
	tenant := strings.TrimPrefix(r.URL.Path, "/v1/ingest/canonical/")
	d.lines[tenant] = append(d.lines[tenant], strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")...)
	fmt.Fprint(w, `{"accepted":1,"rejected":[{"index":0,"reason":"x"}]}`)
}

func newDoor(t *testing.T) (*door, string) {
	d := &door{lines: map[string][]string{}, seen: map[string]bool{}, keys: map[string]bool{}}
	s := httptest.NewServer(d)
	t.Cleanup(s.Close)
	return d, s.URL
}

func TestLoadOverHTTP(t *testing.T) {
	d, to := newDoor(t)
	d.refuse = 3
	s, err := Load(t.Context(), LoadOptions{Generator: GeneratorOptions{Tenants: 7, Seed: 3}, Count: 5000, To: to, Key: "k-{tenant}"})
	if err != nil {
		t.Fatal(err)
	}
	total, ids := 0, map[string]bool{}
	for tenant, lines := range d.lines {
		last := 0
		for _, l := range lines {
			_, rest, _ := strings.Cut(l, "gen-3-")
			var n int
			if _, err := fmt.Sscanf(rest, "%d", &n); err != nil || n <= last || !strings.Contains(l, `"tenant_id":"`+tenant+`"`) {
				t.Fatalf("of %s, behind %d: %s", tenant, last, l)
			}
			last = n
			ids[fmt.Sprint(n)] = true
		}
		total += len(lines)
		if !d.keys["Bearer k-"+tenant] {
			t.Errorf("no key of %s in %v", tenant, d.keys)
		}
	}
	if total != 5000 || len(ids) != 5000 || s.Events != 5000 || s.Retries != 3 || s.Rejected != s.Requests {
		t.Errorf("%d lines, %d ids; %s", total, len(ids), s)
	}
}

func TestLoadEndsWhereItIsRefusedForGood(t *testing.T) {
	d, to := newDoor(t)
	d.status = http.StatusForbidden
	_, err := Load(t.Context(), LoadOptions{Count: 100_000, To: to, Key: "k"})
	if err == nil || !strings.Contains(err.Error(), "403") || !strings.Contains(err.Error(), "it is so") {
		t.Errorf("%v", err)
	}
	d.status = http.StatusServiceUnavailable
	if _, err = Load(t.Context(), LoadOptions{Count: 1, To: to, GiveUp: time.Nanosecond}); err == nil {
		t.Error("it goes on for ever")
	}
	if _, err = Load(t.Context(), LoadOptions{Count: 1, To: "http://"}); err == nil {
		t.Error("a URL without host")
	}
}

func TestLoadKeepsTheRateAndEndsWithTheContext(t *testing.T) {
	d, to := newDoor(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	s, err := Load(ctx, LoadOptions{Rate: 400, To: to})
	if err != nil || s.Events < 50 || s.Events > 250 {
		t.Errorf("%s: %v", s, err)
	}
	total := 0
	for _, l := range d.lines {
		total += len(l)
	}
	if int64(total) != s.Events {
		t.Errorf("%d arrived, %d counted", total, s.Events)
	}
}

func TestLoadToFileAndOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.ndjson")
	var out bytes.Buffer
	for _, to := range []string{path, "-"} {
		s, err := Load(t.Context(), LoadOptions{Generator: GeneratorOptions{Seed: 1}, Count: 2500, To: to, Out: &out})
		if err != nil || s.Events != 2500 {
			t.Fatalf("%s: %s %v", to, s, err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || bytes.Count(b, []byte("\n")) != 2500 || bytes.Count(out.Bytes(), []byte("\n")) != 2500 {
		t.Errorf("lines: file %d, out %d, %v", bytes.Count(b, []byte("\n")), bytes.Count(out.Bytes(), []byte("\n")), err)
	}
	if _, err := Load(t.Context(), LoadOptions{Count: 1, To: filepath.Join(path, "x")}); err == nil {
		t.Error("a file below a file")
	}
}
