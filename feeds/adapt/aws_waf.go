package adapt

import (
	"cmp"
	"strings"
)

// awsWAF reads the logs of AWS WAF: an object a request that a web ACL judged.
func awsWAF(in *Input, out *Output) {
	out.values(in, func(index int, value []byte) {
		l := &out.awsWAF
		l.reset()
		reason := "an AWS WAF log is a JSON object"
		if members(value, func(key string, v []byte) { awsWAFColumns.take(l, &l.log, key, v) }) {
			reason = l.complete()
		}
		if reason != "" {
			out.bad(in, index, value, reason)
			return
		}
		out.event(in, index, value, &l.e)
	})
}

// awsWAFLog is one log on its way to an event.
type awsWAFLog struct {
	log
	stamp     instant
	action    string
	ruleType  string
	requestID string
	inner     unmapped // of a nested object
	// Nested values, as they came.
	details, groups, rates, counting, request, captcha, challenge []byte
	hostHeader                                                    string
	counted                                                       string // the first rule that only counted
}

func (l *awsWAFLog) reset() {
	l.log.reset()
	*l = awsWAFLog{log: l.log, inner: unmapped{l.inner.b[:0]}}
}

type awsWAFSet = func(l *awsWAFLog, value []byte, s string) bool

// awsWAFColumns are the members of a log that have a place.
var awsWAFColumns = columnsOf(map[string]awsWAFSet{
	"action":                      func(l *awsWAFLog, _ []byte, s string) bool { return put(&l.action, s) },
	"captchaResponse":             func(l *awsWAFLog, v []byte, _ string) bool { return nested(&l.captcha, v, '{') },
	"challengeResponse":           func(l *awsWAFLog, v []byte, _ string) bool { return nested(&l.challenge, v, '{') },
	"clientAsn":                   func(l *awsWAFLog, v []byte, _ string) bool { return asn(&l.e.ClientASN, v) },
	"formatVersion":               func(l *awsWAFLog, _ []byte, s string) bool { return put(&l.e.VendorVersion, s) },
	"httpRequest":                 func(l *awsWAFLog, v []byte, _ string) bool { return nested(&l.request, v, '{') },
	"httpSourceName":              func(l *awsWAFLog, _ []byte, s string) bool { return put(&l.e.Integration, s) },
	"ja3Fingerprint":              func(l *awsWAFLog, _ []byte, s string) bool { return put(&l.e.TLSJA3, s) },
	"ja4Fingerprint":              func(l *awsWAFLog, _ []byte, s string) bool { return put(&l.e.TLSJA4, s) },
	"labels":                      func(l *awsWAFLog, v []byte, _ string) bool { return l.labels(v) },
	"nonTerminatingMatchingRules": func(l *awsWAFLog, v []byte, _ string) bool { return nested(&l.counting, v, '[') },
	"rateBasedRuleList":           func(l *awsWAFLog, v []byte, _ string) bool { return nested(&l.rates, v, '[') },
	"responseCodeSent":            func(l *awsWAFLog, v []byte, _ string) bool { return some(&l.e.HTTPStatus, v) },
	"ruleGroupList":               func(l *awsWAFLog, v []byte, _ string) bool { return nested(&l.groups, v, '[') },
	"terminatingRuleId":           func(l *awsWAFLog, _ []byte, s string) bool { return put(&l.e.RuleID, s) },
	"terminatingRuleMatchDetails": func(l *awsWAFLog, v []byte, _ string) bool { return nested(&l.details, v, '[') },
	"terminatingRuleType":         func(l *awsWAFLog, _ []byte, s string) bool { put(&l.ruleType, s); return false },
	"timestamp":                   func(l *awsWAFLog, _ []byte, s string) bool { return l.stamp.at(s) },
	"webaclId":                    func(l *awsWAFLog, _ []byte, s string) bool { return put(&l.e.SourceInstance, s) },
})

// nested keeps a nested value for later, where it is of the right shape.
func nested(p *[]byte, value []byte, open byte) bool {
	if value[0] != open {
		return false
	}
	*p = value
	return true
}

func (l *awsWAFLog) labels(value []byte) bool {
	all := value[0] == '['
	elements(value, func(v []byte) {
		all = members(v, func(key string, name []byte) {
			all = all && key == "name" && l.label(text(name))
		}) && all
	})
	return all
}

// complete reads the nested values and derives what no member says by itself; a
// reason where the log cannot become an event.
func (l *awsWAFLog) complete() (reason string) {
	if l.twice != "" {
		return l.twice + " is given twice"
	}
	if !l.when(l.stamp) {
		return "has no usable time: timestamp cannot be read"
	}
	l.e.Source = "aws_waf"
	l.asked()
	if l.requestID != "" {
		l.e.RequestID, l.e.EventID = l.requestID, "aw:"+l.requestID
	}
	o := l.decide()
	l.terminated(o)
	l.limits()
	l.inGroups(o)
	if l.nonTerminating(l.counting) {
		l.rest.keep("nonTerminatingMatchingRules", l.counting)
	}
	l.judge(o)
	l.proofs()
	l.finish()
	return ""
}

// list puts the leftovers (l.inner) of each element into an array under a name.
func (l *awsWAFLog) list(name string, array []byte, f func(element []byte)) {
	n := 0
	elements(array, func(v []byte) {
		l.inner.b = l.inner.b[:0]
		f(v)
		left := l.inner.json()
		if left == "" {
			return
		}
		if n++; n == 1 {
			l.rest.add(name, nil)
			l.rest.b = append(l.rest.b, '[')
		} else {
			l.rest.b = append(l.rest.b, ',')
		}
		l.rest.b = append(l.rest.b, left...)
	})
	if n > 0 {
		l.rest.b = append(l.rest.b, ']')
	}
}

// nothing says that a nested value says nothing: null, "", [] or {}.
func nothing(value []byte) bool {
	return isNull(value) || string(value) == "[]" || string(value) == "{}"
}

// asked reads httpRequest.
func (l *awsWAFLog) asked() {
	e := &l.e
	l.inner.b = l.inner.b[:0]
	var seen uint64
	members(l.request, func(key string, v []byte) {
		place, known := awsWAFRequest[key]
		s := text(v)
		fits := known && seen&(1<<place) == 0
		seen |= 1 << place
		switch {
		case !fits:
		case isNull(v):
			return
		case place == wIP:
			fits = address(&e.ClientIP, s)
		case place == wCountry:
			fits = country(&e.ClientCountry, s)
		case place == wPath:
			fits = put(&e.HTTPPath, s)
		case place == wQuery:
			fits = put(&e.HTTPQuery, s)
		case place == wVersion:
			fits = put(&e.HTTPProtocol, s)
		case place == wMethod:
			fits = put(&e.HTTPMethod, s)
		case place == wID:
			fits = put(&l.requestID, s)
		case place == wHost:
			fits = put(&e.HTTPHost, host(s))
		case place == wHeaders:
			fits = v[0] == '[' && l.headers(v)
		}
		if !fits && !nothing(v) {
			l.inner.keep(key, v)
		}
	})
	if e.HTTPHost == "" {
		e.HTTPHost = host(l.hostHeader)
	}
	if left := l.inner.json(); left != "" {
		l.rest.add("httpRequest", []byte(left))
	}
}

// places of the members of httpRequest.
const (
	wNone = iota
	wIP
	wCountry
	wPath
	wQuery
	wVersion
	wMethod
	wID
	wHost
	wHeaders
)

var awsWAFRequest = map[string]uint8{
	"clientIp": wIP, "country": wCountry, "uri": wPath, "args": wQuery, "httpVersion": wVersion,
	"httpMethod": wMethod, "requestId": wID, "host": wHost, "headers": wHeaders,
}

// headers takes the request's headers; those without a place are kept, the
// secret ones are not. A header that came twice is kept the second time.
func (l *awsWAFLog) headers(array []byte) bool {
	e, n := &l.e, 0
	elements(array, func(v []byte) {
		var name, value string
		strangers := false
		members(v, func(key string, m []byte) {
			switch key {
			case "name":
				name = text(m)
			case "value":
				value = text(m)
			default:
				strangers = true
			}
		})
		var p *string
		switch strings.ToLower(name) {
		case "host":
			p = &l.hostHeader
		case "user-agent":
			p = &e.UserAgent
		case "referer":
			p = &e.HTTPReferrer
		case "x-forwarded-for":
			p = &e.ForwardedFor
		}
		switch {
		case secretHeader(name):
			return // promise: a cookie or a key goes no further than this
		case p == nil || *p != "" || strangers:
		case p == &e.UserAgent:
			l.agent(value)
			return
		default:
			*p = value
			return
		}
		if n++; n == 1 {
			l.inner.add("headers", nil)
			l.inner.b = append(l.inner.b, '[')
		} else {
			l.inner.b = append(l.inner.b, ',')
		}
		l.inner.b = cleaned(l.inner.b, v, maxCleaned)
	})
	if n > 0 {
		l.inner.b = append(l.inner.b, ']')
	}
	return true
}

// byDefault says that no rule terminated.
func (l *awsWAFLog) byDefault() bool {
	return l.e.RuleID == "" || l.e.RuleID == "Default_Action"
}

// decide reads the action.
func (l *awsWAFLog) decide() outcome {
	switch strings.ToUpper(l.action) {
	case "BLOCK":
		if l.ruleType == rateBased {
			return outcome{"rate_limit", "blocked", true}
		}
		return outcome{"block", "blocked", true}
	case "ALLOW":
		return outcome{"allow", "allowed", true}
	case "CAPTCHA":
		return outcome{"captcha", "captcha_served", true}
	case "CHALLENGE":
		return outcome{"challenge", "challenge_served", true}
	case "COUNT", "EXCLUDED_AS_COUNT":
		return outcome{"count", "detected", false}
	}
	return outcome{"none", "allowed", false}
}

// judge writes the decision. What the default let pass was decided by nobody:
// a request, or a match where rules counted it.
func (l *awsWAFLog) judge(o outcome) {
	e := &l.e
	e.ActionRaw = l.action
	passed := o.action == "allow" && l.byDefault()
	if passed && l.counted != "" {
		o = outcome{"count", "detected", false}
		e.ActionRaw, e.RuleID, e.RuleCategory = "COUNT", l.counted, ""
		for i := range e.Matches {
			if m := &e.Matches[i]; m.RuleID == l.counted {
				e.RuleCategory = cmp.Or(e.RuleCategory, m.Category)
			}
		}
	}
	if o.action == "count" {
		e.Mode = "count"
	}
	l.decided(o)
	if passed && l.counted == "" || l.action == "" {
		e.Kind = "request"
	}
}

// proofs reads the responses of captcha and challenge: why one was not enough,
// and the status that the visitor saw.
func (l *awsWAFLog) proofs() {
	order := [2]struct {
		name  string
		value []byte
	}{{"captchaResponse", l.captcha}, {"challengeResponse", l.challenge}}
	if strings.EqualFold(l.action, "challenge") {
		order[0], order[1] = order[1], order[0]
	}
	for _, p := range order {
		l.inner.b = l.inner.b[:0]
		members(p.value, func(key string, v []byte) {
			switch s := text(v); {
			case key == "failureReason" && s != "" && l.e.Reason == "":
				l.e.Reason = s
			case nothing(v):
			default:
				if key == "responseCode" && !l.e.HTTPStatus.OK && strings.HasPrefix(strings.ToLower(p.name), strings.ToLower(l.action)) && l.action != "" {
					some(&l.e.HTTPStatus, v)
				}
				l.inner.keep(key, v)
			}
		})
		if left := l.inner.json(); left != "" {
			l.rest.add(p.name, []byte(left))
		}
	}
}
