package adapt

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"datasync/schemas"
)

// cloudflareFirewall reads rows of Cloudflare's firewall_events. There is one
// for each rule that matched a request; those of one RayID in a record become
// one event, so a record is the whole upload (Whole).
func cloudflareFirewall(in *Input, out *Output) {
	c := &out.cloudflare
	c.gather(in.Value)
	n, next := int32(0), 0 // of all rows; of those in c.rows
	out.values(in, func(index int, value []byte) {
		n++
		if next < len(c.rows) && c.rows[next].n == n {
			row := &c.rows[next]
			next++
			switch {
			case row.from < 0:
				// An earlier row's event holds this one. Bad values around it must
				// not be joined over it.
				out.behind = -1
				return
			case row.to-row.from > 1 && c.merged(in, out, index, row):
				return
			}
		}
		if reason := c.one(value); reason != "" {
			out.bad(in, index, value, reason)
			return
		}
		c.log.finish()
		out.event(in, index, value, &c.log.e)
	})
}

// cloudflareRows are the rows of one record.
type cloudflareRows struct {
	log   cloudflareLog
	rows  []cloudflareRow
	order []int32 // of rows, by RayID and MatchIndex
	lead  []member
	diff  unmapped
}

// member is one of an object.
type member struct {
	key   string
	value []byte
}

// cloudflareRow is a row that names its RayID. It is small, and rows without
// one need none, since a record may hold millions of rows.
type cloudflareRow struct {
	value, ray part  // of the record; of value
	n          int32 // the how manieth good value of the record it is, from 1
	index      int32 // MatchIndex
	from, to   int32 // of order: the rows of its RayID, at the first of them; from -1: an earlier row's event holds it
}

// part is a part of bytes.
type part struct{ off, len uint32 }

// partOf finds the place of b, which is a part of whole.
func partOf(whole, b []byte) part {
	off := uintptr(unsafe.Pointer(unsafe.SliceData(b))) - uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	return part{uint32(off), uint32(len(b))}
}

func (p part) in(whole []byte) []byte { return whole[p.off : p.off+p.len] }

// maxCompared bounds the members of a row that others are compared with.
const maxCompared = 128

// keepRows bounds the rows that a reused Output holds on to.
const keepRows = 1 << 16

// gather finds the rows of each RayID.
func (c *cloudflareRows) gather(record []byte) {
	if cap(c.rows) > keepRows {
		c.rows, c.order = nil, nil
	}
	c.rows, c.order = c.rows[:0], c.order[:0]
	if len(record) > math.MaxInt32 {
		return // each row stands alone then
	}
	n := int32(0)
	for v, err := range schemas.Values(record) {
		if err != nil {
			continue // told when the rows are read again
		}
		n++
		row := cloudflareRow{n: n, index: math.MaxInt32}
		members(v, func(key string, value []byte) {
			switch key {
			case "RayID":
				row.ray = partOf(v, value)
			case "MatchIndex":
				if i := int32s(value); i.OK {
					row.index = int32(i.V)
				}
			}
		})
		if ray := row.ray.in(v); !isNull(ray) && text(ray) != "" {
			row.value = partOf(record, v)
			c.order = append(c.order, int32(len(c.rows)))
			c.rows = append(c.rows, row)
		}
	}
	slices.SortFunc(c.order, func(a, b int32) int {
		return cmp.Or(bytes.Compare(c.ray(record, a), c.ray(record, b)), cmp.Compare(c.rows[a].index, c.rows[b].index), cmp.Compare(a, b))
	})
	for from := 0; from < len(c.order); {
		ray, to, first := c.ray(record, c.order[from]), from+1, c.order[from]
		for to < len(c.order) && bytes.Equal(c.ray(record, c.order[to]), ray) {
			first = min(first, c.order[to])
			to++
		}
		c.rows[first].from, c.rows[first].to = int32(from), int32(to)
		from = to
	}
}

// ray is the RayID of a row, as it stands there.
func (c *cloudflareRows) ray(record []byte, row int32) []byte {
	r := &c.rows[row]
	return r.ray.in(r.value.in(record))
}

// one reads a row into c.log; a reason where it is no event.
func (c *cloudflareRows) one(value []byte) (reason string) {
	l := &c.log
	l.reset()
	c.lead = c.lead[:0]
	if !members(value, func(key string, v []byte) {
		if len(c.lead) < maxCompared {
			c.lead = append(c.lead, member{key, v})
		}
		cloudflareFirewallColumns.take(l, &l.log, key, v)
	}) {
		return "a row of firewall_events is a JSON object"
	}
	switch {
	case l.twice != "":
		return l.twice + " is given twice"
	case !l.when(l.start):
		return "has no usable time: Datetime cannot be read"
	}
	l.ids()
	if l.ray != "" && l.index.OK {
		l.e.EventID = "cf:" + l.ray + ":" + strconv.FormatInt(l.index.V, 10)
	}
	l.rule()
	l.referred()
	return ""
}

// merged makes one event of the rows of a RayID, of which row is the first in
// the record; false where that cannot be, and each row is one for itself.
func (c *cloudflareRows) merged(in *Input, out *Output, index int, row *cloudflareRow) bool {
	group := c.order[row.from:row.to]
	lead := c.rows[group[0]].value.in(in.Value)
	if len(group) > maxMatched || c.one(lead) != "" {
		return false
	}
	l, last := &c.log, lead
	n := 0
	for _, k := range group[1:] {
		v := c.rows[k].value.in(in.Value)
		if bytes.Equal(v, last) {
			continue // delivered twice
		}
		last = v
		c.further(v)
		if n++; n == 1 {
			l.rest.add("rows", nil)
			l.rest.b = append(l.rest.b, '[')
		} else {
			l.rest.b = append(l.rest.b, ',')
		}
		l.rest.b = append(l.rest.b, cmp.Or(c.diff.json(), "{}")...)
	}
	if n > 0 {
		l.rest.b = append(l.rest.b, ']')
	}
	l.finish()
	if out.tried(in, index, row.value.in(in.Value), &l.e) != "" {
		return false
	}
	for _, k := range group {
		c.rows[k].from = -1
	}
	return true
}

// further adds a row that is not the terminating one: its rule to the matches,
// and what it says otherwise than the terminating row to c.diff.
func (c *cloudflareRows) further(value []byte) {
	var ref, rule, action string
	var m schemas.Match
	c.diff.b = c.diff.b[:0]
	members(value, func(key string, v []byte) {
		s := text(v)
		switch key {
		case "RayID":
			return
		case "RuleID":
			rule = s
			return
		case "Description":
			m.Name = s
			return
		case "Source":
			m.Category = s
			return
		case "Action":
			action = s
		case "MatchIndex":
		case "Ref":
			ref = s
			fallthrough
		default:
			if i := slices.IndexFunc(c.lead, func(l member) bool { return l.key == key }); i >= 0 && bytes.Equal(c.lead[i].value, v) {
				return
			}
		}
		c.diff.keep(key, v)
	})
	if m.RuleID = rule; m.RuleID == "" {
		m.RuleID = ref
	}
	o, _ := cloudflareOutcome(action, m.Category)
	m.Blocking = schemas.Bool{V: o.blocks(), OK: true}
	c.log.matched(m)
}

// cloudflareFirewallColumns are the names of firewall_events.
var cloudflareFirewallColumns = columnsOf(cloudflareBoth, map[string]cloudflareSet{
	"Action":              func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.action, s) },
	"ClientRefererHost":   func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.referrer[1], s) },
	"ClientRefererPath":   func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.referrer[2], s) },
	"ClientRefererQuery":  func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.referrer[3], s) },
	"ClientRefererScheme": func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.referrer[0], s) },
	"ClientRequestQuery": func(l *cloudflareLog, _ []byte, s string) bool {
		l.e.HTTPQuery = strings.TrimPrefix(s, "?")
		return s != ""
	},
	"Datetime":    func(l *cloudflareLog, _ []byte, s string) bool { return l.start.at(s) },
	"Description": func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.RuleName, s) },
	"MatchIndex":  func(l *cloudflareLog, v []byte, _ string) bool { return natural(&l.index, v) },
	"Ref":         func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.ref, s) },
	"RuleID":      func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.RuleID, s) },
	"Source":      func(l *cloudflareLog, _ []byte, s string) bool { return put(&l.e.RuleSet, s) },
})

// rule says what the row's rule decided; it is the first of the matches.
func (l *cloudflareLog) rule() {
	e := &l.e
	switch {
	case e.RuleID == "":
		e.RuleID = l.ref
	case l.ref != "":
		l.rest.add("Ref", schemas.AppendString(nil, l.ref))
	}
	e.ActionRaw = l.action
	o, _ := cloudflareOutcome(l.action, e.RuleSet)
	l.decided(o)
	l.matched(schemas.Match{RuleID: e.RuleID, Name: e.RuleName, Category: e.RuleSet, Blocking: schemas.Bool{V: o.blocks(), OK: true}})
}

// referred puts the referrer together.
func (l *cloudflareLog) referred() {
	r := &l.referrer
	if r[1] != "" {
		if r[0] != "" {
			r[0] += "://"
		}
		l.e.HTTPReferrer = r[0] + r[1] + r[2]
		if q := strings.TrimPrefix(r[3], "?"); q != "" {
			l.e.HTTPReferrer += "?" + q
		}
	}
}
