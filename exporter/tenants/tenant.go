package tenants

import (
	"errors"
	"slices"
	"strings"
	"time"

	"datasync/exporter/tenants/conf"
	"datasync/feeds"
	"datasync/feeds/intake/alerts"
	"datasync/feeds/intake/redact"
	"datasync/schemas"
)

var tenantKeys = conf.NewObject(conf.Object{
	Name: "the tenant's file", Partial: true,
	Doc: "One tenant: what may come in as it, and where it goes. With channel, channels/<channel>.yaml is laid under it; the tenant's own values win, and sinks merge by name.",
	Keys: slices.Concat([]conf.Key{
		{Name: "tenant", Type: nameType, Required: true, Identity: true, Doc: "the tenant's name"},
		{Name: "channel", Type: nameType, Doc: "channels/<channel>.yaml holds what its tenants share"},
		{Name: "api_keys", Type: conf.OneOrMore(keyType), Doc: "keys that may post as this tenant; a key belongs to one tenant"},
	}, sharedKeys),
})

var channelKeys = conf.NewObject(conf.Object{
	Name: "the channel's file", Partial: true,
	Doc:  "What the tenants of a channel share.",
	Keys: sharedKeys,
})

var sharedKeys = []conf.Key{
	{Name: "redact", Type: conf.Obj(redactKeys), Doc: "what is taken out of events before they are kept"},
	{Name: "quota", Type: conf.Obj(quotaKeys), Doc: "how much the tenant may use"},
	{Name: "alerts", Type: conf.Obj(alertKeys), Doc: "an alert event where an entity's score passes a threshold"},
	{Name: "sinks", Type: conf.List(conf.Obj(sinkKeys)), Doc: "where the tenant's events go"},
}

var builtins = []string{"credentials", "tokens", "card_numbers", "ssn"}

var redactKeys = conf.NewObject(conf.Object{Name: "redact", Partial: true, Keys: []conf.Key{
	{Name: "builtin", Type: conf.List(conf.Enum(builtins...)), DefaultDoc: "all four", Doc: "built-in patterns to look for"},
	{Name: "query_params", Type: conf.List(conf.String()), Doc: "parameters of http_query whose values are taken out"},
	{Name: "fields", Type: conf.List(redactable), Doc: "fields that are taken out"},
	{Name: "patterns", Type: conf.List(conf.String()), Doc: "regular expressions (RE2), at most 32 of at most 512 bytes each; what they match in text is taken out"},
}})

var quotaKeys = conf.NewObject(conf.Object{Name: "quota", Partial: true, Keys: []conf.Key{
	{Name: "journal_bytes", Type: conf.Size(1 << 20), DefaultDoc: "its fair share", Doc: "undelivered bytes that are kept before the oldest expire, when the disk is short"},
	{Name: "events_per_second", Type: conf.Float(0.001, 1e9), DefaultDoc: "none", Doc: "events a second over HTTP before 429"},
}})

var alertKeys = conf.NewObject(conf.Object{Name: "alerts", Partial: true, Keys: []conf.Key{
	{Name: "entity", Type: conf.Enum(alerts.Entities()...), Default: "client_ip", Doc: "field by which scores are summed"},
	{Name: "window", Type: conf.Duration(time.Second), Default: "10m", Doc: "over how long, by the events' own times"},
	{Name: "threshold", Type: conf.Float(0.001, 1e9), Default: "100", Doc: "sum at which the alert is made (docs/alerts.md says what each event adds)"},
	{Name: "masked_rules", Type: conf.List(conf.String()), Doc: "rules that count for nothing; their events are kept"},
	{Name: "disabled_rules", Type: conf.List(conf.String()), Doc: "rules whose events are suppressed, and counted"},
	{Name: "direction", Type: conf.Enum("inbound", "outbound", "both"), Default: "inbound", Doc: "direction of the traffic that counts; events without one are inbound"},
}})

// redactable are the fields that can be taken out: those that events can do without.
// "net.dst_ip" is a member of a field that has members.
var redactable = conf.String().Where("a field of the event", func(s string) error {
	name, _, inner := strings.Cut(s, ".")
	for _, f := range schemas.Fields() {
		switch {
		case f.Name == name && f.Required:
			return &required{s}
		case f.Name == name && inner && len(f.Members) == 0:
			return errors.New("field \"" + name + "\" has no members; write \"" + name + "\"")
		}
	}
	return conf.Known("field", name, canonicalFields())
})

type required struct{ field string }

func (r *required) Error() string {
	return "field \"" + r.field + "\" is required in every event, so it cannot be taken out; remove it from the list"
}

var keyType = conf.Secret().Where("printable ASCII without spaces", func(s string) error {
	if printable.MatchString(s) {
		return nil
	}
	return errors.New("a header cannot carry it")
})

// tenant builds a tenant's settings from its merged value. own is the value of
// its own file.
func (l *loader) tenant(v, own *conf.Value) *Tenant {
	r, q := v.Obj("redact"), v.Obj("quota")
	t := &Tenant{
		ID: feeds.TenantID(v.Str("tenant")), Channel: own.Str("channel"), File: own.Pos.File,
		idAt: own.At("tenant"), keysAt: own.At("api_keys"),
		Redact: Redact{Builtin: r.Strs("builtin"), QueryParams: r.Strs("query_params"), Fields: r.Strs("fields"), Patterns: r.Strs("patterns")},
		Quota:  Quota{JournalBytes: q.Int("journal_bytes"), EventsPerSecond: q.Float("events_per_second")},
	}
	if !r.Has("builtin") {
		t.Redact.Builtin = builtins
	}
	l.redact(r)
	for _, k := range v.Strs("api_keys") {
		t.APIKeys = append(t.APIKeys, Secret(strings.Clone(k)))
	}
	if v.Given("alerts") {
		a := v.Obj("alerts")
		t.Alerts = &Alerts{Entity: a.Str("entity"), Window: a.Duration("window"), Threshold: a.Float("threshold"),
			MaskedRules: a.Strs("masked_rules"), DisabledRules: a.Strs("disabled_rules"), Direction: a.Str("direction")}
	}
	for _, sv := range v.List("sinks") {
		t.Sinks = append(t.Sinks, l.sink(t.ID, sv))
	}
	return t
}

// redact holds the rules to what intake will compile: rules that it refuses
// would leave the tenant's own secrets where they are.
func (l *loader) redact(r *conf.Value) {
	for name, spec := range map[string]redact.Spec{
		"query_params": {QueryParams: r.Strs("query_params")}, "fields": {Fields: r.Strs("fields")}, "patterns": {Patterns: r.Strs("patterns")},
	} {
		if _, err := redact.Compile(spec); err != nil {
			for text := range strings.Lines(err.Error()) {
				l.tell(r.At(name), "%s", strings.TrimSpace(text))
			}
		}
	}
}

// sinksOnce refuses two sinks of one name in one file.
func (l *loader) sinksOnce(v *conf.Value) {
	seen := map[string]conf.Pos{}
	for _, s := range v.List("sinks") {
		name := s.Str("name")
		if at, twice := seen[name]; twice && name != "" {
			l.tell(s.At("name"), "sink %q is here twice, first at line %d; rename one", name, at.Line)
		}
		seen[name] = s.At("name")
	}
}

// ServiceSchema is the JSON Schema of the service's file.
func ServiceSchema() []byte {
	return conf.JSONSchema(serviceKeys, "urn:datasync:schema:config")
}

// TenantSchema is the JSON Schema of a tenant's file.
func TenantSchema() []byte {
	return conf.JSONSchema(tenantKeys, "urn:datasync:schema:tenant")
}

// Public is the tenant's own file as a value for JSON: literal secrets as
// {"secret":"set"}, references as they are written.
func (t *Tenant) Public() any { return conf.Public(t.Raw, tenantKeys) }
