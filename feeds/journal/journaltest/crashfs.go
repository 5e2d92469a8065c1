// Package journaltest holds file systems that crash, fill up and fail on
// request, to test the journal and what stands on it.
package journaltest

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"datasync/feeds/journal"
)

// ErrCrashed is what every call answers after the power went.
var ErrCrashed = errors.New("the machine has crashed")

const sector = 512

// CrashFS is a file system in memory that knows what was synced. After Crash
// only that survives, and a random part of the rest: whole writes, torn ones
// (by sectors), names. It is safe for concurrent use. Allocated space takes
// memory: give journal.Options a small ReserveBytes and SegmentBytes.
type CrashFS struct {
	mu      sync.Mutex
	rng     *rand.Rand
	dirs    map[string]bool
	names   map[string]*node // now
	durable map[string]*node // after a crash, unless luck says otherwise
	ops     int
	stopAt  int // crash before this operation; 0 never
	crashed bool
	locked  map[string]bool
}

// node is a file; its bytes as they are now, as they are on disk, and what was
// done to it since the last sync, in order.
type node struct {
	now, disk []byte
	pending   []change
	shared    bool // both are somebody else's bytes, to be copied before a change
}

func (n *node) own() {
	if n.shared {
		n.now, n.disk, n.shared = slices.Clone(n.now), slices.Clone(n.disk), false
	}
}

type change struct {
	off  int64
	data []byte
	size int64 // of a resize; -1 for a write
}

// NewCrashFS is an empty file system; seed decides what survives a crash.
func NewCrashFS(seed uint64) *CrashFS {
	return &CrashFS{rng: rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)), dirs: map[string]bool{},
		names: map[string]*node{}, durable: map[string]*node{}, locked: map[string]bool{}}
}

// Ops counts the calls that changed or synced something so far.
func (c *CrashFS) Ops() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ops
}

// StopAt makes the power go before the n-th such call from the beginning.
func (c *CrashFS) StopAt(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopAt = n
}

// Crash cuts the power now.
func (c *CrashFS) Crash() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashed = true
}

// Reboot gives the file system as it is found after the crash. The old one
// goes on failing.
func (c *CrashFS) Reboot() *CrashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashed = true
	next := NewCrashFS(c.rng.Uint64())
	for d := range c.dirs {
		next.dirs[d] = true
	}
	survivors := map[string]*node{}
	for p, n := range c.durable {
		survivors[p] = n
	}
	for _, p := range sortedKeys(c.names, c.durable) {
		n, now := c.names[p]
		if _, was := c.durable[p]; now != was && c.rng.IntN(2) == 0 {
			if now {
				survivors[p] = n
			} else {
				delete(survivors, p)
			}
		}
	}
	for _, p := range sortedKeys(survivors, nil) {
		data := c.survive(survivors[p])
		n := &node{now: slices.Clone(data), disk: data}
		next.names[p], next.durable[p] = n, n
	}
	return next
}

// Restart gives the file system as the next process finds it where one was
// killed and the machine stayed up: all that was written is there, synced or
// not as it was. The old one goes on failing.
func (c *CrashFS) Restart() *CrashFS {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crashed = true
	next := NewCrashFS(c.rng.Uint64())
	for d := range c.dirs {
		next.dirs[d] = true
	}
	copies := map[*node]*node{}
	again := func(n *node) *node {
		if copies[n] == nil { // a late call of the old process must not change it
			copies[n] = &node{now: slices.Clone(n.now), disk: slices.Clone(n.disk), pending: slices.Clone(n.pending)}
		}
		return copies[n]
	}
	for p, n := range c.names {
		next.names[p] = again(n)
	}
	for p, n := range c.durable {
		next.durable[p] = again(n)
	}
	return next
}

// Crashed says whether the power went.
func (c *CrashFS) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

func sortedKeys(a, b map[string]*node) []string {
	var out []string
	for k := range a {
		out = append(out, k)
	}
	for k := range b {
		out = append(out, k)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// survive plays a random part of what was not synced.
func (c *CrashFS) survive(n *node) []byte {
	data := slices.Clone(n.disk)
	for _, ch := range n.pending {
		luck := c.rng.IntN(3)
		if luck == 0 {
			continue
		}
		if ch.size >= 0 {
			data = resize(data, ch.size)
			continue
		}
		for at := 0; at < len(ch.data); {
			end := min(len(ch.data), at+sector-int((ch.off+int64(at))%sector))
			if luck == 1 || c.rng.IntN(2) == 0 {
				data = write(data, ch.off+int64(at), ch.data[at:end])
			}
			at = end
		}
	}
	return data
}

func resize(data []byte, size int64) []byte {
	if size <= int64(len(data)) {
		clear(data[size:]) // what is cut does not come back when the file grows
		return data[:size]
	}
	return append(data, make([]byte, size-int64(len(data)))...)
}

func write(data []byte, off int64, p []byte) []byte {
	if end := off + int64(len(p)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[off:], p)
	return data
}

// Bytes is a file's content now; nil where there is none.
func (c *CrashFS) Bytes(path string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := c.names[filepath.Clean(path)]; n != nil {
		return slices.Clone(n.now)
	}
	return nil
}

// SetBytes puts a file there, durable. The bytes are not changed, and may not
// be by the caller.
func (c *CrashFS) SetBytes(path string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &node{now: data, disk: data, shared: true}
	c.names[filepath.Clean(path)], c.durable[filepath.Clean(path)] = n, n
}

// step counts a call that changes something.
func (c *CrashFS) step() error {
	c.ops++
	if c.stopAt > 0 && c.ops >= c.stopAt {
		c.crashed = true
	}
	return c.up()
}

func (c *CrashFS) up() error {
	if c.crashed {
		return ErrCrashed
	}
	return nil
}

// Create implements journal.FS.
func (c *CrashFS) Create(path string) (journal.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path = filepath.Clean(path)
	if err := c.step(); err != nil {
		return nil, err
	}
	if c.names[path] != nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	n := &node{}
	c.names[path] = n
	return &crashFile{c, n}, nil
}

// Open implements journal.FS.
func (c *CrashFS) Open(path string, _ bool) (journal.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.up(); err != nil {
		return nil, err
	}
	n := c.names[filepath.Clean(path)]
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return &crashFile{c, n}, nil
}

// Remove implements journal.FS.
func (c *CrashFS) Remove(path string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step(); err != nil {
		return err
	}
	path = filepath.Clean(path)
	if c.names[path] == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: fs.ErrNotExist}
	}
	delete(c.names, path)
	return nil
}

// List implements journal.FS.
func (c *CrashFS) List(dir string) ([]fs.FileInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.up(); err != nil {
		return nil, err
	}
	dir = filepath.Clean(dir)
	if !c.dirs[dir] {
		return nil, &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	var out []fs.FileInfo
	for p, n := range c.names {
		if filepath.Dir(p) == dir {
			out = append(out, info{filepath.Base(p), int64(len(n.now)), false})
		}
	}
	for d := range c.dirs {
		if filepath.Dir(d) == dir && d != dir {
			out = append(out, info{filepath.Base(d), 0, true})
		}
	}
	slices.SortFunc(out, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

// Dir implements journal.FS. Folders themselves survive a crash.
func (c *CrashFS) Dir(path string, sync bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	path = filepath.Clean(path)
	if err := c.step(); err != nil {
		return err
	}
	if !sync {
		for p := path; !c.dirs[p]; p = filepath.Dir(p) {
			c.dirs[p] = true
		}
		return nil
	}
	for _, p := range sortedKeys(c.names, c.durable) {
		if filepath.Dir(p) != path {
			continue
		}
		if n := c.names[p]; n != nil {
			c.durable[p] = n
		} else {
			delete(c.durable, p)
		}
	}
	return nil
}

// Lock implements journal.Locker.
func (c *CrashFS) Lock(path string) (io.Closer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.locked[path] {
		return nil, errors.New(path + " is held")
	}
	c.locked[path] = true
	return unlock{c, path}, nil
}

type unlock struct {
	c    *CrashFS
	path string
}

func (u unlock) Close() error {
	u.c.mu.Lock()
	defer u.c.mu.Unlock()
	delete(u.c.locked, u.path)
	return nil
}

type crashFile struct {
	c *CrashFS
	n *node
}

func (f *crashFile) ReadAt(p []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.c.up(); err != nil {
		return 0, err
	}
	if off >= int64(len(f.n.now)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *crashFile) WriteAt(p []byte, off int64) (int, error) {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	// The write under way when the power goes may reach the disk in part.
	f.n.pending = append(f.n.pending, change{off: off, data: slices.Clone(p), size: -1})
	if err := f.c.step(); err != nil {
		return 0, err
	}
	f.n.own()
	f.n.now = write(f.n.now, off, p)
	return len(p), nil
}

func (f *crashFile) Sync() error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.c.step(); err != nil {
		return err
	}
	f.n.own()
	for _, ch := range f.n.pending {
		if ch.size >= 0 {
			f.n.disk = resize(f.n.disk, ch.size)
		} else {
			f.n.disk = write(f.n.disk, ch.off, ch.data)
		}
	}
	f.n.pending = nil
	return nil
}

func (f *crashFile) Resize(size int64) error {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	if err := f.c.step(); err != nil {
		return err
	}
	f.n.pending = append(f.n.pending, change{size: size})
	f.n.own()
	f.n.now = resize(f.n.now, size)
	return nil
}

func (f *crashFile) Close() error { return nil }

type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string { return i.name }
func (i info) Size() int64  { return i.size }
func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.dir }
func (i info) Sys() any           { return nil }
