// Package httpfeed takes events over HTTP and answers 200 only when they are durable.
package httpfeed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync/atomic"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
)

// Intake is the door that records go through; *intake.Door is one. Submit is
// called concurrently, returns when the events are durable, and keeps nothing
// where it returns an error.
type Intake interface {
	Submit(ctx context.Context, r *intake.Request) (intake.Result, error)
}

// Repeater is an Intake that counts events which came again and were answered
// from memory, so that the ledger knows of them; *intake.Door is one.
type Repeater interface {
	Repeat(ctx context.Context, events int) error
}

// Keys says who may post as whom. Both methods are called concurrently, once a
// request; look keys up by a hash, so that the time taken says nothing of them.
type Keys interface {
	// ByKey gives the tenant that a key belongs to; false for a key that is
	// nobody's. An empty tenant with true is a key that is not bound to one:
	// the path or the events name the tenant.
	ByKey(key string) (feeds.TenantID, bool)
	// Known says whether there is such a tenant.
	Known(id feeds.TenantID) bool
}

// FactStore is where the answers to requests with an Idempotency-Key are kept:
// the facts of the shard that Intake appends to. Called concurrently. A fact is
// to be seen as soon as the Submit that carried it returned; PutLater keeps the
// order of its calls and of later commits, and need not be durable on return.
type FactStore interface {
	Fact(key string) ([]byte, bool)
	Facts(prefix string) iter.Seq2[string, []byte]
	PutLater(facts ...journal.Fact)
}

// Defaults of Options.
const (
	DefaultMaxBody    = 10 << 20
	DefaultMaxConns   = 4096
	DefaultBodyMemory = 64 << 20
	DefaultReadGrace  = 10 * time.Second
	DefaultStopGrace  = 10 * time.Second
)

// Options of a Feed. Name, Intake, Keys, Formats and Facts are required, the
// zero value of the others is the documented default.
type Options struct {
	Name    string // of the feed, for facts and messages
	Intake  Intake
	Keys    Keys
	Formats func(format string) bool // says whether there is an adapter for a format
	Facts   FactStore

	// Format is the one format of this feed; empty or "auto": the path says it.
	Format string
	// Tenant is the one tenant of this feed; empty: the path or the key says it.
	Tenant feeds.TenantID
	// MaxBody bounds a body in bytes, before and after decompression; 0 is 10 MiB.
	MaxBody int64
	// Cert and Key are PEM files, read again when they change; empty: plain HTTP.
	Cert, Key string
	// Rate is a tenant's quota in events per second, 0 for none; nil: nobody has one.
	Rate func(feeds.TenantID) float64
	// Ready says why nothing can be taken just now (answered with 503); nil: always ready.
	Ready func() error
	// OnError is told what an operator must know: the first failure of a kind,
	// and when it ended. Called concurrently; nil: nobody is told.
	OnError func(error)
	// MaxConns bounds the connections; more take the place of idle ones, or wait
	// to be accepted. 0 is 4096.
	MaxConns int
	// BodyMemory bounds the bytes of all bodies in memory; requests beyond get
	// 503. 0 is 64 MiB, and it is never below 5 × MaxBody.
	BodyMemory int64
	// ReadGrace is how long a request's head, and each 64 KiB of its body, may
	// take; 0 is 10 s.
	ReadGrace time.Duration
	// StopGrace is how long a stop waits for the requests under way; 0 is 10 s.
	StopGrace time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// check completes the options and says what is wrong with them.
func (o *Options) check() error {
	switch {
	case !feeds.ValidName(o.Name):
		return fmt.Errorf("http feed: name %q is not [a-z0-9][a-z0-9_-]{0,62}", o.Name)
	case o.Intake == nil || o.Keys == nil || o.Formats == nil || o.Facts == nil:
		return fmt.Errorf("http feed %s: Intake, Keys, Formats and Facts are required", o.Name)
	case (o.Cert == "") != (o.Key == ""):
		return fmt.Errorf("http feed %s: tls needs both cert and key", o.Name)
	case o.MaxBody < 0 || o.MaxConns < 0 || o.BodyMemory < 0:
		return fmt.Errorf("http feed %s: limits must not be negative", o.Name)
	}
	if o.Format == "auto" {
		o.Format = ""
	}
	if o.Format != "" && !o.Formats(o.Format) {
		return fmt.Errorf("http feed %s: format %q is unknown; use auto or one of %s", o.Name, o.Format, known(o.Formats))
	}
	o.MaxBody = cmp.Or(o.MaxBody, DefaultMaxBody)
	o.MaxConns = cmp.Or(o.MaxConns, DefaultMaxConns)
	o.BodyMemory = max(cmp.Or(o.BodyMemory, DefaultBodyMemory), 5*o.MaxBody)
	o.ReadGrace = cmp.Or(o.ReadGrace, DefaultReadGrace)
	o.StopGrace = cmp.Or(o.StopGrace, DefaultStopGrace)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	return nil
}

// Feed is an HTTP feed. It is an http.Handler; Serve gives it a listener with
// the limits that a public address needs.
type Feed struct {
	o        Options
	memory   budget
	decoders chan struct{}
	rates    rates
	answered memory
	trouble  trouble
	stopping atomic.Bool
	// work is cancelled at the second stage of a stop.
	work   context.Context
	cancel context.CancelFunc
	counts counts
	// started tells the requests of this process from those of the one before.
	started string
}

// New makes a feed. Answers kept in Options.Facts by an earlier one of the same
// name are given again.
func New(o Options) (*Feed, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	f := &Feed{o: o, decoders: make(chan struct{}, maxDecoders())}
	f.started = strconv.FormatInt(time.Now().UnixMilli(), 36)
	f.memory.left.Store(o.BodyMemory)
	f.trouble.tell, f.trouble.now = o.OnError, o.Now
	f.work, f.cancel = context.WithCancel(context.Background())
	f.answered.load(o.Facts, o.Name)
	return f, nil
}

// Status is what a feed shows of itself.
type Status struct {
	Requests uint64         // answered
	ByStatus map[int]uint64 // of them, by HTTP status
	Replayed uint64         // of them, answered from memory
	Accepted uint64         // events
	Rejected uint64         // events
	Bytes    uint64         // of bodies, as sent
	InFlight int64          // requests under way
	Memory   int64          // bytes of bodies in memory
	Conns    int64          // open connections
}

// Status tells the figures since the start.
func (f *Feed) Status() Status {
	s := f.counts.status()
	s.Memory = f.o.BodyMemory - f.memory.left.Load()
	return s
}

// errStopping is why requests are refused while the feed stops.
var errStopping = errors.New("the service is stopping")
