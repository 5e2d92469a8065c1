//go:build soak

package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// TestSoakLaggard: the disk under one tenant's folder is full while the others fill the
// journal past its cap, several times over. Old segments are rewritten to what
// that tenant still wants, and it loses nothing; producers and the others'
// sinks go on; when there is room it has everything, once.
func TestSoakLaggard(t *testing.T) {
	const n, tenants, capMiB = 700_000, 50, 256
	s := harness.NewService(t, "")
	journalSettings(s, "", fmt.Sprintf("max_bytes: %dMiB", capMiB))
	s.Tenants(tenants, "  - name: drops\n    dir: {path: \"{dir}/drops\"}\n    deliver: {max_age: 1s}\n")
	const late = "t0050"
	away := mount(t, "64m")
	s.Write("tenants/"+late+".yaml", fmt.Sprintf("tenant: %s\nsinks:\n  - name: drops\n    dir: {path: %q}\n    deliver: {max_age: 1s}\n", late, away))
	disk := fill(t, away)
	s.Up(time.Minute)
	gen := harness.Start(t, "datasync generate", "generate", "--rate", "40000", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(tenants),
		"--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	rewritten := map[string]bool{}
	var most int64
	var l harness.Ledger
	harness.Until(t, 2*time.Minute, "delivery of all but the tenant that is away", func() bool {
		size, again := segments(t, filepath.Join(s.Dir, "data/journal/files-0"))
		most = max(most, size)
		for _, name := range again {
			rewritten[name] = true
		}
		var ok bool
		if l, ok = s.Ledger(); !ok {
			return false
		}
		var read, queued int64
		for _, f := range l.Feeds {
			read += f.Read
		}
		for _, k := range l.Sinks {
			if k.Tenant != late {
				queued += k.Queued
			}
		}
		return read >= n && queued == 0
	})
	if code := gen.Wait(time.Minute); code != 0 {
		t.Fatalf("generate exited with %d: %s", code, gen.Output())
	}
	var waited int64
	for _, k := range l.Sinks {
		if k.Tenant == late {
			waited = k.Queued
		}
	}
	if len(rewritten) == 0 || waited == 0 || most > capMiB<<20 {
		t.Errorf("%d segments were rewritten; %d events wait; the journal held %d MiB at most, its cap is %d", len(rewritten), waited, most>>20, capMiB)
	}
	disk.empty()
	l = s.Delivered(n, time.Minute)
	s.End(false)
	for _, k := range l.Sinks {
		if k.Expired > 0 || k.Damaged > 0 {
			t.Errorf("%+v", k)
		}
	}
	ids := harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops")
	for id, k := range harness.Drops(t, away, "drops") {
		ids[id] += k
	}
	ids.Want(t, "drops", 1, n, true)
	t.Logf("%d events past a cap of %d MiB, %d of one tenant kept meanwhile: %d segments rewritten, %d MiB held at most; lost 0, repeated 0",
		n, capMiB, waited, len(rewritten), most>>20)
}

// segments sums up a shard's files, and names those that are rewritten.
func segments(t *testing.T, dir string) (size int64, rewritten []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it was just deleted
		}
		size += info.Size()
		if strings.Count(e.Name(), ".") == 2 {
			rewritten = append(rewritten, e.Name())
		}
	}
	return size, rewritten
}
