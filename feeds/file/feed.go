// Package filefeed reads lines out of files, once or as they grow, and keeps how far it came in the same commit as the events.
package filefeed

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// Intake is the door that records go through; *intake.Door is one. Submit
// returns when the events and the request's facts are durable, and keeps nothing
// where it returns an error. Facts are kept even where no record was accepted.
type Intake interface {
	Submit(ctx context.Context, r *intake.Request) (intake.Result, error)
}

// FactStore is where offsets are kept: the facts of the shard that Intake
// appends to. PutLater need not be durable on return.
type FactStore interface {
	Facts(prefix string) iter.Seq2[string, []byte]
	PutLater(facts ...journal.Fact)
}

// Options of a Feed. Name, Path, Format, Intake and Facts are required, the
// zero value of the others is the documented default.
type Options struct {
	Name string // of the feed, for facts and messages
	// Path is a glob of filepath.Match; files ending in .gz or .zst are
	// decompressed and read once.
	Path   string
	Format string
	// Tenant is whose events these are; empty: each event names its own.
	Tenant feeds.TenantID
	Intake Intake
	Facts  FactStore

	// Follow goes on reading what is appended and the files that appear.
	Follow bool
	// MaxEvent is the longest line in bytes that intake takes; longer ones are
	// handed over cut, so that they are quarantined. 0 is schemas.MaxEvent.
	MaxEvent int
	// BatchBytes is how much of a file is submitted at once; 0 is 1 MiB.
	BatchBytes int
	// Poll is how often to look, besides being woken; 0 is 1 s.
	Poll time.Duration
	// Settle is how long a file that was moved or removed is read on before its
	// last line counts as whole; 0 is 5 s.
	Settle time.Duration
	// Forget is how long after a file went its offset is kept; 0 is 24 h.
	Forget time.Duration
	// Done is called once all is read, where Follow is off.
	Done func()
	// OnError is told what an operator must know: the first failure of a kind
	// and when it ended. nil: nobody is told.
	OnError func(error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// slack is how many bytes of a line above MaxEvent are handed over: enough for
// intake to see that it is too long.
const slack = 1 << 10

// check completes the options and says what is wrong with them.
func (o *Options) check() error {
	_, err := filepath.Match(o.Path, "")
	switch {
	case !feeds.ValidName(o.Name):
		return fmt.Errorf("file feed: name %q is not [a-z0-9][a-z0-9_-]{0,62}", o.Name)
	case o.Intake == nil || o.Facts == nil || o.Format == "":
		return fmt.Errorf("file feed %s: Intake, Facts and Format are required", o.Name)
	case o.Path == "" || err != nil:
		return fmt.Errorf("file feed %s: path %q is no glob: use *, ? and [a-z], and \\ before those meant as they are", o.Name, o.Path)
	case strings.Contains(o.Path, "**"):
		return fmt.Errorf("file feed %s: path %q: ** is not understood; name each level of folders with its own *", o.Name, o.Path)
	}
	o.MaxEvent = cmp.Or(o.MaxEvent, schemas.MaxEvent)
	o.BatchBytes = max(cmp.Or(o.BatchBytes, 1<<20), o.MaxEvent+slack+2) // a line that fits, CRLF, always fits
	o.Poll = cmp.Or(o.Poll, time.Second)
	o.Settle = cmp.Or(o.Settle, 5*time.Second)
	o.Forget = cmp.Or(o.Forget, 24*time.Hour)
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Feed reads the files of a glob. Run's goroutine owns all of it but the shown
// status.
type Feed struct {
	o      Options
	files  map[inode]*tail
	order  []*tail
	marks  map[inode]mark      // what the facts say of files that are not there
	gone   map[inode]time.Time // since when, of those that have a fact and are not there
	buf    []byte
	heads  [2][maxHead]byte
	lines  lines
	open   int
	tries  backoff
	failed map[string]string // path (or "" for the journal) → the error told
	wake   *waker
	last   time.Time // of the scan

	mu    sync.Mutex
	shown []FileStatus
}

// FileStatus is how far one file is read.
type FileStatus struct {
	Path   string
	Size   int64 // bytes on disk
	Offset int64 // bytes read and durable (decompressed ones, where the file is compressed)
	Behind int64 // bytes on disk still to read
	Err    string
}

// New makes a feed; it goes on where the facts say an earlier one of the same
// name stopped.
func New(o Options) (*Feed, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	f := &Feed{o: o, files: map[inode]*tail{}, gone: map[inode]time.Time{}, failed: map[string]string{},
		buf: make([]byte, o.BatchBytes)}
	f.marks = loadMarks(o.Facts, f.prefix())
	for ino := range f.marks {
		f.gone[ino] = o.Now()
	}
	return f, nil
}

func (f *Feed) prefix() string { return "file/" + f.o.Name + "/" }

// Run reads until ctx ends or, where Follow is off, all is read. It returns nil
// then, and an error where the journal takes nothing any more.
func (f *Feed) Run(ctx context.Context) error {
	f.wake = newWaker(f.o.Follow)
	defer f.wake.close()
	defer f.closeAll()
	for {
		progress, err := f.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("file feed %s: %w", f.o.Name, err)
		case progress:
			continue
		case !f.o.Follow:
			if f.o.Done != nil {
				f.o.Done()
			}
			return nil
		}
		f.wake.wait(ctx, f.o.Poll)
	}
}

// pass reads one batch of each file that has one. An error ends the feed.
func (f *Feed) pass(ctx context.Context) (progress bool, err error) {
	if now := f.o.Now(); f.last.IsZero() || f.o.Follow && (now.Sub(f.last) >= f.o.Poll || f.wake.changed()) {
		f.last = now
		f.scan(now)
	}
	for _, t := range f.order {
		more, err := f.step(ctx, t)
		if err != nil {
			return false, err
		}
		progress = progress || more
	}
	f.drop()
	f.show()
	return progress, nil
}

// Status shows the files as of the last pass.
func (f *Feed) Status() []FileStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]FileStatus(nil), f.shown...)
}

func (f *Feed) show() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shown = f.shown[:0]
	for _, t := range f.order {
		s := FileStatus{Path: t.path, Size: t.size, Offset: t.mark.Offset, Err: f.failed[t.path]}
		if t.packed == "" {
			s.Behind = max(0, t.size-t.mark.Offset)
		} else if !t.mark.Done {
			s.Behind = t.size - t.packedAt()
		}
		f.shown = append(f.shown, s)
	}
}

// tell reports the first failure of a path and, with err nil, its end.
func (f *Feed) tell(path string, err error) {
	was, on := f.failed[path]
	switch {
	case err == nil && on:
		delete(f.failed, path)
		f.o.OnError(fmt.Errorf("file feed %s: going on again after: %s", f.o.Name, was))
	case err != nil && was != err.Error():
		f.failed[path] = err.Error()
		f.o.OnError(fmt.Errorf("file feed %s: %w", f.o.Name, err))
	}
}
