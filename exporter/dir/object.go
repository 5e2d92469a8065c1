package dir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"datasync/exporter/lane"
)

// errUnnamed: this file system, or this system, has no files without a name.
var errUnnamed = errors.New("no files without a name here")

// object is the file of a drop on its way to its name.
type object struct {
	*os.File
	temp string // its name until then; empty: it has none
}

// unnamed makes a file that is in no folder: a crash leaves nothing of it, and
// no other folder is changed for it.
func unnamed(dir string) (*object, error) {
	f, err := os.OpenFile(dir, os.O_WRONLY|unix.O_TMPFILE, 0o644)
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EINVAL) {
		return nil, errUnnamed
	}
	if err != nil {
		return nil, err
	}
	return &object{File: f}, nil
}

// named makes a file with a name that begins with prefix in dir, which it makes.
func named(dir, prefix string) (*object, error) {
	f, err := os.CreateTemp(dir, prefix)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err = os.CreateTemp(dir, prefix)
	}
	if err != nil {
		return nil, err
	}
	return &object{f, f.Name()}, nil
}

// buffers are for what is copied from a drop's body to its file.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// fill writes the drop's bytes, durable on return.
func (o *object) fill(d *lane.Drop) error {
	if err := o.Chmod(0o644); err != nil { // whatever the umask: others are to read it
		return err
	}
	buffer := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buffer)
	n, err := io.CopyBuffer(struct{ io.Writer }{o.File}, io.NewSectionReader(d.Body, 0, d.Size), buffer[:])
	if err != nil {
		return err
	}
	if n != d.Size {
		return fmt.Errorf("the object ends after %d of %d bytes: %w", n, d.Size, io.ErrUnexpectedEOF)
	}
	// promise: the bytes are on disk before the object has its name.
	return o.Sync()
}

// link gives the file its name; fs.ErrExist where there is something of that
// name, errUnnamed where that needs a name to begin with.
func (o *object) link(path string) error {
	if o.temp != "" {
		return os.Link(o.temp, path)
	}
	err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", o.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	return errUnnamed // no /proc, say, or a rule against it: how it goes with a name is what counts
}

// close ends the object; where it did not get its name, nothing of it stays.
// Its bytes were synced or are not wanted: no error tells more.
func (o *object) close() {
	_ = o.Close()
	if o.temp != "" {
		_ = os.Remove(o.temp) // a nuisance at worst: no reader looks there, no key depends on it
	}
}
