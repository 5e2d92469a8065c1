// Package feeds holds the nouns of coming in: tenants, sequences, records and
// the errors that a feed has to tell apart.
package feeds

import (
	"errors"
	"regexp"
	"time"
)

// TenantID names a customer: [a-z0-9][a-z0-9_-]{0,62}. It is a type of its own
// so that bytes of one tenant cannot be handed to another's writer by mistake.
type TenantID string

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// ValidName says whether s may name a tenant, channel, sink or feed
// (contract.md).
func ValidName(s string) bool { return len(s) <= 63 && name.MatchString(s) }

// Sequence numbers the events of a shard, rising. For Kafka it is the record's
// offset << SequenceBits | the event's number within the record, from 1, so
// that reading a partition again gives the same numbers; for other feeds it
// counts from 1. 0 is before every event.
type Sequence uint64

// SequenceBits is how many low bits of a Kafka sequence hold the index of the
// event within its record.
const SequenceBits = 20

// Record is one thing that a source handed over: in most formats one event, in
// some an array of them. The receiver of a Record may not keep Value or Key
// after its call returned.
type Record struct {
	Key   []byte
	Value []byte
	// Time is when the source took it (Kafka: the record's timestamp) and
	// becomes ingest_time; zero means now.
	Time time.Time
	// Seq is the number of the record's first event where the source gives one
	// (Kafka), else 0.
	Seq Sequence
	// Position says where the record lies in its source, for people and for
	// the ids of quarantine entries: "in/a.ndjson:1234", "partition 3 offset 88".
	Position string
	// ID, where not empty, is a deterministic prefix for event ids ("kds:<stream>:<seq>").
	ID string
	// Held says that Value's memory, all that its capacity spans, stays as it is
	// until Submit returns. An event in it with a newline behind it is then written
	// to the journal from where it lies.
	Held bool
	// Bad, where not empty, is why the transport knows that this is no event (a
	// line beyond every limit): Value goes to the quarantine with it, unread.
	Bad string
}

// ErrFull means that the journal has no room and no tenant is over its share:
// stop reading the source and try again later; nothing was kept.
var ErrFull = errors.New("journal is full")

// ErrStopped means that the service is stopping or the journal has failed
// stop: nothing was kept and the source must not be told that it was.
var ErrStopped = errors.New("journal is closed")
