package kafkafeed

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/segmentio/kafka-go/compress"
)

// A record batch (message format 2), big endian:
//
//	 0 base offset      int64   not covered by the CRC
//	 8 length           int32   of what follows
//	12 leader epoch     int32
//	16 magic 2          int8
//	17 CRC32C           uint32  of all that follows
//	21 attributes       int16   0-2 codec · 3 log append time · 4 transactional · 5 control
//	23 last offset      int32   above the base
//	27 first timestamp  int64   ms
//	35 max timestamp    int64
//	43 producer         int64
//	51 producer epoch   int16
//	53 base sequence    int32
//	57 records          int32
//	61 records, compressed together
//
// A record: length · attributes int8 · timestamp above the first · offset above
// the base · key length · key · value length · value · headers; lengths and
// numbers are zigzag varints, a length of -1 is null.
const (
	batchLead = 12
	batchHead = 61
)

const (
	appendTime    = 1 << 3
	transactional = 1 << 4
	control       = 1 << 5
)

// maxInflated is how large the records of one batch may become.
const maxInflated = 256 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordBatch is one batch; its payload lies in what it was parsed from.
type recordBatch struct {
	base, last          int64
	attributes          int16
	firstTime, lastTime int64
	producer            int64
	count               int
	payload             []byte
}

// errFormat is a log in a format that Kafka wrote before 0.11.
var errFormat = errors.New("the log holds messages in the format of Kafka before 0.11, which is not read")

// cutBatch cuts the first batch off b without looking whether it is sound: ok
// is false where b ends within it, as the last one of a response may.
func cutBatch(b []byte) (batch, rest []byte, ok bool) {
	if len(b) < batchLead {
		return nil, nil, false
	}
	n := int64(int32(binary.BigEndian.Uint32(b[8:]))) + batchLead
	if n < batchHead || n > int64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// baseOf is a batch's base offset.
func baseOf(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

// lastOf is a batch's last offset.
func lastOf(b []byte) int64 { return baseOf(b) + int64(int32(binary.BigEndian.Uint32(b[23:]))) }

// parseBatch reads what cutBatch cut, which holds a whole head.
func parseBatch(b []byte) (recordBatch, error) {
	be := binary.BigEndian
	h := recordBatch{base: baseOf(b), last: lastOf(b)}
	switch magic := b[16]; {
	case magic < 2:
		return h, fmt.Errorf("at offset %d: %w", h.base, errFormat)
	case magic > 2:
		return h, fmt.Errorf("%w: the record batch at offset %d has format %d", errGarbled, h.base, magic)
	}
	// promise: a batch whose bytes are not those that the producer wrote
	// becomes no event, whatever happened to them on the way.
	if crc32.Checksum(b[21:], castagnoli) != be.Uint32(b[17:]) {
		return h, fmt.Errorf("%w: the record batch at offset %d fails its CRC", errGarbled, h.base)
	}
	h.attributes = int16(be.Uint16(b[21:]))
	h.firstTime, h.lastTime = int64(be.Uint64(b[27:])), int64(be.Uint64(b[35:]))
	h.producer = int64(be.Uint64(b[43:]))
	h.count = int(int32(be.Uint32(b[57:])))
	h.payload = b[batchHead:]
	return h, nil
}

// inflate gives the batch's records behind what dst holds, or as they lie
// where they are not compressed.
func (h *recordBatch) inflate(dst []byte) (records, grown []byte, err error) {
	code := compress.Compression(h.attributes & 7)
	if code == compress.None {
		return h.payload, dst, nil
	}
	codec := code.Codec()
	if codec == nil {
		return nil, dst, fmt.Errorf("the record batch at offset %d is compressed with codec %d, which is unknown", h.base, code)
	}
	r := codec.NewReader(bytes.NewReader(h.payload))
	defer r.Close()
	start := len(dst)
	for {
		if cap(dst)-len(dst) < 32<<10 {
			dst = slices.Grow(dst, max(len(dst), 256<<10))
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case err == io.EOF:
			return dst[start:], dst, nil
		case err != nil:
			return nil, dst, fmt.Errorf("decompress (%s) the record batch at offset %d: %w", code, h.base, err)
		case len(dst)-start > maxInflated:
			return nil, dst, fmt.Errorf("the record batch at offset %d has more than %d MiB decompressed", h.base, maxInflated>>20)
		}
	}
}

// record is one record of a batch; ms is its timestamp, -1 for none. held says
// that a newline stands behind the value.
type record struct {
	offset, ms int64
	key, value []byte
	held       bool
}

// next takes the first record off records, and puts a newline where its headers
// begin, of which nothing is read: so a value is a line where it lies.
func (h *recordBatch) next(records []byte) (r record, rest []byte, err error) {
	c := cursor{b: records}
	body := cursor{b: c.bytes(max(int(c.varint()), 0))}
	body.skip(1)
	r.ms = h.firstTime + body.varint()
	if h.attributes&appendTime != 0 {
		r.ms = h.lastTime
	}
	r.offset = h.base + body.varint()
	r.key = body.bytes(int(body.varint()))
	r.value = body.bytes(int(body.varint()))
	if r.held = len(r.value) > 0 && len(body.b) > 0; r.held {
		body.b[0] = '\n'
	}
	if c.bad || body.bad || r.offset < h.base || r.offset > h.last {
		return r, nil, fmt.Errorf("the record batch at offset %d is not what its head says", h.base)
	}
	return r, c.b, nil
}

// filter passes over what is no record for us: markers, and the records of
// transactions that were aborted.
type filter struct {
	aborted []aborted // of the response, by first offset
	off     map[int64]bool
}

func newFilter(a []aborted) *filter {
	slices.SortFunc(a, func(x, y aborted) int { return cmp.Compare(x.first, y.first) })
	return &filter{aborted: a}
}

// passes says whether the batch holds records to take.
func (f *filter) passes(h *recordBatch) bool {
	for len(f.aborted) > 0 && f.aborted[0].first <= h.last {
		if f.off == nil {
			f.off = map[int64]bool{}
		}
		f.off[f.aborted[0].producer] = true
		f.aborted = f.aborted[1:]
	}
	switch {
	case h.attributes&control != 0:
		if f.off[h.producer] && aborts(h) {
			delete(f.off, h.producer)
		}
		return false
	case h.attributes&transactional != 0 && f.off[h.producer]:
		return false
	}
	return true
}

// aborts says whether a control batch ends a transaction by aborting it: its
// record's key is a version and a type, int16 each, and type 0 is that.
func aborts(h *recordBatch) bool {
	r, _, err := h.next(h.payload)
	return err == nil && len(r.key) >= 4 && binary.BigEndian.Uint16(r.key[2:]) == 0
}
