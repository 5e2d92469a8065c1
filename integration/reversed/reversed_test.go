// Package reversed holds, for each line that keeps the promise, what does not keep it, and which tests notice.
package reversed

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// apply gives a file of the product with a reversal in it.
func (r *reversal) apply(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, r.file))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), r.is); n != 1 {
		t.Fatalf("%s has %q %d times: the table is to follow the code", r.file, r.is, n)
	}
	return strings.Replace(string(b), r.is, r.becomes, 1)
}

// near is how many lines may lie between the mark of a promise and what keeps it.
const near = 8

// TestEveryPromiseHasAReversal: what keeps the promise is known, line by line, so
// that the soak can take each away and see whether anybody notices.
func TestEveryPromiseHasAReversal(t *testing.T) {
	kept := map[string][][2]int{} // the lines that are reversed, by file
	for i := range reversals {
		r := &reversals[i]
		r.apply(t)
		b, err := os.ReadFile(filepath.Join(root, r.file))
		if err != nil {
			t.Fatal(err)
		}
		before, _, _ := strings.Cut(string(b), r.is)
		from := 1 + strings.Count(before, "\n")
		kept[r.file] = append(kept[r.file], [2]int{from, from + strings.Count(r.is, "\n")})
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			if d.IsDir() && (d.Name() == "integration" || strings.HasPrefix(d.Name(), ".") && path != root) {
				return fs.SkipDir
			}
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, _ := filepath.Rel(root, path)
		n := 0
		for line := range strings.Lines(string(b)) {
			if n++; !strings.Contains(line, "// promise: ") {
				continue
			}
			found := false
			for _, k := range kept[filepath.ToSlash(file)] {
				found = found || k[0] <= n+near && n-near <= k[1]
			}
			if !found {
				t.Errorf("%s:%d: no reversal for %s", file, n, strings.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
