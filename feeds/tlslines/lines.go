package tlslines

import (
	"bytes"
	"fmt"
	"strconv"

	"datasync/feeds"
)

// framing is how a connection's records are told apart, found out from its
// first bytes.
type framing int

const (
	unknown framing = iota
	newlines
	octets // RFC 5425: a length, a space, and so many bytes
)

// cutter cuts the bytes of one connection into records. It holds offsets into
// the bytes, which stay where they are until the records are submitted.
type cutter struct {
	limit   int // of a record
	framing framing
	found   []piece
	line    uint64 // how many records were found so far
	skip    int    // bytes of a frame still to leave out
	skipNL  bool   // leave out all up to the next newline
	long    uint64
	names   []byte
	ends    []int
	records []feeds.Record
}

// piece is one record: data[from:to].
type piece struct {
	from, to int
	n        uint64 // of the record on its connection, from 1
	bad      string
}

// maxLength is how many digits a frame's length may have.
const maxLength = 10

// cut finds the whole records in data[at:], and gives where the rest begins.
// With last set the rest is a record too.
func (c *cutter) cut(data []byte, at int, last bool) int {
	for at < len(data) {
		next := c.one(data, at, last)
		if next == at {
			break
		}
		at = next
	}
	return at
}

// one takes one record, or part of what is left out; at where more bytes are needed.
func (c *cutter) one(data []byte, at int, last bool) int {
	rest := data[at:]
	switch {
	case c.skip > 0:
		n := min(c.skip, len(rest))
		c.skip -= n
		return at + n
	case c.skipNL:
		n := bytes.IndexByte(rest, '\n')
		if n < 0 {
			return len(data)
		}
		c.skipNL = false
		return at + n + 1
	case c.framing != newlines:
		// Between frames there may be newlines, and before the first line blank ones.
		if rest[0] == '\n' || rest[0] == '\r' {
			return at + 1
		}
		head, size, verdict := frame(rest)
		if verdict == needMore && !last {
			return at
		}
		if verdict == isFrame {
			c.framing = octets
			return c.frame(data, at, span{head, size}, last)
		}
		if c.framing == unknown {
			c.framing = newlines
		} // a broken frame: what comes up to the next newline is one record, and is judged as such
	}
	return c.lineAt(data, at, last)
}

// span is a frame: its head's length and its message's.
type span struct{ head, size int }

type verdict int

const (
	notFrame verdict = iota
	needMore
	isFrame
)

// frame reads the head of a frame: digits, a space, and the first byte of a
// syslog message or of JSON. A line of JSON begins with no digit, and one of
// tab-separated values has no such space.
func frame(b []byte) (head, size int, v verdict) {
	n := 0
	for n < len(b) && n < maxLength && '0' <= b[n] && b[n] <= '9' {
		size = size*10 + int(b[n]-'0')
		n++
	}
	switch {
	case n == 0 || b[0] == '0':
		return 0, 0, notFrame
	case n == len(b):
		return 0, 0, needMore
	case b[n] != ' ':
		return 0, 0, notFrame
	case n+1 == len(b):
		return 0, 0, needMore
	case b[n+1] != '<' && b[n+1] != '{' && b[n+1] != '[':
		return 0, 0, notFrame
	}
	return n + 1, size, isFrame
}

// frame takes a frame's message.
func (c *cutter) frame(data []byte, at int, s span, last bool) int {
	from := at + s.head
	have := min(len(data)-from, s.size)
	switch {
	case s.size > c.limit && have >= c.limit:
		c.tooLong(from)
		c.skip = s.size - c.limit
		return from + c.limit
	case have < s.size && !last:
		return at
	}
	bad := ""
	if have < s.size {
		bad = fmt.Sprintf("the connection ended in the middle of a frame: %d of %d bytes came", have, s.size)
	}
	c.add(data, from, from+have, bad)
	return from + have
}

// lineAt takes a line.
func (c *cutter) lineAt(data []byte, at int, last bool) int {
	n := bytes.IndexByte(data[at:], '\n')
	switch {
	case n >= 0 && n <= c.limit+1: // a CR may stand before the newline
		c.add(data, at, at+n, "")
		return at + n + 1
	case n >= 0:
		c.tooLong(at)
		return at + n + 1
	case len(data)-at > c.limit+1:
		c.tooLong(at)
		c.skipNL = true
		return len(data)
	case last:
		c.add(data, at, len(data), "")
		return len(data)
	}
	return at
}

func (c *cutter) tooLong(from int) {
	c.long++
	c.line++
	c.found = append(c.found, piece{from, from + c.limit, c.line, fmt.Sprintf("line is longer than %d KiB; this is its beginning", c.limit>>10)})
}

// add adds a record without what frames it. Blank ones are left out.
func (c *cutter) add(data []byte, from, to int, bad string) {
	c.line++
	value := bytes.TrimRight(data[from:to], "\r\n\x00")
	skip := header(value)
	if len(bytes.TrimSpace(value[skip:])) == 0 {
		return
	}
	c.found = append(c.found, piece{from + skip, from + len(value), c.line, bad})
}

// take makes records of what was found since the last time. They last until
// the next take, and as long as data does. Their names share one text, so that
// a record costs no allocation.
func (c *cutter) take(data []byte, peer string) []feeds.Record {
	c.names, c.ends = c.names[:0], c.ends[:0]
	for i := range c.found {
		c.names = append(append(c.names, peer...), " line "...)
		c.names = strconv.AppendUint(c.names, c.found[i].n, 10)
		c.ends = append(c.ends, len(c.names))
	}
	names, at := string(c.names), 0
	c.records = c.records[:0]
	for i, p := range c.found {
		c.records = append(c.records, feeds.Record{Value: data[p.from:p.to], Held: true, Bad: p.bad, Position: names[at:c.ends[i]]})
		at = c.ends[i]
	}
	return c.records
}

// done forgets what was found and submitted.
func (c *cutter) done() { c.found = c.found[:0] }
