package parquet

import (
	"unsafe"

	pq "github.com/parquet-go/parquet-go"

	"datasync/schemas"
)

// column is one leaf of the file: its place and how its values are taken from
// events.
//
// Values are gathered and written a column and some events at a time, with
// levels of our own. The library's way from Go structs cannot be used: in 0.32.0 a field
// tagged "optional" writes zeros for absent values (200 rows of which only the
// second has a value come back with 63), and pointers cost twice the time.
type column struct {
	path string // names from the top, with dots between
	fill filler
}

// filler appends the values of one column, one or more an event, with their
// levels. The events' strings are not copied.
type filler func(dst []pq.Value, events []schemas.Event) []pq.Value

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

// text is a string's bytes as a value without a copy: the library copies what
// it keeps before a write returns.
func text(s string) pq.Value {
	return pq.ByteArrayValue(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// reqStr is a required column of text.
func reqStr(get func(*schemas.Event) *string) filler {
	o := offset(get)
	return func(dst []pq.Value, events []schemas.Event) []pq.Value {
		for i := range events {
			dst = append(dst, text(*at[string](&events[i], o)))
		}
		return dst
	}
}

// req is a required column of something else.
func req(get func(*schemas.Event) pq.Value) filler {
	return func(dst []pq.Value, events []schemas.Event) []pq.Value {
		for i := range events {
			dst = append(dst, get(&events[i]))
		}
		return dst
	}
}

// optStr is an optional column of text: level 0 is null, 1 a value.
func optStr(get func(*schemas.Event) *string) filler {
	o := offset(get)
	return func(dst []pq.Value, events []schemas.Event) []pq.Value {
		for i := range events {
			var v pq.Value
			if s := *at[string](&events[i], o); s != "" {
				v = text(s)
				v.SetDefinitionLevel(1)
			}
			dst = append(dst, v)
		}
		return dst
	}
}

// opt is an optional column of something else.
func opt[T any](get func(*schemas.Event) *T, value func(*T) (pq.Value, bool)) filler {
	o := offset(get)
	return func(dst []pq.Value, events []schemas.Event) []pq.Value {
		for i := range events {
			v, ok := value(at[T](&events[i], o))
			if ok {
				v.SetDefinitionLevel(1)
			} else {
				v = pq.Value{}
			}
			dst = append(dst, v)
		}
		return dst
	}
}

// member is a column of an optional group: level 0 where the event has no group,
// 1 where the group has no such member, 2 a value.
func member[T any](has func(*schemas.Event) *bool, get func(*schemas.Event) *T, value func(*T) (pq.Value, bool)) filler {
	h, o := offset(has), offset(get)
	return func(dst []pq.Value, events []schemas.Event) []pq.Value {
		for i := range events {
			e := &events[i]
			if !*at[bool](e, h) {
				dst = append(dst, pq.Value{})
				continue
			}
			v, ok := value(at[T](e, o))
			level := 2
			if !ok {
				v, level = pq.Value{}, 1
			}
			v.SetDefinitionLevel(level)
			dst = append(dst, v)
		}
		return dst
	}
}

// list is an optional list of text: level 0 is no list, 2 an element. Level 1,
// the empty list, is not used: a decoded event does not tell it from none.
func list(get func(*schemas.Event) *[]string) filler {
	o := offset(get)
	return func(dst []pq.Value, events []schemas.Event) []pq.Value {
		for i := range events {
			dst = elements(dst, *at[[]string](&events[i], o), 0)
		}
		return dst
	}
}

// memberList is a list in an optional group: level 0 where there is no group, 1
// no list, 3 an element.
func memberList(has func(*schemas.Event) *bool, get func(*schemas.Event) *[]string) filler {
	h, o := offset(has), offset(get)
	return func(dst []pq.Value, events []schemas.Event) []pq.Value {
		for i := range events {
			e := &events[i]
			if *at[bool](e, h) {
				dst = elements(dst, *at[[]string](e, o), 1)
			} else {
				dst = append(dst, pq.Value{})
			}
		}
		return dst
	}
}

// elements appends one event's list, whose absence is level none.
func elements(dst []pq.Value, items []string, none int) []pq.Value {
	if len(items) == 0 {
		var v pq.Value
		v.SetDefinitionLevel(none)
		return append(dst, v)
	}
	for j, s := range items {
		v := text(s)
		v.SetRepetitionLevel(min(j, 1))
		v.SetDefinitionLevel(none + 2)
		dst = append(dst, v)
	}
	return dst
}

// match is a column of the matches: level 0 is no list, 2 an element without
// such a member, 3 a value.
func match[T any](get func(*schemas.Match) *T, value func(*T) (pq.Value, bool)) filler {
	return func(dst []pq.Value, events []schemas.Event) []pq.Value {
		for i := range events {
			items := events[i].Matches
			if len(items) == 0 {
				dst = append(dst, pq.Value{})
			}
			for j := range items {
				v, ok := value(get(&items[j]))
				level := 3
				if !ok {
					v, level = pq.Value{}, 2
				}
				v.SetRepetitionLevel(min(j, 1))
				v.SetDefinitionLevel(level)
				dst = append(dst, v)
			}
		}
		return dst
	}
}

// What the optional types are as values. Decode leaves no number in an integer
// of 32 bits that does not fit: it goes to extra.

func str(s *string) (pq.Value, bool)            { return text(*s), *s != "" }
func integer32(n *schemas.Int) (pq.Value, bool) { return pq.Int32Value(int32(n.V)), n.OK }
func integer64(n *schemas.Int) (pq.Value, bool) { return pq.Int64Value(n.V), n.OK }
func float(n *schemas.Float) (pq.Value, bool)   { return pq.DoubleValue(n.V), n.OK }
func boolean(b *schemas.Bool) (pq.Value, bool)  { return pq.BooleanValue(b.V), b.OK }
