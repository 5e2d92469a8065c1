package adapt

import (
	"cmp"
	"strings"

	"datasync/schemas"
)

// limits reads the rate-based rules that looked at the request.
func (l *awsWAFLog) limits() {
	l.list("rateBasedRuleList", l.rates, func(v []byte) {
		var id, name, by string
		members(v, func(key string, m []byte) {
			switch key {
			case "rateBasedRuleId":
				id = text(m)
			case "rateBasedRuleName":
				name = text(m)
			case "limitKey":
				by = text(m)
			}
			if !nothing(m) {
				l.inner.keep(key, m)
			}
		})
		if e := &l.e; !l.byDefault() && (name == e.RuleID || id == e.RuleID) {
			m := &e.Matches[0]
			m.Category, m.Location = cmp.Or(m.Category, rateBased), cmp.Or(m.Location, by)
			return
		}
		l.matched(schemas.Match{RuleID: cmp.Or(name, id), Category: rateBased, Location: by})
	})
}

// rateBased is the type of rules that limit a rate.
const rateBased = "RATE_BASED"

// terminated makes the terminating rule the first of the matches.
func (l *awsWAFLog) terminated(o outcome) {
	if l.byDefault() {
		return
	}
	category, more := l.ruleMatch(l.e.RuleID, l.details, o.blocks())
	if more {
		l.rest.keep("terminatingRuleMatchDetails", l.details)
	}
	if l.e.RuleCategory = category; l.ruleType == rateBased && category == "" {
		l.e.RuleCategory = rateBased
	}
}

// ruleMatch adds a rule's match; it gives the first of the conditions that
// matched, and whether the details say more than the match does.
func (l *awsWAFLog) ruleMatch(rule string, details []byte, blocks bool) (category string, more bool) {
	m := schemas.Match{RuleID: rule, Blocking: schemas.Bool{V: blocks, OK: true}}
	n := 0
	elements(details, func(v []byte) {
		var condition, location, field, data string
		members(v, func(key string, d []byte) {
			switch key {
			case "conditionType":
				condition = text(d)
			case "location":
				location = text(d)
			case "matchedFieldName":
				field = text(d)
			case "matchedData":
				data = dataOf(d)
			default:
				more = more || !nothing(d)
			}
		})
		if n++; n > 1 {
			more = true
			return
		}
		if m.Category, m.Location, m.Data = condition, location, data; field != "" {
			m.Location = strings.TrimPrefix(location+":"+field, ":")
		}
		if secretHeader(location) || secretHeader(field) {
			m.Data = "" // promise: not even a piece of a cookie is stored
		}
	})
	return m.Category, !l.matched(m) || more
}

// dataOf is an array's texts, with blanks between.
func dataOf(array []byte) string {
	var b strings.Builder
	elements(array, func(v []byte) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(text(v))
	})
	return b.String()
}

// inGroups reads the rule groups: which of their rules terminated, and which
// only matched. Groups in which nothing matched say nothing.
func (l *awsWAFLog) inGroups(o outcome) {
	ofGroup := l.ruleType != "REGULAR" && l.ruleType != rateBased && !l.byDefault()
	l.list("ruleGroupList", l.groups, func(v []byte) {
		var id string
		var terminating []byte
		members(v, func(key string, m []byte) {
			switch {
			case nothing(m):
			case key == "ruleGroupId":
				id = text(m)
			case key == "terminatingRule":
				terminating = m
			case (key == "nonTerminatingMatchingRules" || key == "excludedRules") && !l.nonTerminating(m):
			default:
				l.inner.keep(key, m)
			}
		})
		if terminating != nil && l.inGroup(id, terminating, ofGroup, o) {
			l.inner.keep("terminatingRule", terminating)
		}
		if len(l.inner.b) > 0 {
			l.inner.add("ruleGroupId", schemas.AppendString(nil, id))
		}
	})
}

// inGroup reads the rule of a group that terminated there; decides is whether
// the group did so for the web ACL. It gives whether the rule says more than is
// taken of it.
func (l *awsWAFLog) inGroup(group string, rule []byte, decides bool, o outcome) (more bool) {
	e := &l.e
	var id string
	var details []byte
	members(rule, func(key string, m []byte) {
		switch key {
		case "ruleId":
			id = text(m)
		case "ruleMatchDetails":
			details = m
		case "action":
			more = more || !decides || !strings.EqualFold(text(m), l.action)
		default:
			more = more || !nothing(m)
		}
	})
	category, left := l.ruleMatch(id, details, decides && o.blocks())
	if decides && e.RuleName == "" {
		e.RuleName, e.RuleSet, e.RuleCategory = id, group, cmp.Or(e.RuleCategory, category)
	}
	return more || left
}

// nonTerminating reads rules that matched and let the request go on; it gives
// whether they say more than is taken of them.
func (l *awsWAFLog) nonTerminating(rules []byte) (more bool) {
	elements(rules, func(rule []byte) {
		var id, action string
		var details []byte
		if !members(rule, func(key string, m []byte) {
			switch key {
			case "ruleId":
				id = text(m)
			case "action", "exclusionType":
				action = strings.ToUpper(text(m))
			case "ruleMatchDetails":
				details = m
			default:
				more = more || !nothing(m)
			}
		}) {
			more = true
			return
		}
		switch {
		case action != "COUNT" && action != "EXCLUDED_AS_COUNT":
			more = true
		case l.counted == "":
			l.counted = id
		}
		_, left := l.ruleMatch(id, details, false)
		more = more || left
	})
	return more
}
