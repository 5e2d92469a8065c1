package trial

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
)

// LoadOptions say what Load makes and where it goes.
type LoadOptions struct {
	Generator GeneratorOptions
	// Rate is events per second; 0: as fast as it goes.
	Rate float64
	// Count is how many events; 0: until the context ends.
	Count int64
	// To is "-" for Out, an http or https URL, or else a file, which is made anew.
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
