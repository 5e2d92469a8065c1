package parquet

import "datasync/schemas"

// fillers says, for every leaf of the schema, where an event has its values. A
// test holds it to schemas.Fields.
var fillers = map[string]filler{
	"schema":          req(func(e *schemas.Event) *string { return &e.Schema }, (*chunk).text),
	"event_id":        req(func(e *schemas.Event) *string { return &e.EventID }, (*chunk).text),
	"tenant_id":       req(func(e *schemas.Event) *string { return &e.TenantID }, (*chunk).text),
	"channel_id":      optStr(func(e *schemas.Event) *string { return &e.ChannelID }),
	"source":          req(func(e *schemas.Event) *string { return &e.Source }, (*chunk).text),
	"source_instance": optStr(func(e *schemas.Event) *string { return &e.SourceInstance }),
	"vendor_version":  optStr(func(e *schemas.Event) *string { return &e.VendorVersion }),
	"integration":     optStr(func(e *schemas.Event) *string { return &e.Integration }),
	"kind":            req(func(e *schemas.Event) *string { return &e.Kind }, (*chunk).text),
	"event_time":      req(func(e *schemas.Event) *int64 { return &e.EventTime }, (*chunk).int64),
	"time_precision":  req(func(e *schemas.Event) *string { return &e.TimePrecision }, (*chunk).text),
	"ingest_time":     req(func(e *schemas.Event) *int64 { return &e.IngestTime }, (*chunk).int64),
	"request_id":      optStr(func(e *schemas.Event) *string { return &e.RequestID }),
	"correlation_id":  optStr(func(e *schemas.Event) *string { return &e.CorrelationID }),
	"action":          req(func(e *schemas.Event) *string { return &e.Action }, (*chunk).text),
	"disposition":     req(func(e *schemas.Event) *string { return &e.Disposition }, (*chunk).text),
	"enforced":        req(func(e *schemas.Event) *bool { return &e.Enforced }, (*chunk).boolean),
	"mode":            optStr(func(e *schemas.Event) *string { return &e.Mode }),
	"action_raw":      optStr(func(e *schemas.Event) *string { return &e.ActionRaw }),
	"codes_raw":       optStr(func(e *schemas.Event) *string { return &e.CodesRaw }),
	"rule_id":         optStr(func(e *schemas.Event) *string { return &e.RuleID }),
	"rule_name":       optStr(func(e *schemas.Event) *string { return &e.RuleName }),
	"rule_set":        optStr(func(e *schemas.Event) *string { return &e.RuleSet }),
	"rule_category":   optStr(func(e *schemas.Event) *string { return &e.RuleCategory }),
	"match_on":        optStr(func(e *schemas.Event) *string { return &e.MatchOn }),
	"score":           opt(func(e *schemas.Event) *schemas.Float { return &e.Score }, float),
	"score_raw":       opt(func(e *schemas.Event) *schemas.Float { return &e.ScoreRaw }, float),
	"score_kind":      optStr(func(e *schemas.Event) *string { return &e.ScoreKind }),
	"score_threshold": opt(func(e *schemas.Event) *schemas.Float { return &e.ScoreThreshold }, float),
	"severity":        req(func(e *schemas.Event) *int8 { return &e.Severity }, integer8),
	"stage":           optStr(func(e *schemas.Event) *string { return &e.Stage }),
	"tactics":         list(func(e *schemas.Event) *[]string { return &e.Tactics }),
	"techniques":      list(func(e *schemas.Event) *[]string { return &e.Techniques }),
	"reason":          optStr(func(e *schemas.Event) *string { return &e.Reason }),
	"client_ip":       optStr(func(e *schemas.Event) *string { return &e.ClientIP }),
	"client_port":     opt(func(e *schemas.Event) *schemas.Int { return &e.ClientPort }, integer32),
	"forwarded_for":   optStr(func(e *schemas.Event) *string { return &e.ForwardedFor }),
	"client_asn":      opt(func(e *schemas.Event) *schemas.Int { return &e.ClientASN }, integer64),
	"client_country":  optStr(func(e *schemas.Event) *string { return &e.ClientCountry }),
	"user_agent":      optStr(func(e *schemas.Event) *string { return &e.UserAgent }),
	"tls_ja3":         optStr(func(e *schemas.Event) *string { return &e.TLSJA3 }),
	"tls_ja4":         optStr(func(e *schemas.Event) *string { return &e.TLSJA4 }),
	"client_fp":       optStr(func(e *schemas.Event) *string { return &e.ClientFP }),
	"session_id":      optStr(func(e *schemas.Event) *string { return &e.SessionID }),
	"session_state":   optStr(func(e *schemas.Event) *string { return &e.SessionState }),
	"http_method":     optStr(func(e *schemas.Event) *string { return &e.HTTPMethod }),
	"http_host":       optStr(func(e *schemas.Event) *string { return &e.HTTPHost }),
	"http_path":       optStr(func(e *schemas.Event) *string { return &e.HTTPPath }),
	"http_query":      optStr(func(e *schemas.Event) *string { return &e.HTTPQuery }),
	"http_protocol":   optStr(func(e *schemas.Event) *string { return &e.HTTPProtocol }),
	"http_referrer":   optStr(func(e *schemas.Event) *string { return &e.HTTPReferrer }),
	"http_status":     opt(func(e *schemas.Event) *schemas.Int { return &e.HTTPStatus }, integer32),
	"bytes_out":       opt(func(e *schemas.Event) *schemas.Int { return &e.BytesOut }, integer64),
	"bytes_in":        opt(func(e *schemas.Event) *schemas.Int { return &e.BytesIn }, integer64),
	"duration_ms":     opt(func(e *schemas.Event) *schemas.Float { return &e.DurationMs }, float),
	"extra":           optStr(func(e *schemas.Event) *string { return &e.Extra }),

	"matches.rule_id":  match(func(m *schemas.Match) *string { return &m.RuleID }, str),
	"matches.name":     match(func(m *schemas.Match) *string { return &m.Name }, str),
	"matches.category": match(func(m *schemas.Match) *string { return &m.Category }, str),
	"matches.stage":    match(func(m *schemas.Match) *string { return &m.Stage }, str),
	"matches.score":    match(func(m *schemas.Match) *schemas.Float { return &m.Score }, float),
	"matches.blocking": match(func(m *schemas.Match) *schemas.Bool { return &m.Blocking }, boolean),
	"matches.location": match(func(m *schemas.Match) *string { return &m.Location }, str),
	"matches.data":     match(func(m *schemas.Match) *string { return &m.Data }, str),

	"net.dst_ip":          member(hasNet, func(e *schemas.Event) *string { return &e.Net.DstIP }, str),
	"net.dst_port":        member(hasNet, func(e *schemas.Event) *schemas.Int { return &e.Net.DstPort }, integer32),
	"net.transport":       member(hasNet, func(e *schemas.Event) *string { return &e.Net.Transport }, str),
	"net.direction":       member(hasNet, func(e *schemas.Event) *string { return &e.Net.Direction }, str),
	"net.payload_b64":     member(hasNet, func(e *schemas.Event) *string { return &e.Net.PayloadB64 }, str),
	"host.name":           member(hasHost, func(e *schemas.Event) *string { return &e.Host.Name }, str),
	"host.container":      member(hasHost, func(e *schemas.Event) *string { return &e.Host.Container }, str),
	"host.pod":            member(hasHost, func(e *schemas.Event) *string { return &e.Host.Pod }, str),
	"host.cluster_id":     member(hasHost, func(e *schemas.Event) *string { return &e.Host.ClusterID }, str),
	"host.cluster_name":   member(hasHost, func(e *schemas.Event) *string { return &e.Host.ClusterName }, str),
	"host.node_id":        member(hasHost, func(e *schemas.Event) *string { return &e.Host.NodeID }, str),
	"decision.latency_ms": member(hasDecision, func(e *schemas.Event) *schemas.Float { return &e.Decision.LatencyMs }, float),
	"decision.status":     member(hasDecision, func(e *schemas.Event) *schemas.Int { return &e.Decision.Status }, integer32),
	"audit.actor":         member(hasAudit, func(e *schemas.Event) *string { return &e.Audit.Actor }, str),
	"audit.object_type":   member(hasAudit, func(e *schemas.Event) *string { return &e.Audit.ObjectType }, str),
	"audit.object_id":     member(hasAudit, func(e *schemas.Event) *string { return &e.Audit.ObjectID }, str),
	"audit.change":        member(hasAudit, func(e *schemas.Event) *string { return &e.Audit.Change }, str),
	"agg.count":           member(hasAgg, func(e *schemas.Event) *schemas.Int { return &e.Agg.Count }, integer64),
	"agg.first_seen":      member(hasAgg, func(e *schemas.Event) *schemas.Int { return &e.Agg.FirstSeen }, integer64),
	"agg.last_seen":       member(hasAgg, func(e *schemas.Event) *schemas.Int { return &e.Agg.LastSeen }, integer64),
	"meta.labels":         memberList(hasMeta, func(e *schemas.Event) *[]string { return &e.Meta.Labels }),
	"meta.redactions":     memberList(hasMeta, func(e *schemas.Event) *[]string { return &e.Meta.Redactions }),
	"meta.truncated":      memberList(hasMeta, func(e *schemas.Event) *[]string { return &e.Meta.Truncated }),
	"meta.unmapped":       member(hasMeta, func(e *schemas.Event) *string { return &e.Meta.Unmapped }, str),
	"meta.raw_sha256":     member(hasMeta, func(e *schemas.Event) *string { return &e.Meta.RawSHA256 }, str),
}

func hasNet(e *schemas.Event) *bool      { return &e.Net.OK }
func hasHost(e *schemas.Event) *bool     { return &e.Host.OK }
func hasDecision(e *schemas.Event) *bool { return &e.Decision.OK }
func hasAudit(e *schemas.Event) *bool    { return &e.Audit.OK }
func hasAgg(e *schemas.Event) *bool      { return &e.Agg.OK }
func hasMeta(e *schemas.Event) *bool     { return &e.Meta.OK }

// dictionaries are the leaves of which a file has few different values, so that
// numbers of a dictionary stand for them. A column that turns out to have many
// goes on as plain text (dictionaryMax).
var dictionaries = set(
	"schema", "tenant_id", "channel_id", "source", "source_instance", "vendor_version", "integration",
	"kind", "time_precision", "action", "disposition", "mode", "action_raw", "codes_raw",
	"rule_id", "rule_name", "rule_set", "rule_category", "match_on", "score_kind", "stage", "reason",
	"tactics", "techniques", "client_ip", "forwarded_for", "client_country", "user_agent", "tls_ja3", "tls_ja4",
	"client_fp", "session_id", "session_state",
	"http_method", "http_host", "http_path", "http_query", "http_protocol", "http_referrer",
	"matches.rule_id", "matches.name", "matches.category", "matches.stage", "matches.location",
	"net.dst_ip", "net.transport", "net.direction",
	"host.name", "host.container", "host.pod", "host.cluster_id", "host.cluster_name", "host.node_id",
	"audit.actor", "audit.object_type",
	"meta.labels", "meta.redactions", "meta.truncated",
)

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}
