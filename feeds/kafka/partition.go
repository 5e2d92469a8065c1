package kafkafeed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
)

// partition reads one partition during one generation. Its goroutine owns it.
type partition struct {
	f     *Feed
	n     int
	party string
	marks *marks
	shard Shard

	next  int64 // the offset wanted next: all before it is durable, or named as a gap
	fresh bool  // nothing says where to begin: with the oldest record
	named bool  // the shard knows the topic
	busy  bool  // the last fetch brought something
	jumps map[int64]int64
	gaps  []Gap // to become durable with the next submit
	pause time.Duration
}

func newPartition(f *Feed, n int, m *marks) *partition {
	return &partition{f: f, n: n, party: partitionParty(n), marks: m}
}

// run reads until ctx ends. An error means that the journal takes nothing any more.
func (p *partition) run(ctx context.Context, committed int64) error {
	begun := false
	for ctx.Err() == nil {
		var err error
		if !begun {
			err = p.begin(ctx, committed)
			begun = err == nil
		} else {
			err = p.session(ctx)
		}
		switch {
		case errors.Is(err, feeds.ErrStopped):
			return err
		case err != nil && ctx.Err() == nil:
			p.failed(ctx, err)
		}
	}
	return nil
}

// failed tells of an error and waits, longer from time to time.
func (p *partition) failed(ctx context.Context, err error) {
	p.f.trouble.Tell(p.party, fmt.Errorf("partition %d: %w", p.n, err))
	p.wait(ctx)
}

func (p *partition) wait(ctx context.Context) {
	p.pause = min(max(2*p.pause, p.f.o.Retry), 20*p.f.o.Retry)
	select {
	case <-ctx.Done():
	case <-time.After(p.pause):
	}
}

// well notes that all is well.
func (p *partition) well() {
	p.pause = 0
	p.f.trouble.Tell(p.party, nil)
}

// begin opens the shard and decides where to begin.
func (p *partition) begin(ctx context.Context, committed int64) error {
	shard, err := p.f.o.Open(ctx, p.n)
	if err != nil {
		return fmt.Errorf("%w: %w", errKeep, err)
	}
	if topic, ok := shard.Log.Fact(topicKey); ok && string(topic) != p.f.o.Topic {
		return fmt.Errorf("its shard holds topic %s: %w", topic, errOtherTopic)
	} else if ok {
		p.named = true
	}
	p.shard, p.gaps = shard, nil
	at := start(shard.Log.Source(), committed)
	p.next, p.fresh = at.next, at.fresh
	if at.ahead {
		ours, err := p.ours(ctx)
		if err != nil {
			return err
		}
		if ours {
			// promise: what our own journal has lost is read again, not taken for
			// another consumer's.
			p.next, p.fresh = at.journal, at.journal == 0
			p.f.o.OnError(fmt.Errorf("kafka feed %s: topic %s: partition %d: this journal had taken offsets %d to %d, and does not hold them any more: its end is lost, "+
				"to a disk that did not keep what it had synced, or to an older copy of data_dir that was put back; they are read again, and events that sinks had of them come again",
				p.f.o.Name, p.f.o.Topic, p.n, at.journal, at.next-1))
			return nil
		}
		p.gaps = append(p.gaps, p.gap(at.journal, at.next, Consumed))
		if err := p.submit(ctx, &pile{}, at.next); err != nil {
			return err
		}
	}
	if at.behind {
		p.marks.set(p.n, p.next)
	}
	return nil
}

// ours says whether the offset that the group has was committed from this journal.
func (p *partition) ours(ctx context.Context) (bool, error) {
	if p.f.o.Journal == "" {
		return false, nil
	}
	mark, err := p.f.client.mark(ctx, p.f.o.Group, p.f.o.Topic, p.n)
	if err != nil {
		return false, fmt.Errorf("ask who committed the offset of the group %s: %w", p.f.o.Group, err)
	}
	return mark == p.f.mark(), nil
}

// How long to wait for how much: at the end of the log the first record comes
// at once, those behind it gather for a moment, which is what the oldest of them
// in a quiet partition waits (task delay: p99 61 ms; 102 with twice the wait).
const (
	idleWait = time.Second
	busyWait = 50 * time.Millisecond
	busyMin  = 64 << 10
)

// session reads over one connection until something fails.
func (p *partition) session(ctx context.Context) error {
	c, err := p.f.client.open(ctx, p.f.o.Topic, p.n)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	defer context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })() // it only wakes the reader
	if err := p.sameTopic(ctx, c); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := p.fetch(ctx, c); err != nil {
			return fmt.Errorf("fetch from %s at offset %d: %w", c.address, p.next, err)
		}
	}
	return nil
}

// fetch asks once and takes what comes.
func (p *partition) fetch(ctx context.Context, c *fetcher) error {
	least, wait := 1, idleWait
	if p.busy {
		least, wait = busyMin, busyWait
	}
	return p.exchange(ctx, c, question{p.next, least, wait}, func(r *response, buf *buffer) error {
		switch {
		case errors.Is(r.err, kafka.OffsetOutOfRange):
			return p.outOfRange(ctx)
		case r.err != nil:
			return r.err
		}
		p.busy = len(r.records) > 0
		return p.take(ctx, r, buf)
	})
}

// question is what is asked of a broker: records from an offset on.
type question struct {
	offset int64
	least  int // bytes
	wait   time.Duration
}

// exchange asks, and has the answer used while it holds a buffer.
func (p *partition) exchange(ctx context.Context, c *fetcher, q question, use func(*response, *buffer) error) error {
	if err := c.within(ctx, q.wait+answerIn); err != nil {
		return err
	}
	if err := c.ask(q.offset, q.least, q.wait); err != nil {
		return err
	}
	size, err := c.size()
	if err != nil {
		return err
	}
	var buf *buffer
	select {
	case buf = <-p.f.buffers:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { p.f.buffers <- buf.trim() }()
	if err := c.within(ctx, answerIn); err != nil {
		return err
	}
	r, err := c.read(size, buf)
	if err != nil {
		return err
	}
	return use(&r, buf)
}

// take submits the records of a response, in parts of about BatchBytes; it
// writes between them (recordBatch.next), so that they are read once.
func (p *partition) take(ctx context.Context, r *response, buf *buffer) error {
	if sure, err := p.sure(r.records); !sure {
		return err
	}
	buf.raw = buf.raw[:0]
	pile := &buf.pile
	pile.reset()
	pass := newFilter(r.aborted)
	next := p.next
	for b, rest, ok := cutBatch(r.records); ok; b, rest, ok = cutBatch(rest) {
		h, err := parseBatch(b)
		if err != nil {
			return p.keep(ctx, pile, next, err)
		}
		if h.last < next {
			continue
		}
		if pass.passes(&h) {
			if next, err = p.pick(ctx, &h, buf, next); err != nil {
				return p.keep(ctx, pile, next, err)
			}
		}
		next = max(next, h.last+1)
	}
	if next > p.next {
		return p.submit(ctx, pile, next)
	}
	p.well()
	return nil
}

// keep submits what came before an error, and gives the error.
func (p *partition) keep(ctx context.Context, pile *pile, next int64, err error) error {
	if len(pile.records) > 0 && !errors.Is(err, feeds.ErrStopped) && ctx.Err() == nil {
		return errors.Join(err, p.submit(ctx, pile, next))
	}
	return err
}

// pick puts a batch's records on the pile, and submits it where it is full.
func (p *partition) pick(ctx context.Context, h *recordBatch, buf *buffer, next int64) (int64, error) {
	records, raw, err := h.inflate(buf.raw)
	buf.raw = raw
	if err != nil {
		return next, err
	}
	for range h.count {
		var r record
		if r, records, err = h.next(records); err != nil {
			return next, err
		}
		if r.offset < next {
			continue
		}
		buf.pile.add(&r)
		next = r.offset + 1
		if buf.pile.bytes >= p.f.o.BatchBytes || len(buf.pile.records) >= maxRecords {
			if err := p.submit(ctx, &buf.pile, next); err != nil {
				return next, err
			}
			buf.pile.reset()
		}
	}
	return next, nil
}

// sure says whether the offsets of the batches follow each other, or the same
// jumps were seen when the same was asked for before: a base offset is not
// covered by its batch's CRC, and one flipped bit in it must not make us skip
// records. Compaction makes jumps that come again.
func (p *partition) sure(records []byte) (bool, error) {
	var seen map[int64]int64
	sure, want := true, p.next
	for b, rest, ok := cutBatch(records); ok; b, rest, ok = cutBatch(rest) {
		if base := baseOf(b); base != want {
			if base < want && want > p.next || lastOf(b) < base {
				return false, fmt.Errorf("%w: offset %d does not follow %d", errGarbled, base, want)
			}
			if to, known := p.jumps[want]; !known || to != base {
				sure = false
			}
			if seen == nil {
				seen = map[int64]int64{}
			}
			seen[want] = base
		}
		want = lastOf(b) + 1
	}
	p.jumps = seen
	if len(records) > 0 && want == p.next {
		return false, partial(records)
	}
	return sure, nil
}

// partial is what is wrong with records that hold no whole batch.
func partial(b []byte) error {
	if len(b) > 16 && b[16] < 2 {
		return errFormat
	}
	return fmt.Errorf("%w: no whole record batch in %d bytes", errGarbled, len(b))
}

// outOfRange finds out why the offset wanted is not there.
func (p *partition) outOfRange(ctx context.Context) error {
	first, end, err := p.f.client.bounds(ctx, p.f.o.Topic, p.n)
	switch {
	case err != nil:
		return err
	case first > p.next && p.fresh:
		p.next = first // what was deleted before we came is no gap
		return nil
	case first > p.next:
		p.gaps = append(p.gaps, p.gap(p.next, first, Deleted))
		return p.submit(ctx, &pile{}, first)
	case end < p.next:
		return fmt.Errorf("offset %d is wanted and the log ends at %d: %w", p.next, end, errShorter)
	}
	return nil // it was there a moment later
}

// maxRecords are submitted at once.
const maxRecords = 1 << 14

// submit makes the pile, and that everything before next was read, durable.
func (p *partition) submit(ctx context.Context, pile *pile, next int64) error {
	records := pile.named(p.f.o.Topic, p.n)
	facts := p.facts(pile)
	req := intake.Request{Format: p.f.o.Format, Tenant: p.f.o.Tenant, Source: uint64(next),
		Records: func(yield func(feeds.Record) bool) {
			for i := range records {
				if !yield(records[i]) {
					return
				}
			}
		},
		Facts: func(*intake.Result) []journal.Fact { return facts },
	}
	for {
		// A generation that ends does not leave us in doubt whether this was kept.
		_, err := p.shard.Intake.Submit(context.WithoutCancel(ctx), &req)
		switch {
		case err == nil:
			// promise: the group is told of an offset only once all before it is durable.
			p.submitted(next)
			return nil
		case errors.Is(err, feeds.ErrStopped):
			return fmt.Errorf("keep records of partition %d up to offset %d: %w", p.n, next, err)
		}
		// Nothing more is read meanwhile, and the same is tried again.
		p.failed(ctx, fmt.Errorf("records up to offset %d wait: %w: %w", next, errKeep, err))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (p *partition) submitted(next int64) {
	p.next, p.fresh, p.named = next, false, true
	p.marks.set(p.n, next)
	for _, g := range p.gaps {
		p.f.o.OnGap(g)
	}
	p.gaps = nil
	p.well()
}
