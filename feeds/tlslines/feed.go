// Package tlslines takes lines over TLS and answers a connection's end only when all that came before it is durable.
package tlslines

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/schemas"
)

// Intake is the door that records go through; *intake.Door is one. Submit is
// called concurrently, returns when the events are durable, and keeps nothing
// where it returns an error.
type Intake interface {
	Submit(ctx context.Context, r *intake.Request) (intake.Result, error)
}

// Defaults of Options.
const (
	DefaultMaxConns   = 1024
	DefaultBatchBytes = 512 << 10
	DefaultMemory     = 64 << 20
	DefaultGather     = 5 * time.Millisecond
	DefaultHandshake  = 10 * time.Second
	DefaultRetry      = 100 * time.Millisecond
)

// Options of a Feed. Name, Format, Intake, Cert and Key are required, the zero
// value of the others is the documented default.
type Options struct {
	Name   string // of the feed, for messages
	Format string
	Intake Intake
	// Cert and Key are PEM files, read again when they change.
	Cert, Key string
	// ClientCA is a PEM file of authorities, read again when it changes: clients
	// must show a certificate of theirs. Empty: everybody is let in.
	ClientCA string
	// Tenant is whose events these are. Empty: with ClientCA the certificate
	// names a tenant (identity.go), else each event names its own.
	Tenant feeds.TenantID
	// Known says whether there is such a tenant; needed where certificates name them.
	Known func(feeds.TenantID) bool
	// OnError is told what an operator must know: the first failure of a kind,
	// and when it ended. Called concurrently; nil: nobody is told.
	OnError func(error)

	// MaxConns bounds the connections; those beyond are reset. 0 is 1024.
	MaxConns int
	// MaxEvent is the longest line in bytes; longer ones go to the quarantine,
	// cut. 0 is schemas.MaxEvent.
	MaxEvent int
	// BatchBytes is how many bytes of lines are submitted at once. 0 is 512 KiB.
	BatchBytes int
	// Memory bounds the buffers of BatchBytes; connections that get none go on
	// in small pieces. 0 is 64 MiB.
	Memory int
	// Gather is how long lines wait for more of their connection. 0 is 5 ms.
	Gather time.Duration
	// Handshake is how long a TLS handshake may take. 0 is 10 s.
	Handshake time.Duration
	// Retry is the first pause after intake took nothing, doubled up to 50 times
	// as long. 0 is 100 ms.
	Retry time.Duration
	// Now is the clock of certificates; nil is time.Now.
	Now func() time.Time
}

// check completes the options and says what is wrong with them.
func (o *Options) check() error {
	switch {
	case !feeds.ValidName(o.Name):
		return fmt.Errorf("tls feed: name %q is not [a-z0-9][a-z0-9_-]{0,62}", o.Name)
	case o.Intake == nil || o.Format == "":
		return fmt.Errorf("tls feed %s: Intake and Format are required", o.Name)
	case o.Cert == "" || o.Key == "":
		return fmt.Errorf("tls feed %s: cert and key are required", o.Name)
	case o.ClientCA != "" && o.Tenant == "" && o.Known == nil:
		return fmt.Errorf("tls feed %s: Known is required where certificates name the tenant", o.Name)
	case o.MaxConns < 0 || o.MaxEvent < 0 || o.BatchBytes < 0 || o.Memory < 0:
		return fmt.Errorf("tls feed %s: limits must not be negative", o.Name)
	}
	o.MaxConns = cmp.Or(o.MaxConns, DefaultMaxConns)
	o.MaxEvent = cmp.Or(o.MaxEvent, schemas.MaxEvent)
	o.BatchBytes = max(cmp.Or(o.BatchBytes, DefaultBatchBytes), o.MaxEvent+2*smallBuffer) // a line that fits, fits
	o.Memory = cmp.Or(o.Memory, DefaultMemory)
	o.Gather = cmp.Or(o.Gather, DefaultGather)
	o.Handshake = cmp.Or(o.Handshake, DefaultHandshake)
	o.Retry = cmp.Or(o.Retry, DefaultRetry)
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return nil
}

// Feed takes connections. Serve's goroutine owns it; each connection has a
// goroutine (conn.go).
type Feed struct {
	o        Options
	identity *identity
	trouble  trouble
	refusals refusals
	large    chan []byte // buffers of BatchBytes that may still be made (nil) or are free

	counts counts

	mu    sync.Mutex
	conns map[*conn]struct{}
	fatal error
	stop  context.CancelFunc
}

// New makes a feed; its certificates are read.
func New(o Options) (*Feed, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	f := &Feed{o: o, conns: map[*conn]struct{}{}, large: make(chan []byte, max(o.Memory/o.BatchBytes, 1))}
	for range cap(f.large) {
		f.large <- nil
	}
	f.trouble.tell = func(err error) { o.OnError(fmt.Errorf("tls feed %s: %w", o.Name, err)) }
	f.refusals.tell = f.trouble.tell
	id, err := newIdentity(&f.o, f.trouble.tell)
	if err != nil {
		return nil, fmt.Errorf("tls feed %s: %w", o.Name, err)
	}
	f.identity = id
	return f, nil
}

// Status is what a feed shows of itself.
type Status struct {
	Connections uint64 // that came
	Open        int64
	Refused     uint64 // no TLS, no certificate that counts, no room
	Lines       uint64 // handed to intake and durable
	Long        uint64 // of them, cut since they were longer than MaxEvent
	Unfinished  uint64 // begun on a connection that broke: not taken, the sender has to send them again
	Ends        uint64 // orderly ends that were answered
	Broken      uint64 // connections that ended otherwise
	Waiting     int64  // lines that were read and are not durable yet
}

// counts are the figures of Status.
type counts struct {
	connections, refused, lines, long, unfinished, ends, broken atomic.Uint64
	open, waiting                                               atomic.Int64
}

// Status tells the figures since the start.
func (f *Feed) Status() Status {
	c := &f.counts
	return Status{Connections: c.connections.Load(), Open: c.open.Load(), Refused: c.refused.Load(), Lines: c.lines.Load(),
		Long: c.long.Load(), Unfinished: c.unfinished.Load(), Ends: c.ends.Load(), Broken: c.broken.Load(), Waiting: c.waiting.Load()}
}
