// Package dir stores drops in a folder: a reader sees a whole object or none.
package dir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"datasync/exporter/lane"
)

// tmp is the folder, below the sink's, in which objects are written before
// they are linked to their keys.
const tmp = ".datasync-tmp"

// run tells the temporary files of this process from those that earlier ones
// left: several sinks may share a folder, and one is made while another writes.
var run = strconv.FormatInt(time.Now().UnixNano(), 36) + "-"

// Sink stores drops below a folder. It is a lane.DropSink.
type Sink struct {
	root string
	own  string // prefix of this process's temporary files
	mu   sync.Mutex
	// made are folders known to exist and to be durable in their parents.
	made map[string]bool
}

// New makes a sink below root, which need not exist yet. journalID tells the
// temporary files of this instance from another's: those that it left at a
// crash are removed.
func New(root, journalID string) *Sink {
	s := &Sink{root: filepath.Clean(root), own: journalID + "-" + run, made: map[string]bool{}}
	if abs, err := filepath.Abs(root); err == nil {
		s.root = abs
	}
	files, err := os.ReadDir(filepath.Join(s.root, tmp))
	if err != nil {
		return s // nothing there, or the first Put says what is wrong
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), journalID+"-") && !strings.HasPrefix(f.Name(), s.own) {
			_ = os.Remove(filepath.Join(s.root, tmp, f.Name())) // a nuisance at worst: no reader looks here, no key depends on it
		}
	}
	return s
}

// Put is lane.DropSink's. Durable means: the file's bytes, then its name, then
// every folder above it are synced.
func (s *Sink) Put(ctx context.Context, d *lane.Drop) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path := filepath.Join(s.root, filepath.FromSlash(d.Key))
	if !filepath.IsLocal(filepath.FromSlash(d.Key)) || path == s.root {
		return &lane.Error{Verdict: lane.Away, Park: true, Class: lane.Invalid, Err: fmt.Errorf("key %q leads out of %s", d.Key, s.root)}
	}
	if err := s.put(path, d); err != nil {
		return classify(err, s.root)
	}
	return nil
}

func (s *Sink) put(path string, d *lane.Drop) error {
	if err := s.mkdir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := s.mkdir(filepath.Join(s.root, tmp)); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Join(s.root, tmp), s.own)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	if err := fill(f, d); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// promise: link does not replace: an object that is there stays as it is.
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		err = ours(path, d)
	}
	if err != nil {
		return fmt.Errorf("name %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func fill(f *os.File, d *lane.Drop) error {
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	n, err := io.Copy(f, io.NewSectionReader(d.Body, 0, d.Size))
	if err != nil {
		return err
	}
	if n != d.Size {
		return fmt.Errorf("the object ends after %d of %d bytes: %w", n, d.Size, io.ErrUnexpectedEOF)
	}
	// promise: the bytes are on disk before the object has its name.
	return f.Sync()
}

// ours says whether the file at path is this drop, stored before. The key
// carries the journal's id, so nobody else makes it in good faith; bytes that
// differ for no reason are somebody's work that we must not touch.
func ours(path string, d *lane.Drop) error {
	if info, err := os.Lstat(path); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no file", lane.ErrForeign)
	}
	if d.Differs {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if !bytes.Equal(h.Sum(nil), d.SHA256[:]) {
		return fmt.Errorf("%w: it has other bytes than drop %s", lane.ErrForeign, d.ID)
	}
	return nil
}

// mkdir makes a folder and its parents and makes each durable in its parent.
func (s *Sink) mkdir(dir string) error {
	s.mu.Lock()
	known := s.made[dir]
	s.mu.Unlock()
	if known {
		if _, err := os.Stat(dir); err == nil {
			return nil
		}
	}
	if dir != s.root && strings.HasPrefix(dir, s.root) {
		if err := s.mkdir(filepath.Dir(dir)); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make folder %s: %w", dir, err)
		}
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	if err := syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	s.mu.Lock()
	s.made[dir] = true
	if len(s.made) > 4096 { // hours and days pass: what is forgotten is only made again
		clear(s.made)
	}
	s.mu.Unlock()
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	if err := f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync folder %s: %w", dir, err), f.Close())
	}
	return f.Close()
}

// classify maps what a disk says to what the lane does about it.
func classify(err error, root string) *lane.Error {
	e := &lane.Error{Verdict: lane.Away, Class: lane.Reset, Err: err}
	switch {
	case errors.Is(err, lane.ErrForeign):
		e.Class, e.Park = lane.Invalid, true
		e.Hint = "move that file away, then retry the lane; nothing was overwritten"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Class, e.Hint = lane.Full, "make room on the disk that holds "+root
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		e.Class, e.Park, e.Hint = lane.Forbidden, true, "let the service's user write in "+root
	case errors.Is(err, syscall.EXDEV):
		e.Class, e.Park, e.Hint = lane.Invalid, true, "everything below "+root+" must be on one file system: an object is written in "+tmp+" and then linked to its name"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrNotExist):
		e.Class, e.Park, e.Hint = lane.NotFound, true, "something on the way to "+root+" is no folder"
	}
	return e
}
