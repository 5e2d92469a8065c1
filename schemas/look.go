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
	// ':', or behind ':' in quotes, or names a member of an inner object or an
	// unknown field, or stands in a short string in there; one of bearer,
	// basic, token, digest, key stands before a space or '+'; an '@' comes
	// behind a ':', as in a URL with a password; or a string holds what known
	// tokens begin with: eyJ (JWT), AKIA, ASIA (AWS), AIza (Google), ghp_ and
	// its like, glpat-, sk-, _pat_, _live_, _test_, xox, BEGIN.
	LookSecret
	// LookEncoded: some string holds '%' or '+', or an inner object a member
	// payload_b64, so that any of the above may hide in it.
	LookEncoded
	// LookDigits: 9 or more digits in a row, with '-', ' ', '+' or '%' between
	// them (13 or more where '.' or '_' are all that stands between them), or a
	// number of 13 or more digits: card numbers, social security numbers.
	LookDigits
)

const (
	cardDigits = 13
	ssnDigits  = 9
)

// SecretWords is what names of secrets contain, lower case, punctuation not
// counted: a parameter, header or member named so sets LookSecret.
var SecretWords = []string{"auth", "bearer", "basic", "cookie", "credential", "jwt", "key", "pass", "pwd", "secret", "session", "sessid", "sid", "sig", "token",
	"otp", "csrf", "xsrf", "saml", "assert", "verifier", "mitata", "card", "ccn", "cvv", "cvc", "ssn", "social"}

// secretStart has, for a letter, the words that start with it.
var secretStart = func() (t [256]uint32) {
	for i, w := range SecretWords {
		t[w[0]] |= 1 << i
		t[w[0]-'a'+'A'] |= 1 << i
	}
	return t
}()

// secretPairs has, for a letter, a bit for each letter that follows it at the
// beginning of a word.
var secretPairs = func() (t [256]uint32) {
	for _, w := range SecretWords {
		t[w[0]] |= 1 << (w[1] & 31)
		t[w[0]-'a'+'A'] |= 1 << (w[1] & 31)
	}
	return t
}()

// What a byte means to text.
const (
	plainByte   = iota
	quoteByte   // ends the string
	oddByte     // an escape, a control character, a part of a longer character
	spaceByte   // may stand behind a word that a secret follows
	tellingByte // may stand beside a secret, or in the beginning of a token
)

var classes = func() (t [256]uint8) {
	for c := range t {
		if !plain[c] {
			t[c] = oddByte
		}
	}
	t['"'] = quoteByte
	t[' '] = spaceByte
	for _, c := range "=:JI_x-%+" {
		t[c] = tellingByte
	}
	return t
}()

// hides says whether an escape stands for an ASCII character that could be
// part of a secret.
func hides(s []byte) bool { return len(s) > 3 && string(s[:4]) == `\u00` }

// telling judges the byte at i of a string that began at from.
func (l *lexer) telling(from, i int) {
	b := l.b
	found := false
	switch b[i] {
	case '=':
		l.look |= LookParam
		found = secretName(nameBefore(b[from:i]))
	case ':':
		found = secretName(nameBefore(b[from:i])) || secretBehind(b[i+1:])
	case '%':
		l.look |= LookEncoded
	case '+':
		l.look |= LookEncoded
		found = i > from && schemeEnds[b[i-1]] && schemeWord(b[from:i])
	default:
		found = tokenAt(b[from:], i-from)
	}
	if found {
		l.look |= LookSecret
	}
}

// nameBefore is the name that s ends with, quotes and spaces behind it left out.
func nameBefore(s []byte) []byte {
	for i := 0; i < 12 && len(s) > 0; i++ {
		if c := s[len(s)-1]; c != ' ' && c != '"' && c != '\'' && c != '\\' {
			break
		}
		s = s[:len(s)-1]
	}
	from := len(s)
	for from > 0 && len(s)-from < maxName && nameBytes[s[from-1]] {
		from--
	}
	return s[from:]
}

const maxName = 80

var nameBytes = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x80 || alnum(byte(c)) || c == '_' || c == '-' || c == '.' || c == '[' || c == ']' || c == '%'
	}
	return t
}()

func alnum(c byte) bool { return c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'z' }

// secretBehind looks at what follows a ':': the password of a URL, or the
// name of a secret in quotes ("name":"cookie").
func secretBehind(s []byte) bool {
	if len(s) > 1 && s[0] == '/' || len(s) > 1 && s[0] == '\\' && s[1] == '/' {
		for _, c := range bytes.TrimLeft(s[:min(len(s), 600)], `/\`) {
			switch c {
			case '@':
				return true
			case '/', '"', ' ':
				return false
			}
		}
		return false
	}
	s = bytes.TrimLeft(s[:min(len(s), maxName)], " ")
	if len(s) > 0 && (s[0] == '\\' || s[0] == '\'') {
		return secretName(s)
	}
	return false
}

// innerKey judges the name of a member of an inner object.
func (l *lexer) innerKey(name []byte) {
	if l.esc || secretName(name) {
		l.look |= LookSecret
	}
	if l.esc || string(name) == "payload_b64" {
		l.look |= LookEncoded
	}
}

// lookWhole judges a string's raw text as a whole.
func (l *lexer) lookWhole(s []byte, nested, hidden bool) {
	if hidden {
		l.look |= LookParam | LookSecret | LookDigits | LookEncoded
		return
	}
	if nested && len(s) <= 40 && secretName(s) {
		l.look |= LookSecret
	}
	if len(s) < ssnDigits || l.look&LookDigits != 0 {
		return
	}
	// Nine bytes below '@' in a row fill at least one of these blocks.
	for i := 0; i+4 <= len(s); i += 4 {
		if binary.LittleEndian.Uint32(s[i:])&0x40404040 == 0 {
			many, end := manyDigits(s, i)
			if many {
				l.look |= LookDigits
				return
			}
			i = max(i, end-4)
		}
	}
}

// manyDigits looks for LookDigits in the run of digits and what may stand
// between them round s[i], and says where the run ends.
func manyDigits(s []byte, i int) (many bool, end int) {
	for i > 0 && digitRun[s[i-1]] != 0 {
		i--
	}
	n, row := 0, 0 // digits in all; behind the last '.' or '_', which may also stand before a number
	for ; i < len(s) && digitRun[s[i]] != 0; i++ {
		switch digitRun[s[i]] {
		case digitKind:
			n++
			row++
			many = many || row >= ssnDigits
		case dotKind:
			row = 0
		}
	}
	return many || n >= cardDigits, i
}

// digitRun is 1 for digits, other bits for what may stand between them.
const (
	digitKind = 1
	dotKind   = 2
	gapKind   = 4
)

var digitRun = func() (t [256]uint8) {
	for c := '0'; c <= '9'; c++ {
		t[c] = digitKind
	}
	t['.'], t['_'] = dotKind, dotKind
	for _, c := range " -+%" {
		t[c] = gapKind
	}
	return t
}()

// schemeEnds are the last letters of schemeWords.
var schemeEnds = func() (t [256]bool) {
	for _, w := range schemeWords {
		c := w[len(w)-1]
		t[c], t[c-'a'+'A'] = true, true
	}
	return t
}()

var schemeWords = []string{"bearer", "basic", "token", "digest", "key"}

// schemeWord says whether w ends with a word that a secret follows after a space.
func schemeWord(w []byte) bool {
	for _, k := range schemeWords {
		if n := len(w) - len(k); n >= 0 && equalFold(w[n:], k) {
			return true
		}
	}
	return false
}

// secretName says whether a name contains one of SecretWords, in any case,
// whatever punctuation stands between the letters.
func secretName(s []byte) bool {
	for i := 0; i+3 <= len(s); i++ {
		if c := s[i+1]; secretPairs[s[i]]>>(c&31)&1 == 0 && alnum(c) {
			continue
		}
		for m := secretStart[s[i]]; m != 0; m &= m - 1 {
			if begins(s[i+1:], SecretWords[bits.TrailingZeros32(m)][1:]) {
				return true
			}
		}
	}
	return false
}

// begins says whether the letters of s begin with a lower-case word.
func begins(s []byte, word string) bool {
	n := 0
	for _, c := range s {
		if c|0x20 == word[n] && c >= 'A' {
			if n++; n == len(word) {
				return true
			}
		} else if alnum(c) {
			return false
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

// tokenAt says whether the telling byte s[i] lies in the beginning of a token.
func tokenAt(s []byte, i int) bool {
	switch s[i] {
	case 'J':
		return i >= 2 && s[i-2] == 'e' && s[i-1] == 'y'
	case 'I':
		switch string(s[max(0, i-2):i]) {
		case "AK", "AS", "EG": // AKIA, ASIA, BEGIN
			return true
		}
		return i >= 1 && s[i-1] == 'A' && i+1 < len(s) && s[i+1] == 'z'
	case '-':
		return i >= 2 && s[i-1] == 'k' && s[i-2] == 's' || i >= 5 && string(s[i-5:i]) == "glpat"
	case 'x':
		return i+2 < len(s) && s[i+1] == 'o' && s[i+2] == 'x'
	}
	if i >= 3 && s[i-3] == 'g' && s[i-2] == 'h' {
		return true
	}
	rest := s[i:min(len(s), i+6)]
	return bytes.HasPrefix(rest, []byte("_pat_")) || bytes.HasPrefix(rest, []byte("_live_")) || bytes.HasPrefix(rest, []byte("_test_"))
}
