package alerts

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"

	"datasync/schemas"
)

const (
	// source is what our own alerts name as theirs.
	source = "datasync"
	// idPrefix begins their ids.
	idPrefix = "alert:"
	// maxMatches bounds the rules that an alert names, those that added most.
	maxMatches = 64
)

// compose puts the alert of an entity together, from the window alone and the
// event that made it due: the same ones give the same bytes.
func (t *Turn) compose(w *Watch, e *schemas.Event, x *entity) {
	a := &t.alert
	*a = schemas.Event{
		Schema: schemas.Version, EventID: alertID(w, e, x), TenantID: string(w.tenant), ChannelID: e.ChannelID, Source: source,
		Kind: schemas.KindAlert.String(), TimePrecision: e.TimePrecision, IngestTime: e.IngestTime, CorrelationID: e.EventID,
		Action: "log", Disposition: "detected", RuleID: "threshold", RuleSet: source,
		RuleName:  fmt.Sprintf("score of %s reached %s within %s", w.s.Entity, strconv.FormatFloat(w.s.Threshold, 'f', -1, 64), w.s.Window),
		ScoreKind: "anomaly", ScoreThreshold: schemas.Float{V: w.s.Threshold, OK: true}, Severity: 1,
		Matches: a.Matches[:0], Agg: schemas.Agg{OK: true}, Meta: schemas.Meta{OK: true, Labels: append(a.Meta.Labels[:0], "entity:"+w.s.Entity)},
	}
	if e.Net.Direction != "" {
		a.Net = schemas.Net{OK: true, Direction: e.Net.Direction}
	}
	if w.s.Entity == "client_ip" { // what is known of the address
		a.ClientASN, a.ClientCountry = e.ClientASN, e.ClientCountry
	}
	if p := text(a, w.s.Entity); p != nil {
		*p = x.name
	} else {
		a.ClientASN = e.ClientASN
	}
	x.tell(a)
	t.line = append(schemas.AppendJSON(t.line[:0], a), '\n')
	t.time = a.EventTime
}

// tell writes into a what the window holds.
func (x *entity) tell(a *schemas.Event) {
	by := map[rule]int64{}
	for i := range x.entries {
		n := &x.entries[i]
		if n.hits == 0 {
			continue // undone
		}
		if n.rule != nil {
			by[*n.rule] += n.points
		}
		a.Agg.Count.V += int64(n.n)
		if a.Agg.FirstSeen.V == 0 || n.first < a.Agg.FirstSeen.V {
			a.Agg.FirstSeen.V = n.first
		}
		a.Agg.LastSeen.V = max(a.Agg.LastSeen.V, n.last)
		a.Severity = max(a.Severity, n.severity)
	}
	a.Agg.Count.OK, a.Agg.FirstSeen.OK, a.Agg.LastSeen.OK = true, true, true
	a.EventTime = a.Agg.LastSeen.V
	a.IngestTime = max(a.IngestTime, a.EventTime) // so that it is found in the same slot again
	a.Score = schemas.Float{V: float64(x.sum()) / 1000, OK: true}
	a.ScoreRaw = a.Score
	for r, points := range by {
		a.Matches = append(a.Matches, schemas.Match{RuleID: r.id, Name: r.name, Category: r.category, Score: schemas.Float{V: float64(points) / 1000, OK: true}})
	}
	slices.SortFunc(a.Matches, func(p, q schemas.Match) int {
		return cmp.Or(cmp.Compare(q.Score.V, p.Score.V), cmp.Compare(p.RuleID, q.RuleID), cmp.Compare(p.Name, q.Name), cmp.Compare(p.Category, q.Category))
	})
	a.Matches = a.Matches[:min(len(a.Matches), maxMatches)]
}

// alertID is made of the event that made the alert due and of whom it is about.
func alertID(w *Watch, e *schemas.Event, x *entity) string {
	h := sha256.New()
	for _, s := range []string{string(w.tenant), w.s.Entity, x.name, e.EventID} {
		_, _ = io.WriteString(h, s+"\x00") // a hash takes everything
	}
	return idPrefix + hex.EncodeToString(h.Sum(nil)[:16])
}

// Alert is the alert that the last Take made, its newline included, and its
// event time. It is good until the next Take.
func (t *Turn) Alert() (line []byte, at int64) { return t.line, t.time }
