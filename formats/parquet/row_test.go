package parquet_test

import (
	"strings"

	"datasync/schemas"
)

// The rows as a reader of the file sees them, written down apart from the
// encoder's own table: a pointer or a nil slice is null.

type matchRow struct {
	RuleID   *string  `parquet:"rule_id,optional"`
	Name     *string  `parquet:"name,optional"`
	Category *string  `parquet:"category,optional"`
	Stage    *string  `parquet:"stage,optional"`
	Score    *float64 `parquet:"score,optional"`
	Blocking *bool    `parquet:"blocking,optional"`
	Location *string  `parquet:"location,optional"`
	Data     *string  `parquet:"data,optional"`
}

type netRow struct {
	DstIP      *string `parquet:"dst_ip,optional"`
	DstPort    *int32  `parquet:"dst_port,optional"`
	Transport  *string `parquet:"transport,optional"`
	Direction  *string `parquet:"direction,optional"`
	PayloadB64 *string `parquet:"payload_b64,optional"`
}

type hostRow struct {
	Name        *string `parquet:"name,optional"`
	Container   *string `parquet:"container,optional"`
	Pod         *string `parquet:"pod,optional"`
	ClusterID   *string `parquet:"cluster_id,optional"`
	ClusterName *string `parquet:"cluster_name,optional"`
	NodeID      *string `parquet:"node_id,optional"`
}

type decisionRow struct {
	LatencyMs *float64 `parquet:"latency_ms,optional"`
	Status    *int32   `parquet:"status,optional"`
}

type auditRow struct {
	Actor      *string `parquet:"actor,optional"`
	ObjectType *string `parquet:"object_type,optional"`
	ObjectID   *string `parquet:"object_id,optional"`
	Change     *string `parquet:"change,optional"`
}

type aggRow struct {
	Count     *int64 `parquet:"count,optional"`
	FirstSeen *int64 `parquet:"first_seen,optional"`
	LastSeen  *int64 `parquet:"last_seen,optional"`
}

type metaRow struct {
	Labels     []string `parquet:"labels,optional,list"`
	Redactions []string `parquet:"redactions,optional,list"`
	Truncated  []string `parquet:"truncated,optional,list"`
	Unmapped   *string  `parquet:"unmapped,optional"`
	RawSHA256  *string  `parquet:"raw_sha256,optional"`
}

type row struct {
	Schema         string       `parquet:"schema"`
	EventID        string       `parquet:"event_id"`
	TenantID       string       `parquet:"tenant_id"`
	Source         string       `parquet:"source"`
	Kind           string       `parquet:"kind"`
	TimePrecision  string       `parquet:"time_precision"`
	Action         string       `parquet:"action"`
	Disposition    string       `parquet:"disposition"`
	ChannelID      *string      `parquet:"channel_id"`
	SourceInstance *string      `parquet:"source_instance"`
	VendorVersion  *string      `parquet:"vendor_version"`
	Integration    *string      `parquet:"integration"`
	RequestID      *string      `parquet:"request_id"`
	CorrelationID  *string      `parquet:"correlation_id"`
	Mode           *string      `parquet:"mode"`
	ActionRaw      *string      `parquet:"action_raw"`
	CodesRaw       *string      `parquet:"codes_raw"`
	RuleID         *string      `parquet:"rule_id"`
	RuleName       *string      `parquet:"rule_name"`
	RuleSet        *string      `parquet:"rule_set"`
	RuleCategory   *string      `parquet:"rule_category"`
	MatchOn        *string      `parquet:"match_on"`
	ScoreKind      *string      `parquet:"score_kind"`
	Stage          *string      `parquet:"stage"`
	Reason         *string      `parquet:"reason"`
	ClientIP       *string      `parquet:"client_ip"`
	ForwardedFor   *string      `parquet:"forwarded_for"`
	ClientCountry  *string      `parquet:"client_country"`
	UserAgent      *string      `parquet:"user_agent"`
	TLSJA3         *string      `parquet:"tls_ja3"`
	TLSJA4         *string      `parquet:"tls_ja4"`
	ClientFP       *string      `parquet:"client_fp"`
	SessionID      *string      `parquet:"session_id"`
	SessionState   *string      `parquet:"session_state"`
	HTTPMethod     *string      `parquet:"http_method"`
	HTTPHost       *string      `parquet:"http_host"`
	HTTPPath       *string      `parquet:"http_path"`
	HTTPQuery      *string      `parquet:"http_query"`
	HTTPProtocol   *string      `parquet:"http_protocol"`
	HTTPReferrer   *string      `parquet:"http_referrer"`
	Extra          *string      `parquet:"extra"`
	EventTime      int64        `parquet:"event_time"`
	IngestTime     int64        `parquet:"ingest_time"`
	Enforced       bool         `parquet:"enforced"`
	Severity       int8         `parquet:"severity"`
	ClientPort     *int32       `parquet:"client_port"`
	HTTPStatus     *int32       `parquet:"http_status"`
	ClientASN      *int64       `parquet:"client_asn"`
	BytesOut       *int64       `parquet:"bytes_out"`
	BytesIn        *int64       `parquet:"bytes_in"`
	Score          *float64     `parquet:"score"`
	ScoreRaw       *float64     `parquet:"score_raw"`
	ScoreThreshold *float64     `parquet:"score_threshold"`
	DurationMs     *float64     `parquet:"duration_ms"`
	Tactics        []string     `parquet:"tactics,optional,list"`
	Techniques     []string     `parquet:"techniques,optional,list"`
	Matches        []matchRow   `parquet:"matches,optional,list"`
	Net            *netRow      `parquet:"net"`
	Host           *hostRow     `parquet:"host"`
	Decision       *decisionRow `parquet:"decision"`
	Audit          *auditRow    `parquet:"audit"`
	Agg            *aggRow      `parquet:"agg"`
	Meta           *metaRow     `parquet:"meta"`
}

// rowOf is what a reader must find of an event.
func rowOf(e *schemas.Event) row {
	r := row{
		Schema:         e.Schema,
		EventID:        e.EventID,
		TenantID:       e.TenantID,
		Source:         e.Source,
		Kind:           e.Kind,
		TimePrecision:  e.TimePrecision,
		Action:         e.Action,
		Disposition:    e.Disposition,
		ChannelID:      textOf(e.ChannelID),
		SourceInstance: textOf(e.SourceInstance),
		VendorVersion:  textOf(e.VendorVersion),
		Integration:    textOf(e.Integration),
		RequestID:      textOf(e.RequestID),
		CorrelationID:  textOf(e.CorrelationID),
		Mode:           textOf(e.Mode),
		ActionRaw:      textOf(e.ActionRaw),
		CodesRaw:       textOf(e.CodesRaw),
		RuleID:         textOf(e.RuleID),
		RuleName:       textOf(e.RuleName),
		RuleSet:        textOf(e.RuleSet),
		RuleCategory:   textOf(e.RuleCategory),
		MatchOn:        textOf(e.MatchOn),
		ScoreKind:      textOf(e.ScoreKind),
		Stage:          textOf(e.Stage),
		Reason:         textOf(e.Reason),
		ClientIP:       textOf(e.ClientIP),
		ForwardedFor:   textOf(e.ForwardedFor),
		ClientCountry:  textOf(e.ClientCountry),
		UserAgent:      textOf(e.UserAgent),
		TLSJA3:         textOf(e.TLSJA3),
		TLSJA4:         textOf(e.TLSJA4),
		ClientFP:       textOf(e.ClientFP),
		SessionID:      textOf(e.SessionID),
		SessionState:   textOf(e.SessionState),
		HTTPMethod:     textOf(e.HTTPMethod),
		HTTPHost:       textOf(e.HTTPHost),
		HTTPPath:       textOf(e.HTTPPath),
		HTTPQuery:      textOf(e.HTTPQuery),
		HTTPProtocol:   textOf(e.HTTPProtocol),
		HTTPReferrer:   textOf(e.HTTPReferrer),
		Extra:          textOf(e.Extra),
		EventTime:      e.EventTime,
		IngestTime:     e.IngestTime,
		Enforced:       e.Enforced,
		Severity:       e.Severity,
		ClientPort:     narrow(e.ClientPort),
		HTTPStatus:     narrow(e.HTTPStatus),
		ClientASN:      wide(e.ClientASN),
		BytesOut:       wide(e.BytesOut),
		BytesIn:        wide(e.BytesIn),
		Score:          real(e.Score),
		ScoreRaw:       real(e.ScoreRaw),
		ScoreThreshold: real(e.ScoreThreshold),
		DurationMs:     real(e.DurationMs),
		Tactics:        items(e.Tactics),
		Techniques:     items(e.Techniques),
	}
	for _, m := range e.Matches {
		r.Matches = append(r.Matches, matchRow{textOf(m.RuleID), textOf(m.Name), textOf(m.Category), textOf(m.Stage), real(m.Score), truth(m.Blocking), textOf(m.Location), textOf(m.Data)})
	}
	if e.Net.OK {
		r.Net = &netRow{textOf(e.Net.DstIP), narrow(e.Net.DstPort), textOf(e.Net.Transport), textOf(e.Net.Direction), textOf(e.Net.PayloadB64)}
	}
	if e.Host.OK {
		r.Host = &hostRow{textOf(e.Host.Name), textOf(e.Host.Container), textOf(e.Host.Pod), textOf(e.Host.ClusterID), textOf(e.Host.ClusterName), textOf(e.Host.NodeID)}
	}
	if e.Decision.OK {
		r.Decision = &decisionRow{real(e.Decision.LatencyMs), narrow(e.Decision.Status)}
	}
	if e.Audit.OK {
		r.Audit = &auditRow{textOf(e.Audit.Actor), textOf(e.Audit.ObjectType), textOf(e.Audit.ObjectID), textOf(e.Audit.Change)}
	}
	if e.Agg.OK {
		r.Agg = &aggRow{wide(e.Agg.Count), wide(e.Agg.FirstSeen), wide(e.Agg.LastSeen)}
	}
	if e.Meta.OK {
		r.Meta = &metaRow{items(e.Meta.Labels), items(e.Meta.Redactions), items(e.Meta.Truncated), textOf(e.Meta.Unmapped), textOf(e.Meta.RawSHA256)}
	}
	return r
}

func textOf(s string) *string {
	if s == "" {
		return nil
	}
	s = strings.Clone(s)
	return &s
}

func narrow(n schemas.Int) *int32 {
	if !n.OK {
		return nil
	}
	v := int32(n.V)
	return &v
}

func wide(n schemas.Int) *int64 {
	if !n.OK {
		return nil
	}
	return &n.V
}

func real(n schemas.Float) *float64 {
	if !n.OK {
		return nil
	}
	return &n.V
}

func truth(b schemas.Bool) *bool {
	if !b.OK {
		return nil
	}
	return &b.V
}

func items(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.Clone(s))
	}
	return out
}
