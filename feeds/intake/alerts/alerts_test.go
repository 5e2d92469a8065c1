package alerts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"datasync/schemas"
)

const start = int64(1_800_000_000_000)

func settings() Settings {
	return Settings{Entity: "client_ip", Window: time.Minute, Threshold: 10, Direction: "inbound"}
}

// match is a match event at so many seconds behind start.
func match(id string, seconds float64, change func(*schemas.Event)) []byte {
	at := start + int64(seconds*1000)
	e := schemas.Event{Schema: schemas.Version, EventID: id, TenantID: "acme", Source: "coraza", Kind: "match", EventTime: at, TimePrecision: "ms",
		IngestTime: at + 500, Action: "log", Disposition: "detected", Severity: 3, ClientIP: "203.0.113.7", RuleID: "942100", RuleName: "SQL injection", RuleCategory: "sqli"}
	if change != nil {
		change(&e)
	}
	return schemas.AppendJSON(nil, &e)
}

// take hands lines over, each as a turn of its own, and gives the verdicts in
// letters and the alerts.
func take(t *testing.T, w *Watch, lines ...[]byte) (verdicts string, made []schemas.Event) {
	t.Helper()
	var turn Turn
	for _, line := range lines {
		v := turn.Take(w, line, start, false)
		verdicts += string("-sA"[v])
		if v == Trip {
			made = append(made, parse(t, &turn))
		}
		turn.Reset()
	}
	return verdicts, made
}

// parse judges an alert as intake judges every event.
func parse(t *testing.T, turn *Turn) (e schemas.Event) {
	t.Helper()
	line, at := turn.Alert()
	text, ok := strings.CutSuffix(string(line), "\n")
	var h schemas.Head
	if p := schemas.Scan([]byte(text), start, &h); p != nil || !ok || h.Has != schemas.HasAll || h.Time != at || h.Kind != schemas.KindAlert {
		t.Fatalf("the alert is no event: %v, %+v\n%s", p, h, line)
	}
	if err := schemas.Decode([]byte(text), &e); err != nil || e.Extra != "" {
		t.Fatalf("%v, extra %s", err, e.Extra)
	}
	return e
}

func TestWhatAnEventAdds(t *testing.T) {
	f := func(v float64) schemas.Float { return schemas.Float{V: v, OK: true} }
	for _, c := range []struct {
		name   string
		change func(*schemas.Event)
		points float64
	}{
		{"its severity", nil, 3},
		{"an unknown severity counts as the least", func(e *schemas.Event) { e.Severity = 0 }, 1},
		{"its score", func(e *schemas.Event) { e.Score = f(42.5) }, 42.5},
		{"points of a rule set", func(e *schemas.Event) { e.ScoreRaw, e.ScoreKind = f(5), "anomaly" }, 5},
		{"no bot score as delivered: less is worse there", func(e *schemas.Event) { e.ScoreRaw, e.Score, e.ScoreKind = f(2), f(98), "bot_score" }, 98},
		{"its matches' scores", func(e *schemas.Event) {
			e.Score = f(50)
			e.Matches = []schemas.Match{{RuleID: "1", Score: f(2)}, {RuleID: "2", Score: f(4.5)}, {RuleID: "3"}}
		}, 6.5},
		{"matches without scores: the event's", func(e *schemas.Event) { e.Matches = []schemas.Match{{RuleID: "1"}, {RuleID: "2"}} }, 3},
		{"not what a masked match adds", func(e *schemas.Event) {
			e.Matches = []schemas.Match{{RuleID: "masked", Score: f(2)}, {RuleID: "off", Score: f(3)}, {RuleID: "2", Score: f(4)}}
		}, 4},
		{"nothing where all matches are masked", func(e *schemas.Event) { e.Matches = []schemas.Match{{RuleID: "masked"}, {RuleID: "masked"}} }, 0},
		{"nothing for a masked rule", func(e *schemas.Event) { e.RuleID = "masked" }, 0},
		{"nothing for what let the client pass", func(e *schemas.Event) { e.Action, e.Disposition = "captcha", "captcha_passed" }, 0},
		{"nothing for a rule that allows", func(e *schemas.Event) { e.Kind, e.Action, e.Disposition = "mitigation", "allow", "allowed" }, 0},
		{"a mitigation", func(e *schemas.Event) { e.Kind, e.Action, e.Disposition = "mitigation", "block", "blocked" }, 3},
		{"a sensor's alert", func(e *schemas.Event) { e.Kind = "alert" }, 3},
		{"no request", func(e *schemas.Event) { e.Kind = "request" }, 0},
		{"no change by people", func(e *schemas.Event) { e.Kind = "audit" }, 0},
		{"inbound", func(e *schemas.Event) { e.Net = schemas.Net{OK: true, Direction: "inbound"} }, 3},
		{"nothing in another direction", func(e *schemas.Event) { e.Net = schemas.Net{OK: true, Direction: "outbound"} }, 0},
		{"nothing without the entity", func(e *schemas.Event) { e.ClientIP = "" }, 0},
		{"nothing for a masked entity", func(e *schemas.Event) { e.ClientIP = "[redacted]" }, 0},
		{"no negative score", func(e *schemas.Event) { e.Score = f(-5) }, 0},
		{"the rest of very many matches", func(e *schemas.Event) {
			for i := range 100 {
				e.Matches = append(e.Matches, schemas.Match{RuleID: fmt.Sprint(i), Score: f(1)})
			}
		}, 100},
		{"a source's rule that only sums up is told with its matches", func(e *schemas.Event) {
			e.RuleID = "949110"
			for i := range 40 {
				e.Matches = append(e.Matches, schemas.Match{RuleID: fmt.Sprint(i)})
			}
		}, 3},
	} {
		s := settings()
		s.MaskedRules, s.DisabledRules = []string{"masked"}, []string{"off"}
		w := newWatch("acme", s)
		take(t, w, match("e", 0, c.change))
		got := int64(0)
		if x := w.sums.all["203.0.113.7"]; x != nil {
			got = x.sum()
		}
		for name := range w.sums.all {
			if name != "203.0.113.7" {
				t.Errorf("%s: entity %q", c.name, name)
			}
		}
		if got != thousandths(c.points) {
			t.Errorf("an event adds %s: %d, want %g points", c.name, got, c.points)
		}
	}
}

func TestOneAlertAWindow(t *testing.T) {
	rule := func(id string) func(*schemas.Event) {
		return func(e *schemas.Event) { e.RuleID, e.RuleName, e.RuleCategory = id, "rule "+id, "" }
	}
	w := newWatch("acme", settings())
	verdicts, made := take(t, w,
		match("e1", 0, rule("a")), match("e2", 1, rule("b")), match("e3", 2, rule("b")), // 9 points
		match("e4", 3, rule("b")),                                       // 12: the alert
		match("e5", 4, nil), match("e6", 50, nil), match("e7", 62, nil), // told of less than a window ago
		match("e8", 66, nil), match("e9", 67, nil), // 6: e6, e7, e8 are 9, with e9 12
	)
	if verdicts != "---A----A" {
		t.Fatalf("%s", verdicts)
	}
	a := made[0]
	if a.EventTime != start+3000 || a.IngestTime != start+3500 || a.Score.V != 12 || a.ScoreRaw.V != 12 || a.ScoreThreshold.V != 10 || a.ScoreKind != "anomaly" ||
		a.Agg != (schemas.Agg{OK: true, Count: schemas.Int{V: 4, OK: true}, FirstSeen: schemas.Int{V: start, OK: true}, LastSeen: schemas.Int{V: start + 3000, OK: true}}) ||
		a.ClientIP != "203.0.113.7" || a.Source != "datasync" || a.Severity != 3 || a.CorrelationID != "e4" || a.TenantID != "acme" {
		t.Errorf("%+v", a)
	}
	if got := fmt.Sprint(a.Matches); got != "[{b rule b   {9 true} {false false}  } {a rule a   {3 true} {false false}  }]" {
		t.Errorf("matches %s", got)
	}
	if again := newWatch("acme", settings()); true {
		_, same := take(t, again, match("e1", 0, rule("a")), match("e2", 1, rule("b")), match("e3", 2, rule("b")), match("e4", 3, rule("b")))
		if fmt.Sprint(same[0]) != fmt.Sprint(a) {
			t.Errorf("the same events made another alert:\n%+v\n%+v", same[0], a)
		}
	}
	if made[1].EventID == a.EventID || !strings.HasPrefix(a.EventID, "alert:") {
		t.Errorf("ids %s, %s", a.EventID, made[1].EventID)
	}
}

func TestLateAndEarlyEvents(t *testing.T) {
	early := func(e *schemas.Event) { e.EventTime += 3_600_000 } // its clock is an hour ahead
	w := newWatch("acme", settings())
	verdicts, made := take(t, w, match("e1", 100, nil), match("e2", 50, nil), // late, within the window
		match("e3", 30, nil), // too late
		match("e4", 102, early), match("e5", 103, nil))
	if verdicts != "----A" || made[0].Agg.Count.V != 4 || made[0].Agg.FirstSeen.V != start+50_000 || made[0].EventTime != start+103_000 {
		t.Errorf("%s %+v", verdicts, made)
	}
	// An alert behind a late event says when the entity was last seen.
	w = newWatch("acme", settings())
	if verdicts, made = take(t, w, match("e1", 10, nil), match("e2", 11, nil), match("e3", 12, nil), match("e4", 5, nil)); verdicts != "---A" || made[0].EventTime != start+12_000 {
		t.Errorf("%s %+v", verdicts, made)
	}
	// Its source's clock is behind the others': it is found in the same slot again.
	behind := func(e *schemas.Event) { e.IngestTime -= 10_000 }
	w = newWatch("acme", settings())
	if verdicts, made = take(t, w, match("e1", 10, nil), match("e2", 11, nil), match("e3", 12, nil), match("e4", 12, behind)); verdicts != "---A" || made[0].IngestTime != start+12_000 {
		t.Errorf("%s %+v", verdicts, made)
	}
}

func TestDisabledRules(t *testing.T) {
	s := settings()
	s.DisabledRules = []string{"off", "off2"}
	w := newWatch("acme", s)
	with := func(rule string, matches ...string) []byte {
		return match("e", 0, func(e *schemas.Event) {
			e.RuleID = rule
			for _, m := range matches {
				e.Matches = append(e.Matches, schemas.Match{RuleID: m})
			}
		})
	}
	verdicts, _ := take(t, w, with("off"), with("on"), with(""), with("off", "off2"), with("off", "on"), with("on", "off"), with("", "off"))
	if verdicts != "s--s--s" {
		t.Errorf("%s", verdicts)
	}
}

func TestEveryEntity(t *testing.T) {
	for _, entity := range Entities() {
		s := settings()
		s.Entity, s.Threshold, s.Direction = entity, 6, "both"
		w := newWatch("acme", s)
		change := func(e *schemas.Event) {
			e.ClientIP = ""
			if p := text(e, entity); p != nil {
				*p = "a \"b\""
			} else {
				e.ClientASN = schemas.Int{V: 64500, OK: true}
			}
			e.Net = schemas.Net{OK: true, Direction: "outbound"}
		}
		verdicts, made := take(t, w, match("e1", 0, change), match("e2", 1, change))
		if verdicts != "-A" {
			t.Fatalf("%s: %s", entity, verdicts)
		}
		got := fmt.Sprint(made[0].Value(entity))
		if got != `a "b"` && got != "64500" || made[0].Net.Direction != "outbound" || fmt.Sprint(made[0].Meta.Labels) != "[entity:"+entity+"]" {
			t.Errorf("%s: %s, %+v", entity, got, made[0])
		}
	}
}

func TestWhatWasNotKeptAddsNothing(t *testing.T) {
	w := newWatch("acme", settings())
	take(t, w, match("e1", 0, nil), match("e2", 1, nil))
	var lost, other Turn
	if lost.Take(w, match("e3", 2, nil), start, false) != Pass || lost.Take(w, match("e4", 3, nil), start, false) != Trip {
		t.Fatal("no alert")
	}
	was := string(lost.line)
	if other.Take(w, match("x", 4, nil), start, false) != Pass {
		t.Error("two alerts")
	}
	lost.Undo()
	if got := w.sums.all["203.0.113.7"]; got.sum() != 9000 || got.quiet() {
		t.Errorf("%d points, quiet %v", got.sum(), got.quiet())
	}
	other.Undo()
	if lost.Take(w, match("e3", 2, nil), start, false) != Pass || lost.Take(w, match("e4", 3, nil), start, false) != Trip || string(lost.line) != was {
		t.Errorf("what comes again makes another alert:\n%s%s", was, lost.line)
	}
}

func TestAlertsWaitForARecordWithRoom(t *testing.T) {
	w := newWatch("acme", settings())
	var turn Turn
	for i, quiet := range []bool{true, true, true, true, false} {
		if v := turn.Take(w, match(fmt.Sprint(i), float64(i), nil), start, quiet); (v == Trip) != (i == 4) {
			t.Errorf("event %d: %d", i, v)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	w := newWatch("acme", settings())
	var turn Turn
	now := start
	from := func(i int) func(*schemas.Event) {
		return func(e *schemas.Event) { e.ClientIP, e.RuleID = fmt.Sprintf("host-%d", i), fmt.Sprint("rule-", i) }
	}
	const n = maxEntities + 5000
	for i := range n {
		turn.Take(w, match("e", 0, from(i)), now, false)
		turn.Reset()
	}
	s := w.stats()
	if s.Entities != maxEntities || s.Left != 5000 || w.sums.entries != maxEntities || len(w.sums.rules) > maxRules || w.sums.all["host-0"] != nil || w.sums.all["host-20000"] == nil {
		t.Errorf("%+v, %d entries, %d rules", s, w.sums.entries, len(w.sums.rules))
	}
	// Idle ones leave by themselves, which is no loss.
	for i := range maxEntities {
		turn.Take(w, match("e", 3600, from(n+i%7)), now+3_600_000, false)
		turn.Reset()
	}
	if s := w.stats(); s.Entities != 7 || s.Left != 5000 {
		t.Errorf("%+v", s)
	}
	// One entity with very many rules.
	for i := range 10 * maxOwn {
		turn.Take(w, match("e", 3600+float64(i%50), func(e *schemas.Event) { e.RuleID = fmt.Sprint(i) }), now+3_600_000, false)
		turn.Reset()
	}
	x := w.sums.all["203.0.113.7"]
	if len(x.entries) > maxOwn+slots || x.sum() != 10*maxOwn*3000 {
		t.Errorf("%d entries, %d points", len(x.entries), x.sum())
	}
}

// BenchmarkTake: what an event costs a tenant with alerts.
func BenchmarkTake(b *testing.B) {
	for _, entities := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("entities=%d", entities), func(b *testing.B) {
			s := settings()
			s.Threshold = 1e9
			w := newWatch("acme", s)
			var lines [][]byte
			for i := range 10_000 {
				lines = append(lines, match(fmt.Sprint(i), float64(i)/1000, func(e *schemas.Event) {
					e.ClientIP = fmt.Sprintf("203.0.%d.%d", i%entities>>8, i%entities&255)
					e.RuleID = fmt.Sprint("rule-", i%5)
					e.UserAgent, e.HTTPPath, e.HTTPHost = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "/products/42", "shop.example"
				}))
			}
			var turn Turn
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				turn.Take(w, lines[i%len(lines)], start, false)
				if i%100 == 0 {
					turn.Reset()
				}
			}
		})
	}
}
