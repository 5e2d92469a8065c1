package intake

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"datasync/feeds"
	"datasync/feeds/adapt"
	"datasync/feeds/intake/alerts"
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

	suppressed int // of those, what their source calls no event

	turn  alerts.Turn // what the events added to their tenants' sums
	made  []madeAlert // of the record being taken
	lines []byte      // of made
	n     int         // how many values the record has

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

var newline = []byte{'\n'}

// canonical is the format in which an adapted event waits in the quarantine.
const canonical = "canonical"

// madeAlert is an alert in batch.lines, to be put behind the events of its record.
type madeAlert struct {
	tenant   journal.TenantRef
	off, len int
	time     int64
}

// route is where a tenant's events go. known, rules and watch hold for one request.
type route struct {
	tenant feeds.TenantID
	ref    journal.TenantRef
	haveID bool
	gen    uint64
	known  bool
	rules  *redact.Rules
	watch  *alerts.Watch // nil: the tenant has no alerts
}

// keepRoutes bounds the tenants that a pooled batch remembers.
const keepRoutes = 1 << 16

func (b *batch) begin(r *Request) {
	b.req = r
	b.now = b.door.o.Now().UnixMilli()
	b.gen = b.door.gen.Add(1)
	b.out.Arena = spare.take()
	b.counts, b.read, b.more, b.last = Counts{}, 0, 0, nil
	b.suppressed = 0
	b.key, b.keyFor = b.key[:0], ""
	if b.routes == nil || len(b.routes) > keepRoutes {
		b.routes = make(map[feeds.TenantID]*route)
	}
}

// end gives the batch back. What it handed out (rejects) stays with the caller.
func (b *batch) end() {
	b.out.Reset()
	spare.give(b.out.Arena)
	b.out.Arena = nil
	b.turn.Reset()
	clear(b.entries)
	clear(b.events) // what it held is the feed's again
	clear(b.out.Events)
	b.events, b.entries, b.rejects = b.events[:0], b.entries[:0], nil
	b.req, b.in, b.reason, b.masked = nil, adapt.Input{}, "", ""
	b.door.batches.Put(b)
}

// take turns one record into events and quarantine entries.
func (b *batch) take(adapter adapt.Adapter, rec *feeds.Record) {
	b.in = adapt.Input{Value: rec.Value, Held: rec.Held, Tenant: b.tenantOf(rec), ID: rec.ID, Ingest: b.now, Now: b.now}
	if !rec.Time.IsZero() {
		b.in.Ingest = rec.Time.UnixMilli()
	}
	b.out.Events, b.out.Bad, b.out.Suppressed, b.hashed = b.out.Events[:0], b.out.Bad[:0], 0, false
	if rec.Bad == "" {
		adapter(&b.in, &b.out)
	} else {
		b.out.Bad = append(b.out.Bad, adapt.Bad{Reason: rec.Bad, Data: rec.Value, Tenant: b.in.Tenant})
	}
	b.n = len(b.out.Events) + b.out.Suppressed
	for i := range b.out.Bad {
		b.n += 1 + b.out.Bad[i].More
	}
	for i := range b.out.Events {
		b.event(rec, &b.out.Events[i])
	}
	b.placeAlerts(rec)
	for i := range b.out.Bad {
		bad := &b.out.Bad[i]
		b.counts.Quarantined += uint64(1 + bad.More)
		b.reject(rec, bad, b.req.Format)
	}
	// promise: what its source calls no event is not stored, but counted.
	b.suppressed += b.out.Suppressed
	b.counts.Suppressed += uint64(b.out.Suppressed)
	b.counts.Read += uint64(b.n)
	b.read += b.n
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
	if b.in.Tenant == "" && !b.door.o.Trust {
		b.counts.Quarantined++
		b.reject(rec, &adapt.Bad{Index: e.Index, Reason: "names its tenant itself, which this feed does not trust: give the feed a tenant, or post to the tenant's path", Data: b.line(e)}, canonical)
		return
	}
	if rec.Seq != 0 && e.Index >= maxPerRecord {
		b.counts.Quarantined++
		b.reject(rec, &adapt.Bad{Index: e.Index, Tenant: e.Tenant, Reason: fmt.Sprintf("record holds more than %d events", maxPerRecord), Data: b.line(e)}, canonical)
		return
	}
	rt := b.route(e.Tenant)
	if !rt.known {
		b.counts.Unrouted++
		b.reject(rec, &adapt.Bad{Index: e.Index, Tenant: e.Tenant, Reason: fmt.Sprintf("tenant %q is not known: add tenants/%s.yaml", e.Tenant, e.Tenant), Data: b.line(e)}, canonical)
		return
	}
	if rt.rules.Wants(b.text(e), e.Look) && !b.redact(rec, e, rt) {
		return
	}
	if !rt.haveID {
		rt.ref, rt.haveID = b.door.o.Log.Tenant(e.Tenant), true
	}
	if rt.watch != nil && alerts.Counting.Has(e.Kind) && !b.watched(rec, e, rt) {
		b.counts.Suppressed++
		return
	}
	b.counts.Accepted++
	ev := journal.Event{Off: uint32(e.Off), Len: uint32(e.Len), Rest: e.Rest, Tenant: rt.ref, Kind: uint8(e.Kind), Time: e.Time}
	if rec.Seq != 0 {
		ev.Seq = rec.Seq + feeds.Sequence(e.Index)
	}
	b.events = append(b.events, ev)
}

// text is all of an event that its source wrote.
func (b *batch) text(e *adapt.Event) []byte {
	if e.Rest != nil {
		return e.Rest
	}
	return b.out.Arena[e.Off : e.Off+e.Len]
}

// line is an event's line, which lies in the arena in one piece from now on.
func (b *batch) line(e *adapt.Event) []byte {
	if e.Rest != nil {
		off := len(b.out.Arena)
		b.out.Arena = append(append(b.out.Arena, b.out.Arena[e.Off:e.Off+e.Len]...), e.Rest...)
		e.Off, e.Len, e.Rest = off, len(b.out.Arena)-off, nil
	}
	return b.out.Arena[e.Off : e.Off+e.Len]
}

// watched counts an event towards its tenant's alerts; false where the tenant
// wants no events of its rules.
func (b *batch) watched(rec *feeds.Record, e *adapt.Event, rt *route) bool {
	// Where the source numbers its events, an alert needs a number as well.
	quiet := rec.Seq != 0 && b.n+len(b.made) >= maxPerRecord
	switch b.turn.Take(rt.watch, bytes.TrimSuffix(b.line(e), newline), b.now, quiet) {
	case alerts.Suppress:
		return false
	case alerts.Trip:
		line, at := b.turn.Alert()
		b.made = append(b.made, madeAlert{rt.ref, len(b.lines), len(line), at})
		b.lines = append(b.lines, line...)
	}
	return true
}

// placeAlerts puts the alerts that a record's events made behind them: in the
// commit of the events, and with numbers that follow theirs.
func (b *batch) placeAlerts(rec *feeds.Record) {
	off := len(b.out.Arena)
	b.out.Arena = append(b.out.Arena, b.lines...)
	for i, a := range b.made {
		ev := journal.Event{Off: uint32(off + a.off), Len: uint32(a.len), Tenant: a.tenant, Kind: uint8(schemas.KindAlert), Time: a.time}
		if rec.Seq != 0 {
			ev.Seq = rec.Seq + feeds.Sequence(b.n+i)
		}
		b.events = append(b.events, ev)
	}
	b.counts.Made += uint64(len(b.made))
	b.counts.Accepted += uint64(len(b.made))
	b.made, b.lines = b.made[:0], b.lines[:0]
}

// redact puts the event's masked form behind it in the arena; false where that
// is no event any more (it may have grown past the limit).
func (b *batch) redact(rec *feeds.Record, e *adapt.Event, rt *route) bool {
	line := bytes.TrimSuffix(b.line(e), newline)
	off := len(b.out.Arena)
	arena, changed := rt.rules.Line(b.out.Arena, line)
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
		rt.watch = b.door.o.Alerts(rt.tenant)
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
		Position: rec.Position, Index: bad.Index, Reason: b.mask(tenant, bad.Reason, rules), Of: b.req.of}
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

// result is what became of the records.
func (b *batch) result() Result {
	if len(b.rejects) > 1 { // a record's bad values were noted before its next ones
		slices.SortStableFunc(b.rejects, func(x, y Rejection) int { return x.Index - y.Index })
	}
	// What a tenant has disabled was taken for its sender; alerts are not the sender's.
	disabled := int(b.counts.Suppressed) - b.suppressed
	return Result{Accepted: len(b.events) - int(b.counts.Made) + disabled, Rejected: b.rejects, More: b.more, Suppressed: b.suppressed}
}

// append makes the request durable.
func (b *batch) append(ctx context.Context, res Result) (Result, error) {
	r := b.req
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

// Arenas that are not in use, of all doors. A sync.Pool would let go of them at
// each collection, and growing one again by and by copies it twice over; the
// last one that came back is the next to go, since the caches still hold it.
const (
	keepArenas     = 16
	keepArenaBytes = 32 << 20 // together
)

type arenas struct {
	mu    sync.Mutex
	idle  [][]byte
	bytes int
}

var spare arenas

// take gives an empty arena, which may be nil.
func (a *arenas) take() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.idle)
	if n == 0 {
		return nil
	}
	b := a.idle[n-1]
	a.idle[n-1], a.idle = nil, a.idle[:n-1]
	a.bytes -= cap(b)
	return b[:0]
}

// give takes an arena back that nobody reads any more.
func (a *arenas) give(b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cap(b) == 0 || len(a.idle) == keepArenas || a.bytes+cap(b) > keepArenaBytes {
		return
	}
	a.idle = append(a.idle, b)
	a.bytes += cap(b)
}
