package engine

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
)

// everyFormat is a sink of each format and compression.
func everyFormat() (sinks string, n int) {
	for _, f := range [][2]string{{"ndjson", "none"}, {"ndjson", "gzip"}, {"ndjson", "zstd"}, {"parquet", "none"}, {"parquet", "snappy"}, {"parquet", "zstd"}} {
		n++
		sinks += fmt.Sprintf("  - name: %[1]s-%[2]s\n    dir: {path: \"{dir}/out/{tenant}\"}\n    format: %[1]s\n    compression: %[2]s\n    deliver: {max_age: 2s, manifest: true}\n", f[0], f[1])
	}
	return sinks, n
}

// TestFaultTheSameBytes: a drop that was decided and not stored when the
// process was killed is the same object, byte for byte, whichever process
// makes it: with one processor or eight, at the first try or after another kill.
func TestFaultTheSameBytes(t *testing.T) {
	const seed, tenants, n = 61, 3, 12_000
	sinks, kinds := everyFormat()
	s := harness.NewService(t, "")
	s.Write("out", "no folder yet\n")
	s.Tenants(tenants, sinks)
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(tenants), "--seed", fmt.Sprint(seed), "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	var l struct{ Lanes []struct{ State string } }
	harness.Until(t, time.Minute, "drop decided by each lane", func() bool {
		parked := 0
		if harness.Get(t.Context(), "http://"+s.Admin+"/v1/lanes", &l) {
			for _, one := range l.Lanes {
				if one.State == "parked" {
					parked++
				}
			}
		}
		return parked == tenants*kinds
	})
	s.End(true)
	var first map[string][32]byte
	runs := 0
	for _, procs := range []string{"1", "2", "8", "2"} {
		t.Setenv("GOMAXPROCS", procs)
		runs++
		c := harness.NewService(t, "")
		c.Tenants(tenants, sinks)
		if out, err := exec.Command("cp", "-a", filepath.Join(s.Dir, "data"), c.Dir+"/").CombinedOutput(); err != nil {
			t.Fatalf("copy: %v\n%s", err, out)
		}
		if runs == 4 {
			c.Up(30 * time.Second)
			c.End(true) // somewhere on the way
		}
		c.Up(30 * time.Second)
		c.Delivered(n, time.Minute)
		c.End(false)
		got := sums(t, filepath.Join(c.Dir, "out"))
		if first == nil {
			first = got
			for _, f := range []string{"none", "gzip", "zstd"} {
				harness.Drops(t, filepath.Join(c.Dir, "out"), "ndjson-"+f).Want(t, f, seed, n, true)
			}
		}
		for key, sum := range got {
			if first[key] != sum {
				t.Errorf("run %d, on %s processors: %s differs", runs, procs, key)
			}
		}
		if len(got) != len(first) || len(got) < 2*tenants*kinds {
			t.Errorf("run %d, on %s processors: %d objects, %d in the first", runs, procs, len(got), len(first))
		}
	}
	t.Logf("seed %d: %d events, %d lanes of %d formats killed with a drop decided; %d processes on 1, 2 and 8 processors: the same %d objects and manifests, byte for byte", seed, n, tenants*kinds, kinds, runs, len(first))
}

// sums are the checksums of the files below a folder that readers see.
func sums(t *testing.T, root string) map[string][32]byte {
	t.Helper()
	got := map[string][32]byte{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		got[rel] = sha256.Sum256(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}
