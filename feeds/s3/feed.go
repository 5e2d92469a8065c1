// Package s3feed reads the objects that S3 announces through a queue, each once, and takes the message off the queue only when all of it is durable.
package s3feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"datasync/feeds"
	"datasync/feeds/cloud"
	"datasync/feeds/intake"
	"datasync/feeds/outage"
	"datasync/schemas"
)

// Intake is the door that records go through; *intake.Door is one. Submit is
// called concurrently, returns when the events and the request's facts are
// durable together, and keeps nothing where it returns an error.
type Intake interface {
	Submit(ctx context.Context, r *intake.Request) (intake.Result, error)
}

// Options of a Feed. Name, Queue, Format, Intake and Facts are required, the
// zero value of the others is the documented default.
type Options struct {
	Name   string // of the feed, for messages
	Queue  string // URL of an SQS queue
	AWS    cloud.Options
	Format string
	// Tenant is whose events these are; empty: each event names its own.
	Tenant feeds.TenantID
	Intake Intake
	Facts  FactStore
	// OnError is told what an operator must know: the first failure of a kind,
	// and when all is well again. nil: nobody is told.
	OnError func(error)

	// Workers is how many objects are read at once; 0 is 4.
	Workers int
	// Wait is how long to wait for a message at once; 0 is 20 s, below 0 not at all.
	Wait time.Duration
	// Visibility is how long a message is hidden from others without a sign of
	// life from us; 0 is 30 s.
	Visibility time.Duration
	// Retry is the first pause after a failure; 0 is 1 s. A message whose object
	// could not be read comes again after five times as long, doubled each time up
	// to 15 minutes.
	Retry time.Duration
	// GiveUp is how long an object that may not be read is tried before it
	// becomes an entry of the quarantine; 0 is 24 h.
	GiveUp time.Duration
	// MaxEvent is the longest record in bytes; longer ones go to the quarantine,
	// cut. 0 is schemas.MaxEvent.
	MaxEvent int
	// MaxObject bounds an object once decompressed; 0 is 16 GiB.
	MaxObject int64
	// BatchBytes is about how many bytes are submitted at once; 0 is 1 MiB.
	BatchBytes int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// check completes the options and says what is wrong with them.
func (o *Options) check() error {
	u, err := url.Parse(o.Queue)
	switch {
	case !feeds.ValidName(o.Name):
		return fmt.Errorf("s3 feed: name %q is not [a-z0-9][a-z0-9_-]{0,62}", o.Name)
	case err != nil || u.Host == "":
		return fmt.Errorf("s3 feed %s: queue %q is no URL of a queue", o.Name, o.Queue)
	case o.Format == "" || o.Intake == nil || o.Facts == nil:
		return fmt.Errorf("s3 feed %s: Format, Intake and Facts are required", o.Name)
	}
	o.Workers = cmp.Or(o.Workers, 4)
	o.Wait = max(cmp.Or(o.Wait, 20*time.Second), 0)
	o.Visibility = max(cmp.Or(o.Visibility, 30*time.Second), time.Second)
	o.Retry = cmp.Or(o.Retry, time.Second)
	o.GiveUp = cmp.Or(o.GiveUp, 24*time.Hour)
	o.MaxEvent = cmp.Or(o.MaxEvent, schemas.MaxEvent)
	o.MaxObject = cmp.Or(o.MaxObject, 16<<30)
	o.BatchBytes = cmp.Or(o.BatchBytes, 1<<20)
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Feed reads a queue with some workers, each with a message at a time.
type Feed struct {
	o       Options
	client  client
	memory  *memory
	trouble *outage.Teller
	counts  counts

	once  sync.Once
	fatal error
	stop  context.CancelFunc
}

// counts are the figures of Status.
type counts struct{ messages, objects, poison, failed atomic.Uint64 }

// Status is what a feed shows of itself.
type Status struct {
	Messages uint64 // taken off the queue
	Objects  uint64 // read to their end, or given up with an entry of the quarantine
	Poison   uint64 // messages that are no notification
	Failed   uint64 // tries that left a message for a later one
}

// Status tells the figures since the start.
func (f *Feed) Status() Status {
	c := &f.counts
	return Status{c.messages.Load(), c.objects.Load(), c.poison.Load(), c.failed.Load()}
}

// allow is what the identity must be allowed.
const allow = "sqs:ReceiveMessage, sqs:ChangeMessageVisibility and sqs:DeleteMessage on the queue, and s3:GetObject (and s3:GetObjectVersion) on the objects"

// The parties that may be in trouble.
const (
	queueParty   = "queue"
	journalParty = "journal"
)

// New makes a feed; nobody is asked for anything yet.
func New(o Options) (*Feed, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	f := &Feed{o: o, client: client{o: &o}, memory: newMemory(o.Facts)}
	f.trouble = cloud.NewTrouble("s3 feed "+o.Name, allow, o.OnError)
	return f, nil
}

// Run reads until ctx ends, whatever queue and buckets do; it returns nil then,
// and an error only where the journal takes nothing any more.
func (f *Feed) Run(ctx context.Context) error {
	ctx, f.stop = context.WithCancel(ctx)
	defer f.stop()
	defer f.client.close()
	var wg sync.WaitGroup
	for range f.o.Workers {
		wg.Go(func() { f.work(ctx) })
	}
	sweep := time.NewTicker(time.Hour)
	defer sweep.Stop()
	for ctx.Err() == nil {
		select {
		case <-sweep.C:
			f.memory.sweep(f.o.Now())
		case <-ctx.Done():
		}
	}
	wg.Wait()
	return f.fatal
}

// fail ends Run with an error.
func (f *Feed) fail(err error) {
	f.once.Do(func() {
		f.fatal = fmt.Errorf("s3 feed %s: %w", f.o.Name, err)
		f.stop()
	})
}

// work takes one message after the other.
func (f *Feed) work(ctx context.Context) {
	wait := time.Duration(0)
	for ctx.Err() == nil {
		m, ok, err := f.client.receive(ctx)
		if ctx.Err() != nil && !ok {
			return
		}
		if err != nil {
			f.trouble.Tell(queueParty, fmt.Errorf("receive from %s: %w", f.o.Queue, err))
			wait = min(max(2*wait, f.o.Retry), 20*f.o.Retry)
			pause(ctx, wait)
			continue
		}
		wait = 0
		f.trouble.Tell(queueParty, nil)
		if ok {
			f.handle(ctx, m)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// errBusy is an object that another worker reads, for a message that came twice.
var errBusy = errors.New("it is being read")

// handle makes all that a message announces durable, and takes it off the queue;
// else it is left to come again.
func (f *Feed) handle(ctx context.Context, m message) {
	stop := f.keepHidden(ctx, m)
	err := f.objects(ctx, m)
	stop()
	if errors.Is(err, feeds.ErrStopped) {
		f.fail(err)
	}
	end := context.WithoutCancel(ctx)
	if err == nil {
		// promise: the message goes only when every record of its objects is durable.
		if err := f.client.remove(end, m); err != nil && ctx.Err() == nil {
			f.trouble.Tell(queueParty, fmt.Errorf("delete a message from %s, which comes again and is known then: %w", f.o.Queue, err))
			return
		}
		f.counts.messages.Add(1)
		return
	}
	f.counts.failed.Add(1)
	again := min(5*f.o.Retry<<min(max(m.times-1, 0), 10), 15*time.Minute)
	if ctx.Err() != nil {
		again = 0 // whoever comes next may have it at once
	}
	_ = f.client.hide(end, m, again) // else it comes when its time is up
}

// keepHidden hides a message for as long as it is worked on, until stop.
func (f *Feed) keepHidden(ctx context.Context, m message) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if pause(ctx, f.o.Visibility/3); ctx.Err() != nil {
				return
			}
			_ = f.client.hide(ctx, m, f.o.Visibility) // where it comes again meanwhile, it is known
		}
	})
	return func() { cancel(); wg.Wait() }
}

// lasting says whether a class of errors does not pass by itself.
func lasting(class string) bool {
	return class == cloud.Forbidden || class == cloud.NotFound || strings.HasPrefix(class, "invalid")
}

// objects reads what a message announces.
func (f *Feed) objects(ctx context.Context, m message) error {
	list, err := announced(m.body)
	if err != nil {
		f.counts.poison.Add(1)
		rec := feeds.Record{Value: m.body, Bad: err.Error(), Position: "message " + m.id}
		return f.submit(ctx, []feeds.Record{rec}, nil)
	}
	var failed error
	for _, o := range list {
		err := f.object(ctx, o)
		if err != nil && ctx.Err() == nil && !errors.Is(err, errBusy) {
			class := f.trouble.Tell(o.Bucket, err)
			if lasting(class) && !m.first.IsZero() && f.o.Now().Sub(m.first) >= f.o.GiveUp {
				r := &reading{f: f, o: o, id: o.id(), at: f.memory.place(o.id())}
				err = r.bad(ctx, fmt.Sprintf("it was tried for %s: %v", f.o.GiveUp, cloud.Brief(err)))
			}
		}
		if errors.Is(err, feeds.ErrStopped) || ctx.Err() != nil {
			return cmp.Or(err, ctx.Err())
		}
		if err == nil {
			f.trouble.Tell(o.Bucket, nil)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}
