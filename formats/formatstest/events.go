// Package formatstest has what tests of encoders share: events that look like
// real ones, and the suite that every encoder passes.
package formatstest

import (
	"fmt"
	"math/rand/v2"

	"datasync/schemas"
)

// Events makes n events of about 735 bytes of JSON each: of one tenant, with few
// clients, rules and hosts, as drops have them. The same seed gives the same.
func Events(seed uint64, n int) []schemas.Event {
	r := rand.New(rand.NewPCG(seed, 1))
	events := make([]schemas.Event, n)
	for i := range events {
		events[i] = event(r, seed, i)
	}
	return events
}

// Lines is the events as canonical JSON lines.
func Lines(events []schemas.Event) []byte {
	var b []byte
	for i := range events {
		b = append(schemas.AppendJSON(b, &events[i]), '\n')
	}
	return b
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

// event is the i-th: mostly decisions at the edge, some matches and alerts.
func event(r *rand.Rand, seed uint64, i int) schemas.Event {
	at := 1795309107000 + int64(i)*37 + int64(r.IntN(900))
	e := schemas.Event{
		Schema: schemas.Version, EventID: fmt.Sprintf("gen-%d-%d", seed, i),
		TenantID: "acme", Source: "netacea", SourceInstance: fmt.Sprintf("edge-%d", r.IntN(8)),
		VendorVersion: "6.0.13", Integration: pick(r, "cloudflare", "cloudfront"), Kind: "mitigation",
		EventTime: at, TimePrecision: "ms", IngestTime: at + 150 + int64(r.IntN(400)),
		RequestID: fmt.Sprintf("%016x", r.Uint64()), Action: "block", Disposition: "blocked", Enforced: true, Mode: "mitigate",
		ActionRaw: pick(r, "ip_blocked", "ua_blocked"), CodesRaw: pick(r, "211", "111", "311"),
		RuleID: fmt.Sprint(202200 + r.IntN(40)), RuleName: pick(r, "Stuffing", "Scraper"),
		RuleCategory: pick(r, "bot", "scraper"), MatchOn: pick(r, "ip", "ua", "visitor"), Severity: int8(r.IntN(4) + 1),
		ClientIP: fmt.Sprintf("%d.%d.%d.%d", 1+r.IntN(220), r.IntN(256), r.IntN(256), r.IntN(256)), ClientASN: schemas.Int{V: int64(64500 + r.IntN(30)), OK: true},
		ClientCountry: pick(r, "GB", "US", "DE", "FR", "BR"),
		UserAgent:     fmt.Sprintf("Mozilla/5.0 (X11; Linux) Chrome/%d.0.%d.0", 100+r.IntN(40), r.IntN(20)),
		SessionID:     fmt.Sprintf("%016x", r.Uint64()),
		HTTPMethod:    pick(r, "GET", "GET", "POST"), HTTPHost: pick(r, "shop.example.com", "api.example.com"),
		HTTPPath: fmt.Sprintf("/products/%d", r.IntN(5000)), HTTPProtocol: "HTTP/2",
		HTTPStatus: schemas.Int{V: 403, OK: true}, BytesOut: schemas.Int{V: int64(r.IntN(9000)), OK: true},
		DurationMs: schemas.Float{V: float64(r.IntN(90000)) / 100, OK: true},
	}
	if r.IntN(4) == 0 {
		e.HTTPQuery, e.HTTPReferrer = fmt.Sprintf("page=%d&sort=price", r.IntN(50)), "https://shop.example.com/"
	}
	switch r.IntN(20) {
	case 0:
		sensor(r, &e)
	case 1:
		e.Kind, e.Source, e.Score = "match", "threatx", schemas.Float{V: float64(r.IntN(1000)) / 10, OK: true}
		e.Matches = []schemas.Match{{RuleID: "1001", Name: "SQL injection, \"union\"", Category: "SqlInjection", Stage: "Exploitation", Score: e.Score,
			Blocking: schemas.Bool{V: i%2 == 0, OK: true}, Location: "args", Data: "id=1' OR '1'='1"}, {RuleID: "1002", Blocking: schemas.Bool{OK: true}}}
		e.Extra = `{"vendor.note":{"a":[1,2.50,null]},"x":"\u00e9"}`
	}
	return e
}

// sensor makes it an alert of a sensor.
func sensor(r *rand.Rand, e *schemas.Event) {
	e.Kind, e.Source, e.Action, e.Disposition, e.Enforced = "alert", "deepfence", "log", "detected", false
	e.Tactics, e.Techniques = []string{"initial-access"}, []string{"T1190", "T1133"}
	e.Net = schemas.Net{OK: true, DstIP: "10.0.0.8", DstPort: schemas.Int{V: 443, OK: true}, Transport: "tcp", Direction: "inbound"}
	e.Host = schemas.Host{OK: true, Name: fmt.Sprintf("node-%d", r.IntN(6)), Pod: "web-7c9", ClusterName: "prod"}
	e.Agg = schemas.Agg{OK: true, Count: schemas.Int{V: int64(r.IntN(90)), OK: true}, FirstSeen: schemas.Int{V: e.EventTime - 60000, OK: true}}
	e.Meta = schemas.Meta{OK: true, Labels: []string{"bot", "datacenter"}, Unmapped: `{"k":1}`}
	e.Decision = schemas.Decision{OK: true, Status: schemas.Int{V: 0, OK: true}}
}
