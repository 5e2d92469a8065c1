package redact

import (
	"bytes"

	"datasync/schemas"
)

// Wants says whether Line could find anything in an event, from what the
// scanner saw. It costs next to nothing for most events; false is certain.
func (r *Rules) Wants(line []byte, look schemas.Look) bool {
	if look&(schemas.LookSecret|schemas.LookDigits) != 0 {
		return true
	}
	if r != nil && (len(r.fields) > 0 || len(r.patterns) > 0) {
		return true
	}
	if r != nil && len(r.params) > 0 && (look&schemas.LookParam != 0 || bytes.Contains(line, foundWithin)) {
		return true
	}
	if look&schemas.LookEncoded == 0 {
		return false // neither '%' nor '+' nor a payload in any text that is searched
	}
	return encoded(line) || plusScheme(line) || bytes.Contains(line, []byte(`yload_b64"`)) // from its rarest letter on: found sooner
}

// foundWithin stands before the name of a variable in a firewall's log.
var foundWithin = []byte("found within ")

// encoded looks at the percent escapes of a line, which the scanner reads as
// they stand: true where one may hide the separator behind a secret's name, a
// digit's, an ordinary letter, or what may stand within a name.
func encoded(b []byte) bool {
	for i := 0; ; i += 3 {
		n := bytes.IndexByte(b[i:], '%')
		if n < 0 {
			return false
		}
		i += n
		if i+3 > len(b) {
			return false
		}
		h, l := hex(b[i+1]), hex(b[i+2])
		if h < 0 || l < 0 {
			i -= 2 // a lone percent sign
			continue
		}
		c := byte(h<<4 | l)
		switch {
		case alnum(c) && c < 0x80, c == '%', c == '@', c == '_', c == '-', c == '.':
			return true
		case c == ']' && i+3 < len(b) && alnum(b[i+3]): // within a name
			return true
		case c == '=' || c == ':' || c == '"':
			if encodedName(b, i) || c == ':' && bytes.IndexByte(b[i:], '@') >= 0 {
				return true
			}
		case c == ' ' || c == '+':
			if scheme(wordBefore(b, i)) {
				return true
			}
		}
		if i > 0 && digit(b[i-1]) && (c == '-' || c == '+' || c == ' ') {
			return true
		}
	}
}

// plusScheme says that "Bearer+" or "Basic+" stands in b: the scanner knows
// them with a space behind.
func plusScheme(b []byte) bool {
	for i := 0; ; i++ {
		n := bytes.IndexByte(b[i:], '+')
		if n < 0 {
			return false
		}
		i += n
		if scheme(wordBefore(b, i)) {
			return true
		}
	}
}

// scheme says that w ends with the word Bearer or Basic.
func scheme(w []byte) bool {
	for _, s := range []string{"bearer", "basic"} {
		if n := len(w) - len(s); n >= 0 && bytes.EqualFold(w[n:], []byte(s)) && (n == 0 || !alnum(w[n-1])) {
			return true
		}
	}
	return false
}

// encodedName says that a secret's name stands before b[at].
func encodedName(b []byte, at int) bool {
	for range 8 { // what may stand between the name and its separator
		switch {
		case at >= 3 && b[at-3] == '%' && between(b[at-2:at]):
			at -= 3
		case at >= 1 && (b[at-1] == ' ' || quoteOrSlash(b[at-1])):
			at--
		}
	}
	g, _ := secretName(wordBefore(b, at))
	return g != none
}

// wordBefore is the name that ends at b[at]. Of an escape before it ("%3F", "\n")
// nothing is left on it.
func wordBefore(b []byte, at int) []byte {
	from := at
	for from > 0 && at-from < maxName && nameByte(b[from-1]) {
		from--
	}
	if from > 0 && b[from-1] == '%' && at-from >= 2 && hex(b[from]) >= 0 && hex(b[from+1]) >= 0 {
		from += 2
	}
	slashes := 0
	for slashes < from && b[from-1-slashes] == '\\' {
		slashes++
	}
	if slashes%2 == 1 { // an escape of JSON's before it, "\n" or "\u00e9": its letters are none of the name's
		if from+4 < at && b[from] == 'u' {
			from += 5
		} else if from < at {
			from++
		}
	}
	return b[from:at]
}

// between says that an escape is a space's, a quote's, a backslash's or a
// bracket's.
func between(code []byte) bool {
	switch string(code) {
	case "20", "22", "27", "5B", "5b", "5D", "5d", "5C", "5c":
		return true
	}
	return false
}
