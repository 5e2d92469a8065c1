package adapt

import (
	"encoding/base64"
	"strings"

	"datasync/schemas"
)

// deepfence reads the alerts of network traffic analysis, and the violations of
// its policies. An alert that the console has masked is suppressed.
func deepfence(in *Input, out *Output) {
	out.values(in, func(index int, value []byte) {
		r := &out.record
		r.reset()
		if !r.object(value, deepfenceFields) {
			out.bad(in, index, value, "a Deepfence alert or violation is a JSON object")
			return
		}
		d := &r.deepfence
		r.deepfenceTime()
		switch {
		case d.masked, alone(value, "text"): // {"text":"Test message …"}: how the console tries the connection
			out.Suppressed++
		case r.twice != "":
			out.bad(in, index, value, r.twice+" is given twice")
		case r.precision == "":
			out.bad(in, index, value, "has no usable time: none of created_at, executed_at, timestamp, updated_at can be read")
		default:
			d.finish(r)
			out.made(in, index, value, r)
		}
	})
}

// side is one end of a connection.
type side struct {
	ip   string
	port schemas.Int
}

// deepfenceParts are the members that do not say anything alone.
type deepfenceParts struct {
	created, updated, stamp, at, executed []byte
	source, dest, local, remote           side
	blockIP                               string
	direction, packet                     string
	severity, protocol, action            string
	b64, payload, headers, containerID    string
	masked, violation                     bool
}

var deepfenceFields = fields(map[string]taker{
	"created_at":  func(r *record, v []byte) bool { r.deepfence.created = v; return true },
	"updated_at":  func(r *record, v []byte) bool { r.deepfence.updated = v; return true },
	"timestamp":   func(r *record, v []byte) bool { r.deepfence.stamp = v; return true },
	"@timestamp":  func(r *record, v []byte) bool { r.deepfence.at = v; return true },
	"executed_at": func(r *record, v []byte) bool { r.deepfence.executed, r.deepfence.violation = v, true; return true },
	"count":       asCount(func(r *record) *schemas.Int { return &r.e.Agg.Count }),
	"masked":      func(r *record, v []byte) (ok bool) { r.deepfence.masked, ok = yesNo(v); return ok },

	"source_ip":        asAddress(func(r *record) *string { return &r.deepfence.source.ip }),
	"source_port":      asPort(func(r *record) *schemas.Int { return &r.deepfence.source.port }),
	"destination_ip":   asAddress(func(r *record) *string { return &r.deepfence.dest.ip }),
	"destination_port": asPort(func(r *record) *schemas.Int { return &r.deepfence.dest.port }),
	"local_ip":         asAddress(func(r *record) *string { return &r.deepfence.local.ip }),
	"local_port":       asPort(func(r *record) *schemas.Int { return &r.deepfence.local.port }),
	"remote_ip":        asAddress(func(r *record) *string { return &r.deepfence.remote.ip }),
	"remote_port":      asPort(func(r *record) *schemas.Int { return &r.deepfence.remote.port }),
	"block_ip":         asAddress(func(r *record) *string { r.deepfence.violation = true; return &r.deepfence.blockIP }),
	"direction":        asLower(func(r *record) *string { return &r.deepfence.direction }),
	"packet_direction": asLower(func(r *record) *string { r.deepfence.violation = true; return &r.deepfence.packet }),
	"protocol":         asLower(func(r *record) *string { return &r.deepfence.protocol }),

	"rule_id":    asText(func(r *record) *string { return &r.e.RuleID }),
	"summary":    asText(func(r *record) *string { return &r.e.RuleName }),
	"category":   asText(func(r *record) *string { return &r.e.RuleCategory }),
	"severity":   asLower(func(r *record) *string { return &r.deepfence.severity }),
	"tactics":    asTexts(func(r *record) *[]string { return &r.e.Tactics }),
	"techniques": asTexts(func(r *record) *[]string { return &r.e.Techniques }),
	"tags":       deepfenceTags,
	"alert_id":   asText(func(r *record) *string { return &r.e.CorrelationID }),
	"action":     asText(func(r *record) *string { return &r.deepfence.action }),
	// What only violations have; it stays in meta.unmapped.
	"applied_by": violates, "config_id": violates, "node_policy_type": violates,

	"url":             asTarget,
	"headers":         asText(func(r *record) *string { return &r.deepfence.headers }),
	"payload":         asText(func(r *record) *string { return &r.deepfence.payload }),
	"base_64_payload": asText(func(r *record) *string { return &r.deepfence.b64 }),

	"host_name":               asText(func(r *record) *string { return &r.e.Host.Name }),
	"node_id":                 asText(func(r *record) *string { return &r.e.Host.NodeID }),
	"container_name":          asText(func(r *record) *string { return &r.e.Host.Container }),
	"container_id":            asText(func(r *record) *string { return &r.deepfence.containerID }),
	"pod_name":                asText(func(r *record) *string { return &r.e.Host.Pod }),
	"kubernetes_cluster_id":   asText(func(r *record) *string { return &r.e.Host.ClusterID }),
	"kubernetes_cluster_name": asText(func(r *record) *string { return &r.e.Host.ClusterName }),
})

func violates(r *record, _ []byte) bool {
	r.deepfence.violation = true
	return false
}

func deepfenceTags(r *record, value []byte) bool {
	list, ok := texts(value)
	for _, s := range list {
		for tag := range strings.SplitSeq(s, ",") {
			if tag = strings.TrimSpace(tag); tag != "" && len(r.labels) < maxMatches {
				r.labels = append(r.labels, tag)
			}
		}
	}
	return ok
}

// deepfenceTime takes the first of the times that can be read.
func (r *record) deepfenceTime() {
	d := &r.deepfence
	for _, v := range [][]byte{d.created, d.executed, d.stamp, d.at, d.updated} {
		if v != nil && r.precision == "" {
			r.when(v)
		}
	}
}

var deepfenceSeverity = map[string]int8{"critical": 5, "high": 4, "medium": 3, "low": 2, "info": 1}

// finish derives what no member says by itself.
func (d *deepfenceParts) finish(r *record) {
	e := &r.e
	e.Source, e.Kind, e.ActionRaw = "deepfence", "alert", d.action
	r.decided("log", "detected", false)
	if d.violation {
		r.decided("block", "blocked", true)
	}
	if e.Severity = deepfenceSeverity[d.severity]; e.Severity == 0 && d.severity != "" {
		r.rest.addText("severity", d.severity)
	}
	d.ends(r)
	d.content(r)
	if e.Host.Container == "" {
		e.Host.Container = d.containerID
	} else if d.containerID != "" {
		r.rest.addText("container_id", d.containerID)
	}
	h := &e.Host
	h.OK = h.Name+h.NodeID+h.Container+h.Pod+h.ClusterID+h.ClusterName != ""
	e.SourceInstance = h.NodeID
	d.seen(r)
}

// seen says of an alert that stands for several when they were.
func (d *deepfenceParts) seen(r *record) {
	a := &r.e.Agg
	if a.OK = a.Count.OK; !a.OK {
		return
	}
	a.FirstSeen = schemas.Int{V: r.at, OK: true}
	if ms, precision := moment(d.updated); precision != "" {
		a.LastSeen = schemas.Int{V: ms, OK: true}
	}
}

// ends says who the client is: the side that is not ours, in either direction.
func (d *deepfenceParts) ends(r *record) {
	e := &r.e
	if d.direction == "" {
		d.direction = d.packet
	} else if d.packet != "" {
		r.rest.addText("packet_direction", d.packet)
	}
	out := d.direction == "outbound" || d.direction == "egress"
	switch {
	case out:
		e.Net.Direction = "outbound"
	case d.direction == "inbound" || d.direction == "ingress":
		e.Net.Direction = "inbound"
	case d.direction != "":
		r.rest.addText("direction", d.direction)
	}
	from, to := d.source, d.dest
	if from.ip == "" && to.ip == "" {
		if from, to = d.remote, d.local; out {
			from, to = d.local, d.remote
		}
	}
	client := from
	if out {
		client = to
		if from.ip != "" { // our own side, which has no other place
			r.rest.addText("source_ip", from.ip)
			if from.port.OK {
				r.rest.addInt("source_port", from.port.V)
			}
		}
	}
	if client.ip == "" {
		client.ip = d.blockIP
	} else if d.blockIP != "" && d.blockIP != client.ip {
		r.rest.addText("block_ip", d.blockIP)
	}
	e.ClientIP, e.ClientPort = client.ip, client.port
	e.Net.DstIP, e.Net.DstPort = to.ip, to.port
	switch d.protocol {
	case "tcp", "udp", "icmp", "sctp":
		e.Net.Transport = d.protocol
	case "":
	default:
		r.rest.addText("protocol", d.protocol)
	}
	e.Net.OK = e.Net.DstIP != "" || e.Net.DstPort.OK || e.Net.Direction != "" || e.Net.Transport != ""
}

// content takes the payload, and out of it what was asked for.
func (d *deepfenceParts) content(r *record) {
	e := &r.e
	if d.b64 == "" && d.payload != "" {
		d.b64, d.payload = base64.StdEncoding.EncodeToString([]byte(d.payload)), ""
	}
	plain, ok := r.payload(d.b64)
	if d.b64 != "" && !ok {
		b64, _ := withoutSecrets(d.b64) // it is none
		r.rest.addText("base_64_payload", b64)
	}
	if p := strings.TrimSpace(d.payload); p != "" && !strings.Contains(string(plain), p) {
		p, _ = withoutSecrets(p)
		r.rest.addText("payload", p)
	}
	line, _, _ := strings.Cut(string(plain), "\n")
	if method, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok && word(method, 16) {
		if i := strings.LastIndexByte(rest, ' '); i > 0 && strings.HasPrefix(rest[i+1:], "HTTP/") {
			e.HTTPMethod, e.HTTPProtocol = method, rest[i+1:]
			if e.HTTPPath == "" {
				asTargetText(r, rest[:i])
			}
		}
	}
	if d.headers != "" {
		if h := header(d.headers, "host"); h != "" && e.HTTPHost == "" {
			e.HTTPHost = host(h)
		}
		e.UserAgent, _ = limit(header(d.headers, "user-agent"), maxUserAgent)
		kept, _ := withoutSecrets(d.headers)
		if kept = strings.TrimSpace(kept); kept != "" {
			r.rest.addText("headers", kept)
		}
	}
}
