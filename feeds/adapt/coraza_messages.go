package adapt

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"datasync/schemas"
)

// corazaMessages takes the matches of a transaction.
func corazaMessages(r *record, value []byte) bool {
	ok := true
	r.rest.within("messages", "[]", func() {
		ok = items(value, func(v []byte) {
			var m corazaMessage
			r.rest.within("", "{}", func() {
				mark := len(r.rest.b)
				ok = m.read(r, v) && ok
				if len(r.rest.b) > mark && m.RuleID != "" {
					r.rest.addText("id", m.RuleID)
				}
			})
			m.derive(r)
			r.coraza.add(r, &m)
		}) && ok
	})
	return ok
}

// corazaMessage is one rule that matched.
type corazaMessage struct {
	schemas.Match
	text, severity, set string
	log                 []byte // the line of the error log, as it stands in JSON
	tags                []string
}

// read takes a message apart, and its data the same way. What a rule's own text
// says (file, line, raw …) is known by its id and set.
func (m *corazaMessage) read(r *record, value []byte) bool {
	return members(value, func(key string, v []byte) {
		fits := true
		switch key {
		case "actionset", "file", "line", "rev", "maturity", "accuracy", "raw":
			return
		case "data":
			if v[0] == '{' {
				fits = m.read(r, v)
			} else {
				m.Data = text(v)
				fits = v[0] == '"'
			}
		case "id":
			if m.RuleID = text(v); m.RuleID == "0" {
				m.RuleID = ""
			}
		case "message":
			m.text = text(v)
		case "msg":
			m.Name = text(v)
		case "error_message":
			m.log = v
			fits = v[0] == '"'
		case "severity":
			m.severity = strings.ToLower(text(v))
		case "ver":
			m.set = text(v)
		case "tags":
			m.tags, fits = texts(v)
		default:
			fits = secretName(key)
		}
		if !fits && !isNull(v) {
			r.rest.add(key, v)
		}
	})
}

// derive fills what the error log alone says (audit logs without part K), and
// finds out where the rule matched.
func (m *corazaMessage) derive(r *record) {
	if m.Name == "" {
		m.Name = m.text
	}
	if m.RuleID == "" && len(m.log) > 0 {
		log := text(m.log)
		m.RuleID, m.set, m.severity = bracket(log, "id"), bracket(log, "ver"), bracket(log, "severity")
		if m.Name == "" {
			m.Name = bracket(log, "msg")
		}
		m.Data = bracket(log, "data")
		for rest := log; ; {
			_, after, more := strings.Cut(rest, `[tag "`)
			if !more {
				break
			}
			tag, _, _ := strings.Cut(after, `"]`)
			m.tags, rest = append(m.tags, tag), after
		}
	}
	switch {
	case bytes.Contains(m.log, []byte("Coraza: Access denied")):
		m.Blocking = schemas.Bool{V: true, OK: true}
	case len(m.log) > 2 && m.log[0] == '"':
		m.Blocking = schemas.Bool{OK: true}
	}
	for _, tag := range m.tags {
		if strings.HasPrefix(tag, "attack-") && m.Category == "" {
			m.Category = tag
		}
		if len(r.labels) < maxMatches && !slices.Contains(r.labels, tag) {
			r.labels = append(r.labels, tag)
		}
	}
	m.place(r)
}

// bracket is the value of `[name "value"]` in a line of the error log.
func bracket(log, name string) string {
	_, rest, _ := strings.Cut(log, "["+name+` "`)
	value, _, _ := strings.Cut(rest, `"]`)
	return value
}

// maxData bounds what is kept of what a rule matched.
const maxData = 2 << 10

// place finds the part of the request that matched, as the rule set's logdata
// names it: "Matched Data: x found within ARGS:id: 1 or x", or "ARGS:id=1 or x".
func (m *corazaMessage) place(r *record) {
	s := m.Data
	if _, found, ok := strings.Cut(s, "found within "); ok {
		s = found
	}
	end := 0
	for end < len(s) && (s[end] >= 'A' && s[end] <= 'Z' || s[end] == '_') {
		end++
	}
	if end < 3 {
		return
	}
	if end < len(s) && s[end] == ':' && end+1 < len(s) && s[end+1] != ' ' {
		if n := strings.IndexAny(s[end+1:], ":= "); n >= 0 {
			end += 1 + n
		} else {
			end = len(s)
		}
	}
	collection, name, _ := strings.Cut(s[:end], ":")
	if end < len(s) && s[end] != ':' && s[end] != '=' && s[end] != ' ' {
		return
	}
	m.Location, _ = limit(s[:end], 256)
	// promise: what a rule found in a cookie or an authorization is a piece of it.
	if collection == "REQUEST_COOKIES" || (collection == "REQUEST_HEADERS" || collection == "RESPONSE_HEADERS") && secretName(name) {
		m.Data = ""
		if !slices.Contains(r.masked, "matches.data:credentials") {
			r.masked = append(r.masked, "matches.data:credentials")
		}
	}
}

// add keeps a message as a match, and what it says of all.
func (c *corazaParts) add(r *record, m *corazaMessage) {
	c.scores.read(m.Name)
	severity := corazaSeverity(m.severity)
	c.severity = max(c.severity, severity)
	evaluates := strings.Contains(m.Name, "Anomaly Score")
	if m.Blocking.V && c.denied == "" {
		c.denied = m.Name
	}
	if len(r.e.Matches) == maxMatches {
		r.note("matches")
		return
	}
	m.Data, _ = limit(m.Data, maxData)
	r.e.Matches = append(r.e.Matches, m.Match)
	// The rule that says what was tried, not the one that added it up.
	rank := 2 + int(severity)
	switch {
	case evaluates:
		rank = 1
	case m.Blocking.V:
		rank = 10
	}
	if rank > c.topRank {
		c.top, c.topRank, c.topSet = len(r.e.Matches), rank, m.set
	}
}

// anomaly is what the rule set says of its scores.
type anomaly struct {
	in, out tally
}

// tally is a score and the threshold from which it blocks.
type tally struct{ score, threshold schemas.Float }

// read finds scores in a rule's message: those of 949110 and 959100 ("Inbound
// Anomaly Score Exceeded (Total Score: 5)") and of 980170, which tells all.
func (a *anomaly) read(msg string) {
	if !strings.Contains(msg, "Anomaly Score") {
		return
	}
	_, in, ok := strings.Cut(msg, "(Inbound Scores: ")
	if !ok {
		t := &a.in
		if strings.Contains(msg, "Outbound") {
			t = &a.out
		}
		if _, s, ok := strings.Cut(msg, "Score: "); ok && !t.score.OK {
			t.score = leading(s)
		}
		return
	}
	in, rest, _ := strings.Cut(in, ")")
	a.in.read(in)
	if _, out, ok := strings.Cut(rest, "(Outbound Scores: "); ok {
		out, _, _ = strings.Cut(out, ")")
		a.out.read(out)
	}
}

func (t *tally) read(s string) {
	if _, v, ok := strings.Cut(s, "blocking="); ok {
		t.score = leading(v)
	}
	if _, v, ok := strings.Cut(s, "threshold="); ok {
		t.threshold = leading(v)
	}
}

// leading is the number that a text begins with.
func leading(s string) schemas.Float {
	n := 0
	for n < len(s) && n < 16 && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
		n++
	}
	v, err := strconv.ParseFloat(s[:n], 64)
	return schemas.Float{V: v, OK: err == nil}
}

// result is the score that counts: the answer's only where the request's gave
// no reason to act.
func (a *anomaly) result() (score, threshold schemas.Float) {
	t := a.in
	if a.out.score.OK && (!t.score.OK || a.out.reached() && !t.reached() || t.score.V == 0) {
		t = a.out
	}
	return t.score, t.threshold
}

func (t tally) reached() bool { return t.threshold.OK && t.score.V >= t.threshold.V }
