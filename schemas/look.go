package schemas

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Look says what redaction might find in an event. It errs to the safe side:
// a bit that is not set means that there is nothing of the sort, in any string
// but those of fields that are Opaque.
type Look uint8

const (
	// LookParam: some string holds a '=', so it may have query parameters.
	LookParam Look = 1 << iota
	// LookSecret: the name of a secret (see SecretWords) stands before '=' or
	// ':', or names a member of an inner object or an unknown field, or stands
	// in a short string in there; one of bearer, basic, token, digest, key
	// stands before a space; an '@' comes behind a ':', as in a URL with a
	// password; or a string holds what known tokens begin with: eyJ (JWT),
	// AKIA, ASIA (AWS), AIza (Google), ghp_, gho_, _pat_, _live_, xox, BEGIN.
	LookSecret
	// LookDigits: 9 or more digits in a row, with '-', ' ', '+' or '%' between
	// them or not (13 or more where '.' or '_' stand between them), or a
	// number of 13 or more digits: card numbers, social security numbers.
	LookDigits
)

const (
	cardDigits = 13
	ssnDigits  = 9
)

// SecretWords is what names of secrets contain, lower case: a parameter,
// header or member named so sets LookSecret.
var SecretWords = []string{"auth", "bearer", "basic", "cookie", "credential", "jwt", "key", "pass", "pwd", "secret", "session", "sid", "sig", "token"}

// secretStart has, for a word's first two letters, the words that start so.
var secretStart = func() (t [256]uint32) {
	for i, w := range SecretWords {
		t[w[0]] |= 1 << i
		t[w[0]-'a'+'A'] |= 1 << i
	}
	return t
}()

// lookAt sets the bits for one string's raw text. The string may be cut out
// of a line: nothing behind it is looked at.
func (l *lexer) lookAt(s []byte, nested bool) {
	if l.esc && bytes.Contains(s, []byte(`\u00`)) {
		l.look |= LookParam | LookSecret | LookDigits // anything may hide behind it
		return
	}
	if nested && len(s) <= 40 && secretName(s) {
		l.look |= LookSecret
	}
	var seps, dense uint64
	i := 0
	for ; i+8 <= len(s); i += 8 {
		w := binary.LittleEndian.Uint64(s[i:])
		seps |= separators(w)
		dense |= noLetters(w)
	}
	if i < len(s) {
		w := tail(s, i)
		seps |= separators(w)
		dense |= noLetters(w)
	}
	if dense != 0 && len(s) >= ssnDigits && l.look&LookDigits == 0 && manyDigits(s) {
		l.look |= LookDigits
	}
	if seps != 0 {
		l.lookNames(s)
	}
	if len(s) >= 16 && l.look&LookSecret == 0 && tokenStart(s) {
		l.look |= LookSecret
	}
}

// tail loads the last bytes of s from i on, filled up with letters.
func tail(s []byte, i int) uint64 {
	var w uint64
	if len(s) >= 8 {
		w = binary.LittleEndian.Uint64(s[len(s)-8:]) // seen before in part, which does no harm
		return w
	}
	for j := len(s) - 1; j >= i; j-- {
		w = w<<8 | uint64(s[j])
	}
	return w | lows*'a'<<(8*(len(s)-i))
}

// separators has a bit set where w holds '=', ':' or a space.
func separators(w uint64) uint64 {
	e := w ^ lows*'='
	c := w ^ lows*':'
	s := w ^ lows*' '
	return ((e-lows)&^e | (c-lows)&^c | (s-lows)&^s) & highs
}

// noLetters is not 0 where a half of w holds only bytes below '@': nine such
// bytes in a row fill at least one half.
func noLetters(w uint64) uint64 {
	m := w & (lows * 0x40)
	var r uint64
	if uint32(m) == 0 {
		r = 1
	}
	if m>>32 == 0 {
		r |= 2
	}
	return r
}

// manyDigits looks for LookDigits in one string.
func manyDigits(s []byte) bool {
	n, dotted := 0, false
	for _, c := range s {
		switch {
		case c-'0' <= 9:
			n++
			if n >= cardDigits || n >= ssnDigits && !dotted {
				return true
			}
		case c == '.' || c == '_':
			dotted = true
		case c == ' ' || c == '-' || c == '+' || c == '%':
		default:
			n, dotted = 0, false
		}
	}
	return false
}

// lookNames judges the words before the separators in s.
func (l *lexer) lookNames(s []byte) {
	from := 0
	for i := 0; i < len(s); i += 8 {
		var w uint64
		if i+8 <= len(s) {
			w = binary.LittleEndian.Uint64(s[i:])
		} else {
			for j := len(s) - 1; j >= i; j-- {
				w = w<<8 | uint64(s[j])
			}
		}
		for m := separators(w); m != 0; m &= m - 1 {
			at := i + bits.TrailingZeros64(m)>>3
			if at >= len(s) {
				break
			}
			switch s[at] {
			case '=':
				l.look |= LookParam
				fallthrough
			case ':':
				if l.look&LookSecret == 0 && secretName(s[max(from, at-40):at]) {
					l.look |= LookSecret
				}
				if s[at] == ':' && l.look&LookSecret == 0 && bytes.IndexByte(s[at:], '@') >= 0 {
					l.look |= LookSecret
				}
			case ' ':
				if l.look&LookSecret == 0 && schemeWord(s[from:at]) {
					l.look |= LookSecret
				}
			default:
				continue // a borrow's false bit
			}
			from = at + 1
		}
	}
}

// schemeWord says whether w ends with a word that a secret follows after a space.
func schemeWord(w []byte) bool {
	for _, k := range [...]string{"bearer", "basic", "token", "digest", "key"} {
		if n := len(w) - len(k); n >= 0 && w[n]|0x20 == k[0] && equalFold(w[n:], k) {
			return true
		}
	}
	return false
}

// secretName says whether a name contains one of SecretWords, in any case.
func secretName(s []byte) bool {
	for i := 0; i+3 <= len(s); i++ {
		m := secretStart[s[i]]
		for ; m != 0; m &= m - 1 {
			w := SecretWords[bits.TrailingZeros32(m)]
			if len(s)-i >= len(w) && s[i+1]|0x20 == w[1] && equalFold(s[i:i+len(w)], w) {
				return true
			}
		}
	}
	return false
}

func equalFold(s []byte, lower string) bool {
	for i := range s {
		if s[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// tokenStart looks for the beginnings of well-known tokens, each by its rarest byte.
func tokenStart(s []byte) bool {
	return around(s, 'J', 2, 1, "eyJ", "", "") || around(s, 'I', 3, 3, "AKI", "ASI", "AIz") || around(s, 'I', 3, 2, "BEGI", "", "") ||
		around(s, '_', 3, 1, "ghp_", "gho_", "") || around(s, '_', 0, 6, "_live_", "_test_", "_pat_") || around(s, 'x', 0, 3, "xox", "", "")
}

// around says whether one of the words lies between before bytes before a
// rare byte and after bytes behind its beginning.
func around(s []byte, rare byte, before, after int, words ...string) bool {
	for i := 0; ; i++ {
		n := bytes.IndexByte(s[i:], rare)
		if n < 0 {
			return false
		}
		i += n
		near := s[max(0, i-before):min(len(s), i+after)]
		for _, w := range words {
			if w != "" && bytes.Contains(near, []byte(w)) {
				return true
			}
		}
	}
}
