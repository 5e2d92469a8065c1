package filefeed

import (
	"context"
	"time"

	"github.com/fsnotify/fsnotify"
)

// gather is how long a change waits for company before it is read: a writer
// that writes line by line must not make a commit of each.
const gather = 10 * time.Millisecond

// waker wakes the feed when something happens in the folders it reads from.
// Where the system gives no watches, polling has to do.
type waker struct {
	w       *fsnotify.Watcher
	dirs    map[string]bool
	renamed bool // files came or went since the last scan
}

func newWaker(follow bool) *waker {
	k := &waker{dirs: map[string]bool{}}
	if follow {
		// Without a watcher there is still the poll.
		k.w, _ = fsnotify.NewWatcher()
	}
	return k
}

// watch watches one more folder.
func (k *waker) watch(dir string) {
	if k == nil || k.w == nil || k.dirs[dir] {
		return
	}
	k.dirs[dir] = k.w.Add(dir) == nil // else it is tried again at the next scan
}

// changed says, once, that files came or went.
func (k *waker) changed() bool {
	if k == nil {
		return false
	}
	was := k.renamed
	k.renamed = false
	return was
}

// wait returns a little after something changed, after poll, or when ctx ends.
func (k *waker) wait(ctx context.Context, poll time.Duration) {
	timer := time.NewTimer(poll)
	defer timer.Stop()
	var events <-chan fsnotify.Event
	var errs <-chan error
	if k.w != nil {
		events, errs = k.w.Events, k.w.Errors
	}
	woken := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-errs: // an overflow: look everywhere
			k.renamed = true
			return
		case e := <-events:
			k.renamed = k.renamed || !e.Has(fsnotify.Write)
			if e.Has(fsnotify.Remove | fsnotify.Rename) {
				delete(k.dirs, e.Name) // should it be a folder, its watch ended
			}
			if !woken {
				woken = true
				timer.Reset(min(gather, poll))
			}
		}
	}
}

func (k *waker) close() {
	if k.w != nil {
		_ = k.w.Close()
	}
}
