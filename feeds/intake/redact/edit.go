package redact

import (
	"bytes"
	"slices"
	"sync"
)

// how a secret's place is filled.
const (
	plain  uint8 = iota // Mask, within text
	quoted              // Mask as a JSON string
	null                // null
	given               // edit.text
)

// edit replaces rec[from:to].
type edit struct {
	from, to int
	how      uint8
	text     string
}

// scratch is what one call needs; it is pooled.
type scratch struct {
	rules  *Rules
	rec    []byte
	edits  []edit
	names  [][]byte // "<field>:<group>", each once
	path   []byte   // dotted path of the member being walked
	key    []byte
	levels [4]level
	noJWT  int  // no JSON Web Token begins before this place of the view
	broken bool // rec is JSON that cannot be read: text, in which its shapes are sought
}

var pool = sync.Pool{New: func() any { return new(scratch) }}

func getScratch() *scratch { return pool.Get().(*scratch) }

func putScratch(s *scratch) {
	s.rules, s.rec = nil, nil
	clear(s.edits)
	pool.Put(s)
}

func (s *scratch) begin(r *Rules, rec []byte) {
	if r == nil {
		r = builtin
	}
	s.rules, s.rec, s.broken = r, rec, false
	s.edits, s.names, s.path = s.edits[:0], s.names[:0], s.path[:0]
}

// push adds a member's name to the path.
func (s *scratch) push(name []byte) {
	if len(s.path) > 0 {
		s.path = append(s.path, '.')
	}
	s.path = append(s.path, name...)
}

// name is a member's name with its escapes undone.
func (s *scratch) name(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	s.key = s.key[:0]
	for i := 0; i < len(raw); {
		if r, n := rune(0), 0; raw[i] == '\\' {
			if r, n = unescape(raw[i:], true); n > 0 {
				s.key = append(s.key, string(r)...)
				i += n
				continue
			}
		}
		s.key = append(s.key, raw[i])
		i++
	}
	return s.key
}

func (s *scratch) edit(from, to int, g group, how uint8) {
	s.edits = append(s.edits, edit{from: from, to: to, how: how})
	s.note(groupNames[g])
}

func (s *scratch) replace(from, to int, found []string, text string) {
	s.edits = append(s.edits, edit{from: from, to: to, how: given, text: text})
	for _, f := range found {
		s.note(f[bytes.IndexByte([]byte(f), ':')+1:])
	}
}

// note names what was masked: the field, at most two levels deep, and the
// group. Deeper names are a sender's own, and may hold anything.
func (s *scratch) note(group string) {
	p := s.path
	if i := bytes.IndexByte(p, '.'); i >= 0 {
		if j := bytes.IndexByte(p[i+1:], '.'); j >= 0 {
			p = p[:i+1+j]
		}
	}
	if len(p) > maxName {
		p = nil
	}
	for _, n := range s.names {
		if len(n) == len(p)+1+len(group) && bytes.HasPrefix(n, p) && string(n[len(p)+1:]) == group {
			return
		}
	}
	n := make([]byte, 0, len(p)+1+len(group))
	n = append(append(append(n, p...), ':'), group...)
	if len(p) == 0 {
		n = n[1:]
	}
	s.names = append(s.names, n)
}

// apply appends rec with its edits made to dst. Edits that overlap become one.
func (s *scratch) apply(dst []byte) []byte {
	slices.SortFunc(s.edits, func(a, b edit) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return b.to - a.to
	})
	at := 0
	for i := 0; i < len(s.edits); {
		e := s.edits[i]
		for i++; i < len(s.edits) && s.edits[i].from < e.to; i++ {
			e.to = max(e.to, s.edits[i].to)
		}
		dst = append(dst, s.rec[at:e.from]...)
		switch e.how {
		case plain:
			dst = append(dst, Mask...)
		case quoted:
			dst = append(append(append(dst, '"'), Mask...), '"')
		case null:
			dst = append(dst, "null"...)
		case given:
			dst = append(dst, e.text...)
		}
		at = e.to
	}
	return append(dst, s.rec[at:]...)
}

// applyLine appends the event with its edits made and meta.redactions naming
// them to dst.
func (s *scratch) applyLine(dst []byte) []byte {
	at, text := s.redactions()
	s.edits = append(s.edits, edit{from: at.from, to: at.to, how: given, text: text})
	return s.apply(dst)
}

// redactions says where meta.redactions has to be written, and what.
func (s *scratch) redactions() (at edit, text string) {
	var list []byte
	for i, n := range s.names {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(append(append(list, '"'), n...), '"')
	}
	w := walker{s: s, b: s.rec}
	from, to, empty := w.find(w.space(0), "meta")
	if from < 0 { // no meta: behind the last member
		end := bytes.LastIndexByte(s.rec, '}')
		sep := ","
		if empty {
			sep = ""
		}
		return edit{from: end, to: end}, sep + `"meta":{"redactions":[` + string(list) + `]}`
	}
	if s.rec[from] != '{' { // null, or not of the schema: what it was is kept below
		text := `{"redactions":[` + string(list) + `]`
		if string(s.rec[from:to]) != "null" {
			text += `,"unmapped":{"meta":` + string(s.rec[from:to]) + `}`
		}
		return edit{from: from, to: to}, text + "}"
	}
	old, end, empty := w.find(from, "redactions")
	switch {
	case old < 0:
		sep := ","
		if empty {
			sep = ""
		}
		return edit{from: from + 1, to: from + 1}, `"redactions":[` + string(list) + `]` + sep
	case s.rec[old] == '[' && len(bytes.TrimSpace(s.rec[old+1:end-1])) > 0:
		return edit{from: end - 1, to: end - 1}, "," + string(list)
	default:
		return edit{from: old, to: end}, "[" + string(list) + "]"
	}
}

// find gives the value of a member of the object at i; -1 where it has none,
// and whether the object is empty.
func (w *walker) find(i int, member string) (from, to int, empty bool) {
	empty = true
	quiet := scratch{rules: &Rules{}, rec: w.b}
	p := walker{s: &quiet, b: w.b}
	for p.i = p.space(i + 1); p.i < len(p.b) && p.b[p.i] != '}'; p.i = p.space(p.i) {
		if p.b[p.i] == ',' {
			p.i = p.space(p.i + 1)
		}
		if p.i >= len(p.b) || p.b[p.i] != '"' {
			break
		}
		a, z := p.str()
		p.i = p.space(p.i)
		p.i = p.space(p.i + 1)
		at := p.i
		p.value(opaque, 0)
		if string(w.b[a:z]) == member {
			return at, p.i, false
		}
		empty = false
	}
	return -1, -1, empty
}
