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
	"sync"
	"syscall"

	"datasync/exporter/lane"
)

// Sink stores drops below a folder. It is a lane.DropSink.
type Sink struct {
	root    string
	folders *Folders
	mu      sync.Mutex
	// recent are the folders of the last drops: they are durable, with all that
	// are above them. Two, for shards go from one hour to the next in any order.
	recent [2]string
}

// New makes a sink that shares its folders with none, see Folders.Sink.
func New(root, journalID string) *Sink { return NewFolders(journalID).Sink(root) }

// Put is lane.DropSink's. Durable means: the file's bytes, then its name, and
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
	dir := filepath.Dir(path)
	if s.durable(dir) {
		switch err := s.store(path, d); {
		case errors.Is(err, fs.ErrNotExist): // a person removed it, or one above it
			s.forget()
		case err != nil || s.durable(dir): // else it was removed, and another drop made it anew
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder %s: %w", dir, err)
	}
	if err := s.store(path, d); err != nil {
		return err
	}
	return s.settle(dir)
}

// store writes the object and gives it its name, both durable on return.
func (s *Sink) store(path string, d *lane.Drop) error {
	err := write(path, d, func() (*object, error) { return s.folders.unnamed(filepath.Dir(path)) })
	if errors.Is(err, errUnnamed) {
		err = write(path, d, func() (*object, error) { return named(filepath.Join(s.root, tmp), s.folders.own) })
	}
	if err != nil {
		return err
	}
	return s.folders.sync(filepath.Dir(path))
}

func write(path string, d *lane.Drop, create func() (*object, error)) error {
	o, err := create()
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer o.close()
	if err := o.fill(d); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// promise: link does not replace: an object that is there stays as it is.
	err = o.link(path)
	if errors.Is(err, fs.ErrExist) {
		err = ours(path, d)
	}
	if err != nil {
		return fmt.Errorf("name %s: %w", path, err)
	}
	return nil
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

// durable says whether dir is known to be durable with all above it.
func (s *Sink) durable(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.recent {
		if len(r) >= len(dir) && r[:len(dir)] == dir && (len(r) == len(dir) || r[len(dir)] == '/') {
			return true
		}
	}
	return false
}

func (s *Sink) forget() {
	s.mu.Lock()
	s.recent = [2]string{}
	s.mu.Unlock()
	s.folders.forget(s.root)
}

// settle makes dir, and each folder above it, durable in its parent. It comes
// after the object: what its syncs made durable, those up here need not wait for.
func (s *Sink) settle(dir string) error {
	for d := dir; !s.durable(d); d = filepath.Dir(d) {
		if d == s.root {
			if err := s.folders.settle(d); err != nil {
				return err
			}
			break
		}
		if err := s.folders.sync(filepath.Dir(d)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recent[0] != dir && s.recent[1] != dir {
		s.recent = [2]string{dir, s.recent[0]}
	}
	return nil
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
