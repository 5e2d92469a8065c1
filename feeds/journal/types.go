// Package journal is the segmented, tenant-grouped log of bytes and facts:
// append, read, recover, retain, rewrite.
package journal

import (
	"time"

	"datasync/feeds"
)

// TenantRef stands for a tenant inside one Journal of this process: a small
// number instead of a string on the hot path. Never stored.
type TenantRef uint32

// Event is one event inside a Batch: the line Arena[Off:Off+Len] and Rest, its
// newline included. Rest is bytes that lie elsewhere, mostly where the feed read
// them, or nil; they are copied once, into the commit.
type Event struct {
	Off, Len uint32
	Rest     []byte
	Tenant   TenantRef
	// Kind is the event's kind, below 8 (schemas.Kind; the journal only groups by it).
	Kind uint8
	// Time is the event time, ms UTC.
	Time int64
	// Seq is the event's number where the source gives one (it must rise from
	// event to event and lie above all that the shard holds); 0 on every event
	// of a batch: the journal counts.
	Seq feeds.Sequence
}

// Batch is what one Append hands over. It is never split over two commits; its
// arena, and what Rest points to, belongs to the journal until Append returns.
type Batch struct {
	Arena  []byte
	Events []Event
	// Source is where the source stands behind this batch (Kafka: the next
	// offset); 0 leaves it as it was.
	Source uint64
	// Facts become durable in the same commit as the events.
	Facts []Fact
}

// Fact is a small durable truth: the last value put under a key holds. An
// empty value deletes the key. Keys are at most 512 bytes, values at most 1 MiB.
// The journal's own facts start with "journal/".
type Fact struct {
	Key   string
	Value []byte
	// Add makes Value a list of uvarints that are added, one by one, to the
	// list that stands under the key (absent ones count as 0): counters that
	// many writers move without knowing each other's totals. See AppendCounts.
	Add bool
}

// Receipt says where a batch came to lie.
type Receipt struct {
	Commit      uint64
	First, Last feeds.Sequence // of the events of this batch; 0 where it had none
}

// Position is where a reader of one tenant stands in a shard: Seq is the
// number of the first event it still wants, Events and Bytes how many events
// and bytes of the tenant the shard took before that one, ever. The counts make
// "how far behind" a subtraction, and a hole visible as a jump. The zero
// Position is before the tenant's first event.
type Position struct {
	Seq    feeds.Sequence `json:"seq"`
	Events uint64         `json:"events"`
	Bytes  uint64         `json:"bytes"`
}

// KindRun is a run of consecutive events of one kind.
type KindRun struct {
	Kind   uint8
	Events uint32
	Bytes  uint32
}

// Span is the part of one block that lies in a Chunk: Data[Off:Off+Len], whole
// lines. All slices belong to the Chunk.
type Span struct {
	Off, Len int
	Events   int
	// Kinds are the runs of this span; they add up to Events and Len.
	Kinds []KindRun
	// Start is the position of the span's first event.
	Start Position
	// Seqs are the numbers of the events of this span: Steps holds, for each
	// run, how many events follow each other at which distance; the first
	// event is Start.Seq.
	Steps []Step
	// MinTime and MaxTime are the first and last event time in the whole block, ms UTC.
	MinTime, MaxTime int64
	// Whole says that the span is all of its block.
	Whole bool
	// Committed is when the commit was made (ingest time), ms UTC.
	Committed int64
}

// Step is a run in a block's sequence: Count events, each By above the one
// before it. The first event of the block counts with the first run, with no step.
type Step struct {
	Count uint32
	By    uint64
}

// Hole is a range of a tenant's events that a reader had to pass over.
type Hole struct {
	From, To Position // [From, To) ; To.Events-From.Events events are missing
	// Expired: a quota, the disk cap or retention took them. Otherwise they
	// were damaged on disk (a gap fact names the range).
	Expired bool
}

// Chunk is one answer of Read; it is reused from call to call.
type Chunk struct {
	Data  []byte
	Spans []Span
	// Holes met on the way, in order; they lie before, between or behind spans.
	Holes []Hole
	// Next is where to go on: behind the last event (or hole) of this chunk.
	Next Position
	// More says that events that satisfy the ReadOptions follow behind Next.
	More bool

	steps  []Step // what the spans' slices are cut from
	kinds  []KindRun
	packed []byte
	meta   blockMeta
}

// ReadOptions bound a Read; the zero value reads up to 1 MiB.
type ReadOptions struct {
	// MaxBytes ends the chunk at the last whole event that fits, but holds at
	// least one event (so a chunk may exceed it by one event). 0 is 1 MiB.
	MaxBytes int
	// Blocks ends the chunk before a block that does not fit as a whole, where
	// it holds something: no block is read and summed twice. The chunk then
	// depends on how the log happens to be cut.
	Blocks bool
	// MaxEvents ends the chunk after that many events; 0 is no limit.
	MaxEvents int
	// Before ends the chunk before the first commit made at or after this time
	// (ms UTC); 0 is no limit.
	Before int64
	// Until ends the chunk before this sequence; 0 is no limit. Only a Hole may
	// reach beyond, where it is not known which of its events lie before.
	Until feeds.Sequence
}

// Standing is what the shard holds of a tenant.
type Standing struct {
	// End is the position behind the tenant's newest event.
	End Position
	// Oldest is the position of the oldest event still kept.
	Oldest Position
}

// Arrival tells of one tenant's events in a new commit.
type Arrival struct {
	Tenant    TenantRef
	Start     Position // of the first event
	Events    uint32
	Bytes     uint32
	Committed int64 // ms UTC
}

// Options of a Store; the zero value of each field is the documented default.
type Options struct {
	// MaxBytes caps all shards together; 0 is 50 GiB.
	MaxBytes int64
	// Retain keeps delivered events that long; 0 is 24 h.
	Retain time.Duration
	// SegmentBytes is the size at which a segment is sealed; 0 is 64 MiB, or a
	// sixteenth of MaxBytes where that is less (1 MiB at least).
	SegmentBytes int64
	// ReserveBytes is the size of the reserve file; 0 is 64 MiB (at most an
	// eighth of MaxBytes).
	ReserveBytes int64
	// GroupDelay is how long a commit waits for company after the first append
	// arrived while another commit is not under way; 0 is none: what arrives
	// during one fsync shares the next.
	GroupDelay time.Duration
	// CommitBytes ends the collecting of a commit; 0 is 4 MiB.
	CommitBytes int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// FS is the file system; nil is the operating system's.
	FS FS
	// Quota gives a tenant's journal quota in bytes, 0 for none; nil is none.
	Quota func(feeds.TenantID) int64
	// Report is told of what an operator must know: torn tails, damage, a
	// failed fsync, expiry, fail-stop. Called on the goroutine that found it.
	Report func(Incident)
}

// Incident is something that an operator must know.
type Incident struct {
	Shard string
	// What is one of: torn-tail, damage, fsync-failed, fail-stop, expired,
	// full, space-back, reserve-released, clock, maintain (a pass failed).
	What    string
	Tenant  feeds.TenantID // where one is concerned
	File    string
	Off     int64
	Bytes   int64
	Events  int64
	Message string // a sentence: what, where, and what follows from it
}
