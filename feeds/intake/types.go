// Package intake is the single door: it adapts, routes, redacts and validates what feeds hand over, and appends it to the journal.
package intake

import (
	"context"
	"iter"

	"datasync/feeds"
	"datasync/feeds/journal"
)

// Log is the journal as intake needs it; *journal.Journal is one.
type Log interface {
	// Tenant gives the number that stands for a tenant in this journal.
	Tenant(id feeds.TenantID) journal.TenantRef
	// Append returns when the batch is durable. feeds.ErrFull: nothing was
	// kept, try again; feeds.ErrStopped: nothing will be kept any more.
	Append(ctx context.Context, b *journal.Batch) (journal.Receipt, error)
}

// Request is what a feed hands over at once; its events lie in one commit.
type Request struct {
	// Format is the source format of the records (contract.md).
	Format string
	// Tenant is whom the path, the key, the listener or the feed's settings
	// name; empty: each event (or record key) names its own.
	Tenant feeds.TenantID
	// Records yields the records in order. It is read once, and a record is
	// not used after the next was asked for.
	Records iter.Seq[feeds.Record]
	// Source is where the source stands behind these records (Kafka: the next
	// offset), 0 where it has no such number.
	Source uint64
	// Facts, where not nil, is asked after all records were judged and before
	// the append; what it returns becomes durable with the events (a file's
	// offset, an idempotency key with its answer).
	Facts func(*Result) []journal.Fact

	// of is the entry of the quarantine that is retried. confirm is asked
	// before anything is kept; with its error nothing is.
	of      string
	confirm func(*Result) error
}

// Result says what became of the records of a Request.
type Result struct {
	Accepted int
	// Rejected are the records and events that went to the quarantine, in
	// order: at most 10,000 of them. More counts those that follow.
	Rejected []Rejection
	More     int
	// Suppressed counts what was read and is no event by its source's own word:
	// other records than detections, alerts that were masked there.
	Suppressed int
	Receipt    journal.Receipt
}

// Rejection is one bad record, or one bad event of a record.
type Rejection struct {
	Index  int    `json:"index"` // of the event within the request, from 0
	Reason string `json:"reason"`
}
