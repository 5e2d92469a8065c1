package schemas

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Has says which of the fields that a producer may leave out an event has.
type Has uint8

// The bits of Has.
const (
	HasSchema Has = 1 << iota
	HasID
	HasTenant
	HasIngestTime
	// HasAll is an event that intake need not add anything to.
	HasAll = HasSchema | HasID | HasTenant | HasIngestTime
)

// Head is what intake needs to know of an event.
type Head struct {
	Has  Has
	Look Look
	Kind Kind
	// Compact says that the line may be stored as it is; else Compact it first
	// (whitespace between tokens, newlines among it, or a raw U+2028/U+2029).
	Compact    bool
	Severity   int8
	Time       int64 // event_time, ms UTC
	IngestTime int64 // ms UTC, 0 where absent
	// ID, Tenant and Source are the values of event_id, tenant_id and source,
	// nil where absent. They alias the line unless they hold escapes.
	ID, Tenant, Source []byte
	// Open is where members may be put in: behind the object's '{', each
	// followed by a comma. End is behind its '}'.
	Open, End int
}

// Problem says why an event or a JSON value is refused. It is an error, but
// functions return it as *Problem so that nothing is allocated without one.
type Problem struct {
	// Reason is a short phrase that stays the same for the same fault: "action
	// is missing". Values in it are cut to a few characters.
	Reason string
	// Field is the field at fault, empty where the text is no JSON object of
	// at most MaxEvent bytes.
	Field string
	// Offset is the byte where it was noticed.
	Offset int
}

// Error is the reason.
func (p *Problem) Error() string { return p.Reason }

// Earliest is the first event_time that is believed: 1 Jan 2000, ms UTC.
const Earliest = 946684800000

// Ahead is how far event_time may lie ahead of now, in ms.
const Ahead = 24 * 3600 * 1000

// Check says what is wrong with value as exactly one strict JSON value (RFC
// 8259, valid UTF-8, nested at most MaxDepth deep); nil if nothing.
// Whitespace around it is fine.
func Check(value []byte) *Problem {
	l := lexer{b: value, blind: true}
	i := l.value(l.space(0), 1)
	if i >= 0 {
		i = l.end(i)
	}
	if i < 0 {
		return l.problem()
	}
	return nil
}

// Valid says whether value is exactly one strict JSON value: see Check.
func Valid(value []byte) bool { return Check(value) == nil }

// Scan checks one event strictly, in one pass and without allocating, and
// fills h. now (ms UTC) judges event_time. Whitespace around the object is
// allowed and shows in h.Compact. With a Problem, h is only partly filled.
func Scan(line []byte, now int64, h *Head) *Problem {
	if len(line) > MaxEvent {
		return &Problem{Reason: fmt.Sprintf("event is %d KiB: more than %d KiB", (len(line)+1023)>>10, MaxEvent>>10)}
	}
	return scan(line, now, h, true)
}

// ScanFirst is Scan for the event that text begins with, whatever stands behind
// it: text[:h.End] is the event. An event of more than MaxEvent is a Problem.
func ScanFirst(text []byte, now int64, h *Head) *Problem {
	return scan(text[:min(len(text), MaxEvent+1)], now, h, false)
}

func scan(line []byte, now int64, h *Head, whole bool) *Problem {
	*h = Head{}
	s := scanner{lexer: lexer{b: line}, h: h, now: now}
	i := s.members()
	if i >= 0 && whole {
		i = s.end(i)
	}
	if i < 0 {
		if s.bad != nil {
			return s.bad
		}
		return s.problem()
	}
	if missing := requiredMask &^ s.seen; missing != 0 {
		f := &fields[bits.TrailingZeros64(missing)]
		return &Problem{Reason: f.Name + " is missing", Field: f.Name}
	}
	if h.End > MaxEvent {
		return &Problem{Reason: fmt.Sprintf("event is more than %d KiB", MaxEvent>>10)}
	}
	h.Compact, h.Look = !s.loose, s.look
	return nil
}

var timeKey = []byte(`"event_time":`)

// EventTime is the event_time of a line that Scan has accepted, ms UTC, without
// another scan where its key stands before anything nested, as it mostly does.
// h is used where a scan it must be; 0 where the line is no event.
func EventTime(line []byte, h *Head) int64 {
	// In a line that is JSON a quote behind a comma or a brace begins a key: in
	// a string it would be escaped, and one that ends a string is followed by
	// neither. Before the first nested value a key is the event's own.
	if i := bytes.Index(line, timeKey); i > 0 && (line[i-1] == ',' || line[i-1] == '{') &&
		bytes.IndexByte(line[1:i], '{') < 0 && bytes.IndexByte(line[:i], '[') < 0 {
		from := i + len(timeKey)
		to := from
		for to < len(line) && line[to]-'0' <= 9 {
			to++
		}
		if ms, ok := parseInt(line[from:to]); ok && to < len(line) && (line[to] == ',' || line[to] == '}') {
			return ms
		}
	}
	if Scan(line, math.MaxInt64/2, h) != nil {
		return 0
	}
	return h.Time
}

// requiredMask has the bits of the fields that no event may lack at intake.
var requiredMask = func() (m uint64) {
	for i, f := range fields {
		if f.Required && !f.Spliced {
			m |= 1 << i
		}
	}
	return m
}()

// scanner is a lexer that knows the top-level fields.
type scanner struct {
	lexer
	h     *Head
	now   int64
	seen  uint64 // bits of the canonical keys
	other others // the other keys
	bad   *Problem
}

func (l *lexer) problem() *Problem {
	return &Problem{Reason: fmt.Sprintf("not JSON: %s at byte %d", l.what, l.at), Offset: l.at}
}

// end allows only whitespace from i on.
func (l *lexer) end(i int) int {
	if i < len(l.b) {
		if i = l.space(i); i < len(l.b) {
			return l.fail(i, "more text behind the value")
		}
	}
	return i
}

// members scans the event's object.
func (s *scanner) members() int {
	b := s.b
	i := s.space(0)
	if i >= len(b) || b[i] != '{' {
		if i < len(b) && Valid(b) {
			return s.refuse(i, "", "an event is a JSON object")
		}
		return s.unexpected(i, "a JSON object")
	}
	i++
	s.h.Open = i
	if i = s.space(i); i < len(b) && b[i] == '}' {
		s.h.End = i + 1
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return s.unexpected(i, "a key")
		}
		end, field := s.key(i + 1)
		if end < 0 {
			return -1
		}
		if end+2 < len(b) && b[end+1] == ':' && b[end+2] > ' ' {
			i = end + 2
		} else if i = s.colon(end + 1); i < 0 {
			return -1
		}
		if i = s.member(field, i); i < 0 {
			return -1
		}
		if i+1 < len(b) && b[i] == ',' && b[i+1] > ' ' {
			i++
			continue
		}
		if i < len(b) && b[i] <= ' ' {
			i = s.space(i)
		}
		if i < len(b) && b[i] == '}' {
			s.h.End = i + 1
			return i + 1
		}
		if i = s.comma(i, "',' or '}'"); i < 0 {
			return -1
		}
	}
}

// otherKey stands for a key that is no canonical field's.
const otherKey = -1

// key scans the key that begins at i and finds which field it names; it
// refuses one that came before.
func (s *scanner) key(i int) (end, f int) {
	if f, n := keyAt(s.b, i); f >= 0 {
		bit := uint64(1) << f
		if s.seen&bit != 0 {
			return s.twice(i, fields[f].Name), f
		}
		s.seen |= bit
		return i + n, f
	}
	if end = s.str(i); end < 0 {
		return -1, otherKey
	}
	text := s.b[i:end]
	if s.esc {
		text = unescape(text)
	}
	if f = lookup(alias(text)); f >= 0 {
		if s.seen>>f&1 != 0 {
			return s.twice(i, fields[f].Name), f
		}
		s.seen |= 1 << f
		return end, f
	}
	if secretName(text) {
		s.look |= LookSecret
	}
	if !s.other.add(text) {
		return s.twice(i, string(text)), otherKey
	}
	return end, otherKey
}

func (s *scanner) twice(i int, name string) int {
	shown := name
	if lookup(name) < 0 {
		shown = clip([]byte(name))
	}
	return s.refuse(i, name, shown+" is given twice")
}

// refuse notes what is wrong with a field's value.
func (s *scanner) refuse(at int, field, reason string) int {
	s.bad = &Problem{Reason: reason, Field: field, Offset: at}
	return -1
}

// member scans the value of a field at i.
func (s *scanner) member(f, i int) int {
	if f < 0 {
		return s.value(i, 2)
	}
	fd := &fields[f]
	switch {
	case fd.Type == Enum:
		return s.enum(f, i)
	case f == fEventTime || f == fIngestTime:
		return s.time(f, i)
	case f == fEnforced:
		if i < len(s.b) && s.b[i] == 't' {
			return s.word(i, "true")
		}
		if i < len(s.b) && s.b[i] == 'f' {
			return s.word(i, "false")
		}
		return s.wrong(f, i, "true or false")
	case f == fSeverity:
		if i < len(s.b) && s.b[i]-'0' <= 5 {
			if end, whole := s.number(i); end < 0 || end == i+1 && whole {
				s.h.Severity = int8(s.b[i] - '0')
				return end
			}
		}
		return s.wrong(f, i, "a whole number from 0 to 5")
	case fd.Opaque:
		if i >= len(s.b) || s.b[i] != '"' {
			if fd.Required {
				return s.wrong(f, i, "a string")
			}
			return s.value(i, 2)
		}
		end := s.str(i + 1)
		if end < 0 {
			return -1
		}
		if fd.Required && !s.keep(f, i, end) {
			return -1
		}
		return end + 1
	}
	if i < len(s.b) && s.b[i] == '"' {
		return s.text(i, false)
	}
	return s.skip(f, i)
}

// skip scans an optional value that is no string. Digits in the canonical
// numbers mean nothing to redaction.
func (s *scanner) skip(f, i int) int {
	if t := fields[f].Type; i < len(s.b) && (s.b[i] == '-' || s.b[i]-'0' <= 9) && (t == Int32 || t == Int64 || t == Float64) {
		end, _ := s.number(i)
		return end
	}
	return s.value(i, 2)
}

// keep takes the value of event_id, tenant_id or source, in b[i+1:end].
func (s *scanner) keep(f, i, end int) bool {
	v := s.b[i+1 : end]
	if s.esc {
		v = unescape(v)
	}
	if len(v) == 0 {
		s.refuse(i, fields[f].Name, fields[f].Name+" is empty")
		return false
	}
	switch f {
	case fEventID:
		s.h.ID = v
		s.h.Has |= HasID
	case fTenantID:
		s.h.Tenant = v
		s.h.Has |= HasTenant
	case fSource:
		s.h.Source = v
	}
	return true
}

// enum scans the value of an enum. null stands for an absent optional one.
func (s *scanner) enum(f, i int) int {
	fd := &fields[f]
	if i < len(s.b) && s.b[i] == 'n' && !fd.Required {
		return s.word(i, "null")
	}
	if i >= len(s.b) || s.b[i] != '"' {
		return s.wrong(f, i, "a string")
	}
	if v, ok := shortAt(s.b, i+1); ok {
		for n := range enumShorts[f] {
			if enumShorts[f][n] == v {
				s.chosen(f, n)
				return i + v.n + 2
			}
		}
	}
	end := s.str(i + 1)
	if end < 0 {
		return -1
	}
	v := s.b[i+1 : end]
	if s.esc {
		v = unescape(v)
	}
	if n := slices.Index(fd.Values, string(v)); n >= 0 {
		s.chosen(f, n)
		return end + 1
	}
	return s.refuse(i, fd.Name, fd.Name+" is "+clip(v)+": not one of "+strings.Join(fd.Values, " "))
}

// chosen notes the n-th value of an enum.
func (s *scanner) chosen(f, n int) {
	switch f {
	case fKind:
		s.h.Kind = Kind(n)
	case fSchema:
		s.h.Has |= HasSchema
	}
}

// time scans event_time or ingest_time.
func (s *scanner) time(f, i int) int {
	if i >= len(s.b) || s.b[i] != '-' && s.b[i]-'0' > 9 {
		return s.wrong(f, i, "a whole number of ms")
	}
	end, whole := s.number(i)
	if end < 0 {
		return -1
	}
	ms, ok := parseInt(s.b[i:end])
	if !whole || !ok {
		return s.wrong(f, i, "a whole number of ms")
	}
	if f == fIngestTime {
		s.h.IngestTime = ms
		s.h.Has |= HasIngestTime
		return end
	}
	s.h.Time = ms
	switch {
	case ms < Earliest:
		return s.refuse(i, "event_time", "event_time is "+day(ms)+": before 2000")
	case ms > s.now+Ahead:
		return s.refuse(i, "event_time", "event_time is "+day(ms)+": more than 24 h ahead")
	}
	return end
}

// wrong refuses a value of another type, unless it is no JSON at all.
func (s *scanner) wrong(f, i int, wanted string) int {
	end := s.value(i, 2)
	if end < 0 {
		return -1
	}
	return s.refuse(i, fields[f].Name, fields[f].Name+" is "+clip(s.b[i:end])+": not "+wanted)
}

// clip quotes the beginning of a value for a reason.
func clip(v []byte) string {
	if len(v) > 32 {
		v = append(append([]byte(nil), v[:29]...), "..."...)
	}
	return strconv.QuoteToASCII(strings.ToValidUTF8(string(v), "?"))
}

func day(ms int64) string {
	if ms > 253402300799999 || ms < -62135596800000 {
		return strconv.FormatInt(ms, 10) + " ms"
	}
	return time.UnixMilli(ms).UTC().Format("2 Jan 2006")
}

// others is the set of an event's top-level keys that are no canonical
// fields; the first few are held without allocating.
type others struct {
	n    int
	few  [16][]byte
	many map[string]struct{}
}

// add puts a key in; false if it is there.
func (o *others) add(key []byte) bool {
	for _, k := range o.few[:min(o.n, len(o.few))] {
		if bytes.Equal(k, key) {
			return false
		}
	}
	if o.n < len(o.few) {
		o.few[o.n] = key
		o.n++
		return true
	}
	if o.many == nil {
		o.many = map[string]struct{}{}
	}
	if _, there := o.many[string(key)]; there {
		return false
	}
	o.many[string(key)] = struct{}{}
	return true
}
