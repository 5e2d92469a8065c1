package tlslines

import "bytes"

var bom = []byte{0xef, 0xbb, 0xbf}

// header is how many bytes of a record lie before what was said: a syslog
// header (RFC 5424, or the older form), a byte order mark; 0 where there is
// none. No record of a source begins with a <.
func header(b []byte) int {
	at := 0
	if len(b) > 0 && b[0] == '<' {
		n := bytes.IndexByte(b[:min(len(b), 5)], '>')
		if n < 2 || !digits(b[1:n]) {
			return 0
		}
		if at = structured(b, n+1); at == 0 {
			// <13>Oct 11 22:14:15 host tag[1]: {…}: nothing before the message holds a {.
			if at = bytes.IndexByte(b, '{'); at < 0 {
				return 0
			}
		}
	}
	if bytes.HasPrefix(b[at:], bom) {
		at += len(bom)
	}
	return at
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(b) > 0
}

// structured is where the message of RFC 5424 begins, whose version is at b[at];
// 0 where it is none. VERSION TIMESTAMP HOST APP PROCID MSGID DATA MESSAGE.
func structured(b []byte, at int) int {
	if at+1 >= len(b) || b[at] != '1' || b[at+1] != ' ' {
		return 0
	}
	for range 6 {
		n := bytes.IndexByte(b[at:], ' ')
		if n < 1 {
			return 0
		}
		at += n + 1
	}
	if at >= len(b) {
		return 0
	}
	if b[at] == '-' {
		at++
	} else {
		for at < len(b) && b[at] == '[' {
			if at = element(b, at+1); at == 0 {
				return 0
			}
		}
	}
	if at >= len(b) || b[at] != ' ' {
		return 0
	}
	return at + 1
}

// element is behind the ] of structured data whose inside begins at b[at]; 0
// where it does not end.
func element(b []byte, at int) int {
	quoted := false
	for ; at < len(b); at++ {
		switch c := b[at]; {
		case quoted && c == '\\':
			at++
		case c == '"':
			quoted = !quoted
		case c == ']' && !quoted:
			return at + 1
		}
	}
	return 0
}
