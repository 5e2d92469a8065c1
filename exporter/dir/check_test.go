package dir

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"datasync/exporter/check"
	"datasync/exporter/lane"
)

func try(root string, most int64) (works bool, steps map[string]check.Step) {
	steps = map[string]check.Step{}
	r := check.New(func(s check.Step) { steps[s.Name] = s })
	return Check(context.Background(), root, check.ObjectKey("", "acme", "drops"), most, r), steps
}

// tree is every path below a folder.
func tree(t *testing.T, root string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		out = append(out, strings.TrimPrefix(path, root))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestCheckLeavesTheFolderAsItWas(t *testing.T) {
	for name, have := range map[string]string{"nothing there": "", "the folder": "a/out", "a sink's": "a/out/tenant=acme/sink=drops/dt=2026-01-01", "temporary files": "a/out/.datasync-tmp"} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			if err := os.MkdirAll(filepath.Join(base, have), 0o755); err != nil {
				t.Fatal(err)
			}
			before := fmt.Sprint(tree(t, base))
			works, steps := try(filepath.Join(base, "a/out"), 1<<20)
			if !works || steps["space"].Note || !strings.Contains(steps["space"].Seen, "GiB free") || !strings.Contains(steps["write"].Seen, "can write") {
				t.Errorf("%v, %+v", works, steps)
			}
			if after := fmt.Sprint(tree(t, base)); after != before {
				t.Errorf("before: %s\nafter: %s", before, after)
			}
		})
	}
}

func TestCheckOfAFolderThatCannotBe(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ root, step string }{
		"a file":       {file, "folder"},
		"below a file": {filepath.Join(file, "out"), "folder"},
	} {
		t.Run(name, func(t *testing.T) {
			works, steps := try(c.root, 1)
			if e := steps[c.step].Err; works || e == nil || e.Class != lane.NotFound || !e.Park || e.Hint == "" {
				t.Errorf("%v, %+v", works, steps)
			}
		})
	}
	// A folder of the sink that is a file: what was made beside it is gone again.
	root := filepath.Join(base, "out")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "tenant=acme"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	works, steps := try(root, 1)
	if e := steps["write"].Err; works || e == nil || e.Class != lane.NotFound {
		t.Errorf("%v, %+v", works, steps)
	}
	if got := tree(t, root); len(got) != 2 {
		t.Errorf("left: %v", got)
	}
}

func TestCheckNotesAFullDisk(t *testing.T) {
	works, steps := try(t.TempDir(), math.MaxInt64/4)
	if !works || !steps["space"].Note || !strings.Contains(steps["space"].Seen, "max_bytes") {
		t.Errorf("%v, %+v", works, steps)
	}
}

func TestTwoFileSystemsAreToldOf(t *testing.T) {
	e := classify(&os.LinkError{Op: "link", Old: "/a", New: "/b", Err: syscall.EXDEV}, "/out")
	if !errors.Is(e, syscall.EXDEV) || e.Class != lane.Invalid || !e.Park || !strings.Contains(e.Hint, "one file system") {
		t.Errorf("%+v", e)
	}
}
