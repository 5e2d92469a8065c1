package adapt

import (
	"strings"

	"datasync/schemas"
)

// cloudflareHTTP reads rows of Cloudflare's http_requests.
func cloudflareHTTP(in *Input, out *Output) {
	out.values(in, func(index int, value []byte) {
		l := &out.cloudflare.log
		l.reset()
		if !members(value, func(key string, v []byte) { cloudflareHTTPColumns.take(l, &l.log, key, v) }) {
			out.bad(in, index, value, "a row of http_requests is a JSON object")
			return
		}
		if l.twice != "" {
			out.bad(in, index, value, l.twice+" is given twice")
			return
		}
		if !l.when(l.start) && !l.when(l.end) {
			out.bad(in, index, value, "has no usable time: neither EdgeStartTimestamp nor EdgeEndTimestamp can be read; add one of them to the Logpush job")
			return
		}
		l.ids()
		l.security()
		l.url()
		l.scores()
		l.finish()
		if l.ray != "" {
			l.e.EventID = "cf:" + l.ray + ":http"
		}
		out.event(in, index, value, &l.e)
	})
}

// cloudflareHTTPColumns are the names of http_requests; the Security… ones were
// called FirewallMatches… before. What gives false is read and kept all the same.
var cloudflareHTTPColumns = columnsOf(cloudflareBoth, map[string]cloudflareSet{
	"BotDetectionIDs":         func(l *cloudflareLog, v []byte, _ string) bool { return l.labels(v) },
	"BotDetectionTags":        func(l *cloudflareLog, v []byte, _ string) bool { return l.labels(v) },
	"BotScore":                func(l *cloudflareLog, v []byte, _ string) bool { return l.score(v, "bot_score") },
	"BotTags":                 func(l *cloudflareLog, v []byte, _ string) bool { return l.labels(v) },
	"ClientRequestBytes":      func(l *cloudflareLog, v []byte, _ string) bool { return natural(&l.e.BytesIn, v) },
	"ClientRequestReferer":    func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.HTTPReferrer, s) },
	"ClientRequestURI":        func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.uri, s) },
	"ClientSrcPort":           func(l *cloudflareLog, v []byte, _ string) bool { return some(&l.e.ClientPort, v) },
	"EdgeEndTimestamp":        func(l *cloudflareLog, _ []byte, s string) bool { l.end.at(s); return false },
	"EdgeResponseBytes":       func(l *cloudflareLog, v []byte, _ string) bool { return natural(&l.e.BytesOut, v) },
	"EdgeStartTimestamp":      func(l *cloudflareLog, _ []byte, s string) bool { return l.start.at(s) },
	"FirewallMatchesActions":  func(l *cloudflareLog, v []byte, _ string) bool { return array(&l.actions, v) },
	"FirewallMatchesRuleIDs":  func(l *cloudflareLog, v []byte, _ string) bool { return array(&l.rules, v) },
	"FirewallMatchesSources":  func(l *cloudflareLog, v []byte, _ string) bool { return array(&l.sources, v) },
	"JA3Hash":                 func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.TLSJA3, s) },
	"JA4":                     func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.TLSJA4, s) },
	"SecurityAction":          func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.action, s) },
	"SecurityActions":         func(l *cloudflareLog, v []byte, _ string) bool { return array(&l.actions, v) },
	"SecurityRuleDescription": func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.RuleName, s) },
	"SecurityRuleID":          func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.RuleID, s) },
	"SecurityRuleIDs":         func(l *cloudflareLog, v []byte, _ string) bool { return array(&l.rules, v) },
	"SecuritySources":         func(l *cloudflareLog, v []byte, _ string) bool { return array(&l.sources, v) },
	"WAFAttackScore":          func(l *cloudflareLog, v []byte, _ string) bool { l.attack = number(v); return false },
})

// array keeps an array for later.
func array(p *[]byte, value []byte) bool {
	if value[0] != '[' || *p != nil {
		return false
	}
	*p = value
	return true
}

// labels adds an array's texts and numbers to the labels.
func (l *cloudflareLog) labels(value []byte) bool {
	all := value[0] == '['
	elements(value, func(v []byte) { all = all && l.label(text(v)) })
	return all
}

// score takes a score of Cloudflare's, of which 1 is the worst and 99 the
// best; 0 says that there is none.
func (l *cloudflareLog) score(value []byte, kind string) bool {
	v := number(value)
	if !v.OK || v.V < 1 || v.V > 100 {
		return false
	}
	l.scored(v, kind)
	return true
}

func (l *cloudflareLog) scored(v schemas.Float, kind string) {
	l.e.Score, l.e.ScoreRaw, l.e.ScoreKind = schemas.Float{V: 100 - v.V, OK: true}, v, kind
}

// scores falls back on the WAF's score where the bots' is not there.
func (l *cloudflareLog) scores() {
	if v := l.attack; !l.e.Score.OK && v.OK && v.V >= 1 && v.V <= 100 {
		l.scored(v, "waf_attack")
	}
}

// url completes path and query from the URI, which has both.
func (l *cloudflareLog) url() {
	path, query, _ := strings.Cut(l.uri, "?")
	if l.e.HTTPPath == "" {
		l.e.HTTPPath = path
	}
	l.e.HTTPQuery = query
}

// security says what was decided and by which rules: SecurityAction and
// SecurityRuleID are the terminating rule's, the arrays have all that matched,
// in parallel.
func (l *cloudflareLog) security() {
	e := &l.e
	at := l.lists(l.lists(l.lists(0, 0, l.actions), 1, l.rules), 2, l.sources)
	if l.more {
		l.rest.keep("SecurityActions", l.actions)
		l.rest.keep("SecurityRuleIDs", l.rules)
		l.rest.keep("SecuritySources", l.sources)
	}
	decides := -1
	for i := range at {
		m := l.all[i]
		o, known := cloudflareOutcome(m[0], m[2])
		match := schemas.Match{RuleID: m[1], Category: m[2]}
		if m[0] != "" {
			match.Blocking = schemas.Bool{V: o.blocks(), OK: true}
		}
		if m[1] != "" && m[1] == e.RuleID {
			match.Name = e.RuleName
		}
		l.matched(match)
		switch {
		case e.RuleID != "" && m[1] != e.RuleID, l.action != "" && !strings.EqualFold(m[0], l.action):
		case decides < 0, l.action == "" && o.blocks() && known && !l.blocking(decides):
			decides = i
		}
	}
	if decides >= 0 {
		m := l.all[decides]
		if l.action == "" {
			l.action = m[0]
		}
		if e.RuleID == "" {
			e.RuleID = m[1]
		}
		e.RuleSet = m[2]
	}
	e.ActionRaw = l.action
	o, _ := cloudflareOutcome(l.action, e.RuleSet)
	l.decided(o)
	if l.action == "" || strings.EqualFold(l.action, "unknown") {
		e.Kind = "request"
	}
}

// blocking says whether the i-th action blocks.
func (l *cloudflareLog) blocking(i int) bool {
	o, _ := cloudflareOutcome(l.all[i][0], l.all[i][2])
	return o.blocks()
}

// lists puts an array's texts into place which of l.all, of which n are in use;
// it gives how many are then.
func (l *cloudflareLog) lists(n, which int, value []byte) int {
	i := 0
	elements(value, func(v []byte) {
		if i == maxMatched {
			l.more = true
			return
		}
		if i == n {
			l.all = append(l.all[:n], [3]string{})
			n++
		}
		l.all[i][which] = text(v)
		i++
	})
	return n
}
