package kinesis

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"time"
	"unicode/utf8"

	"datasync/exporter/lane"
)

// segment is what one Offer handed over.
type segment struct {
	lane.Segment
	data *[]byte   // out of memory's pools, back there once all is confirmed
	due  time.Time // when it goes, be the call full or not
	left int       // records that are neither stored nor refused
}

// record is one event on its way. Guarded by the sink's mutex once offered.
type record struct {
	seg  *segment
	line []byte // in seg.data, without its newline
	key  []byte // its partition key
	no   uint64 // rises in the order offered
	// slot is what stands for the key: with ordered a hash, of which one is
	// under way at a time; with aggregate the cell of the hash space.
	slot uint64
	wait *pause // it failed, and waits for this; nil: it does not wait
	// bad is why it will never be taken; suspect is why it may be so.
	bad, suspect string
	// doubt is how many calls must have succeeded since it was first refused,
	// with others, to call it bad when it is refused alone; 0: no doubt.
	doubt uint64
	lone  int  // how often it was refused alone
	alone bool // not to be aggregated: the service refused what it was in
	taken bool // by a batch
}

func (r *record) size() int { return len(r.line) + len(r.key) }

var seed = maphash.MakeSeed()

// split makes the records of a segment.
func (s *Sink) split(seg *segment) []record {
	rs := make([]record, 0, bytes.Count(*seg.data, []byte{'\n'}))
	for rest := *seg.data; len(rest) > 0; {
		n := bytes.IndexByte(rest, '\n')
		r := record{seg: seg, line: rest[:n]}
		rest = rest[n+1:]
		r.key = s.partitionKey(r.line)
		switch {
		case r.size() > maxRecord:
			r.bad = fmt.Sprintf("%d bytes with its partition key: more than the %d that a Kinesis record may have", r.size(), maxRecord)
		case s.o.Ordered:
			r.slot = maphash.Bytes(seed, r.key)
		case s.o.Aggregate:
			r.slot = uint64(cellOf(r.key))
		}
		rs = append(rs, r)
	}
	seg.left = len(rs)
	return rs
}

// partitionKey is the value of the sink's field. An event that has none takes
// its event_id, one without that (a projection left it out) a hash of itself:
// never one key for all of them, which would fill one shard.
func (s *Sink) partitionKey(line []byte) []byte {
	key := scalar(line, s.field)
	if len(key) == 0 && s.o.PartitionKey != defaultKey {
		key = scalar(line, s.fallback)
	}
	if len(key) == 0 {
		sum := md5.Sum(line)
		return hex.AppendEncode(nil, sum[:8])
	}
	if len(key) <= maxKey {
		return key
	}
	n := maxKey
	for n > 0 && !utf8.RuneStart(key[n]) {
		n--
	}
	return key[:n]
}

const defaultKey = "event_id"

// member is what stands before a field's value in compact JSON.
func member(field string) []byte { return []byte(`"` + field + `":`) }

// scalar is the value of a top-level member of a compact JSON object: a
// string's contents unescaped, a number or bool as it stands; nil where there
// is none, or null, an object or a list. name is the quoted name with its
// colon. It aliases line unless it had escapes.
func scalar(line, name []byte) []byte {
	at := find(line, name)
	if at < 0 {
		return nil
	}
	v := line[at:]
	switch {
	case len(v) == 0 || v[0] == '{' || v[0] == '[' || v[0] == 'n':
		return nil
	case v[0] != '"':
		return v[:bytes.IndexAny(v, ",}")]
	}
	n := stringEnd(v)
	if n < 0 {
		return nil
	}
	if bytes.IndexByte(v[:n], '\\') < 0 {
		return v[1 : n-1]
	}
	var s string
	if json.Unmarshal(v[:n], &s) != nil {
		return nil
	}
	return []byte(s)
}

// find is where the value of a top-level member begins, -1 where there is
// none. The first place that looks like the member is it unless an object or a
// list began before: only then the members are walked one by one.
func find(line, name []byte) int {
	at := index(line, name)
	if at < 0 {
		return -1
	}
	if at == 1 || bytes.IndexByte(line[1:at], '{') < 0 && bytes.IndexByte(line[1:at], '[') < 0 {
		return at + len(name)
	}
	for i := 1; i < len(line) && line[i] == '"'; {
		if bytes.HasPrefix(line[i:], name) {
			return i + len(name)
		}
		n := stringEnd(line[i:])
		if n < 0 {
			return -1
		}
		i = valueEnd(line, i+n+1) + 1
	}
	return -1
}

// index is where name stands first, -1 where it does not. It begins with a
// quote, as every other string does, so that bytes.Index finds its last
// letters three times as fast.
func index(line, name []byte) int {
	tail := name[len(name)-3:]
	for at := 0; ; {
		n := bytes.Index(line[at:], tail)
		if n < 0 {
			return -1
		}
		if at += n + len(tail); bytes.HasSuffix(line[:at], name) {
			return at - len(name)
		}
	}
}

// stringEnd is behind the closing quote of the string that v begins with.
func stringEnd(v []byte) int {
	for i := 1; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return -1
}

// valueEnd is behind the value that begins at i: at a comma or a closing brace.
func valueEnd(line []byte, i int) int {
	for depth := 0; i < len(line); i++ {
		switch line[i] {
		case '"':
			n := stringEnd(line[i:])
			if n < 0 {
				return len(line)
			}
			i += n - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth < 0 {
				return i
			}
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return i
}
