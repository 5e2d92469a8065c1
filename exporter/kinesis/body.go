package kinesis

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"slices"
	"sync"
)

// What one PutRecords call and one record may be. Sources: the service's API
// reference for PutRecords, the developer guide's "Quotas and limits", and the
// guide's "KPL aggregated record format".
const (
	// maxRecords is the service's limit of records a call.
	maxRecords = 500
	// maxCall is how many bytes of data and keys go into a call. The service
	// takes 10 MiB since October 2025; 5 MiB, its limit before, is what every
	// region and every server that speaks the protocol takes, and no slower.
	maxCall = 5 << 20
	// maxRecord is a record's data and key together: the limit of a stream
	// that was not set to take larger ones (UpdateMaxRecordSize: up to 10 MiB).
	maxRecord = 1 << 20
	// maxKey is how long a partition key may be: 256 characters for the service,
	// 256 bytes for us, which is never more.
	maxKey = 256
	// maxAggregate is where an aggregated record ends: two of the 25 KB units
	// that the service charges a put by; the KPL's default too.
	maxAggregate = 51200
	// maxCalls is how many calls one sink has under way at once.
	maxCalls = 4
)

// memory is bytes that are used again, in sizes of 1 KiB, 2 KiB … 8 MiB, a pool
// of each: one of all sizes would have small calls hold large buffers, and
// large ones grow small ones.
var memory [14]sync.Pool

const leastMemory = 1 << 10

// memoryClass is the size that holds n bytes; len(memory) where none does.
func memoryClass(n int) int {
	return min(bits.Len(uint(max(n-1, 0)/leastMemory)), len(memory))
}

// newBytes is no bytes, with room for n.
func newBytes(n int) *[]byte {
	c := memoryClass(n)
	if c < len(memory) {
		if b, ok := memory[c].Get().(*[]byte); ok {
			return b
		}
		n = leastMemory << c
	}
	b := make([]byte, 0, n)
	return &b
}

// freeBytes has b used again: nobody may hold any of it any more.
func freeBytes(b *[]byte) {
	if c := memoryClass(cap(*b)); c < len(memory) && cap(*b) == leastMemory<<c {
		*b = (*b)[:0]
		memory[c].Put(b)
	}
}

// call sends a batch.
func (s *Sink) call(b *batch) ([]result, error) {
	body := newBytes(b.bodySize(s.o.Stream))
	defer freeBytes(body)
	*body = b.appendBody(*body, s.o.Stream)
	return s.service.put(s.ctx, *body, b.units())
}

// batch is one call: units of one or more records each, every unit a record of
// the stream.
type batch struct {
	recs []*record
	// ends are the ends of the units in recs; nil: each record is a unit.
	ends   []int
	refuse bool // not to be sent: put into the quarantine
}

// units is how many records of the stream the batch makes.
func (b *batch) units() int {
	if b.ends == nil {
		return len(b.recs)
	}
	return len(b.ends)
}

// unit is the i-th unit's records.
func (b *batch) unit(i int) []*record {
	if b.ends == nil {
		return b.recs[i : i+1]
	}
	if i == 0 {
		return b.recs[:b.ends[0]]
	}
	return b.recs[b.ends[i-1]:b.ends[i]]
}

// appendBody builds the body of a PutRecords request as the SDK's serializer
// does, without its detour through values: it costs a third.
func (b *batch) appendBody(dst []byte, stream string) []byte {
	packed := newBytes(maxAggregate)
	defer freeBytes(packed)
	dst = append(dst, `{"Records":[`...)
	for i := range b.units() {
		if i > 0 {
			dst = append(dst, ',')
		}
		u := b.unit(i)
		data := u[0].line
		if len(u) > 1 {
			*packed = appendAggregate((*packed)[:0], u)
			data = *packed
		}
		dst = append(dst, `{"Data":"`...)
		dst = appendBase64(dst, data)
		if b.ends != nil {
			dst = append(dst, `","ExplicitHashKey":"`...)
			dst = append(dst, cellStarts[u[0].slot]...)
		}
		dst = append(dst, `","PartitionKey":`...)
		dst = appendString(dst, u[0].key)
		dst = append(dst, '}')
	}
	dst = append(dst, `],"StreamName":`...)
	dst = appendString(dst, []byte(stream))
	return append(dst, '}')
}

// appendBase64 appends data in base64 (RFC 4648 section 4), 6 bytes at a time
// from a table of all pairs of letters: the library's way, byte by byte, was a
// tenth of all that an event costs on its way to Kinesis.
func appendBase64(dst, data []byte) []byte {
	n := len(dst)
	dst = slices.Grow(dst, base64.StdEncoding.EncodedLen(len(data)))
	for out := dst[n:cap(dst)]; len(data) >= 8 && len(out) >= 8; n += 8 {
		w := binary.BigEndian.Uint64(data)
		binary.LittleEndian.PutUint64(out, uint64(pairs[w>>52])|uint64(pairs[w>>40%4096])<<16|
			uint64(pairs[w>>28%4096])<<32|uint64(pairs[w>>16%4096])<<48)
		data, out = data[6:], out[8:]
	}
	return base64.StdEncoding.AppendEncode(dst[:n], data)
}

// pairs are the two letters that stand for 12 bits, the first in the low byte.
var pairs = func() (t [4096]uint16) {
	for i := range t {
		b := base64.StdEncoding.AppendEncode(nil, []byte{byte(i >> 4), byte(i << 4), 0})
		t[i] = binary.LittleEndian.Uint16(b)
	}
	return t
}()

// bodySize is about how long the body becomes.
func (b *batch) bodySize(stream string) int {
	n := len(`{"Records":[],"StreamName":}`) + len(stream)
	for _, r := range b.recs {
		n += base64.StdEncoding.EncodedLen(r.size() + overhead)
	}
	return n + b.units()*len(`{"Data":"","ExplicitHashKey":"340282366920938463463374607431768211455","PartitionKey":""},`)
}

// appendString appends s as a JSON string.
func appendString(dst, s []byte) []byte {
	for _, c := range s {
		if c < ' ' || c == '"' || c == '\\' {
			quoted, err := json.Marshal(string(s))
			if err != nil { // a string always marshals
				panic(err)
			}
			return append(dst, quoted...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// readResults reads the answer to a call of n records as the service writes
// it: no other members than these, strings of plain ASCII. It reads nothing
// that is no JSON; for what else it refuses (not ok) there is the SDK.
func readResults(answer []byte, n int) (rs []result, ok bool) {
	c := cursor(answer)
	rs = make([]result, 0, n)
	shards := map[string]string{} // each name once
	listed := false
	ok = c.object(func(name []byte) bool {
		switch string(name) {
		case "FailedRecordCount":
			return c.number()
		case "EncryptionType":
			_, ok := c.text()
			return ok
		case "Records":
			again := listed
			listed = true
			return !again && c.list(func() bool {
				r, ok := c.result(shards)
				rs = append(rs, r)
				return ok
			})
		}
		return false
	})
	if !ok || !listed || !c.end() {
		return nil, false
	}
	return rs, true
}

// cursor is what is left to read of a JSON text. Its methods read a part, with
// the white space before it; false: it is not there, or not in plain ASCII.
type cursor []byte

// result reads what became of one record.
func (c *cursor) result(shards map[string]string) (r result, ok bool) {
	numbered, failed := false, false
	ok = c.object(func(name []byte) bool {
		v, ok := c.text()
		switch string(name) {
		case "SequenceNumber":
			numbered = true
		case "ShardId":
			if _, known := shards[string(v)]; !known {
				shards[string(v)] = string(v)
			}
			r.shard = shards[string(v)]
		case "ErrorCode":
			failed, r.code = true, string(v)
		case "ErrorMessage":
			r.message = string(v)
		default:
			return false
		}
		return ok
	})
	r.stored = numbered && !failed
	return r, ok
}

// object has value read the value of each member of an object.
func (c *cursor) object(value func(name []byte) bool) bool {
	return c.each('{', '}', func() bool {
		name, ok := c.text()
		return ok && c.is(':') && value(name)
	})
}

// list has element read each element of a list.
func (c *cursor) list(element func() bool) bool { return c.each('[', ']', element) }

func (c *cursor) each(open, end byte, one func() bool) bool {
	if !c.is(open) {
		return false
	}
	if c.is(end) {
		return true
	}
	for one() {
		if !c.is(',') {
			return c.is(end)
		}
	}
	return false
}

// text reads a string that has nothing escaped.
func (c *cursor) text() ([]byte, bool) {
	if !c.is('"') {
		return nil, false
	}
	for i, b := range *c {
		switch {
		case b == '"':
			s := (*c)[:i]
			*c = (*c)[i+1:]
			return s, true
		case b < ' ' || b > '~' || b == '\\':
			return nil, false
		}
	}
	return nil, false
}

// number reads digits.
func (c *cursor) number() bool {
	c.space()
	n := 0
	for n < len(*c) && (*c)[n] >= '0' && (*c)[n] <= '9' {
		n++
	}
	ok := n == 1 || n > 1 && n < 10 && (*c)[0] != '0'
	*c = (*c)[n:]
	return ok
}

// is reads one character, if that is next.
func (c *cursor) is(b byte) bool {
	c.space()
	if len(*c) == 0 || (*c)[0] != b {
		return false
	}
	*c = (*c)[1:]
	return true
}

func (c *cursor) end() bool {
	c.space()
	return len(*c) == 0
}

func (c *cursor) space() {
	for len(*c) > 0 && ((*c)[0] == ' ' || (*c)[0] == '\n' || (*c)[0] == '\r' || (*c)[0] == '\t') {
		*c = (*c)[1:]
	}
}
