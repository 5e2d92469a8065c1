package intake

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"datasync/feeds"
	"datasync/feeds/adapt"
	"datasync/feeds/intake/alerts"
	"datasync/feeds/intake/redact"
	"datasync/feeds/journal"
)

// Options of a Door.
type Options struct {
	// Feed is the feed's name: it keys the counts and names quarantine entries. Required.
	Feed string
	// Log is the journal of the feed's shard. Required.
	Log Log
	// Quarantine keeps what cannot become an event. Required.
	Quarantine *Quarantine
	// Known says whether a tenant has a file; nil takes every valid name.
	Known func(feeds.TenantID) bool
	// Rules gives a tenant's redaction; nil, or a nil answer, is all built-ins.
	Rules func(feeds.TenantID) *redact.Rules
	// Alerts gives a tenant's watch; nil, or a nil answer, is none. All doors
	// must be given the same one: a tenant's matches come through any of them.
	Alerts func(feeds.TenantID) *alerts.Watch
	// Trust lets an event (or a record key) name its tenant where the Request
	// does not: the operator's choice (contract.md).
	Trust bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Door is the way into one shard's journal for one feed. It is safe for
// concurrent use; what is submitted at once lies in one commit.
type Door struct {
	o       Options
	batches sync.Pool
	gen     atomic.Uint64
}

// New makes a Door; the error names what is missing.
func New(o Options) (*Door, error) {
	switch {
	case !feeds.ValidName(o.Feed):
		return nil, fmt.Errorf("intake: feed name %q: must match [a-z0-9][a-z0-9_-]{0,62}", o.Feed)
	case o.Log == nil:
		return nil, fmt.Errorf("intake: feed %s: no log", o.Feed)
	case o.Quarantine == nil:
		return nil, fmt.Errorf("intake: feed %s: no quarantine", o.Feed)
	}
	if o.Known == nil {
		o.Known = func(feeds.TenantID) bool { return true }
	}
	if o.Rules == nil {
		o.Rules = func(feeds.TenantID) *redact.Rules { return nil }
	}
	if o.Alerts == nil {
		o.Alerts = func(feeds.TenantID) *alerts.Watch { return nil }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Door{o: o}
	d.batches.New = func() any { return &batch{door: d} }
	return d, nil
}

// ErrFormat means that a Request named a format that no adapter reads.
var ErrFormat = errors.New("unknown source format")

// Submit takes records in. On return without an error every event of them is
// durable in the journal or, with its reason, in the quarantine, and so are
// the counts and the Request's facts. With an error (feeds.ErrFull,
// feeds.ErrStopped, the context's, ErrFormat) no event was kept: submit the same again.
func (d *Door) Submit(ctx context.Context, r *Request) (Result, error) {
	take, ok := adapt.For(r.Format)
	if !ok {
		return Result{}, fmt.Errorf("intake: feed %s: %w %q (one of %v)", d.o.Feed, ErrFormat, r.Format, adapt.Formats())
	}
	b := d.batches.Get().(*batch)
	b.begin(r)
	defer b.end()
	for rec := range r.Records {
		b.take(take, &rec)
	}
	if b.read == 0 && r.Source == 0 && r.Facts == nil {
		return Result{}, nil
	}
	if r.of != "" {
		b.counts.Retried = b.counts.Read
	}
	res := b.result()
	var err error
	if r.confirm != nil {
		err = r.confirm(&res)
	}
	if err == nil {
		res, err = d.keep(ctx, b, res)
	}
	if err != nil {
		b.turn.Undo() // what was not kept adds nothing, and the alert is made when it comes again
	}
	return res, err
}

// keep makes what a request held durable: the quarantine's part, then the rest.
func (d *Door) keep(ctx context.Context, b *batch, res Result) (Result, error) {
	if len(b.out.Arena) > math.MaxUint32 {
		return Result{}, fmt.Errorf("intake: feed %s: %d MiB of events at once, at most 4095 are possible", d.o.Feed, len(b.out.Arena)>>20)
	}
	// promise: what is no event is kept before the source is told that it can
	// forget it; after a crash in between, the repeat has the same id.
	if err := d.o.Quarantine.Put(ctx, b.entries...); err != nil {
		return Result{}, fmt.Errorf("intake: feed %s: %w", d.o.Feed, err)
	}
	return b.append(ctx, res)
}

// Repeat counts events that came a second time and were answered from memory
// (an idempotency key seen before): durable on return.
func (d *Door) Repeat(ctx context.Context, events int) error {
	if events <= 0 {
		return nil
	}
	c := Counts{Read: uint64(events), Duplicate: uint64(events)}
	_, err := d.o.Log.Append(ctx, &journal.Batch{Facts: []journal.Fact{c.fact(d.o.Feed)}})
	if err != nil {
		return fmt.Errorf("intake: feed %s: counting repeats: %w", d.o.Feed, err)
	}
	return nil
}

// CountsKey is the key of the fact that holds a feed's counts in a shard.
func CountsKey(feed string) string { return "feed/" + feed }

// Counts are a feed's side of the ledger, in events: Read + Made = Accepted +
// Quarantined + Unrouted + Duplicate + Suppressed. Retried says how many of
// those read came out of the quarantine again: each of them was read, and
// quarantined or unrouted, before.
type Counts struct {
	Read, Made, Accepted, Quarantined, Unrouted, Duplicate, Suppressed, Retried uint64
}

// ParseCounts reads the value of the fact under CountsKey.
func ParseCounts(value []byte) Counts {
	v := journal.Counts(value)
	at := func(i int) uint64 {
		if i < len(v) {
			return v[i]
		}
		return 0
	}
	return Counts{at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)}
}

func (c Counts) fact(feed string) journal.Fact {
	return journal.Fact{Key: CountsKey(feed), Add: true,
		Value: journal.AppendCounts(nil, c.Read, c.Made, c.Accepted, c.Quarantined, c.Unrouted, c.Duplicate, c.Suppressed, c.Retried)}
}

// Balanced says whether every event that came in is accounted for.
func (c Counts) Balanced() bool {
	return c.Read+c.Made == c.Accepted+c.Quarantined+c.Unrouted+c.Duplicate+c.Suppressed
}

// maxPerRecord is how many events one record may hold where its source numbers
// them: more have no number.
const maxPerRecord = 1 << feeds.SequenceBits
