package kinesis

import (
	"encoding/base64"
	"encoding/json"
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

// bodies recycles the buffers of calls.
var bodies = sync.Pool{New: func() any { return new(buffers) }}

type buffers struct{ body, packed []byte }

// call sends a batch.
func (s *Sink) call(b *batch) ([]result, error) {
	buf := bodies.Get().(*buffers)
	defer bodies.Put(buf)
	buf.body, buf.packed = b.appendBody(buf.body[:0], s.o.Stream, buf.packed)
	return s.service.put(s.ctx, buf.body, b.units())
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
func (b *batch) appendBody(dst []byte, stream string, packed []byte) ([]byte, []byte) {
	dst = slices.Grow(dst, b.bodySize(stream)) // at once: growing by and by copies it all over again
	dst = append(dst, `{"Records":[`...)
	for i := range b.units() {
		if i > 0 {
			dst = append(dst, ',')
		}
		u := b.unit(i)
		data := u[0].line
		if len(u) > 1 {
			packed = appendAggregate(packed[:0], u)
			data = packed
		}
		dst = append(dst, `{"Data":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, data)
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
	return append(dst, '}'), packed
}

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
