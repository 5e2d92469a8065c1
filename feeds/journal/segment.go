package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"datasync/feeds"
)

const (
	firstStep    = 1 << 20  // what a new segment allocates: an idle shard stays small
	laterStep    = 16 << 20 // and a busy one by
	fileCost     = 96 << 10 // what an open file counts in the cache of indexes
	defaultCache = 64 << 20
)

// errGone says that a segment was deleted under a reader, who looks again.
var errGone = errors.New("segment is gone")

// segment is one file of a shard. Fields below "writer" belong to the shard's
// writer while it is active and are fixed once it is closed; those under
// "cache" are guarded by the cache's lock.
type segment struct {
	path string
	head segmentHeader

	// writer (readers look under the journal's lock)
	size    int64 // on disk, preallocation included
	end     int64 // behind the last durable commit
	commit  uint64
	last    feeds.Sequence // the last event number up to its end
	time    int64          // of its last commit, ms UTC
	sealed  bool
	left    bool // by the writer, sealed or not: nothing more is written to it
	foot    footer
	mem     *index // where the file carries none: active, or never sealed
	ckpt    uint64 // first commit of the last whole checkpoint in it
	ckpts   int    // how many it holds, as far as known
	has     bitset // its tenants, once known
	removed bool
	// replaced says that it was removed because its next generation counts.
	replaced bool

	// Maintain's, under its lock: the block that kept the segment last time it
	// was judged, whose it was, and when it was weighed for rewriting.
	keptFor TenantRef
	keptBy  blockMeta
	weighed int64

	loading sync.Mutex
	// cache
	refs   int
	gone   bool
	file   File
	loaded *index
	used   uint64
}

// segmentName is the file name of a segment.
func segmentName(first uint64, generation uint32) string {
	if generation == 0 {
		return fmt.Sprintf("%016x.seg", first)
	}
	return fmt.Sprintf("%016x.%d.seg", first, generation)
}

// parseSegmentName undoes segmentName.
func parseSegmentName(name string) (first uint64, generation uint32, ok bool) {
	base, found := strings.CutSuffix(name, ".seg")
	if !found || len(base) < 16 {
		return 0, 0, false
	}
	first, err := strconv.ParseUint(base[:16], 16, 64)
	if err != nil {
		return 0, 0, false
	}
	if rest := base[16:]; rest != "" {
		g, err := strconv.ParseUint(strings.TrimPrefix(rest, "."), 10, 32)
		if err != nil || rest[0] != '.' {
			return 0, 0, false
		}
		generation = uint32(g)
	}
	return first, generation, segmentName(first, generation) == name
}

// cache keeps the indexes and files of segments that were read lately, within
// a budget. It belongs to the store.
type cache struct {
	mu     sync.Mutex
	fs     FS
	budget int64
	bytes  int64
	clock  uint64
	held   map[*segment]struct{} // those with an open file
}

func newCache(f FS, budget int64) *cache {
	return &cache{fs: f, budget: budget, held: map[*segment]struct{}{}}
}

func (s *segment) cost() int64 {
	n := int64(fileCost)
	if s.loaded != nil {
		n += s.loaded.memory()
	}
	return n
}

// adopt takes an open file in.
func (c *cache) adopt(s *segment, f File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.file = f
	c.held[s] = struct{}{}
	c.bytes += s.cost()
}

// acquire gives a segment's file, opened where it was not, and keeps it open
// until release.
func (c *cache) acquire(s *segment) (File, error) {
	c.mu.Lock()
	if s.gone {
		c.mu.Unlock()
		return nil, errGone
	}
	s.refs++
	c.clock++
	s.used = c.clock
	f := s.file
	c.mu.Unlock()
	if f != nil {
		return f, nil
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	c.mu.Lock()
	f = s.file
	c.mu.Unlock()
	if f != nil {
		return f, nil
	}
	f, err := c.fs.Open(s.path, false)
	if err != nil {
		c.release(s)
		return nil, fmt.Errorf("opening segment: %w", err)
	}
	c.adopt(s, f)
	return f, nil
}

// release ends what acquire began, and closes what is least used.
func (c *cache) release(s *segment) {
	c.mu.Lock()
	s.refs--
	var close []File
	if s.gone && s.refs == 0 {
		close = append(close, c.drop(s))
	}
	for c.bytes > c.budget {
		oldest := c.idle()
		if oldest == nil {
			break
		}
		close = append(close, c.drop(oldest))
	}
	c.mu.Unlock()
	for _, f := range close {
		if f != nil {
			// Nothing was written through this handle that is not synced.
			_ = f.Close()
		}
	}
}

// idle is the sealed segment that nobody reads and that was read longest ago.
func (c *cache) idle() *segment {
	var oldest *segment
	for s := range c.held {
		if s.refs == 0 && (oldest == nil || s.used < oldest.used) {
			oldest = s
		}
	}
	return oldest
}

func (c *cache) drop(s *segment) File {
	if s.file == nil {
		return nil
	}
	f := s.file
	c.bytes -= s.cost()
	s.file, s.loaded = nil, nil
	delete(c.held, s)
	return f
}

// forget marks a segment deleted; its file is closed with its last reader.
func (c *cache) forget(s *segment) {
	c.mu.Lock()
	s.gone = true
	s.refs++
	c.mu.Unlock()
	c.release(s)
}

// index gives the index of an acquired segment whose file carries one.
func (c *cache) index(s *segment, f File) (*index, error) {
	c.mu.Lock()
	x := s.loaded
	c.mu.Unlock()
	if x != nil {
		return x, nil
	}
	s.loading.Lock()
	defer s.loading.Unlock()
	c.mu.Lock()
	x = s.loaded
	c.mu.Unlock()
	if x != nil {
		return x, nil
	}
	raw := make([]byte, s.foot.IndexLen)
	if err := readFull(f, raw, s.foot.IndexOff); err != nil {
		return nil, fmt.Errorf("reading the index of %s: %w", s.path, err)
	}
	x, err := decodeIndex(raw, s.foot)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	c.install(s, x)
	return x, nil
}

func (c *cache) install(s *segment, x *index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.file != nil {
		c.bytes -= s.cost()
		s.loaded = x
		c.bytes += s.cost()
	}
}

// closeAll closes every file; nobody reads any more.
func (c *cache) closeAll() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for s := range c.held {
		errs = append(errs, c.drop(s).Close())
	}
	return errors.Join(errs...)
}

// readFull reads len(p) bytes at off.
func readFull(f File, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := f.ReadAt(p, off)
		p, off = p[n:], off+int64(n)
		if len(p) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fs.ErrInvalid
		}
	}
	return nil
}

// createSegment makes a segment's file: header written and durable, and its
// name too. What was made of it is removed where that fails.
func createSegment(f FS, dir string, h segmentHeader, size int64) (*segment, File, error) {
	s := &segment{path: filepath.Join(dir, segmentName(h.First, h.Generation)), head: h,
		size: size, end: segmentHeaderLen, last: h.Seq, commit: h.First - 1, mem: newIndex(), time: h.Created}
	file, err := f.Create(s.path)
	if err != nil {
		return nil, nil, fmt.Errorf("making segment %s: %w", s.path, err)
	}
	err = file.Resize(size)
	if err == nil {
		_, err = file.WriteAt(h.encode(), 0)
	}
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = f.Dir(dir, true)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("making segment %s: %w", s.path, err), file.Close(), f.Remove(s.path))
	}
	return s, file, nil
}
