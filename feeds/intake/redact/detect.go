package redact

import (
	"bytes"
	"encoding/base64"
)

// detect looks for every kind of secret in one view of a text. It goes on
// behind what it found, and no search looks far ahead in vain, so that no text
// takes more than its share of time.
func (s *scratch) detect(v *view) {
	b := v.b
	word := true // whether a word may begin at i
	s.noJWT = 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		end := 0
		switch {
		case c == '=' || c == ':':
			end = s.pair(v, i)
			if end == 0 && c == ':' && i+2 < len(b) && b[i+1] == '/' && b[i+2] == '/' {
				s.userinfo(v, i+3)
			}
			word = true
		case !word:
		case c >= '0' && c <= '9':
			end = s.number(v, i)
		case c >= 'A' || c == '-':
			end = s.token(v, i)
		}
		if c != '=' && c != ':' {
			word = !alnum(c)
		}
		if end > i {
			i = end - 1
			word = true
		}
	}
	for _, re := range s.rules.patterns {
		for _, m := range re.FindAllIndex(b, -1) {
			s.found(v, m[0], m[1], ownPatterns)
		}
	}
}

// found notes that b[from:to] of the view is a secret and returns to, 0 where
// it is none that is masked.
func (s *scratch) found(v *view, from, to int, g group) int {
	if from >= to || g < ownParams && s.rules.groups&(1<<g) == 0 {
		return 0
	}
	if !bytes.Equal(v.b[from:to], []byte(Mask)) {
		s.edit(v.src(from), v.src(to), g, plain)
	}
	return to
}

func alnum(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func quoteOrSlash(c byte) bool { return c == '"' || c == '\'' || c == '\\' }

// pair judges the name before the separator at b[at] and masks the value
// behind it; like all below it returns the end of what it masked, or 0.
func (s *scratch) pair(v *view, at int) int {
	b := v.b
	end := at
	for end > 0 && (b[end-1] == ' ' || quoteOrSlash(b[end-1])) && at-end < 4 {
		end--
	}
	if s.broken && end > 0 && b[end-1] == ')' { // "cs(Cookie)", as CloudFront names a header
		end--
	}
	from := end
	for from > 0 && end-from < maxName && nameByte(b[from-1]) {
		from--
	}
	name := b[from:end]
	if b[at] == ':' && end == at && from > 0 && b[from-1] == ':' {
		if at+1 < len(b) && b[at+1] == ' ' {
			return s.matched(v, from, at)
		}
		return 0 // a label of several parts ("aws:token:absent"), an IPv6 address
	}
	g, header := secretName(name)
	if g != none && s.rules.groups&(1<<g) == 0 {
		g = none
	}
	if g == none && b[at] == '=' && len(s.rules.params) > 0 {
		if s.rules.params[string(bytes.ToLower(name))] || s.rules.params[string(bytes.ToLower(lastPart(name)))] {
			g = ownParams
		}
	}
	if g == none {
		if b[at] == ':' && len(name) >= 3 {
			return s.namedHeader(v, name, at)
		}
		return 0
	}
	a, z := valueAt(b, at+1, b[at] == ':', header)
	return s.found(v, a, z, g)
}

// namedHeader masks the value in {"name":"cookie","value":"…"} within text.
func (s *scratch) namedHeader(v *view, name []byte, at int) int {
	b := v.b
	if !pairName(name) {
		return 0
	}
	a, z := valueAt(b[:min(len(b), at+2*maxName)], at+1, true, false)
	if a >= z {
		return 0
	}
	g, _ := secretName(b[a:z])
	if g == none {
		return 0
	}
	rest := bytes.ToLower(b[z:min(len(b), z+32)])
	i := bytes.Index(rest, []byte("value"))
	if i < 0 {
		return 0
	}
	colon := bytes.IndexByte(rest[i:], ':')
	if colon < 0 {
		return 0
	}
	a, z = valueAt(b, z+i+colon+1, true, true)
	return s.found(v, a, z, g)
}

// matched masks what a firewall's rule found in the variable whose name is
// b[from:at], as its log has it: "found within ARGS:password: …". The value goes
// on to the end of the text or of the line.
func (s *scratch) matched(v *view, from, at int) int {
	b := v.b
	collection := from - 1
	for collection > 0 && (b[collection-1] >= 'A' && b[collection-1] <= 'Z' || b[collection-1] == '_') {
		collection--
	}
	if from-1-collection < len("XML") {
		return 0
	}
	name := b[from:at]
	g, _ := secretName(name)
	switch {
	case g == none && string(b[collection:from-1]) == "REQUEST_COOKIES":
		g = credentials
	case g == none && (s.rules.params[string(bytes.ToLower(name))]):
		g = ownParams
	case g == none:
		return 0
	}
	end := at + 2
	for end < len(b) && b[end] != '\n' && b[end] != '\r' && !(b[end] == '"' && end+1 < len(b) && closes(b[end+1])) {
		end++
	}
	return s.found(v, at+2, end, g)
}

func lastPart(name []byte) []byte {
	return name[bytes.LastIndexAny(name, "?&;")+1:]
}

func nameByte(c byte) bool {
	return alnum(c) && c < 0x80 || c == '_' || c == '-' || c == '.' || c == '[' || c == ']'
}

// valueAt finds the value that begins at b[i]: a quoted one up to its quote, a
// header's up to the end of its line, any other up to what ends a parameter.
func valueAt(b []byte, i int, colon, header bool) (from, to int) {
	for i < len(b) && (b[i] == ' ' || b[i] == '\\' || colon && b[i] == '\t') {
		i++
	}
	if i < len(b) && (b[i] == '"' || b[i] == '\'') {
		q := b[i]
		i++
		n := bytes.IndexByte(b[i:], q)
		for n > 0 && b[i+n-1] == '\\' && i+n+1 < len(b) && !closes(b[i+n+1]) { // an escaped quote within the value
			m := bytes.IndexByte(b[i+n+1:], q)
			if m < 0 {
				n = -1
				break
			}
			n += m + 1
		}
		if n < 0 {
			return i, len(b)
		}
		return i, i + len(bytes.TrimRight(b[i:i+n], "\\"))
	}
	from = i
	if colon && i < len(b) && (b[i] == '[' || b[i] == '{') {
		return from, structure(b, i)
	}
	for i < len(b) {
		switch c := b[i]; {
		case c == '\r' || c == '\n' || c == '"' || c == '<' || c == '>':
			return from, i
		case header && colon:
		case c == '&' || c == ';' || c == ' ' || c == '\t' || c == '\'':
			return from, i
		case colon && (c == ',' || c == '}' || c == ']'):
			return from, i
		}
		i++
	}
	return from, i
}

// structure is the end of the array or the object that begins at b[i], or of b
// where it is cut.
func structure(b []byte, i int) int {
	depth, quoted := 0, false
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(b)
}

// closes says that c may follow the quote that ends a JSON string.
func closes(c byte) bool {
	return c == ',' || c == '}' || c == ']' || c == ' ' || c == ':'
}

// userinfo masks the password in "scheme://user:password@host" and leaves the user.
func (s *scratch) userinfo(v *view, i int) {
	b := v.b
	colon := -1
	for j := i; j < len(b) && j-i < 512; j++ {
		switch c := b[j]; {
		case c == ':' && colon < 0:
			colon = j
		case c == '@':
			if colon >= 0 {
				s.found(v, colon+1, j, credentials)
			}
			return
		case c == '/' || c == '?' || c == '#' || c <= ' ' || c == '"' || c == '\'':
			return
		}
	}
}

// token masks a well-known kind of token that begins at b[i], a word's start.
func (s *scratch) token(v *view, i int) int {
	b := v.b[i:]
	switch b[0] {
	case 'e':
		if i >= s.noJWT && bytes.HasPrefix(b, []byte("eyJ")) {
			n, tried := jwt(b)
			s.noJWT = i + tried
			return s.found(v, i, i+n, tokens)
		}
	case 'A':
		aws := bytes.HasPrefix(b, []byte("AKIA")) || bytes.HasPrefix(b, []byte("ASIA"))
		if aws || bytes.HasPrefix(b, []byte("AIza")) {
			if n := run(b[:min(len(b), 64)], tokenByte); n == 20 && aws || n >= 35 && !aws {
				return s.found(v, i, i+n, credentials)
			}
		}
	case 'g', 's', 'r', 'x', 'p':
		for _, p := range tokenPrefixes {
			if b[0] == p[0] && bytes.HasPrefix(b, []byte(p)) {
				if n := run(b, tokenByte); n >= len(p)+10 {
					return s.found(v, i, i+n, tokens)
				}
				return 0
			}
		}
	case 'b', 'B':
		return s.scheme(v, i)
	case '-':
		if bytes.HasPrefix(b, []byte("-----BEGIN ")) && bytes.Contains(b[:min(len(b), 64)], []byte("PRIVATE KEY")) {
			end := len(b)
			if j := bytes.Index(b, []byte("-----END")); j > 0 {
				end = j
			}
			return s.found(v, i, i+end, credentials)
		}
	}
	return 0
}

var tokenPrefixes = []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-",
	"sk_live_", "sk_test_", "sk-", "rk_live_", "pk_live_"}

// maxBasic bounds the base64 text behind "Basic".
const maxBasic = 256

// scheme masks what follows "Bearer " or "Basic ".
func (s *scratch) scheme(v *view, i int) int {
	b := v.b[i:]
	switch {
	case len(b) > 7 && bytes.EqualFold(b[:6], []byte("bearer")) && (b[6] == ' ' || b[6] == '+'):
		if n := run(b[7:], bearerByte); n >= 8 {
			return s.found(v, i+7, i+7+n, tokens)
		}
	case len(b) > 6 && bytes.EqualFold(b[:5], []byte("basic")) && (b[5] == ' ' || b[5] == '+'):
		n := run(b[6:min(len(b), 6+maxBasic)], bearerByte)
		if n < 4 {
			return 0
		}
		plain, err := base64.RawStdEncoding.DecodeString(string(bytes.TrimRight(b[6:6+n], "=")))
		if err == nil && bytes.IndexByte(plain, ':') >= 0 {
			return s.found(v, i+6, i+6+n, credentials)
		}
	}
	return 0
}

// jwt is the length of the JSON Web Token at the start of b, 0 where there is
// none; nor is there one that begins within the first tried bytes.
func jwt(b []byte) (n, tried int) {
	n = run(b, tokenByte)
	if n < 8 || n >= len(b) || b[n] != '.' {
		return 0, n
	}
	m := run(b[n+1:], tokenByte)
	if m < 4 {
		return 0, n
	}
	n += 1 + m
	if n < len(b) && b[n] == '.' {
		n += 1 + run(b[n+1:], tokenByte)
	}
	return n, n
}

func tokenByte(c byte) bool { return alnum(c) && c < 0x80 || c == '_' || c == '-' }

func bearerByte(c byte) bool {
	return tokenByte(c) || c == '.' || c == '~' || c == '+' || c == '/' || c == '='
}

func run(b []byte, ok func(byte) bool) int {
	n := 0
	for n < len(b) && ok(b[n]) {
		n++
	}
	return n
}
