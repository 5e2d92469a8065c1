package parquet

import (
	"math"
	"unsafe"

	pq "github.com/parquet-go/parquet-go"

	"datasync/schemas"
)

// column is one leaf of the file: its place and how its values are taken from
// events.
//
// Values are written a column and a batch of events at a time, with levels of
// our own. The library's way from Go structs cannot be used: in 0.32.0 a field
// tagged "optional" writes zeros for absent values (200 rows of which only the
// second has a value come back with 63), and pointers cost twice the time.
type column struct {
	top  string // the top-level field it belongs to
	fill filler
}

// filler appends the values of column col, one or more an event, with their
// levels.
type filler func(dst []pq.Value, events []schemas.Event, col int) []pq.Value

// text is a string's bytes as a value without a copy: the library copies what
// it keeps before a write returns.
func text(s string) pq.Value {
	return pq.ByteArrayValue(unsafe.Slice(unsafe.StringData(s), len(s)))
}

// integer32 is v as a value of 32 bits; false where it does not fit.
func integer32(v int64) (pq.Value, bool) {
	return pq.Int32Value(int32(v)), v >= math.MinInt32 && v <= math.MaxInt32
}

// required columns

func reqStr(get func(*schemas.Event) string) filler {
	return func(dst []pq.Value, events []schemas.Event, col int) []pq.Value {
		for i := range events {
			dst = append(dst, text(get(&events[i])).Level(0, 0, col))
		}
		return dst
	}
}

func req(get func(*schemas.Event) pq.Value) filler {
	return func(dst []pq.Value, events []schemas.Event, col int) []pq.Value {
		for i := range events {
			dst = append(dst, get(&events[i]).Level(0, 0, col))
		}
		return dst
	}
}

// optional columns: level 0 is null, 1 a value

func optStr(get func(*schemas.Event) string) filler {
	return func(dst []pq.Value, events []schemas.Event, col int) []pq.Value {
		null := pq.Value{}.Level(0, 0, col)
		for i := range events {
			if s := get(&events[i]); s != "" {
				dst = append(dst, text(s).Level(0, 1, col))
			} else {
				dst = append(dst, null)
			}
		}
		return dst
	}
}

func opt(get func(*schemas.Event) (pq.Value, bool)) filler {
	return func(dst []pq.Value, events []schemas.Event, col int) []pq.Value {
		null := pq.Value{}.Level(0, 0, col)
		for i := range events {
			if v, ok := get(&events[i]); ok {
				dst = append(dst, v.Level(0, 1, col))
			} else {
				dst = append(dst, null)
			}
		}
		return dst
	}
}

func optInt32(get func(*schemas.Event) schemas.Int) filler {
	return opt(func(e *schemas.Event) (pq.Value, bool) { return int32Of(get(e)) })
}

func optInt64(get func(*schemas.Event) schemas.Int) filler {
	return opt(func(e *schemas.Event) (pq.Value, bool) { return int64Of(get(e)) })
}

func optFloat(get func(*schemas.Event) schemas.Float) filler {
	return opt(func(e *schemas.Event) (pq.Value, bool) { return floatOf(get(e)) })
}

func int32Of(n schemas.Int) (pq.Value, bool) {
	v, ok := integer32(n.V)
	return v, ok && n.OK
}

func int64Of(n schemas.Int) (pq.Value, bool) { return pq.Int64Value(n.V), n.OK }

func floatOf(n schemas.Float) (pq.Value, bool) { return pq.DoubleValue(n.V), n.OK }

func boolOf(b schemas.Bool) (pq.Value, bool) { return pq.BooleanValue(b.V), b.OK }

func strOf(s string) (pq.Value, bool) { return text(s), s != "" }

// columns of an optional group: level 0 where the event has no group, 1 where
// the group has no such member, 2 a value

func member(has func(*schemas.Event) bool, get func(*schemas.Event) (pq.Value, bool)) filler {
	return func(dst []pq.Value, events []schemas.Event, col int) []pq.Value {
		absent := pq.Value{}.Level(0, 0, col)
		null := pq.Value{}.Level(0, 1, col)
		for i := range events {
			e := &events[i]
			if !has(e) {
				dst = append(dst, absent)
			} else if v, ok := get(e); ok {
				dst = append(dst, v.Level(0, 2, col))
			} else {
				dst = append(dst, null)
			}
		}
		return dst
	}
}

// lists: under an optional group of level base-1 (base 0: none), level base is
// a null list, base+2 an element. base+1, the empty list, is not used: a decoded
// event does not tell it from none.

func list(base int, has func(*schemas.Event) bool, get func(*schemas.Event) []string) filler {
	return func(dst []pq.Value, events []schemas.Event, col int) []pq.Value {
		for i := range events {
			e := &events[i]
			if has != nil && !has(e) {
				dst = append(dst, pq.Value{}.Level(0, 0, col))
				continue
			}
			items := get(e)
			if len(items) == 0 {
				dst = append(dst, pq.Value{}.Level(0, base, col))
			}
			for j, s := range items {
				dst = append(dst, text(s).Level(min(j, 1), base+2, col))
			}
		}
		return dst
	}
}

// matches' columns: level 0 is a null list, 2 an element without such a member,
// 3 a value

func match(get func(*schemas.Match) (pq.Value, bool)) filler {
	return func(dst []pq.Value, events []schemas.Event, col int) []pq.Value {
		for i := range events {
			items := events[i].Matches
			if len(items) == 0 {
				dst = append(dst, pq.Value{}.Level(0, 0, col))
			}
			for j := range items {
				if v, ok := get(&items[j]); ok {
					dst = append(dst, v.Level(min(j, 1), 3, col))
				} else {
					dst = append(dst, pq.Value{}.Level(min(j, 1), 2, col))
				}
			}
		}
		return dst
	}
}
