package admin

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Backend is what the server shows and moves; all are required.
type Backend struct {
	Views      Views
	Control    Control
	Health     Health
	Quarantine Quarantine
}

// Views are the figures. The server calls them concurrently; what they return
// belongs to the server. None may block on a destination: /metrics asks at
// every scrape, for all sinks.
type Views interface {
	// Lanes gives every sink once, its shards added up, ordered by tenant and
	// sink; Shards is left nil unless asked for.
	Lanes(shards bool) []LaneView
	// Lane gives one sink with its Shards; false where there is none.
	Lane(tenant, sink string) (LaneView, bool)
	// Tenants gives every tenant, ordered by name, with Settings left nil.
	Tenants() []TenantView
	// Tenant gives one tenant with its Settings; false where there is none.
	Tenant(tenant string) (TenantView, bool)
	// Ledger gives the counts of one tenant, or of all for "". Make it with NewLedger.
	Ledger(tenant string) (Ledger, error)
}

// Control moves lanes. It is called concurrently, and on return what it did is
// durable (a pause outlives a restart).
type Control interface {
	// Act does one action on all lanes of a sink. ErrNotFound where there is no
	// such sink; ErrConflict, wrapped with the reason, where its state does not
	// allow it. Doing what is already so (pausing a paused lane) is no error.
	Act(ctx context.Context, tenant, sink string, a Action) error
}

// Health is the service itself. It is called concurrently.
type Health interface {
	// Ready is nil where the service takes events, else why not. It is told to
	// anyone who asks, so it may name nothing secret.
	Ready() error
	// Process gives what no lane and no feed owns.
	Process() ProcessView
}

// Quarantine is what could not become an event. It is called concurrently.
type Quarantine interface {
	// Entries gives the newest entries first, at most limit, with the beginning
	// of each record; of one tenant ("_unrouted": those of nobody) and one feed,
	// "" for all.
	Entries(tenant, feed string, limit int) ([]QuarantineView, error)
	// Entry gives one entry with its record; false where there is none.
	Entry(id string) (QuarantineView, bool, error)
	// Retry submits an entry's record once more through its feed. On return
	// without an error what became of it is durable, and the entry is listed no
	// more. ErrNotFound; ErrConflict, wrapped with the reason, where it cannot be
	// retried, was already, or still is no event: then nothing has changed.
	Retry(ctx context.Context, id string) (Retried, error)
}

// Errors that Control and Quarantine return for the server to tell apart.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict")
)

// Action is what an operator can do to a sink.
type Action string

// The actions: stop delivering and keep everything; go on; try now instead of
// at the next retry; cut and send what is there without waiting for a limit.
const (
	Pause  Action = "pause"
	Resume Action = "resume"
	Retry  Action = "retry"
	Flush  Action = "flush"
)

// LaneView is a sink's lanes, all shards together, or one of them under Shards.
type LaneView struct {
	Tenant string `json:"tenant"`
	Sink   string `json:"sink"`
	// Shard is set on the entries of Shards only.
	Shard string `json:"shard,omitempty"`
	// State is one of States; of several shards the worst.
	State string `json:"state"`
	// Reason is the class of the last failure (lane.Class); empty while running.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Since is when the state was entered.
	Since     time.Time  `json:"since"`
	NextRetry *time.Time `json:"next_retry,omitempty"`
	Behind    Behind     `json:"behind"`
	// LastDelivered is nil where nothing has been delivered yet.
	LastDelivered *Delivered `json:"last_delivered,omitempty"`
	Totals        Totals     `json:"totals"`
	// Facts are what else the sink has learned, for people: "confirm":
	// "weak: the receiver closes without close_notify".
	Facts  map[string]string `json:"facts,omitempty"`
	Shards []LaneView        `json:"shards,omitempty"`
}

// States are the states of a lane, from the best to the worst.
var States = []string{"running", "waiting", "suspended", "paused", "parked"}

// Worse says whether state a is worse than b, for adding up shards.
func Worse(a, b string) bool { return stateRank(a) > stateRank(b) }

func stateRank(s string) int {
	for i, name := range States {
		if name == s {
			return i
		}
	}
	return -1
}

// Behind is what has not been delivered yet.
type Behind struct {
	Events int64 `json:"events"`
	Bytes  int64 `json:"bytes"`
	// Oldest is when the oldest of them was committed; nil where there is none.
	Oldest *time.Time `json:"oldest,omitempty"`
	// AgeSeconds is how long ago that was; the server fills it in from Oldest.
	AgeSeconds float64 `json:"age_seconds"`
}

// Delivered is the last event that arrived at the destination.
type Delivered struct {
	EventTime time.Time `json:"event_time"`
	At        time.Time `json:"at"`
}

// Totals are counts of events since the sink's start. Received is the sum of
// Delivered to Queued where the ledger balances; Repeats and Replayed are
// counted apart.
type Totals struct {
	Received   int64 `json:"received"`
	Delivered  int64 `json:"delivered"`
	Filtered   int64 `json:"filtered"`
	SampledOut int64 `json:"sampled_out"`
	Refused    int64 `json:"refused"`
	Expired    int64 `json:"expired"`
	Damaged    int64 `json:"damaged"`
	Queued     int64 `json:"queued"`
	Repeats    int64 `json:"repeats"`
	Replayed   int64 `json:"replayed"`
}

// Balanced says whether every received event is accounted for.
func (t Totals) Balanced() bool {
	return t.Received == t.Delivered+t.Filtered+t.SampledOut+t.Refused+t.Expired+t.Damaged+t.Queued
}

// Ledger is the account of every event.
type Ledger struct {
	// Balanced is whether every row is.
	Balanced bool      `json:"balanced"`
	Sinks    []SinkRow `json:"sinks"`
	// Feeds are the whole service's, whichever tenant was asked for.
	Feeds []FeedRow `json:"feeds"`
}

// SinkRow is the account of one sink.
type SinkRow struct {
	Tenant string `json:"tenant"`
	Sink   string `json:"sink"`
	Totals
	Balanced bool `json:"balanced"`
}

// FeedRow is the account of one feed, in events.
type FeedRow struct {
	Feed string `json:"feed"`
	FeedTotals
	Balanced bool `json:"balanced"`
	// Missed counts the records of a Kafka topic that the feed never reads: they
	// were deleted first, or another consumer of its group took them. They are
	// no part of the balance, since how many events they held nobody knows.
	Missed int64 `json:"missed,omitempty"`
	// Gaps name them, the newest first, MaxGaps at most.
	Gaps []Gap `json:"gaps,omitempty"`
}

// MaxGaps is how many gaps of a feed are named in the ledger; all are counted.
const MaxGaps = 100

// Gap is a range of a partition's offsets that was never read: [From, To). Of a
// Kinesis stream (Topic) it is a part of a Shard that may not have been read, and
// Message says which: its records are not numbered one by one, nor counted in Missed.
type Gap struct {
	Topic     string    `json:"topic"`
	Shard     string    `json:"shard,omitempty"`
	Message   string    `json:"message,omitempty"`
	Partition int       `json:"partition"`
	From      int64     `json:"from"`
	To        int64     `json:"to"`
	Why       string    `json:"why"` // deleted consumed
	Found     time.Time `json:"found"`
}

// FeedTotals are a feed's counts: Read and Made (alerts) come in, the others
// are where they went.
type FeedTotals struct {
	Read        int64 `json:"read"`
	Made        int64 `json:"made"`
	Accepted    int64 `json:"accepted"`
	Quarantined int64 `json:"quarantined"`
	Unrouted    int64 `json:"unrouted"`
	Duplicate   int64 `json:"duplicate"`
	Suppressed  int64 `json:"suppressed"`
	// Retried says how many of Read came out of the quarantine again; they were
	// read, and quarantined or unrouted, before.
	Retried int64 `json:"retried"`
}

// Balanced says whether every event that came in is accounted for.
func (t FeedTotals) Balanced() bool {
	return t.Read+t.Made == t.Accepted+t.Quarantined+t.Unrouted+t.Duplicate+t.Suppressed
}

// NewLedger judges every row and the whole; the rows' Balanced is overwritten.
func NewLedger(sinks []SinkRow, feeds []FeedRow) Ledger {
	l := Ledger{Balanced: true, Sinks: sinks, Feeds: feeds}
	if l.Sinks == nil {
		l.Sinks = []SinkRow{}
	}
	if l.Feeds == nil {
		l.Feeds = []FeedRow{}
	}
	for i := range l.Sinks {
		l.Sinks[i].Balanced = l.Sinks[i].Totals.Balanced()
		l.Balanced = l.Balanced && l.Sinks[i].Balanced
	}
	for i := range l.Feeds {
		l.Feeds[i].Balanced = l.Feeds[i].FeedTotals.Balanced()
		l.Balanced = l.Balanced && l.Feeds[i].Balanced
	}
	return l
}

// TenantView is one tenant.
type TenantView struct {
	Tenant  string   `json:"tenant"`
	Channel string   `json:"channel,omitempty"`
	File    string   `json:"file"`
	Sinks   []string `json:"sinks"`
	// Problem is why the tenant's file is not in force as it stands on disk.
	Problem string `json:"problem,omitempty"`
	// Settings is the tenant's file as JSON, secrets masked, references
	// unresolved: what GET /v1/tenants/{t} answers.
	Settings json.RawMessage `json:"-"`
}

// QuarantineView is one record that could not become an event.
type QuarantineView struct {
	ID     string `json:"id"`
	Feed   string `json:"feed"`
	Tenant string `json:"tenant,omitempty"`
	// Sink is the sink that refused the event, where it was one.
	Sink     string    `json:"sink,omitempty"`
	Format   string    `json:"format,omitempty"`
	Position string    `json:"position"`
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
	Bytes    int64     `json:"bytes"`
	// Events is how many bad values the entry stands for, where more than one.
	Events int `json:"events,omitempty"`
	// Record is the record, secrets masked; in a list the beginning of it. Bytes
	// that are no text stand in Base64 instead, of a single entry.
	Record string `json:"record,omitempty"`
	Base64 string `json:"base64,omitempty"`
	// Redactions name what was masked.
	Redactions []string `json:"redactions,omitempty"`
	// Of is the entry whose retry left this one.
	Of string `json:"of,omitempty"`
}

// Retried says what became of a retried entry.
type Retried struct {
	ID       string `json:"id"`
	Accepted int    `json:"accepted"` // events
	// Rejected are the values that still are no events; each stands in an entry
	// of its own.
	Rejected []Rejection `json:"rejected"`
	// More counts those that are not among Rejected.
	More int `json:"more,omitempty"`
}

// Rejection is one value that is no event.
type Rejection struct {
	Index  int    `json:"index"`
	Reason string `json:"reason"`
}

// ProcessView is what no lane and no feed owns.
type ProcessView struct {
	Version string
	Start   time.Time
	// JournalBytes are the bytes on disk of each shard.
	JournalBytes map[string]int64
	// JournalMaxBytes is the cap over all shards.
	JournalMaxBytes int64
	// Incidents count the journal's incidents by their kind (journal.Incident.What).
	Incidents map[string]int64
	// MemoryBytes and MemoryMaxBytes are the encoding budget in use and whole.
	MemoryBytes, MemoryMaxBytes int64
	// Alerts are the sums of the tenants that have alerts.
	Alerts []AlertsView
	// Of the quarantine: the bytes and the number of its entries now, and how
	// many have expired, ever.
	QuarantineBytes, QuarantineEntries, QuarantineExpired int64
}

// AlertsView is what is kept in memory for one tenant's alerts.
type AlertsView struct {
	Tenant   string
	Entities int64 // whose scores are summed
	Left     int64 // that had to make room for newer ones
}
