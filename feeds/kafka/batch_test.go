package kafkafeed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go/compress"
)

// made says how to build a record batch.
type made struct {
	base       int64
	codec      compress.Compression
	attributes int16
	producer   int64
	last       int32 // above the base; 0: of the last value
	offsets    []int64
	key        string
	values     []string
}

// batch builds the bytes of a record batch as a producer does.
func (m made) batch(t testing.TB) []byte {
	t.Helper()
	var records []byte
	last := m.last
	for i, v := range m.values {
		at := int64(i)
		if m.offsets != nil {
			at = m.offsets[i]
		}
		last = max(last, int32(at))
		r := []byte{0}
		r = binary.AppendVarint(r, at*10) // timestamp above the first
		r = binary.AppendVarint(r, at)
		if m.key == "" {
			r = binary.AppendVarint(r, -1)
		} else {
			r = append(binary.AppendVarint(r, int64(len(m.key))), m.key...)
		}
		r = append(binary.AppendVarint(r, int64(len(v))), v...)
		r = binary.AppendVarint(r, 1) // a header
		r = append(r, 2, 'h', 2, 'v')
		records = append(binary.AppendVarint(records, int64(len(r))), r...)
	}
	if codec := m.codec.Codec(); codec != nil {
		var z bytes.Buffer
		w := codec.NewWriter(&z)
		if _, err := w.Write(records); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		records = z.Bytes()
	}
	be := binary.BigEndian
	b := be.AppendUint16(nil, uint16(m.attributes)|uint16(m.codec))
	b = be.AppendUint32(b, uint32(last))
	b = be.AppendUint64(b, 1_700_000_000_000)
	b = be.AppendUint64(b, 1_800_000_000_000)
	b = be.AppendUint64(b, uint64(m.producer))
	b = be.AppendUint16(b, 0)
	b = be.AppendUint32(b, 0)
	b = be.AppendUint32(b, uint32(len(m.values)))
	b = append(b, records...)
	out := be.AppendUint64(nil, uint64(m.base))
	out = be.AppendUint32(out, uint32(len(b)+9))
	out = be.AppendUint32(out, 7)
	out = append(out, 2)
	out = be.AppendUint32(out, crc32.Checksum(b, castagnoli))
	return append(out, b...)
}

func values(prefix string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf(`{"%s":%d}`, prefix, i))
	}
	return out
}

func TestBatchesOfEveryCodec(t *testing.T) {
	for _, codec := range []compress.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		in := values("v", 500)
		b, rest, ok := cutBatch(append(made{base: 1000, codec: codec, key: "acme", values: in}.batch(t), "next"...))
		if !ok || string(rest) != "next" || baseOf(b) != 1000 || lastOf(b) != 1499 {
			t.Fatalf("%v: cut %v, base %d, last %d", codec, ok, baseOf(b), lastOf(b))
		}
		h, err := parseBatch(b)
		if err != nil {
			t.Fatalf("%v: %v", codec, err)
		}
		records, grown, err := h.inflate([]byte("before"))
		if err != nil || !bytes.HasPrefix(grown, []byte("before")) {
			t.Fatalf("%v: %v", codec, err)
		}
		for i, want := range in {
			var r record
			if r, records, err = h.next(records); err != nil {
				t.Fatal(err)
			}
			if r.offset != int64(1000+i) || string(r.value) != want || string(r.key) != "acme" || r.ms != 1_700_000_000_000+int64(i)*10 {
				t.Fatalf("%v: record %d is %d %s %s %d", codec, i, r.offset, r.key, r.value, r.ms)
			}
			if n := len(r.value); !r.held || r.value[:n+1][n] != '\n' {
				t.Fatalf("%v: record %d is no line where it lies", codec, i)
			}
		}
		if len(records) != 0 {
			t.Errorf("%v: %d bytes are left", codec, len(records))
		}
	}
}

func TestTimestampOfTheLog(t *testing.T) {
	h, err := parseBatch(made{attributes: appendTime, values: values("v", 2)}.batch(t))
	if err != nil {
		t.Fatal(err)
	}
	if r, _, err := h.next(h.payload); err != nil || r.ms != 1_800_000_000_000 || r.key != nil {
		t.Errorf("%+v %v", r, err)
	}
}

func TestBadBatches(t *testing.T) {
	good := made{base: 5, values: values("v", 3)}.batch(t)
	old := slices.Clone(good)
	old[16] = 1
	if _, err := parseBatch(old); !errors.Is(err, errFormat) {
		t.Errorf("format 1: %v", err)
	}
	for n := range good {
		if _, _, ok := cutBatch(good[:n]); ok {
			t.Errorf("%d of %d bytes are a batch", n, len(good))
		}
	}
	h, err := parseBatch(made{base: 5, attributes: 7, values: values("v", 3)}.batch(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.inflate(nil); err == nil {
		t.Error("codec 7 is known")
	}
	// What a producer that is broken might send under a right CRC.
	for name, payload := range map[string][]byte{"nothing": {}, "endless length": bytes.Repeat([]byte{0xff}, 12), "offset outside": {12, 0, 0, 100, 1, 1, 0}} {
		if _, _, err := h.next(payload); err == nil {
			t.Errorf("%s: is a record", name)
		}
	}
}

// An aborted transaction's records are passed over, those of others beside it not.
func TestAbortedTransactions(t *testing.T) {
	marker := func(base, producer int64, commit byte) []byte {
		m := made{base: base, producer: producer, attributes: control | transactional, key: string([]byte{0, 0, 0, commit}), values: []string{"\x00\x00\x00\x00\x00\x00"}}
		return m.batch(t)
	}
	data := func(base, producer int64, attributes int16) []byte {
		return made{base: base, producer: producer, attributes: attributes, values: values("v", 2)}.batch(t)
	}
	log := [][]byte{
		data(0, 1, transactional), data(2, 2, transactional), data(4, -1, 0), marker(6, 2, 0), marker(7, 1, 1),
		data(8, 2, transactional), marker(10, 2, 1), data(11, 2, transactional), marker(13, 2, 0), data(14, 2, 0),
	}
	f := newFilter([]aborted{{2, 11}, {2, 2}})
	var got []int64
	for _, b := range log {
		h, err := parseBatch(b)
		if err != nil {
			t.Fatal(err)
		}
		if f.passes(&h) {
			got = append(got, h.base)
		}
	}
	if want := []int64{0, 4, 8, 14}; !slices.Equal(got, want) {
		t.Errorf("batches %v are taken, want %v", got, want)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(made{values: values("v", 3)}.batch(f), int16(0))
	f.Add(made{codec: compress.Snappy, values: values("v", 3)}.batch(f), int16(2))
	f.Fuzz(func(t *testing.T, b []byte, attributes int16) {
		for one, rest, ok := cutBatch(b); ok; one, rest, ok = cutBatch(rest) {
			h, err := parseBatch(one)
			if err != nil { // as if a broken producer had made it
				h = recordBatch{base: baseOf(one), last: lastOf(one), attributes: attributes & 7, count: 3, payload: one[batchHead:]}
			}
			records, _, err := h.inflate(nil)
			for range min(h.count, 1000) {
				var r record
				if err != nil {
					break
				}
				if r, records, err = h.next(records); err == nil && (r.offset < h.base || r.offset > h.last) {
					t.Fatalf("offset %d of a batch from %d to %d", r.offset, h.base, h.last)
				}
			}
		}
	})
}

func BenchmarkRecords(b *testing.B) {
	value := `{"event_id":"` + string(bytes.Repeat([]byte("x"), 720)) + `"}`
	for _, codec := range []compress.Compression{compress.None, compress.Zstd} {
		b.Run(codec.String(), func(b *testing.B) {
			batch := made{codec: codec, key: "t0001", values: slices.Repeat([]string{value}, 1400)}.batch(b)
			rig := newRig(b)
			came := make([]byte, len(batch)) // take writes between records
			b.ReportAllocs()
			for b.Loop() {
				copy(came, batch)
				rig.p.next = 0
				if err := rig.p.take(b.Context(), &response{records: came}, &rig.buf); err != nil {
					b.Fatal(err)
				}
				rig.forget()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1400, "ns/event")
		})
	}
}
