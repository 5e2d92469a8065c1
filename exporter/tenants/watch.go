package tenants

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Change is what a Watcher found: the settings before and now, and all that is
// wrong now. A tenant or sink that did not change keeps its pointer.
type Change struct {
	Old, New *Set
	Problems Problems
}

// WatchOptions are a Watcher's; the zero value is the default.
type WatchOptions struct {
	// Poll is how often the folder is looked at though nothing was told; 30s.
	Poll time.Duration
	// Settle is how long it must be quiet before a change is read; 200ms.
	Settle time.Duration
	// PollOnly: the system is not asked to tell of changes.
	PollOnly bool
}

// Watcher keeps the tenants' settings in step with their folder. An invalid
// file leaves its tenant's last good settings in force.
type Watcher struct {
	options  WatchOptions
	onChange func(Change)
	set      atomic.Pointer[Set]

	mu       sync.Mutex // held while reading and telling
	book     *book
	problems Problems
	untold   bool // onChange does not know of problems yet
}

// NewWatcher reads the folder for the first time; the error is Problems, and
// only for a folder that cannot be read: a bad file keeps its own tenant out,
// not the others, and is told as soon as Run begins. onChange is called by Run
// and Reload, one call at a time, whenever the settings or the problems
// changed; it must not call Reload.
func NewWatcher(dir string, onChange func(Change), o WatchOptions) (*Watcher, error) {
	if _, err := list(dir); err != nil {
		return nil, unreadable(dir, err)
	}
	if o.Poll <= 0 {
		o.Poll = 30 * time.Second
	}
	if o.Settle <= 0 {
		o.Settle = 200 * time.Millisecond
	}
	w := &Watcher{options: o, onChange: onChange, book: newBook(dir)}
	set, ps := w.book.read(true)
	w.set.Store(set)
	w.problems, w.untold = ps, len(ps) > 0
	return w, nil
}

// Set is the settings in force.
func (w *Watcher) Set() *Set { return w.set.Load() }

// Problems is all that is wrong in the files now.
func (w *Watcher) Problems() Problems {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.problems
}

// Reload reads every file again, references included (SIGHUP), and gives what
// is wrong.
func (w *Watcher) Reload() Problems { return w.check(true) }

func (w *Watcher) check(all bool) Problems {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.set.Load()
	set, ps := w.book.read(all)
	if set == old && slices.Equal(ps, w.problems) && !w.untold {
		return ps
	}
	w.problems, w.untold = ps, false
	w.set.Store(set)
	w.onChange(Change{Old: old, New: set, Problems: ps})
	return ps
}

// Run follows the folder until ctx ends. Where the system cannot tell of
// changes, polling alone finds them. It gives nil.
func (w *Watcher) Run(ctx context.Context) error {
	var told <-chan fsnotify.Event
	var failed <-chan error
	var fw *fsnotify.Watcher
	if !w.options.PollOnly {
		var err error
		if fw, err = fsnotify.NewWatcher(); err == nil {
			defer fw.Close()
			told, failed = fw.Events, fw.Errors
		}
	}
	follow := func() {
		if fw != nil {
			// A folder that is not there yet is tried again at the next poll.
			_ = fw.Add(w.book.dir)
			_ = fw.Add(filepath.Join(w.book.dir, "channels"))
		}
	}
	follow()
	w.check(false) // what changed before the system was asked to tell
	poll := time.NewTicker(w.options.Poll)
	defer poll.Stop()
	settled := time.NewTimer(time.Hour)
	settled.Stop()
	defer settled.Stop()
	var since time.Time // the first change not read yet
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-told:
			if !ok {
				told = nil
				continue
			}
			if since.IsZero() {
				since = time.Now()
			}
			// Wait for quiet, but not for ever.
			if time.Since(since) < 10*w.options.Settle {
				settled.Reset(w.options.Settle)
			}
		case _, ok := <-failed:
			// Events may have been lost: look soon.
			if !ok {
				failed = nil
				continue
			}
			settled.Reset(w.options.Settle)
		case <-settled.C:
			since = time.Time{}
			follow()
			w.check(false)
		case <-poll.C:
			follow()
			w.check(false)
		}
	}
}
