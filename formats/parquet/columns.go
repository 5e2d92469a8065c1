package parquet

import (
	"unsafe"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"datasync/schemas"
)

// column is one leaf of the file: what readers are told of it, and how its values
// are taken from events.
type column struct {
	path           string // names from the top, with dots between
	seen           uint64 // the event's field in schemas.Event.Seen; ^0: a required one, which always has a value
	fill           filler
	dictionary     bool
	typ            pq.Type
	maxRep, maxDef byte
	meta           format.ColumnMetaData // as far as it is known beforehand
}

// filler adds the values of some events to the column, with their levels.
type filler func(c *chunk, events []schemas.Event)

// offset is where in an event the variable lies that get gives the address of:
// so a filler's loop makes no calls.
func offset[T any](get func(*schemas.Event) *T) uintptr {
	e := new(schemas.Event)
	return uintptr(unsafe.Pointer(get(e))) - uintptr(unsafe.Pointer(e))
}

// at is the variable at an offset that offset gave.
func at[T any](e *schemas.Event, offset uintptr) *T {
	return (*T)(unsafe.Add(unsafe.Pointer(e), offset))
}

// adder adds a value to the column; false, and nothing is added, where it is absent.
type adder[T any] func(c *chunk, v *T) bool

// req is a required column.
func req[T any](get func(*schemas.Event) *T, add func(*chunk, T)) filler {
	o := offset(get)
	return func(c *chunk, events []schemas.Event) {
		c.defs.add(0, len(events))
		for i := range events {
			add(c, *at[T](&events[i], o))
		}
	}
}

// optStr is an optional column of text: level 0 is null, 1 a value.
func optStr(get func(*schemas.Event) *string) filler {
	o := offset(get)
	return func(c *chunk, events []schemas.Event) {
		present := 0 // since the last null
		for i := range events {
			if s := *at[string](&events[i], o); s != "" {
				c.text(s)
				present++
				continue
			}
			c.defs.add(1, present)
			c.defs.add(0, 1)
			present = 0
		}
		c.defs.add(1, present)
	}
}

// opt is an optional column of something else.
func opt[T any](get func(*schemas.Event) *T, add adder[T]) filler {
	o := offset(get)
	return func(c *chunk, events []schemas.Event) {
		for i := range events {
			if add(c, at[T](&events[i], o)) {
				c.defs.add(1, 1)
			} else {
				c.defs.add(0, 1)
			}
		}
	}
}

// member is a column of an optional group: level 0 where the event has no group,
// 1 where the group has no such member, 2 a value.
func member[T any](has func(*schemas.Event) *bool, get func(*schemas.Event) *T, add adder[T]) filler {
	h, o := offset(has), offset(get)
	return func(c *chunk, events []schemas.Event) {
		for i := range events {
			e := &events[i]
			switch {
			case !*at[bool](e, h):
				c.defs.add(0, 1)
			case add(c, at[T](e, o)):
				c.defs.add(2, 1)
			default:
				c.defs.add(1, 1)
			}
		}
	}
}

// list is an optional list of text: level 0 is no list, 2 an element. Level 1,
// the empty list, is not used: a decoded event does not tell it from none.
func list(get func(*schemas.Event) *[]string) filler {
	o := offset(get)
	return func(c *chunk, events []schemas.Event) {
		for i := range events {
			elements(c, *at[[]string](&events[i], o), 0)
		}
	}
}

// memberList is a list in an optional group: level 0 where there is no group, 1
// no list, 3 an element.
func memberList(has func(*schemas.Event) *bool, get func(*schemas.Event) *[]string) filler {
	h, o := offset(has), offset(get)
	return func(c *chunk, events []schemas.Event) {
		for i := range events {
			e := &events[i]
			if *at[bool](e, h) {
				elements(c, *at[[]string](e, o), 1)
			} else {
				elements(c, nil, 0)
			}
		}
	}
}

// elements adds one event's list, whose absence is level none.
func elements(c *chunk, items []string, none byte) {
	if len(items) == 0 {
		c.reps.add(0, 1)
		c.defs.add(none, 1)
		return
	}
	for j, s := range items {
		c.reps.add(byte(min(j, 1)), 1)
		c.defs.add(none+2, 1)
		c.text(s)
	}
}

// match is a column of the matches: level 0 is no list, 2 an element without
// such a member, 3 a value.
func match[T any](get func(*schemas.Match) *T, add adder[T]) filler {
	return func(c *chunk, events []schemas.Event) {
		for i := range events {
			items := events[i].Matches
			if len(items) == 0 {
				c.reps.add(0, 1)
				c.defs.add(0, 1)
			}
			for j := range items {
				c.reps.add(byte(min(j, 1)), 1)
				if add(c, get(&items[j])) {
					c.defs.add(3, 1)
				} else {
					c.defs.add(2, 1)
				}
			}
		}
	}
}

// How the optional types are added. Decode leaves no number in an integer of 32
// bits that does not fit: it goes to extra.

func str(c *chunk, s *string) bool {
	if *s != "" {
		c.text(*s)
	}
	return *s != ""
}

func integer32(c *chunk, n *schemas.Int) bool {
	if n.OK {
		c.int32(int32(n.V))
	}
	return n.OK
}

func integer64(c *chunk, n *schemas.Int) bool {
	if n.OK {
		c.int64(n.V)
	}
	return n.OK
}

func float(c *chunk, n *schemas.Float) bool {
	if n.OK {
		c.double(n.V)
	}
	return n.OK
}

func boolean(c *chunk, b *schemas.Bool) bool {
	if b.OK {
		c.boolean(b.V)
	}
	return b.OK
}

func integer8(c *chunk, v int8) { c.int32(int32(v)) }
