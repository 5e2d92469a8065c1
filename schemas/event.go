// Package schemas defines the canonical event: its fields, its strict one-pass check, its decoding and its encoding.
package schemas

// Version names the canonical schema; every stored event carries it in its
// "schema" field.
const Version = "mitigation/1"

// MaxEvent is the largest canonical event in bytes, its newline not counted.
const MaxEvent = 256 << 10

// Kind says what an event records. It is kept per event in the journal's run
// tables, so its numbers are part of the journal's format: never renumber.
type Kind uint8

// The kinds of events.md, section "kind".
const (
	KindMitigation Kind = iota
	KindMatch
	KindAlert
	KindAudit
	KindRequest
	// KindCount is the number of kinds.
	KindCount
)

var kindNames = [KindCount]string{"mitigation", "match", "alert", "audit", "request"}

// String is the name as it stands in an event's "kind".
func (k Kind) String() string {
	if k < KindCount {
		return kindNames[k]
	}
	return "unknown"
}

// ParseKind finds the kind of a name; false for a name that is none.
func ParseKind(name string) (Kind, bool) {
	for k, n := range kindNames {
		if n == name {
			return Kind(k), true
		}
	}
	return 0, false
}

// KindSet is a set of kinds, one bit each.
type KindSet uint8

// DefaultKinds is what a sink gets unless its settings say otherwise: all but
// request.
const DefaultKinds = KindSet(1<<KindMitigation | 1<<KindMatch | 1<<KindAlert | 1<<KindAudit)

// AllKinds holds every kind.
const AllKinds = KindSet(1<<KindCount - 1)

// Has says whether k is in the set.
func (s KindSet) Has(k Kind) bool { return s&(1<<k) != 0 }

// Event is the canonical event, decoded: events.md, section "Fields", in that
// order. Strings may alias the line they were decoded from. What is not OK, an
// empty list and an empty string (an enum's too) are absent fields.
type Event struct {
	Schema         string
	EventID        string
	TenantID       string
	ChannelID      string
	Source         string
	SourceInstance string
	VendorVersion  string
	Integration    string
	Kind           string
	EventTime      int64 // ms UTC
	TimePrecision  string
	IngestTime     int64 // ms UTC
	RequestID      string
	CorrelationID  string
	Action         string
	Disposition    string
	Enforced       bool
	Mode           string
	ActionRaw      string
	CodesRaw       string
	RuleID         string
	RuleName       string
	RuleSet        string
	RuleCategory   string
	MatchOn        string
	Matches        []Match
	Score          Float
	ScoreRaw       Float
	ScoreKind      string
	ScoreThreshold Float
	Severity       int8
	Stage          string
	Tactics        []string
	Techniques     []string
	Reason         string
	ClientIP       string
	ClientPort     Int
	ForwardedFor   string
	ClientASN      Int
	ClientCountry  string
	UserAgent      string
	TLSJA3         string
	TLSJA4         string
	ClientFP       string
	SessionID      string
	SessionState   string
	HTTPMethod     string
	HTTPHost       string
	HTTPPath       string
	HTTPQuery      string
	HTTPProtocol   string
	HTTPReferrer   string
	HTTPStatus     Int
	BytesOut       Int
	BytesIn        Int
	DurationMs     Float
	Net            Net
	Host           Host
	Decision       Decision
	Audit          Audit
	Agg            Agg
	Meta           Meta

	// Extra is a JSON object of the top-level members that are no canonical
	// field, or a canonical optional field of another type than the schema's;
	// empty where there are none.
	Extra string

	extra []byte // what Extra is made in
	seen  uint64
}

// Seen is which fields the line had that Decode made the event of, null or not: bit i
// for Fields()[i], the bit behind the last one for Extra. What it lacks is absent.
func (e *Event) Seen() uint64 { return e.seen }

// Int is an optional integer.
type Int struct {
	V  int64
	OK bool
}

// Float is an optional float.
type Float struct {
	V  float64
	OK bool
}

// Bool is an optional bool.
type Bool struct{ V, OK bool }

// Match is one rule that matched (field 26).
type Match struct {
	RuleID   string
	Name     string
	Category string
	Stage    string
	Score    Float
	Blocking Bool
	Location string
	Data     string
}

// Net is the connection a sensor saw (field 57). OK is false where the event
// has none; so for the structs below.
type Net struct {
	OK         bool
	DstIP      string
	DstPort    Int
	Transport  string
	Direction  string
	PayloadB64 string
}

// Host is the machine a sensor runs on (field 58).
type Host struct {
	OK          bool
	Name        string
	Container   string
	Pod         string
	ClusterID   string
	ClusterName string
	NodeID      string
}

// Decision is how the edge came by its decision.
type Decision struct {
	OK        bool
	LatencyMs Float
	Status    Int
}

// Audit is who changed what, for kind audit.
type Audit struct {
	OK         bool
	Actor      string
	ObjectType string
	ObjectID   string
	Change     string
}

// Agg says that the event stands for several.
type Agg struct {
	OK        bool
	Count     Int
	FirstSeen Int // ms UTC
	LastSeen  Int // ms UTC
}

// Meta is what was noted about the event on its way.
type Meta struct {
	OK         bool
	Labels     []string
	Redactions []string
	Truncated  []string
	Unmapped   string // a JSON object
	RawSHA256  string
}
