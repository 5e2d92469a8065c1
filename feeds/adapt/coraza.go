package adapt

import (
	"strings"

	"datasync/schemas"
)

// coraza reads audit records in Coraza's JSON: a transaction, and a message for
// each rule that matched in it. With the OWASP Core Rule Set, matches add to an
// anomaly score, and past a threshold the request is denied.
func coraza(in *Input, out *Output) {
	out.values(in, func(index int, value []byte) {
		r := &out.record
		r.reset()
		switch c := &r.coraza; {
		case !r.object(value, corazaFields):
			out.bad(in, index, value, "an audit record is a JSON object")
		case !c.transaction:
			out.bad(in, index, value, "transaction is missing: SecAuditLogFormat JSON gives one")
		case r.twice != "":
			out.bad(in, index, value, r.twice+" is given twice")
		case r.precision == "":
			out.bad(in, index, value, "has no usable time: unix_timestamp cannot be read, and timestamp names no zone")
		default:
			c.finish(r)
			out.made(in, index, value, r)
		}
	})
}

// corazaParts are the members that do not say anything alone.
type corazaParts struct {
	transaction, interrupted  bool
	highest, version, ruleSet string
	httpVersion               string
	scores                    anomaly
	severity                  int8 // the worst of all messages, as OCSF counts
	top                       int  // the match that names the rule, from 1
	topRank                   int
	topSet, denied            string
}

var corazaFields = fields(map[string]taker{
	"transaction": func(r *record, v []byte) bool {
		r.coraza.transaction = inside("transaction", corazaTransaction)(r, v)
		return r.coraza.transaction
	},
	"messages": corazaMessages,
})

var corazaTransaction = fields(map[string]taker{
	"unix_timestamp":   corazaUnix,
	"timestamp":        corazaClock,
	"id":               asText(func(r *record) *string { return &r.e.RequestID }),
	"client_ip":        asAddress(func(r *record) *string { return &r.e.ClientIP }),
	"client_port":      asPort(func(r *record) *schemas.Int { return &r.e.ClientPort }),
	"host_ip":          asAddress(func(r *record) *string { return &r.e.Net.DstIP }),
	"host_port":        asPort(func(r *record) *schemas.Int { return &r.e.Net.DstPort }),
	"highest_severity": asLower(func(r *record) *string { return &r.coraza.highest }),
	"is_interrupted":   func(r *record, v []byte) (ok bool) { r.coraza.interrupted, ok = yesNo(v); return ok },
	"request":          inside("request", corazaRequest),
	"response":         inside("response", corazaResponse),
	"producer":         inside("producer", corazaProducer),
})

var corazaRequest = fields(map[string]taker{
	"method":       asText(func(r *record) *string { return &r.e.HTTPMethod }),
	"uri":          asTarget,
	"protocol":     asText(func(r *record) *string { return &r.e.HTTPProtocol }),
	"http_version": asText(func(r *record) *string { return &r.coraza.httpVersion }),
	"headers":      inside("headers", corazaHeaders),
	"body":         corazaBody("body"),
	"args":         unlessEmpty,
	"files":        unlessEmpty,
	"length": func(r *record, v []byte) bool {
		n := integer(v)
		r.e.BytesIn = schemas.Int{V: n.V, OK: n.V > 0}
		return n.OK && n.V >= 0
	},
})

var corazaHeaders = fields(map[string]taker{
	"host":            func(r *record, v []byte) bool { r.e.HTTPHost = host(joined(v)); return r.e.HTTPHost != "" },
	"user-agent":      func(r *record, v []byte) bool { return asUserAgent(r, schemas.AppendString(nil, joined(v))) },
	"referer":         func(r *record, v []byte) bool { r.e.HTTPReferrer = joined(v); return r.e.HTTPReferrer != "" },
	"x-forwarded-for": func(r *record, v []byte) bool { r.e.ForwardedFor = joined(v); return r.e.ForwardedFor != "" },
})

var corazaResponse = fields(map[string]taker{
	"status": asStatus,
	"headers": inside("headers", fields(map[string]taker{
		"content-length": func(r *record, v []byte) bool {
			r.e.BytesOut = integer(schemas.AppendString(nil, joined(v)))
			return r.e.BytesOut.OK
		},
	})),
	"body": corazaBody("body"),
})

var corazaProducer = fields(map[string]taker{
	"connector": asText(func(r *record) *string { return &r.e.Integration }),
	"version":   asText(func(r *record) *string { return &r.coraza.version }),
	"rulesets": func(r *record, v []byte) bool {
		list, ok := texts(v)
		r.coraza.ruleSet = strings.Join(list, " ")
		return ok
	},
	"stopwatch": nil, // how long the engine took, in a notation of its own
})

func corazaUnix(r *record, value []byte) bool {
	at, precision := moment(value)
	if precision != "" {
		r.at, r.precision = at, precision
	}
	return precision != ""
}

// corazaClock takes the transaction's time as text, where it names its zone;
// unix_timestamp is better.
func corazaClock(r *record, value []byte) bool {
	if r.precision == "" {
		s := strings.Replace(strings.Replace(text(value), "/", "-", 1), "/", "-", 1)
		r.at, r.precision = clockTime(s)
	}
	return true
}

// unlessEmpty keeps an object or an array that holds something.
func unlessEmpty(_ *record, value []byte) bool { return string(value) == "{}" || string(value) == "[]" }

// maxBody bounds what is kept of a request's or a response's body.
const maxBody = 8 << 10

func corazaBody(key string) taker {
	return func(r *record, value []byte) bool {
		s, long := limit(text(value), maxBody)
		if long {
			r.note("meta.unmapped")
		}
		if s, _ = withoutSecrets(s); s != "" {
			r.rest.addText(key, s)
		}
		return len(value) > 0 && value[0] == '"'
	}
}

// joined is a header's value, or its values as one.
func joined(value []byte) string {
	list, _ := texts(value)
	return strings.Join(list, ", ")
}

// finish derives what no member says by itself.
func (c *corazaParts) finish(r *record) {
	e := &r.e
	e.Source, e.Kind = "coraza", "alert"
	switch {
	case c.interrupted:
		r.decided("block", "blocked", true)
	case len(e.Matches) > 0:
		r.decided("log", "detected", false)
	default: // an engine that records all transactions: nothing was found in this one
		e.Kind = "request"
		r.decided("none", "allowed", false)
	}
	if e.Severity = c.severity; e.Severity == 0 {
		e.Severity = corazaSeverity(c.highest)
	}
	if c.top > 0 {
		m := &e.Matches[c.top-1]
		e.RuleID, e.RuleName, e.RuleCategory, e.RuleSet = m.RuleID, m.Name, m.Category, c.topSet
	}
	if e.RuleSet == "" && len(e.Matches) > 0 {
		e.RuleSet = c.ruleSet
	}
	e.VendorVersion = c.ruleSet
	if c.version != "" {
		if e.VendorVersion == "" {
			e.VendorVersion = c.version
		} else {
			r.rest.addText("version", c.version)
		}
	}
	if e.HTTPProtocol == "" && c.httpVersion != "" {
		e.HTTPProtocol = "HTTP/" + strings.TrimPrefix(c.httpVersion, "HTTP/")
	}
	e.Reason = c.denied
	if e.ScoreRaw, e.ScoreThreshold = c.scores.result(); e.ScoreRaw.OK {
		e.ScoreKind = "anomaly"
	}
	e.Net.OK = e.Net.DstIP != "" || e.Net.DstPort.OK
	if e.Net.OK {
		e.Net.Transport = "tcp"
	}
}

// corazaSeverity is a rule's severity (syslog's, a number or its name) as OCSF
// counts; 0 where there is none.
func corazaSeverity(s string) int8 {
	switch s {
	case "0", "1", "2", "emergency", "alert", "critical":
		return 5
	case "3", "error":
		return 4
	case "4", "warning":
		return 3
	case "5", "notice":
		return 2
	case "6", "7", "info", "debug":
		return 1
	}
	return 0
}
