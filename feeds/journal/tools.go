package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Report is what Verify and Repair found.
type Report struct {
	Shards, Segments, Commits, Blocks, Events int64
	// Incidents are damage and torn tails, as a running service would report
	// them.
	Incidents []Incident
}

// tool reads a data folder that no service runs on.
type tool struct {
	w      io.Writer
	dir    string
	fs     FS
	blocks bool // read and check every block
	print  bool // a line per segment
	rep    Report
}

// Inspect prints what a data folder holds: shards, segments, commits, events,
// where each ends. It changes nothing; the folder must not be in use.
func Inspect(w io.Writer, dir string) error {
	t := &tool{w: w, dir: dir, fs: OS(), print: true}
	return t.run()
}

// Verify reads everything in a data folder and prints what is damaged. It
// changes nothing; the folder must not be in use. Damage is in the Report, not
// an error.
func Verify(w io.Writer, dir string) (Report, error) {
	t := &tool{w: w, dir: dir, fs: OS(), blocks: true}
	err := t.run()
	if err == nil {
		t.sum("verified")
	}
	return t.rep, err
}

// Repair opens a data folder as the service would: torn tails and damaged
// ranges are copied to the folder set-aside and cut or named by gap facts;
// then it reads every block. Nothing is discarded.
func Repair(w io.Writer, dir string) (Report, error) {
	t := &tool{w: w, dir: dir}
	dir, err := storeDir(dir)
	if err != nil {
		return t.rep, err
	}
	s, err := OpenStore(dir, Options{Report: t.incident, MaxBytes: 1 << 62})
	if err != nil {
		return t.rep, err
	}
	names, err := s.Shards()
	for _, n := range names {
		j, oerr := s.Shard(n)
		if oerr != nil {
			err = errors.Join(err, oerr)
			continue
		}
		j.mu.RLock()
		segs := j.segs
		t.rep.Events += int64(j.tip.events)
		j.mu.RUnlock()
		t.rep.Shards++
		t.rep.Segments += int64(len(segs))
		err = errors.Join(err, j.scrub(context.Background(), segs, 0), j.Put(context.Background()))
	}
	if err = errors.Join(err, s.Close()); err == nil {
		fmt.Fprintf(w, "repaired: %d shards, %d segments, %d incidents; damaged bytes are in %s\n",
			t.rep.Shards, t.rep.Segments, len(t.rep.Incidents), filepath.Join(dir, asideDir))
	}
	return t.rep, err
}

func (t *tool) sum(what string) {
	fmt.Fprintf(t.w, "%s: %d shards, %d segments, %d commits, %d blocks, %d events, %d incidents\n",
		what, t.rep.Shards, t.rep.Segments, t.rep.Commits, t.rep.Blocks, t.rep.Events, len(t.rep.Incidents))
}

func (t *tool) incident(i Incident) {
	t.rep.Incidents = append(t.rep.Incidents, i)
	fmt.Fprintf(t.w, "%s: %s at %d, %d bytes, %d events: %s\n", i.What, i.File, i.Off, i.Bytes, i.Events, i.Message)
}

// storeDir is the journal's folder that dir names: itself, or the one in a data_dir.
func storeDir(dir string) (string, error) {
	for _, d := range []string{dir, filepath.Join(dir, "journal")} {
		if _, err := os.Stat(filepath.Join(d, idFile)); err == nil {
			return d, nil
		}
		// The id may be lost: the segments hold it too.
		if segs, err := filepath.Glob(filepath.Join(d, "*", "*.seg")); err == nil && len(segs) > 0 {
			return d, nil
		}
	}
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("journal: %w", err)
	}
	return "", fmt.Errorf("journal: %s holds no journal: name data_dir, or the folder journal in it", dir)
}

func (t *tool) run() error {
	dir, err := storeDir(t.dir)
	if err != nil {
		return err
	}
	t.dir = dir
	if l, ok := t.fs.(Locker); ok {
		lock, err := l.Lock(filepath.Join(t.dir, lockFile))
		if err != nil {
			return err
		}
		defer func() { _ = lock.Close() }() // released with the process at the latest
	}
	infos, err := t.fs.List(t.dir)
	if err != nil {
		return err
	}
	for _, i := range infos {
		if i.IsDir() && i.Name() != asideDir {
			if err := t.shard(i.Name()); err != nil {
				return fmt.Errorf("shard %s: %w", i.Name(), err)
			}
		}
	}
	if t.print {
		t.sum("total")
	}
	return nil
}

// shard goes through the segments of a shard.
func (t *tool) shard(name string) error {
	t.rep.Shards++
	j := &Journal{s: &Store{o: Options{FS: t.fs, Report: func(i Incident) { t.incident(i) }}}, name: name,
		dir: filepath.Join(t.dir, name)}
	r := &recovery{j: j}
	if err := r.list(); err != nil {
		return err
	}
	if t.print {
		fmt.Fprintf(t.w, "shard %s: %d segments\n", name, len(r.segs)+len(r.extra))
	}
	for _, p := range r.bad {
		t.incident(Incident{Shard: name, What: "damage", File: p, Message: "the header of this segment cannot be read"})
	}
	for i, s := range r.segs {
		if err := t.segment(name, s, i == len(r.segs)-1); err != nil {
			return fmt.Errorf("%s: %w", s.path, err)
		}
	}
	return nil
}

// segment goes through the commits of a segment.
func (t *tool) segment(shard string, s *segment, last bool) error {
	f, err := t.fs.Open(s.path, false)
	if err != nil {
		return err
	}
	k := &walker{w: window{f: f, limit: min(s.end, s.size)}, id: s.head.ID, next: s.head.First, seq: s.head.Seq, events: s.head.Events}
	if !last || s.sealed {
		k.acked = 1<<64 - 1
	}
	commits, events := t.rep.Commits, t.rep.Events
	k.visit = func(c *commitAt) error { return t.commit(shard, s, k, c) }
	err = k.walk(segmentHeaderLen)
	if err == nil && k.last != nil {
		err = t.lastCommit(shard, s, k, last && !s.sealed)
	}
	if err == nil {
		err = t.rest(shard, s, k, f)
	}
	t.rep.Segments++
	if t.print && err == nil {
		state := "active"
		if s.sealed {
			state = "sealed"
		}
		fmt.Fprintf(t.w, "  %s  %s  generation %d  made %s  commits from %d: %d  events %d  %d of %d bytes\n",
			filepath.Base(s.path), state, s.head.Generation, time.UnixMilli(s.head.Created).UTC().Format(time.RFC3339),
			s.head.First, t.rep.Commits-commits, t.rep.Events-events, max(k.tail, segmentHeaderLen), s.size)
	}
	return errors.Join(err, f.Close())
}

func (t *tool) lastCommit(shard string, s *segment, k *walker, open bool) error {
	if !open {
		return t.commit(shard, s, k, k.last)
	}
	verdict, err := k.judge(k.last)
	switch {
	case err != nil:
		return err
	case verdict == whole:
		return t.commit(shard, s, k, k.last)
	case verdict == damaged:
		t.incident(Incident{Shard: shard, What: "damage", File: s.path, Off: k.last.off, Bytes: k.last.head.size(),
			Events: int64(k.last.head.Events), Message: fmt.Sprintf("the last commit (%d) is damaged", k.last.head.Number)})
		k.tail = k.last.end()
	default:
		k.tail = k.last.off
	}
	return nil
}

// rest reports what lies between and behind the commits.
func (t *tool) rest(shard string, s *segment, k *walker, f File) error {
	for _, b := range k.bad {
		t.incident(Incident{Shard: shard, What: "damage", File: s.path, Off: b.from, Bytes: b.to - b.from, Events: int64(b.events),
			Message: fmt.Sprintf("commits %d to %d are damaged", b.first, b.next-1)})
	}
	if s.sealed {
		raw := make([]byte, s.foot.IndexLen)
		err := readFull(f, raw, s.foot.IndexOff)
		if err == nil {
			_, err = decodeIndex(raw, s.foot)
		}
		if errors.Is(err, errDamaged) {
			t.incident(Incident{Shard: shard, What: "damage", File: s.path, Off: s.foot.IndexOff, Bytes: int64(s.foot.IndexLen),
				Message: "the index is damaged; the directories say the same"})
			err = nil
		}
		return err
	}
	end, err := k.written(max(k.tail, segmentHeaderLen))
	if end > k.tail && end > segmentHeaderLen {
		t.incident(Incident{Shard: shard, What: "torn-tail", File: s.path, Off: k.tail, Bytes: end - k.tail,
			Message: "bytes behind the last commit were never acknowledged"})
	}
	return err
}

// commit counts a commit and checks what it claims.
func (t *tool) commit(shard string, s *segment, k *walker, c *commitAt) error {
	t.rep.Commits++
	var m blockMeta
	var buf []byte
	blocks, facts := uint32(0), uint32(0)
	var failed error
	frames(c.facts, func([]byte) { facts++ })
	frames(c.dir, func(body []byte) {
		tenant, _, err := decodeDirEntry(body, &m)
		if err != nil || failed != nil {
			return
		}
		blocks++
		t.rep.Blocks++
		t.rep.Events += int64(m.Events)
		if !t.blocks {
			return
		}
		m.Off += c.blocks()
		buf = slices.Grow(buf[:0], int(m.Stored))[:m.Stored]
		if err := readBlock(k.w.f, buf, &m); errors.Is(err, errDamaged) {
			t.incident(Incident{Shard: shard, What: "damage", File: s.path, Off: m.Off, Bytes: int64(m.Stored), Events: int64(m.Events),
				Message: fmt.Sprintf("a block of %s in commit %d is damaged", tenant, c.head.Number)})
		} else {
			failed = err
		}
	})
	if blocks != c.head.Blocks || facts != c.head.Facts {
		t.incident(Incident{Shard: shard, What: "damage", File: s.path, Off: c.off, Bytes: int64(c.head.DirLen) + int64(c.head.FactsLen),
			Message: fmt.Sprintf("commit %d: %d of %d blocks and %d of %d facts can be found", c.head.Number, blocks, c.head.Blocks, facts, c.head.Facts)})
	}
	return failed
}
