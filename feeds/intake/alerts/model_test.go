package alerts

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"datasync/schemas"
)

// model is the same in the simplest words: a list of what was counted, and for
// each entity the slot of its last alert. Nothing is ever forgotten but what
// leaves the window.
type model struct {
	slot      int64
	threshold int64
	counted   []counted
	newest    map[string]int64
	alerted   map[string]int64
}

type counted struct {
	id     string
	entity string
	slot   int64
	points int64
}

func newModel(s Settings) *model {
	return &model{slot: max(1, s.Window.Milliseconds()/slots), threshold: thousandths(s.Threshold), newest: map[string]int64{}, alerted: map[string]int64{}}
}

// move has the window of an entity reach a slot.
func (m *model) move(entity string, slot int64) {
	if slot > m.newest[entity] {
		m.newest[entity] = slot
		m.counted = slices.DeleteFunc(m.counted, func(c counted) bool { return c.entity == entity && c.slot <= slot-slots })
	}
}

// take counts an event and says whether an alert is due, and with which sum.
func (m *model) take(e *schemas.Event) (due bool, sum int64, n int) {
	slot := min(e.EventTime, e.IngestTime) / m.slot
	m.move(e.ClientIP, slot)
	if slot > m.newest[e.ClientIP]-slots {
		m.counted = append(m.counted, counted{e.EventID, e.ClientIP, slot, thousandths(e.Score.V)})
	}
	for _, c := range m.counted {
		if c.entity == e.ClientIP {
			sum += c.points
			n++
		}
	}
	last, told := m.alerted[e.ClientIP]
	if due = sum >= m.threshold && (!told || m.newest[e.ClientIP]-last >= slots); due {
		m.alerted[e.ClientIP] = m.newest[e.ClientIP]
	}
	return due, sum, n
}

// world is a Watch beside its model, over a log that outlives both.
type world struct {
	t        *rapid.T
	settings Settings
	w        *Watch
	m        *model
	log      [][]byte // what was kept, in order
	turns    []*pending
	clock    int64
	next     int
}

// pending is a request whose events are not durable yet.
type pending struct {
	turn   Turn
	lines  [][]byte
	events []schemas.Event
	alerts map[string]int64 // entity to the slot of the alert before, -1 for none
	set    map[string]int64
}

// begin makes the Watch anew, as a start or other settings do: what was not
// kept is forgotten, the rest is read back.
func (x *world) begin() {
	x.w, x.m, x.turns = newWatch("acme", x.settings), newModel(x.settings), nil
	log := slices.Clone(x.log)
	// Shards are read one after the other, not in the order of arrival.
	for i := len(log) - 1; i > 0; i-- {
		j := rapid.IntRange(0, i).Draw(x.t, "j")
		log[i], log[j] = log[j], log[i]
	}
	x.w.readBack = func(f func([]byte)) error {
		for _, line := range log {
			f(line)
		}
		return nil
	}
	x.w.build(x.clock) // the model's order is the log's own
	for _, line := range x.log {
		var e schemas.Event
		if err := schemas.Decode(line, &e); err != nil {
			x.t.Fatal(err)
		}
		if e.Source == "datasync" {
			slot := e.EventTime / x.m.slot
			x.m.move(e.ClientIP, slot)
			x.m.alerted[e.ClientIP] = max(x.m.alerted[e.ClientIP], slot)
			continue
		}
		slot := min(e.EventTime, e.IngestTime) / x.m.slot
		x.m.move(e.ClientIP, slot)
		if slot > x.m.newest[e.ClientIP]-slots {
			x.m.counted = append(x.m.counted, counted{e.EventID, e.ClientIP, slot, thousandths(e.Score.V)})
		}
	}
}

// event takes one more event in the turn p.
func (x *world) event(p *pending) {
	x.clock += rapid.Int64Range(0, 8000).Draw(x.t, "pass")
	at := x.clock + rapid.SampledFrom([]int64{0, 0, 0, 0, -500, -20_000, -70_000, 5000}).Draw(x.t, "skew")
	x.next++
	e := schemas.Event{Schema: schemas.Version, EventID: fmt.Sprint("e", x.next), TenantID: "acme", Source: "edge", Kind: "match", EventTime: at, TimePrecision: "ms",
		IngestTime: x.clock - rapid.SampledFrom([]int64{0, 0, 0, 3000}).Draw(x.t, "source's clock"), Action: "log", Disposition: "detected", Severity: 2, ClientIP: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(x.t, "entity"),
		RuleID: rapid.SampledFrom([]string{"r1", "r2", ""}).Draw(x.t, "rule"), Score: schemas.Float{V: float64(rapid.IntRange(1, 60).Draw(x.t, "points")) / 10, OK: true}}
	line := schemas.AppendJSON(nil, &e)
	before, told := x.m.alerted[e.ClientIP]
	due, sum, n := x.m.take(&e)
	v := p.turn.Take(x.w, line, x.clock, false)
	if (v == Trip) != due {
		x.t.Fatalf("event %s of %s with sum %d: alert %v, the model says %v", e.EventID, e.ClientIP, sum, v == Trip, due)
	}
	p.lines, p.events = append(p.lines, line), append(p.events, e)
	if !due {
		return
	}
	alert, _ := p.turn.Alert()
	var a schemas.Event
	if err := schemas.Decode(bytes.Clone(alert[:len(alert)-1]), &a); err != nil {
		x.t.Fatal(err)
	}
	if thousandths(a.Score.V) != sum || a.Agg.Count.V != int64(n) || a.ClientIP != e.ClientIP || a.CorrelationID != e.EventID {
		x.t.Fatalf("the model has %d points of %d events: %s", sum, n, alert)
	}
	if _, twice := p.alerts[e.ClientIP]; !twice {
		if !told {
			before = -1
		}
		p.alerts[e.ClientIP] = before
	}
	p.set[e.ClientIP] = x.m.alerted[e.ClientIP]
	p.lines = append(p.lines, bytes.Clone(alert[:len(alert)-1]))
}

// end has a turn's events kept, or lost.
func (x *world) end(kept bool) {
	i := rapid.IntRange(0, len(x.turns)-1).Draw(x.t, "turn")
	p := x.turns[i]
	x.turns = slices.Delete(x.turns, i, i+1)
	if kept {
		p.turn.Reset()
		x.log = append(x.log, p.lines...)
		return
	}
	p.turn.Undo()
	ids := map[string]bool{}
	for _, e := range p.events {
		ids[e.EventID] = true
	}
	x.m.counted = slices.DeleteFunc(x.m.counted, func(c counted) bool { return ids[c.id] })
	for entity, before := range p.alerts {
		if x.m.alerted[entity] != p.set[entity] {
			continue // told again since
		}
		if x.m.alerted[entity] = before; before < 0 {
			delete(x.m.alerted, entity)
		}
	}
}

// same holds the sums to the model.
func (x *world) same() {
	want := map[string]int64{}
	for _, c := range x.m.counted {
		want[c.entity] += c.points
	}
	got := map[string]int64{}
	for name, e := range x.w.sums.all {
		if n := e.sum(); n != 0 {
			got[name] = n
		}
	}
	told := map[string]int64{}
	for name, e := range x.w.sums.all {
		if e.isAlerted {
			told[name] = e.alerted
		}
	}
	if !maps.Equal(got, want) || !maps.Equal(told, x.m.alerted) {
		x.t.Fatalf("sums %v, told of %v; the model has %v and %v", got, told, want, x.m.alerted)
	}
}

// TestAgainstAModel: events of some entities, late and early ones among them,
// in requests that overlap and of which some are not kept; starts anew, and
// settings that change, with the log read back in any order.
func TestAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &world{t: t, settings: settings(), clock: start}
		x.begin()
		t.Repeat(map[string]func(*rapid.T){
			"event": func(t *rapid.T) {
				x.t = t
				if len(x.turns) == 0 || len(x.turns) < 3 && rapid.Bool().Draw(t, "another") {
					x.turns = append(x.turns, &pending{alerts: map[string]int64{}, set: map[string]int64{}})
				}
				for range rapid.IntRange(1, 4).Draw(t, "events") {
					x.event(x.turns[rapid.IntRange(0, len(x.turns)-1).Draw(t, "turn")])
				}
			},
			"kept": func(t *rapid.T) {
				if x.t = t; len(x.turns) > 0 {
					x.end(true)
				}
			},
			"lost": func(t *rapid.T) {
				if x.t = t; len(x.turns) > 0 {
					x.end(false)
				}
			},
			"restart": func(t *rapid.T) { x.t = t; x.begin() },
			"settings": func(t *rapid.T) {
				x.t = t
				x.settings.Threshold = float64(rapid.IntRange(5, 20).Draw(t, "threshold"))
				x.begin()
			},
			"": func(t *rapid.T) { x.t = t; x.same() },
		})
	})
}
