package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"

	"datasync/schemas"
)

// mode says what is done with a value.
type mode uint8

const (
	free   mode = iota // text is searched, members of objects are judged by name
	opaque             // ids, addresses, closed vocabularies, numbers: left alone
	b64                // base64 text: searched inside
	inside             // an object whose members have classes of their own (net, meta …)
)

// maxWalk bounds the nesting that is walked; deeper JSON is masked as text.
const maxWalk = 192

// modes are the classes of canonical fields, top level and below.
var modes = func() map[string]mode {
	m := map[string]mode{}
	for _, f := range schemas.Fields() {
		switch {
		case len(f.Members) > 0:
			m[f.Name] = inside
			for _, sub := range f.Members {
				if sub.Type != schemas.String && sub.Type != schemas.List && sub.Type != schemas.Object {
					m[f.Name+"."+sub.Name] = opaque
				}
			}
		case f.Opaque, f.Type != schemas.String && f.Type != schemas.List:
			m[f.Name] = opaque
		default:
			m[f.Name] = free
		}
	}
	for _, id := range []string{"session_id", "rule_id", "codes_raw", "matches.rule_id", "net.dst_ip", "net.transport", "net.direction",
		"host.cluster_id", "host.node_id", "host.container", "host.pod", "host.name", "audit.actor", "audit.object_id", "audit.object_type",
		"meta.raw_sha256", "meta.redactions", "meta.truncated"} {
		m[id] = opaque
	}
	m["net.payload_b64"] = b64
	return m
}()

func jsonValid(b []byte) bool { return json.Valid(b) }

// walk goes once over the JSON in s.rec and notes what to mask; false where it
// is nested too deep to be walked (what was noted so far stands).
func (s *scratch) walk(canonical bool) bool {
	w := walker{s: s, b: s.rec, canonical: canonical}
	w.i = w.space(0)
	w.value(free, 0)
	return !w.deep
}

type walker struct {
	s         *scratch
	b         []byte
	i         int
	canonical bool
	deep      bool
}

func (w *walker) space(i int) int {
	for i < len(w.b) && w.b[i] <= ' ' {
		i++
	}
	return i
}

// str passes the string whose quote is at w.i and returns the place of its inside.
func (w *walker) str() (from, to int) {
	from = w.i + 1
	for i := from; ; {
		n := bytes.IndexByte(w.b[i:], '"')
		if n < 0 {
			w.i = len(w.b)
			return from, len(w.b)
		}
		i += n
		k := i - 1
		for k >= from && w.b[k] == '\\' {
			k--
		}
		if (i-1-k)%2 == 0 {
			w.i = i + 1
			return from, i
		}
		i++
	}
}

// value passes the value at w.i.
func (w *walker) value(m mode, depth int) {
	if w.i >= len(w.b) {
		return
	}
	if depth > maxWalk {
		w.deep = true
		w.i = len(w.b)
		return
	}
	switch w.b[w.i] {
	case '"':
		from, to := w.str()
		switch m {
		case free, inside:
			w.s.text(from, to, true)
		case b64:
			w.payload(from, to)
		}
	case '{':
		w.object(m, depth)
	case '[':
		for w.i = w.space(w.i + 1); w.i < len(w.b) && w.b[w.i] != ']'; w.i = w.space(w.i) {
			if w.b[w.i] == ',' {
				w.i = w.space(w.i + 1)
			}
			w.value(m, depth+1)
		}
		w.i++
	default:
		w.scalar()
	}
}

// scalar passes a number or a word.
func (w *walker) scalar() (from, to int) {
	from = w.i
	for w.i < len(w.b) && w.b[w.i] != ',' && w.b[w.i] != '}' && w.b[w.i] != ']' && w.b[w.i] > ' ' {
		w.i++
	}
	if w.i == from {
		w.i++ // not JSON; go on
	}
	return from, w.i
}

// object passes an object. {"name": N, "value": V} is judged as the header N.
func (w *walker) object(m mode, depth int) {
	path := len(w.s.path)
	header, value := none, edit{}
	for w.i = w.space(w.i + 1); w.i < len(w.b) && w.b[w.i] != '}'; w.i = w.space(w.i) {
		if w.b[w.i] == ',' {
			w.i = w.space(w.i + 1)
		}
		if w.i >= len(w.b) || w.b[w.i] != '"' {
			w.scalar() // not JSON; go on
			continue
		}
		from, to := w.str()
		w.i = w.space(w.i)
		w.i = w.space(w.i + 1) // the colon
		name := w.s.name(w.b[from:to])
		w.s.push(w.b[from:to])
		at := w.i
		w.member(name, m, depth)
		if pairName(name) && at < len(w.b) && w.b[at] == '"' && w.i-at > 2 {
			header, _ = secretName(w.b[at+1 : w.i-1])
		}
		if bytes.EqualFold(name, []byte("value")) {
			value = edit{from: at, to: w.i}
		}
		w.s.path = w.s.path[:path]
	}
	w.i++
	if header != none && value.to > value.from && w.s.rules.groups&(1<<header) != 0 {
		w.s.push([]byte("value"))
		w.mask(value.from, value.to, header)
		w.s.path = w.s.path[:path]
	}
}

func pairName(name []byte) bool {
	switch string(name) {
	case "name", "Name", "key", "Key", "header":
		return true
	}
	return false
}

// member passes the value of a member: masked whole where the tenant or the
// name says so, else searched as its class allows.
func (w *walker) member(name []byte, m mode, depth int) {
	s := w.s
	if len(s.rules.fields) > 0 && w.canonical && s.rules.fields[string(s.path)] {
		from := w.i
		w.value(opaque, depth+1)
		w.mask(from, w.i, ownFields)
		return
	}
	known := false
	if w.canonical && (depth == 0 || m == inside && depth <= 2) {
		var sub mode
		if sub, known = modes[string(s.path)]; !known {
			sub = free
		}
		m = sub
		if m == opaque && depth == 0 && w.i < len(w.b) && (w.b[w.i] == '{' || w.b[w.i] == '[') {
			m = free // an optional field of another type than the schema's
		}
	}
	if !known && m != opaque {
		if g, _ := secretName(name); g != none && s.rules.groups&(1<<g) != 0 {
			from := w.i
			w.value(opaque, depth+1)
			w.mask(from, w.i, g)
			return
		}
		if idName(name) && m == free && w.i < len(w.b) && w.b[w.i] == '"' {
			m = opaque
		}
	}
	w.value(m, depth+1)
}

// mask masks the value in b[from:to] whole: text by Mask, numbers and
// structures by Mask as text (null where the schema wants no text); true,
// false, null and what is empty stay.
func (w *walker) mask(from, to int, g group) {
	b := w.b[from:to]
	switch {
	case len(b) < 2 && (len(b) == 0 || !digit(b[0])), string(b) == `""`, string(b) == "{}", string(b) == "[]":
		return
	case b[0] == '"':
		if string(b[1:len(b)-1]) != Mask {
			w.s.edit(from+1, to-1, g, plain)
		}
	case b[0] == 't', b[0] == 'f', b[0] == 'n':
		if g == ownFields && b[0] != 'n' {
			w.s.edit(from, to, g, null)
		}
	default:
		how := quoted
		if g == ownFields {
			how = null
		}
		w.s.edit(from, to, g, how)
	}
}

// payload looks into base64 text and replaces it where a secret is inside.
func (w *walker) payload(from, to int) {
	s := w.s
	raw, err := base64.StdEncoding.DecodeString(string(w.b[from:to]))
	if err != nil {
		s.text(from, to, true)
		return
	}
	out, found := s.rules.Record(nil, raw)
	if len(found) == 0 {
		return
	}
	s.replace(from, to, found, base64.StdEncoding.EncodeToString(out))
}

// minPayload is the least base64 text that is looked into where no name tells it.
const minPayload = 24

// payloads looks into all base64 text of a record that is no JSON, where no
// name tells what is a payload, and masks what a secret is inside of.
func (s *scratch) payloads() {
	for i := 0; i < len(s.rec); i++ {
		from := i
		for i < len(s.rec) && (base64Byte[s.rec[i]] || s.rec[i] == '\\' && i+1 < len(s.rec) && s.rec[i+1] == '/') {
			i++
		}
		if i-from < minPayload {
			continue
		}
		text := bytes.ReplaceAll(bytes.TrimRight(s.rec[from:i], "\\"), []byte{'\\'}, nil)
		text = text[:len(text)/4*4] // it may be cut
		raw := make([]byte, base64.RawStdEncoding.DecodedLen(len(text)))
		n, err := base64.RawStdEncoding.Decode(raw, text)
		if err != nil || !readable(raw[:n]) {
			continue
		}
		if _, found := s.rules.Record(nil, raw[:n]); len(found) > 0 {
			s.replace(from, i, found, Mask)
		}
	}
}

var base64Byte = func() (t [256]bool) {
	for c := range t {
		t[c] = c < 0x80 && alnum(byte(c)) || c == '+' || c == '/'
	}
	return t
}()

// readable says that nearly all of b is printable text, as ids and hashes that
// look like base64 are not.
func readable(b []byte) bool {
	odd := 0
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' || c == 0x7f {
			odd++
		}
	}
	return odd*20 <= len(b)
}
