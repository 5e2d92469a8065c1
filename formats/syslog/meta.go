package syslog

import (
	"bytes"
	"strconv"
)

// Meta is what the header needs to know of an event. Kind and Action alias the
// line.
type Meta struct {
	Time     int64 // event_time, ms UTC; 0: not known
	Severity int8  // OCSF's 0 to 5
	Kind     []byte
	Action   []byte
}

// MetaOf finds them in a canonical event, which is valid JSON without white
// space between its tokens, as stored events are. What it does not find stays
// zero.
func MetaOf(line []byte) (m Meta) {
	if len(line) == 0 || line[0] != '{' {
		return m
	}
	for i, left := 1, 4; left > 0 && i < len(line) && line[i] == '"'; i++ {
		end := stringEnd(line, i)
		if end < 0 || end >= len(line) || line[end] != ':' {
			return m
		}
		name, start := line[i+1:end-1], end+1
		if i = valueEnd(line, start); i < 0 {
			return m
		}
		value := line[start:i]
		switch string(name) {
		case "event_time":
			m.Time = integer(value)
		case "severity":
			m.Severity = int8(integer(value))
		case "kind":
			m.Kind = unquote(value)
		case "action":
			m.Action = unquote(value)
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

// stringEnd is the index behind the string that begins at i; -1 without end.
func stringEnd(b []byte, i int) int {
	for i++; ; {
		q := bytes.IndexByte(b[i:], '"')
		if q < 0 {
			return -1
		}
		i += q
		slashes := 0
		for b[i-1-slashes] == '\\' {
			slashes++
		}
		i++
		if slashes%2 == 0 {
			return i
		}
	}
}

// valueEnd is the index of the ',' or '}' behind the value that begins at i; -1
// where there is none.
func valueEnd(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = stringEnd(b, i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return -1
}
