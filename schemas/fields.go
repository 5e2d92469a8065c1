package schemas

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// Type is the type of a field's value.
type Type uint8

// The types. In JSON: strings for String, Enum and Object's text; numbers for
// Time, Int and Float; an array for List and StructList; an object for Struct
// and Object.
const (
	String     Type = iota
	Time            // int64, ms since 1970 UTC
	Int8            // an integer of 8 bits
	Int32           // an integer of 32 bits
	Int64           // an integer of 64 bits
	Float64         // any number
	Boolean         // true or false
	Enum            // a string of Values
	List            // strings
	Struct          // an object of Members
	StructList      // objects of Members
	Object          // any JSON object
)

var typeNames = [...]string{"string", "timestamp", "int8", "int32", "int64", "float64", "boolean", "enum", "list", "struct", "list of structs", "object"}

// String names the type, for people.
func (t Type) String() string { return typeNames[t] }

// Field describes one canonical field. The table below is the only place that
// does: the JSON Schema, the scanner, the decoder, the encoder, the variables
// of filters and the reference page come from it.
type Field struct {
	Name     string
	Type     Type
	Required bool
	// Spliced marks required fields that a producer may leave out: intake adds
	// them as it copies the event.
	Spliced bool
	// Opaque marks identifiers and closed vocabularies, which the built-in
	// redactions pass by; the text of all other strings is looked at.
	Opaque  bool
	Values  []string // Enum: what it may be
	Members []Field  // Struct, StructList: the fields of the object
	Doc     string   // meaning, with the unit

	at uintptr // where it lies in its Go struct; a test holds it to the type
}

// The canonical fields' places in the table, and their bits in Scan's set of
// keys seen.
const (
	fSchema = iota
	fEventID
	fTenantID
	fChannelID
	fSource
	fSourceInstance
	fVendorVersion
	fIntegration
	fKind
	fEventTime
	fTimePrecision
	fIngestTime
	fRequestID
	fCorrelationID
	fAction
	fDisposition
	fEnforced
	fMode
	fActionRaw
	fCodesRaw
	fRuleID
	fRuleName
	fRuleSet
	fRuleCategory
	fMatchOn
	fMatches
	fScore
	fScoreRaw
	fScoreKind
	fScoreThreshold
	fSeverity
	fStage
	fTactics
	fTechniques
	fReason
	fClientIP
	fClientPort
	fForwardedFor
	fClientASN
	fClientCountry
	fUserAgent
	fTLSJA3
	fTLSJA4
	fClientFP
	fSessionID
	fSessionState
	fHTTPMethod
	fHTTPHost
	fHTTPPath
	fHTTPQuery
	fHTTPProtocol
	fHTTPReferrer
	fHTTPStatus
	fBytesOut
	fBytesIn
	fDurationMs
	fNet
	fHost
	fDecision
	fAudit
	fAgg
	fMeta
	fieldCount
)

// Fields is the table of canonical fields, in the order in which AppendJSON
// writes them. The caller must not change it.
func Fields() []Field { return fields[:] }

var fields = [fieldCount]Field{
	fSchema:         {Name: "schema", at: unsafe.Offsetof(Event{}.Schema), Type: Enum, Required: true, Spliced: true, Opaque: true, Values: []string{Version}, Doc: "Version of this schema."},
	fEventID:        {Name: "event_id", at: unsafe.Offsetof(Event{}.EventID), Type: String, Required: true, Spliced: true, Opaque: true, Doc: "Unique id: from the source's own position or id where it has one, else a ULID. Receivers drop repeats by it."},
	fTenantID:       {Name: "tenant_id", at: unsafe.Offsetof(Event{}.TenantID), Type: String, Required: true, Spliced: true, Opaque: true, Doc: "Customer whom the event belongs to."},
	fChannelID:      {Name: "channel_id", at: unsafe.Offsetof(Event{}.ChannelID), Type: String, Opaque: true, Doc: "Reseller or group that the tenant belongs to."},
	fSource:         {Name: "source", at: unsafe.Offsetof(Event{}.Source), Type: String, Required: true, Opaque: true, Doc: "Product that decided or saw it, lower case: netacea, threatx, deepfence, suricata, coraza, cloudflare, cloudfront, aws_waf or a vendor's own name."},
	fSourceInstance: {Name: "source_instance", at: unsafe.Offsetof(Event{}.SourceInstance), Type: String, Opaque: true, Doc: "Instance of the source: worker, web ACL, edge location or node."},
	fVendorVersion:  {Name: "vendor_version", at: unsafe.Offsetof(Event{}.VendorVersion), Type: String, Opaque: true, Doc: "Version of the source."},
	fIntegration:    {Name: "integration", at: unsafe.Offsetof(Event{}.Integration), Type: String, Opaque: true, Doc: "What the source is built into, such as cloudflare or nginx."},
	fKind:           {Name: "kind", at: unsafe.Offsetof(Event{}.Kind), Type: Enum, Required: true, Opaque: true, Values: kindNames[:], Doc: "What the event records: a decision at the edge, a rule match without one, a sensor's alert, a change made by a person, or a plain request."},
	fEventTime:      {Name: "event_time", at: unsafe.Offsetof(Event{}.EventTime), Type: Time, Required: true, Doc: "When it happened, ms since 1970 UTC; from 2000 to 24 h ahead."},
	fTimePrecision:  {Name: "time_precision", at: unsafe.Offsetof(Event{}.TimePrecision), Type: Enum, Required: true, Opaque: true, Values: []string{"s", "ms", "us"}, Doc: "How exact the source's clock reading was."},
	fIngestTime:     {Name: "ingest_time", at: unsafe.Offsetof(Event{}.IngestTime), Type: Time, Required: true, Spliced: true, Doc: "When it was taken in, ms since 1970 UTC."},
	fRequestID:      {Name: "request_id", at: unsafe.Offsetof(Event{}.RequestID), Type: String, Opaque: true, Doc: "Id of the HTTP request at the edge."},
	fCorrelationID:  {Name: "correlation_id", at: unsafe.Offsetof(Event{}.CorrelationID), Type: String, Opaque: true, Doc: "Id that ties it to other events: flow, alert or originating request."},
	fAction: {Name: "action", at: unsafe.Offsetof(Event{}.Action), Type: Enum, Required: true, Opaque: true, Values: []string{"none", "block", "captcha", "challenge", "interrogate", "rate_limit",
		"tarpit", "redirect", "close", "count", "log", "allow"}, Doc: "What was decided."},
	fDisposition: {Name: "disposition", at: unsafe.Offsetof(Event{}.Disposition), Type: Enum, Required: true, Opaque: true, Values: []string{"allowed", "blocked", "captcha_served", "captcha_passed",
		"captcha_failed", "challenge_served", "challenge_passed", "challenge_failed", "bypassed", "delayed", "redirected", "detected", "logged",
		"fail_open", "error"}, Doc: "What came of it."},
	fEnforced:       {Name: "enforced", at: unsafe.Offsetof(Event{}.Enforced), Type: Boolean, Required: true, Doc: "Whether the decision was carried out; false for recommendations, counting, logging and sensors."},
	fMode:           {Name: "mode", at: unsafe.Offsetof(Event{}.Mode), Type: Enum, Opaque: true, Values: []string{"mitigate", "inject", "ingest", "ips", "ids", "count"}, Doc: "Mode that the source ran in."},
	fActionRaw:      {Name: "action_raw", at: unsafe.Offsetof(Event{}.ActionRaw), Type: String, Doc: "The action in the source's own words."},
	fCodesRaw:       {Name: "codes_raw", at: unsafe.Offsetof(Event{}.CodesRaw), Type: String, Doc: "The source's codes for match, mitigation and captcha."},
	fRuleID:         {Name: "rule_id", at: unsafe.Offsetof(Event{}.RuleID), Type: String, Doc: "Id of the rule that decided."},
	fRuleName:       {Name: "rule_name", at: unsafe.Offsetof(Event{}.RuleName), Type: String, Doc: "Name or description of the rule."},
	fRuleSet:        {Name: "rule_set", at: unsafe.Offsetof(Event{}.RuleSet), Type: String, Doc: "Rule set with its version."},
	fRuleCategory:   {Name: "rule_category", at: unsafe.Offsetof(Event{}.RuleCategory), Type: String, Doc: "Class of attack, in the source's words."},
	fMatchOn:        {Name: "match_on", at: unsafe.Offsetof(Event{}.MatchOn), Type: Enum, Opaque: true, Values: []string{"ua", "ip", "visitor", "datacenter", "sev", "organisation", "asn", "country", "combination", "header_fp"}, Doc: "Trait of the client that the rule matched."},
	fMatches:        {Name: "matches", at: unsafe.Offsetof(Event{}.Matches), Type: StructList, Members: matchMembers, Doc: "All rules that matched."},
	fScore:          {Name: "score", at: unsafe.Offsetof(Event{}.Score), Type: Float64, Doc: "Risk, 0 to 100, higher is worse."},
	fScoreRaw:       {Name: "score_raw", at: unsafe.Offsetof(Event{}.ScoreRaw), Type: Float64, Doc: "The score as delivered."},
	fScoreKind:      {Name: "score_kind", at: unsafe.Offsetof(Event{}.ScoreKind), Type: Enum, Opaque: true, Values: []string{"risk", "bot_score", "anomaly", "severity", "waf_attack"}, Doc: "What score_raw measures."},
	fScoreThreshold: {Name: "score_threshold", at: unsafe.Offsetof(Event{}.ScoreThreshold), Type: Float64, Doc: "Score from which the source acts, on the scale of score_raw."},
	fSeverity:       {Name: "severity", at: unsafe.Offsetof(Event{}.Severity), Type: Int8, Required: true, Doc: "0 unknown, 1 informational, 2 low, 3 medium, 4 high, 5 critical (OCSF)."},
	fStage:          {Name: "stage", at: unsafe.Offsetof(Event{}.Stage), Type: String, Doc: "Stage of the attack, in the source's words."},
	fTactics:        {Name: "tactics", at: unsafe.Offsetof(Event{}.Tactics), Type: List, Doc: "MITRE ATT&CK tactics."},
	fTechniques:     {Name: "techniques", at: unsafe.Offsetof(Event{}.Techniques), Type: List, Doc: "MITRE ATT&CK technique ids."},
	fReason:         {Name: "reason", at: unsafe.Offsetof(Event{}.Reason), Type: String, Doc: "Why it failed or was decided so, in the source's words."},
	fClientIP:       {Name: "client_ip", at: unsafe.Offsetof(Event{}.ClientIP), Type: String, Opaque: true, Doc: "Client's address, IPv4 or IPv6 text."},
	fClientPort:     {Name: "client_port", at: unsafe.Offsetof(Event{}.ClientPort), Type: Int32, Doc: "Client's port."},
	fForwardedFor:   {Name: "forwarded_for", at: unsafe.Offsetof(Event{}.ForwardedFor), Type: String, Doc: "X-Forwarded-For as received."},
	fClientASN:      {Name: "client_asn", at: unsafe.Offsetof(Event{}.ClientASN), Type: Int64, Doc: "Autonomous system number of the client."},
	fClientCountry:  {Name: "client_country", at: unsafe.Offsetof(Event{}.ClientCountry), Type: String, Opaque: true, Doc: "Client's country, ISO 3166-1 alpha-2, upper case."},
	fUserAgent:      {Name: "user_agent", at: unsafe.Offsetof(Event{}.UserAgent), Type: String, Doc: "User-Agent, at most 2 kB."},
	fTLSJA3:         {Name: "tls_ja3", at: unsafe.Offsetof(Event{}.TLSJA3), Type: String, Opaque: true, Doc: "JA3 fingerprint of the TLS client hello."},
	fTLSJA4:         {Name: "tls_ja4", at: unsafe.Offsetof(Event{}.TLSJA4), Type: String, Opaque: true, Doc: "JA4 fingerprint of the TLS client hello."},
	fClientFP:       {Name: "client_fp", at: unsafe.Offsetof(Event{}.ClientFP), Type: String, Opaque: true, Doc: "The source's own fingerprint of the client."},
	fSessionID:      {Name: "session_id", at: unsafe.Offsetof(Event{}.SessionID), Type: String, Doc: "Session or visitor id; never the cookie."},
	fSessionState:   {Name: "session_state", at: unsafe.Offsetof(Event{}.SessionState), Type: Enum, Opaque: true, Values: []string{"new", "existing", "renewed"}, Doc: "State of the session."},
	fHTTPMethod:     {Name: "http_method", at: unsafe.Offsetof(Event{}.HTTPMethod), Type: String, Opaque: true, Doc: "Request method."},
	fHTTPHost:       {Name: "http_host", at: unsafe.Offsetof(Event{}.HTTPHost), Type: String, Doc: "Host asked for, lower case, without a port."},
	fHTTPPath:       {Name: "http_path", at: unsafe.Offsetof(Event{}.HTTPPath), Type: String, Doc: "Path asked for."},
	fHTTPQuery:      {Name: "http_query", at: unsafe.Offsetof(Event{}.HTTPQuery), Type: String, Doc: "Query string, redacted."},
	fHTTPProtocol:   {Name: "http_protocol", at: unsafe.Offsetof(Event{}.HTTPProtocol), Type: String, Opaque: true, Doc: "Protocol with its version, such as HTTP/2."},
	fHTTPReferrer:   {Name: "http_referrer", at: unsafe.Offsetof(Event{}.HTTPReferrer), Type: String, Doc: "Referer as received."},
	fHTTPStatus:     {Name: "http_status", at: unsafe.Offsetof(Event{}.HTTPStatus), Type: Int32, Doc: "Status that the client got."},
	fBytesOut:       {Name: "bytes_out", at: unsafe.Offsetof(Event{}.BytesOut), Type: Int64, Doc: "Octets sent to the client."},
	fBytesIn:        {Name: "bytes_in", at: unsafe.Offsetof(Event{}.BytesIn), Type: Int64, Doc: "Octets received from the client."},
	fDurationMs:     {Name: "duration_ms", at: unsafe.Offsetof(Event{}.DurationMs), Type: Float64, Doc: "Time taken to answer, ms."},
	fNet:            {Name: "net", at: unsafe.Offsetof(Event{}.Net), Type: Struct, Members: netMembers, Doc: "Connection that a sensor saw."},
	fHost:           {Name: "host", at: unsafe.Offsetof(Event{}.Host), Type: Struct, Members: hostMembers, Doc: "Machine that the sensor runs on."},
	fDecision:       {Name: "decision", at: unsafe.Offsetof(Event{}.Decision), Type: Struct, Members: decisionMembers, Doc: "How the edge came by its decision."},
	fAudit:          {Name: "audit", at: unsafe.Offsetof(Event{}.Audit), Type: Struct, Members: auditMembers, Doc: "Who changed what, for kind audit."},
	fAgg:            {Name: "agg", at: unsafe.Offsetof(Event{}.Agg), Type: Struct, Members: aggMembers, Doc: "That the event stands for several."},
	fMeta:           {Name: "meta", at: unsafe.Offsetof(Event{}.Meta), Type: Struct, Members: metaMembers, Doc: "What was noted about the event on its way."},
}

var matchMembers = []Field{
	{Name: "rule_id", at: unsafe.Offsetof(Match{}.RuleID), Type: String, Doc: "Id of the rule."},
	{Name: "name", at: unsafe.Offsetof(Match{}.Name), Type: String, Doc: "Name of the rule."},
	{Name: "category", at: unsafe.Offsetof(Match{}.Category), Type: String, Doc: "Class of attack."},
	{Name: "stage", at: unsafe.Offsetof(Match{}.Stage), Type: String, Doc: "Stage of the attack."},
	{Name: "score", at: unsafe.Offsetof(Match{}.Score), Type: Float64, Doc: "What the match adds to the score, as delivered."},
	{Name: "blocking", at: unsafe.Offsetof(Match{}.Blocking), Type: Boolean, Doc: "Whether this rule blocks."},
	{Name: "location", at: unsafe.Offsetof(Match{}.Location), Type: String, Doc: "Part of the request that matched."},
	{Name: "data", at: unsafe.Offsetof(Match{}.Data), Type: String, Doc: "What matched there, redacted."},
}

var netMembers = []Field{
	{Name: "dst_ip", at: unsafe.Offsetof(Net{}.DstIP), Type: String, Doc: "Destination address."},
	{Name: "dst_port", at: unsafe.Offsetof(Net{}.DstPort), Type: Int32, Doc: "Destination port."},
	{Name: "transport", at: unsafe.Offsetof(Net{}.Transport), Type: String, Doc: "Transport protocol, lower case."},
	{Name: "direction", at: unsafe.Offsetof(Net{}.Direction), Type: String, Doc: "inbound, outbound or lateral."},
	{Name: "payload_b64", at: unsafe.Offsetof(Net{}.PayloadB64), Type: String, Doc: "Payload, base64, redacted."},
}

var hostMembers = []Field{
	{Name: "name", at: unsafe.Offsetof(Host{}.Name), Type: String, Doc: "Name of the machine."},
	{Name: "container", at: unsafe.Offsetof(Host{}.Container), Type: String, Doc: "Container."},
	{Name: "pod", at: unsafe.Offsetof(Host{}.Pod), Type: String, Doc: "Pod."},
	{Name: "cluster_id", at: unsafe.Offsetof(Host{}.ClusterID), Type: String, Doc: "Id of the cluster."},
	{Name: "cluster_name", at: unsafe.Offsetof(Host{}.ClusterName), Type: String, Doc: "Name of the cluster."},
	{Name: "node_id", at: unsafe.Offsetof(Host{}.NodeID), Type: String, Doc: "Id of the node."},
}

var decisionMembers = []Field{
	{Name: "latency_ms", at: unsafe.Offsetof(Decision{}.LatencyMs), Type: Float64, Doc: "Time that the decision took, ms."},
	{Name: "status", at: unsafe.Offsetof(Decision{}.Status), Type: Int32, Doc: "Status that the deciding service answered."},
}

var auditMembers = []Field{
	{Name: "actor", at: unsafe.Offsetof(Audit{}.Actor), Type: String, Doc: "Who made the change."},
	{Name: "object_type", at: unsafe.Offsetof(Audit{}.ObjectType), Type: String, Doc: "Kind of thing changed."},
	{Name: "object_id", at: unsafe.Offsetof(Audit{}.ObjectID), Type: String, Doc: "Which one."},
	{Name: "change", at: unsafe.Offsetof(Audit{}.Change), Type: String, Doc: "What was changed."},
}

var aggMembers = []Field{
	{Name: "count", at: unsafe.Offsetof(Agg{}.Count), Type: Int64, Doc: "How many events it stands for."},
	{Name: "first_seen", at: unsafe.Offsetof(Agg{}.FirstSeen), Type: Time, Doc: "First of them, ms since 1970 UTC."},
	{Name: "last_seen", at: unsafe.Offsetof(Agg{}.LastSeen), Type: Time, Doc: "Last of them, ms since 1970 UTC."},
}

var metaMembers = []Field{
	{Name: "labels", at: unsafe.Offsetof(Meta{}.Labels), Type: List, Doc: "The source's labels and tags."},
	{Name: "redactions", at: unsafe.Offsetof(Meta{}.Redactions), Type: List, Doc: "What was redacted, by rule and field."},
	{Name: "truncated", at: unsafe.Offsetof(Meta{}.Truncated), Type: List, Doc: "Fields that were cut to their limit."},
	{Name: "unmapped", at: unsafe.Offsetof(Meta{}.Unmapped), Type: Object, Doc: "Fields of the source that have no canonical place."},
	{Name: "raw_sha256", at: unsafe.Offsetof(Meta{}.RawSHA256), Type: String, Doc: "SHA-256 of the record as received, hex."},
}

// short is a text of at most 16 bytes as two words, for comparing at once.
type short struct {
	a, b uint64
	n    int
}

// shorten makes a short of a name that fits.
func shorten(name string) short {
	var buf [16]byte
	copy(buf[:], name)
	return short{binary.LittleEndian.Uint64(buf[:]), binary.LittleEndian.Uint64(buf[8:]), len(name)}
}

// shortAt reads the text up to the next quote in b[i:]; false where that lies
// further than 16 bytes away or too near the end to tell. It does not check
// the text: only its being equal to a good one makes it good.
func shortAt(b []byte, i int) (s short, ok bool) {
	if i < 0 || i+24 > len(b) {
		return s, false
	}
	w := binary.LittleEndian.Uint64(b[i:])
	if m := quotes(w); m != 0 {
		return short{w & ((m ^ (m - 1)) >> 8), 0, bits.TrailingZeros64(m) >> 3}, true
	}
	v := binary.LittleEndian.Uint64(b[i+8:])
	if m := quotes(v); m != 0 {
		return short{w, v & ((m ^ (m - 1)) >> 8), 8 + bits.TrailingZeros64(m)>>3}, true
	}
	return short{w, v, 16}, b[i+16] == '"'
}

// quotes marks the first quote in w with the high bit of its byte; 0 if there is none.
func quotes(w uint64) uint64 {
	q := w ^ lows*'"'
	return (q - lows) &^ q & highs
}

// lookup finds the field of a name, or otherKey.
func lookup(name string) int {
	if len(name) > 16 {
		return otherKey
	}
	s := shorten(name)
	f := int(slots[slot(s.a, s.b, multiplier)])
	if names[f] != s {
		return otherKey
	}
	return f
}

// keyAt finds the field whose name and closing quote stand at b[i:], and the
// name's length; otherKey where it is none or needs a closer look. It is
// shortAt and lookup in one, for there is nothing that is done more often.
func keyAt(b []byte, i int) (f, n int) {
	if i < 0 || i+24 > len(b) {
		return otherKey, 0
	}
	w, v := binary.LittleEndian.Uint64(b[i:]), uint64(0)
	m := quotes(w)
	if m != 0 {
		w &= (m ^ (m - 1)) >> 8
	} else {
		v, n = binary.LittleEndian.Uint64(b[i+8:]), 8
		if m = quotes(v); m == 0 {
			return otherKey, 0 // no name is that long
		}
		v &= (m ^ (m - 1)) >> 8
	}
	n += bits.TrailingZeros64(m) >> 3
	f = int(slots[slot(w, v, multiplier)])
	if k := &names[f]; k.a != w || k.b != v || k.n != n {
		return otherKey, 0
	}
	return f, n
}

func slot(a, b, m uint64) uint64 { return (a ^ b*0x9E3779B97F4A7C15) * m >> (64 - slotBits) }

const slotBits = 9

// names are the fields' names, and a last one that nothing equals.
var names = func() (t [fieldCount + 1]short) {
	for f := range fields {
		t[f] = shorten(fields[f].Name)
	}
	t[fieldCount].n = -1
	return t
}()

// slots and multiplier make a hash without collisions over the table's names.
var slots, multiplier = func() (t [1 << slotBits]uint8, m uint64) {
search:
	for m = 0x9E3779B97F4A7C15; ; m += 0x6A09E667F3BCC90A {
		for i := range t {
			t[i] = fieldCount
		}
		for f := range fieldCount {
			at := &t[slot(names[f].a, names[f].b, m)]
			if *at != fieldCount {
				continue search
			}
			*at = uint8(f)
		}
		return t, m
	}
}()

// enumShorts are the enums' values, by field.
var enumShorts = func() (t [fieldCount][]short) {
	for f := range fields {
		for _, v := range fields[f].Values {
			t[f] = append(t[f], shorten(v))
		}
	}
	return t
}()

// Value gives a field by its name: a string, int64, float64, bool or
// []string; nil where it is absent, or no scalar and no list. The list is e's
// own.
func (e *Event) Value(name string) any {
	n := lookup(name)
	if n < 0 {
		return nil
	}
	f := &fields[n]
	p := unsafe.Add(unsafe.Pointer(e), f.at)
	switch f.Type {
	case String, Enum:
		if s := *(*string)(p); s != "" {
			return s
		}
	case Int8:
		return int64(*(*int8)(p))
	case Time:
		if ms := *(*int64)(p); ms != 0 || !f.Spliced {
			return ms
		}
	case Int32, Int64:
		if v := (*Int)(p); v.OK {
			return v.V
		}
	case Float64:
		if v := (*Float)(p); v.OK {
			return v.V
		}
	case Boolean:
		return *(*bool)(p)
	case List:
		if list := *(*[]string)(p); len(list) > 0 {
			return list
		}
	}
	return nil
}

//go:embed mitigation-1.schema.json
var jsonSchema []byte

// JSONSchema is the JSON Schema (2020-12) of the canonical event as stored. It
// is generated from Fields by the tests' -update flag.
func JSONSchema() []byte { return bytes.Clone(jsonSchema) }
