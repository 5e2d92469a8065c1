package soak

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/integration/harness"
)

// event is one that was made.
type event struct {
	tenant int
	line   []byte // without its newline
}

// source makes events at its share of the rate and hands them over until they
// are taken, whatever happens to the service and to what lies before it.
type source struct {
	feed  string
	seed  uint64
	share float64
	pulse time.Duration
	gen   *maker
	// put hands over events and returns when all are taken; an error is none
	// that a fault explains.
	put func([]event) error
	// spoil hands over records that can be no events.
	spoil func([][]byte) error
	bad   int // records of spoil
}

// load is all sources.
type load struct {
	t       *testing.T
	tally   *tally
	sources []*source
	most    int           // events on the way, at most
	rate    atomic.Uint64 // bits of a float64; +Inf: as fast as it goes
	held    atomic.Int64  // times that a source waited because too many were on the way
	ended   chan struct{}
	wg      sync.WaitGroup
}

func (l *load) set(rate float64) { l.rate.Store(math.Float64bits(rate)) }

// start has all sources make events until stop.
func (l *load) start() {
	for _, s := range l.sources {
		l.wg.Go(func() {
			if err := l.run(s); err != nil {
				l.t.Errorf("feed %s: %v", s.feed, err)
			}
		})
	}
}

// stop waits for what is being handed over: the service must be up.
func (l *load) stop() {
	close(l.ended)
	l.wg.Wait()
}

// run makes what is due, pulse after pulse. What could not be made in time,
// because something was down, is made up for no longer than a second.
func (l *load) run(s *source) error {
	tick := time.NewTicker(s.pulse)
	defer tick.Stop()
	debt, last := 0.0, time.Now()
	for {
		select {
		case <-l.ended:
			return nil
		case <-tick.C:
		}
		rate := math.Float64frombits(l.rate.Load()) * s.share
		now := time.Now()
		debt = min(debt+rate*now.Sub(last).Seconds(), rate, 5000)
		last = now
		if _, onTheWay := l.tally.outstanding(); onTheWay > l.most {
			l.held.Add(1)
			continue
		}
		batch := make([]event, int(debt))
		debt -= float64(len(batch))
		if len(batch) == 0 {
			continue
		}
		for i := range batch {
			e, err := s.gen.next()
			if err != nil {
				return err
			}
			l.tally.make(s.seed, e.tenant)
			batch[i] = e
		}
		if err := s.put(batch); err != nil {
			return err
		}
	}
}

// maker is `datasync generate`, which makes as many events as are taken from it.
type maker struct{ lines *bufio.Reader }

func newMaker(t *testing.T, tenants int, seed uint64) *maker {
	t.Helper()
	cmd := exec.Command(harness.Binary(t), "generate", "--rate", "0", "--tenants", fmt.Sprint(tenants), "--seed", fmt.Sprint(seed), "--to", "-")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("generate: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it makes events for ever
		_ = cmd.Wait()         // says that it was killed
	})
	return &maker{bufio.NewReaderSize(out, 64<<10)}
}

func (m *maker) next() (event, error) {
	line, err := m.lines.ReadBytes('\n')
	if err != nil {
		return event{}, fmt.Errorf("generate: %w", err)
	}
	_, rest, _ := bytes.Cut(line, []byte(`"tenant_id":"t`))
	name, _, _ := bytes.Cut(rest, []byte(`"`))
	tenant, err := strconv.Atoi(string(name))
	return event{tenant, line[:len(line)-1]}, err
}

// poison are records that are no events, whatever feed they come by. A whole
// JSON value comes first: only then is a body taken line by line.
func poison(n int) (out [][]byte) {
	for i := range n {
		id := fmt.Sprintf(`"event_id":"poison-%d-%d","tenant_id":"t0001","source":"edge","kind":"mitigation","event_time":%d`, time.Now().UnixNano(), i, time.Now().UnixMilli())
		out = append(out, []byte([]string{
			`42`, `{` + id + `,"score":NaN}`, `{` + id + `,"text":"` + "\xff\xfe" + `"}`, `{` + id + `,"text":"a` + "\x01" + `b"}`,
			`{` + id + `,"odd":1,"odd":2}`, `{` + id, `"{` + `}"`, `null`,
		}[i%8]))
	}
	return out
}

// intoKafka writes records with the tenant as their key. A broker that died is
// waited for; what it took once is not written twice (franz-go is idempotent).
func intoKafka(c *kgo.Client) (put func([]event) error, spoil func([][]byte) error) {
	send := func(rs []*kgo.Record) error { return c.ProduceSync(context.Background(), rs...).FirstErr() }
	put = func(es []event) error {
		var rs []*kgo.Record
		for _, e := range es {
			rs = append(rs, &kgo.Record{Key: fmt.Appendf(nil, "t%04d", e.tenant), Value: e.line})
		}
		return send(rs)
	}
	return put, func(values [][]byte) error {
		var rs []*kgo.Record
		for _, v := range values {
			rs = append(rs, &kgo.Record{Key: []byte("t0001"), Value: v})
		}
		return send(rs)
	}
}

// poster posts a tenant's events together, a few requests at a time, each under
// one idempotency key until it is answered.
type poster struct {
	feed   string // host:port
	client *http.Client
	posts  atomic.Int64
	again  atomic.Int64
}

func newPoster(feed string) *poster {
	return &poster{feed: feed, client: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
}

func (p *poster) put(es []event) error {
	of := map[int][][]byte{}
	for _, e := range es {
		of[e.tenant] = append(of[e.tenant], e.line)
	}
	errs := make(chan error, len(of))
	turns := make(chan struct{}, 8)
	for tenant, lines := range of {
		turns <- struct{}{}
		go func() {
			id, _, _ := eventID(lines[0])
			status, accepted, err := p.until(tenant, "from-"+string(id), append(bytes.Join(lines, []byte("\n")), '\n'))
			if err == nil && (status != http.StatusOK || accepted != len(lines)) {
				err = fmt.Errorf("of %d events of t%04d %d were accepted: %d", len(lines), tenant, accepted, status)
			}
			errs <- err
			<-turns
		}()
	}
	var first error
	for range of {
		if err := <-errs; first == nil {
			first = err
		}
	}
	return first
}

func (p *poster) spoil(values [][]byte) error {
	status, accepted, err := p.until(1, fmt.Sprint("poison-", time.Now().UnixNano()), append(bytes.Join(values, []byte("\n")), '\n'))
	if err == nil && (status != http.StatusBadRequest || accepted != 0) {
		err = fmt.Errorf("poison was answered with %d, %d accepted", status, accepted)
	}
	return err
}

// until posts until there is an answer that is not "later".
func (p *poster) until(tenant int, key string, body []byte) (status, accepted int, err error) {
	for try := 0; ; try++ {
		status, accepted, err = p.post(tenant, key, body)
		if err == nil && status != http.StatusServiceUnavailable {
			p.posts.Add(1)
			p.again.Add(int64(min(try, 1)))
			return status, accepted, nil
		}
		if wrong, ok := err.(wrongAnswer); ok {
			return status, 0, wrong
		}
		if try > 6000 {
			return 0, 0, fmt.Errorf("a post is never answered: %d, %w", status, err)
		}
		harness.Pause(50 * time.Millisecond)
	}
}

// wrongAnswer is one that no fault explains.
type wrongAnswer struct{ error }

func (p *poster) post(tenant int, key string, body []byte) (status, accepted int, err error) {
	req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://%s/v1/ingest/canonical/t%04d", p.feed, tenant), bytes.NewReader(body))
	if err != nil {
		return 0, 0, err
	}
	req.Header.Set("Authorization", fmt.Sprintf("Bearer key-of-t%04d", tenant))
	req.Header.Set("Idempotency-Key", key)
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, 0, err
	}
	var a struct{ Accepted int }
	switch resp.StatusCode {
	case http.StatusOK:
		err = json.Unmarshal(text, &a)
	case http.StatusBadRequest, http.StatusServiceUnavailable:
	default:
		err = wrongAnswer{fmt.Errorf("a post of t%04d was answered with %s: %.300s", tenant, resp.Status, text)}
	}
	return resp.StatusCode, a.Accepted, err
}

// files are those that the file feed follows: one is written to, those before
// it are removed once the feed has read them.
type files struct {
	dir   string
	limit int64
	mu    sync.Mutex
	f     *os.File
	size  int64
	n     int
	lines int64    // written, in all
	made  int      // of them events
	full  []string // those before it
	first []int    // the first event of each file
}

func (w *files) spoil(lines [][]byte) error { return w.append(lines, 0) }

func (w *files) append(lines [][]byte, events int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.f == nil {
		var err error
		w.n++
		if w.f, err = os.Create(filepath.Join(w.dir, fmt.Sprintf("%06d.ndjson", w.n))); err != nil {
			return err
		}
		w.first = append(w.first, w.made+1)
	}
	n, err := w.f.Write(append(bytes.Join(lines, []byte("\n")), '\n'))
	if err != nil {
		return err
	}
	w.size, w.lines, w.made = w.size+int64(n), w.lines+int64(len(lines)), w.made+events
	if w.size < w.limit {
		return nil
	}
	path, f := w.f.Name(), w.f
	w.full, w.f, w.size = append(w.full, path), nil, 0
	return f.Close()
}

func (w *files) put(es []event) error {
	var lines [][]byte
	for _, e := range es {
		lines = append(lines, e.line)
	}
	return w.append(lines, len(lines))
}

// of is the file that an event is in: those of one are read in order, those of
// several in turns.
func (w *files) of(event int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return sort.SearchInts(w.first, event+1)
}

// tidy removes the files that are written to no more, once the feed has read
// all that there is: it reads several in turns, so a count says nothing of one
// of them before. Nothing is written meanwhile. read gives how many lines the
// feed has read; where it is behind, or down, another time will do.
func (w *files) tidy(read func() (lines int64, ok bool)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.full) == 0 {
		return nil
	}
	for began := time.Now(); ; harness.Pause(100 * time.Millisecond) {
		lines, ok := read()
		switch {
		case lines > w.lines:
			return fmt.Errorf("the file feed says that it read %d lines of %d", lines, w.lines)
		case !ok || time.Since(began) > 2*time.Second:
			return nil
		}
		if lines == w.lines {
			break
		}
	}
	for _, path := range w.full {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	w.full = nil
	return nil
}
