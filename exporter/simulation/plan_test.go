package simulation_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"datasync/schemas"
)

// Where everybody listens, in a network that is nobody else's.
const (
	feedAddress   = "127.0.0.1:8088"
	adminAddress  = "127.0.0.1:8080"
	s3Address     = "127.0.0.1:9000"
	streamAddress = "127.0.0.1:4567"
)

// event is what the model knows of one event.
type event struct {
	id       string
	tenant   string
	kind     schemas.Kind
	severity int
	ip       string
	pad      int
}

// line is the event as it is posted, on the given time in ms.
func (e *event) line(at int64) string {
	return fmt.Sprintf(`{"schema":"mitigation/1","event_id":%q,"source":"test","kind":%q,"event_time":%d,"time_precision":"ms",`+
		`"action":"block","disposition":"blocked","enforced":true,"severity":%d,"client_ip":%q,"user_agent":%q}`+"\n",
		e.id, e.kind.String(), at, e.severity, e.ip, strings.Repeat("x", e.pad))
}

// sinkPlan is a sink as it was drawn.
type sinkPlan struct {
	tenant, name string
	// kind is dir, s3, kinesis or emitter.
	kind string
	// full: every event of the tenant. One such sink of drops each tenant has;
	// it tells the order of the journal.
	full bool
	// least is the severity that a filter asks for; 0: no filter.
	least int
	// end is what the names of drops end with; "" for streams.
	end               string
	manifest          bool
	ordered, combined bool
	settings          string
	receiver          *receiver // of an emitter
	// late sinks come while the service runs, and want what is accepted from then on.
	late bool
	// since, for those, is the time at which the service had taken note.
	since int64
	there bool
}

func (p *sinkPlan) key() string { return p.tenant + "/" + p.name }

// wants says whether the sink asks for an event.
func (p *sinkPlan) wants(e *event) bool {
	return (p.full || e.kind != schemas.KindRequest) && e.severity >= p.least
}

// plan is what one seed makes of the world.
type plan struct {
	rng     *rand.Rand
	dir     string
	tenants []string
	sinks   []*sinkPlan
}

func (p *plan) draw(w *world) {
	for i := range 1 + p.rng.IntN(3) {
		t := fmt.Sprintf("t%d", i+1)
		p.tenants = append(p.tenants, t)
		p.add(w, &sinkPlan{tenant: t, name: "all", kind: p.one("dir", "s3"), full: true, there: true})
		for j := range 1 + p.rng.IntN(3) {
			s := &sinkPlan{tenant: t, name: fmt.Sprintf("k%d", j), kind: p.one("dir", "s3", "kinesis", "emitter", "emitter"), there: true}
			if p.rng.IntN(3) == 0 {
				s.least = 1 + p.rng.IntN(4)
			}
			if j > 0 && p.rng.IntN(4) == 0 {
				s.late, s.there = true, false
			}
			p.add(w, s)
		}
	}
}

func (p *plan) one(of ...string) string { return of[p.rng.IntN(len(of))] }

func (p *plan) add(w *world, s *sinkPlan) {
	var b strings.Builder
	fmt.Fprintf(&b, "  - name: %s\n", s.name)
	switch s.kind {
	case "dir":
		fmt.Fprintf(&b, "    dir: {path: %q}\n", filepath.Join(p.dir, "out"))
		p.deliver(&b, s)
	case "s3":
		fmt.Fprintf(&b, "    s3: {bucket: lake, region: eu-west-1, endpoint: \"http://%s\", path_style: true}\n", s3Address)
		p.deliver(&b, s)
	case "kinesis":
		switch p.rng.IntN(3) {
		case 0:
			s.ordered = true
		case 1:
			s.combined = true
		}
		name := s.tenant + "-" + s.name
		w.newStream(name)
		fmt.Fprintf(&b, "    kinesis: {stream: %s, region: eu-west-1, endpoint: \"http://%s\", partition_key: client_ip, aggregate: %v, ordered: %v}\n",
			name, streamAddress, s.combined, s.ordered)
	case "emitter":
		speaks := speech(p.one("drain", "drain", "drain", "window", "protocol, protocol: relp"))
		s.receiver = w.newReceiver(s.key(), speaks)
		fmt.Fprintf(&b, "    emitter: {address: %q, tls: {ca: %q}, confirm: %s, rotate_every: %ds, retry_max: %ds}\n",
			s.receiver.address, w.certs.CA, speaks, 2+p.rng.IntN(10), 2+p.rng.IntN(20))
	}
	if s.full {
		b.WriteString("    kinds: [mitigation, match, alert, audit, request]\n")
	}
	if s.least > 0 {
		fmt.Fprintf(&b, "    filter: severity >= %d\n", s.least)
	}
	s.settings = b.String()
	p.sinks = append(p.sinks, s)
}

// deliver draws how drops are cut and written.
func (p *plan) deliver(b *strings.Builder, s *sinkPlan) {
	switch p.rng.IntN(4) {
	case 0:
		s.end = ".ndjson"
		b.WriteString("    compression: none\n")
	case 1:
		s.end = ".ndjson.zst"
		b.WriteString("    compression: zstd\n")
	case 2:
		s.end = ".parquet"
		b.WriteString("    format: parquet\n    compression: snappy\n") // see DESIGN.md, "zstd"
	default:
		s.end = ".ndjson.gz"
	}
	s.manifest = p.rng.IntN(3) == 0
	when := fmt.Sprintf("max_age: %ds", 1+p.rng.IntN(40))
	if p.rng.IntN(4) == 0 {
		when = `schedule: "* * * * *"`
	}
	fmt.Fprintf(b, "    deliver: {%s, max_events: %d, manifest: %v}\n", when, 5+p.rng.IntN(200), s.manifest)
}

// write puts the tenants' files as the plan stands.
func (p *plan) write() error {
	for _, t := range p.tenants {
		var b strings.Builder
		fmt.Fprintf(&b, "tenant: %s\napi_keys: [key-of-%s]\nsinks:\n", t, t)
		for _, s := range p.sinks {
			if s.tenant == t && s.there {
				b.WriteString(s.settings)
			}
		}
		if err := os.WriteFile(filepath.Join(p.dir, "tenants", t+".yaml"), []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// service is the service's file.
func (p *plan) service() error {
	for _, d := range []string{"tenants", "out", "data"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(p.dir, "datasync.yaml"), fmt.Appendf(nil, `data_dir: %[1]s/data
journal: {retain: 10m, max_bytes: 64MiB}
memory: 16MiB
feeds:
  - name: edge
    http: {listen: %[2]q}
    format: auto
tenants: %[1]s/tenants
admin: {listen: %[3]q}
`, p.dir, feedAddress, adminAddress), 0o600)
}
