package soak

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strconv"
	"syscall"
	"time"
)

// follower reads a receiver's file as it grows. What was read is given back to
// the file system as a hole, so that the receiver's place in it stays right.
type follower struct {
	path  string
	odd   bool // the tenants that are sent there
	f     *os.File
	at    int64 // read to here
	holed int64
	torn  int
	lines int64
	again int64 // lines that had come before
	grown []growth
	buf   []byte
}

// growth is how many lines had come at a time, repeats left out.
type growth struct {
	at    time.Time
	lines int64
}

const (
	keepSize  = 1 // FALLOC_FL_KEEP_SIZE
	punchHole = 2 // FALLOC_FL_PUNCH_HOLE
	holeSize  = 1 << 20
)

// pass takes the whole lines that are new.
func (f *follower) pass(a *tally) error {
	if f.f == nil {
		var err error
		if f.f, err = os.OpenFile(f.path, os.O_RDWR, 0); errors.Is(err, fs.ErrNotExist) {
			return nil // nothing was written yet
		} else if err != nil {
			return err
		}
		f.buf = make([]byte, 4<<20)
	}
	for {
		n, err := f.f.ReadAt(f.buf, f.at)
		if err != nil && err != io.EOF {
			return err
		}
		end := bytes.LastIndexByte(f.buf[:n], '\n') + 1
		for line := range bytes.Lines(f.buf[:end]) {
			f.take(a, line[:len(line)-1])
		}
		f.at += int64(end)
		if end == 0 && n == len(f.buf) {
			return fmt.Errorf("%s: a line of more than %d bytes at %d", f.path, n, f.at)
		}
		if end == 0 || err == io.EOF {
			break
		}
	}
	f.grown = append(f.grown, growth{time.Now(), f.lines - f.again})
	if to := f.at &^ (holeSize - 1); to > f.holed {
		if err := syscall.Fallocate(int(f.f.Fd()), punchHole|keepSize, f.holed, to-f.holed); err != nil {
			return fmt.Errorf("%s: give back what was read: %w", f.path, err)
		}
		f.holed = to
	}
	return nil
}

func (f *follower) take(a *tally, line []byte) {
	event, torn := whole(line)
	if torn {
		f.torn++
	}
	if event == nil {
		return
	}
	f.lines++
	id, _, _ := eventID(event)
	_, rest, _ := bytes.Cut(event, []byte(`"tenant_id":"t`))
	tenant, _, _ := bytes.Cut(rest, []byte(`"`))
	n, err := strconv.Atoi(string(tenant))
	if err != nil || n%2 == 1 != f.odd {
		a.found("%s: a line of t%s: %.200q", f.path, tenant, event)
		return
	}
	if _, again := a.arrive(siem, n, id); again {
		f.again++
	}
}

// until is how many lines had come at a time, repeats left out.
func (f *follower) until(at time.Time) int64 {
	i := sort.Search(len(f.grown), func(i int) bool { return f.grown[i].at.After(at) })
	if i == 0 {
		return 0
	}
	return f.grown[i-1].lines
}
