package schemas

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// AppendJSON appends e as one line without a newline: fields in the table's
// order, absent ones left out, then Extra's members; the same event always
// gives the same bytes. event_time, enforced and severity are always written.
// Floats that JSON cannot hold are left out. Meta.Unmapped and Extra must be
// JSON objects.
func AppendJSON(dst []byte, e *Event) []byte {
	start := len(dst)
	for f := range fields {
		dst = appendField(dst, &fields[f], unsafe.Add(unsafe.Pointer(e), fields[f].at))
	}
	if inner := objectInside(e.Extra); inner != "" {
		dst = Compact(append(dst, ','), bytesOf(inner))
	}
	return openObject(dst, start)
}

// openObject puts the '{' where the first of an object's members, each behind
// a comma, begins, and ends it.
func openObject(dst []byte, start int) []byte {
	if len(dst) == start {
		return append(dst, '{', '}')
	}
	dst[start] = '{'
	return append(dst, '}')
}

// objectInside cuts the braces off an object's text.
func objectInside(object string) string {
	object = strings.TrimSpace(object)
	if len(object) < 2 {
		return ""
	}
	return strings.TrimSpace(object[1 : len(object)-1])
}

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// appendField appends `,"name":value` for the variable at p, nothing if absent.
func appendField(dst []byte, f *Field, p unsafe.Pointer) []byte {
	switch f.Type {
	case String, Enum:
		if s := *(*string)(p); s != "" {
			return AppendString(appendKey(dst, f), s)
		}
	case Int8:
		return strconv.AppendInt(appendKey(dst, f), int64(*(*int8)(p)), 10)
	case Time, Int32, Int64:
		v := (*Int)(p)
		if f.Type == Time && f.Required {
			v = &Int{V: *(*int64)(p), OK: *(*int64)(p) != 0 || !f.Spliced}
		}
		if v.OK {
			return strconv.AppendInt(appendKey(dst, f), v.V, 10)
		}
	case Float64:
		if v := (*Float)(p); v.OK && !math.IsNaN(v.V) && !math.IsInf(v.V, 0) {
			return appendFloat(appendKey(dst, f), v.V)
		}
	case Boolean:
		v := *(*bool)(p) // the value comes first in Bool too
		if f.Required || (*Bool)(p).OK {
			return strconv.AppendBool(appendKey(dst, f), v)
		}
	case List:
		if list := *(*[]string)(p); len(list) > 0 {
			dst = append(appendKey(dst, f), '[')
			for n, s := range list {
				if n > 0 {
					dst = append(dst, ',')
				}
				dst = AppendString(dst, s)
			}
			return append(dst, ']')
		}
	case Struct:
		if *(*bool)(p) { // OK comes first in these structs
			return appendMembers(appendKey(dst, f), f, p)
		}
	case StructList:
		if list := *(*[]Match)(p); len(list) > 0 {
			dst = append(appendKey(dst, f), '[')
			for n := range list {
				if n > 0 {
					dst = append(dst, ',')
				}
				dst = appendMembers(dst, f, unsafe.Pointer(&list[n]))
			}
			return append(dst, ']')
		}
	case Object:
		if s := *(*string)(p); s != "" {
			return Compact(appendKey(dst, f), bytesOf(s))
		}
	}
	return dst
}

func appendMembers(dst []byte, f *Field, p unsafe.Pointer) []byte {
	start := len(dst)
	for n := range f.Members {
		dst = appendField(dst, &f.Members[n], unsafe.Add(p, f.Members[n].at))
	}
	return openObject(dst, start)
}

func appendKey(dst []byte, f *Field) []byte {
	dst = append(dst, ',', '"')
	dst = append(dst, f.Name...)
	return append(dst, '"', ':')
}

// appendFloat writes v as encoding/json does.
func appendFloat(dst []byte, v float64) []byte {
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.AppendFloat(dst, v, 'e', -1, 64)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, 64)
}

// AppendString appends s as a JSON string. No raw control character, U+2028,
// U+2029 or invalid UTF-8 survives: the first three are escaped, invalid
// bytes become U+FFFD.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			if (r != utf8.RuneError || n > 1) && r != '\u2028' && r != '\u2029' {
				i += n
				continue
			}
			dst = append(dst, s[from:i]...)
			if r == utf8.RuneError {
				dst = append(dst, "\ufffd"...)
			} else {
				dst = append(dst, `\u202`...)
				dst = append(dst, hexDigits[r&0xF])
			}
			i += n
			from = i
			continue
		}
		dst = append(dst, s[from:i]...)
		dst = appendEscape(dst, c)
		i++
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

const hexDigits = "0123456789abcdef"

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xF])
}

// Additions are what intake puts into an event that lacks it.
type Additions struct {
	ID, Tenant string
	IngestTime int64 // ms UTC
}

// AppendStored appends the event that Scan passed and filled h for as it is
// stored: compact, the whitespace around it gone, and with those of schema,
// event_id, tenant_id and ingest_time put in front that h says are missing.
func AppendStored(dst, line []byte, h *Head, add *Additions) []byte {
	dst = AppendOpening(dst, h, add)
	if !h.Compact {
		return Compact(dst, line[h.Open:h.End])
	}
	return append(dst, line[h.Open:h.End]...)
}

// AppendOpening appends what of AppendStored stands before line[h.Open:].
func AppendOpening(dst []byte, h *Head, add *Additions) []byte {
	dst = append(dst, '{')
	if h.Has&HasSchema == 0 {
		dst = append(dst, `"schema":"`+Version+`",`...)
	}
	if h.Has&HasID == 0 {
		dst = append(AppendString(append(dst, `"event_id":`...), add.ID), ',')
	}
	if h.Has&HasTenant == 0 {
		dst = append(AppendString(append(dst, `"tenant_id":`...), add.Tenant), ',')
	}
	if h.Has&HasIngestTime == 0 {
		dst = append(strconv.AppendInt(append(dst, `"ingest_time":`...), add.IngestTime, 10), ',')
	}
	return dst
}

// unescape undoes the escapes of a string that str has checked. Lone
// surrogates become U+FFFD.
func unescape(s []byte) []byte {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		c := s[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		switch e := s[i+1]; e {
		case 'u':
			r := rune(hex4(s[i+2:]))
			i += 6
			if utf16.IsSurrogate(r) {
				low := rune(0)
				if len(s)-i >= 6 && s[i] == '\\' && s[i+1] == 'u' {
					low = rune(hex4(s[i+2:]))
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
			continue
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		default:
			out = append(out, e)
		}
		i += 2
	}
	return out
}

func hex4(s []byte) (v uint32) {
	for _, c := range s[:4] {
		if c <= '9' {
			v = v<<4 | uint32(c-'0')
		} else {
			v = v<<4 | uint32(c|0x20-'a'+10)
		}
	}
	return v
}

// parseInt reads a whole JSON number; false outside int64.
func parseInt(s []byte) (int64, bool) {
	if len(s) > 0 && len(s) <= 18 {
		neg := s[0] == '-'
		if neg {
			s = s[1:]
		}
		var v int64
		for _, c := range s {
			if c-'0' > 9 {
				return 0, false
			}
			v = v*10 + int64(c-'0')
		}
		if neg {
			v = -v
		}
		return v, len(s) > 0
	}
	v, err := strconv.ParseInt(string(s), 10, 64)
	return v, err == nil
}

// Compact appends a line that Scan passed to dst, without the whitespace
// between its tokens and with U+2028 and U+2029 escaped.
func Compact(dst, line []byte) []byte {
	from, quoted := 0, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\':
			i++
		case !quoted && c <= ' ':
			dst = append(dst, line[from:i]...)
			from = i + 1
		case c == 0xE2 && i+2 < len(line) && line[i+1] == 0x80 && line[i+2]&^1 == 0xA8:
			dst = append(dst, line[from:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[line[i+2]&0xF])
			from = i + 3
			i += 2
		}
	}
	return append(dst, line[from:]...)
}
