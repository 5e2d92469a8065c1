package soak

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"datasync/integration/readers"
)

// lane is what was read of the objects of a shard, a tenant and a sink. They
// are numbered without a gap; each is read once, and removed once its follower
// is there: a drop is begun when the one before is completed, durably, so
// nobody will put that again.
type lane struct {
	name   string // of tenant, sink and shard
	tenant int
	kind   kind
	extra  bool // of the sinks that faults add: nothing is owed there
	files  bool // of the file feed
	read   int  // the number of the last that was read
	kept   string
	events int         // in it
	last   map[int]int // which event came last; of the file feed, of each file
}

// object is one that was found.
type object struct {
	*lane
	number int
	path   string
}

// gatherer reads what arrives in folders, buckets and receivers' files while it
// arrives, and removes it: one goroutine the objects, another the lines.
type gatherer struct {
	r       *rig
	lanes   map[string]*lane
	lines   [2]*follower // of datasync receive, of rsyslog
	objects int
	mu      sync.Mutex
	extra   map[int]int64 // events at the added sink, by tenant; under mu
	ended   chan struct{}
	wg      sync.WaitGroup
}

func newGatherer(r *rig) *gatherer {
	return &gatherer{r: r, lanes: map[string]*lane{}, extra: map[int]int64{}, ended: make(chan struct{}),
		lines: [2]*follower{{path: r.receiver.Out(), odd: true}, {path: r.rsyslog.Doors[0].Out}}}
}

// start reads until stop. Parquet is read seldom: DuckDB is started for it.
func (g *gatherer) start() {
	i := 0
	g.repeat(func() error { i++; return g.objectsPass(i%5 == 0) })
	g.repeat(g.linesPass)
}

// repeat calls every second until stop.
func (g *gatherer) repeat(pass func() error) {
	g.wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if err := pass(); err != nil {
				g.r.t.Errorf("reading what arrived: %v", err)
				return
			}
			select {
			case <-tick.C:
			case <-g.ended:
				return
			}
		}
	})
}

// stop ends the reading; then the test may call pass.
func (g *gatherer) stop() { close(g.ended); g.wg.Wait() }

// pass reads all that is new.
func (g *gatherer) pass() error { return errors.Join(g.linesPass(), g.objectsPass(true)) }

func (g *gatherer) linesPass() error {
	for _, f := range g.lines {
		if err := f.pass(g.r.tally); err != nil {
			return err
		}
	}
	return nil
}

func (g *gatherer) objectsPass(parquet bool) error {
	found, err := g.find()
	if err != nil {
		return err
	}
	var tables []object
	for _, of := range found {
		slices.SortFunc(of, func(a, b object) int { return a.number - b.number })
		read := of[0].read
		for _, o := range of {
			if o.number < read || o.number == read && o.path != o.kept {
				g.r.tally.found("%s: number %d is there again: %s", o.name, o.number, o.path)
				continue
			}
			if o.number == read || o.kind == lake && !parquet {
				continue
			}
			if o.number != read+1 { // its predecessor shows in the next pass, or is missed in the end
				break
			}
			read++
			if o.kind == lake {
				tables = append(tables, o)
			} else if err := g.take(o); err != nil {
				return err
			}
		}
	}
	return g.takeTables(tables)
}

// find lists the objects, those of each lane together.
func (g *gatherer) find() (map[string][]object, error) {
	found := map[string][]object{}
	for _, root := range []string{g.r.bucket, filepath.Join(g.r.Dir, "drops"), filepath.Join(g.r.Dir, "extra")} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			name := filepath.Base(path)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil
			case err != nil:
				return err
			case e.IsDir() && strings.HasPrefix(name, "."):
				return fs.SkipDir // what is not put yet
			case e.IsDir() || strings.HasSuffix(name, ".manifest.json"):
				return nil
			}
			part := strings.SplitN(name, ".", 5)
			if len(part) < 5 {
				return nil // a probe of the sink's
			}
			o := object{path: path}
			if o.number, err = strconv.Atoi(part[3]); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			at := strings.Join(part[:3], ".")
			if o.lane, err = g.lane(at, part); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			found[at] = append(found[at], o)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (g *gatherer) lane(name string, part []string) (*lane, error) {
	l := g.lanes[name]
	if l == nil {
		l = &lane{name: name, extra: part[1] == "extra", files: strings.HasPrefix(part[2], "files-"), kind: drops, last: map[int]int{}}
		if part[1] == kindNames[lake] {
			l.kind = lake
		}
		var err error
		if l.tenant, err = strconv.Atoi(strings.TrimPrefix(part[0], "t")); err != nil {
			return nil, err
		}
		g.lanes[name] = l
	}
	return l, nil
}

// take reads an object of lines. Those of a lane come in the order in which
// their source made them, and none comes again.
func (g *gatherer) take(o object) error {
	events := 0
	defer func() {
		if o.extra {
			g.mu.Lock()
			g.extra[o.tenant] += int64(events)
			g.mu.Unlock()
		}
	}()
	err := eachLine(o.path, func(line []byte) error {
		events++
		id, _, ok := eventID(line)
		if !ok || !json.Valid(line) {
			g.r.tally.found("%s holds a line that is no event: %.200q", o.path, line)
			return nil
		}
		_, n, _ := parseID(id)
		if !o.extra {
			n, _ = g.r.tally.arrive(drops, o.tenant, id)
		}
		from := 0
		if o.files {
			from = g.r.files.of(n)
		}
		if n <= o.last[from] {
			g.r.tally.found("%s: %s comes behind event %d of the same source", o.path, id, o.last[from])
		}
		o.last[from] = n
		return nil
	})
	if err != nil {
		return err
	}
	return g.took(o, events)
}

// takeTables reads objects of Parquet.
func (g *gatherer) takeTables(os []object) error {
	for batch := range slices.Chunk(os, 500) {
		var paths []string
		of := map[string]*object{}
		events := map[string]int{}
		for i := range batch {
			paths = append(paths, batch[i].path)
			of[batch[i].path] = &batch[i]
		}
		err := readers.Each(g.r.t, paths, func(path, id string) {
			events[path]++
			g.r.tally.arrive(lake, of[path].tenant, []byte(id))
		})
		if err != nil {
			return err
		}
		for _, o := range batch {
			if err := g.took(o, events[o.path]); err != nil {
				return err
			}
		}
	}
	return nil
}

// took notes that an object was read, and removes the one before it.
func (g *gatherer) took(o object, events int) error {
	g.objects++
	if o.kept != "" {
		if err := g.remove(o.lane); err != nil {
			return err
		}
	}
	o.read, o.kept, o.events = o.number, o.path, events
	return nil
}

// remove removes the object that was kept, and its manifest, which must be there.
func (g *gatherer) remove(l *lane) error {
	if l.kind == drops && !l.extra {
		path := filepath.Join(filepath.Dir(l.kept), fmt.Sprintf("%s.%012d.manifest.json", l.name, l.read))
		raw, err := os.ReadFile(path)
		var m struct{ Events int }
		if err == nil {
			err = json.Unmarshal(raw, &m)
		}
		if err != nil || m.Events != l.events {
			g.r.tally.found("%s: %d events, its manifest says %d (%v)", l.kept, l.events, m.Events, err)
		} else if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.Remove(l.kept)
}

// eachLine calls with each line of an object.
func eachLine(path string, call func([]byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var from io.Reader = f
	switch filepath.Ext(path) {
	case ".gz":
		if from, err = gzip.NewReader(bufio.NewReaderSize(f, 64<<10)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	case ".zst":
		z, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		defer z.Close()
		from = z
	}
	sc := bufio.NewScanner(from)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		if err := call(sc.Bytes()); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// whole is the event that a receiver's line ends with. Where a connection broke
// in a line, or the receiver died in writing one, it stands behind a torn one.
func whole(line []byte) (event []byte, torn bool) {
	if json.Valid(line) {
		return line, false
	}
	for at := 1; at < len(line); at++ {
		next := bytes.Index(line[at:], []byte(`{"`))
		if next < 0 {
			return nil, true
		}
		if at += next; json.Valid(line[at:]) {
			return line[at:], true
		}
	}
	return nil, true
}

// added notes that a tenant has, or had, the sink that faults add.
func (g *gatherer) added(tenant int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.extra[tenant] += 0
}

// extras are the events at the added sinks, by tenant.
func (g *gatherer) extras() map[int]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.extra)
}
