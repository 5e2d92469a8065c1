package adapt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"unsafe"

	"github.com/oklog/ulid/v2"

	"datasync/feeds"
	"datasync/schemas"
)

// Event is one canonical event: the line Output.Arena[Off:Off+Len] and Rest, its
// newline included. Rest is nil, or a part of a held Input.Value.
type Event struct {
	Off, Len int
	Rest     []byte
	// Index is the place of the event within its record, from 0.
	Index  int
	Tenant feeds.TenantID
	Kind   schemas.Kind
	// Time is the event time, ms UTC.
	Time int64
	// Look says what a redactor might find in it.
	Look schemas.Look
}

// Bad is one value that is no event.
type Bad struct {
	Index  int
	Reason string
	// Data is the value as it came; it aliases Input.Value.
	Data []byte
	// Tenant is whose value it is, as far as that is known.
	Tenant feeds.TenantID
	// More counts the bad values that follow at once in the record: Data goes
	// on to the end of the last of them, and Reason is the first one's.
	More int
}

// Output collects what records became. The zero Output is ready; it is reused
// by Reset, and is not safe for concurrent use.
type Output struct {
	Arena  []byte
	Events []Event
	Bad    []Bad
	// Suppressed counts the values that are no events by their source's own word:
	// records of another kind than detections, alerts that it masked, tests.
	Suppressed int

	head    schemas.Head
	added   schemas.Additions
	line    []byte // an event being put together
	id      []byte
	tenants map[string]feeds.TenantID
	netacea netaceaLog
	record  record
	behind  int // len(Events) at the last of Bad

	cloudflare cloudflareRows
	cloudfront cloudfrontLog
	awsWAF     awsWAFLog
}

// keepArena bounds what a reused Output holds on to.
const (
	keepArena   = 8 << 20
	keepTenants = 1 << 16
)

// Reset empties o for the next records and keeps its memory, within bounds.
func (o *Output) Reset() {
	o.Arena, o.Events, o.Suppressed = o.Arena[:0], o.Events[:0], 0
	clear(o.Bad)
	o.Bad = o.Bad[:0]
	if cap(o.Arena) > keepArena {
		o.Arena = nil
	}
	if cap(o.line) > keepArena {
		o.line = nil
		o.netacea = netaceaLog{}
		o.cloudflare, o.cloudfront, o.awsWAF = cloudflareRows{}, cloudfrontLog{}, awsWAFLog{}
	}
	if len(o.tenants) > keepTenants {
		o.tenants = nil
	}
}

// tenant is the TenantID of a name, "" where it is none; the same names come
// again and again, and cost nothing then.
func (o *Output) tenant(name []byte) feeds.TenantID {
	if t, ok := o.tenants[string(name)]; ok {
		return t
	}
	if len(name) > 63 || !feeds.ValidName(string(name)) {
		return ""
	}
	if o.tenants == nil {
		o.tenants = make(map[string]feeds.TenantID)
	}
	t := feeds.TenantID(name)
	o.tenants[string(t)] = t
	return t
}

// maxBad is how many bad values of a record stand alone; a record of millions
// of them (an array, decompressed) must not become a hundred times its size.
const maxBad = 1000

func (o *Output) bad(in *Input, index int, data []byte, reason string) {
	o.badOf(in.Tenant, in, Bad{Index: index, Reason: reason, Data: data})
}

// badOf notes a bad value of a tenant.
func (o *Output) badOf(t feeds.TenantID, in *Input, b Bad) {
	if n := len(o.Bad); n >= maxBad && o.behind == len(o.Events) && o.Bad[n-1].Tenant == t {
		last := &o.Bad[n-1]
		if joined, ok := join(in.Value, last.Data, b.Data); ok {
			last.Data = joined
			last.More++
			return
		}
	}
	b.Tenant, o.behind = t, len(o.Events)
	o.Bad = append(o.Bad, b)
}

// join is the part of whole from the start of a to the end of b, which are both
// parts of it; false where b does not come behind a.
func join(whole, a, b []byte) ([]byte, bool) {
	start := uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	from := uintptr(unsafe.Pointer(unsafe.SliceData(a))) - start
	to := uintptr(unsafe.Pointer(unsafe.SliceData(b))) - start + uintptr(len(b))
	if from > to || to > uintptr(len(whole)) || from+uintptr(len(a)) > to-uintptr(len(b)) {
		return nil, false
	}
	return whole[from:to], true
}

// values calls f for each value of a record: the record itself, its lines, or
// the elements of an array. What is broken becomes Bad, with its bytes.
func (o *Output) values(in *Input, f func(index int, value []byte)) {
	index := 0
	o.valuesBy(in, &index, nil, func(v []byte) { f(index, v) })
}

// valuesBy is values where take deals with most of them; index is the place of
// the value that take or f has before it.
func (o *Output) valuesBy(in *Input, index *int, take schemas.Take, f func(value []byte)) {
	good := false
	var broken *schemas.Problem // the last one; whether more follows says how much it broke
	for v, err := range schemas.ValuesBy(in.Value, take) {
		if broken != nil {
			from, to := lineAt(in.Value, broken.Offset)
			o.bad(in, *index-1, in.Value[from:to], broken.Reason)
			broken = nil
		}
		if err == nil {
			if good = true; v != nil {
				f(v)
			}
		} else if !errors.As(err, &broken) {
			broken = &schemas.Problem{Reason: err.Error()}
		}
		*index++
	}
	switch {
	case broken != nil && good:
		from, _ := lineAt(in.Value, broken.Offset)
		o.bad(in, *index-1, in.Value[from:], broken.Reason)
	case broken != nil:
		o.bad(in, *index-1, in.Value, broken.Reason)
	}
}

// lineAt is the line of b that holds b[at].
func lineAt(b []byte, at int) (from, to int) {
	at = min(at, len(b))
	from = bytes.LastIndexByte(b[:at], '\n') + 1
	if n := bytes.IndexByte(b[at:], '\n'); n >= 0 {
		return from, at + n
	}
	return from, len(b)
}

// event adds an event that an adapter made of value: the fields that are ours
// are set here, and the whole goes through the same door as any other.
func (o *Output) event(in *Input, index int, value []byte, e *schemas.Event) {
	if in.Tenant == "" {
		o.bad(in, index, value, "names no tenant, and neither does its path, key or feed")
		return
	}
	e.Schema = schemas.Version
	e.TenantID = string(in.Tenant)
	e.IngestTime = in.Ingest
	if e.Severity == 0 {
		e.Severity = severity(e.Action)
	}
	if e.EventID == "" {
		e.EventID = o.newID(in, index)
	}
	o.line = schemas.AppendJSON(o.line[:0], e)
	o.add(in, index, o.line, value)
}

// add scans the canonical event in line, gives it what it lacks of schema,
// event_id, tenant_id and ingest_time, and copies it into the arena as one
// line. value is what the event was made of.
func (o *Output) add(in *Input, index int, line, value []byte) {
	if p := schemas.Scan(line, in.Now, &o.head); p != nil {
		o.refuse(in, index, value, p)
		return
	}
	o.store(in, index, line, value)
}

// refuse notes what was wrong with the event that was scanned last.
func (o *Output) refuse(in *Input, index int, value []byte, p *schemas.Problem) {
	tenant := in.Tenant
	if tenant == "" && o.head.Tenant != nil {
		tenant = o.tenant(o.head.Tenant)
	}
	o.badOf(tenant, in, Bad{Index: index, Reason: p.Reason, Data: value})
}

// store is the rest of add, once o.head says what line is.
func (o *Output) store(in *Input, index int, line, value []byte) {
	h := &o.head
	tenant, reason := o.route(in)
	if reason != "" {
		o.bad(in, index, value, reason)
		return
	}
	if h.Has != schemas.HasAll {
		o.added = schemas.Additions{Tenant: string(tenant), IngestTime: in.Ingest}
		if h.Has&schemas.HasID == 0 {
			o.added.ID = o.newID(in, index)
		}
	}
	off := len(o.Arena)
	var a, rest []byte
	end := 0 // in the record, of an event that need not be copied
	if in.Held && h.Compact {
		end = endIn(in.Value, line[:h.End])
	}
	if end > 0 {
		a, rest = schemas.AppendOpening(o.Arena, h, &o.added), in.Value[end-h.End+h.Open:end+1]
	} else {
		a = append(schemas.AppendStored(o.Arena, line, h, &o.added), '\n')
	}
	if n := len(a) + len(rest) - 1 - off; n > schemas.MaxEvent {
		o.bad(in, index, value, fmt.Sprintf("event is %d KiB: more than %d KiB", (n+1023)>>10, schemas.MaxEvent>>10))
		return
	}
	o.Arena = a
	o.Events = append(o.Events, Event{Off: off, Len: len(a) - off, Rest: rest, Index: index, Tenant: tenant, Kind: h.Kind, Time: h.Time, Look: h.Look})
}

// endIn is where line ends in whole; 0 where it is no part of whole, or no
// newline stands behind it there (which may be the byte behind whole).
func endIn(whole, line []byte) int {
	end := int(uintptr(unsafe.Pointer(unsafe.SliceData(line)))-uintptr(unsafe.Pointer(unsafe.SliceData(whole)))) + len(line)
	if end < len(line) || end > len(whole) || end == cap(whole) || whole[:end+1][end] != '\n' {
		return 0
	}
	return end
}

// route finds whose event was scanned; a reason where it cannot be said.
func (o *Output) route(in *Input) (feeds.TenantID, string) {
	name := o.head.Tenant
	switch {
	case name == nil && in.Tenant == "":
		return "", "names no tenant, and neither does its path, key or feed"
	case name == nil:
		return in.Tenant, ""
	case in.Tenant != "" && string(name) != string(in.Tenant):
		return "", fmt.Sprintf("tenant_id is %.64q: the path, key, feed or record key names %q", name, in.Tenant)
	}
	if t := o.tenant(name); t != "" {
		return t, ""
	}
	return "", fmt.Sprintf("tenant_id is %.64q: no valid name", name)
}

// newID is the id of an event whose source gives it none: from the record's
// place in its source, so that reading again gives the same, else random. The
// string lasts until the next call.
func (o *Output) newID(in *Input, index int) string {
	if in.ID == "" {
		o.id = appendULID(o.id[:0], in.Ingest)
	} else {
		o.id = append(append(o.id[:0], in.ID...), ':')
		o.id = strconv.AppendInt(o.id, int64(index), 10)
	}
	return unsafe.String(unsafe.SliceData(o.id), len(o.id))
}

func appendULID(a []byte, ms int64) []byte {
	var id ulid.ULID
	// A ULID holds 48 bits of time; clocks before 1970 count as 1970.
	t := uint64(min(max(ms, 0), int64(ulid.MaxTime())))
	for i := range 6 {
		id[i] = byte(t >> (40 - 8*i))
	}
	hi, lo := rand.Uint64(), rand.Uint32()
	for i := range 8 {
		id[6+i] = byte(hi >> (8 * i))
	}
	id[14], id[15] = byte(lo), byte(lo>>8)
	n := len(a)
	a = append(a, "00000000000000000000000000"...)
	_ = id.MarshalTextTo(a[n:]) // 26 bytes: it cannot fail
	return a
}
