package adapt

import (
	"strings"

	"datasync/schemas"
)

// threatx reads what a ThreatX Log Emitter sends: Block, Match and audit events.
func threatx(in *Input, out *Output) {
	out.values(in, func(index int, value []byte) {
		r := &out.record
		r.reset()
		name := threatxName(value)
		kind := strings.ToLower(strings.TrimSuffix(name, "Event"))
		t := threatxFields
		if name != "" && kind != "block" && kind != "match" {
			t = threatxAudit
		}
		if !r.object(value, t) {
			out.bad(in, index, value, "a ThreatX event is a JSON object")
			return
		}
		p := &r.threatx
		r.threatxTime()
		switch {
		case alone(value, "message"): // {"message":"test1"}: how the vendor's guide tries the connection
			out.Suppressed++
		case name == "" && !p.matches:
			out.bad(in, index, value, "msg_type is missing: BlockEvent, MatchEvent or an audit event's")
		case r.twice != "":
			out.bad(in, index, value, r.twice+" is given twice")
		case r.precision == "":
			out.bad(in, index, value, "has no usable time: neither created nor timestamp can be read")
		default:
			r.e.Source, r.e.ActionRaw = "threatx", name
			switch {
			case kind == "block":
				p.block(r)
			case kind == "match" || name == "":
				p.match(r)
			default:
				p.audit(r)
			}
			out.made(in, index, value, r)
		}
	})
}

// threatxName is the msg_type of an event.
func threatxName(value []byte) (name string) {
	members(value, func(key string, v []byte) {
		if key == "msg_type" {
			name = text(v)
		}
	})
	return name
}

// alone says that an object has one member, of this name.
func alone(value []byte, name string) bool {
	n, there := 0, false
	members(value, func(key string, _ []byte) {
		n++
		there = there || key == name
	})
	return n == 1 && there
}

// threatxParts are the members that do not say anything alone.
type threatxParts struct {
	message            string
	created, timestamp []byte
	matches            bool
	blocking           bool // a match that blocks, or a request after a block
	randomID, js, tls  string
	action             string // of an audit event
}

var threatxFields = fields(map[string]taker{
	"msg_type":        nil, // the kind, and action_raw
	"message":         asText(func(r *record) *string { return &r.threatx.message }),
	"timestamp":       func(r *record, v []byte) bool { r.threatx.timestamp = v; return true },
	"created":         func(r *record, v []byte) bool { r.threatx.created = v; return true },
	"request_id":      asText(func(r *record) *string { return &r.e.RequestID }),
	"ip":              asAddress(func(r *record) *string { return &r.e.ClientIP }),
	"user_agent":      asUserAgent,
	"dst_host":        asHost,
	"uri":             asTarget,
	"args":            func(r *record, v []byte) bool { r.e.HTTPQuery = strings.TrimPrefix(text(v), "?"); return text(v) != "" },
	"request_method":  asText(func(r *record) *string { return &r.e.HTTPMethod }),
	"status_code":     asStatus,
	"content_length":  asCount(func(r *record) *schemas.Int { return &r.e.BytesIn }),
	"response_length": asCount(func(r *record) *schemas.Int { return &r.e.BytesOut }),
	"upstream_response_time": func(r *record, v []byte) bool {
		ms := number(v)
		ms.OK = ms.OK && ms.V >= 0
		r.e.DurationMs = ms
		return ms.OK
	},
	"risk":            asNumber(func(r *record) *schemas.Float { return &r.e.ScoreRaw }),
	"matches":         threatxMatches,
	"postblock_event": threatxPostblock,
	"random_id":       asGiven(func(r *record) *string { return &r.threatx.randomID }),
	"js_fingerprint":  asGiven(func(r *record) *string { return &r.threatx.js }),
	"tls_fingerprint": asGiven(func(r *record) *string { return &r.threatx.tls }),
	"cookie":          nil, // promise: never kept
})

// threatxAudit is for events whose members are not published: what goes by a
// likely name finds its place, and all else is kept.
var threatxAudit = fields(map[string]taker{
	"msg_type":    func(r *record, v []byte) bool { return false },
	"timestamp":   func(r *record, v []byte) bool { r.threatx.timestamp = v; return true },
	"created":     func(r *record, v []byte) bool { r.threatx.created = v; return true },
	"request_id":  asText(func(r *record) *string { return &r.e.RequestID }),
	"ip":          asAddress(func(r *record) *string { return &r.e.ClientIP }),
	"user_agent":  asUserAgent,
	"user":        asFirst(func(r *record) *string { return &r.e.Audit.Actor }),
	"username":    asFirst(func(r *record) *string { return &r.e.Audit.Actor }),
	"actor":       asFirst(func(r *record) *string { return &r.e.Audit.Actor }),
	"category":    asFirst(func(r *record) *string { return &r.e.Audit.ObjectType }),
	"object_type": asFirst(func(r *record) *string { return &r.e.Audit.ObjectType }),
	"object_id":   asFirst(func(r *record) *string { return &r.e.Audit.ObjectID }),
	"change":      asFirst(func(r *record) *string { return &r.e.Audit.Change }),
	"description": asFirst(func(r *record) *string { return &r.e.Audit.Change }),
	"message":     asText(func(r *record) *string { return &r.threatx.message }),
	"action":      asText(func(r *record) *string { return &r.threatx.action }),
})

// asFirst takes a text where its place is free.
func asFirst(at func(*record) *string) taker {
	return func(r *record, value []byte) bool {
		s := text(value)
		if s == "" || *at(r) != "" {
			return false
		}
		*at(r) = s
		return true
	}
}

// asGiven takes a text of which null, 0 and false all say that there is none.
func asGiven(at func(*record) *string) taker {
	return func(r *record, value []byte) bool {
		switch s := text(value); {
		case s == "0", string(value) == "false":
			return true
		case s == "":
			return false
		default:
			*at(r) = s
			return true
		}
	}
}

func threatxPostblock(r *record, value []byte) bool {
	v, ok := yesNo(value)
	r.threatx.blocking = r.threatx.blocking || v
	if v { // what it was blocked for is no rule of this request
		r.rest.add("postblock_event", value)
	}
	return ok
}

// maxMatches bounds the matches that are kept of an event.
const maxMatches = 256

func threatxMatches(r *record, value []byte) bool {
	ok := true
	r.rest.within("matches", "[]", func() {
		ok = items(value, func(v []byte) {
			if len(r.e.Matches) == maxMatches {
				r.note("matches")
				return
			}
			var m schemas.Match
			if !r.threatxMatch(&m, v) {
				ok = false
				return
			}
			r.e.Matches = append(r.e.Matches, m)
			r.threatx.blocking = r.threatx.blocking || m.Blocking.V
		}) && ok
	})
	r.threatx.matches = true
	return ok
}

// threatxMatch takes a match apart; what has no place is kept beside its id.
func (r *record) threatxMatch(m *schemas.Match, value []byte) (ok bool) {
	contrib := schemas.Float{}
	r.rest.within("", "{}", func() {
		mark := len(r.rest.b)
		ok = members(value, func(key string, v []byte) {
			fits := true
			switch {
			case isNull(v):
				return
			case key == "id":
				m.RuleID = text(v)
				fits = m.RuleID != ""
			case key == "description":
				m.Name = text(v)
				fits = m.Name != ""
			case key == "classification":
				m.Category = text(v)
				fits = m.Category != ""
			case key == "state":
				m.Stage = text(v)
				fits = m.Stage != ""
			case key == "risk":
				m.Score = number(v)
				fits = m.Score.OK
			case key == "contrib_score":
				contrib = number(v)
				fits = false
			case key == "blocking":
				m.Blocking.V, m.Blocking.OK = yesNo(v)
				fits = m.Blocking.OK
			case secretName(key):
			default:
				fits = false
			}
			if !fits {
				r.rest.add(key, v)
			}
		})
		if len(r.rest.b) > mark && m.RuleID != "" {
			r.rest.addText("id", m.RuleID)
		}
	})
	if !m.Score.OK {
		m.Score = contrib
	}
	return ok
}

// threatxTime takes the better of the times given.
func (r *record) threatxTime() {
	for _, v := range [][]byte{r.threatx.created, r.threatx.timestamp} {
		if v != nil {
			r.when(v)
		}
	}
}

// decided sets what came of it.
func (r *record) decided(action, disposition string, enforced bool) {
	r.e.Action, r.e.Disposition, r.e.Enforced = action, disposition, enforced
}

func (p *threatxParts) block(r *record) {
	r.e.Kind = "mitigation"
	r.decided("block", "blocked", true)
	p.common(r, "BlockEvent")
}

func (p *threatxParts) match(r *record) {
	r.e.Kind = "match"
	switch {
	case p.blocking:
		r.decided("block", "blocked", true)
	case p.js != "" || p.randomID != "":
		r.decided("interrogate", "challenge_served", true)
	default:
		r.decided("log", "detected", false)
	}
	p.common(r, "MatchEvent")
}

// common sets what Block and Match events share.
func (p *threatxParts) common(r *record, name string) {
	e := &r.e
	if word(e.RequestID, 128) {
		e.EventID = "tx:" + e.RequestID + ":" + name
	}
	e.SessionID, e.ClientFP = p.randomID, p.js
	if e.ClientFP == "" {
		e.ClientFP = p.tls
	} else if p.tls != "" {
		r.rest.addText("tls_fingerprint", p.tls)
	}
	if p.message != "" && p.message != e.HTTPHost+e.HTTPPath {
		r.rest.addText("message", p.message)
	}
	if e.ScoreRaw.OK {
		e.ScoreKind = "risk"
		if e.ScoreRaw.V >= 0 && e.ScoreRaw.V <= 100 {
			e.Score = e.ScoreRaw
		}
	}
	if m := topMatch(e.Matches); m != nil {
		e.RuleID, e.RuleName, e.RuleCategory, e.Stage = m.RuleID, m.Name, m.Category, m.Stage
	}
}

// topMatch is the first match that blocks, else the one that adds most, else the first.
func topMatch(list []schemas.Match) (top *schemas.Match) {
	for i := range list {
		m := &list[i]
		if top == nil || m.Blocking.V && !top.Blocking.V || m.Blocking.V == top.Blocking.V && m.Score.V > top.Score.V && !top.Blocking.V {
			top = m
		}
	}
	return top
}

func (p *threatxParts) audit(r *record) {
	e := &r.e
	e.Kind = "audit"
	r.decided("none", "logged", false)
	if p.action != "" {
		r.rest.addText("action", p.action)
	}
	switch {
	case e.Audit.Change == "" && p.message != "":
		e.Audit.Change = p.message
	case e.Audit.Change == "":
		e.Audit.Change = p.action
	case p.message != "":
		r.rest.addText("message", p.message)
	}
	e.Audit.OK = true
}
