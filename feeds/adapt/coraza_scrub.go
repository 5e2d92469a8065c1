package adapt

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unsafe"

	"datasync/schemas"
)

// remains gathers what has no canonical place as one JSON object, in objects of
// its own where it came in such, and without cookies and keys at any depth.
type remains struct{ b []byte }

// comma goes before the next member or element where one is needed: no value
// ends in an opening bracket.
func (u *remains) comma() {
	if n := len(u.b); n == 0 {
		u.b = append(u.b, '{')
	} else if u.b[n-1] != '{' && u.b[n-1] != '[' {
		u.b = append(u.b, ',')
	}
}

func (u *remains) add(key string, value []byte) {
	u.comma()
	u.b = append(schemas.AppendString(u.b, key), ':')
	u.b = scrub(u.b, value)
}

// addText adds a text of ours.
func (u *remains) addText(key, s string) {
	u.comma()
	u.b = append(schemas.AppendString(u.b, key), ':')
	u.b = schemas.AppendString(u.b, s)
}

// addInt adds a number of ours.
func (u *remains) addInt(key string, v int64) {
	u.comma()
	u.b = append(schemas.AppendString(u.b, key), ':')
	u.b = strconv.AppendInt(u.b, v, 10)
}

// within has what f adds lie in a member of its own, "{}" or "[]"; with no key,
// in an element of the array around it. It leaves nothing where f adds nothing.
func (u *remains) within(key, brackets string, f func()) {
	mark := len(u.b)
	u.comma()
	if key != "" {
		u.b = append(schemas.AppendString(u.b, key), ':')
	}
	u.b = append(u.b, brackets[0])
	f()
	if u.b[len(u.b)-1] == brackets[0] {
		u.b = u.b[:mark]
		return
	}
	u.b = append(u.b, brackets[1])
}

// json is the object, "" where nothing is in it. Call it once.
func (u *remains) json() string {
	if len(u.b) == 0 {
		return ""
	}
	u.b = append(u.b, '}')
	return unsafe.String(unsafe.SliceData(u.b), len(u.b))
}

// secretName says that a member or a header of this name holds a cookie, a key
// or an authorization.
func secretName(name string) bool {
	if len(name) > 64 || !suspicious(name) {
		return false
	}
	if secretKey(name) {
		return true
	}
	n := strings.ToLower(punctuation.Replace(name))
	return strings.HasSuffix(n, "apikey") || strings.HasSuffix(n, "authorization")
}

// suspicious says, of text as it stands in JSON, whether a name that secretName
// knows can be in it.
func suspicious[T string | []byte](b T) bool {
	for i := 0; i+2 < len(b); i++ {
		switch b[i] | 0x20 {
		case 'k': // cookie, key
			if b[i+1]|0x20 == 'i' && b[i+2]|0x20 == 'e' || b[i+1]|0x20 == 'e' && b[i+2]|0x20 == 'y' {
				return true
			}
		case 'z': // authorization
			if b[i+1]|0x20 == 'a' && b[i+2]|0x20 == 't' {
				return true
			}
		case '\\' | 0x20: // escaped letters may spell anything
			if b[i] == '\\' && b[i+1] == 'u' && b[i+2] == '0' {
				return true
			}
		}
	}
	return false
}

// scrub appends a value without what secretName names, at whatever depth.
func scrub(dst, value []byte) []byte {
	if !suspicious(value) {
		return append(dst, value...)
	}
	switch value[0] {
	case '{':
		return scrubObject(dst, value)
	case '[':
		dst = append(dst, '[')
		start := len(dst)
		items(value, func(v []byte) {
			if len(dst) > start {
				dst = append(dst, ',')
			}
			dst = scrub(dst, v)
		})
		return append(dst, ']')
	case '"':
		if s := text(value); strings.IndexByte(s, ':') >= 0 {
			if kept, cut := withoutSecrets(s); cut {
				return schemas.AppendString(dst, kept)
			}
		}
	}
	return append(dst, value...)
}

// scrubObject knows a header's name also where it is a value:
// {"name":"Cookie","value":"…"}.
func scrubObject(dst, value []byte) []byte {
	header := false
	members(value, func(key string, v []byte) {
		header = header || (key == "name" || key == "key") && secretName(text(v))
	})
	dst = append(dst, '{')
	start := len(dst)
	members(value, func(key string, v []byte) {
		if secretName(key) || header && (key == "value" || key == "values") {
			return
		}
		if len(dst) > start {
			dst = append(dst, ',')
		}
		dst = scrub(append(schemas.AppendString(dst, key), ':'), v)
	})
	return append(dst, '}')
}

// withoutSecrets takes the header lines that secretName names out of text that
// holds a request or a response as it was on the wire.
func withoutSecrets(s string) (kept string, cut bool) {
	if !suspicious(s) {
		return s, false
	}
	var b []byte
	secret := false // the line before was one; a line that begins blank goes on with it
	for line := range strings.SplitAfterSeq(s, "\n") {
		name, _, header := strings.Cut(line, ":")
		folded := line != "" && (line[0] == ' ' || line[0] == '\t')
		if secret = secret && folded || header && secretName(strings.TrimSpace(name)); secret {
			cut = true
			continue
		}
		b = append(b, line...)
	}
	if !cut {
		return s, false
	}
	return string(b), true
}

// maxPayload bounds what is kept of a packet's payload, in bytes decoded.
const maxPayload = 16 << 10

// payload takes a base64 payload: bounded, and without the header lines that
// hold secrets. It gives what is in it.
func (r *record) payload(b64 string) (plain []byte, ok bool) {
	plain, err := base64.StdEncoding.DecodeString(b64)
	if err != nil {
		return nil, false
	}
	changed := len(plain) > maxPayload
	if changed {
		plain = plain[:maxPayload]
		r.note("net.payload_b64")
	}
	if kept, cut := withoutSecrets(unsafe.String(unsafe.SliceData(plain), len(plain))); cut {
		plain, changed = []byte(kept), true
		r.masked = append(r.masked, "net.payload_b64:credentials")
	}
	if changed {
		b64 = base64.StdEncoding.EncodeToString(plain)
	}
	r.e.Net.PayloadB64, r.e.Net.OK = b64, true
	return plain, true
}

// header is the value of a header line in text, "" where it is not there.
func header(s, name string) string {
	for line := range strings.SplitSeq(s, "\n") {
		if n, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(n), name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
