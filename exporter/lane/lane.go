// Package lane is one lane's life (cut, record, encode, send, advance; back-off, suspend, park) and defines what a sink is.
package lane

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"datasync/exporter/lane/spool"
	"datasync/exporter/state"
	"datasync/exporter/tenants"
	"datasync/feeds"
	"datasync/feeds/journal"
)

// Journal is a shard's journal as its lanes need it; *journal.Journal is one.
type Journal interface {
	// Read fills c with a tenant's events from a position on.
	Read(t journal.TenantRef, from journal.Position, o journal.ReadOptions, c *journal.Chunk) error
	// Standing says what the shard holds of a tenant.
	Standing(t journal.TenantRef) journal.Standing
	// Release says that nobody wants what lies before p any more.
	Release(t journal.TenantRef, p journal.Position)
	// Pin keeps [from, to) from expiring: a pending drop; Unpin ends that.
	Pin(t journal.TenantRef, from, to journal.Position)
	Unpin(t journal.TenantRef, from journal.Position)
}

// Shard is one shard as its lanes see it. Its fields do not change.
type Shard struct {
	// Name is "<feed>-<n>-<journal id>", as it stands in keys.
	Name    string
	Journal Journal
	Home    *state.Home
}

// Refusal is an event that a sink cannot take, for the quarantine.
type Refusal struct {
	Key   state.Key
	Shard string
	// Seq is the event's number; 0 where only the line is known (a stream's
	// destination refused it).
	Seq    feeds.Sequence
	Line   []byte
	Reason string
}

// Quarantine keeps what a sink refused. It is durable on return, and keeping
// the same event of the same sink twice is one entry.
type Quarantine interface {
	Refused(ctx context.Context, r []Refusal) error
}

// Sink is a tenant's destination with its settings, shared by its lanes.
// Exactly one of Drops and Stream is set. Immutable: a change makes a new one.
type Sink struct {
	Settings *tenants.Sink
	Drops    DropSink
	Stream   *Stream
	// Frame turns shaped lines into what goes on the stream's wire; nil: as they are.
	Frame func(dst, lines []byte) []byte
	// Prefix stands before the keys of its drops; empty, or it ends with '/'.
	Prefix string
	// Place is where its drops go, as far as what hangs there hangs for all
	// sinks of it: a bucket, a disk. Empty: it shares with none.
	Place string
}

// Lane is the delivery of one shard's events of one tenant to one sink. While
// busy its worker owns the part below the line; all else is the Runner's.
type Lane struct {
	Key    state.Key
	shard  *Shard
	tenant journal.TenantRef

	sink   *Sink // nil: no longer configured; the lane only keeps its position
	fact   state.Lane
	end    journal.Position
	oldest int64 // when the event at fact.Pos was committed, ms UTC; 0: unknown
	status Status
	flush  bool
	byHand int64            // since when a person paused it, ms UTC; 0: nobody did
	gone   int64            // since when the sink is no longer configured, ms UTC
	sent   journal.Position // a stream's: behind what was offered

	// scheduling, see runner.go
	queued, busy, again, wantsRoom, touched bool
	held                                    bool   // Swap waits for it: no turn begins
	rewound                                 bool   // Lost moved sent back during this turn
	holds                                   bool   // a turn of Runner.turns,
	place                                   string // which it asked for with this
	due                                     int64
	heapAt                                  int

	// ---- owned by the worker while busy ----
	drop  *state.Drop
	tried estimate
}

// failure makes an *Error of whatever a sink returned.
func failure(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	out := &Error{Verdict: Away, Class: Reset, Err: err}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		out.Class = Timeout
	case errors.Is(err, feeds.ErrFull), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		// Not the sink's disk, which would say so itself: the journal's, or the spool's.
		out.Class, out.Hint = Full, "make room on the disk that holds data_dir"
	case errors.Is(err, feeds.ErrStopped):
		out.Hint = "the journal takes nothing any more: mend the disk that holds data_dir and restart"
	}
	return out
}

// env is what a worker needs besides its lane.
type env struct {
	spools     *spool.Budget
	quarantine Quarantine
	cpu        chan struct{} // a slot for each encoding under way
	now        func() int64
	journalID  string
	pools      *pools
	estimates  estimates
	encodings  atomic.Int64 // begun, for tests
}

// keep puts refused events into the quarantine, durable on return.
func (e *env) keep(ctx context.Context, l *Lane, r []Refusal) error {
	if len(r) == 0 {
		return nil
	}
	// promise: an event that a sink refuses is in the quarantine before its lane moves past it.
	if err := e.quarantine.Refused(ctx, r); err != nil {
		return fmt.Errorf("quarantine %d events that %s cannot take: %w", len(r), l.Key, err)
	}
	return nil
}
