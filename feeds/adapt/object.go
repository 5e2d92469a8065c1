package adapt

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"
	"unsafe"

	"datasync/schemas"
)

// members calls f for each member of the JSON object in b, which
// schemas.Check has passed; false where b is no object. Keys are unescaped,
// values stand as they came; both alias b.
func members(b []byte, f func(key string, value []byte)) bool {
	i := firstByte(b)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	for i++; i < len(b); {
		i += firstByte(b[i:])
		if i >= len(b) || b[i] == '}' {
			return true
		}
		if b[i] == ',' {
			i++
			continue
		}
		end := skip(b, i)
		key := text(b[i:end])
		i = end + firstByte(b[end:]) + 1 // the colon
		i += firstByte(b[min(i, len(b)):])
		end = skip(b, i)
		if end <= i {
			return true
		}
		f(key, b[i:end])
		i = end
	}
	return true
}

// skip is the place behind the value at i.
func skip(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r', ':':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return len(b)
}

func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

// text is a value as text: of a string what it says, of a number its digits;
// "" of anything else. It may alias the value.
func text(value []byte) string {
	if len(value) == 0 {
		return ""
	}
	switch c := value[0]; {
	case c == '"' && len(value) >= 2:
		inside := value[1 : len(value)-1]
		if bytes.IndexByte(inside, '\\') < 0 {
			return unsafe.String(unsafe.SliceData(inside), len(inside))
		}
		var s string
		if json.Unmarshal(value, &s) != nil {
			return ""
		}
		return s
	case c == '-' || c >= '0' && c <= '9':
		return unsafe.String(unsafe.SliceData(value), len(value))
	}
	return ""
}

// isNull says that a value says nothing: null, "" or "-".
func isNull(value []byte) bool {
	switch string(value) {
	case "null", `""`, `"-"`:
		return true
	}
	return false
}

// integer reads a whole number, given as one or as text.
func integer(value []byte) schemas.Int {
	v, err := strconv.ParseInt(text(value), 10, 64)
	return schemas.Int{V: v, OK: err == nil}
}

// int32s is integer within 32 bits.
func int32s(value []byte) schemas.Int {
	v, err := strconv.ParseInt(text(value), 10, 32)
	return schemas.Int{V: v, OK: err == nil}
}

// number reads a number, given as one or as text.
func number(value []byte) schemas.Float {
	v, err := strconv.ParseFloat(text(value), 64)
	return schemas.Float{V: v, OK: err == nil && v-v == 0}
}

// limit cuts s to at most n bytes, at a character, and says whether it did.
func limit(s string, n int) (string, bool) {
	if len(s) <= n {
		return s, false
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n], true
}

// unmapped gathers members without a canonical place as one JSON object.
type unmapped struct{ b []byte }

func (u *unmapped) add(key string, value []byte) {
	if len(u.b) == 0 {
		u.b = append(u.b, '{')
	} else {
		u.b = append(u.b, ',')
	}
	u.b = append(schemas.AppendString(u.b, key), ':')
	u.b = append(u.b, value...)
}

// json is the object, "" where nothing was added. Call it once.
func (u *unmapped) json() string {
	if len(u.b) == 0 {
		return ""
	}
	u.b = append(u.b, '}')
	return unsafe.String(unsafe.SliceData(u.b), len(u.b))
}
