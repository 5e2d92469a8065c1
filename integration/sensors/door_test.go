package sensors

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/schemas"
)

// sample is a record as its source sends it, a year older than in testdata: an
// event from the future of this machine's clock would be refused.
func sample(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile("../../feeds/adapt/testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("2026-11-22", "2025-11-22", "1795309107", "1763773107", "1795310079", "1763774079").Replace(strings.TrimSpace(string(raw)))
}

// Every source posts to its path, in the shapes that it sends.
func TestEverySourcePosts(t *testing.T) {
	s := newService(t)
	s.Up(limit)
	one := `{"accepted":1,"rejected":[]}`
	for path, name := range map[string]string{"threatx": "threatx_block", "threatx/": "threatx_match", "deepfence": "deepfence_network_alert", "suricata": "suricata_eve_alert", "coraza": "coraza_crs_audit"} {
		format, slash, _ := strings.Cut(path, "/")
		post(t, s, "/v1/ingest/"+format+"/"+tenant+strings.Repeat("/", len(path)-len(format)-len(slash)), sample(t, name), 200, one)
	}
	// Deepfence pushes arrays, and tries the address first.
	alert := sample(t, "deepfence_network_alert")
	masked := strings.Replace(alert, `"masked":false`, `"masked":true`, 1)
	violation := `{"executed_at":1763773107123,"action":"block","block_ip":"203.0.113.9","direction":"inbound","local_ip":"10.0.0.12","remote_ip":"203.0.113.9","severity":"critical"}`
	post(t, s, "/v1/ingest/deepfence/"+tenant, `{"text":"Test message from Deepfence"}`, 200, `{"accepted":0,"rejected":[]}`)
	post(t, s, "/v1/ingest/deepfence/"+tenant, "["+alert+",\n"+masked+","+violation+"]", 200, `{"accepted":2,"rejected":[],"suppressed":1}`)
	// EVE records of all kinds, as lines; what is no detection is not stored.
	eve := sample(t, "suricata_eve_alert")
	flow := strings.Replace(eve, `"event_type":"alert"`, `"event_type":"flow"`, 1)
	post(t, s, "/v1/ingest/suricata", eve+"\n"+flow+"\n"+flow+"\n", 200, `{"accepted":1,"rejected":[],"suppressed":2}`)
	post(t, s, "/v1/ingest/suricata", flow, 200, `{"accepted":0,"rejected":[],"suppressed":1}`)
	// What has no time is told, by its place.
	other := strings.Replace(sample(t, "threatx_block"), `"request_id":"d3f0`, `"request_id":"d3f1`, 1) // its id comes from it
	post(t, s, "/v1/ingest/threatx", other+"\n"+`{"msg_type":"AuditEvent","timestamp":"2025-11-22T00: 58: 27Z","user":"ops","action":"login"}`+"\n"+`{"msg_type":"BlockEvent"}`, 200, `{"accepted":2,"rejected":[{"index":2,`)

	// Accepted above: 5, then 2, 1 and 2; suppressed 1, 2 and 1; one refused.
	if c := feeds(t, s, 15)["edge"]; c != (counts{Feed: "edge", Read: 15, Accepted: 10, Quarantined: 1, Suppressed: 4}) {
		t.Errorf("%+v", c)
	}
	s.End(false)
	events := delivered(t, s, "drops", func(e *schemas.Event) string { return e.EventID })
	kinds := map[string]int{}
	for _, e := range events {
		kinds[e.Source+" "+e.Kind+" "+e.Disposition]++
	}
	want := map[string]int{"threatx mitigation blocked": 2, "threatx match blocked": 1, "threatx audit logged": 1, "deepfence alert detected": 2, "deepfence alert blocked": 1, "suricata alert detected": 2, "coraza alert blocked": 1}
	if len(events) != 10 || fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("delivered %v, want %v", kinds, want)
	}
}

// A followed eve.json: rotated by renaming, with the program
// killed between, each alert arrives once, and what is none is counted.
func TestSuricataFollowedAcrossAKill(t *testing.T) {
	s := newService(t, "suricata")
	log := filepath.Join(s.Dir, "in", "suricata.json")
	start := time.Now().Add(-time.Minute)
	alerts := int64(0)
	write := func(n int) {
		f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			alerts++
			at := start.Add(time.Duration(alerts) * time.Millisecond).Format("2006-01-02T15:04:05.000000-0700")
			fmt.Fprintf(f, `{"timestamp":%q,"flow_id":%d,"event_type":"alert","src_ip":"203.0.113.7","src_port":5,"dest_ip":"10.0.0.12","dest_port":80,"proto":"TCP","alert":{"action":"blocked","gid":1,"signature_id":7,"rev":1,"signature":"s","category":"c","severity":1}}`+"\n"+
				`{"timestamp":%q,"flow_id":%d,"event_type":"flow","flow":{"pkts_toserver":3}}`+"\n", at, alerts, at, alerts)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	rotate := func(n int) {
		if err := os.Rename(log, filepath.Join(s.Dir, "in", fmt.Sprintf("suricata-%d.json", n))); err != nil {
			t.Fatal(err)
		}
	}
	write(200)
	s.Up(limit)
	feeds(t, s, 400)
	write(200)
	rotate(1)
	write(200)
	s.End(true)
	write(200)
	rotate(2)
	write(200)
	s.Up(limit)
	if c := feeds(t, s, 2*alerts)["suricata"]; c != (counts{Feed: "suricata", Read: 2 * alerts, Accepted: alerts, Suppressed: alerts}) {
		t.Errorf("%d alerts were written, and the feed says %+v", alerts, c)
	}
	s.End(false)
	got := delivered(t, s, "drops", func(e *schemas.Event) string { return e.CorrelationID })
	for i := int64(1); i <= alerts; i++ {
		e, there := got[fmt.Sprint(i)]
		if !there || e.RuleID != "7" || e.Disposition != "blocked" || e.EventTime != start.Add(time.Duration(i)*time.Millisecond).UnixMilli() {
			t.Fatalf("alert %d: there %v, %+v", i, there, e)
		}
	}
	if int64(len(got)) != alerts {
		t.Errorf("%d alerts, %d events", alerts, len(got))
	}
}
