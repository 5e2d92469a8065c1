package trial

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	posters     = 4         // requests at a time; a tenant's go one after another
	batchBytes  = 512 << 10 // a request is sent at this size …
	batchEvents = 1000      // … or this many events
	linger      = 200 * time.Millisecond
	stopGrace   = 5 * time.Second
)

// poster posts events, a tenant's together and in order.
type poster struct {
	o      LoadOptions
	to     string
	run    string // makes the idempotency keys of this run its own
	client *http.Client
	ctx    context.Context
	cancel context.CancelFunc

	open    map[string]*batch
	oldest  time.Time // of the open batches, near enough
	number  int
	queues  [posters]chan *batch
	workers sync.WaitGroup

	mu  sync.Mutex
	s   LoadSummary
	err error
}

// batch is one request.
type batch struct {
	tenant string
	number int
	events int
	body   bytes.Buffer
}

func newPoster(ctx context.Context, o LoadOptions) (*poster, error) {
	u, err := url.Parse(o.To)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("post events: %q is no URL; use http://HOST:PORT", o.To)
	}
	if u.Path == "" || u.Path == "/" {
		o.To = u.Scheme + "://" + u.Host + "/v1/ingest/canonical/{tenant}"
	}
	if o.GiveUp == 0 {
		o.GiveUp = 2 * time.Minute
	}
	p := &poster{o: o, to: o.To, run: rand.Text(), open: map[string]*batch{}, oldest: time.Now(),
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: posters}}}
	// The requests outlive ctx by a grace, so that what was made is delivered.
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, p.cancel) })
	for i := range p.queues {
		p.queues[i] = make(chan *batch, 2)
		p.workers.Go(func() { p.work(p.queues[i]) })
	}
	return p, nil
}

func (p *poster) add(line []byte, tenant string) error {
	b := p.open[tenant]
	if b == nil {
		p.number++
		b = &batch{tenant: tenant, number: p.number}
		p.open[tenant] = b
	}
	b.body.Write(line)
	if b.events++; b.events < batchEvents && b.body.Len() < batchBytes {
		return nil
	}
	return p.send(b)
}

// send queues a batch with the worker of its tenant.
func (p *poster) send(b *batch) error {
	delete(p.open, b.tenant)
	h := fnv.New32a()
	_, _ = io.WriteString(h, b.tenant) // a hash does not fail
	select {
	case p.queues[h.Sum32()%posters] <- b:
	case <-p.ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *poster) flush() error {
	if time.Since(p.oldest) < linger {
		return nil
	}
	return p.sendAll()
}

func (p *poster) sendAll() error {
	p.oldest = time.Now()
	for _, b := range p.open {
		if err := p.send(b); err != nil {
			return err
		}
	}
	return nil
}

func (p *poster) close() (LoadSummary, error) {
	err := p.sendAll()
	for _, q := range p.queues {
		close(q)
	}
	p.workers.Wait()
	p.cancel()
	p.client.CloseIdleConnections()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		err = p.err // the same, or one that came later
	}
	return p.s, err
}

// work posts one batch after another; the first failure for good ends the load.
func (p *poster) work(queue <-chan *batch) {
	for b := range queue {
		if p.ctx.Err() != nil {
			continue
		}
		rejected, retries, err := p.post(b)
		p.mu.Lock()
		p.s.Retries += retries
		if err == nil {
			p.s.Requests++
			p.s.Events += int64(b.events)
			p.s.Bytes += int64(b.body.Len())
			p.s.Rejected += rejected
		} else if p.err == nil {
			p.err = err
			p.cancel()
		}
		p.mu.Unlock()
	}
}

// errAgain is a failure that may pass.
var errAgain = errors.New("try again")

// post posts a batch until it is answered for good.
func (p *poster) post(b *batch) (rejected, retries int64, err error) {
	end := time.Now().Add(p.o.GiveUp)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		var after time.Duration
		rejected, after, err = p.try(b)
		if err == nil || !errors.Is(err, errAgain) || time.Now().After(end) {
			return rejected, retries, err
		}
		retries++
		select {
		case <-time.After(max(pause, after)):
		case <-p.ctx.Done():
			return 0, retries, fmt.Errorf("gave up on %d events of %s at the stop: %w", b.events, b.tenant, err)
		}
	}
}

// try posts a batch once; after is what Retry-After asks for.
func (p *poster) try(b *batch) (rejected int64, after time.Duration, err error) {
	to := strings.ReplaceAll(p.to, "{tenant}", url.PathEscape(b.tenant))
	req, err := http.NewRequestWithContext(p.ctx, http.MethodPost, to, bytes.NewReader(b.body.Bytes()))
	if err != nil {
		return 0, 0, fmt.Errorf("post events: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Idempotency-Key", p.run+"-"+strconv.Itoa(b.number))
	if p.o.Key != "" {
		req.Header.Set("Authorization", "Bearer "+strings.ReplaceAll(p.o.Key, "{tenant}", b.tenant))
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0, 0, fmt.Errorf("post events: %w: %w", errAgain, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return 0, 0, fmt.Errorf("post events to %s: read the answer: %w: %w", to, errAgain, err)
	}
	var answer struct {
		Rejected []json.RawMessage `json:"rejected"`
		More     int64             `json:"rejected_more"`
	}
	known := json.Unmarshal(body, &answer) == nil
	rejected = int64(len(answer.Rejected)) + answer.More
	switch {
	case res.StatusCode == http.StatusOK, res.StatusCode == http.StatusBadRequest && known && rejected > 0:
		return rejected, 0, nil
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode >= 500:
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After")) // absent is 0
		return 0, time.Duration(seconds) * time.Second, fmt.Errorf("post events to %s: %w: %s: %.300s", to, errAgain, res.Status, body)
	default:
		return 0, 0, fmt.Errorf("post events to %s: %s: %.300s", to, res.Status, body)
	}
}
