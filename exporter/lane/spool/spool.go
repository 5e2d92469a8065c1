// Package spool holds an encoded object between encoding and delivery: in
// memory as long as the shared budget lasts, else in a file.
package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	chunk = 256 << 10
	// prefix is that of the files.
	prefix = "spool-"
)

// Budget is the memory that all spools share, in bytes. It never blocks: a
// spool that gets none goes to a file.
type Budget struct {
	limit int64
	used  atomic.Int64
	dir   string
	pool  sync.Pool
}

// NewBudget makes a budget of limit bytes; files go to dir, which is made and
// cleared of what an earlier run left there.
func NewBudget(limit int64, dir string) (*Budget, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool folder: %w", err)
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the spool folder: %w", err)
	}
	for _, f := range old {
		if !strings.HasPrefix(f.Name(), prefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
			return nil, fmt.Errorf("clear the spool folder: %w", err)
		}
	}
	b := &Budget{limit: limit, dir: dir}
	b.pool.New = func() any { return new([chunk]byte) }
	return b, nil
}

// Used is how many bytes are in use.
func (b *Budget) Used() int64 { return b.used.Load() }

func (b *Budget) take() *[chunk]byte {
	if b.used.Add(chunk) > b.limit {
		b.used.Add(-chunk)
		return nil
	}
	return b.pool.Get().(*[chunk]byte)
}

// Spool is one object. It is written, then read; one goroutine at a time.
type Spool struct {
	budget *Budget
	chunks []*[chunk]byte
	size   int64 // in chunks
	file   *os.File
	total  int64
	sum    hash.Hash
}

// New makes an empty spool.
func (b *Budget) New() *Spool { return &Spool{budget: b, sum: sha256.New()} }

// Write appends; an error means that the disk failed.
func (s *Spool) Write(p []byte) (int, error) {
	n := len(p)
	s.sum.Write(p)
	for len(p) > 0 && s.file == nil {
		at := int(s.size % chunk)
		if at == 0 {
			c := s.budget.take()
			if c == nil {
				f, err := os.CreateTemp(s.budget.dir, prefix)
				if err != nil {
					return n - len(p), fmt.Errorf("spool to a file, the memory budget being used up: %w", err)
				}
				s.file = f
				break
			}
			s.chunks = append(s.chunks, c)
		}
		k := copy(s.chunks[len(s.chunks)-1][at:], p)
		p = p[k:]
		s.size += int64(k)
		s.total += int64(k)
	}
	if len(p) > 0 {
		k, err := s.file.Write(p)
		s.total += int64(k)
		if err != nil {
			return n - len(p) + k, fmt.Errorf("spool to %s: %w", s.file.Name(), err)
		}
	}
	return n, nil
}

// Size is how many bytes were written.
func (s *Spool) Size() int64 { return s.total }

// SHA256 is the hash of what was written.
func (s *Spool) SHA256() (h [32]byte) {
	s.sum.Sum(h[:0])
	return h
}

// ReadAt reads what was written.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < s.size {
		c := s.chunks[off/chunk]
		end := min(int64(chunk), s.size-off/chunk*chunk)
		k := copy(p[n:], c[off%chunk:end])
		n += k
		off += int64(k)
	}
	if n == len(p) {
		return n, nil
	}
	if s.file == nil {
		return n, io.EOF
	}
	k, err := s.file.ReadAt(p[n:], off-s.size)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read back the spool: %w", err)
	}
	return n + k, err
}

// Close gives the memory and the file back.
func (s *Spool) Close() error {
	for _, c := range s.chunks {
		s.budget.pool.Put(c)
	}
	s.budget.used.Add(-chunk * int64(len(s.chunks)))
	s.chunks = nil
	if s.file == nil {
		return nil
	}
	return errors.Join(s.file.Close(), os.Remove(s.file.Name()))
}
