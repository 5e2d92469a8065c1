package adapt

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"datasync/schemas"
)

// maxUserAgent is the limit of user_agent in bytes (events.md, field 41).
const maxUserAgent = 2 << 10

// netacea reads the logs of Netacea's edge plugins: V1, V2 and the Lua
// variant, one object or an array of them.
func netacea(in *Input, out *Output) {
	out.values(in, func(index int, value []byte) {
		n := &out.netacea
		n.reset()
		if !members(value, n.member) {
			out.bad(in, index, value, "a netacea log is a JSON object")
			return
		}
		if n.twice != "" {
			out.bad(in, index, value, n.twice+" is given twice")
			return
		}
		if reason := n.finish(); reason != "" {
			out.bad(in, index, value, reason)
			return
		}
		out.event(in, index, value, &n.e)
	})
}

// netaceaLog is one log on its way to an event.
type netaceaLog struct {
	e     schemas.Event
	rest  unmapped
	inner unmapped // of optional

	request, query   string
	status, mode     string
	cookie           string
	headerHash       string
	unixMs           schemas.Int
	at, local        string
	localMs          schemas.Int
	protectorStatus  string
	seen             uint64
	twice            string
	userAgentWasLong bool
}

// reset makes n ready for the next log.
func (n *netaceaLog) reset() {
	rest, inner := n.rest.b[:0], n.inner.b[:0]
	*n = netaceaLog{rest: unmapped{rest}, inner: unmapped{inner}}
}

// places of the fields of which there is one, whatever the version calls it.
const (
	nRequest = iota
	nLocal
	nUnix
	nAt
	nIP
	nUserAgent
	nStatus
	nRequestTime
	nBytesSent
	nReferer
	nCookie
	nApplied
	nLatency
	nProtector
	nIntegration
	nVersion
	nMode
	nHost
	nForwarded
	nWorker
	nCookieStatus
	nOptional
	nUser
	nQuery
	nRequestID
	nBytesReceived
	nMethod
	nPath
	nProtocol
	nCorrelation
	nHeaderHash
	nDropped
)

var netaceaKeys = map[string]uint8{
	"Request": nRequest, "TimeLocal": nLocal, "TimeUnixMsUTC": nUnix, "RealIp": nIP, "UserAgent": nUserAgent,
	"Status": nStatus, "RequestTime": nRequestTime, "BytesSent": nBytesSent, "Referer": nReferer,
	"NetaceaUserIdCookie": nCookie, "NetaceaMitigationApplied": nApplied, "ProtectorLatencyMs": nLatency,
	"ProtectorStatus": nProtector, "IntegrationType": nIntegration, "IntegrationVersion": nVersion,
	"ProtectionMode": nMode, "RequestHost": nHost, "XForwardedFor": nForwarded, "WorkerInstanceId": nWorker,
	"NetaceaUserIdCookieStatus": nCookieStatus, "optional": nOptional, "Optional": nOptional, "UserId": nUser,
	"Query": nQuery, "RequestId": nRequestID, "BytesReceived": nBytesReceived, "HeaderHash": nHeaderHash,

	"request": nRequest, "@timestamp": nAt, "client": nIP, "user_agent": nUserAgent, "status": nStatus,
	"request_time": nRequestTime, "bytes_sent": nBytesSent, "referrer": nReferer, "bc_type": nApplied,
	"protector_latency_ms": nLatency, "protector_status": nProtector, "integration_type": nIntegration,
	"integration_version": nVersion, "protection_mode": nMode, "request_host": nHost, "x_forwarded_for": nForwarded,
	"worker_instance_id": nWorker, "user_id": nUser, "query": nQuery, "method": nMethod, "path": nPath,
	"protocol": nProtocol, "x-netacea-event-id": nCorrelation,

	// hour and minute repeat @timestamp; the key must not be kept.
	"hour": nDropped, "minute": nDropped, "apiKey": nDropped, "logVersion": nDropped,
}

// member takes one member of the log.
func (n *netaceaLog) member(key string, value []byte) {
	place, known := netaceaKeys[key]
	switch {
	case !known && secretKey(key), known && place == nDropped:
		return // promise: an API key or a cookie goes no further than this
	case !known:
		n.rest.add(key, value)
		return
	case n.seen&(1<<place) != 0:
		if n.twice == "" {
			n.twice, _ = limit(key, 40)
		}
		return
	}
	n.seen |= 1 << place
	if isNull(value) && place != nApplied {
		return
	}
	if !n.take(place, value) {
		n.rest.add(key, value)
	}
}

var punctuation = strings.NewReplacer("_", "", "-", "")

// secretKey says that a member of any name holds a key or a cookie.
func secretKey(key string) bool {
	k := strings.ToLower(punctuation.Replace(key))
	return k == "apikey" || k == "secretkey" || k == "authorization" ||
		strings.Contains(k, "cookie") && k != "cookiefingerprint"
}

// take puts a value in its place; false where it does not fit there.
func (n *netaceaLog) take(place uint8, value []byte) bool {
	e, s := &n.e, text(value)
	if s == "" && place != nOptional && place != nApplied {
		return false // neither text nor a number
	}
	switch place {
	case nRequest:
		n.request = s
	case nMethod:
		e.HTTPMethod = s
	case nPath:
		e.HTTPPath = s
	case nQuery:
		n.query = strings.TrimPrefix(s, "?")
	case nProtocol:
		e.HTTPProtocol = protocol(s)
	case nLocal:
		if n.localMs = integer(value); !n.localMs.OK {
			n.local = s
		}
	case nUnix:
		n.unixMs = integer(value)
		return n.unixMs.OK
	case nAt:
		n.at = s
	case nApplied:
		n.status = s
	case nMode:
		n.mode = strings.ToLower(s)
		return n.mode == "mitigate" || n.mode == "inject" || n.mode == "ingest"
	case nCookie:
		n.cookie = s
	case nHeaderHash:
		n.headerHash = s
	case nOptional:
		return members(value, n.option)
	default:
		return n.client(place, value, s)
	}
	return true
}

// client takes what was asked and by whom.
func (n *netaceaLog) client(place uint8, value []byte, s string) bool {
	e := &n.e
	switch place {
	case nIP:
		if _, err := netip.ParseAddr(s); err != nil {
			return false
		}
		e.ClientIP = s
	case nUserAgent:
		e.UserAgent, n.userAgentWasLong = limit(s, maxUserAgent)
	case nReferer:
		e.HTTPReferrer = s
	case nForwarded:
		e.ForwardedFor = s
	case nHost:
		e.HTTPHost = host(s)
	case nUser:
		e.SessionID = s
	case nRequestID:
		e.RequestID = s
	case nCorrelation:
		e.CorrelationID = s
	case nIntegration:
		e.Integration = s
	case nVersion:
		e.VendorVersion = s
	case nWorker:
		e.SourceInstance = s
	default:
		return n.figure(place, value, s)
	}
	return true
}

// figure takes the numbers.
func (n *netaceaLog) figure(place uint8, value []byte, s string) bool {
	e := &n.e
	switch place {
	case nStatus:
		e.HTTPStatus = int32s(value)
		return e.HTTPStatus.OK
	case nBytesSent:
		e.BytesOut = integer(value)
		return e.BytesOut.OK
	case nBytesReceived:
		e.BytesIn = integer(value)
		return e.BytesIn.OK
	case nRequestTime:
		if s == "0" { // what the JavaScript plugins always send: not measured
			return true
		}
		seconds := number(value)
		// Thousandths are as fine as nginx measures; this keeps 0.012 s at 12 ms.
		e.DurationMs = schemas.Float{V: float64(int64(seconds.V*1e6+0.5)) / 1e3, OK: seconds.OK && seconds.V >= 0 && seconds.V < 1e9}
		return e.DurationMs.OK
	case nLatency:
		e.Decision.LatencyMs = number(value)
		e.Decision.OK = e.Decision.OK || e.Decision.LatencyMs.OK
		return e.Decision.LatencyMs.OK
	case nProtector:
		e.Decision.Status = int32s(value)
		e.Decision.OK = e.Decision.OK || e.Decision.Status.OK
		n.protectorStatus = s
		return e.Decision.Status.OK
	case nCookieStatus:
		states := [...]string{"", "new", "existing", "renewed"}
		i := integer(value)
		if !i.OK || i.V < 1 || i.V > 3 {
			return false
		}
		e.SessionState = states[i.V]
	}
	return true
}

// option takes a member of optional.
func (n *netaceaLog) option(key string, value []byte) {
	switch {
	case key == "headerFingerprint" && len(value) > 2 && value[0] == '"':
		n.e.ClientFP = text(value)
	case secretKey(key):
	default:
		n.inner.add(key, value)
	}
}

// finish derives what no member says by itself; a reason where the log cannot
// become an event.
func (n *netaceaLog) finish() (reason string) {
	e := &n.e
	e.Source = "netacea"
	e.Mode = n.mode
	if e.Mode != "mitigate" && e.Mode != "inject" && e.Mode != "ingest" {
		e.Mode = ""
	}
	if !n.when() {
		return "has no usable time: none of TimeUnixMsUTC, @timestamp, TimeLocal can be read"
	}
	n.requestLine()
	n.session()
	n.decision()
	if e.ClientFP == "" {
		e.ClientFP = n.headerHash
	}
	if n.userAgentWasLong {
		e.Meta.Truncated = []string{"user_agent"}
	}
	if inner := n.inner.json(); inner != "" {
		n.rest.add("optional", []byte(inner))
	}
	e.Meta.Unmapped = n.rest.json()
	e.Meta.OK = e.Meta.Unmapped != "" || e.Meta.Truncated != nil
	return ""
}

// when takes the best of the times given.
func (n *netaceaLog) when() bool {
	e := &n.e
	e.TimePrecision = "ms"
	if n.unixMs.OK {
		e.EventTime = n.unixMs.V
		return true
	}
	if t, err := time.Parse(time.RFC3339Nano, n.at); err == nil {
		e.EventTime = t.UnixMilli()
		return true
	}
	if n.localMs.OK { // older Lua plugins send msec*1000
		e.EventTime = n.localMs.V
		return true
	}
	if ms, err := strconv.ParseFloat(n.local, 64); err == nil && ms > 0 && ms < 1e15 {
		e.EventTime = int64(ms)
		return true
	}
	e.TimePrecision = "s"
	for _, layout := range []string{"Mon, 02 Jan 2006 15:04:05 MST", "02/Jan/2006:15:04:05 -0700"} {
		if t, err := time.Parse(layout, n.local); err == nil {
			e.EventTime = t.UnixMilli()
			return true
		}
	}
	return false
}

// requestLine takes "METHOD path PROTO" apart where the log has no fields of
// its own for the parts. Lua's path holds the query.
func (n *netaceaLog) requestLine() {
	e := &n.e
	method, rest, ok1 := strings.Cut(n.request, " ")
	last := strings.LastIndexByte(rest, ' ')
	if n.request != "" && (!ok1 || last < 0) {
		n.rest.add("request", schemas.AppendString(nil, n.request))
	}
	if ok1 && last >= 0 {
		if e.HTTPMethod == "" {
			e.HTTPMethod = method
		}
		if e.HTTPPath == "" {
			e.HTTPPath = rest[:last]
		}
		if e.HTTPProtocol == "" {
			e.HTTPProtocol = protocol(rest[last+1:])
		}
	}
	path, query, _ := strings.Cut(e.HTTPPath, "?")
	e.HTTPPath = path
	if e.HTTPQuery = n.query; e.HTTPQuery == "" {
		e.HTTPQuery = query
	}
}

// protocol is an HTTP version; the plugin writes "undefined" where it knows none.
func protocol(s string) string {
	if s == "undefined" || s == "-" {
		return ""
	}
	return s
}

// host is a host name in lower case, without its port.
func host(s string) string {
	if h, port, ok := strings.Cut(s, ":"); ok && !strings.Contains(port, ":") {
		s = h
	}
	return strings.ToLower(s)
}

// session takes the visitor's id, and the codes, out of the session cookie.
// The cookie itself is a secret and goes no further.
func (n *netaceaLog) session() {
	id, codes := sessionCookie(n.cookie)
	if n.e.SessionID == "" {
		n.e.SessionID = id
	}
	n.e.CodesRaw = codes
}

// sessionCookie reads a plain session cookie: version 2 is five parts around
// "_/@#/" (mac, expiry, user id, mac of the address, codes), version 3 a query
// string (uid; mat, mit, cap).
func sessionCookie(c string) (id, codes string) {
	if parts := strings.Split(c, "_/@#/"); len(parts) >= 5 {
		id, codes = parts[2], parts[4]
	} else if strings.Contains(c, "uid=") {
		var mat, mit, cp string
		for part := range strings.SplitSeq(c, "&") {
			key, value, _ := strings.Cut(part, "=")
			switch key {
			case "uid":
				id = value
			case "mat":
				mat = value
			case "mit":
				mit = value
			case "cap":
				cp = value
			}
		}
		if len(mat) == 1 && len(mit) == 1 && len(cp) == 1 {
			codes = mat + mit + cp
		}
	}
	if !word(id, 64) {
		id = ""
	}
	if !word(codes, 8) {
		codes = ""
	}
	return id, codes
}

// word says that s is 1 to n letters, digits, '_' or '-'.
func word(s string, n int) bool {
	for _, c := range []byte(s) {
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= n
}
