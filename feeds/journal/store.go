package journal

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"datasync/feeds"
)

// passPause is the least time between two passes that nobody asked for.
const passPause = time.Second

const (
	lockFile    = "LOCK"
	idFile      = "ID"
	reserveFile = "RESERVE"
	asideDir    = "set-aside"

	// The journal's own facts.
	keyGap   = "journal/gap/"        // + place → JSON of gap
	keyClock = "journal/clock/"      // + sequence → counts: time
	keyTrim  = "journal/trim/"       // + tenant → counts: ranges, six a piece
	keyFloor = "journal/floor"       // → counts: sequence
	keyGone  = "journal/gone/"       // + segment's file name → 1: is being deleted
	keyGen   = "journal/generation/" // + first commit → counts: the generation that counts
)

// Store is all shards of one data folder. Its methods may be called from many
// goroutines.
type Store struct {
	dir   string
	id    string
	o     Options
	cache *cache
	lock  io.Closer
	used  atomic.Int64 // bytes of files, preallocation and reserve included
	short atomic.Bool  // the reserve was given to facts, and is not whole again
	// room is what the disk had room for when it was full last: used then; 0
	// while events are taken.
	room atomic.Int64
	// began and fruitless (since began, 0 for never) time the last pass that
	// freed nothing for an append.
	began     time.Time
	fruitless atomic.Int64
	// refusedAt is what was used when an append last met the cap.
	refusedAt atomic.Int64

	mu      sync.Mutex
	shards  map[string]*Journal
	closed  bool
	reserve int64 // size of the reserve file, less than ReserveBytes while facts need it

	maintaining sync.Mutex
	kicked      chan struct{}
	stop        chan struct{}
	stopped     chan struct{}
}

// OpenStore opens or makes a data folder and takes it for this process.
func OpenStore(dir string, o Options) (*Store, error) {
	if err := o.fill(); err != nil {
		return nil, fmt.Errorf("journal %s: %w", dir, err)
	}
	if err := o.FS.Dir(dir, false); err != nil {
		return nil, fmt.Errorf("journal: making its folder: %w", err)
	}
	s := &Store{dir: dir, o: o, shards: map[string]*Journal{}, cache: newCache(o.FS, defaultCache),
		began: time.Now(), kicked: make(chan struct{}, 1), stop: make(chan struct{}), stopped: make(chan struct{})}
	if l, ok := o.FS.(Locker); ok {
		lock, err := l.Lock(filepath.Join(dir, lockFile))
		if err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
		s.lock = lock
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", dir, err), s.unlock())
	}
	go s.maintainer()
	return s, nil
}

// fill sets the defaults and refuses what makes no sense.
func (o *Options) fill() error {
	if o.MaxBytes < 0 || o.SegmentBytes < 0 || o.ReserveBytes < 0 || o.CommitBytes < 0 || o.Retain < 0 || o.GroupDelay < 0 {
		return errors.New("a size or duration is negative")
	}
	set := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.MaxBytes, 50<<30)
	set((*int64)(&o.Retain), int64(24*time.Hour))
	// A segment goes as a whole: many of them must fit under the cap.
	set(&o.SegmentBytes, min(64<<20, max(firstStep, o.MaxBytes/16)))
	set(&o.ReserveBytes, 64<<20)
	o.ReserveBytes = min(o.ReserveBytes, o.MaxBytes/8)
	o.SegmentBytes = min(max(o.SegmentBytes, 4*segmentHeaderLen), 1<<31)
	if o.CommitBytes == 0 {
		o.CommitBytes = 4 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.FS == nil {
		o.FS = OS()
	}
	return nil
}

// prepare reads or makes the id and the reserve, and sums up what is used.
func (s *Store) prepare() error {
	if err := s.readID(); err != nil {
		return err
	}
	names, err := s.Shards()
	if err != nil {
		return err
	}
	for _, n := range names {
		infos, err := s.o.FS.List(filepath.Join(s.dir, n))
		if err != nil {
			return err
		}
		for _, i := range infos {
			s.used.Add(i.Size())
		}
	}
	infos, err := s.o.FS.List(s.dir)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if i.Name() == reserveFile {
			s.reserve = i.Size()
			s.used.Add(s.reserve)
			s.short.Store(s.reserve < s.o.ReserveBytes)
		}
	}
	s.restoreReserve()
	return nil
}

const idAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

func validID(id string) bool {
	return len(id) == 6 && strings.Trim(id, idAlphabet) == ""
}

// readID finds the store's id in its file, else in any segment (every segment
// bears it), else makes it.
func (s *Store) readID() error {
	path := filepath.Join(s.dir, idFile)
	f, err := s.o.FS.Open(path, true)
	if err == nil {
		p := make([]byte, 6)
		if readFull(f, p, 0) == nil && validID(string(p)) {
			s.id = string(p)
			return f.Close()
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.o.FS.Create(path)
	}
	if err != nil {
		return fmt.Errorf("reading the journal's id: %w", err)
	}
	if s.id, err = s.idOfSegments(); err == nil {
		_, err = f.WriteAt([]byte(s.id+"\n"), 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = s.o.FS.Dir(s.dir, true)
	}
	if err != nil {
		return fmt.Errorf("writing the journal's id: %w", err)
	}
	return nil
}

func (s *Store) idOfSegments() (string, error) {
	names, err := s.Shards()
	if err != nil {
		return "", err
	}
	for _, n := range names {
		infos, err := s.o.FS.List(filepath.Join(s.dir, n))
		if err != nil {
			return "", err
		}
		for _, i := range infos {
			h, err := readSegmentHeader(s.o.FS, filepath.Join(s.dir, n, i.Name()))
			if err == nil && validID(h.Journal) {
				return h.Journal, nil
			}
		}
	}
	var p [6]byte
	if _, err := rand.Read(p[:]); err != nil {
		return "", err
	}
	for i := range p {
		p[i] = idAlphabet[int(p[i])%len(idAlphabet)]
	}
	return string(p[:]), nil
}

// ID is the store's id: six characters [a-z0-9], made once with the folder.
func (s *Store) ID() string { return s.id }

// Shard opens a shard, recovering what a crash left, or makes it. The same
// name gives the same Journal.
func (s *Store) Shard(name string) (*Journal, error) {
	if name == "" || name == asideDir || strings.ContainsAny(name, "/\\") || name[0] == '.' {
		return nil, fmt.Errorf("journal: %q cannot name a shard", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, feeds.ErrStopped
	}
	if j := s.shards[name]; j != nil {
		return j, nil
	}
	j, err := s.openShard(name)
	if err != nil {
		return nil, fmt.Errorf("journal: opening shard %s: %w", name, err)
	}
	s.shards[name] = j
	return j, nil
}

// Shards names the shards on disk, sorted.
func (s *Store) Shards() ([]string, error) {
	infos, err := s.o.FS.List(s.dir)
	if err != nil {
		return nil, fmt.Errorf("journal: listing shards: %w", err)
	}
	var out []string
	for _, i := range infos {
		if i.IsDir() && i.Name() != asideDir {
			out = append(out, i.Name())
		}
	}
	return out, nil
}

func (s *Store) open() []*Journal {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Journal, 0, len(s.shards))
	for _, j := range s.shards {
		out = append(out, j)
	}
	return out
}

// Usage is how full the store is.
type Usage struct {
	// Used are the bytes of all files, what is preallocated and the reserve
	// included; Cap is max_bytes.
	Used, Cap int64
	// Undelivered are the bytes of events that some lane still wants, by
	// tenant, over all open shards.
	Undelivered map[feeds.TenantID]int64
}

// Usage sums up what is used, and what is undelivered, tenant by tenant.
func (s *Store) Usage() Usage {
	u := Usage{Used: s.used.Load(), Cap: s.o.MaxBytes, Undelivered: map[feeds.TenantID]int64{}}
	for _, j := range s.open() {
		j.undelivered(u.Undelivered)
	}
	return u
}

func (s *Store) grew(n int64) { s.used.Add(n) }

// mayGrow says whether n more bytes fit under max_bytes; facts may use what
// the reserve keeps free.
func (s *Store) mayGrow(n int64, events bool) bool {
	if used := s.used.Load() + n; used > s.o.MaxBytes*17/20 {
		s.kick()
		if events && used > s.o.MaxBytes-s.slack() {
			s.refusedAt.Store(used - n)
			return false
		}
	}
	return true
}

// slack is what events leave of max_bytes to facts, indexes and rewriting.
func (s *Store) slack() int64 { return min(s.o.SegmentBytes, s.o.MaxBytes/16) }

// makeRoom is a pass for an append that met the cap; where one has just failed
// to free anything it does not try again at once.
func (s *Store) makeRoom() bool {
	if s.used.Load() < s.refusedAt.Load() {
		return true // another pass has made some since
	}
	if last := s.fruitless.Load(); last != 0 && time.Since(s.began) < time.Duration(last)+passPause {
		return false
	}
	before := s.used.Load()
	if s.Maintain() != nil || s.used.Load() >= before {
		s.fruitless.Store(int64(time.Since(s.began)))
		return false
	}
	s.fruitless.Store(0)
	return true
}

// kick asks for a maintenance pass soon.
func (s *Store) kick() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}

// maintainer runs the passes that appends ask for.
func (s *Store) maintainer() {
	defer close(s.stopped)
	rest := time.NewTimer(passPause)
	defer rest.Stop()
	failing := false
	for {
		select {
		case <-s.stop:
			return
		case <-s.kicked:
			err := s.Maintain()
			if err != nil && !failing && s.o.Report != nil && !errors.Is(err, feeds.ErrStopped) {
				s.o.Report(Incident{What: "maintain", Message: fmt.Sprintf("%v; it is tried again, and what cannot be deleted keeps counting towards max_bytes: mend the disk", err)})
			}
			failing = err != nil
			rest.Reset(passPause)
			select {
			case <-s.stop:
				return
			case <-rest.C:
			}
		}
	}
}

// reserveStep is how much of the reserve is given up at once.
const reserveStep = 1 << 20

// giveReserve gives a part of the reserve's room, n bytes at least where it
// holds so many, to facts; false where nothing is left. From then on no event is
// taken until the reserve is whole again: events would use it up, and positions
// could not move any more.
func (s *Store) giveReserve(j *Journal, n int64) bool {
	s.mu.Lock()
	had := s.reserve
	left := max(0, had-max(n, reserveStep))
	if had == 0 || s.resizeReserve(left) != nil {
		s.mu.Unlock()
		return false
	}
	first := !s.short.Swap(true)
	s.mu.Unlock()
	if first {
		j.report(Incident{What: "reserve-released", Bytes: had - left, Message: "the disk is full: the reserve is given to facts, so that delivery can go on; events are refused until it is whole again"})
	}
	return true
}

// resizeReserve changes the reserve's size; s.mu is held.
func (s *Store) resizeReserve(size int64) error {
	f, err := s.o.FS.Open(filepath.Join(s.dir, reserveFile), true)
	if err != nil {
		return err
	}
	if err = f.Resize(size); err != nil && size > s.reserve {
		_ = f.Resize(s.reserve) // a part of it may have been allocated
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	s.grew(size - s.reserve)
	s.reserve = size
	return nil
}

// restoreReserve makes the reserve whole where there is room for it. On a disk
// that never had room for it there is none.
func (s *Store) restoreReserve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.o.ReserveBytes
	if s.reserve >= n || s.closed || s.used.Load()+n-s.reserve > s.o.MaxBytes {
		return
	}
	path := filepath.Join(s.dir, reserveFile)
	fresh := !s.short.Load()
	if fresh {
		f, err := s.o.FS.Create(path)
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return // a full or failing disk says so where it matters
		}
	}
	if s.resizeReserve(n) == nil {
		s.short.Store(false)
	} else if fresh {
		_ = s.o.FS.Remove(path) // as above
	}
}

// Close ends all shards: what was put later becomes durable, files are cut to
// their ends. Appends under way are finished first.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.stopped
	js := s.open()
	for _, j := range js {
		j.queue.close()
	}
	for _, j := range js {
		<-j.done
	}
	return errors.Join(s.cache.closeAll(), s.unlock())
}

func (s *Store) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Scrub reads every sealed block once, at most bytesPerSecond (0 is no limit),
// and reports damage like Read does.
func (s *Store) Scrub(ctx context.Context, bytesPerSecond int64) error {
	for _, j := range s.open() {
		segs, _ := j.closed()
		if err := j.scrub(ctx, segs, bytesPerSecond); err != nil {
			return err
		}
	}
	return nil
}
