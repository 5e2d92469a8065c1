package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"syscall"

	"datasync/exporter/check"
	"datasync/exporter/lane"
)

// Check tries a sink below root out with an object under key, which it takes
// away again with every folder that it had to make, and says whether a drop
// would be stored. most is how large a drop may become.
func Check(ctx context.Context, root, key string, most int64, r *check.Run) bool {
	s := New(root, "test-"+check.Token())
	path := filepath.Join(s.root, filepath.FromSlash(key))
	// What is made is taken away again: it belongs to who runs the test, and the
	// service may be somebody else. A folder in which something is by then stays.
	defer func(made []string) {
		for _, d := range made {
			_ = os.Remove(d)
		}
	}(s.missing(filepath.Dir(path)))
	return r.Do("folder", s.look) &&
		r.Do("write", func() check.Step { return s.try(ctx, check.Object(key)) }) &&
		r.Do("space", func() check.Step { return s.space(most) }) &&
		r.Do("remove", func() check.Step { return remove(path) })
}

// missing are the folders that a Put below dir would make, inner ones first.
func (s *Sink) missing(dir string) (out []string) {
	for _, d := range []string{filepath.Join(s.root, tmp), dir} {
		for ; d != filepath.Dir(d); d = filepath.Dir(d) {
			if _, err := os.Stat(d); errors.Is(err, fs.ErrNotExist) && !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}

// look says what is at the folder's place.
func (s *Sink) look() check.Step {
	info, err := os.Stat(s.root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return check.Step{Seen: s.root + " is not there; it is made at the first drop"}
	case err != nil:
		return check.Step{Err: classify(fmt.Errorf("look at %s: %w", s.root, err), s.root)}
	case !info.IsDir():
		return check.Step{Err: classify(fmt.Errorf("look at %s: %w", s.root, syscall.ENOTDIR), s.root)}
	}
	return check.Step{Seen: fmt.Sprintf("%s, %s", s.root, info.Mode())}
}

// try stores an object as a drop is stored.
func (s *Sink) try(ctx context.Context, d *lane.Drop) check.Step {
	var fail *lane.Error
	if errors.As(s.Put(ctx, d), &fail) {
		return check.Step{Err: fail}
	}
	who := fmt.Sprint("user ", os.Getuid())
	if u, err := user.Current(); err == nil {
		who = "user " + u.Username
	}
	return check.Step{Seen: fmt.Sprintf("%s can write and name objects there, all on one file system", who)}
}

// space is what the disk has left.
func (s *Sink) space(most int64) check.Step {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.root, &st); err != nil {
		return check.Step{Note: true, Seen: fmt.Sprintf("not known: %v", err)}
	}
	free, all := uint64(st.Bavail)*uint64(st.Bsize), uint64(st.Blocks)*uint64(st.Bsize)
	step := check.Step{Seen: fmt.Sprintf("%.1f of %.1f GiB free", float64(free)/(1<<30), float64(all)/(1<<30))}
	if free < uint64(2*most) {
		step.Note = true
		step.Seen += fmt.Sprintf(": little, for a drop may have %.1f MiB (deliver.max_bytes)", float64(most)/(1<<20))
	}
	return step
}

// remove takes the object away.
func remove(path string) check.Step {
	if err := os.Remove(path); err != nil {
		return check.Step{Note: true, Seen: fmt.Sprintf("%s stays: %v", path, err)}
	}
	return check.Step{Seen: "nothing is left behind"}
}
