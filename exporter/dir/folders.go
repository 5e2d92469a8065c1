package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// tmp is the folder, below a sink's, in which objects are written before they
// are linked to their keys, where the file system has no files without a name.
const tmp = ".datasync-tmp"

// run tells the temporary files of this process from those that earlier ones
// left: several sinks may share a folder, and one is made while another writes.
var run = strconv.FormatInt(time.Now().UnixNano(), 36) + "-"

// Folders are what the sinks of a process share, for their folders are often
// the same: who knows what is durable, and one sync for all that wait for it.
type Folders struct {
	journalID string
	own       string // prefix of this process's temporary files
	mu        sync.Mutex
	// roots are the sinks' own folders; true: durable, with all above it.
	roots map[string]bool
	// syncs are those under way, by folder.
	syncs map[string]*syncing
	// What the system does; tests have it fail.
	syncDir func(dir string) error
	unnamed func(dir string) (*object, error)
}

// NewFolders makes them. journalID tells the temporary files of this instance
// from another's: those that it left at a crash are removed.
func NewFolders(journalID string) *Folders {
	return &Folders{journalID: journalID, own: journalID + "-" + run, roots: map[string]bool{},
		syncs: map[string]*syncing{}, syncDir: syncDir, unnamed: unnamed}
}

// Sink makes a sink below root, which need not exist yet.
func (f *Folders) Sink(root string) *Sink {
	s := &Sink{root: filepath.Clean(root), folders: f}
	if abs, err := filepath.Abs(root); err == nil {
		s.root = abs
	}
	f.mu.Lock()
	_, known := f.roots[s.root]
	if !known {
		f.roots[s.root] = false
	}
	f.mu.Unlock()
	if !known {
		f.clear(filepath.Join(s.root, tmp))
	}
	return s
}

// clear removes what an earlier process left in a folder of temporary files.
func (f *Folders) clear(dir string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return // nothing there, or the first Put says what is wrong
	}
	for _, e := range files {
		if strings.HasPrefix(e.Name(), f.journalID+"-") && !strings.HasPrefix(e.Name(), f.own) {
			_ = os.Remove(filepath.Join(dir, e.Name())) // a nuisance at worst: no reader looks here, no key depends on it
		}
	}
}

// settle makes a sink's folder durable, with all above it.
func (f *Folders) settle(root string) error {
	f.mu.Lock()
	known := f.roots[root]
	f.mu.Unlock()
	if known {
		return nil
	}
	for d := root; d != filepath.Dir(d); d = filepath.Dir(d) {
		err := f.sync(filepath.Dir(d))
		if d != root && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EINVAL)) {
			continue // what we cannot sync we did not make
		}
		if err != nil {
			return err
		}
	}
	f.mu.Lock()
	f.roots[root] = true
	f.mu.Unlock()
	return nil
}

func (f *Folders) forget(root string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.roots[root] = false
}

// syncing is one sync of a folder.
type syncing struct {
	done chan struct{}
	err  error    // once done
	next *syncing // begins when this one is done: for what came meanwhile
}

// sync makes what was changed in a folder before the call durable. Calls that
// come while a sync is under way, which may have begun too early for them,
// share the next.
func (f *Folders) sync(dir string) error {
	f.mu.Lock()
	now := f.syncs[dir]
	if now == nil {
		s := &syncing{done: make(chan struct{})}
		f.syncs[dir] = s
		f.mu.Unlock()
		return f.run(dir, s)
	}
	s := now.next
	if s != nil {
		f.mu.Unlock()
		<-s.done
		return s.err
	}
	s = &syncing{done: make(chan struct{})}
	now.next = s
	f.mu.Unlock()
	<-now.done
	return f.run(dir, s)
}

func (f *Folders) run(dir string, s *syncing) error {
	// promise: a sync that was shared began after all changes that share it.
	s.err = f.syncDir(dir)
	f.mu.Lock()
	if s.next == nil {
		delete(f.syncs, dir)
	} else {
		f.syncs[dir] = s.next
	}
	f.mu.Unlock()
	close(s.done)
	return s.err
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
