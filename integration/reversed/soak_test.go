//go:build soak

package reversed

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// seeds is how many of the simulation have to find a reversal; a hole of two
// locks' width takes many.
const seeds = 600

// TestSoakReversed takes each line that keeps the promise away, and demands that
// the tests which are said to notice do.
func TestSoakReversed(t *testing.T) {
	locks := interleaving(t)
	found := make([]string, len(reversals))
	t.Run("lines", func(t *testing.T) {
		for i := range reversals {
			r := &reversals[i]
			t.Run(fmt.Sprintf("%02d %s", i, r.file), func(t *testing.T) {
				t.Parallel()
				found[i] = r.found(t, locks)
			})
		}
	})
	var b strings.Builder
	for i, r := range reversals {
		is, _, _ := strings.Cut(strings.TrimSpace(r.is), "\n")
		fmt.Fprintf(&b, "%-28s %-60.60s %s\n", r.file, is, found[i])
	}
	t.Logf("%d lines reversed\n%s", len(reversals), b.String())
}

// found has everybody look for a reversal and says who found it.
func (r *reversal) found(t *testing.T, locks map[string]string) string {
	dir := t.TempDir()
	changed, source := filepath.Join(dir, "reversed.go"), absolute(t, filepath.Join(root, r.file))
	if err := os.WriteFile(changed, []byte(r.apply(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := overlay(t, filepath.Join(dir, "plain.json"), map[string]string{source: changed})
	var by []string
	if r.own != "-" {
		// rapid leaves what failed in the package, for the next run to begin with.
		left := filepath.Join(root, path.Dir(r.file), "testdata", "rapid")
		if _, err := os.Stat(left); os.IsNotExist(err) {
			t.Cleanup(func() { _ = os.RemoveAll(left) })
		}
		by = append(by, r.fails(t, nil, "-overlay", plain, "-timeout", "4m", "-run", r.own, "./"+path.Dir(r.file)))
	}
	if r.seeds {
		by = append(by, r.fails(t, seedsOf(), "-overlay", plain, "-timeout", "10m", "-run", "^TestSimulation$", "./exporter/simulation"))
	}
	if r.locks {
		both := map[string]string{source: changed}
		for k, v := range locks {
			both[k] = v
		}
		file := overlay(t, filepath.Join(dir, "locks.json"), both)
		by = append(by, "interleaved "+r.fails(t, seedsOf(), "-overlay", file, "-tags", "interleave", "-timeout", "10m", "-run", "^TestSimulation$", "./exporter/simulation"))
	}
	if r.elsewhere != "" {
		program := filepath.Join(dir, "datasync")
		if out, err := run(root, nil, "build", "-overlay", plain, "-o", program, "./cmd/datasync"); err != nil {
			t.Fatalf("build it: %v\n%s", err, out)
		}
		in, test, _ := strings.Cut(r.elsewhere, " ")
		by = append(by, r.failsIn(t, "..", []string{harness.BinaryVariable + "=" + program}, "-timeout", "10m", "-run", "^"+test+"$", in))
	}
	return strings.Join(by, "; ")
}

func seedsOf() []string { return []string{fmt.Sprintf("SIM_SEEDS=%d", seeds)} }

func (r *reversal) fails(t *testing.T, env []string, args ...string) string {
	return r.failsIn(t, root, env, args...)
}

var (
	failure = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	seed    = regexp.MustCompile(`seed \d+`)
)

// failsIn runs tests that have to fail, and says which did first.
func (r *reversal) failsIn(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	out, err := run(dir, env, append([]string{"test", "-count=1", "-vet=off"}, args...)...)
	switch {
	case err == nil:
		t.Errorf("%s: %q became %q, and nobody noticed: go test %s", r.file, r.is, r.becomes, strings.Join(args, " "))
		return "NOBODY"
	case strings.Contains(out, "panic: test timed out"):
		return "a test that never ends"
	}
	m := failure.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("%s: this is no test that fails: %v\n%.2000s", r.file, err, out)
	}
	if m[1] == "TestSimulation" {
		return seed.FindString(out)
	}
	return m[1]
}

func run(dir string, env []string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// interleaving is the overlay in which every lock may be where others go first.
func interleaving(t *testing.T) map[string]string {
	dir := t.TempDir()
	if out, err := run(root, nil, "run", "./exporter/simulation/interleave", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "overlay.json"))
	if err != nil {
		t.Fatal(err)
	}
	var o struct{ Replace map[string]string }
	if err := json.Unmarshal(b, &o); err != nil {
		t.Fatal(err)
	}
	return o.Replace
}

func overlay(t *testing.T, file string, replace map[string]string) string {
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func absolute(t *testing.T, path string) string {
	p, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
