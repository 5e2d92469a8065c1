package tenants

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"datasync/exporter/tenants/conf"
	"datasync/feeds"
)

// Problem is one mistake in a file: FILE:LINE:COL: what is wrong, and what
// would be right.
type Problem = conf.Problem

// Problems is every mistake found.
type Problems = conf.Problems

// Load reads and checks the service's file; references are resolved from the
// environment and the file system. The error is Problems: all that is wrong.
// The tenants' files are LoadTenants' to read.
func Load(path string) (*Service, error) {
	s, ps := load(path, conf.Refs{})
	if len(ps) > 0 {
		return nil, ps.Sorted()
	}
	return s, nil
}

// Validate checks the service's file, its tenants' files, and one against the
// other: all that can be checked without a network. The settings are those
// that are sound; the service is nil where its file is not.
func Validate(path string) (*Service, *Set, Problems) {
	s, ps := load(path, conf.Refs{})
	if s == nil {
		return nil, NewSet(), ps.Sorted()
	}
	set, more := LoadTenants(s.Tenants)
	ps = append(ps, more...)
	var ids []string
	for _, t := range set.All() {
		ids = append(ids, string(t.ID))
	}
	for _, f := range s.Feeds {
		if f.Tenant == "" || set.Tenant(f.Tenant) != nil || len(more) > 0 {
			continue
		}
		hint := fmt.Sprintf("make %s", filepath.Join(s.Tenants, string(f.Tenant)+".yaml"))
		if near := conf.Nearest(string(f.Tenant), ids); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		ps = append(ps, f.tenantAt.Problem("feed %s is for tenant %q, which has no file in %s; %s", f.Name, f.Tenant, s.Tenants, hint))
	}
	if len(ps) > 0 {
		s = nil
	}
	return s, set, ps.Sorted()
}

// load gives the service even where there are problems, as far as it is known;
// nil where the file cannot be read.
func load(path string, refs conf.Refs) (*Service, Problems) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, Problems{{File: path, Message: "cannot read the configuration: " + reason(err)}}
	}
	v, ps := conf.Parse(path, data, serviceKeys, refs)
	if v == nil {
		return nil, ps
	}
	l := newLoader(refs)
	l.problems = append(ps, v.Complete()...)
	s := l.service(v)
	return s, l.problems
}

var serviceKeys = conf.NewObject(conf.Object{
	Name: "the service's file",
	Doc:  "The service's configuration. Unknown keys are errors. ${env:NAME} and ${file:PATH} stand for secrets in any string; relative paths are relative to the working directory.",
	Keys: []conf.Key{
		{Name: "data_dir", Type: conf.String(), Default: "./data", Doc: "folder for journal, state and quarantine"},
		{Name: "journal", Type: conf.Obj(journalKeys), Doc: "the log that every event is written to before its feed is answered"},
		{Name: "memory", Type: conf.Size(8 << 20), Default: "256MiB", Doc: "budget for encoding and buffers, all lanes together"},
		{Name: "egress", Type: conf.Obj(egressKeys), Doc: "which addresses sinks may reach; link-local and metadata addresses are refused always"},
		{Name: "feeds", Type: conf.List(conf.Obj(feedKeys)), Doc: "where events come from"},
		{Name: "tenants", Type: conf.String(), Default: "./tenants", Doc: "folder of the tenants' files, one each, re-read on change; channels/ in it holds what tenants share"},
		{Name: "admin", Type: conf.Obj(adminKeys), Doc: "the admin API and console"},
		{Name: "log", Type: conf.Obj(logKeys), Doc: "how the service logs, on standard error"},
		{Name: "notify", Type: conf.Obj(notifyKeys), Doc: "who is told when a lane is parked or suspended for long, and when it runs again"},
	},
})

var journalKeys = conf.NewObject(conf.Object{Name: "journal", Keys: []conf.Key{
	{Name: "durability", Type: conf.Enum("disk", "source"), Default: "disk", Doc: "disk: synced to disk before a feed is answered; the only value for now (source is reserved and refused)"},
	{Name: "retain", Type: conf.Duration(0), Default: "24h", Doc: "delivered events stay this long, for replay"},
	{Name: "max_bytes", Type: conf.Size(1 << 20), Default: "50GiB", Doc: "hard cap on disk; near it delivered events go first, then the oldest of tenants over their quota or fair share, counted"},
}})

var egressKeys = conf.NewObject(conf.Object{Name: "egress", Keys: []conf.Key{
	{Name: "deny_private", Type: conf.Bool(), Default: "false", Doc: "refuse private addresses (RFC 1918, RFC 4193)"},
	{Name: "allow", Type: conf.List(prefixType), Doc: "addresses and prefixes that are allowed though private"},
	{Name: "deny", Type: conf.List(prefixType), Doc: "addresses and prefixes that are refused"},
}})

var adminKeys = conf.NewObject(conf.Object{Name: "admin", Keys: []conf.Key{
	{Name: "listen", Type: listenType, Default: "127.0.0.1:8080", Doc: "address to listen on"},
	{Name: "token", Type: conf.Secret(), Doc: "bearer token that requests must carry; may be absent only on loopback"},
	{Name: "hosts", Type: conf.List(conf.String()), Doc: "names that requests may carry as Host besides the listen address"},
}})

var logKeys = conf.NewObject(conf.Object{Name: "log", Keys: []conf.Key{
	{Name: "level", Type: conf.Enum("debug", "info", "warn", "error"), Default: "info", Doc: "least level that is logged"},
	{Name: "format", Type: conf.Enum("json", "console"), Default: "json", Doc: "one JSON object a line, or lines for people"},
}})

var notifyKeys = conf.NewObject(conf.Object{Name: "notify", Keys: []conf.Key{
	{Name: "webhook", Type: urlType, Doc: "URL that is posted to"},
}})

// service builds the settings from checked values.
func (l *loader) service(v *conf.Value) *Service {
	j, e, a, lg := v.Obj("journal"), v.Obj("egress"), v.Obj("admin"), v.Obj("log")
	s := &Service{
		DataDir: v.Str("data_dir"),
		Journal: JournalSettings{Retain: j.Duration("retain"), MaxBytes: j.Int("max_bytes")},
		Memory:  v.Int("memory"),
		Egress:  Egress{DenyPrivate: e.Bool("deny_private"), Allow: prefixesOf(e.Strs("allow")), Deny: prefixesOf(e.Strs("deny"))},
		Tenants: v.Str("tenants"),
		Admin:   Admin{Listen: a.Str("listen"), Token: Secret(a.Str("token")), Hosts: a.Strs("hosts")},
		Log:     Log{Level: lg.Str("level"), Format: lg.Str("format")},
		Notify:  Notify{Webhook: v.Obj("notify").Str("webhook")},
	}
	if j.Str("durability") == "source" {
		l.tell(j.At("durability"), "durability source is reserved: events would be safe only as long as the source keeps them; use disk")
	}
	if !a.Given("token") && !loopback(s.Admin.Listen) {
		l.tell(a.At("listen"), "admin listens on %s, which others can reach, so it needs a token; set admin.token: ${env:DATASYNC_ADMIN_TOKEN}, or listen on 127.0.0.1:8080", s.Admin.Listen)
	}
	taken := []listener{{addr: s.Admin.Listen, what: "admin"}}
	names := map[string]conf.Pos{}
	for _, fv := range v.List("feeds") {
		f := l.feed(fv)
		if at, twice := names[f.Name]; twice && f.Name != "" {
			l.tell(fv.At("name"), "feed %q is here twice, first at line %d; rename one", f.Name, at.Line)
		}
		names[f.Name] = fv.At("name")
		for _, kind := range []string{"http", "tls"} {
			if t := fv.Obj(kind); fv.Has(kind) && t.Has("listen") {
				taken = l.claim(taken, listener{addr: t.Str("listen"), what: "feed " + f.Name}, t.At("listen"))
			}
		}
		s.Feeds = append(s.Feeds, f)
	}
	l.filesOnce(v.List("feeds"))
	return s
}

// filesOnce refuses a second feed over the same files: each event would come twice.
func (l *loader) filesOnce(fvs []*conf.Value) {
	seen := map[string]string{}
	for _, fv := range fvs {
		if !fv.Has("file") || !fv.Obj("file").Has("path") {
			continue
		}
		path := filepath.Clean(fv.Obj("file").Str("path"))
		if other, twice := seen[path]; twice {
			l.tell(fv.Obj("file").At("path"), "feed %s already reads %s; every event would come twice, so remove one", other, path)
			continue
		}
		seen[path] = fv.Str("name")
	}
}

// listener is an address that is listened on.
type listener struct{ addr, what string }

// claim adds an address, unless it meets one that is taken.
func (l *loader) claim(taken []listener, n listener, at conf.Pos) []listener {
	host, port, err := net.SplitHostPort(n.addr)
	if err != nil || port == "0" {
		return taken
	}
	for _, o := range taken {
		h, p, err := net.SplitHostPort(o.addr)
		if err == nil && p == port && (h == host || wildcard(h) || wildcard(host)) {
			l.tell(at, "%s already listens on %s; give this another port", o.what, o.addr)
			return taken
		}
	}
	return append(taken, n)
}

func wildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// feedFormats is the contract's list; auto is for HTTP feeds alone.
var feedFormats = []string{"canonical", "netacea", "threatx", "deepfence", "suricata", "coraza",
	"cloudflare-firewall", "cloudflare-http", "cloudfront", "aws-waf", "auto"}

var feedKinds = []string{"http", "file", "kafka", "tls", "kinesis", "s3"}

var feedKeys = conf.NewObject(conf.Object{
	Name: "feed", OneOf: feedKinds,
	Doc: "A source of events. Without tenant it takes the tenant from each event's tenant_id.",
	Keys: []conf.Key{
		{Name: "name", Type: nameType, Required: true, Identity: true, Doc: "the feed's name; it becomes part of the keys of drops"},
		{Name: "http", Type: conf.Obj(httpFeedKeys), Doc: "events are posted to POST /v1/ingest/{format}/{tenant}"},
		{Name: "file", Type: conf.Obj(fileFeedKeys), Doc: "files of JSON lines are read"},
		{Name: "kafka", Type: conf.Obj(kafkaFeedKeys), Doc: "a Kafka topic is consumed"},
		{Name: "tls", Type: conf.Obj(tlsFeedKeys), Doc: "JSON lines come over TLS"},
		{Name: "kinesis", Type: conf.Obj(kinesisFeedKeys), Doc: "a Kinesis stream is consumed"},
		{Name: "s3", Type: conf.Obj(s3FeedKeys), Doc: "the objects that S3 announces through a queue are read"},
		{Name: "format", Type: conf.Enum(feedFormats...), DefaultDoc: "auto (http), canonical (others)", Doc: "what the source speaks; auto: by the path of the request, on an HTTP feed"},
	},
})

var serverTLSKeys = conf.NewObject(conf.Object{Name: "tls", Keys: []conf.Key{
	{Name: "cert", Type: conf.String(), Required: true, Doc: "PEM file of the certificate and its chain"},
	{Name: "key", Type: conf.String(), Required: true, Doc: "PEM file of its key"},
}})

var httpFeedKeys = conf.NewObject(conf.Object{Name: "http", Keys: []conf.Key{
	{Name: "listen", Type: listenType, Required: true, Doc: "address to listen on"},
	{Name: "max_body", Type: conf.Size(1 << 10), Default: "10MiB", Doc: "largest body, before and after decompression"},
	{Name: "tls", Type: conf.Obj(serverTLSKeys), Doc: "serve HTTPS; without it plain HTTP"},
}})

var feedTenantKey = conf.Key{Name: "tenant", Type: nameType, Doc: "tenant of all its events; required where the format names none"}

var fileFeedKeys = conf.NewObject(conf.Object{Name: "file", Keys: []conf.Key{
	{Name: "path", Type: globType, Required: true, Doc: "files to read; * ? and [] match within a name"},
	{Name: "follow", Type: conf.Bool(), Default: "false", Doc: "go on as files grow and new ones appear"},
	feedTenantKey,
}})

var kafkaFeedKeys = conf.NewObject(conf.Object{Name: "kafka", Keys: []conf.Key{
	{Name: "brokers", Type: conf.OneOrMore(hostPortType), Required: true, Doc: "host:port of some brokers"},
	{Name: "topic", Type: conf.String(), Required: true, Doc: "topic to read"},
	{Name: "group", Type: conf.String(), Default: "datasync", Doc: "consumer group that the offsets are committed under"},
	{Name: "tls", Type: conf.Obj(clientTLSKeys), Doc: "speak TLS to the brokers"},
	{Name: "sasl", Type: conf.Obj(saslKeys), Doc: "log in to the brokers"},
	feedTenantKey,
}})

var saslKeys = conf.NewObject(conf.Object{Name: "sasl", Keys: []conf.Key{
	{Name: "mechanism", Type: conf.Enum("plain", "scram-sha-256", "scram-sha-512"), Required: true, Doc: "how to log in"},
	{Name: "username", Type: conf.String(), Required: true, Doc: "who logs in"},
	{Name: "password", Type: conf.Secret(), Required: true, Doc: "with which password"},
}})

var tlsFeedKeys = conf.NewObject(conf.Object{Name: "tls", Keys: []conf.Key{
	{Name: "listen", Type: listenType, Required: true, Doc: "address to listen on"},
	{Name: "cert", Type: conf.String(), Required: true, Doc: "PEM file of the certificate and its chain"},
	{Name: "key", Type: conf.String(), Required: true, Doc: "PEM file of its key"},
	{Name: "client_ca", Type: conf.String(), Doc: "PEM file of the authorities whose client certificates are let in; without it everybody is"},
	{Name: "tenant", Type: nameType, DefaultDoc: "with client_ca the tenant that the client's certificate names, else each event's", Doc: "tenant of all its events"},
}})

var kinesisFeedKeys = conf.NewObject(conf.Object{Name: "kinesis", Keys: slices.Concat([]conf.Key{
	{Name: "stream", Type: conf.String(), Required: true, Doc: "name or ARN of the stream to read"},
}, awsKeys, []conf.Key{
	{Name: "start", Type: conf.Enum("oldest", "now"), Default: "oldest", Doc: "where a new feed begins: with the oldest record that the stream holds, or with what comes from then on"},
	feedTenantKey,
})})

var s3FeedKeys = conf.NewObject(conf.Object{Name: "s3", Keys: slices.Concat([]conf.Key{
	{Name: "queue", Type: urlType, Required: true, Doc: "URL of the SQS queue that S3's event notifications go to"},
}, awsKeys, []conf.Key{feedTenantKey})})

// feed builds one feed's settings.
func (l *loader) feed(v *conf.Value) Feed {
	f := Feed{Name: v.Str("name"), Format: v.Str("format"), tenantAt: v.Pos}
	if f.Format == "" {
		if f.Format = "canonical"; v.Given("http") {
			f.Format = "auto"
		}
	}
	switch {
	case v.Has("http"):
		f.HTTP = l.httpFeed(v.Obj("http"))
	case v.Has("file"):
		o := v.Obj("file")
		f.File = &FileFeed{Path: o.Str("path"), Follow: o.Bool("follow")}
		l.feedTenant(&f, v, o)
	case v.Has("kafka"):
		o := v.Obj("kafka")
		f.Kafka = l.kafkaFeed(o)
		f.Tenant = feeds.TenantID(o.Str("tenant"))
	case v.Has("tls"):
		o := v.Obj("tls")
		f.TLS = &TLSFeed{Listen: o.Str("listen"), Cert: o.Str("cert"), Key: o.Str("key"), ClientCA: o.Str("client_ca")}
		l.pair(o)
		l.authorities(o, "client_ca")
		if f.TLS.ClientCA == "" || o.Given("tenant") {
			l.feedTenant(&f, v, o)
		}
	case v.Has("kinesis"):
		o := v.Obj("kinesis")
		f.Kinesis = &KinesisFeed{Stream: o.Str("stream"), AWS: aws(o), Start: o.Str("start")}
		l.feedTenant(&f, v, o)
	case v.Has("s3"):
		o := v.Obj("s3")
		f.S3 = &S3Feed{Queue: o.Str("queue"), AWS: aws(o)}
		l.feedTenant(&f, v, o)
	}
	if f.Format == "auto" && f.HTTP == nil && v.Has("format") {
		l.tell(v.At("format"), "format auto goes by the path of a request, so it is for http feeds; use %s", conf.OneOfWords(feedFormats[:10]))
	}
	return f
}

// feedTenant takes a transport's tenant, which only the canonical format can do without.
func (l *loader) feedTenant(f *Feed, v, o *conf.Value) {
	f.Tenant, f.tenantAt = feeds.TenantID(o.Str("tenant")), o.At("tenant")
	if !o.Given("tenant") && f.Format != "canonical" && f.Format != "auto" {
		or := ""
		if f.TLS != nil {
			or = ", or client_ca, so that certificates name it"
		}
		l.tell(v.At("format"), "events of format %s name no tenant; set tenant beside the feed's other settings%s", f.Format, or)
	}
}

func (l *loader) httpFeed(o *conf.Value) *HTTPFeed {
	t := o.Obj("tls")
	if o.Has("tls") {
		l.pair(t)
	}
	return &HTTPFeed{Listen: o.Str("listen"), MaxBody: o.Int("max_body"), Cert: t.Str("cert"), Key: t.Str("key")}
}

func (l *loader) kafkaFeed(o *conf.Value) *KafkaFeed {
	k := &KafkaFeed{Brokers: o.Strs("brokers"), Topic: o.Str("topic"), Group: o.Str("group")}
	if o.Has("tls") {
		c := l.clientTLS(o.Obj("tls"))
		k.TLS = &c
	}
	s := o.Obj("sasl")
	k.SASLMechanism, k.SASLUser, k.SASLPassword = s.Str("mechanism"), s.Str("username"), Secret(s.Str("password"))
	return k
}
