package redact

import (
	"unicode/utf8"
)

// window bounds how much text is decoded at a time; longer text is cut where a
// value ends.
const window = 64 << 10

// view is text at one level of decoding. pos[i] is where b[i] began in the
// record, pos[len(b)] the end; nil means base+i.
type view struct {
	b    []byte
	pos  []int32
	base int
}

// src is the place in the record of v.b[i].
func (v *view) src(i int) int {
	if v.pos == nil {
		return v.base + i
	}
	return int(v.pos[i])
}

// text looks for secrets in rec[from:to], the inside of a JSON string or (str
// false) bytes of any kind. Each level of URL encoding is searched: a value may
// itself hold an encoded separator.
func (s *scratch) text(from, to int, str bool) {
	for from < to {
		end := cut(s.rec, from, to)
		first := len(s.edits)
		s.window(from, end, str)
		from = end
		for i := first; i < len(s.edits) && end < to; i++ {
			if s.edits[i].to == end { // the secret goes on behind the window
				for from < to && s.rec[from] != '&' && s.rec[from] != '\n' && s.rec[from] != '"' {
					from++
				}
				if from > end && from < to && s.rec[from] == '"' && s.rec[from-1] == '\\' {
					from--
				}
				s.edits[i].to = from
				end = to
			}
		}
	}
}

// cut finds where to end the window that begins at from.
func cut(b []byte, from, to int) int {
	if to-from <= window {
		return to
	}
	end := from + window
	for i := end; i > from+window/2; i-- {
		switch b[i-1] {
		case '\n', '&', ',', ';', ' ':
			return i
		}
	}
	i := from
	for i < end || !utf8.RuneStart(b[i]) { // not within an escape or a character
		n := 0
		if b[i] == '\\' {
			_, n = unescape(b[i:to], true)
		}
		if i += max(n, 1); i >= to {
			return to
		}
	}
	return i
}

func (s *scratch) window(from, to int, str bool) {
	v := view{b: s.rec[from:to], base: from}
	if next, ok := s.levels[0].decode(&v, true); ok {
		if !str {
			s.detect(&v)
		}
		v = next
	}
	s.detect(&v)
	for i := 1; i < len(s.levels); i++ {
		next, ok := s.levels[i].decode(&v, false)
		if !ok {
			return
		}
		v = next
		s.detect(&v)
	}
}

// level is the room for one decoded view.
type level struct {
	b   []byte
	pos []int32
}

// decode undoes JSON escapes (leniently: the text may be broken JSON) or one
// level of percent encoding; false where there is nothing to undo.
func (l *level) decode(v *view, json bool) (view, bool) {
	mark := byte('%')
	if json {
		mark = '\\'
	}
	first := -1
	for i, c := range v.b {
		if c == mark {
			if _, n := unescape(v.b[i:], json); n > 0 {
				first = i
				break
			}
		}
	}
	if first < 0 {
		return view{}, false
	}
	l.b, l.pos = l.b[:0], l.pos[:0]
	for i := 0; i < len(v.b); {
		at := int32(v.src(i))
		r, n := rune(0), 0
		if v.b[i] == mark {
			r, n = unescape(v.b[i:], json)
		}
		switch {
		case n == 0:
			l.b, l.pos = append(l.b, v.b[i]), append(l.pos, at)
			i++
			continue
		case json:
			before := len(l.b)
			l.b = utf8.AppendRune(l.b, r)
			for range len(l.b) - before {
				l.pos = append(l.pos, at)
			}
		default:
			l.b, l.pos = append(l.b, byte(r)), append(l.pos, at)
		}
		i += n
	}
	l.pos = append(l.pos, int32(v.src(len(v.b))))
	return view{b: l.b, pos: l.pos}, true
}

// unescape reads one escape at the start of b: its value and its length, 0
// where it is none.
func unescape(b []byte, json bool) (rune, int) {
	if !json {
		if len(b) < 3 {
			return 0, 0
		}
		h, l := hex(b[1]), hex(b[2])
		if h < 0 || l < 0 {
			return 0, 0
		}
		return rune(h<<4 | l), 3
	}
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return rune(b[1]), 2
	case 'n', 'r', 't', 'b', 'f':
		return '\n', 2
	case 'u':
		if len(b) < 6 {
			return 0, 0
		}
		r := 0
		for _, c := range b[2:6] {
			d := hex(c)
			if d < 0 {
				return 0, 0
			}
			r = r<<4 | d
		}
		return rune(r), 6
	}
	return 0, 0
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
