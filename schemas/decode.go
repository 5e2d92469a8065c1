package schemas

import (
	"fmt"
	"math"
	"strconv"
	"unsafe"
)

// Decode reads one event's line into e, whose slices and buffers it uses
// again. Strings alias the line (Extra: a buffer in e) unless they hold
// escapes: they are good until the line changes or e is decoded into again.
// null stands for an absent field. What has no place in Event goes to Extra:
// unknown members, and optional ones of another type than the schema's; those
// of inner objects under a dotted name ("net.vlan", "matches.0.tag"). The
// error is not nil for a line that is no strict JSON object, and for a
// required field of another type; missing fields and unknown enum values are
// Scan's to find.
func Decode(line []byte, e *Event) error {
	e.reset()
	d := decoder{lexer: lexer{b: line, blind: true}, e: e}
	i := d.object(d.space(0), topLevel, unsafe.Pointer(e))
	if i >= 0 {
		i = d.end(i)
	}
	if i < 0 {
		if d.err != nil {
			return d.err
		}
		return fmt.Errorf("decode event: %w", d.problem())
	}
	if len(e.extra) > 0 {
		e.extra[0] = '{'
		e.extra = append(e.extra, '}')
		e.Extra = alias(e.extra)
		e.seen |= 1 << fieldCount
	}
	return nil
}

// reset makes e as new but for the memory it holds.
func (e *Event) reset() {
	matches, tactics, techniques, extra, meta := e.Matches, e.Tactics, e.Techniques, e.extra, e.Meta
	*e = Event{} // in place: a literal with values would be made elsewhere and copied
	e.Matches, e.Tactics, e.Techniques, e.extra = matches[:0], tactics[:0], techniques[:0], extra[:0]
	e.Meta.Labels, e.Meta.Redactions, e.Meta.Truncated = meta.Labels[:0], meta.Redactions[:0], meta.Truncated[:0]
}

// decoder is a lexer that knows where the fields lie in their Go structs.
type decoder struct {
	lexer
	e    *Event
	in   string // the inner object's name, with a dot behind it
	item int    // and its place in its list
	err  error
}

// topLevel marks the event's own object: its fields are the table's.
var topLevel []Field

// object decodes an object at i into the struct at p.
func (d *decoder) object(i int, members []Field, p unsafe.Pointer) int {
	b := d.b
	if i >= len(b) || b[i] != '{' {
		return d.unexpected(i, "a JSON object")
	}
	if i = d.space(i + 1); i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(b) || b[i] != '"' {
			return d.unexpected(i, "a key")
		}
		from := i + 1
		end, f := d.key(members, from)
		if end < 0 {
			return -1
		}
		if end+2 < len(b) && b[end+1] == ':' && b[end+2] > ' ' {
			i = end + 2
		} else if i = d.colon(end + 1); i < 0 {
			return -1
		}
		if f != nil && i < len(b) && b[i] == '"' && (f.Type == String || f.Type == Enum) { // nearly all are
			i = d.text(i, (*string)(unsafe.Add(p, f.at)))
		} else {
			i = d.member(f, i, from, end, p)
		}
		if i < 0 {
			return -1
		}
		if i+1 < len(b) && b[i] == ',' && b[i+1] > ' ' {
			i++
			continue
		}
		if i < len(b) && b[i] <= ' ' {
			i = d.space(i)
		}
		if i < len(b) && b[i] == '}' {
			return i + 1
		}
		if i = d.comma(i, "',' or '}'"); i < 0 {
			return -1
		}
	}
}

// key scans the key that begins at i and finds its field, nil for an unknown one.
func (d *decoder) key(members []Field, i int) (end int, f *Field) {
	if members == nil {
		if f, n := keyAt(d.b, i); f >= 0 {
			d.e.seen |= 1 << f
			return i + n, &fields[f]
		}
	}
	if end = d.str(i); end < 0 {
		return -1, nil
	}
	name := d.b[i:end]
	if d.esc {
		name = unescape(name)
	}
	if members == nil {
		if n := lookup(alias(name)); n >= 0 {
			d.e.seen |= 1 << n
			return end, &fields[n]
		}
		return end, nil
	}
	for n := range members {
		if members[n].Name == string(name) {
			return end, &members[n]
		}
	}
	return end, nil
}

// member decodes the value at i into the field f of the struct at p; what does
// not fit goes to Extra. b[from:to] is its key.
func (d *decoder) member(f *Field, i, from, to int, p unsafe.Pointer) int {
	start := i
	if f != nil {
		if i < len(d.b) && d.b[i] == 'n' && !f.Required {
			d.clear(f, p)
			return d.word(i, "null")
		}
		end, fits := d.fill(f, i, unsafe.Add(p, f.at))
		if fits || end < 0 {
			return end
		}
		d.clear(f, p)
	}
	end := d.value(start, 2)
	switch {
	case end < 0:
	case f != nil && f.Required:
		d.err = fmt.Errorf("decode event: %s is %s: not of type %s", f.Name, clip(d.b[start:end]), f.Type)
		return -1
	default:
		d.spill(from, to, d.b[start:end])
	}
	return end
}

// fill decodes the value at i into the variable at p, whose Go type goes with
// the field's. fits is false, and nothing is decided, for another type of value.
func (d *decoder) fill(f *Field, i int, p unsafe.Pointer) (end int, fits bool) {
	if i >= len(d.b) {
		return d.unexpected(i, "a JSON value"), false
	}
	c := d.b[i]
	switch f.Type {
	case String, Enum:
		if c != '"' {
			return i, false
		}
		end = d.text(i, (*string)(p))
	case Time, Int8, Int32, Int64:
		return d.integer(f, i, p)
	case Float64:
		return d.float(i, (*Float)(p))
	case Boolean:
		return d.boolean(f, i, p)
	case List:
		return d.list(i, (*[]string)(p))
	case Struct:
		if c != '{' {
			return i, false
		}
		*(*bool)(p) = true // OK comes first in these structs
		end = d.inner(f, i, -1, p)
	case StructList:
		return d.matches(f, i, (*[]Match)(p))
	case Object:
		if c != '{' {
			return i, false
		}
		if end = d.value(i, 2); end >= 0 {
			*(*string)(p) = alias(d.b[i:end])
		}
	}
	return end, end >= 0
}

// clear makes a field absent again: a repeated inner key, or a list that
// turned out to be of another type.
func (d *decoder) clear(f *Field, p unsafe.Pointer) {
	p = unsafe.Add(p, f.at)
	switch f.Type {
	case List:
		*(*[]string)(p) = (*(*[]string)(p))[:0]
	case StructList:
		*(*[]Match)(p) = (*(*[]Match)(p))[:0]
	}
}

// text decodes the string at i.
func (d *decoder) text(i int, s *string) int {
	end := d.str(i + 1)
	switch {
	case end < 0:
		return -1
	case d.esc:
		*s = alias(unescape(d.b[i+1 : end]))
	default:
		*s = alias(d.b[i+1 : end])
	}
	return end + 1
}

// inner decodes an object within the event; item is its place in a list.
func (d *decoder) inner(f *Field, i, item int, p unsafe.Pointer) int {
	d.in, d.item = f.Name, item
	i = d.object(i, f.Members, p)
	d.in = ""
	return i
}

func (d *decoder) integer(f *Field, i int, p unsafe.Pointer) (int, bool) {
	if c := d.b[i]; c != '-' && c-'0' > 9 {
		return i, false
	}
	end, whole := d.number(i)
	if end < 0 {
		return -1, false
	}
	v, ok := parseInt(d.b[i:end])
	if !whole || !ok || f.Type == Int32 && v != int64(int32(v)) || f.Type == Int8 && v != int64(int8(v)) {
		return i, false
	}
	switch {
	case f.Type == Int8:
		*(*int8)(p) = int8(v)
	case f.Type == Time && f.Required:
		*(*int64)(p) = v
	default:
		*(*Int)(p) = Int{V: v, OK: true}
	}
	return end, true
}

func (d *decoder) boolean(f *Field, i int, p unsafe.Pointer) (end int, fits bool) {
	v := d.b[i] == 't'
	switch d.b[i] {
	case 't':
		end = d.word(i, "true")
	case 'f':
		end = d.word(i, "false")
	default:
		return i, false
	}
	if f.Required {
		*(*bool)(p) = v
	} else {
		*(*Bool)(p) = Bool{V: v, OK: true}
	}
	return end, end >= 0
}

func (d *decoder) float(i int, p *Float) (int, bool) {
	if c := d.b[i]; c != '-' && c-'0' > 9 {
		return i, false
	}
	end, whole := d.number(i)
	if end < 0 {
		return -1, false
	}
	v, ok := parseFloat(d.b[i:end], whole)
	if !ok {
		return i, false
	}
	*p = Float{V: v, OK: true}
	return end, true
}

// tens are the powers of ten that a float64 holds exactly.
var tens = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// parseFloat reads a JSON number: up to 15 digits without an exponent by one
// exact division, the rest by strconv. false where a float64 cannot hold it.
func parseFloat(s []byte, whole bool) (float64, bool) {
	if len(s) <= 16 {
		var v int64
		point, digit := -1, 0
		for n, c := range s {
			switch {
			case c-'0' <= 9:
				v = v*10 + int64(c-'0')
				digit++
			case c == '.':
				point = n
			case c != '-':
				digit = 99
			}
		}
		if digit <= 15 && v != 0 {
			r := float64(v)
			if !whole {
				r /= tens[len(s)-1-point]
			}
			if s[0] == '-' {
				r = -r
			}
			return r, true
		}
	}
	v, err := strconv.ParseFloat(string(s), 64)
	return v, err == nil && !math.IsInf(v, 0)
}

func (d *decoder) list(i int, p *[]string) (int, bool) {
	if d.b[i] != '[' {
		return i, false
	}
	*p = (*p)[:0]
	start := i
	if i = d.space(i + 1); i < len(d.b) && d.b[i] == ']' {
		return i + 1, true
	}
	for {
		if i < len(d.b) && d.b[i] != '"' {
			return start, false
		}
		var s string
		if i = d.text(i, &s); i < 0 {
			return -1, false
		}
		*p = append(*p, s)
		if i = d.space(i); i < len(d.b) && d.b[i] == ']' {
			return i + 1, true
		}
		if i = d.comma(i, "',' or ']'"); i < 0 {
			return -1, false
		}
	}
}

func (d *decoder) matches(f *Field, i int, p *[]Match) (int, bool) {
	if d.b[i] != '[' || !d.objects(i) {
		return i, d.what != ""
	}
	*p = (*p)[:0]
	if i = d.space(i + 1); i < len(d.b) && d.b[i] == ']' {
		return i + 1, true
	}
	for {
		*p = append(*p, Match{})
		if i = d.inner(f, i, len(*p)-1, unsafe.Pointer(&(*p)[len(*p)-1])); i < 0 {
			return -1, false
		}
		if i = d.space(i); i < len(d.b) && d.b[i] == ']' {
			return i + 1, true
		}
		if i = d.comma(i, "',' or ']'"); i < 0 {
			return -1, false
		}
	}
}

// objects says whether the array at i holds objects only.
func (d *decoder) objects(i int) bool {
	l := lexer{b: d.b, blind: true}
	for i = l.space(i + 1); i < len(l.b) && l.b[i] != ']'; i = l.space(i) {
		if l.b[i] != '{' {
			return false
		}
		if i = l.object(i, 3); i < 0 {
			return true // the caller meets the fault itself
		}
		if i = l.space(i); i < len(l.b) && l.b[i] == ',' {
			i++
		}
	}
	return true
}

// spill keeps a member that has no place in Event.
func (d *decoder) spill(from, to int, value []byte) {
	x := append(d.e.extra, ',', '"')
	if d.in != "" {
		x = append(append(x, d.in...), '.')
		if d.item >= 0 {
			x = append(strconv.AppendInt(x, int64(d.item), 10), '.')
		}
	}
	x = append(append(x, d.b[from:to]...), '"', ':')
	d.e.extra = append(x, value...)
}

// alias makes a string of bytes that will not change while it is used.
func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
