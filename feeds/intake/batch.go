package intake

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"datasync/feeds"
	"datasync/feeds/adapt"
	"datasync/feeds/intake/redact"
	"datasync/feeds/journal"
	"datasync/schemas"
)

// batch is what one Submit gathers; it is reused, so that an event costs no
// allocation. One goroutine owns it from begin to end.
type batch struct {
	door    *Door
	out     adapt.Output
	events  []journal.Event
	entries []Entry
	rejects []Rejection
	more    int // rejected and not among rejects
	counts  Counts
	read    int // events seen so far in this request

	in     adapt.Input
	req    *Request
	now    int64
	gen    uint64
	routes map[feeds.TenantID]*route
	last   *route
	head   schemas.Head
	key    []byte // the last record key that was judged, and what it names
	keyFor feeds.TenantID

	reason, masked string // the last reason, and what is kept of it
	reasonOf       feeds.TenantID

	hash   [sha256.Size]byte // of the record being taken, once it is asked for
	hashed bool
}

// canonical is the format in which an adapted event waits in the quarantine.
const canonical = "canonical"

// route is where a tenant's events go. known and rules hold for one request.
type route struct {
	tenant feeds.TenantID
	ref    journal.TenantRef
	haveID bool
	gen    uint64
	known  bool
	rules  *redact.Rules
}

// keepRoutes bounds the tenants that a pooled batch remembers.
const keepRoutes = 1 << 16

func (b *batch) begin(r *Request) {
	b.req = r
	b.now = b.door.o.Now().UnixMilli()
	b.gen = b.door.gen.Add(1)
	b.counts, b.read, b.more, b.last = Counts{}, 0, 0, nil
	b.key, b.keyFor = b.key[:0], ""
	if b.routes == nil || len(b.routes) > keepRoutes {
		b.routes = make(map[feeds.TenantID]*route)
	}
}

// end gives the batch back. What it handed out (rejects) stays with the caller.
func (b *batch) end() {
	b.out.Reset()
	clear(b.entries)
	b.events, b.entries, b.rejects = b.events[:0], b.entries[:0], nil
	b.req, b.in, b.reason, b.masked = nil, adapt.Input{}, "", ""
	b.door.batches.Put(b)
}

// take turns one record into events and quarantine entries.
func (b *batch) take(adapter adapt.Adapter, rec *feeds.Record) {
	b.in = adapt.Input{Value: rec.Value, Tenant: b.tenantOf(rec), ID: rec.ID, Ingest: b.now, Now: b.now}
	if !rec.Time.IsZero() {
		b.in.Ingest = rec.Time.UnixMilli()
	}
	b.out.Events, b.out.Bad, b.hashed = b.out.Events[:0], b.out.Bad[:0], false
	if rec.Bad == "" {
		adapter(&b.in, &b.out)
	} else {
		b.out.Bad = append(b.out.Bad, adapt.Bad{Reason: rec.Bad, Data: rec.Value, Tenant: b.in.Tenant})
	}
	for i := range b.out.Events {
		b.event(rec, &b.out.Events[i])
	}
	n := len(b.out.Events)
	for i := range b.out.Bad {
		bad := &b.out.Bad[i]
		n += 1 + bad.More
		b.counts.Quarantined += uint64(1 + bad.More)
		b.reject(rec, bad, b.req.Format)
	}
	b.counts.Read += uint64(n)
	b.read += n
}

// tenantOf says whom the path, key or feed names or, where events are trusted
// to, the record's key. A key that names no tenant we know is some other
// thing, a partition key perhaps, and says nothing.
func (b *batch) tenantOf(rec *feeds.Record) feeds.TenantID {
	if b.req.Tenant != "" || !b.door.o.Trust || len(rec.Key) == 0 {
		return b.req.Tenant
	}
	if string(b.key) != string(rec.Key) {
		b.key, b.keyFor = append(b.key[:0], rec.Key...), b.named(rec.Key)
	}
	return b.keyFor
}

// named is the tenant that a record key names; empty where it names none.
// Nothing is allocated for a tenant that has been routed to before.
func (b *batch) named(key []byte) feeds.TenantID {
	if rt := b.routes[feeds.TenantID(key)]; rt != nil {
		if b.current(rt).known {
			b.last = rt // the event that follows mostly says the same
			return rt.tenant
		}
		return ""
	}
	if len(key) <= 63 && feeds.ValidName(string(key)) && b.door.o.Known(feeds.TenantID(key)) {
		return feeds.TenantID(key)
	}
	return ""
}

// event routes, redacts and keeps one event.
func (b *batch) event(rec *feeds.Record, e *adapt.Event) {
	line := b.out.Arena[e.Off : e.Off+e.Len]
	if b.in.Tenant == "" && !b.door.o.Trust {
		b.counts.Quarantined++
		b.reject(rec, &adapt.Bad{Index: e.Index, Reason: "names its tenant itself, which this feed does not trust: give the feed a tenant, or post to the tenant's path", Data: line}, canonical)
		return
	}
	if rec.Seq != 0 && e.Index >= maxPerRecord {
		b.counts.Quarantined++
		b.reject(rec, &adapt.Bad{Index: e.Index, Tenant: e.Tenant, Reason: fmt.Sprintf("record holds more than %d events", maxPerRecord), Data: line}, canonical)
		return
	}
	rt := b.route(e.Tenant)
	if !rt.known {
		b.counts.Unrouted++
		b.reject(rec, &adapt.Bad{Index: e.Index, Tenant: e.Tenant, Reason: fmt.Sprintf("tenant %q is not known: add tenants/%s.yaml", e.Tenant, e.Tenant), Data: line}, canonical)
		return
	}
	if rt.rules.Wants(line, e.Look) && !b.redact(rec, e, rt) {
		return
	}
	if !rt.haveID {
		rt.ref, rt.haveID = b.door.o.Log.Tenant(e.Tenant), true
	}
	b.counts.Accepted++
	ev := journal.Event{Off: uint32(e.Off), Len: uint32(e.Len), Tenant: rt.ref, Kind: uint8(e.Kind), Time: e.Time}
	if rec.Seq != 0 {
		ev.Seq = rec.Seq + feeds.Sequence(e.Index)
	}
	b.events = append(b.events, ev)
}

// redact puts the event's masked form behind it in the arena; false where that
// is no event any more (it may have grown past the limit).
func (b *batch) redact(rec *feeds.Record, e *adapt.Event, rt *route) bool {
	off := len(b.out.Arena)
	arena, changed := rt.rules.Line(b.out.Arena, b.out.Arena[e.Off:e.Off+e.Len-1])
	if !changed {
		return true
	}
	if p := schemas.Scan(arena[off:], b.now, &b.head); p != nil {
		b.counts.Quarantined++
		b.reject(rec, &adapt.Bad{Index: e.Index, Tenant: e.Tenant, Reason: "after redaction: " + p.Reason, Data: arena[off:]}, canonical)
		return false
	}
	b.out.Arena = append(arena, '\n')
	e.Off, e.Len = off, len(b.out.Arena)-off
	return true
}

func (b *batch) route(t feeds.TenantID) *route {
	if b.last != nil && b.last.tenant == t {
		return b.last
	}
	rt := b.routes[t]
	if rt == nil {
		if rt = (&route{tenant: t}); b.current(rt).known {
			b.routes[t] = rt
		}
	}
	b.last = b.current(rt)
	return rt
}

// current has rt hold for this request: what was known of a tenant in the last
// one may have changed.
func (b *batch) current(rt *route) *route {
	if rt.gen != b.gen {
		rt.gen, rt.known = b.gen, b.door.o.Known(rt.tenant)
		rt.rules = b.door.o.Rules(rt.tenant)
	}
	return rt
}

// A request may be nothing but rubbish, and a body of two-byte lines must not
// cost a hundred times its size: behind the first ownEntries bad values, those
// that follow share entries of up to sharedBytes, and behind the first maxListed
// they are no longer told one by one.
const (
	ownEntries  = 1000
	sharedBytes = 1 << 20
	maxListed   = 10_000
)

// reject keeps a bad value's bytes, masked, for the quarantine.
func (b *batch) reject(rec *feeds.Record, bad *adapt.Bad, format string) {
	tenant := bad.Tenant
	if tenant == "" {
		tenant = b.in.Tenant
	}
	var rules *redact.Rules
	if tenant != "" {
		rules = b.door.o.Rules(tenant)
	}
	if len(b.rejects) < maxListed {
		b.rejects = append(b.rejects, Rejection{Index: b.read + bad.Index, Reason: b.mask(tenant, bad.Reason, rules)})
		b.more += bad.More
	} else {
		b.more += 1 + bad.More
	}
	if n := len(b.entries); n > ownEntries {
		last := &b.entries[n-1]
		if last.Tenant == tenant && last.Format == format && len(last.Data)+len(bad.Data) < sharedBytes {
			last.add(rules, bad)
			return
		}
	}
	if !b.hashed {
		b.hash, b.hashed = sha256.Sum256(rec.Value), true
	}
	e := Entry{Time: time.UnixMilli(b.now), Tenant: tenant, Feed: b.door.o.Feed, Format: format,
		Position: rec.Position, Index: bad.Index, Reason: b.mask(tenant, bad.Reason, rules)}
	e.add(rules, bad)
	e.ID = entryID(&e, b.hash)
	b.entries = append(b.entries, e)
}

// mask masks a reason, which may quote the record; the same one mostly comes
// again and again.
func (b *batch) mask(tenant feeds.TenantID, reason string, rules *redact.Rules) string {
	if b.reason != reason || b.reasonOf != tenant || b.masked == "" {
		b.reason, b.reasonOf, b.masked = reason, tenant, maskReason(rules, reason)
	}
	return b.masked
}

// append makes the request durable.
func (b *batch) append(ctx context.Context, r *Request) (Result, error) {
	if len(b.rejects) > 1 { // a record's bad values were noted before its next ones
		slices.SortStableFunc(b.rejects, func(x, y Rejection) int { return x.Index - y.Index })
	}
	res := Result{Accepted: len(b.events), Rejected: b.rejects, More: b.more}
	jb := journal.Batch{Arena: b.out.Arena, Events: b.events, Source: r.Source}
	if b.read > 0 {
		jb.Facts = append(jb.Facts, b.counts.fact(b.door.o.Feed))
	}
	if r.Facts != nil {
		jb.Facts = append(jb.Facts, r.Facts(&res)...)
	}
	if len(jb.Events) == 0 && len(jb.Facts) == 0 && jb.Source == 0 {
		return res, nil
	}
	// promise: Append returns when the events, the counts and the source's
	// position are durable together, and not before is the source answered.
	receipt, err := b.door.o.Log.Append(ctx, &jb)
	if err != nil {
		return Result{}, fmt.Errorf("intake: feed %s: %w", b.door.o.Feed, err)
	}
	res.Receipt = receipt
	return res, nil
}
