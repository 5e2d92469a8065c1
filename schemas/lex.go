package schemas

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects of one JSON value may nest; deeper
// ones are refused, so that no reader behind us needs a deep stack.
const MaxDepth = 128

// lexer walks strict JSON (RFC 8259, valid UTF-8) by index: its methods take
// the place of a token's first byte and return the place behind the token, or
// -1 after noting what is wrong and where.
type lexer struct {
	b     []byte
	what  string // what is wrong, if anything
	at    int    // and where
	loose bool   // whitespace between tokens, or U+2028/U+2029 in a string
	esc   bool   // the last string has escapes
	look  Look   // of the values given to text and value
	blind bool   // don't look
}

const (
	lows  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain has a 1 for bytes that stand for themselves in a string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

func (l *lexer) fail(at int, what string) int {
	if l.what == "" {
		l.at, l.what = at, what
	}
	return -1
}

// unexpected reports the byte at i, or the end of the text.
func (l *lexer) unexpected(i int, wanted string) int {
	if i >= len(l.b) {
		return l.fail(len(l.b), "ends early: "+wanted+" expected")
	}
	return l.fail(i, wanted+" expected")
}

// space skips whitespace. Callers look at the byte first: the good path has none.
func (l *lexer) space(i int) int {
	for i < len(l.b) {
		switch l.b[i] {
		case ' ', '\t', '\n', '\r':
			l.loose = true
			i++
		default:
			return i
		}
	}
	return i
}

// str scans a string whose first byte behind the quote is at i and returns
// the place of its closing quote; l.esc says whether it has escapes.
func (l *lexer) str(i int) int {
	b := l.b
	l.esc = false
	for {
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			q := w ^ (lows * '"')
			s := w ^ (lows * '\\')
			// A borrow can only raise false bits above a true one, and the lowest is all we look at.
			hit := ((q-lows)&^q | (s-lows)&^s | (w-lows*0x20)&^w | w) & highs
			if hit != 0 {
				if i += bits.TrailingZeros64(hit) >> 3; b[i] == '"' {
					return i
				}
				break
			}
			i += 8
		}
		for i < len(b) && plain[b[i]] {
			i++
		}
		if i >= len(b) {
			return l.fail(len(b), "ends within a string")
		}
		if b[i] == '"' {
			return i
		}
		if i = l.odd(i); i < 0 {
			return -1
		}
	}
}

// odd takes what does not stand for itself in a string: an escape or a
// multi-byte character at i.
func (l *lexer) odd(i int) int {
	c := l.b[i]
	switch {
	case c == '\\':
		l.esc = true
		return l.escape(i)
	case c == '\n':
		return l.fail(i, "raw newline in a string")
	case c < 0x20:
		return l.fail(i, "raw control character in a string")
	}
	for i < len(l.b) && l.b[i] >= utf8.RuneSelf {
		r, n := utf8.DecodeRune(l.b[i:])
		if r == utf8.RuneError && n <= 1 {
			return l.fail(i, "invalid UTF-8 in a string")
		}
		if r == '\u2028' || r == '\u2029' {
			l.loose = true // some receivers take these for the end of a line
		}
		i += n
	}
	return i
}

// escape checks one escape at i. A lone surrogate passes, as it does in
// encoding/json; decoding makes it U+FFFD.
func (l *lexer) escape(i int) int {
	if i+1 >= len(l.b) {
		return l.fail(len(l.b), "ends within a string")
	}
	switch l.b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if i+6 > len(l.b) {
			return l.fail(len(l.b), "ends within a string")
		}
		for _, c := range l.b[i+2 : i+6] {
			if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
				return l.fail(i, "bad \\u escape in a string")
			}
		}
		return i + 6
	}
	return l.fail(i, "bad escape in a string")
}

// number scans a number at i; whole says that it has neither fraction nor exponent.
func (l *lexer) number(i int) (end int, whole bool) {
	b := l.b
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b) || b[i]-'0' > 9:
		return l.unexpected(i, "a digit"), false
	case b[i] == '0':
		i++
	default:
		i = digits(b, i)
	}
	whole = true
	if i < len(b) && b[i] == '.' {
		whole = false
		d := digits(b, i+1)
		if d == i+1 {
			return l.unexpected(d, "a digit"), false
		}
		i = d
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		whole = false
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		d := digits(b, i)
		if d == i {
			return l.unexpected(d, "a digit"), false
		}
		i = d
	}
	return i, whole
}

func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}

// word checks the literal w at i.
func (l *lexer) word(i int, w string) int {
	if len(l.b)-i < len(w) || string(l.b[i:i+len(w)]) != w {
		return l.unexpected(i, "a JSON value")
	}
	return i + len(w)
}

// value scans any value at i, and notes in l.look what its strings hold.
func (l *lexer) value(i, depth int) int {
	if i >= len(l.b) {
		return l.unexpected(i, "a JSON value")
	}
	switch c := l.b[i]; c {
	case '"':
		return l.text(i, depth > 1)
	case '{':
		return l.object(i, depth)
	case '[':
		return l.array(i, depth)
	case 't':
		return l.word(i, "true")
	case 'f':
		return l.word(i, "false")
	case 'n':
		return l.word(i, "null")
	default:
		if c != '-' && c-'0' > 9 {
			return l.unexpected(i, "a JSON value")
		}
		end, _ := l.number(i)
		if end-i >= cardDigits {
			l.look |= LookDigits
		}
		return end
	}
}

func (l *lexer) object(i, depth int) int {
	if depth > MaxDepth {
		return l.fail(i, "nested deeper than 128")
	}
	if i = l.space(i + 1); i < len(l.b) && l.b[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(l.b) || l.b[i] != '"' {
			return l.unexpected(i, "a key")
		}
		end := l.str(i + 1)
		if end < 0 {
			return -1
		}
		if !l.blind {
			l.innerKey(l.b[i+1 : end])
		}
		if i = l.colon(end + 1); i < 0 {
			return -1
		}
		if i = l.value(i, depth+1); i < 0 {
			return -1
		}
		if i = l.space(i); i < len(l.b) && l.b[i] == '}' {
			return i + 1
		}
		if i = l.comma(i, "',' or '}'"); i < 0 {
			return -1
		}
	}
}

func (l *lexer) array(i, depth int) int {
	if depth > MaxDepth {
		return l.fail(i, "nested deeper than 128")
	}
	if i = l.space(i + 1); i < len(l.b) && l.b[i] == ']' {
		return i + 1
	}
	for {
		if i = l.value(i, depth+1); i < 0 {
			return -1
		}
		if i = l.space(i); i < len(l.b) && l.b[i] == ']' {
			return i + 1
		}
		if i = l.comma(i, "',' or ']'"); i < 0 {
			return -1
		}
	}
}

// colon takes the ':' of a member and the whitespace round it.
func (l *lexer) colon(i int) int {
	if i < len(l.b) && l.b[i] <= ' ' {
		i = l.space(i)
	}
	if i >= len(l.b) || l.b[i] != ':' {
		return l.unexpected(i, "':'")
	}
	if i++; i < len(l.b) && l.b[i] <= ' ' {
		i = l.space(i)
	}
	return i
}

// comma takes a ',' at i and the whitespace behind it.
func (l *lexer) comma(i int, wanted string) int {
	if i >= len(l.b) || l.b[i] != ',' {
		return l.unexpected(i, wanted)
	}
	if i++; i < len(l.b) && l.b[i] <= ' ' {
		i = l.space(i)
	}
	return i
}

// text scans a string value at i and looks at what it says.
func (l *lexer) text(i int, nested bool) int {
	if l.blind {
		if i = l.str(i + 1); i < 0 {
			return -1
		}
		return i + 1
	}
	b := l.b
	i++
	from, word, hidden := i, i, false
	for ; i < len(b); i++ {
		class := classes[b[i]]
		if class == plainByte {
			continue
		}
		switch class {
		case quoteByte:
			l.lookWhole(b[from:i], nested, hidden)
			return i + 1
		case oddByte:
			hidden = hidden || hides(b[i:])
			if i = l.odd(i); i < 0 {
				return -1
			}
			i--
		case spaceByte:
			if i > word && schemeEnds[b[i-1]] && schemeWord(b[word:i]) {
				l.look |= LookSecret
			}
			word = i + 1
		case tellingByte:
			l.telling(from, i)
		}
	}
	return l.fail(len(b), "ends within a string")
}
