package syslog

import (
	"strconv"

	"datasync/formats/member"
)

// Meta is what the header needs to know of an event. Kind and Action alias the
// line.
type Meta struct {
	Time     int64 // event_time, ms UTC; 0: not known
	Severity int8  // OCSF's 0 to 5
	Kind     []byte
	Action   []byte
}

// MetaOf finds them in a canonical event. What it does not find stays zero.
func MetaOf(line []byte) (m Meta) {
	left := 4
	for w := member.Of(line); left > 0 && w.Next(); {
		switch string(w.Name) {
		case "event_time":
			m.Time = integer(w.Value)
		case "severity":
			m.Severity = int8(integer(w.Value))
		case "kind":
			m.Kind = unquote(w.Value)
		case "action":
			m.Action = unquote(w.Value)
		default:
			continue
		}
		left--
	}
	return m
}

// integer is a number's value; 0 for what is none.
func integer(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// unquote is a string's text, escapes left in: enums have none.
func unquote(b []byte) []byte {
	if len(b) < 2 || b[0] != '"' {
		return nil
	}
	return b[1 : len(b)-1]
}
