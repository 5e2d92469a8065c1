package kinesisfeed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
)

// shard reads one shard to its end. Its goroutine owns it.
type shard struct {
	f        *Feed
	id       string
	mark     mark
	new      bool // nothing of it is durable yet
	iterator string
	gaps     []Gap // to become durable with the next submit
	pile     pile
	noted    time.Time // when Until was last kept without records
	pause    time.Duration
}

func newShard(f *Feed, s Shard, m mark) *shard {
	sh := &shard{f: f, id: s.ID, mark: m, new: m.First == ""}
	sh.mark.First = s.First
	return sh
}

// noteEvery is how often it is kept that a shard without records was read.
const noteEvery = time.Minute

// run reads until the shard or ctx ends. An error means that the journal takes nothing any more.
func (s *shard) run(ctx context.Context) error {
	for ctx.Err() == nil && !s.mark.Done {
		wait, err := s.step(ctx)
		switch {
		case errors.Is(err, feeds.ErrStopped):
			return err
		case err != nil:
			wait = s.failed(ctx, err)
		default:
			s.pause = 0
			s.f.trouble.Tell(s.id, nil)
		}
		pause(ctx, wait)
	}
	if s.mark.Done { // one that ended is in no trouble any more
		s.f.trouble.Tell(s.id, nil)
	}
	return nil
}

// failed tells of an error and says how long to wait.
func (s *shard) failed(ctx context.Context, err error) time.Duration {
	if ctx.Err() == nil {
		s.f.trouble.Tell(s.id, fmt.Errorf("%s: %w", s.id, err))
	}
	s.pause = min(max(2*s.pause, s.f.o.Retry), 20*s.f.o.Retry)
	return s.pause
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// step reads once, and says how long to wait before the next time.
func (s *shard) step(ctx context.Context) (time.Duration, error) {
	if s.iterator == "" {
		if err := s.begin(ctx); err != nil {
			return 0, err
		}
	}
	select {
	case s.f.pages <- struct{}{}:
		defer func() { <-s.f.pages }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	p, err := s.f.client.read(ctx, s.iterator, s.f.o.Limit)
	if expired(err) {
		s.iterator = ""
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read behind sequence number %s: %w", cmp.Or(s.mark.Seq, "none"), err)
	}
	if err := s.take(ctx, &p); err != nil {
		s.iterator = "" // what is durable says where to go on
		return 0, err
	}
	s.iterator = p.next
	if len(p.records) == 0 && p.behind == 0 {
		return s.f.o.Poll, nil
	}
	return s.f.o.Every, nil
}

// begin finds the place to read from, and whether the stream's retention has
// overtaken it.
func (s *shard) begin(ctx context.Context) error {
	if !s.new && len(s.gaps) == 0 {
		if err := s.overtaken(ctx); err != nil {
			return err
		}
	}
	it, err := s.f.client.iterator(ctx, s.id, s.mark.Seq, s.f.begin)
	if err != nil {
		return fmt.Errorf("find the place behind sequence number %s: %w", cmp.Or(s.mark.Seq, "none"), err)
	}
	s.iterator = it
	return nil
}

// overtaken looks whether records may have been deleted before they were read.
// The service does not say: asked for what comes behind a record that is gone,
// it goes on with the oldest one that it has.
func (s *shard) overtaken(ctx context.Context) error {
	now, until := s.f.o.Clock(), time.UnixMilli(s.mark.Until)
	if now.Sub(until) < leastRetention {
		return nil
	}
	keeps, err := s.f.client.retention(ctx)
	if err != nil {
		return fmt.Errorf("ask for its retention: %w", err)
	}
	if now.Sub(until) < keeps {
		return nil
	}
	g := Gap{Stream: s.f.o.Stream, Shard: s.id, After: s.mark.Seq, From: until.UTC(), To: now.Add(-keeps).UTC(), Found: now.UTC()}
	oldest, err := s.oldest(ctx)
	if err != nil {
		return fmt.Errorf("look for its oldest record: %w", err)
	}
	if oldest != nil {
		arrived := aws.ToTime(oldest.ApproximateArrivalTimestamp)
		if !later(aws.ToString(oldest.SequenceNumber), s.mark.Seq) || !arrived.After(until) {
			return nil // what was read last, or something before it, is still there
		}
		g.Before, g.To = aws.ToString(oldest.SequenceNumber), arrived.UTC()
	}
	s.gaps = append(s.gaps, g)
	return nil
}

// oldest is the oldest record that the shard holds; nil where it holds none.
func (s *shard) oldest(ctx context.Context) (*types.Record, error) {
	it, err := s.f.client.iterator(ctx, s.id, "", time.Time{})
	for err == nil && it != "" {
		var p page
		if p, err = s.f.client.read(ctx, it, 1); err != nil {
			break
		}
		if len(p.records) > 0 {
			return &p.records[0], nil
		}
		if p.behind == 0 {
			return nil, nil
		}
		it = p.next
		pause(ctx, s.f.o.Every)
	}
	return nil, err
}

// take submits the records of a page in parts of about BatchBytes, and at its
// end how far the shard was read.
func (s *shard) take(ctx context.Context, p *page) error {
	next := s.mark
	s.pile.reset()
	for i := range p.records {
		r := &p.records[i]
		seq := aws.ToString(r.SequenceNumber)
		if next.Seq != "" && !later(seq, next.Seq) {
			continue // it was taken
		}
		s.pile.add(s.f.o.Stream, s.id, r)
		next.Seq = seq
		if t := r.ApproximateArrivalTimestamp; t != nil {
			next.Until = max(next.Until, t.UnixMilli())
		}
		if s.pile.bytes >= s.f.o.BatchBytes && i < len(p.records)-1 {
			if err := s.submit(ctx, next); err != nil {
				return err
			}
			s.pile.reset()
		}
	}
	now := s.f.o.Clock()
	next.Until = max(next.Until, now.Add(-p.behind).UnixMilli())
	next.Done = p.next == ""
	switch {
	case len(s.pile.records) > 0 || next.Done || s.new || len(s.gaps) > 0:
		return s.submit(ctx, next)
	case now.Sub(s.noted) >= noteEvery:
		s.f.o.Facts.PutLater(next.fact(s.id)) // only where it was kept before: no harm if it is lost
		s.noted = now
	}
	s.mark = next
	return nil
}

// submit makes the pile, and how far the shard was read, durable.
func (s *shard) submit(ctx context.Context, next mark) error {
	// promise: how far a shard was read lies in the commit of what was read, so
	// that a restart goes on exactly behind it.
	facts := []journal.Fact{next.fact(s.id)}
	for _, g := range s.gaps {
		facts = append(facts, g.fact())
	}
	req := intake.Request{Format: s.f.o.Format, Tenant: s.f.o.Tenant,
		Records: func(yield func(feeds.Record) bool) {
			for _, r := range s.pile.records {
				if !yield(r) {
					return
				}
			}
		},
		Facts: func(*intake.Result) []journal.Fact { return facts },
	}
	for {
		// A stop does not leave us in doubt whether this was kept.
		_, err := s.f.o.Intake.Submit(context.WithoutCancel(ctx), &req)
		switch {
		case err == nil:
			s.mark, s.new, s.noted = next, false, s.f.o.Clock()
			for _, g := range s.gaps {
				s.f.o.OnGap(g)
			}
			s.gaps = nil
			return nil
		case errors.Is(err, feeds.ErrStopped):
			return fmt.Errorf("keep records of %s up to sequence number %s: %w", s.id, next.Seq, err)
		}
		// Nothing more is read meanwhile, and the same is tried again.
		pause(ctx, s.failed(ctx, fmt.Errorf("records up to sequence number %s wait: %w: %w", next.Seq, errKeep, err)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
