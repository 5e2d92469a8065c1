package filefeed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
)

// step reads and submits one batch of a file; false where there is none. An
// error ends the feed.
func (f *Feed) step(ctx context.Context, t *tail) (bool, error) {
	head, ok := f.ready(t)
	if !ok {
		f.rest(t)
		return false, nil
	}
	at := t.mark.Offset
	if t.long != nil {
		at = t.long.end
	}
	n, eof, err := f.read(t, at)
	if err != nil {
		f.unreadable(t, err)
		if n == 0 {
			return false, nil
		}
	} else {
		f.tell(t.path, nil)
	}
	data := f.buf[:n]
	next := t.mark
	next.Path = t.path
	if next.ID == "" {
		first, _, _ := bytes.Cut(data, []byte{'\n'})
		if t.long != nil {
			first = t.long.head
		}
		next.name(t.ino.ino, first)
	}
	more := f.take(t, &next, data, eof)
	if t.packed != "" && eof && err == nil && next.Offset == at+int64(n) {
		next.Done, next.Size = true, t.size
	}
	if next.Offset == t.mark.Offset && next.Done == t.mark.Done && next.Size == t.mark.Size {
		if !more {
			f.rest(t)
		}
		return more, nil
	}
	if !f.same(t, &next, head) {
		return true, nil // it was truncated this moment: look again
	}
	return true, f.submit(ctx, t, next)
}

// read fills the buffer with what lies at off.
func (f *Feed) read(t *tail, off int64) (n int, eof bool, err error) {
	var from io.ReaderAt = t.fd
	if t.packed != "" {
		if t.z == nil || t.z.at > off {
			t.closePacked()
			if t.z, err = unpack(t.fd, t.packed, len(f.buf)); err != nil {
				return 0, false, err
			}
		}
		from = t.z
	}
	n, err = from.ReadAt(f.buf, off)
	if err == io.EOF {
		return n, true, nil
	}
	return n, false, err
}

// take makes lines of data and moves next behind them; true where there may be
// more to do without anything having moved.
func (f *Feed) take(t *tail, next *mark, data []byte, eof bool) (more bool) {
	f.lines.limit = f.o.MaxEvent + slack
	if t.long != nil {
		more = len(data) > 0
		if f.readLong(t, data, eof) {
			next.Offset = t.long.end
		}
		return more
	}
	last := eof && (t.packed != "" || f.final(t))
	used := f.lines.cut(data, next.Offset, last, next)
	if used == 0 && len(data) == len(f.buf) {
		t.long = &longLine{start: next.Offset, end: next.Offset + int64(len(data)), head: bytes.Clone(data[:f.lines.limit])}
		return true
	}
	next.Offset += int64(used)
	return false
}

// same makes sure that what was read is of the file it was taken for, and lets
// the mark know as much of the file's head as was read.
func (f *Feed) same(t *tail, next *mark, head []byte) bool {
	if next.Head == maxHead && !f.o.Follow {
		return true
	}
	now, err := f.head(t, &f.heads[1])
	if err != nil || !t.mark.begins(now) || !bytes.HasPrefix(now, head) {
		return false
	}
	read := next.Offset
	if t.packed != "" {
		read = int64(len(now))
	}
	next.know(now, read)
	return true
}

// submit hands over f.lines with the new mark in the same commit, for as long as
// it takes.
func (f *Feed) submit(ctx context.Context, t *tail, next mark) error {
	facts := []journal.Fact{{Key: t.key, Value: next.encode()}}
	if t.old != "" {
		facts = append(facts, deletion(t.old))
	}
	if len(f.lines.records) == 0 {
		f.o.Facts.PutLater(facts...) // blank lines: it is no harm to read them again
		t.moveTo(next)
		return nil
	}
	r := intake.Request{
		Format: f.o.Format, Tenant: f.o.Tenant,
		Records: func(yield func(feeds.Record) bool) {
			for _, r := range f.lines.records {
				if !yield(r) {
					return
				}
			}
		},
		// promise: the offset moves in the commit that holds the events, so that
		// no line is lost or taken twice.
		Facts: func(*intake.Result) []journal.Fact { return facts },
	}
	for {
		_, err := f.o.Intake.Submit(ctx, &r)
		if err == nil {
			f.tell("", nil)
			f.tries = 0
			t.moveTo(next)
			return nil
		}
		if errors.Is(err, feeds.ErrStopped) || ctx.Err() != nil {
			return fmt.Errorf("keep lines of %s from byte %d: %w", t.path, t.mark.Offset, err)
		}
		f.tell("", fmt.Errorf("lines of %s wait: %w", t.path, err))
		f.tries.wait(ctx, f.o.Poll)
	}
}

func (t *tail) moveTo(next mark) {
	t.mark, t.long, t.old = next, nil, ""
}

func deletion(key string) journal.Fact { return journal.Fact{Key: key} }

// unreadable tells of a failed read; a compressed file is tried again when its
// size changes.
func (f *Feed) unreadable(t *tail, err error) {
	f.tell(t.path, fmt.Errorf("read %s at byte %d: %w", t.path, t.mark.Offset, err))
	if t.packed != "" {
		t.failed = t.size
		t.closePacked()
	}
}

// backoff counts the refusals in a row.
type backoff int

// wait waits a tenth of poll, doubling up to five times poll.
func (b *backoff) wait(ctx context.Context, poll time.Duration) {
	d := min(poll/10<<min(*b, 10), 5*poll)
	*b++
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
