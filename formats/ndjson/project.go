package ndjson

import (
	"bytes"
	"errors"
)

// Set is a set of field names; nil is every field.
type Set map[string]struct{}

// NewSet is the set of names; nil where there are none.
func NewSet(names []string) Set {
	if len(names) == 0 {
		return nil
	}
	s := make(Set, len(names))
	for _, n := range names {
		s[n] = struct{}{}
	}
	return s
}

// errObject says that a line is no JSON object.
var errObject = errors.New("ndjson: a line is not a JSON object")

// Project appends to dst the JSON object line with only the top-level members
// that are in fields: in the event's own order, their values as they are, with
// the newline if line has it. A name is compared as it is spelled; one written
// with escapes is none of ours. What is no object, which no stored event is, is
// appended as it is.
func Project(dst, line []byte, fields Set) []byte {
	out, ok := project(dst, line, fields)
	if !ok {
		return append(dst, line...)
	}
	return out
}

// project is Project; false where line is no object.
func project(dst, line []byte, fields Set) ([]byte, bool) {
	if fields == nil {
		return append(dst, line...), true
	}
	i := space(line, 0)
	if i >= len(line) || line[i] != '{' {
		return dst, false
	}
	dst = append(dst, '{')
	first := true
	for i = space(line, i+1); i < len(line) && line[i] != '}'; i = space(line, i) {
		if line[i] == ',' {
			i = space(line, i+1)
		}
		start := i
		end := stringEnd(line, i)
		if end < 0 {
			return dst, false
		}
		name := line[start+1 : end-1]
		i = space(line, end)
		if i >= len(line) || line[i] != ':' {
			return dst, false
		}
		i = valueEnd(line, space(line, i+1))
		if i < 0 {
			return dst, false
		}
		if _, keep := fields[string(name)]; keep {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(dst, line[start:i]...)
		}
	}
	if i >= len(line) {
		return dst, false
	}
	dst = append(dst, '}')
	if line[len(line)-1] == '\n' {
		dst = append(dst, '\n')
	}
	return dst, true
}

// space is the next index from i on that holds no white space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	return i
}

// stringEnd is the index behind the string that begins at i; -1 where none does.
func stringEnd(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
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

// valueEnd is the index behind the value that begins at i; -1 where the line
// ends first.
func valueEnd(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '{', '[':
		return nestedEnd(b, i)
	}
	start := i
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] > ' ' {
		i++
	}
	if i == start || i == len(b) {
		return -1
	}
	return i
}

// nestedEnd is the index behind the object or list that begins at i; -1 where
// the line ends first.
func nestedEnd(b []byte, i int) int {
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
			depth--
			if depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}

// project keeps the chosen members of every line, in the encoder's own memory.
func (e *Encoder) project(lines []byte) ([]byte, error) {
	e.buf = e.buf[:0]
	for len(lines) > 0 {
		n := bytes.IndexByte(lines, '\n') + 1
		var ok bool
		if e.buf, ok = project(e.buf, lines[:n], e.fields); !ok {
			return nil, errObject
		}
		lines = lines[n:]
	}
	return e.buf, nil
}
