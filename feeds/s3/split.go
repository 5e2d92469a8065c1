package s3feed

import (
	"bytes"
	"cmp"
	"fmt"

	"datasync/schemas"
)

// How an object's records are told apart.
const (
	asLines  = "lines"  // a record a line
	asValues = "values" // JSON values one after another, over as many lines as they like
	asArray  = "array"  // the elements of one JSON array
)

// splitter cuts an object's bytes into records. It holds offsets into the
// bytes, which stay where they are until the records are submitted.
type splitter struct {
	limit int    // of a record
	mode  string // "": not known yet
	found []piece

	state
	seen int // how many bytes of a value that is not whole yet were looked at
}

// state is where in a record the splitter is.
type state struct {
	In      bool `json:"in,omitempty"`      // within a value
	Text    bool `json:"text,omitempty"`    // within a string of it
	Escaped bool `json:"escaped,omitempty"` // behind a backslash of it
	Depth   int  `json:"depth,omitempty"`   // of its brackets; between values of an array it is below 0
	Skip    bool `json:"skip,omitempty"`    // what is left of the line or value is left out: it is too long
}

// piece is one record: data[from:to], and where the next one may begin.
type piece struct {
	from, to, next int
	bad            string
	mode           string // in which it was cut: behind an array's end it is another
}

var bom = []byte{0xef, 0xbb, 0xbf}

// cut finds the whole records in data[at:], and gives where the rest begins.
// With last set nothing comes behind data.
func (s *splitter) cut(data []byte, at int, last bool) int {
	if s.mode == "" { // the object's beginning
		if !s.detect(data[at:], last) {
			return at
		}
		if bytes.HasPrefix(data[at:], bom) {
			at += len(bom)
		}
	}
	for at < len(data) {
		next := at
		if s.mode == asLines {
			next = s.line(data, at, last)
		} else {
			next = s.value(data, at, last)
		}
		if next == at {
			break
		}
		at = next
	}
	return at
}

// detect finds the mode from an object's beginning; false where more of it is
// needed.
func (s *splitter) detect(b []byte, last bool) bool {
	if len(b) < len(bom) && bytes.HasPrefix(bom, b) && !last {
		return false
	}
	b = bytes.TrimLeft(bytes.TrimPrefix(b, bom), " \t\r\n")
	if len(b) == 0 {
		return false
	}
	if b[0] == '[' {
		s.mode = asArray
	}
	if b[0] != '{' {
		s.mode = cmp.Or(s.mode, asLines)
		return true
	}
	// What is looked at does not depend on how much came at once.
	whole := last && len(b) <= s.limit
	b = b[:min(len(b), s.limit+1)]
	n := bytes.IndexByte(b, '\n')
	if n < 0 && !whole && len(b) <= s.limit {
		return false
	}
	first := b
	if n >= 0 {
		first = b[:n]
	}
	s.mode = asLines
	if !schemas.Valid(bytes.TrimSpace(first)) && (opens(first) || several(first)) {
		s.mode = asValues
	}
	return true
}

// several says whether a line holds one value behind another.
func several(line []byte) bool {
	var s splitter
	end := s.end(line, 0)
	return end > 0 && bytes.HasPrefix(bytes.TrimLeft(line[end:], " \t"), []byte("{"))
}

// opens says whether a line leaves brackets open, and no string: a value that
// goes on on the next line. A broken line mostly ends within a string, or closes all.
func opens(line []byte) bool {
	depth, text := 0, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
	}
	return depth > 0 && !text
}

// line takes a line, or what is left out of one.
func (s *splitter) line(data []byte, at int, last bool) int {
	n := bytes.IndexByte(data[at:], '\n')
	end, next := at+n, at+n+1
	if n < 0 {
		end, next = len(data), len(data)
	}
	switch {
	case s.Skip:
		s.Skip = n < 0
	case end-at > s.limit+1:
		s.long(at, next)
		s.Skip = n < 0
	case n < 0 && !last:
		return at
	default:
		s.add(data, piece{from: at, to: end, next: next})
	}
	return next
}

// value takes a JSON value, or what is left out of one, or what lies between two.
func (s *splitter) value(data []byte, at int, last bool) int {
	if !s.In {
		switch c := data[at]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n', c == ',' && s.mode == asArray:
			return at + 1
		case c == '[' && s.mode == asArray && s.Depth == 0: // the array itself
			s.Depth = -1
			return at + 1
		case c == ']' && s.mode == asArray:
			s.mode, s.Depth = asValues, 0
			return at + 1
		case c == ']' || c == '}' || c == ',':
			s.add(data, piece{from: at, to: at + 1, next: at + 1})
			return at + 1
		}
		s.In, s.Text, s.Escaped, s.Depth, s.seen = true, false, false, 0, 0
	}
	end := s.end(data, at)
	switch {
	case end >= 0:
		s.In = false
		if s.Skip {
			s.Skip = false
		} else if end-at > s.limit {
			s.long(at, end)
		} else {
			s.add(data, piece{from: at, to: end, next: end})
		}
		s.Depth = -1 // within the array, where there is one
		return end
	case s.Skip || len(data)-at > s.limit:
		if !s.Skip {
			s.long(at, len(data))
			s.Skip = true
		}
		s.seen = 0
		return len(data)
	case last && s.Depth == 0 && !s.Text:
		s.add(data, piece{from: at, to: len(data), next: len(data)})
		return len(data)
	case last:
		s.add(data, piece{from: at, to: len(data), next: len(data), bad: "the object ends in the middle of a value"})
		return len(data)
	}
	s.seen = len(data) - at
	return at
}

// end is where the value at data[at:] ends, below 0 where it is not whole yet.
func (s *splitter) end(data []byte, at int) int {
	for i := at + s.seen; i < len(data); i++ {
		c := data[i]
		switch {
		case s.Escaped:
			s.Escaped = false
		case s.Text && c == '\\':
			s.Escaped = true
		case c == '"':
			if s.Text = !s.Text; !s.Text && s.Depth == 0 {
				return i + 1
			}
		case s.Text:
		case c == '{' || c == '[':
			s.Depth++
		case s.Depth == 0 && (c == '}' || c == ']' || c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return i
		case c == '}' || c == ']':
			if s.Depth--; s.Depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

func (s *splitter) long(from, next int) {
	s.found = append(s.found, piece{from, from + s.limit, next, fmt.Sprintf("record is longer than %d KiB; this is its beginning", s.limit>>10), s.mode})
}

// add adds a record; blank ones are left out.
func (s *splitter) add(data []byte, p piece) {
	if len(bytes.TrimSpace(data[p.from:p.to])) > 0 {
		p.mode = s.mode
		s.found = append(s.found, p)
	}
}
