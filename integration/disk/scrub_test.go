package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
)

// TestFaultScrub: a bit flips in what was delivered long ago. The scrub finds
// it after a start, under load, and says where; deliveries notice nothing.
func TestFaultScrub(t *testing.T) {
	const n, more = 100_000, 20_000
	s := harness.NewService(t, "")
	s.Tenants(1, "  - name: drops\n    dir: {path: \"{dir}/drops\"}\n    deliver: {max_age: 1s}\n")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(time.Minute)
	s.Delivered(n, time.Minute)
	s.End(false)
	path := filepath.Join(s.Dir, "data/journal/files-0/0000000000000001.seg") // of 64 MiB: sealed
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 4
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Up(time.Minute)
	began := time.Now()
	p := produce(t, s, events(t, 2, more), 40)
	says(t, s, time.Minute, `"incident":"damage","shard":"files-0"`)
	found := time.Since(began)
	p.wait(time.Minute)
	s.Delivered(n+more, time.Minute)
	if len(p.refusals()) > 0 {
		t.Errorf("producers noticed: %v", p.refusals())
	}
	s.End(false)
	ids := harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops")
	if len(ids) != n+more {
		t.Errorf("%d events are in drops, of %d", len(ids), n+more)
	}
	t.Logf("one bit of %d MiB flipped: found %v after the start, with %d events a second coming in", len(raw)>>20, found.Round(100*time.Millisecond), 40*perRequest)
}
