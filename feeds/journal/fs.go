package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// FS is the seam between the journal and the disk: all that the journal does
// to files goes through it, so that tests can crash it, fill it and make it
// lie. Implementations are safe for concurrent use.
type FS interface {
	// Create makes a new file for reading and writing; fs.ErrExist where it exists.
	Create(path string) (File, error)
	// Open opens an existing file, for writing too where write is set.
	Open(path string, write bool) (File, error)
	// Remove unlinks; durable only after SyncDir of the folder.
	Remove(path string) error
	// List names the files of a folder, sorted; MkdirAll it first.
	List(dir string) ([]fs.FileInfo, error)
	// Dir makes a folder with its parents (sync false) or makes the entries of
	// an existing one durable (sync true).
	Dir(path string, sync bool) error
}

// File is an open file of an FS.
type File interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	// Sync makes data and size durable (fdatasync).
	Sync() error
	// Resize changes the size: up by allocating (fallocate), down by truncating.
	Resize(size int64) error
	Close() error
}

// Locker is what an FS may do beside: keep a second process out of a folder.
type Locker interface {
	// Lock takes path for this process until Close; an error where another
	// holds it.
	Lock(path string) (io.Closer, error)
}

// OS is the operating system's file system.
func OS() FS { return osFS{} }

type osFS struct{}

func (osFS) Create(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Open(path string, write bool) (File, error) {
	mode := os.O_RDONLY
	if write {
		mode = os.O_RDWR
	}
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Remove(path string) error { return os.Remove(path) }

func (osFS) List(dir string) ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := make([]fs.FileInfo, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

func (osFS) Dir(path string, sync bool) error {
	if !sync {
		return os.MkdirAll(path, 0o700)
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

func (osFS) Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is held by another process (is datasync running on this folder?): %w", path, err), f.Close())
	}
	return f, nil
}

type osFile struct{ *os.File }

// writePiece is the most that one system call writes. Linux (6.18, ext4) takes
// four to six times the processor time a byte for a write of more than 2 MiB:
// DESIGN.md, "Measured".
const writePiece = 1 << 20

// WriteAt writes p in pieces; n is what was written where one fails.
func (f osFile) WriteAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		k, err := f.File.WriteAt(p[n:min(n+writePiece, len(p))], off+int64(n))
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return wrapPath("fdatasync", f.Name(), err)
		}
	}
}

// Resize allocates, so that a later write can't meet a full disk and its fsync
// has no blocks to find; where the file system cannot, it extends.
func (f osFile) Resize(size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size <= info.Size() {
		return f.Truncate(size)
	}
	for {
		err = unix.Fallocate(int(f.Fd()), 0, info.Size(), size-info.Size())
		if err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return f.Truncate(size)
	}
	return wrapPath("fallocate", f.Name(), err)
}

func wrapPath(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
