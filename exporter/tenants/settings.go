// Package tenants turns service, tenant and channel files into checked settings, with line and column for what is wrong.
package tenants

import (
	"crypto/sha256"
	"slices"
	"strings"
	"time"

	"datasync/exporter/tenants/conf"
	"datasync/feeds"
	"datasync/feeds/intake/alerts"
	"datasync/formats"
	"datasync/schemas"
)

// Service is the service's configuration file, checked and with its defaults.
// Relative paths in it are as written: relative to the working directory.
type Service struct {
	DataDir string
	Journal JournalSettings
	Memory  int64 // bytes, for encoding and buffers, all lanes together
	Egress  Egress
	Feeds   []Feed
	Tenants string // folder of the tenants' files; channels/ beside the files in it
	Admin   Admin
	Log     Log
	Notify  Notify
}

// JournalSettings is the "journal" part.
type JournalSettings struct {
	Retain   time.Duration
	MaxBytes int64
}

// Egress says which addresses sinks may reach.
type Egress struct {
	DenyPrivate bool
	Allow, Deny []string // CIDRs
}

// Admin is the admin listener.
type Admin struct {
	Listen string
	Token  Secret
	Hosts  []string
}

// Log is how the service logs.
type Log struct {
	Level  string // debug info warn error
	Format string // json console
}

// Notify is whom to tell of parked and long suspended lanes.
type Notify struct{ Webhook string }

// Feed is one source of events. Exactly one of the pointers is set.
type Feed struct {
	Name    string
	Format  string // a format of contract.md, or "auto" on an HTTP feed
	Tenant  feeds.TenantID
	HTTP    *HTTPFeed
	File    *FileFeed
	Kafka   *KafkaFeed
	TLS     *TLSFeed
	Kinesis *KinesisFeed
	S3      *S3Feed

	tenantAt conf.Pos // where Tenant is written
}

// HTTPFeed is a feed's "http".
type HTTPFeed struct {
	Listen    string
	MaxBody   int64
	Cert, Key string // PEM files; empty: plain HTTP
}

// FileFeed is a feed's "file".
type FileFeed struct {
	Path   string // a glob
	Follow bool
}

// KafkaFeed is a feed's "kafka".
type KafkaFeed struct {
	Brokers       []string
	Topic, Group  string
	TLS           *ClientTLS
	SASLMechanism string // plain scram-sha-256 scram-sha-512; empty: none
	SASLUser      string
	SASLPassword  Secret
}

// TLSFeed is a feed's "tls": JSON lines over TLS.
type TLSFeed struct {
	Listen, Cert, Key, ClientCA string
}

// KinesisFeed is a feed's "kinesis".
type KinesisFeed struct {
	Stream string // name or ARN
	AWS    AWS
	Start  string // oldest now: where a new feed begins
}

// S3Feed is a feed's "s3".
type S3Feed struct {
	Queue string // URL
	AWS   AWS
}

// AWS is what every AWS client needs.
type AWS struct {
	Region, Endpoint, RoleARN, ExternalID string
}

// ClientTLS is how a client dials TLS; all files PEM.
type ClientTLS struct {
	CA, Cert, Key, ServerName string
	MinVersion                uint16 // tls.VersionTLS12 or above
}

// Tenant is one tenant's file merged over its channel's, checked, secrets
// resolved, filters and schedules compiled. It is immutable once made.
type Tenant struct {
	ID      feeds.TenantID
	Channel string
	APIKeys []Secret
	Redact  Redact
	Quota   Quota
	Alerts  *Alerts
	Sinks   []*Sink
	// File is the path it came from and Raw what stands in it (references
	// unresolved), for the admin API.
	File string
	Raw  []byte

	digest       string   // of the merged value
	idAt, keysAt conf.Pos // where ID and APIKeys are written
}

// Redact is a tenant's "redact".
type Redact struct {
	Builtin     []string // of credentials tokens card_numbers ssn
	QueryParams []string
	Fields      []string
	Patterns    []string
}

// Quota is a tenant's "quota"; 0 is none.
type Quota struct {
	JournalBytes    int64
	EventsPerSecond float64
}

// Alerts is a tenant's "alerts".
type Alerts = alerts.Settings

// Sink is one destination of a tenant. Exactly one of the pointers S3, Dir,
// Kinesis, Emitter is set.
type Sink struct {
	Tenant feeds.TenantID
	Name   string

	S3      *S3Sink
	Dir     *DirSink
	Kinesis *KinesisSink
	Emitter *EmitterSink

	// Output is what the bytes of a drop depend on.
	Output  Output
	Deliver Deliver
	// Filter is Output.Filter compiled; nil where there is none.
	Filter *Filter
	// Start is "now" or "oldest": where a sink begins that has no position yet.
	Start string
	// Digest changes when, and only when, something of the sink's merged and
	// resolved settings changes. A reload keeps the pointer of a sink whose
	// digest stayed.
	Digest string
}

// Output is everything that the bytes delivered depend on, besides the events.
// It is recorded with a pending drop, so its JSON form must stay readable.
type Output struct {
	Format      formats.Format      `json:"format"`
	Compression formats.Compression `json:"compression"`
	Level       int                 `json:"level,omitempty"`
	Schema      string              `json:"schema"`
	Kinds       schemas.KindSet     `json:"kinds"`
	Filter      string              `json:"filter,omitempty"` // CEL source
	Fields      []string            `json:"fields,omitempty"`
	Sample      float64             `json:"sample"`
}

// Deliver says when a drop is cut: at the first that comes. 0 or nil is "not by this".
type Deliver struct {
	Schedule  Schedule // nil: none
	Cron      string   // its source, for people
	Timezone  string
	MaxEvents int
	MaxBytes  int64 // of the encoded object
	MaxAge    time.Duration
	Manifest  bool
	Empty     bool
}

// Schedule gives the next tick after a time (robfig/cron's Schedule).
type Schedule interface {
	// Next is the first tick after t; the zero time where there is none.
	Next(t time.Time) time.Time
}

// S3Sink is a sink's "s3".
type S3Sink struct {
	Bucket, Prefix            string
	AWS                       AWS
	PathStyle                 bool
	SSE, KMSKey, StorageClass string
	ConditionalPut            bool
	SecurityLakeSource        string
	SecurityLakeAccount       string
}

// DirSink is a sink's "dir".
type DirSink struct{ Path string }

// KinesisSink is a sink's "kinesis".
type KinesisSink struct {
	Stream       string
	AWS          AWS
	PartitionKey string // a field of the event
	Aggregate    bool
	Ordered      bool
}

// EmitterSink is a sink's "emitter".
type EmitterSink struct {
	Addresses   []string
	Framing     string // lines octet-counted
	Syslog      Syslog
	TLS         ClientTLS
	Confirm     string // drain window protocol
	Protocol    string // relp, with confirm protocol
	RotateEvery time.Duration
	RotateBytes int64
	RetryMax    time.Duration
}

// Syslog is the RFC 5424 header of octet-counted frames.
type Syslog struct {
	Facility string
	AppName  string
	MsgID    string
}

// Drops says whether the sink takes drops (s3, dir) rather than a stream.
func (s *Sink) Drops() bool { return s.S3 != nil || s.Dir != nil }

// Secret is a string that never shows itself: in logs, errors and JSON it is "set" or empty.
type Secret string

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[secret]"
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalJSON shows only that a secret is set.
func (s Secret) MarshalJSON() ([]byte, error) {
	if s == "" {
		return []byte(`""`), nil
	}
	return []byte(`{"secret":"set"}`), nil
}

// Reveal gives the value, to the code that must send or compare it.
func (s Secret) Reveal() string { return string(s) }

// Set is all tenants at one moment. It is immutable; a reload makes another.
type Set struct {
	byID  map[feeds.TenantID]*Tenant
	all   []*Tenant
	byKey map[[sha256.Size]byte]feeds.TenantID
}

// NewSet makes a set of tenants whose ids and keys do not meet.
func NewSet(all ...*Tenant) *Set {
	s := &Set{
		byID:  make(map[feeds.TenantID]*Tenant, len(all)),
		all:   slices.Clone(all),
		byKey: make(map[[sha256.Size]byte]feeds.TenantID, len(all)),
	}
	slices.SortFunc(s.all, func(a, b *Tenant) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for _, t := range s.all {
		s.byID[t.ID] = t
		for _, k := range t.APIKeys {
			s.byKey[sha256.Sum256([]byte(k))] = t.ID
		}
	}
	return s
}

// Tenant is the tenant of an id; nil where there is none.
func (s *Set) Tenant(id feeds.TenantID) *Tenant { return s.byID[id] }

// All is every tenant, by id. The slice must not be changed.
func (s *Set) All() []*Tenant { return s.all }

// Len is the number of tenants.
func (s *Set) Len() int { return len(s.all) }

// ByKey is the tenant that an API key belongs to. The key is looked up by its
// SHA-256, so that the time taken says nothing of the keys held.
func (s *Set) ByKey(key string) (feeds.TenantID, bool) {
	if key == "" {
		return "", false
	}
	id, ok := s.byKey[sha256.Sum256([]byte(key))]
	return id, ok
}
