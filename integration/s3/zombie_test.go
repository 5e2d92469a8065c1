package s3

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// TestFaultZombie: an instance is frozen with puts under way, its data_dir
// copied to where another takes over, and it is thawed: what is stored stays as
// it is, every event of the load is there once, and the one that comes too late
// for a drop of its own says so and keeps its events.
func TestFaultZombie(t *testing.T) {
	const seed, rounds, tenants, n = 41, 3, 8, 12_000
	harness.Until(t, 2*time.Minute, "hour with time left", func() bool { // twins meet on a key within its hour only (docs/s3.md)
		return time.Now().Minute() < 58
	})
	servers.Credentials(t)
	g := newGateway(t, "lake")
	s := harness.NewService(t, "")
	drops := t.TempDir()
	s.Tenants(tenants, fmt.Sprintf(`  - name: s3
    s3: {bucket: lake, region: us-east-1, endpoint: %q, path_style: true}
    deliver: {max_events: 40, max_age: 2s}
  - name: dir
    dir: {path: %q}
    compression: zstd
    deliver: {max_events: 40, max_age: 2s}
`, g.URL(), drops))
	gen := harness.Start(t, "datasync generate", "generate", "--rate", "1000", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(tenants),
		"--seed", fmt.Sprint(seed), "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	now, frozen := s, []*harness.Service{}
	for range rounds {
		harness.Pause(1500 * time.Millisecond)
		now.Signal(syscall.SIGSTOP)
		frozen = append(frozen, now)
		now = takeOver(t, now)
		now.Up(30 * time.Second)
	}
	harness.Pause(time.Second)
	before := stored(t, g, drops)
	for _, z := range frozen {
		z.Signal(syscall.SIGCONT)
	}
	if code := gen.Wait(time.Minute); code != 0 {
		t.Fatalf("generate exited with %d: %s", code, gen.Output())
	}
	foreign := 0
	harness.Until(t, 2*time.Minute, "instance whose lanes are all done or too late", func() bool {
		foreign = 0
		for _, z := range append(frozen, now) {
			var l struct {
				Lanes []struct {
					State, Message string
					Behind         struct{ Events int64 }
				}
			}
			if !harness.Get(t.Context(), "http://"+z.Admin+"/v1/lanes", &l) || len(l.Lanes) != 2*tenants {
				return false
			}
			for _, one := range l.Lanes {
				late := one.State == "parked" && strings.Contains(one.Message, "other bytes")
				if late {
					foreign++
				}
				if !late && one.Behind.Events > 0 {
					return false
				}
			}
		}
		return true
	})
	for _, z := range append(frozen, now) {
		z.End(false)
	}
	after := stored(t, g, drops)
	changed := 0
	for key, sum := range before {
		if after[key] != sum {
			changed++
			t.Errorf("%s was changed", key)
		}
	}
	harness.Drops(t, filepath.Join(g.Root, "lake"), "s3").Want(t, "S3", seed, n, true)
	harness.Drops(t, drops, "dir").Want(t, "folder", seed, n, true)
	g.tidy("lake")
	t.Logf("seed %d: %d instances frozen and thawed after %d objects: %d changed; %d events to two sinks: lost 0, repeated 0 in %d objects; %d lanes came too late and say so",
		seed, rounds, len(before), changed, n, len(after), foreign)
	if foreign == 0 {
		t.Error("no lane came too late: nothing was tried")
	}
}

// takeOver makes the same service of a copy of the frozen one's data_dir, on
// other ports, over the same files and sinks.
func takeOver(t *testing.T, z *harness.Service) *harness.Service {
	t.Helper()
	s := harness.NewService(t, "")
	for _, dir := range []string{"data", "tenants"} {
		if out, err := exec.Command("cp", "-a", filepath.Join(z.Dir, dir), s.Dir+"/").CombinedOutput(); err != nil {
			t.Fatalf("copy: %v\n%s", err, out)
		}
	}
	raw, err := os.ReadFile(filepath.Join(s.Dir, "datasync.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(filepath.Join(z.Dir, "datasync.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	in := func(raw []byte) string {
		_, rest, _ := strings.Cut(string(raw), `path: "`)
		path, _, _ := strings.Cut(rest, `"`)
		return path
	}
	s.Write("datasync.yaml", strings.ReplaceAll(string(raw), in(raw), in(old)))
	return s
}

// stored is what both stores hold: the checksum of each object, by its path.
func stored(t *testing.T, g *gateway, drops string) map[string][32]byte {
	t.Helper()
	got := map[string][32]byte{}
	for _, root := range []string{filepath.Join(g.Root, "lake"), drops} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.Contains(path, "/.") {
				return err
			}
			raw, err := os.ReadFile(path)
			got[path] = sha256.Sum256(raw)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return got
}
