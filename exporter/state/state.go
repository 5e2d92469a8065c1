// Package state is what a shard's facts add up to: where each lane stands, its
// pending drop, its numbers and its part of the ledger, and who was paused.
package state

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"datasync/feeds"
	"datasync/feeds/journal"
)

// Log is a shard's journal as state needs it; *journal.Journal is one.
type Log interface {
	// Put makes facts durable before it returns.
	Put(ctx context.Context, facts ...journal.Fact) error
	// PutLater makes facts durable with the next commit: no later than any
	// deletion that is asked for after it.
	PutLater(facts ...journal.Fact)
	// Fact is the value that holds for a key.
	Fact(key string) ([]byte, bool)
	// Facts are all facts whose key starts with prefix, by key.
	Facts(prefix string) iter.Seq2[string, []byte]
}

// Key names a lane within its shard, and a sink within the service.
type Key struct {
	Tenant feeds.TenantID
	Sink   string
}

// String is "tenant/sink".
func (k Key) String() string { return string(k.Tenant) + "/" + k.Sink }

// ParseKey reads what String wrote.
func ParseKey(s string) (Key, error) {
	t, sink, ok := strings.Cut(s, "/")
	if !ok || !feeds.ValidName(t) || !feeds.ValidName(sink) {
		return Key{}, fmt.Errorf("%q is not TENANT/SINK", s)
	}
	return Key{feeds.TenantID(t), sink}, nil
}

// Lane is the durable truth about one lane. Delivered + Filtered + SampledOut +
// Refused + Expired + Damaged is always Pos.Events - Start.Events.
type Lane struct {
	// Pos: every event before it is settled, and may leave the journal.
	Pos journal.Position `json:"pos"`
	// Start is where the lane began; "received" counts from here.
	Start journal.Position `json:"start"`
	// Read is how far the peer of an emitter is proven to have read: at or
	// behind Pos. A restart goes on from here.
	Read journal.Position `json:"read"`
	// ReadCounts are what the events from Pos to Read were.
	ReadCounts Counts `json:"read_counts,omitzero"`
	// Number is the last drop's number; 0 before the first.
	Number uint64 `json:"number"`
	// Tick is the last tick of the schedule that was handled, ms UTC.
	Tick int64 `json:"tick,omitempty"`

	Delivered  uint64 `json:"delivered"`
	Filtered   uint64 `json:"filtered,omitempty"`
	SampledOut uint64 `json:"sampled_out,omitempty"`
	Refused    uint64 `json:"refused,omitempty"`
	Expired    uint64 `json:"expired,omitempty"`
	Damaged    uint64 `json:"damaged,omitempty"`
	// Repeats are events sent once more after a break; no part of the balance.
	Repeats uint64 `json:"repeats,omitempty"`

	// LastEvent is the event time of the last event delivered and LastAt when
	// that was, both ms UTC.
	LastEvent int64 `json:"last_event,omitempty"`
	LastAt    int64 `json:"last_at,omitempty"`
}

// Settled is how many events the lane has accounted for.
func (l *Lane) Settled() uint64 {
	return l.Delivered + l.Filtered + l.SampledOut + l.Refused + l.Expired + l.Damaged
}

// Pending is a drop that was decided and may or may not have been stored: all
// that its key and its bytes depend on, besides the events themselves.
type Pending struct {
	From   journal.Position `json:"from"`
	To     journal.Position `json:"to"`
	Number uint64           `json:"number"`
	Key    string           `json:"key"`
	Cut    int64            `json:"cut"` // ms UTC
	// Tick is the schedule's tick that it settles, 0 for a cut by size, count or age.
	Tick int64 `json:"tick,omitempty"`
	// Output is the tenants.Output it was cut with.
	Output  json.RawMessage `json:"output"`
	Encoder string          `json:"encoder"`
	// Manifest says that a manifest follows the object; Events 0 with a
	// manifest is an empty drop: a manifest alone.
	Manifest bool `json:"manifest,omitempty"`

	Counts Counts `json:"counts"`
}

// Counts say what became of the events of a range.
type Counts struct {
	Events     uint64 `json:"events"` // in the object, or on the wire
	Filtered   uint64 `json:"filtered,omitempty"`
	SampledOut uint64 `json:"sampled_out,omitempty"`
	Refused    uint64 `json:"refused,omitempty"`
	Expired    uint64 `json:"expired,omitempty"`
	Damaged    uint64 `json:"damaged,omitempty"`
	// FirstEvent and LastEvent are the lowest and highest event time of the
	// blocks that gave Events, ms UTC.
	FirstEvent int64 `json:"first_event,omitempty"`
	LastEvent  int64 `json:"last_event,omitempty"`
}

// Add adds other, which lies behind c.
func (c *Counts) Add(o Counts) {
	if o.Events > 0 {
		if c.Events == 0 || o.FirstEvent < c.FirstEvent {
			c.FirstEvent = o.FirstEvent
		}
		if c.Events == 0 || o.LastEvent > c.LastEvent {
			c.LastEvent = o.LastEvent
		}
	}
	c.Events += o.Events
	c.Filtered += o.Filtered
	c.SampledOut += o.SampledOut
	c.Refused += o.Refused
	c.Expired += o.Expired
	c.Damaged += o.Damaged
}

// Sub takes away o, which c had been given; the event times stay.
func (c *Counts) Sub(o Counts) {
	c.Events -= min(o.Events, c.Events)
	c.Filtered -= min(o.Filtered, c.Filtered)
	c.SampledOut -= min(o.SampledOut, c.SampledOut)
	c.Refused -= min(o.Refused, c.Refused)
	c.Expired -= min(o.Expired, c.Expired)
	c.Damaged -= min(o.Damaged, c.Damaged)
}

// Sum is how many events the counts account for.
func (c *Counts) Sum() uint64 {
	return c.Events + c.Filtered + c.SampledOut + c.Refused + c.Expired + c.Damaged
}

// Settle moves the lane over a range that became what c says.
func (l *Lane) Settle(to journal.Position, c Counts, now int64) {
	l.Pos = to
	if l.Read.Seq < to.Seq {
		l.Read = to
	}
	l.Delivered += c.Events
	l.Filtered += c.Filtered
	l.SampledOut += c.SampledOut
	l.Refused += c.Refused
	l.Expired += c.Expired
	l.Damaged += c.Damaged
	if c.Events > 0 {
		l.LastEvent, l.LastAt = c.LastEvent, now
	}
}
