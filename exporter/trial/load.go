package trial

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"datasync/feeds"
	kafkafeed "datasync/feeds/kafka"
)

// LoadOptions say what Load makes and where it goes.
type LoadOptions struct {
	Generator GeneratorOptions
	// Rate is events per second; 0: as fast as it goes.
	Rate float64
	// Count is how many events; 0: until the context ends.
	Count int64
	// To is "-" for Out, an http or https URL, kafka://BROKER:PORT[,BROKER:PORT]/TOPIC[?compression=C],
	// or else a file, which is made anew.
	// A URL without a path means /v1/ingest/canonical/{tenant} there.
	To string
	// Key is the API key; "{tenant}" in it, as in To, becomes the tenant.
	Key string
	// Out is where "-" goes.
	Out io.Writer
	// GiveUp is how long a request is tried again for; 0 is 2 minutes.
	GiveUp time.Duration
}

// LoadSummary is what came of a Load.
type LoadSummary struct {
	Events   int64 // written, or answered for
	Bytes    int64 // of them, newlines included
	Rejected int64 // events, by the other side
	Requests int64 // HTTP requests answered for
	Retries  int64 // and tried again
	Elapsed  time.Duration
}

// String is a line for people.
func (s LoadSummary) String() string {
	rate := float64(s.Events) / max(s.Elapsed.Seconds(), 1e-9)
	line := fmt.Sprintf("%d events (%.1f MB) in %.2f s: %.0f events/s, %d rejected", s.Events, float64(s.Bytes)/1e6, s.Elapsed.Seconds(), rate, s.Rejected)
	if s.Requests > 0 {
		line += fmt.Sprintf("; %d requests, %d retries", s.Requests, s.Retries)
	}
	return line
}

// outlet is where a Load's events go. add may block; flush hands over what was
// held back for company; close waits until all is done with.
type outlet interface {
	add(line []byte, tenant string) error
	flush() error
	close() (LoadSummary, error)
}

// Load makes events and hands them over until Count is reached or the context
// ends, which is no error: what was made until then is handed over.
func Load(ctx context.Context, o LoadOptions) (LoadSummary, error) {
	start := time.Now()
	out, err := openOutlet(ctx, o)
	if err != nil {
		return LoadSummary{}, err
	}
	err = generate(ctx, o, out)
	s, closed := out.close()
	s.Elapsed = time.Since(start)
	return s, errors.Join(err, closed)
}

func openOutlet(ctx context.Context, o LoadOptions) (outlet, error) {
	switch {
	case strings.HasPrefix(o.To, "http://"), strings.HasPrefix(o.To, "https://"):
		return newPoster(ctx, o)
	case strings.HasPrefix(o.To, "kafka://"):
		return newProducer(ctx, o)
	case o.To == "-":
		return &writer{w: bufio.NewWriterSize(o.Out, 1<<20)}, nil
	default:
		f, err := os.Create(o.To)
		if err != nil {
			return nil, fmt.Errorf("write events: %w", err)
		}
		return &writer{w: bufio.NewWriterSize(f, 1<<20), file: f}, nil
	}
}

// pulse is how often events that are due are made, and what was made is flushed.
const pulse = 20 * time.Millisecond

// generate makes the events that are due, pulse after pulse.
func generate(ctx context.Context, o LoadOptions, out outlet) error {
	g := NewGenerator(o.Generator)
	left := int64(math.MaxInt64)
	if o.Count > 0 {
		left = o.Count
	}
	tick := time.NewTicker(pulse)
	defer tick.Stop()
	start, made := time.Now(), int64(0)
	var line []byte
	for ctx.Err() == nil && left > made {
		now := time.Now()
		g.At(now)
		due := int64(1000) // at a time, so that the clock and the context are looked at
		if o.Rate > 0 {
			due = int64(now.Sub(start).Seconds()*o.Rate) + 1 - made
		}
		for range min(due, left-made) {
			var tenant string
			line, tenant, _ = g.Next(line[:0])
			line = append(line, '\n')
			if err := out.add(line, tenant); err != nil {
				return err
			}
			made++
		}
		if o.Rate <= 0 {
			continue
		}
		if err := out.flush(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// writer is a file or standard output.
type writer struct {
	w    *bufio.Writer
	file *os.File
	s    LoadSummary
}

func (w *writer) add(line []byte, _ string) error {
	if _, err := w.w.Write(line); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	w.s.Events++
	w.s.Bytes += int64(len(line))
	return nil
}

func (w *writer) flush() error {
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	return nil
}

func (w *writer) close() (LoadSummary, error) {
	err := w.flush()
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
	}
	return w.s, err
}

// CheckTarget says what is wrong with a LoadOptions.To, as far as that can be
// seen from its text.
func CheckTarget(to string) error {
	if !strings.HasPrefix(to, "kafka://") {
		return nil
	}
	o, err := kafkaTarget(to)
	if err != nil {
		return err
	}
	w, err := kafkafeed.NewWriter(o)
	if err != nil {
		return err
	}
	return w.Close()
}

// kafkaTarget takes a kafka:// URL apart.
func kafkaTarget(to string) (kafkafeed.WriterOptions, error) {
	u, err := url.Parse(to)
	if err != nil {
		return kafkafeed.WriterOptions{}, fmt.Errorf("is no URL: %w", err)
	}
	o := kafkafeed.WriterOptions{Brokers: strings.Split(u.Host, ","), Topic: strings.Trim(u.Path, "/"), Compression: u.Query().Get("compression")}
	switch key := u.Query().Get("key"); key {
	case "", "tenant":
	case "none":
		o.Spread = true
	default:
		return o, fmt.Errorf("key=%s: use tenant (one partition has all of a tenant's events) or none (they are spread over all)", key)
	}
	for _, b := range o.Brokers {
		if host, port, err := net.SplitHostPort(b); err != nil || host == "" || port == "" || o.Topic == "" || strings.Contains(o.Topic, "/") {
			return o, errors.New("use kafka://BROKER:PORT/TOPIC")
		}
	}
	return o, nil
}

// producer writes events to a Kafka topic, the tenant as the key unless they are spread.
type producer struct {
	ctx     context.Context
	w       *kafkafeed.Writer
	spread  bool // no record has a key
	records []feeds.Record
	arena   []byte
	s       LoadSummary
}

// produceBytes are written at once.
const produceBytes = 4 << 20

func newProducer(ctx context.Context, o LoadOptions) (*producer, error) {
	target, err := kafkaTarget(o.To)
	if err != nil {
		return nil, fmt.Errorf("--to %s: %w", o.To, err)
	}
	w, err := kafkafeed.NewWriter(target)
	if err != nil {
		return nil, err
	}
	return &producer{ctx: ctx, w: w, spread: target.Spread}, nil
}

func (p *producer) add(line []byte, tenant string) error {
	start := len(p.arena)
	p.arena = append(p.arena, line[:len(line)-1]...) // a record is a line without its end
	r := feeds.Record{Value: p.arena[start:len(p.arena):len(p.arena)]}
	if !p.spread {
		r.Key = []byte(tenant)
	}
	p.records = append(p.records, r)
	if len(p.arena) < produceBytes {
		return nil
	}
	return p.flush()
}

func (p *producer) flush() error {
	if len(p.records) == 0 {
		return nil
	}
	// What was made is handed over even when the context has ended.
	if err := p.w.Write(context.WithoutCancel(p.ctx), p.records); err != nil {
		return err
	}
	p.s.Events += int64(len(p.records))
	p.s.Bytes += int64(len(p.arena) + len(p.records))
	p.records, p.arena = p.records[:0], p.arena[:0]
	return nil
}

func (p *producer) close() (LoadSummary, error) {
	err := p.flush()
	return p.s, errors.Join(err, p.w.Close())
}
