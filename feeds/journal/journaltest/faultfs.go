package journaltest

import (
	"io"
	"io/fs"
	"sync"

	"datasync/feeds/journal"
)

// Op names a call of journal.FS or journal.File.
type Op string

// The calls.
const (
	Create  Op = "create"
	Open    Op = "open"
	Remove  Op = "remove"
	List    Op = "list"
	Mkdir   Op = "mkdir"
	SyncDir Op = "syncdir"
	Read    Op = "read"
	Write   Op = "write"
	Sync    Op = "sync"
	Resize  Op = "resize"
)

// FaultFS passes calls on to another file system unless Fail says otherwise.
// It is safe for concurrent use.
type FaultFS struct {
	journal.FS
	mu   sync.Mutex
	fail func(op Op, path string) error
	// counts of calls by kind
	calls map[Op]int
}

// NewFaultFS wraps a file system.
func NewFaultFS(f journal.FS) *FaultFS { return &FaultFS{FS: f, calls: map[Op]int{}} }

// Fail sets what each call is asked before it is made; an error is its answer.
// nil ends the faults.
func (f *FaultFS) Fail(fail func(op Op, path string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// Calls counts the calls of a kind so far.
func (f *FaultFS) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

func (f *FaultFS) ask(op Op, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	if f.fail == nil {
		return nil
	}
	if err := f.fail(op, path); err != nil {
		return &fs.PathError{Op: string(op), Path: path, Err: err}
	}
	return nil
}

// Create implements journal.FS.
func (f *FaultFS) Create(path string) (journal.File, error) {
	if err := f.ask(Create, path); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(path)
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f, path}, nil
}

// Open implements journal.FS.
func (f *FaultFS) Open(path string, write bool) (journal.File, error) {
	if err := f.ask(Open, path); err != nil {
		return nil, err
	}
	file, err := f.FS.Open(path, write)
	if err != nil {
		return nil, err
	}
	return &faultFile{file, f, path}, nil
}

// Remove implements journal.FS.
func (f *FaultFS) Remove(path string) error {
	if err := f.ask(Remove, path); err != nil {
		return err
	}
	return f.FS.Remove(path)
}

// List implements journal.FS.
func (f *FaultFS) List(dir string) ([]fs.FileInfo, error) {
	if err := f.ask(List, dir); err != nil {
		return nil, err
	}
	return f.FS.List(dir)
}

// Dir implements journal.FS.
func (f *FaultFS) Dir(path string, sync bool) error {
	op := Mkdir
	if sync {
		op = SyncDir
	}
	if err := f.ask(op, path); err != nil {
		return err
	}
	return f.FS.Dir(path, sync)
}

// Lock implements journal.Locker where the wrapped file system does.
func (f *FaultFS) Lock(path string) (io.Closer, error) {
	if l, ok := f.FS.(journal.Locker); ok {
		return l.Lock(path)
	}
	return io.NopCloser(nil), nil
}

type faultFile struct {
	journal.File
	f    *FaultFS
	path string
}

func (x *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := x.f.ask(Read, x.path); err != nil {
		return 0, err
	}
	return x.File.ReadAt(p, off)
}

func (x *faultFile) WriteAt(p []byte, off int64) (int, error) {
	if err := x.f.ask(Write, x.path); err != nil {
		// A write that fails may have got half-way.
		n, _ := x.File.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return x.File.WriteAt(p, off)
}

func (x *faultFile) Sync() error {
	if err := x.f.ask(Sync, x.path); err != nil {
		return err
	}
	return x.File.Sync()
}

func (x *faultFile) Resize(size int64) error {
	if err := x.f.ask(Resize, x.path); err != nil {
		return err
	}
	return x.File.Resize(size)
}
