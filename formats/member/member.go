// Package member walks the top-level members of a JSON object without decoding
// them.
package member

import "bytes"

// Walker goes over the members of one object in order. The object is taken to
// be valid JSON; what is not ends the walk with Bad, never with a panic.
//
//	for w := member.Of(line); w.Next(); { … w.Name, w.Value … }
type Walker struct {
	// Name is the member's name as it is spelled, without its quotes: escapes
	// stay. Value is its value as it is spelled. Both alias the line.
	Name, Value []byte
	// Text is both, with all between: `"name": value`.
	Text []byte
	// Bad says, after the walk, that the line is no object.
	Bad bool

	line []byte
	i    int // where the next member is looked for
}

// Of is a walker before the first member of line.
func Of(line []byte) Walker {
	w := Walker{line: line}
	if w.i = space(line, 0); w.i >= len(line) || line[w.i] != '{' {
		w.Bad = true
	}
	return w
}

// Next moves on to the next member; false behind the last.
func (w *Walker) Next() bool {
	if w.Bad {
		return false
	}
	b := w.line
	if b[w.i] == '}' {
		return false
	}
	first := b[w.i] == '{'
	start := space(b, w.i+1)
	if first && start < len(b) && b[start] == '}' {
		w.i = start
		return false
	}
	end := stringEnd(b, start)
	if end < 0 {
		return w.fail()
	}
	colon := space(b, end)
	if colon >= len(b) || b[colon] != ':' {
		return w.fail()
	}
	from := space(b, colon+1)
	to := valueEnd(b, from)
	if to < 0 {
		return w.fail()
	}
	if w.i = space(b, to); w.i >= len(b) || b[w.i] != ',' && b[w.i] != '}' {
		return w.fail()
	}
	w.Name, w.Value, w.Text = b[start+1:end-1], b[from:to], b[start:to]
	return true
}

func (w *Walker) fail() bool {
	w.Bad = true
	return false
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
	if i == start {
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
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return -1
}
