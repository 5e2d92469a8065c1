package kinesisfeed

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"datasync/feeds"
	"datasync/formats/compress"
)

// An aggregated record, as the KPL packs them:
//
//	F3 89 9A C2 | AggregatedRecord (protobuf) | MD5 of the protobuf
//
//	message AggregatedRecord {
//	  repeated string partition_key_table     = 1;
//	  repeated string explicit_hash_key_table = 2;
//	  repeated Record records                 = 3;
//	}
//	message Record {
//	  required uint64 partition_key_index     = 1;
//	  optional uint64 explicit_hash_key_index = 2;
//	  required bytes  data                    = 3;
//	}
const magic = "\xf3\x89\x9a\xc2"

// The fields that are of interest, and how they are written.
const (
	fieldRecords = 3
	fieldData    = 3
	wireVarint   = 0
	wireFixed64  = 1
	wireBytes    = 2
	wireFixed32  = 5
)

var errPacked = errors.New("aggregated record is damaged inside, though its checksum is right")

// unpack gives the records that were packed into one; false where it is none
// that was packed. All of them are given, also those whose key belongs to
// another shard: the KPL may have sent these again, other packers have not.
func unpack(data []byte) (inner [][]byte, packed bool, err error) {
	body, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(body) < md5.Size {
		return nil, false, nil
	}
	body, sum := body[:len(body)-md5.Size], body[len(body)-md5.Size:]
	if md5.Sum(body) != [md5.Size]byte(sum) {
		return nil, false, nil
	}
	err = fields(body, func(n uint64, record []byte) error {
		if n != fieldRecords {
			return nil
		}
		found := false
		err := fields(record, func(n uint64, data []byte) error {
			if n == fieldData && !found {
				inner, found = append(inner, data), true
			}
			return nil
		})
		if err == nil && !found {
			return errPacked
		}
		return err
	})
	return inner, true, err
}

// fields calls for each field of a protobuf message that holds bytes.
func fields(b []byte, call func(field uint64, value []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errPacked
		}
		b = b[n:]
		switch tag & 7 {
		case wireVarint:
			if _, n = binary.Uvarint(b); n <= 0 {
				return errPacked
			}
		case wireFixed64:
			n = 8
		case wireFixed32:
			n = 4
		case wireBytes:
			size, m := binary.Uvarint(b)
			if m <= 0 || size > uint64(len(b)-m) {
				return errPacked
			}
			if err := call(tag>>3, b[m:m+int(size)]); err != nil {
				return err
			}
			n = m + int(size)
		default:
			return errPacked
		}
		if n > len(b) {
			return errPacked
		}
		b = b[n:]
	}
	return nil
}

// maxInflated is how many bytes a record may hold once decompressed.
const maxInflated = 12 << 20

// inflate decompresses what was compressed with gzip, as its first bytes say.
func inflate(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b, 8}) {
		return data, nil
	}
	z, err := compress.NewReader(bytes.NewReader(data), "gzip", maxInflated)
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	out, err := io.ReadAll(z)
	if err = errors.Join(err, z.Close()); err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	return out, nil
}

// pile gathers records for one submit.
type pile struct {
	records []feeds.Record
	bytes   int
}

func (p *pile) reset() {
	clear(p.records)
	p.records, p.bytes = p.records[:0], 0
}

// add adds what a record of a shard holds. The ids are made of its place in the
// stream, so that reading it again gives the same.
func (p *pile) add(stream, shard string, r *types.Record) {
	seq := aws.ToString(r.SequenceNumber)
	rec := feeds.Record{Value: r.Data, Position: shard + " sequence " + seq, ID: "kds:" + stream + ":" + seq}
	if r.ApproximateArrivalTimestamp != nil {
		rec.Time = *r.ApproximateArrivalTimestamp
	}
	inner, packed, err := unpack(r.Data)
	if err != nil {
		rec.Bad = err.Error()
	}
	if !packed || err != nil {
		p.one(rec)
		return
	}
	for i, data := range inner {
		sub := rec
		sub.Value = data
		sub.ID += ":" + strconv.Itoa(i)
		sub.Position += " record " + strconv.Itoa(i) + " in it"
		p.one(sub)
	}
}

func (p *pile) one(rec feeds.Record) {
	if rec.Bad == "" {
		if data, err := inflate(rec.Value); err != nil {
			rec.Bad = err.Error()
		} else {
			rec.Value = data
		}
	}
	p.records = append(p.records, rec)
	p.bytes += len(rec.Value)
}
