package filefeed

import (
	"bytes"
	"strconv"

	"datasync/feeds"
)

// lines are the records of one batch. They stay until the next batch, so that
// one that was refused for want of room can be submitted again.
type lines struct {
	ends    []line
	names   []byte // positions and ids, one after another
	limit   int
	records []feeds.Record
}

type line struct {
	value    []byte
	position int // end in names
	id       int // end in names
}

var bom = []byte{0xef, 0xbb, 0xbf}

// cut takes the whole lines out of data, which lies at off in the file m; where
// last is set, what follows the last newline is a line too. It gives the bytes
// consumed. Blank lines, a byte order mark and the CR of CRLF are left out.
func (l *lines) cut(data []byte, off int64, last bool, m *mark) int {
	l.reset()
	used := 0
	for used < len(data) {
		n := bytes.IndexByte(data[used:], '\n')
		next := used + n + 1
		if n < 0 {
			if !last {
				break
			}
			n, next = len(data)-used, len(data)
		}
		l.add(data[used:used+n], off+int64(used), m)
		used = next
	}
	l.finish()
	return used
}

func (l *lines) reset() { l.ends, l.names, l.records = l.ends[:0], l.names[:0], l.records[:0] }

// add adds one line that begins at off.
func (l *lines) add(value []byte, off int64, m *mark) {
	if off == 0 {
		value = bytes.TrimPrefix(value, bom)
	}
	if value = bytes.TrimSuffix(value, []byte{'\r'}); len(bytes.TrimSpace(value)) == 0 {
		return
	}
	if len(value) > l.limit {
		value = value[:l.limit]
	}
	l.names = append(append(l.names, m.Path...), ':')
	l.names = strconv.AppendInt(l.names, off, 10)
	position := len(l.names)
	l.names = append(append(l.names, m.ID...), ':')
	l.names = strconv.AppendInt(l.names, off, 10)
	l.ends = append(l.ends, line{value, position, len(l.names)})
}

// finish makes the records. Their names share one string: an allocation a batch
// and not two a line.
func (l *lines) finish() {
	names, at := string(l.names), 0
	for _, e := range l.ends {
		l.records = append(l.records, feeds.Record{Value: e.value, Held: true, Position: names[at:e.position], ID: names[e.position:e.id]})
		at = e.id
	}
}
