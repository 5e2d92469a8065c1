package tenants

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"datasync/exporter/tenants/conf"
	"datasync/formats"
	"datasync/schemas"
)

// contractService is the service's file of the contract, every key of it, with
// values where the contract leaves dots.
const contractService = `
data_dir: ./data
journal:
  durability: disk
  retain: 24h
  max_bytes: 50GiB
memory: 256MiB
egress: {deny_private: false, allow: [10.1.2.3], deny: [10.0.0.0/8]}
feeds:
  - name: mitigations
    kafka: {brokers: ["127.0.0.1:9092"], topic: mitigations, group: datasync, tls: {ca: cert.pem}, sasl: {mechanism: scram-sha-512, username: u, password: "${env:TEST_PASSWORD}"}}
    format: canonical
  - name: edge
    http: {listen: "127.0.0.1:8088", max_body: 10MiB, tls: {cert: cert.pem, key: key.pem}}
    format: auto
  - name: agents
    tls: {listen: "127.0.0.1:6514", cert: cert.pem, key: key.pem, client_ca: cert.pem, tenant: acme}
    format: threatx
  - name: backfill
    file: {path: "./in/*.ndjson", follow: true, tenant: acme}
    format: suricata
  - name: vendor-stream
    kinesis: {stream: s, region: eu-west-1, endpoint: "https://kinesis.example", role_arn: "arn:aws:iam::123456789012:role/r", external_id: x, tenant: acme}
    format: netacea
  - name: waf
    s3: {queue: "https://sqs.eu-west-1.amazonaws.com/123456789012/waf", region: eu-west-1, endpoint: "https://s3.example", role_arn: "arn:aws:iam::123456789012:role/r", external_id: x, tenant: acme}
    format: canonical
tenants: ./tenants
admin: {listen: "127.0.0.1:8080", token: "${env:DATASYNC_ADMIN_TOKEN}", hosts: [ops.example]}
log: {level: info, format: json}
notify: {webhook: "https://hooks.example/x"}
`

// contractTenant is the tenant's file of the contract.
const contractTenant = `
tenant: acme
channel: emea-retail
api_keys: ["${env:ACME_KEY}"]
redact: {builtin: [credentials, tokens, card_numbers, ssn], query_params: [session], fields: [http_referrer]}
quota: {journal_bytes: 5GiB, events_per_second: 20000}
alerts: {entity: client_ip, window: 10m, threshold: 100, masked_rules: ["942100"], disabled_rules: [], direction: inbound}
sinks:
  - name: lake
    s3: {bucket: acme-sec, region: eu-west-1, prefix: bots, endpoint: "https://s3.example", path_style: true, role_arn: "arn:aws:iam::123456789012:role/r", external_id: x, sse: aws:kms, kms_key: k, storage_class: STANDARD_IA, conditional_put: true}
    format: parquet
    compression: zstd
    schema: canonical
    deliver: {schedule: "*/5 * * * *", timezone: Europe/London, max_events: 1000000, max_bytes: 128MiB, max_age: 5m, manifest: true, empty: false}
    kinds: [mitigation, match, alert, audit]
    filter: 'enforced && client_country != "GB"'
    fields: [event_id, event_time, client_ip, action]
    sample: 1.0
  - name: drops
    dir: {path: ./out}
    format: ndjson
    compression: gzip
    deliver: {schedule: "@hourly"}
  - name: stream
    kinesis: {stream: acme-bots, region: eu-west-1, endpoint: "https://kinesis.example", role_arn: "arn:aws:iam::123456789012:role/r", external_id: x, partition_key: client_ip, aggregate: false, ordered: false}
  - name: siem
    emitter: {address: "siem.acme.example:6514", framing: lines, tls: {ca: cert.pem, cert: cert.pem, key: key.pem, server_name: siem, min_version: "1.2"}, confirm: drain, rotate_every: 10s, rotate_bytes: 256MiB, retry_max: 30s}
  - name: siem2
    emitter: {address: ["a.example:6514", "b.example:6514"], framing: octet-counted, syslog: {facility: local0, app_name: datasync, msgid: x}, confirm: protocol, protocol: relp}
  - name: security-lake
    s3: {bucket: b, security_lake: {source: s, account: "123456789012"}}
    format: parquet
    schema: ocsf-1.3
    start: oldest
`

func contractFiles(t *testing.T) {
	t.Helper()
	t.Setenv("TEST_PASSWORD", "pw")
	t.Setenv("DATASYNC_ADMIN_TOKEN", "admin-token")
	t.Setenv("ACME_KEY", "acme-key")
	tree(t, map[string]string{"datasync.yaml": contractService, "tenants/acme.yaml": contractTenant, "tenants/channels/emea-retail.yaml": ""})
	certificate(t)
}

func TestContractServiceIsUnderstood(t *testing.T) {
	contractFiles(t)
	s, ps := load("datasync.yaml", conf.Refs{})
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"data_dir", s.DataDir, "./data"}, {"journal", s.Journal, JournalSettings{24 * time.Hour, 50 << 30}},
		{"memory", s.Memory, int64(256 << 20)},
		{"egress", s.Egress, Egress{Allow: []string{"10.1.2.3/32"}, Deny: []string{"10.0.0.0/8"}}},
		{"tenants", s.Tenants, "./tenants"}, {"admin", s.Admin, Admin{"127.0.0.1:8080", "admin-token", []string{"ops.example"}}},
		{"log", s.Log, Log{"info", "json"}}, {"notify", s.Notify, Notify{"https://hooks.example/x"}},
		{"kafka", *s.Feeds[0].Kafka, KafkaFeed{Brokers: []string{"127.0.0.1:9092"}, Topic: "mitigations", Group: "datasync",
			TLS: &ClientTLS{CA: "cert.pem", MinVersion: tls.VersionTLS12}, SASLMechanism: "scram-sha-512", SASLUser: "u", SASLPassword: "pw"}},
		{"http", *s.Feeds[1].HTTP, HTTPFeed{"127.0.0.1:8088", 10 << 20, "cert.pem", "key.pem"}},
		{"tls", *s.Feeds[2].TLS, TLSFeed{"127.0.0.1:6514", "cert.pem", "key.pem", "cert.pem"}},
		{"file", *s.Feeds[3].File, FileFeed{"./in/*.ndjson", true}},
		{"kinesis", *s.Feeds[4].Kinesis, KinesisFeed{"s", AWS{"eu-west-1", "https://kinesis.example", "arn:aws:iam::123456789012:role/r", "x"}, "oldest"}},
		{"s3", *s.Feeds[5].S3, S3Feed{"https://sqs.eu-west-1.amazonaws.com/123456789012/waf", AWS{"eu-west-1", "https://s3.example", "arn:aws:iam::123456789012:role/r", "x"}}},
		{"s3 tenant", s.Feeds[5].Tenant, s.Feeds[2].Tenant},
		{"tenant", s.Feeds[4].Tenant, s.Feeds[2].Tenant}, {"format", s.Feeds[4].Format, "netacea"},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.what, c.got, c.want)
		}
	}
}

func TestContractTenantIsUnderstood(t *testing.T) {
	contractFiles(t)
	v, ps := conf.Parse("acme.yaml", []byte(contractTenant), tenantKeys, conf.Refs{})
	l := newLoader(conf.Refs{})
	tn := l.tenant(v, v)
	if left := supported(append(append(ps, v.Complete()...), l.problems...)); len(left) > 0 {
		t.Fatal(left)
	}
	lake, drops, siem, siem2 := tn.Sinks[0], tn.Sinks[1], tn.Sinks[3], tn.Sinks[4]
	if lake.Deliver.Schedule == nil || lake.Filter == nil {
		t.Fatal("schedule or filter is not compiled")
	}
	lake.Deliver.Schedule = nil
	role := AWS{"eu-west-1", "https://s3.example", "arn:aws:iam::123456789012:role/r", "x"}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"redact", tn.Redact, Redact{Builtin: builtins, QueryParams: []string{"session"}, Fields: []string{"http_referrer"}}},
		{"quota", tn.Quota, Quota{5 << 30, 20000}}, {"keys", tn.APIKeys, []Secret{"acme-key"}},
		{"alerts", *tn.Alerts, Alerts{Entity: "client_ip", Window: 10 * time.Minute, Threshold: 100, MaskedRules: []string{"942100"}, DisabledRules: []string{}, Direction: "inbound"}},
		{"s3", *lake.S3, S3Sink{Bucket: "acme-sec", Prefix: "bots", AWS: role, PathStyle: true, SSE: "aws:kms", KMSKey: "k", StorageClass: "STANDARD_IA", ConditionalPut: true}},
		{"output", lake.Output, Output{Format: formats.Parquet, Compression: formats.Zstd, Schema: "canonical", Kinds: schemas.DefaultKinds,
			Filter: `enforced && client_country != "GB"`, Fields: []string{"event_id", "event_time", "client_ip", "action"}, Sample: 1}},
		{"deliver", lake.Deliver, Deliver{Cron: "*/5 * * * *", Timezone: "Europe/London", MaxEvents: 1000000, MaxBytes: 128 << 20, MaxAge: 5 * time.Minute, Manifest: true}},
		{"dir", *drops.Dir, DirSink{"./out"}}, {"no age beside a schedule", drops.Deliver.MaxAge, time.Duration(0)},
		{"emitter", *siem.Emitter, EmitterSink{Addresses: []string{"siem.acme.example:6514"}, Framing: "lines",
			TLS:     ClientTLS{CA: "cert.pem", Cert: "cert.pem", Key: "key.pem", ServerName: "siem", MinVersion: tls.VersionTLS12},
			Confirm: "drain", RotateEvery: 10 * time.Second, RotateBytes: 256 << 20, RetryMax: 30 * time.Second}},
		{"syslog", siem2.Emitter.Syslog, Syslog{"local0", "datasync", "x"}}, {"relp", siem2.Emitter.Protocol, "relp"},
		{"addresses", siem2.Emitter.Addresses, []string{"a.example:6514", "b.example:6514"}},
		{"compression of a stream", siem.Output.Compression, formats.None}, {"start", tn.Sinks[5].Start, "oldest"},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.what, c.got, c.want)
		}
	}
}

func TestDefaults(t *testing.T) {
	tree(t, map[string]string{"datasync.yaml": "# nothing\n", "tenants/a.yaml": "tenant: a\nsinks:\n  - name: d\n    dir: {path: out}\n  - name: p\n    dir: {path: out}\n    format: parquet\n    deliver: {schedule: '@daily', empty: true}\n  - name: e\n    emitter: {address: 'h:1'}\n"})
	s, err := Load("datasync.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if want := (&Service{DataDir: "./data", Journal: JournalSettings{24 * time.Hour, 50 << 30}, Memory: 256 << 20,
		Tenants: "./tenants", Admin: Admin{Listen: "127.0.0.1:8080"}, Log: Log{"info", "json"}}); !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v\nwant %+v", s, want)
	}
	set, ps := LoadTenants(s.Tenants)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	a := set.Tenant("a")
	if !reflect.DeepEqual(a.Redact, Redact{Builtin: builtins}) {
		t.Errorf("redact: %+v", a.Redact)
	}
	want := Deliver{Timezone: "UTC", MaxEvents: 1000000, MaxBytes: 128 << 20, MaxAge: 5 * time.Minute}
	if d := a.Sinks[0]; d.Deliver != want || d.Output.Compression != formats.Gzip || d.Output.Kinds != schemas.DefaultKinds || d.Output.Sample != 1 || d.Start != "now" {
		t.Errorf("%+v", d)
	}
	if p := a.Sinks[1]; p.Output.Compression != formats.Zstd || p.Deliver.MaxAge != 0 || !p.Deliver.Manifest {
		t.Errorf("%+v", p)
	}
	if e := a.Sinks[2].Emitter; e.TLS.MinVersion != tls.VersionTLS12 || e.Confirm != "drain" || e.Framing != "lines" {
		t.Errorf("%+v", e)
	}
}

func TestPublicShowsNoSecret(t *testing.T) {
	raw := "tenant: acme\napi_keys: [\"${env:ACME_KEY}\", literal-key, \"x${env:ACME_KEY}\"]\nquota: {events_per_second: 20, journal_bytes: 5GiB}\nsinks:\n  - name: d\n    dir: {path: out}\n    deliver: {max_events: 10, manifest: true}\n"
	t.Setenv("ACME_KEY", "acme-key")
	tree(t, map[string]string{"t/acme.yaml": raw})
	set, ps := LoadTenants("t")
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	b, err := json.Marshal(set.Tenant("acme").Public())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"api_keys":["${env:ACME_KEY}",{"secret":"set"},{"secret":"set"}],"quota":{"events_per_second":20,"journal_bytes":"5GiB"},` +
		`"sinks":[{"deliver":{"manifest":true,"max_events":10},"dir":{"path":"out"},"name":"d"}],"tenant":"acme"}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	all, err := json.Marshal(set.Tenant("acme").APIKeys)
	if err != nil || strings.Contains(string(all), "key") {
		t.Errorf("%s %v", all, err)
	}
}

func TestSchemasAndReferenceAreFresh(t *testing.T) {
	for name, b := range map[string][]byte{"config": ServiceSchema(), "tenant": TenantSchema()} {
		var s struct {
			Properties map[string]any
			Schema     string `json:"$schema"`
		}
		if err := json.Unmarshal(b, &s); err != nil || len(s.Properties) < 7 || s.Schema == "" {
			t.Errorf("%s: %v %d", name, err, len(s.Properties))
		}
		golden(t, "testdata/"+name+".schema.json", string(b))
	}
	var page bytes.Buffer
	if err := Reference(&page); err != nil {
		t.Fatal(err)
	}
	golden(t, "../../docs/configuration.md", page.String())
}

func TestSchedules(t *testing.T) {
	at := time.Date(2026, 3, 28, 23, 30, 0, 0, time.UTC)
	for _, c := range []struct{ spec, zone, want string }{
		{"*/5 * * * *", "", "2026-03-28T23:35:00Z"}, {"@hourly", "UTC", "2026-03-29T00:00:00Z"},
		{"0 9 * * MON-FRI", "Europe/London", "2026-03-30T08:00:00Z"}, {"@every 10m", "", "2026-03-28T23:40:00Z"},
	} {
		s, err := CompileSchedule(c.spec, c.zone)
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		if got := s.Next(at).UTC().Format(time.RFC3339); got != c.want {
			t.Errorf("%s in %s: %s, want %s", c.spec, c.zone, got, c.want)
		}
	}
}
