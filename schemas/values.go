package schemas

import (
	"bytes"
	"iter"
)

// Values splits a body that is one JSON value or NDJSON: a body whose first
// line is not a whole JSON value is taken as one value, else it is taken line
// by line, blank lines left out. Each value is yielded as it stands in body,
// not copied; an array yields its elements instead. All are strict JSON
// (Check), perhaps with newlines between their tokens. An error (a *Problem,
// with its offset in body) stands in the place of a broken line, which the
// next line follows, or of the rest of a broken array or a broken body.
func Values(body []byte) iter.Seq2[[]byte, error] { return ValuesBy(body, nil) }

// Take deals with the JSON value that begins at rest[0], if it likes to, and
// says how many bytes it has: strict JSON to the last. With whole, nothing but
// whitespace may stand behind it. 0 has the value checked and yielded.
type Take func(rest []byte, whole bool) int

// ValuesBy is Values for who checks most values himself, so that they are read
// once: for those that take has dealt with, nil and no error are yielded.
func ValuesBy(body []byte, take Take) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		first, _, more := bytes.Cut(bytes.TrimLeft(body, " \t\r\n"), []byte{'\n'})
		if !more || len(bytes.TrimSpace(first)) == 0 || !Valid(first) {
			yieldValue(body, 0, take, yield)
			return
		}
		for from := 0; from < len(body); {
			to := len(body)
			if n := bytes.IndexByte(body[from:], '\n'); n >= 0 {
				to = from + n
			}
			if !yieldValue(body[:to], from, take, yield) {
				return
			}
			from = to + 1
		}
	}
}

// yieldValue yields the value in body[from:], or an array's elements; false to stop.
func yieldValue(body []byte, from int, take Take, yield func([]byte, error) bool) bool {
	l := lexer{b: body, blind: true}
	i := l.space(from)
	if i >= len(body) {
		return true
	}
	if l.b[i] == '[' {
		return yieldElements(&l, i, take, yield)
	}
	if take != nil && take(body[i:], true) > 0 {
		return yield(nil, nil)
	}
	end := l.value(i, 1)
	if end >= 0 && l.end(end) >= 0 {
		return yield(body[i:end:end], nil)
	}
	return yield(nil, l.problem())
}

func yieldElements(l *lexer, i int, take Take, yield func([]byte, error) bool) bool {
	i = l.space(i + 1)
	if i < len(l.b) && l.b[i] == ']' {
		i++
	} else {
		for closed := false; !closed; {
			end, v := 0, []byte(nil)
			if take != nil && i < len(l.b) {
				end = i + take(l.b[i:], false)
			}
			if end <= i {
				if end = l.value(i, 1); end < 0 {
					return yield(nil, l.problem())
				}
				v = l.b[i:end:end]
			}
			if !yield(v, nil) {
				return false
			}
			if i = l.space(end); i < len(l.b) && l.b[i] == ']' {
				closed = true
				i++
			} else if i = l.comma(i, "',' or ']'"); i < 0 {
				return yield(nil, l.problem())
			}
		}
	}
	if l.end(i) < 0 {
		return yield(nil, l.problem())
	}
	return true
}
