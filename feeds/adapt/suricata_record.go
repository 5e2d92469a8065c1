package adapt

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"datasync/schemas"
)

// record is one record of a source whose members are told in tables (threatx,
// deepfence, suricata, coraza), on its way to an event.
type record struct {
	e      schemas.Event
	rest   remains
	twice  string   // a known member that was given twice
	labels []string // for meta
	cut    []string // fields that were cut, for meta
	masked []string // what was redacted here, for meta

	at        int64 // ms UTC; precision is "" where no time could be read
	precision string

	threatx   threatxParts
	deepfence deepfenceParts
	suricata  suricataParts
	coraza    corazaParts
}

// reset makes r ready for the next record, and keeps its memory within bounds.
func (r *record) reset() {
	clear(r.e.Matches)
	rest, matches := r.rest.b[:0], r.e.Matches[:0]
	labels, cut := r.labels[:0], r.cut[:0]
	if cap(rest) > keepArena {
		rest = nil
	}
	*r = record{rest: remains{rest}, labels: labels, cut: cut}
	r.e.Matches = matches
}

// taker puts a member's value in its place; false where it does not fit there.
type taker func(r *record, value []byte) bool

// table tells the members of an object: where each goes. nil: it says nothing new.
type table map[string]entry

type entry struct {
	bit  uint64
	take taker
}

// fields numbers the members of a table, at most 64, so that repeats are seen.
func fields(takers map[string]taker) table {
	t, bit := make(table, len(takers)), uint64(1)
	for key, take := range takers {
		t[key] = entry{bit, take}
		bit <<= 1
	}
	return t
}

// object takes an object's members by their table; what has no place, or does
// not fit it, is kept in r.rest. False where value is no object.
func (r *record) object(value []byte, t table) bool {
	seen := uint64(0)
	return members(value, func(key string, v []byte) {
		f, known := t[key]
		switch {
		case !known && secretName(key):
			return // promise: an API key, a cookie or an authorization goes no further than this
		case !known:
			r.rest.add(key, v)
			return
		case seen&f.bit != 0:
			if r.twice == "" {
				r.twice, _ = limit(key, 40)
			}
			return
		}
		seen |= f.bit
		if f.take != nil && !isNull(v) && !f.take(r, v) {
			r.rest.add(key, v)
		}
	})
}

// inside takes a member that is an object of known members; what has no place
// stays in an object of the same name.
func inside(key string, t table) taker {
	return func(r *record, value []byte) (ok bool) {
		r.rest.within(key, "{}", func() { ok = r.object(value, t) })
		return ok
	}
}

// The takers of plain values.

func asText(at func(*record) *string) taker {
	return func(r *record, value []byte) bool {
		s := text(value)
		*at(r) = s
		return s != ""
	}
}

func asLower(at func(*record) *string) taker {
	return func(r *record, value []byte) bool {
		s := strings.ToLower(text(value))
		*at(r) = s
		return s != ""
	}
}

func asAddress(at func(*record) *string) taker {
	return func(r *record, value []byte) bool {
		s := text(value)
		if _, err := netip.ParseAddr(s); err != nil {
			return false
		}
		*at(r) = s
		return true
	}
}

func asHost(r *record, value []byte) bool {
	r.e.HTTPHost = host(text(value))
	return r.e.HTTPHost != ""
}

// asStatus takes an HTTP status; 0 is none.
func asStatus(r *record, value []byte) bool {
	if string(value) == "0" || string(value) == `"0"` {
		return true
	}
	r.e.HTTPStatus = int32s(value)
	return r.e.HTTPStatus.OK
}

// asTarget takes what was asked for, path and query in one.
func asTarget(r *record, value []byte) bool {
	s := text(value)
	if _, rest, ok := strings.Cut(s, "://"); ok && (strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")) {
		at := strings.IndexByte(rest+"/", '/')
		if r.e.HTTPHost == "" {
			r.e.HTTPHost = host(rest[:at])
		}
		rest = rest[at:]
		if rest == "" {
			rest = "/"
		}
		return asTargetText(r, rest)
	}
	return asTargetText(r, s)
}

func asTargetText(r *record, s string) bool {
	path, query, _ := strings.Cut(s, "?")
	r.e.HTTPPath = path
	if query != "" {
		r.e.HTTPQuery = query
	}
	return s != ""
}

func asUserAgent(r *record, value []byte) bool {
	var long bool
	if r.e.UserAgent, long = limit(text(value), maxUserAgent); long {
		r.note("user_agent")
	}
	return r.e.UserAgent != ""
}

// asCount takes a whole number that is no less than 0.
func asCount(at func(*record) *schemas.Int) taker {
	return func(r *record, value []byte) bool {
		n := integer(value)
		if n.OK = n.OK && n.V >= 0; n.OK {
			*at(r) = n
		}
		return n.OK
	}
}

func asNumber(at func(*record) *schemas.Float) taker {
	return func(r *record, value []byte) bool {
		*at(r) = number(value)
		return at(r).OK
	}
}

// asPort takes a port; 0 is none.
func asPort(at func(*record) *schemas.Int) taker {
	return func(r *record, value []byte) bool {
		p := int32s(value)
		if p.OK && p.V > 0 && p.V <= 65535 {
			*at(r) = p
		}
		return p.OK && p.V >= 0 && p.V <= 65535
	}
}

// asTexts takes a list of texts, or one alone.
func asTexts(at func(*record) *[]string) taker {
	return func(r *record, value []byte) bool {
		list, ok := texts(value)
		if ok {
			*at(r) = list
		}
		return ok
	}
}

// texts is an array of texts, or one text as a list of one; false of anything else.
func texts(value []byte) (list []string, ok bool) {
	if s := text(value); s != "" {
		return []string{s}, true
	}
	ok = true
	isArray := items(value, func(v []byte) {
		if s := text(v); s != "" {
			list = append(list, s)
		} else if !isNull(v) {
			ok = false
		}
	})
	return list, ok && isArray
}

// yesNo reads true or false, given as such, as text or as 1 or 0.
func yesNo(value []byte) (v, ok bool) {
	switch strings.Trim(strings.ToLower(string(value[:min(len(value), 8)])), `"`) {
	case "true", "1", "yes":
		return true, true
	case "false", "0", "no":
		return false, true
	}
	return false, false
}

// items calls f for each element of the JSON array in b; false where it is none.
func items(b []byte, f func(value []byte)) bool {
	i := firstByte(b)
	if i >= len(b) || b[i] != '[' {
		return false
	}
	for i++; i < len(b); {
		i += firstByte(b[i:])
		if i >= len(b) || b[i] == ']' {
			return true
		}
		if b[i] == ',' {
			i++
			continue
		}
		end := skip(b, i)
		if end <= i {
			return true
		}
		f(b[i:end])
		i = end
	}
	return true
}

// moment reads a time: a text of RFC 3339, or near to it, or a number since 1970
// whose size tells whether it counts s, ms, µs or ns. precision is what was
// given; "" where it is no time.
func moment(value []byte) (ms int64, precision string) {
	s := text(value)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return since1970(n)
	}
	if v, err := strconv.ParseFloat(s, 64); err == nil {
		if v >= 1e8 && v < 1e11 { // s and a fraction, as far as a float tells it
			return int64(v*1000 + 0.5), "ms"
		}
		if v >= 1e11 && v < 1e18 {
			return since1970(int64(v))
		}
		return 0, ""
	}
	return clockTime(s)
}

// since1970 tells units apart: what is a time between 2000 and 5138 in one of
// them is none in the others.
func since1970(n int64) (ms int64, precision string) {
	switch {
	case n <= 0:
		return 0, ""
	case n < 1e11:
		return n * 1000, "s"
	case n < 1e14:
		return n, "ms"
	case n < 1e17:
		return n / 1e3, "us"
	default:
		return n / 1e6, "us"
	}
}

// clockTime reads a time with its zone, stray blanks in it or not.
func clockTime(s string) (ms int64, precision string) {
	if len(s) < 19 || len(s) > 64 {
		return 0, ""
	}
	if s[10] == ' ' && strings.IndexByte(s, 'T') < 0 {
		s = s[:10] + "T" + s[11:]
	}
	if strings.IndexByte(s, ' ') >= 0 {
		s = strings.ReplaceAll(s, " ", "")
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999-0700"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UnixMilli(), fraction(s)
		}
	}
	return 0, ""
}

// fraction names the precision of a clock's text by the digits behind its seconds.
func fraction(s string) string {
	_, rest, ok := strings.Cut(s, ".")
	digits := 0
	for digits < len(rest) && rest[digits]-'0' <= 9 {
		digits++
	}
	switch {
	case !ok || digits == 0:
		return "s"
	case digits <= 3:
		return "ms"
	}
	return "us"
}

// when takes a time where there is none yet.
func (r *record) when(value []byte) bool {
	ms, precision := moment(value)
	if r.precision == "" {
		r.at, r.precision = ms, precision
	}
	return precision != ""
}

// note says, once, that a field was cut.
func (r *record) note(field string) {
	if !slices.Contains(r.cut, field) {
		r.cut = append(r.cut, field)
	}
}

// made hands the event over that r has become.
func (o *Output) made(in *Input, index int, value []byte, r *record) {
	e := &r.e
	e.EventTime, e.TimePrecision = r.at, r.precision
	e.Meta.Labels, e.Meta.Truncated, e.Meta.Redactions = r.labels, r.cut, r.masked
	e.Meta.Unmapped = r.rest.json()
	r.settle()
	if len(value) > roomy {
		o.fit(r)
	}
	o.event(in, index, value, e)
}

// settle says that meta is there where something is in it.
func (r *record) settle() {
	m := &r.e.Meta
	m.OK = m.Unmapped != "" || len(m.Truncated)+len(m.Labels)+len(m.Redactions) > 0
}

// roomy is the size of a record that cannot become an event past the limit:
// escapes and base64 make no text four times its size.
const roomy = schemas.MaxEvent / 4

// fit cuts an event that would be too large, what matters least first: who makes
// his requests long must not keep his attack from being told.
func (o *Output) fit(r *record) {
	for _, cut := range []func(*record){cutUnmapped, cutPayload, cutMatches, cutTexts} {
		if o.line = schemas.AppendJSON(o.line[:0], &r.e); len(o.line) < schemas.MaxEvent-ours {
			return
		}
		cut(r)
		r.e.Meta.Truncated = r.cut
		r.settle()
	}
}

func cutUnmapped(r *record) {
	if r.e.Meta.Unmapped != "" {
		r.e.Meta.Unmapped = ""
		r.note("meta.unmapped")
	}
}

func cutPayload(r *record) {
	if r.e.Net.PayloadB64 != "" {
		r.e.Net.PayloadB64 = ""
		r.note("net.payload_b64")
	}
}

func cutMatches(r *record) {
	e := &r.e
	if len(e.Meta.Labels) > 0 {
		e.Meta.Labels = nil
		r.note("meta.labels")
	}
	if len(e.Matches) == 0 {
		return
	}
	e.Matches = e.Matches[:min(len(e.Matches), 32)]
	r.note("matches")
	for i := range e.Matches {
		m := &e.Matches[i]
		for _, s := range []*string{&m.RuleID, &m.Name, &m.Category, &m.Stage, &m.Location, &m.Data} {
			*s, _ = limit(*s, 256)
		}
	}
}

func cutTexts(r *record) {
	e := &r.e
	for _, f := range []struct {
		name string
		s    *string
	}{
		{"http_path", &e.HTTPPath}, {"http_query", &e.HTTPQuery}, {"http_host", &e.HTTPHost}, {"http_referrer", &e.HTTPReferrer},
		{"http_method", &e.HTTPMethod}, {"http_protocol", &e.HTTPProtocol}, {"forwarded_for", &e.ForwardedFor}, {"user_agent", &e.UserAgent},
		{"rule_name", &e.RuleName}, {"session_id", &e.SessionID}, {"client_fp", &e.ClientFP}, {"audit", &e.Audit.Change},
	} {
		var long bool
		if *f.s, long = limit(*f.s, 2<<10); long {
			r.note(f.name)
		}
	}
}

// ours is room for the fields that are still to be set.
const ours = 8 << 10
