package soak

import (
	"bufio"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// sample is what one life of the service used at one time.
type sample struct {
	life int
	at   time.Duration // of the run
	age  time.Duration // of the life
	used [figuresOf]float64
}

// What is sampled.
const (
	rss = iota
	heap
	descriptors
	goroutines
	journal // as the service says, all shards
	disk    // of its whole data_dir, as the file system says
	parked  // sinks
	figuresOf
)

var sampled = [figuresOf]string{"RSS MB", "heap MB", "descriptors", "goroutines", "journal MB", "data_dir MB", "sinks parked"}

// watcher samples the service, and has the files removed that it has read.
type watcher struct {
	r     *rig
	mu    sync.Mutex
	life  int // counted from 1
	pid   int // 0: it is down
	since time.Time
	all   []sample
	ended chan struct{}
	wg    sync.WaitGroup
}

// up notes that a life begins, down that it ends.
func (w *watcher) up(pid int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.life++
	w.pid, w.since = pid, time.Now()
}

func (w *watcher) down() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pid = 0
}

func (w *watcher) start() {
	w.ended = make(chan struct{})
	w.wg.Go(func() {
		tick := time.NewTicker(w.r.every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-w.ended:
				return
			}
			if err := w.sample(); err != nil {
				w.r.t.Errorf("watching the service: %v", err)
				return
			}
		}
	})
}

func (w *watcher) stop() { close(w.ended); w.wg.Wait() }

// sample takes one, where the service is up from its beginning to its end.
func (w *watcher) sample() error {
	w.mu.Lock()
	pid, s := w.pid, sample{life: w.life, at: time.Since(w.r.began), age: time.Since(w.since)}
	w.mu.Unlock()
	if pid == 0 {
		return nil
	}
	gone := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.pid != pid
	}
	if err := s.ask(w.r, pid); err != nil {
		if gone() {
			return nil // it was ended meanwhile
		}
		if os.IsTimeout(err) {
			return nil // frozen, or the machine is busy: the next one tells
		}
		return err
	}
	if err := w.r.files.tidy(w.r.linesRead); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pid == pid {
		w.all = append(w.all, s)
	}
	return nil
}

// linesRead is how many lines the file feed has read.
func (r *rig) linesRead() (int64, bool) {
	l, ok := r.Ledger()
	for _, f := range l.Feeds {
		if f.Feed == "files" {
			return f.Read, ok
		}
	}
	return 0, false
}

var scraper = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// ask fills in the figures.
func (s *sample) ask(r *rig, pid int) error {
	resp, err := scraper.Get("http://" + r.Admin + "/metrics")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), " ")
		if impossible(name, value) {
			return fmt.Errorf("no fault of this run explains %s", sc.Text())
		}
		name, _, _ = strings.Cut(name, "{")
		at, unit := -1, 1.0
		switch {
		case name == "go_goroutines":
			at = goroutines
		case name == "go_memstats_heap_alloc_bytes":
			at, unit = heap, 1<<20
		case name == "datasync_journal_bytes":
			at, unit = journal, 1<<20
		case strings.HasPrefix(sc.Text(), `datasync_lanes{state="parked"}`):
			at = parked
		default:
			continue
		}
		_, value, _ = strings.Cut(sc.Text()[len(name):], " ")
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return fmt.Errorf("metric %q: %w", sc.Text(), err)
		}
		s.used[at] += n / unit
	}
	if err := sc.Err(); err != nil {
		return err
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	s.used[descriptors] = float64(len(open))
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(statm))[1], 64)
	if err != nil {
		return err
	}
	s.used[rss] = pages * float64(os.Getpagesize()) / (1 << 20)
	s.used[disk], err = onDisk(filepath.Join(r.Dir, "data"))
	return err
}

// impossible says whether a metric is something that none of the faults may
// lead to: damage, loss, an account that does not balance.
func impossible(name, value string) bool {
	if name == "datasync_ledger_balanced" {
		return value != "1"
	}
	kind, ok := strings.CutPrefix(name, `datasync_journal_incidents_total{kind="`)
	switch strings.TrimSuffix(kind, `"}`) {
	case "damage", "expired", "fsync-failed", "fail-stop", "maintain", "reserve-released", "kafka-gap":
		return ok && value != "0"
	}
	return false
}

// onDisk is what a folder takes of its disk, MB; files go while it is looked at.
func onDisk(dir string) (mb float64, err error) {
	err = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				mb += float64(st.Blocks) * 512 / (1 << 20)
			}
		}
		return nil
	})
	return mb, err
}
