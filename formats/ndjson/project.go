package ndjson

import (
	"bytes"
	"errors"

	"datasync/formats/member"
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
	if fields == nil {
		return append(dst, line...)
	}
	out, ok := project(dst, line, fields)
	if !ok {
		return append(dst, line...)
	}
	return out
}

// project is Project; false where line is no object.
func project(dst, line []byte, fields Set) ([]byte, bool) {
	start := len(dst)
	dst = append(dst, '{')
	w := member.Of(line)
	for w.Next() {
		if _, keep := fields[string(w.Name)]; !keep {
			continue
		}
		if len(dst) > start+1 {
			dst = append(dst, ',')
		}
		dst = append(dst, w.Text...)
	}
	if w.Bad {
		return dst[:start], false
	}
	dst = append(dst, '}')
	if line[len(line)-1] == '\n' {
		dst = append(dst, '\n')
	}
	return dst, true
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
