package filefeed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxOpen is how many followed files keep their descriptor while nothing comes.
// One that is closed and then both grows and leaves the glob between two looks
// loses what it grew by.
const maxOpen = 512

// tail is one file and how far it is read.
type tail struct {
	ino    inode
	key    string
	path   string
	packed string // "gzip", "zstd" or ""
	mark   mark
	old    string // key of the fact that this one replaces, after a change of device

	fd      *os.File
	z       *unpacked
	size    int64
	written time.Time // the file's modification time, with size
	long    *longLine
	moved   bool      // has another name than when it was found, or none
	missing bool      // is not among the files of the glob
	changed time.Time // when it last grew or moved
	failed  int64     // size at which a compressed file proved broken
}

// longLine is a line that does not fit into the buffer: its beginning is kept,
// the rest only counted.
type longLine struct {
	start, end int64
	head       []byte
}

// scan looks for the files of the glob.
func (f *Feed) scan(now time.Time) {
	paths, _ := filepath.Glob(f.o.Path) // its only error is the pattern's, which New checked
	for _, t := range f.order {
		t.missing = true
	}
	for _, path := range paths {
		f.wake.watch(filepath.Dir(path))
		info, err := os.Stat(path)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				f.tell("name "+path, err)
			}
			continue
		}
		f.tell("name "+path, nil)
		if info.Mode().IsRegular() {
			f.found(path, info, now)
		}
	}
	if dir := filepath.Dir(f.o.Path); !strings.ContainsAny(dir, "*?[") {
		f.wake.watch(dir)
		if len(paths) == 0 {
			_, err := os.ReadDir(dir) // Glob says nothing of a folder it cannot read
			f.tell(dir, err)
		} else {
			f.tell(dir, nil)
		}
	}
	for _, t := range f.order {
		if t.missing && !t.moved {
			t.moved, t.changed = true, now
		}
	}
	for ino, since := range f.gone {
		if now.Sub(since) > f.o.Forget {
			delete(f.gone, ino)
			delete(f.marks, ino)
			f.o.Facts.PutLater(deletion(ino.key(f.prefix())))
		}
	}
}

// found notes a file that is there.
func (f *Feed) found(path string, info os.FileInfo, now time.Time) {
	ino := inodeOf(info)
	if t := f.files[ino]; t != nil {
		if !t.missing {
			return // a second name of it
		}
		t.missing = false
		if t.path != path {
			t.path, t.moved, t.changed = path, true, now
		}
		return
	}
	t := &tail{ino: ino, key: ino.key(f.prefix()), path: path, changed: now, failed: -1}
	switch filepath.Ext(path) {
	case ".gz":
		t.packed = "gzip"
	case ".zst":
		t.packed = "zstd"
	}
	var known bool
	if t.mark, known = f.marks[ino]; known {
		delete(f.marks, ino)
	} else {
		f.adopt(t)
	}
	delete(f.gone, ino)
	f.files[ino] = t
	f.order = append(f.order, t)
	slices.SortFunc(f.order, func(a, b *tail) int { return strings.Compare(a.path, b.path) })
}

// adopt takes over the mark of a file whose device has another number since the
// machine or its container started anew: same path, same inode. Its head is
// compared before anything is read, as always.
func (f *Feed) adopt(t *tail) {
	for ino, m := range f.marks {
		if ino.ino == t.ino.ino && m.Path == t.path && m.Head > 0 {
			t.mark, t.old = m, ino.key(f.prefix())
			delete(f.marks, ino)
			delete(f.gone, ino)
			return
		}
	}
}

// drop lets go of files that left the glob and are read to their end.
func (f *Feed) drop() {
	f.order = slices.DeleteFunc(f.order, func(t *tail) bool {
		if !t.missing || t.fd != nil {
			return false
		}
		f.gone[t.ino] = f.o.Now()
		f.tell(t.path, nil)
		f.marks[t.ino] = t.mark // it may come back
		delete(f.files, t.ino)
		return true
	})
}

// ready opens the file where there is something to read. It gives the first
// bytes of the file, and false where there is nothing to do.
func (f *Feed) ready(t *tail) (head []byte, ok bool) {
	if t.fd == nil {
		info, err := os.Stat(t.path)
		if err != nil || inodeOf(info) != t.ino {
			return nil, false // moved or gone: the next scan sees it
		}
		// A file of the length that was read may still be another one: its head is
		// compared once in a life, and whenever it was written to.
		if t.idle(info.Size()) && info.ModTime().Equal(t.written) {
			t.size = info.Size()
			return nil, false
		}
		if t.fd, err = os.Open(t.path); err != nil {
			f.tell(t.path, err)
			t.fd = nil
			return nil, false
		}
		f.open++
	}
	info, err := t.fd.Stat()
	if err == nil && inodeOf(info) != t.ino {
		f.shut(t) // replaced between the two
		return nil, false
	}
	if err == nil && info.Size() == t.size && info.ModTime().Equal(t.written) && t.idle(t.size) {
		return nil, false
	}
	if err == nil {
		head, err = f.head(t, &f.heads[0])
	}
	if err != nil {
		f.tell(t.path, fmt.Errorf("read %s: %w", t.path, err))
		f.shut(t)
		return nil, false
	}
	if info.Size() != t.size {
		t.changed = f.o.Now()
	}
	f.renew(t, info.Size(), head)
	t.size, t.written = info.Size(), info.ModTime()
	return head, !t.idle(t.size)
}

// idle says whether a closed file of that size needs no look.
func (t *tail) idle(size int64) bool {
	if t.packed != "" {
		return t.mark.Done && t.mark.Size == size || t.failed == size
	}
	return t.mark.Offset == size
}

// head reads the file's first bytes.
func (f *Feed) head(t *tail, into *[maxHead]byte) ([]byte, error) {
	head := into[:]
	n, err := t.fd.ReadAt(head, 0)
	if err == io.EOF {
		err = nil
	}
	return head[:n], err
}

// renew begins anew with a file that is no longer the one that was read: it was
// truncated, or its inode belongs to another file now.
func (f *Feed) renew(t *tail, size int64, head []byte) {
	short := t.packed == "" && size < t.mark.Offset
	if t.mark.begins(head) && !short && (t.long == nil || size >= t.long.end) {
		return
	}
	if lost := t.size - t.mark.Offset; lost > 0 && t.packed == "" {
		f.o.OnError(fmt.Errorf("file feed %s: %s was truncated while %d bytes of it were unread; they are lost, unless it was copied first", f.o.Name, t.path, lost))
	}
	t.mark = mark{Gen: t.mark.Gen + 1}
	t.long, t.failed = nil, -1
	t.closePacked()
}

// final says whether the end of the file is its end for good, so that a last
// line without newline is a line.
func (f *Feed) final(t *tail) bool {
	return !f.o.Follow || t.moved && f.o.Now().Sub(t.changed) >= f.o.Settle
}

// shut closes the file; what is known of it stays.
func (f *Feed) shut(t *tail) {
	t.closePacked()
	if t.fd != nil {
		_ = t.fd.Close() // it was only read
		t.fd = nil
		f.open--
	}
}

func (f *Feed) closeAll() {
	for _, t := range f.order {
		f.shut(t)
	}
}

// rest closes a file of which there is nothing to read now, where it need not
// stay open to be read on under another name.
func (f *Feed) rest(t *tail) {
	if t.fd != nil && (f.final(t) || t.packed != "" || f.open > maxOpen) {
		f.shut(t)
	}
}

// readLong goes on looking for the end of a line that is too long; true once it
// is found and stands in f.lines.
func (f *Feed) readLong(t *tail, data []byte, eof bool) bool {
	n := bytes.IndexByte(data, '\n')
	switch {
	case n >= 0:
		t.long.end += int64(n) + 1
	default:
		t.long.end += int64(len(data))
		if !eof || !f.final(t) && t.packed == "" {
			return false
		}
	}
	f.lines.reset()
	f.lines.add(t.long.head, t.long.start, &t.mark)
	f.lines.finish()
	return true
}
