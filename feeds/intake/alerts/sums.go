package alerts

import (
	"strings"
	"time"
)

// What a tenant's sums may hold, whoever it is that sends: about 10 MB.
const (
	maxEntities = 16 << 10
	maxEntries  = 128 << 10
	maxOwn      = 512     // entries of one entity
	maxRules    = 4 << 10 // rules that are kept by name
	maxText     = 256     // bytes of a name
)

// sums are the windows of a tenant's entities, those touched last first.
type sums struct {
	slot    int64 // ms
	window  int64 // ms
	all     map[string]*entity
	rules   map[string]*rule
	first   *entity
	last    *entity
	entries int
	left    uint64 // entities that had to go while their window held something
}

// rule is a rule that has added something.
type rule struct{ id, name, category string }

// entity is one entity's window.
type entity struct {
	name       string
	newest     int64 // slot
	alerted    int64 // slot of the last alert
	isAlerted  bool
	touched    int64 // wall clock, ms: for what goes first, and for nothing else
	entries    []entry
	prev, next *entity
}

// entry is what one rule added in one slot.
type entry struct {
	slot        int64
	rule        *rule // nil: rules without a name, and those that did not fit
	points      int64
	first, last int64  // event times
	n           uint32 // events, each with the first of its rules
	hits        uint32
	severity    int8
}

// mark is one step of a Turn.
type mark struct {
	w      *Watch
	x      *entity
	slot   int64
	rule   *rule
	points int64
	n      uint32
	// Of an alert: the slot and whether there was one before.
	alert bool
	was   int64
	had   bool
}

// undo takes a step back. What has left the window meanwhile is not looked for.
func (m *mark) undo() {
	if m.alert {
		if m.x.isAlerted && m.x.alerted == m.slot {
			m.x.alerted, m.x.isAlerted = m.was, m.had
		}
		return
	}
	for i := range m.x.entries {
		if e := &m.x.entries[i]; e.slot == m.slot && e.rule == m.rule {
			e.points -= m.points
			e.n -= m.n
			e.hits--
			return
		}
	}
}

func (s *sums) init(window time.Duration) {
	s.window = window.Milliseconds()
	s.slot = max(1, s.window/slots)
	s.all, s.rules = map[string]*entity{}, map[string]*rule{}
}

// entity is the window of a name, made where there is none.
func (s *sums) entity(name string, now int64) *entity {
	x := s.all[name]
	if x == nil {
		x = &entity{name: strings.Clone(name)}
		s.all[x.name] = x
	} else {
		s.unlink(x)
	}
	x.touched = now
	s.link(x)
	// Two idle ones a turn are enough to keep up with those that come.
	for range 2 {
		if s.last != x && now-s.last.touched > s.window {
			s.drop(s.last)
		}
	}
	for s.last != x && (len(s.all) > maxEntities || s.entries > maxEntries) {
		s.drop(s.last)
		s.left++
	}
	return x
}

func (s *sums) link(x *entity) {
	x.prev, x.next = nil, s.first
	if s.first != nil {
		s.first.prev = x
	} else {
		s.last = x
	}
	s.first = x
}

func (s *sums) unlink(x *entity) {
	if x.prev != nil {
		x.prev.next = x.next
	} else {
		s.first = x.next
	}
	if x.next != nil {
		x.next.prev = x.prev
	} else {
		s.last = x.prev
	}
}

func (s *sums) drop(x *entity) {
	s.unlink(x)
	delete(s.all, x.name)
	s.entries -= len(x.entries)
}

// muted notes that an entity was told of.
func (s *sums) muted(name string, at, now int64) {
	x := s.entity(name, now)
	s.move(x, at/s.slot)
	if slot := at / s.slot; !x.isAlerted || slot > x.alerted {
		x.alerted, x.isAlerted = slot, true
	}
}

// move has an entity's window reach a slot; what falls out behind is forgotten.
func (s *sums) move(x *entity, slot int64) {
	if slot <= x.newest {
		return
	}
	x.newest = slot
	kept := x.entries[:0]
	for _, e := range x.entries {
		if e.slot > slot-slots {
			kept = append(kept, e)
		}
	}
	s.entries -= len(x.entries) - len(kept)
	clear(x.entries[len(kept):])
	x.entries = kept
}

// add puts a part of an event into its slot; false where that has left the window.
func (s *sums) add(x *entity, d *deed, p part, n uint32) (*rule, int64, bool) {
	slot := d.at / s.slot
	s.move(x, slot)
	if slot <= x.newest-slots {
		return nil, 0, false
	}
	r := s.rule(&p)
	e := x.entry(slot, r)
	if e == nil && len(x.entries) >= maxOwn {
		r = nil
		e = x.entry(slot, nil)
	}
	if e == nil {
		x.entries = append(x.entries, entry{slot: slot, rule: r, first: d.at, last: d.at})
		e = &x.entries[len(x.entries)-1]
		s.entries++
	}
	e.points += p.points
	e.n += n
	e.hits++
	e.first, e.last = min(e.first, d.at), max(e.last, d.at)
	e.severity = max(e.severity, d.severity)
	return r, slot, true
}

func (x *entity) entry(slot int64, r *rule) *entry {
	for i := len(x.entries) - 1; i >= 0; i-- {
		if e := &x.entries[i]; e.slot == slot && e.rule == r {
			return e
		}
	}
	return nil
}

// rule keeps a rule's names once.
func (s *sums) rule(p *part) *rule {
	if p.id == "" && p.name == "" {
		return nil
	}
	key := p.id
	if key == "" {
		key = "\x00" + p.name
	}
	if r := s.rules[key]; r != nil {
		return r
	}
	if len(s.rules) >= maxRules {
		clear(s.rules)
	}
	r := &rule{cut(p.id), cut(p.name), cut(p.category)}
	s.rules[strings.Clone(key)] = r
	return r
}

func cut(s string) string {
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "")
	}
	return strings.Clone(s)
}

// quiet says that the entity was told of less than a window ago.
func (x *entity) quiet() bool { return x.isAlerted && x.newest-x.alerted < slots }

func (x *entity) sum() (n int64) {
	for i := range x.entries {
		n += x.entries[i].points
	}
	return n
}
