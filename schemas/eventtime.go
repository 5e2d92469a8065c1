package schemas

import (
	"bytes"
	"math"
)

var timeKey = []byte(`"event_time":`)

// EventTime is the event_time of a line that Scan has accepted, ms UTC, without
// another scan where its key stands before anything nested, as it mostly does.
// h is used where a scan it must be; 0 where the line is no event.
func EventTime(line []byte, h *Head) int64 {
	// In a line that is JSON a quote behind a comma or a brace begins a key: in
	// a string it would be escaped, and one that ends a string is followed by
	// neither. Before the first nested value a key is the event's own.
	if i := bytes.Index(line, timeKey); i > 0 && (line[i-1] == ',' || line[i-1] == '{') &&
		bytes.IndexByte(line[1:i], '{') < 0 && bytes.IndexByte(line[:i], '[') < 0 {
		from := i + len(timeKey)
		to := from
		for to < len(line) && line[to]-'0' <= 9 {
			to++
		}
		if ms, ok := parseInt(line[from:to]); ok && to < len(line) && (line[to] == ',' || line[to] == '}') {
			return ms
		}
	}
	if Scan(line, math.MaxInt64/2, h) != nil {
		return 0
	}
	return h.Time
}
