package kinesistest

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
)

// Event is what an application gets from a record: the record itself, or one of
// those that were aggregated in it.
type Event struct {
	Data []byte
	Key  string
}

// Unpack does what the KCL does with a record, and is stricter: where the KCL
// would pass a record on as it is, or throw it away with a word in its log, it
// gives an error. All of an aggregated record is thrown away if one of its
// events belongs to another shard. The events share the record's bytes.
func Unpack(r Record) ([]Event, error) {
	packed, ok := bytes.CutPrefix(r.Data, []byte{0xf3, 0x89, 0x9a, 0xc2})
	if !ok {
		return []Event{{r.Data, r.Key}}, nil
	}
	at := len(packed) - md5.Size
	if at < 0 {
		return nil, errors.New("an aggregated record ends early")
	}
	if sum := md5.Sum(packed[:at]); !bytes.Equal(sum[:], packed[at:]) {
		return nil, errors.New("the checksum of an aggregated record is wrong")
	}
	all, err := parse(packed[:at])
	if err != nil {
		return nil, err
	}
	keys, hashes := all[1], all[2]
	var out []Event
	for _, f := range all[3] {
		m, err := parse(f.bytes)
		if err != nil {
			return nil, err
		}
		if len(m[1]) != 1 || len(m[2]) != 1 || len(m[3]) != 1 || m[1][0].number >= uint64(len(keys)) || m[2][0].number >= uint64(len(hashes)) {
			return nil, fmt.Errorf("an aggregated record has an event with the fields %v", m)
		}
		h, err := place("", string(hashes[m[2][0].number].bytes))
		if err != nil {
			return nil, err
		}
		if h.compare(r.From) < 0 || h.compare(r.To) > 0 {
			return nil, fmt.Errorf("an aggregated record in %s (%x to %x) has an event for %x", r.Shard, r.From, r.To, h)
		}
		out = append(out, Event{m[3][0].bytes, string(keys[m[1][0].number].bytes)})
	}
	return out, nil
}

type field struct {
	number uint64
	bytes  []byte
}

// parse reads a protobuf message of numbers and bytes, by field.
func parse(b []byte) (map[uint64][]field, error) {
	out := map[uint64][]field{}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		v, m := binary.Uvarint(b[max(n, 0):])
		if n <= 0 || m <= 0 || tag&7 != 0 && tag&7 != 2 {
			return nil, errors.New("an aggregated record is no protobuf")
		}
		b = b[n+m:]
		f := field{number: v}
		if tag&7 == 2 {
			if v > uint64(len(b)) {
				return nil, errors.New("a field of an aggregated record is longer than the record")
			}
			f.bytes, b = b[:v], b[v:]
		}
		out[tag>>3] = append(out[tag>>3], f)
	}
	return out, nil
}
