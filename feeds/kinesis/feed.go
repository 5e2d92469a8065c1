// Package kinesisfeed reads a Kinesis data stream, follows its resharding, and keeps how far it came in the same commit as the events.
package kinesisfeed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"datasync/feeds"
	"datasync/feeds/cloud"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
	"datasync/feeds/outage"
)

// Intake is the door that records go through; *intake.Door is one. Submit is
// called concurrently, returns when the events and the request's facts are
// durable together, and keeps nothing where it returns an error.
type Intake interface {
	Submit(ctx context.Context, r *intake.Request) (intake.Result, error)
}

// FactStore is where positions are kept: the facts of the shard that Intake
// appends to. Called concurrently. A fact is to be seen as soon as the Submit
// that carried it returned; PutLater need not be durable on return.
type FactStore interface {
	Fact(key string) ([]byte, bool)
	Facts(prefix string) iter.Seq2[string, []byte]
	PutLater(facts ...journal.Fact)
}

// Options of a Feed. Name, Stream, Format, Intake and Facts are required, the
// zero value of the others is the documented default.
type Options struct {
	Name   string // of the feed, for messages
	Stream string // its name or ARN
	AWS    cloud.Options
	Format string
	// Tenant is whose events these are; empty: each event names its own.
	Tenant feeds.TenantID
	Intake Intake
	Facts  FactStore
	// Now has a new feed begin with what comes from then on, in place of the
	// oldest record that the stream holds.
	StartNow bool

	// OnError is told what an operator must know: the first failure of a kind,
	// and when all is well again. nil: nobody is told.
	OnError func(error)
	// OnGap is told of records that this feed may never have read; the gap is
	// durable then. nil: nobody is told.
	OnGap func(Gap)

	// Every is the least time between two reads of a shard; 0 is 250 ms, of the
	// five reads a second that the service allows all consumers of a shard.
	Every time.Duration
	// Poll is the time between two reads of a shard that is read up; 0 is 1 s.
	Poll time.Duration
	// Watch is how often to look for shards; 0 is 30 s. Those behind one that
	// ended are looked for at once.
	Watch time.Duration
	// Retry is the first pause after a failure, doubled up to 20 times as long; 0 is 500 ms.
	Retry time.Duration
	// Limit is how many records are asked for at once; 0 is 2,000.
	Limit int
	// BatchBytes is about how many bytes of records are submitted at once; 0 is 1 MiB.
	BatchBytes int
	// Clock is the clock; nil is time.Now.
	Clock func() time.Time
}

// check completes the options and says what is wrong with them.
func (o *Options) check() error {
	switch {
	case !feeds.ValidName(o.Name):
		return fmt.Errorf("kinesis feed: name %q is not [a-z0-9][a-z0-9_-]{0,62}", o.Name)
	case o.Stream == "" || o.Format == "":
		return fmt.Errorf("kinesis feed %s: stream and Format are required", o.Name)
	case o.Intake == nil || o.Facts == nil:
		return fmt.Errorf("kinesis feed %s: Intake and Facts are required", o.Name)
	}
	o.Every = cmp.Or(o.Every, 250*time.Millisecond)
	o.Poll = cmp.Or(o.Poll, time.Second)
	o.Watch = cmp.Or(o.Watch, 30*time.Second)
	o.Retry = cmp.Or(o.Retry, 500*time.Millisecond)
	o.Limit = cmp.Or(o.Limit, 2000)
	o.BatchBytes = cmp.Or(o.BatchBytes, 1<<20)
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.OnGap == nil {
		o.OnGap = func(Gap) {}
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return nil
}

// Feed reads a stream. Run's goroutine owns it and decides which shards are
// read; each of these has a goroutine (shard.go).
type Feed struct {
	o       Options
	client  client
	trouble *outage.Teller
	pages   chan struct{} // as many answers are in memory at once as it holds
	ended   chan string   // shards whose goroutine is over
	same    bool          // the facts are of this stream
	begin   time.Time     // what a shard that is new begins with; zero: its oldest record

	once  sync.Once
	fatal error
	stop  context.CancelFunc
}

// atOnce is how many answers, of 10 MiB at most, are worked on at once.
const atOnce = 4

// allow is what the identity must be allowed.
const allow = "kinesis:ListShards, kinesis:GetShardIterator and kinesis:GetRecords on the stream"

// streamParty is the stream itself, among the parties that may be in trouble.
const streamParty = "stream"

// New makes a feed; the service is not asked for anything yet. It goes on where
// the facts say an earlier one of the same name stopped.
func New(o Options) (*Feed, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	f := &Feed{o: o, client: client{o: &o}, pages: make(chan struct{}, atOnce), ended: make(chan string)}
	f.trouble = cloud.NewTrouble(fmt.Sprintf("kinesis feed %s: stream %s", o.Name, o.Stream), allow, o.OnError)
	return f, nil
}

// Run reads until ctx ends, whatever the service does; it returns nil then, and
// an error only where the journal takes nothing any more.
func (f *Feed) Run(ctx context.Context) error {
	ctx, f.stop = context.WithCancel(ctx)
	defer f.stop()
	defer f.client.close()
	var wg sync.WaitGroup
	running := map[string]bool{}
	pause := time.Duration(0)
	for ctx.Err() == nil {
		err := f.look(ctx, running, func(s Shard, m mark) {
			running[s.ID] = true
			wg.Go(func() {
				if err := newShard(f, s, m).run(ctx); err != nil {
					f.fail(err)
				}
				select {
				case f.ended <- s.ID:
				case <-ctx.Done():
				}
			})
		})
		wait := f.o.Watch
		if err != nil {
			pause = min(max(2*pause, f.o.Retry), 20*f.o.Retry)
			wait = pause
		} else {
			pause = 0
		}
		if errors.Is(err, feeds.ErrStopped) {
			f.fail(err)
		} else if ctx.Err() == nil {
			f.trouble.Tell(streamParty, err)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-t.C:
		case id := <-f.ended:
			delete(running, id)
		}
		t.Stop()
	}
	wg.Wait()
	return f.fatal
}

// fail ends Run with an error.
func (f *Feed) fail(err error) {
	f.once.Do(func() {
		f.fatal = fmt.Errorf("kinesis feed %s: %w", f.o.Name, err)
		f.stop()
	})
}

// look finds out which shards there are and starts those whose turn it is.
func (f *Feed) look(ctx context.Context, running map[string]bool, start func(Shard, mark)) error {
	if err := f.sameStream(ctx); err != nil {
		return err
	}
	shards, err := f.client.shards(ctx)
	if err != nil {
		return err
	}
	p, err := decide(shards, f.marks(), running)
	if err != nil {
		return err
	}
	if err := f.forget(ctx, p); err != nil {
		return err
	}
	for _, s := range p.start {
		start(s, p.marks[s.ID])
	}
	return nil
}

// plan is what follows from the shards that there are.
type plan struct {
	marks map[string]mark
	start []Shard  // to be read from now on
	lost  []string // were not read to their end, and are not there any more
	old   []string // were read to their end, and are not there any more
}

// decide makes the plan. A shard is read when those it came from were read to
// their end, so that the records of a key keep their order.
func decide(shards []Shard, marks map[string]mark, running map[string]bool) (plan, error) {
	p := plan{marks: marks}
	there := map[string]bool{}
	for _, s := range shards {
		there[s.ID] = true
		if m, ok := marks[s.ID]; ok && m.First != s.First {
			return p, fmt.Errorf("shard %s begins at sequence number %s, and what was read of it at %s: %w", s.ID, s.First, m.First, errMadeAnew)
		}
	}
	finished := func(parent string) bool { return parent == "" || !there[parent] || marks[parent].Done }
	for _, s := range shards {
		// promise: a child is not read before its parents are read to their end.
		if !running[s.ID] && !marks[s.ID].Done && finished(s.Parent) && finished(s.Adjacent) {
			p.start = append(p.start, s)
		}
	}
	for id, m := range marks {
		switch {
		case there[id] || running[id] || len(shards) == 0:
		case m.Done:
			p.old = append(p.old, id)
		default:
			p.lost = append(p.lost, id)
		}
	}
	slices.Sort(p.old)
	slices.Sort(p.lost)
	return p, nil
}
