package adapt

import (
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"datasync/schemas"
)

// What the logs of Cloudflare, CloudFront and AWS WAF have in common: a table
// of names a format, times in several spellings, nested values that may hold
// secrets.

// log is one record on its way to an event.
type log struct {
	e     schemas.Event
	rest  unmapped
	seen  uint64
	twice string
	long  bool // user_agent was cut
	more  bool // there are matches beyond maxMatched
}

// reset makes l ready for the next record; matches and labels keep their memory.
func (l *log) reset() {
	rest, matches, labels := l.rest.b[:0], l.e.Matches[:0], l.e.Meta.Labels[:0]
	*l = log{rest: unmapped{rest}}
	l.e.Matches, l.e.Meta.Labels = matches, labels
}

// column is a member that has a place: set puts the value there, whose text is
// s ("" where it is neither text nor a number); false where it does not fit.
type column[L any] struct {
	bit uint64
	set func(l L, value []byte, s string) bool
}

// columns are the members of a source that have a place.
type columns[L any] map[string]column[L]

// columnsOf joins tables into one.
func columnsOf[L any](tables ...map[string]func(l L, value []byte, s string) bool) columns[L] {
	all := columns[L]{}
	for _, t := range tables {
		for name, set := range t {
			all[name] = column[L]{bit: 1 << len(all), set: set}
		}
	}
	if len(all) > 64 {
		panic("adapt: more columns than bits")
	}
	return all
}

// take puts a member in its place, or keeps it as unmapped.
func (c columns[L]) take(in L, l *log, key string, value []byte) {
	col, known := c[key]
	switch {
	case !known:
		l.rest.keep(key, value)
		return
	case l.seen&col.bit != 0:
		if l.twice == "" {
			l.twice, _ = limit(key, 40)
		}
		return
	}
	l.seen |= col.bit
	if isNull(value) {
		return
	}
	s := text(value)
	if s == "" && value[0] != '[' && value[0] != '{' || !col.set(in, value, s) {
		l.rest.keep(key, value)
	}
}

// finish completes what every event of these sources has.
func (l *log) finish() {
	m := &l.e.Meta
	if l.long {
		m.Truncated = append(m.Truncated, "user_agent")
	}
	if l.more {
		m.Truncated = append(m.Truncated, "matches")
	}
	m.Unmapped = l.rest.json()
	m.OK = m.Unmapped != "" || m.Truncated != nil || len(m.Labels) > 0
}

// decided writes a decision into the event; kind follows it.
func (l *log) decided(o outcome) {
	e := &l.e
	e.Action, e.Disposition, e.Enforced = o.action, o.disposition, o.enforced
	e.Kind = "mitigation"
	if o.action == "log" || o.action == "count" {
		e.Kind = "match"
	}
}

// maxMatched bounds the matches and the labels of an event: a record of two-byte
// elements must not become a hundred times its size. Real ones have dozens.
const maxMatched = 1000

// matched adds a match; false where there are too many.
func (l *log) matched(m schemas.Match) bool {
	if len(l.e.Matches) == maxMatched {
		l.more = true
		return false
	}
	l.e.Matches = append(l.e.Matches, m)
	return true
}

// label adds a label; false where there are too many.
func (l *log) label(s string) bool {
	if len(l.e.Meta.Labels) == maxMatched {
		return false
	}
	if s != "" {
		l.e.Meta.Labels = append(l.e.Meta.Labels, s)
	}
	return true
}

// keep adds a member without a place, rid of what must not be stored.
func (u *unmapped) keep(key string, value []byte) {
	if secretKey(key) || len(value) == 0 {
		return // promise: a cookie or a key goes no further than this
	}
	u.add(key, nil)
	u.b = cleaned(u.b, value, maxCleaned)
}

// maxCleaned is how deep values are searched for cookies and keys: far deeper
// than any log is nested, and it bounds the work, which grows with the depth.
const maxCleaned = 16

// cleaned appends a value without the cookies and keys in it: members of such
// names, and headers ({"name":…,"value":…}) of them.
func cleaned(dst, value []byte, depth int) []byte {
	n := 0
	switch {
	case depth == 0 || len(value) == 0:
	case value[0] == '{':
		dst = append(dst, '{')
		members(value, func(key string, v []byte) {
			if secretKey(key) {
				return
			}
			if n++; n > 1 {
				dst = append(dst, ',')
			}
			dst = cleaned(append(schemas.AppendString(dst, key), ':'), v, depth-1)
		})
		return append(dst, '}')
	case value[0] == '[':
		dst = append(dst, '[')
		elements(value, func(v []byte) {
			if secretPair(v) {
				return
			}
			if n++; n > 1 {
				dst = append(dst, ',')
			}
			dst = cleaned(dst, v, depth-1)
		})
		return append(dst, ']')
	}
	return append(dst, value...)
}

// secretPair says that a value is a header, a rate limit's key or a match with
// what stood there, and that this must not be stored.
func secretPair(value []byte) bool {
	if len(value) == 0 || value[0] != '{' {
		return false
	}
	secret, holds := false, false
	members(value, func(key string, v []byte) {
		switch key {
		case "name", "key", "location", "matchedFieldName", "Name":
			secret = secret || secretHeader(text(v))
		case "value", "matchedData", "Value":
			holds = true
		}
	})
	return secret && holds
}

// secretHeader says that a header must not be stored.
func secretHeader(name string) bool {
	k := strings.ToLower(punctuation.Replace(name))
	return strings.Contains(k, "cookie") || strings.HasSuffix(k, "authorization") || strings.HasSuffix(k, "apikey") || k == "secretkey"
}

// elements calls f for each element of the JSON array in b, which
// schemas.Check has passed; nothing where b is no array.
func elements(b []byte, f func(value []byte)) {
	if len(b) == 0 || b[0] != '[' {
		return
	}
	for i := 1; i < len(b); {
		i += firstByte(b[i:])
		if i >= len(b) || b[i] == ']' {
			return
		}
		if b[i] == ',' {
			i++
			continue
		}
		end := skip(b, i)
		if end <= i {
			return
		}
		f(b[i:end])
		i = end
	}
}

// put sets a text.
func put(p *string, s string) bool {
	if s == "" {
		return false
	}
	*p = s
	return true
}

// address sets an IP address.
func address(p *string, s string) bool {
	if _, err := netip.ParseAddr(s); err != nil {
		return false
	}
	*p = s
	return true
}

// natural sets a whole number from 0.
func natural(p *schemas.Int, value []byte) bool {
	v := integer(value)
	if v.OK && v.V >= 0 {
		*p = v
		return true
	}
	return false
}

// some is natural for numbers of which 0 says that there is none: a status, a
// port, an AS.
func some(p *schemas.Int, value []byte) bool {
	v := int32s(value)
	if v.OK && v.V > 0 {
		*p = v
	}
	return v.OK && v.V >= 0
}

// asn sets an AS number, which needs 32 bits without a sign; 0 is none.
func asn(p *schemas.Int, value []byte) bool {
	v := integer(value)
	if v.OK && v.V > 0 {
		*p = v
	}
	return v.OK && v.V >= 0 && v.V <= math.MaxUint32
}

// country sets a country's two letters; what else a CDN puts there (Tor's T1)
// is no country.
func country(p *string, s string) bool {
	s = strings.ToUpper(s)
	if len(s) != 2 || s[0] < 'A' || s[0] > 'Z' || s[1] < 'A' || s[1] > 'Z' {
		return false
	}
	*p = s
	return true
}

// agent sets the user agent.
func (l *log) agent(s string) bool {
	if s == "" {
		return false
	}
	l.e.UserAgent, l.long = limit(s, maxUserAgent)
	return true
}

// seconds sets a duration given in seconds. Thousandths of a ms are kept.
func seconds(p *schemas.Float, value []byte) bool {
	v := number(value)
	if !v.OK || v.V < 0 || v.V > 1e9 {
		return false
	}
	*p = schemas.Float{V: float64(int64(v.V*1e6+0.5)) / 1e3, OK: true}
	return true
}

// instant is a point in time.
type instant struct {
	ms        int64
	precision string
}

// at reads a time: RFC 3339, or a number since 1970 whose size tells its unit
// (seconds, milli-, micro- or nanoseconds).
func (t *instant) at(s string) bool {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		switch {
		case n <= 0:
			return false
		case n < 1e11:
			*t = instant{n * 1000, "s"}
		case n < 1e14:
			*t = instant{n, "ms"}
		case n < 1e17:
			*t = instant{n / 1000, "us"}
		default:
			*t = instant{n / 1e6, "us"}
		}
		return true
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if !(f > 0 && f < 1e20) {
			return false
		}
		if f >= 1e11 {
			return t.at(strconv.FormatFloat(math.Min(f, 9e18), 'f', 0, 64))
		}
		*t = instant{int64(f*1000 + 0.5), "ms"}
		return true
	}
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return false
	}
	*t = instant{v.UnixMilli(), "s"}
	if _, fraction, ok := strings.Cut(s, "."); ok {
		t.precision = "ms"
		if strings.IndexFunc(fraction, func(c rune) bool { return c < '0' || c > '9' }) > 3 {
			t.precision = "us"
		}
	}
	return true
}

// when sets the event's time; false where there is none.
func (l *log) when(t instant) bool {
	l.e.EventTime, l.e.TimePrecision = t.ms, t.precision
	return t.precision != ""
}

// cloudflareLog is a row of firewall_events or http_requests.
type cloudflareLog struct {
	log
	ray        string
	action     string
	index      schemas.Int // MatchIndex
	ref        string
	referrer   [4]string // scheme, host, path, query
	uri        string
	start, end instant
	actions    []byte // arrays, as they came
	rules      []byte
	sources    []byte
	all        [][3]string   // of the arrays: action, rule, source
	attack     schemas.Float // WAFAttackScore
}

func (l *cloudflareLog) reset() {
	l.log.reset()
	*l = cloudflareLog{log: l.log, all: l.all[:0]}
}

type cloudflareSet = func(l *cloudflareLog, value []byte, s string) bool

// cloudflareBoth are the names that both data sets have.
var cloudflareBoth = map[string]cloudflareSet{
	"ClientASN":              func(l *cloudflareLog, v []byte, _ string) bool { return asn(&l.e.ClientASN, v) },
	"ClientCountry":          func(l *cloudflareLog, _ []byte, s string) bool { return country(&l.e.ClientCountry, s) },
	"ClientIP":               func(l *cloudflareLog, _ []byte, s string) bool { return address(&l.e.ClientIP, s) },
	"ClientRequestHost":      func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.HTTPHost, host(s)) },
	"ClientRequestMethod":    func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.HTTPMethod, s) },
	"ClientRequestPath":      func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.HTTPPath, s) },
	"ClientRequestProtocol":  func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.HTTPProtocol, s) },
	"ClientRequestUserAgent": func(l *cloudflareLog, _ []byte, s string) bool { return l.agent(s) },
	"EdgeColoCode":           func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.SourceInstance, s) },
	"EdgeResponseStatus":     func(l *cloudflareLog, v []byte, _ string) bool { return some(&l.e.HTTPStatus, v) },
	"RayID":                  func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.ray, s) },
	// The rays that a request came from; "00" is none.
	"OriginatorRayID": func(_ *cloudflareLog, _ []byte, s string) bool { return s == "00" },
	"ParentRayID":     func(_ *cloudflareLog, _ []byte, s string) bool { return s == "00" },
}

// ids ties the event to its request: the RayID is the same in both data sets.
func (l *cloudflareLog) ids() {
	l.e.Source = "cloudflare"
	l.e.RequestID, l.e.CorrelationID = l.ray, l.ray
}

// cloudflareOutcome reads an action, which the data sets write in different
// case. known is whether it is one that means something.
func cloudflareOutcome(action, source string) (o outcome, known bool) {
	a := strings.ToLower(action)
	switch a {
	case "block", "drop":
		if strings.EqualFold(source, "ratelimit") {
			return outcome{"rate_limit", "blocked", true}, true
		}
		return outcome{"block", "blocked", true}, true
	case "log", "simulate":
		return outcome{"log", "logged", false}, true
	case "allow":
		return outcome{"allow", "allowed", true}, true
	case "bypass", "skip":
		return outcome{"allow", "bypassed", false}, true
	case "connectionclose", "forceconnectionclose":
		return outcome{"close", "blocked", true}, true
	}
	for _, c := range cloudflareChallenges {
		rest, ok := strings.CutPrefix(a, c.name)
		if !ok {
			continue
		}
		for _, end := range cloudflareEndings {
			if rest == end.name {
				return outcome{c.action, c.action + end.disposition, true}, true
			}
		}
		if rest == "bypassed" || rest == "skipped" {
			return outcome{c.action, "bypassed", true}, true
		}
	}
	return outcome{"none", "allowed", false}, false
}

// cloudflareChallenges are the challenges: the one that people solve is a
// captcha, the others run in the browser.
var cloudflareChallenges = []struct{ name, action string }{
	{"challenge", "captcha"},
	{"jschallenge", "challenge"},
	{"managedchallenge", "challenge"},
	{"precursorinterstitialpage", "challenge"},
}

var cloudflareEndings = []struct{ name, disposition string }{
	{"", "_served"},
	{"solved", "_passed"}, {"interactivesolved", "_passed"}, {"noninteractivesolved", "_passed"},
	{"failed", "_failed"},
}

// blocks says that an outcome kept the visitor from what was asked for.
func (o outcome) blocks() bool {
	return o.enforced && o.action != "allow" && !strings.HasSuffix(o.disposition, "_passed") && o.disposition != "bypassed"
}

// tried is event where something is left to do if it fails: it says why, and
// leaves nothing behind then.
func (o *Output) tried(in *Input, index int, value []byte, e *schemas.Event) (reason string) {
	bad, behind, events := len(o.Bad), o.behind, len(o.Events)
	var last Bad
	if bad > 0 {
		last = o.Bad[bad-1]
	}
	o.event(in, index, value, e)
	if len(o.Events) > events {
		return ""
	}
	reason = o.Bad[len(o.Bad)-1].Reason
	if o.Bad, o.behind = o.Bad[:bad], behind; bad > 0 {
		o.Bad[bad-1] = last
	}
	return reason
}
