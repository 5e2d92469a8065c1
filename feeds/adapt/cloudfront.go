package adapt

import (
	"bytes"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
	"unsafe"

	"datasync/schemas"
)

// cloudfront reads CloudFront's logs: standard ones as JSON (v2) or as lines
// behind a #Fields line, and the lines of real-time logs, which have no names
// and come in the order of cloudfrontRealTime. "-" is null in all of them.
func cloudfront(in *Input, out *Output) {
	l := &out.cloudfront
	if i := firstByte(in.Value); i < len(in.Value) && (in.Value[i] == '{' || in.Value[i] == '[') {
		out.values(in, func(index int, value []byte) {
			l.reset()
			reason := "a CloudFront log is a JSON object or a line of tab-separated fields"
			if members(value, l.member) {
				reason = l.complete(in)
			}
			if reason != "" {
				out.bad(in, index, value, reason)
				return
			}
			out.event(in, index, value, &l.e)
		})
		return
	}
	var names []string // of the #Fields line; nil: real-time
	index := 0
	for line := range bytes.SplitSeq(in.Value, []byte{'\n'}) {
		line = bytes.TrimRight(line, "\r")
		if fields, ok := bytes.CutPrefix(line, []byte("#Fields:")); ok && len(fields) <= maxFieldsLine {
			names = strings.Fields(string(fields))
		}
		if len(bytes.TrimSpace(line)) == 0 || line[0] == '#' {
			continue
		}
		l.line(in, out, index, line, names)
		index++
	}
}

// maxFieldsLine bounds a #Fields line; a real one has some 500 bytes.
const maxFieldsLine = 4 << 10

// cloudfrontRealTime are the fields of a real-time log in their order, which is
// the documentation's, and which leaving some out would shift.
var cloudfrontRealTime = strings.Fields(`timestamp c-ip time-to-first-byte sc-status sc-bytes cs-method cs-protocol cs-host cs-uri-stem
	cs-bytes x-edge-location x-edge-request-id x-host-header time-taken cs-protocol-version c-ip-version cs-user-agent cs-referer
	cs-cookie cs-uri-query x-edge-response-result-type x-forwarded-for ssl-protocol ssl-cipher x-edge-result-type
	fle-encrypted-fields fle-status sc-content-type sc-content-len sc-range-start sc-range-end c-port x-edge-detailed-result-type
	c-country cs-accept-encoding cs-accept cache-behavior-path-pattern cs-headers cs-header-names cs-headers-count
	primary-distribution-id primary-distribution-dns-name origin-fbl origin-lbl asn`)

// places in cloudfrontRealTime.
const (
	rtStatus   = 3
	rtMethod   = 5
	rtProtocol = 6
	rtEdge     = 10
	rtVersion  = 14
	rtFamily   = 15
	rtReferrer = 17
	rtCookie   = 18
	rtResult   = 20
	rtTLS      = 22
	rtFirst    = 25 // how many fields there have always been
)

// cloudfrontLog is one log on its way to an event.
type cloudfrontLog struct {
	log
	cols   [][]byte // of a line
	date   string
	clock  string
	stamp  instant
	host   string // Host header
	domain string // x-host-header, which is the Host header or the distribution's domain
	stem   string
	query  string
	detail string
}

func (l *cloudfrontLog) reset() {
	l.log.reset()
	*l = cloudfrontLog{log: l.log, cols: l.cols[:0]}
}

type cloudfrontSet = func(l *cloudfrontLog, value []byte, s string) bool

// cloudfrontColumns are the names of standard and real-time logs.
var cloudfrontColumns = columnsOf(map[string]cloudfrontSet{
	"asn":                         func(l *cloudfrontLog, v []byte, _ string) bool { return asn(&l.e.ClientASN, v) },
	"c-country":                   func(l *cloudfrontLog, _ []byte, s string) bool { return country(&l.e.ClientCountry, s) },
	"c-ip":                        func(l *cloudfrontLog, _ []byte, s string) bool { return address(&l.e.ClientIP, s) },
	"c-port":                      func(l *cloudfrontLog, v []byte, _ string) bool { return some(&l.e.ClientPort, v) },
	"cs(Referer)":                 func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.e.HTTPReferrer, s) },
	"cs(User-Agent)":              func(l *cloudfrontLog, _ []byte, s string) bool { return l.agent(unescaped(s)) },
	"cs-bytes":                    func(l *cloudfrontLog, v []byte, _ string) bool { return natural(&l.e.BytesIn, v) },
	"cs-headers":                  func(l *cloudfrontLog, _ []byte, s string) bool { return l.headers(s) },
	"cs-host":                     func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.host, s) },
	"cs-method":                   func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.e.HTTPMethod, s) },
	"cs-protocol-version":         func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.e.HTTPProtocol, s) },
	"cs-referer":                  func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.e.HTTPReferrer, s) },
	"cs-uri-query":                func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.query, strings.TrimPrefix(s, "?")) },
	"cs-uri-stem":                 func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.stem, s) },
	"cs-user-agent":               func(l *cloudfrontLog, _ []byte, s string) bool { return l.agent(unescaped(s)) },
	"date":                        func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.date, s) },
	"sc-bytes":                    func(l *cloudfrontLog, v []byte, _ string) bool { return natural(&l.e.BytesOut, v) },
	"sc-status":                   func(l *cloudfrontLog, v []byte, _ string) bool { return some(&l.e.HTTPStatus, v) },
	"time":                        func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.clock, s) },
	"time-taken":                  func(l *cloudfrontLog, v []byte, _ string) bool { return seconds(&l.e.DurationMs, v) },
	"timestamp":                   func(l *cloudfrontLog, _ []byte, s string) bool { return l.stamp.at(s) },
	"timestamp(ms)":               func(l *cloudfrontLog, _ []byte, s string) bool { return l.stamp.at(s) },
	"x-edge-detailed-result-type": func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.detail, s) },
	"x-edge-location":             func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.e.SourceInstance, s) },
	"x-edge-request-id": func(l *cloudfrontLog, _ []byte, s string) bool {
		return len(s) <= 256 && word(strings.TrimRight(s, "="), 256) && put(&l.e.RequestID, s)
	},
	"x-forwarded-for": func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.e.ForwardedFor, s) },
	"x-host-header":   func(l *cloudfrontLog, _ []byte, s string) bool { return put(&l.domain, s) },
})

// member takes a member of a JSON log.
func (l *cloudfrontLog) member(key string, value []byte) {
	if !isNull(value) {
		cloudfrontColumns.take(l, &l.log, key, value)
	}
}

// line reads one line; names are nil where it is a real-time log's.
func (l *cloudfrontLog) line(in *Input, out *Output, index int, line []byte, names []string) {
	l.reset()
	for col := range bytes.SplitSeq(line, []byte{'\t'}) {
		if l.cols = append(l.cols, col); len(l.cols) > maxFields {
			break
		}
	}
	order := names
	switch {
	case len(l.cols) > maxFields:
		out.bad(in, index, l.masked(line, nil), "has more than 128 fields")
		return
	case names == nil && !l.realTime():
		out.bad(in, index, l.masked(line, nil), "is no line of a CloudFront real-time log, which has tab-separated fields in the documented order from timestamp on: choose all fields in its configuration, or leave out only the last ones")
		return
	case names == nil:
		order = cloudfrontRealTime
	}
	for i, col := range l.cols {
		switch {
		case string(col) == "-" || len(col) == 0:
		case i < len(order):
			l.field(order[i], col)
		default:
			l.field("field-"+strconv.Itoa(i+1), col)
		}
	}
	reason := l.complete(in)
	if reason == "" {
		reason = out.tried(in, index, line, &l.e)
	}
	if reason != "" {
		out.bad(in, index, l.masked(line, order), reason)
	}
}

// maxFields bounds the fields of a line; there are some 50.
const maxFields = 128

// field takes a field of a line.
func (l *cloudfrontLog) field(name string, col []byte) {
	s := unsafe.String(unsafe.SliceData(col), len(col))
	c, known := cloudfrontColumns[name]
	switch {
	case !known && secretKey(name):
		return // promise: a cookie goes no further than this
	case known && l.seen&c.bit == 0 && c.set(l, col, s):
		l.seen |= c.bit
		return
	}
	l.rest.add(name, schemas.AppendString(nil, s))
}

// realTime says that a line has the fields of a real-time log in the default
// order: another order would put a cookie where a referrer is looked for.
func (l *cloudfrontLog) realTime() bool {
	var t instant
	if len(l.cols) < 2 || !t.at(text(l.cols[0])) {
		return false
	}
	_, err := netip.ParseAddr(string(l.cols[1]))
	return err == nil &&
		l.is(rtStatus, func(s string) bool { return len(s) == 3 && text([]byte(s)) != "" }) &&
		l.is(rtMethod, func(s string) bool { return word(s, 32) }) &&
		l.is(rtProtocol, func(s string) bool { return s == "http" || s == "https" || s == "ws" || s == "wss" }) &&
		l.is(rtEdge, func(s string) bool { return word(s, 32) }) &&
		l.is(rtVersion, func(s string) bool { return strings.HasPrefix(s, "HTTP/") }) &&
		l.is(rtFamily, func(s string) bool { return strings.HasPrefix(s, "IPv") }) &&
		l.is(rtReferrer, func(s string) bool { return len(l.cols) >= rtFirst || strings.Contains(s, "://") }) &&
		l.is(rtResult, func(s string) bool { return word(s, 64) }) &&
		l.is(rtTLS, func(s string) bool { return strings.HasPrefix(s, "TLS") || strings.HasPrefix(s, "SSL") })
}

// is says that a field, where the line has it, is what it should be.
func (l *cloudfrontLog) is(at int, right func(string) bool) bool {
	return at >= len(l.cols) || string(l.cols[at]) == "-" || right(string(l.cols[at]))
}

// masked is a line for the quarantine, which knows no names of fields: a copy
// without the cookie or, where the order is not known, without anything that
// might be one.
func (l *cloudfrontLog) masked(line []byte, order []string) []byte {
	if len(line) < 32 { // no log with a cookie is; a body of such lines must not be copied one by one
		return line
	}
	masked := make([]byte, 0, len(line))
	hidden := false
	i := 0
	for col := range bytes.SplitSeq(line, []byte{'\t'}) {
		if i > 0 {
			masked = append(masked, '\t')
		}
		var secret bool
		switch {
		case order == nil:
			secret = bytes.IndexByte(col, '=') >= 0
		case i < len(order):
			secret = secretKey(order[i]) || order[i] == "cs-headers"
		}
		if secret && len(col) > 1 {
			masked, hidden = append(masked, '-'), true
		} else {
			masked = append(masked, col...)
		}
		i++
	}
	if !hidden {
		return line
	}
	return masked
}

// headers keeps the viewer's headers, one a line, without the secret ones.
func (l *cloudfrontLog) headers(s string) bool {
	list := headerBreaks.Replace(s)
	var kept []string
	for h := range strings.SplitSeq(list, "\n") {
		if name, _, _ := strings.Cut(h, ":"); h != "" && !secretHeader(name) {
			kept = append(kept, h)
		}
	}
	if len(kept) > 0 {
		l.rest.add("cs-headers", schemas.AppendString(nil, strings.Join(kept, "\n")))
	}
	return true
}

var headerBreaks = strings.NewReplacer("%0A", "\n", "%0a", "\n", "%0D", "", "%0d", "", "%3A", ":", "%3a", ":", "%2D", "-", "%2d", "-")

// unescaped undoes the escapes in which CloudFront writes spaces and the like.
func unescaped(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	u, err := url.PathUnescape(s)
	if err != nil || !utf8.ValidString(u) || strings.ContainsFunc(u, unicode.IsControl) {
		return s
	}
	return u
}

// complete derives what no field says by itself; a reason where the log cannot
// become an event.
func (l *cloudfrontLog) complete(in *Input) (reason string) {
	e := &l.e
	if l.twice != "" {
		return l.twice + " is given twice"
	}
	if t, err := time.Parse(time.DateOnly+" "+time.TimeOnly, l.date+" "+l.clock); l.stamp.precision == "" && err == nil {
		l.stamp = instant{t.UnixMilli(), "s"}
	}
	if !l.when(l.stamp) {
		return "has no usable time: neither timestamp nor date and time can be read"
	}
	e.Source = "cloudfront"
	if in.ID == "" && e.RequestID != "" {
		e.EventID = "cfr:" + e.RequestID
	}
	// A real-time log calls the Host header cs-host, a standard one x-host-header.
	switch {
	case l.host == "":
		e.HTTPHost = host(l.domain)
	default:
		e.HTTPHost = host(l.host)
		if l.domain != "" {
			l.rest.add("x-host-header", schemas.AppendString(nil, l.domain))
		}
	}
	path, query, _ := strings.Cut(l.stem, "?") // a real-time log's has the query
	if e.HTTPPath, e.HTTPQuery = path, l.query; l.query == "" {
		e.HTTPQuery = query
	}
	e.Kind, e.Action, e.Disposition = "request", "none", "allowed"
	switch l.detail {
	case "ClientGeoBlocked", "InvalidRequestBlocked":
		// Whatever status an error page of the distribution's own has made of the 403.
		e.ActionRaw, e.Reason = l.detail, l.detail
		l.decided(outcome{"block", "blocked", true})
	case "":
	default:
		l.rest.add("x-edge-detailed-result-type", schemas.AppendString(nil, l.detail))
	}
	l.finish()
	return ""
}
