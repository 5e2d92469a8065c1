package adapt

import (
	"strings"

	"datasync/schemas"
)

// suricata reads EVE records: alerts, and the packets dropped in IPS mode. All
// other records (flows, DNS, statistics) tell of no detection and are suppressed.
func suricata(in *Input, out *Output) {
	out.values(in, func(index int, value []byte) {
		r := &out.record
		r.reset()
		if !r.object(value, suricataFields) {
			out.bad(in, index, value, "an EVE record is a JSON object")
			return
		}
		s := &r.suricata
		switch {
		case s.kind != "" && s.kind != "alert" && s.kind != "drop":
			out.Suppressed++
		case s.kind == "" && !s.alert:
			out.bad(in, index, value, "event_type is missing: an EVE record says what it is")
		case r.twice != "":
			out.bad(in, index, value, r.twice+" is given twice")
		case r.precision == "":
			out.bad(in, index, value, "has no usable time: timestamp is missing or cannot be read")
		default:
			s.finish(r)
			out.made(in, index, value, r)
		}
	})
}

// suricataParts are the members that do not say anything alone.
type suricataParts struct {
	kind, action, direction string
	src, dst                string
	srcPort, dstPort        schemas.Int
	alert                   bool
	printable               string // the payload as text
}

var suricataFields = fields(map[string]taker{
	"timestamp":         (*record).when,
	"event_type":        asLower(func(r *record) *string { return &r.suricata.kind }),
	"flow_id":           asText(func(r *record) *string { return &r.e.CorrelationID }),
	"host":              asText(func(r *record) *string { return &r.e.SourceInstance }),
	"src_ip":            asAddress(func(r *record) *string { return &r.suricata.src }),
	"dest_ip":           asAddress(func(r *record) *string { return &r.suricata.dst }),
	"src_port":          asPort(func(r *record) *schemas.Int { return &r.suricata.srcPort }),
	"dest_port":         asPort(func(r *record) *schemas.Int { return &r.suricata.dstPort }),
	"proto":             asLower(func(r *record) *string { return &r.e.Net.Transport }),
	"direction":         asLower(func(r *record) *string { return &r.suricata.direction }),
	"xff":               asText(func(r *record) *string { return &r.e.ForwardedFor }),
	"payload":           func(r *record, v []byte) bool { _, ok := r.payload(text(v)); return ok },
	"payload_printable": asText(func(r *record) *string { return &r.suricata.printable }),
	"alert": func(r *record, v []byte) bool {
		r.suricata.alert = true
		return inside("alert", suricataAlert)(r, v)
	},
	"http": inside("http", suricataHTTP),
	"drop": inside("drop", suricataDrop),
	"tls":  inside("tls", suricataTLS),

	// The packet's bytes once more, as base64 in which nobody finds a secret.
	"packet": leftOut("packet"), "packet_info": nil,
})

var suricataAlert = fields(map[string]taker{
	"action":       asLower(func(r *record) *string { return &r.suricata.action }),
	"gid":          asText(func(r *record) *string { return &r.e.RuleSet }),
	"signature_id": asText(func(r *record) *string { return &r.e.RuleID }),
	"signature":    asText(func(r *record) *string { return &r.e.RuleName }),
	"category":     asText(func(r *record) *string { return &r.e.RuleCategory }),
	"severity":     asNumber(func(r *record) *schemas.Float { return &r.e.ScoreRaw }),
	"metadata":     inside("metadata", suricataMetadata),
})

// suricataMetadata is what rules say of themselves: lists of words.
var suricataMetadata = fields(map[string]taker{
	"mitre_technique_id": asTexts(func(r *record) *[]string { return &r.e.Techniques }),
	"mitre_tactic_name": func(r *record, v []byte) bool {
		list, ok := texts(v)
		for i := range list {
			list[i] = strings.ReplaceAll(list[i], "_", " ") // Initial_Access, as rules have to write it
		}
		r.e.Tactics = list
		return ok
	},
})

var suricataHTTP = fields(map[string]taker{
	"hostname":        asHost,
	"url":             asTarget,
	"http_user_agent": asUserAgent,
	"http_method":     asText(func(r *record) *string { return &r.e.HTTPMethod }),
	"http_refer":      asText(func(r *record) *string { return &r.e.HTTPReferrer }),
	"protocol":        asText(func(r *record) *string { return &r.e.HTTPProtocol }),
	"status":          asStatus,
	"length":          asCount(func(r *record) *schemas.Int { return &r.e.BytesOut }),
	"xff":             asText(func(r *record) *string { return &r.e.ForwardedFor }),

	"http_request_body": leftOut("http_request_body"), "http_response_body": leftOut("http_response_body"),
})

var suricataDrop = fields(map[string]taker{
	"reason": asText(func(r *record) *string { return &r.e.Reason }),
})

var suricataTLS = fields(map[string]taker{
	"ja3": inside("ja3", fields(map[string]taker{
		"hash": asText(func(r *record) *string { return &r.e.TLSJA3 }),
	})),
	"ja4": asText(func(r *record) *string { return &r.e.TLSJA4 }),
})

// leftOut takes a member that is not kept, and says so.
func leftOut(key string) taker {
	return func(r *record, _ []byte) bool {
		r.note(key)
		return true
	}
}

// finish derives what no member says by itself.
func (s *suricataParts) finish(r *record) {
	e := &r.e
	e.Source, e.Kind = "suricata", "alert"
	e.ActionRaw = s.action
	e.Action, e.Disposition = "log", "detected"
	if s.action == "blocked" || s.kind == "drop" {
		e.Action, e.Disposition, e.Enforced, e.Mode = "block", "blocked", true, "ips"
	}
	if s.kind == "drop" && s.action == "" {
		e.ActionRaw = "drop"
	}
	// 1 is the highest; a rule may go on counting behind 3.
	if e.ScoreRaw.OK && e.ScoreRaw.V >= 1 {
		e.Severity = int8(max(1, 5-min(e.ScoreRaw.V, 4)))
		e.ScoreKind = "severity"
	}
	// What is found in an answer has the server as its source.
	if s.direction == "to_client" {
		s.src, s.dst, s.srcPort, s.dstPort = s.dst, s.src, s.dstPort, s.srcPort
	}
	if s.direction != "" {
		r.rest.addText("direction", s.direction)
	}
	e.ClientIP, e.ClientPort = s.src, s.srcPort
	e.Net.DstIP, e.Net.DstPort = s.dst, s.dstPort
	if s.printable != "" && e.Net.PayloadB64 == "" {
		kept, _ := withoutSecrets(s.printable)
		r.rest.addText("payload_printable", kept)
	}
	e.Net.OK = e.Net.OK || s.dst != "" || s.dstPort.OK || e.Net.Transport != ""
}
