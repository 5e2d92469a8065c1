// Package alerts sums up the scores of matches by entity in a sliding window and makes one alert event where a sum reaches its threshold.
package alerts

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake/redact"
	"datasync/schemas"
)

// Settings are a tenant's "alerts" (contract.md).
type Settings struct {
	// Entity is the field by which scores are summed, one of Entities.
	Entity    string
	Window    time.Duration
	Threshold float64
	// MaskedRules count for nothing; their events are kept.
	MaskedRules []string
	// DisabledRules count for nothing either, and an event all of whose rules
	// are disabled is dropped.
	DisabledRules []string
	// Direction is inbound, outbound or both: what else counts for nothing.
	Direction string
}

// Entities are the fields by which scores can be summed: those that tell whom
// or what the matches have in common.
func Entities() []string {
	return []string{"client_ip", "session_id", "client_fp", "client_asn", "client_country", "forwarded_for",
		"user_agent", "tls_ja3", "tls_ja4", "http_host", "http_path", "source_instance"}
}

// text is the place of an entity's field in an event; client_asn alone is no text.
func text(e *schemas.Event, entity string) *string {
	switch entity {
	case "client_ip":
		return &e.ClientIP
	case "session_id":
		return &e.SessionID
	case "client_fp":
		return &e.ClientFP
	case "client_country":
		return &e.ClientCountry
	case "forwarded_for":
		return &e.ForwardedFor
	case "user_agent":
		return &e.UserAgent
	case "tls_ja3":
		return &e.TLSJA3
	case "tls_ja4":
		return &e.TLSJA4
	case "http_host":
		return &e.HTTPHost
	case "http_path":
		return &e.HTTPPath
	case "source_instance":
		return &e.SourceInstance
	}
	return nil
}

// Watch holds one tenant's sums under one state of its settings. It is safe
// for concurrent use: all doors of a tenant share it.
type Watch struct {
	tenant           feeds.TenantID
	s                Settings
	masked, disabled map[string]bool
	threshold        int64 // thousandths of a point, as all sums
	// readBack gives what the journal holds of the window; nil: nothing.
	readBack func(func(line []byte)) error
	failed   func(error)

	mu    sync.Mutex
	built bool
	sums  sums
}

// slots is how many parts a window is cut into: sums forget a part at a time,
// so that what an entity costs does not grow with its events.
const slots = 60

func newWatch(t feeds.TenantID, s Settings) *Watch {
	w := &Watch{tenant: t, s: s, masked: set(s.MaskedRules), disabled: set(s.DisabledRules), threshold: max(1, thousandths(s.Threshold))}
	w.sums.init(s.Window)
	return w
}

func set(list []string) map[string]bool {
	m := make(map[string]bool, len(list))
	for _, v := range list {
		m[v] = true
	}
	return m
}

// Verdict says what becomes of an event.
type Verdict uint8

// The verdicts.
const (
	Pass     Verdict = iota // it goes on
	Suppress                // all its rules are disabled: it is dropped, and counted
	Trip                    // it goes on, and the alert that Turn.Alert gives follows it
)

// Turn is what the events of one request did to sums, until they are durable.
// The zero Turn is ready; it is not safe for concurrent use.
type Turn struct {
	event schemas.Event
	parts []part
	marks []mark
	alert schemas.Event
	line  []byte
	time  int64
	used  bool
}

// Reset begins another request: what was counted stays.
func (t *Turn) Reset() {
	if !t.used {
		return
	}
	t.used = false
	clear(t.marks)
	t.marks = t.marks[:0]
	t.event, t.alert = schemas.Event{Matches: t.event.Matches[:0]}, schemas.Event{Matches: t.alert.Matches[:0]}
	if cap(t.line) > schemas.MaxEvent {
		t.line = nil
	}
}

// stats are what the sums hold.
func (w *Watch) stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Stats{Tenant: w.tenant, Entities: len(w.sums.all), Left: w.sums.left}
}

// Undo takes back what was counted since Reset: the events were not kept. An
// alert that was made with them is to be made again.
func (t *Turn) Undo() {
	for i := len(t.marks) - 1; i >= 0; i-- {
		m := &t.marks[i]
		m.w.mu.Lock()
		m.undo()
		m.w.mu.Unlock()
	}
	t.Reset()
}

// Take counts an event, as it will be kept, at a time of the wall clock (ms).
// With quiet no alert is made now: the next event of the entity makes it.
func (t *Turn) Take(w *Watch, line []byte, now int64, quiet bool) Verdict {
	e := &t.event
	t.used = true
	if schemas.Decode(line, e) != nil {
		return Pass
	}
	t.parts = t.parts[:0]
	d := w.judge(e, &t.parts)
	switch {
	case d.suppress:
		return Suppress
	case d.entity == "":
		return Pass
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.build(now)
	if d.alert {
		w.sums.muted(d.entity, d.at, now)
		return Pass
	}
	x := w.sums.entity(d.entity, now)
	w.count(x, &d, t.parts, &t.marks)
	if quiet || x.quiet() || x.sum() < w.threshold {
		return Pass
	}
	t.marks = append(t.marks, mark{w: w, x: x, alert: true, slot: x.newest, was: x.alerted, had: x.isAlerted})
	x.alerted, x.isAlerted = x.newest, true
	t.compose(w, e, x)
	return Trip
}

// count adds the parts of an event to an entity's sums, and notes them in
// marks, where that is not nil.
func (w *Watch) count(x *entity, d *deed, parts []part, marks *[]mark) {
	n := uint32(1)
	for _, p := range parts {
		r, slot, ok := w.sums.add(x, d, p, n)
		if ok && marks != nil {
			*marks = append(*marks, mark{w: w, x: x, slot: slot, rule: r, points: p.points, n: n})
		}
		n = 0 // an event is counted once
	}
}

// build reads back, once, what the journal holds of the window. The caller
// holds mu: events that come meanwhile wait, so that each is counted once.
func (w *Watch) build(now int64) {
	if w.built {
		return
	}
	if w.readBack != nil {
		var e schemas.Event
		var parts []part
		err := w.readBack(func(line []byte) {
			if schemas.Decode(line, &e) != nil {
				return
			}
			parts = parts[:0]
			switch d := w.judge(&e, &parts); {
			case d.suppress || d.entity == "":
			case d.alert:
				w.sums.muted(d.entity, d.at, now)
			default:
				w.count(w.sums.entity(d.entity, now), &d, parts, nil)
			}
		})
		if err != nil {
			w.failed(err)
		}
	}
	w.built = true
}

// deed is what an event means to the sums.
type deed struct {
	suppress bool
	alert    bool // one of our own: its entity has been told of
	entity   string
	at       int64 // ms
	severity int8
}

// part is what one rule of an event adds.
type part struct {
	id, name, category string
	points             int64
}

// judge says what an event means. It depends on the event and the settings
// alone, so that reading back gives what was counted at first.
func (w *Watch) judge(e *schemas.Event, parts *[]part) deed {
	switch e.Kind {
	case "mitigation", "match", "alert":
	default:
		return deed{}
	}
	if w.allDisabled(e) {
		return deed{suppress: true}
	}
	// The time it happened: the same whenever it is read again. A clock that
	// runs ahead does not drain the window.
	d := deed{at: min(e.EventTime, e.IngestTime), severity: e.Severity}
	if p := text(e, w.s.Entity); p != nil {
		d.entity = *p
	} else if e.ClientASN.OK {
		d.entity = strconv.FormatInt(e.ClientASN.V, 10)
	}
	if d.entity == redact.Mask {
		return deed{} // what was masked tells nobody apart
	}
	if e.Source == source && strings.HasPrefix(e.EventID, idPrefix) {
		d.alert = true
		return d
	}
	if !w.counts(e) || !w.points(e, parts) {
		return deed{}
	}
	return d
}

// counts says whether an event is a match in the direction watched. What let
// the client pass is none.
func (w *Watch) counts(e *schemas.Event) bool {
	switch e.Action {
	case "none", "allow":
		return false
	}
	switch e.Disposition {
	case "allowed", "bypassed", "captcha_passed", "challenge_passed", "fail_open", "error":
		return false
	}
	direction := e.Net.Direction
	if direction == "" {
		direction = "inbound"
	}
	return w.s.Direction == "both" || direction == w.s.Direction
}

// allDisabled says that an event has rules, and all of them are disabled.
func (w *Watch) allDisabled(e *schemas.Event) bool {
	if len(w.disabled) == 0 {
		return false
	}
	rules := 0
	for i := range e.Matches {
		if id := e.Matches[i].RuleID; id != "" {
			rules++
			if !w.disabled[id] {
				return false
			}
		}
	}
	if e.RuleID != "" {
		rules++
	}
	return rules > 0 && (e.RuleID == "" || w.disabled[e.RuleID])
}

// ignored says that a rule counts for nothing.
func (w *Watch) ignored(id string) bool { return id != "" && (w.masked[id] || w.disabled[id]) }

// maxParts bounds the rules of one event that are told apart.
const maxParts = 32

// points lists what the rules of an event add: the scores of its matches where
// they have any; else the event's own score, which goes to its rule. false:
// nothing.
func (w *Watch) points(e *schemas.Event, parts *[]part) bool {
	scored, sum, left := false, int64(0), 0
	for i := range e.Matches {
		m := &e.Matches[i]
		scored = scored || m.Score.OK
		if w.ignored(m.RuleID) {
			continue
		}
		left++
		p := part{m.RuleID, m.Name, m.Category, thousandths(m.Score.V)}
		sum += p.points
		if len(*parts) < maxParts {
			*parts = append(*parts, p)
		} else {
			(*parts)[maxParts-1].points += p.points
		}
	}
	switch {
	case len(e.Matches) > 0 && left == 0, len(e.Matches) == 0 && w.ignored(e.RuleID):
		return false
	case scored:
		return sum > 0
	}
	own := part{e.RuleID, e.RuleName, e.RuleCategory, thousandths(score(e))}
	for i := range *parts {
		if p := &(*parts)[i]; p.id == own.id || own.id == "" || w.ignored(own.id) {
			p.points = own.points
			return own.points > 0
		}
	}
	if len(*parts) == maxParts {
		*parts = (*parts)[:maxParts-1]
	}
	*parts = append(*parts, own)
	return own.points > 0
}

// score is what an event weighs whose matches have no scores of their own:
// points as a rule set counts them, else the score, else the severity (unknown
// counts as the least). Scores of which less is worse are not used as they were
// delivered: score is those turned round.
func score(e *schemas.Event) float64 {
	switch {
	case e.ScoreRaw.OK && (e.ScoreKind == "anomaly" || e.ScoreKind == "risk"):
		return e.ScoreRaw.V
	case e.Score.OK:
		return e.Score.V
	}
	return float64(max(e.Severity, 1))
}

// thousandths makes points whole numbers, so that a sum does not depend on the
// order in which it is added up.
func thousandths(v float64) int64 {
	const most = 1e12
	if !(v > 0) {
		return 0
	}
	return int64(min(v, most)*1000 + 0.5)
}
