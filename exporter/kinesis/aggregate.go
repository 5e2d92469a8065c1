package kinesis

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"hash/maphash"
	"math/big"
)

// An aggregated record, as the KPL packs them and the KCL unpacks them:
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
const (
	magic      = "\xf3\x89\x9a\xc2"
	tagKeys    = 1<<3 | 2
	tagHashes  = 2<<3 | 2
	tagRecords = 3<<3 | 2
	tagKeyAt   = 1 << 3
	tagHashAt  = 2 << 3
	tagData    = 3<<3 | 2
	// overhead is what packing adds to a record's key and line, at most.
	overhead = 24
)

// appendAggregate packs records into one. All of them name the explicit hash
// key that the whole is put with: the KCL throws an aggregated record away
// when one of its records belongs, by its own key, to another shard.
func appendAggregate(dst []byte, recs []*record) []byte {
	dst = append(dst, magic...)
	at := len(dst)
	index := make(map[uint64]uint64, len(recs)) // by the key's hash: no string of it is made
	keys, keyOf := make([][]byte, 0, len(recs)), make([]uint64, len(recs))
	for i, r := range recs {
		h := maphash.Bytes(seed, r.key)
		n, ok := index[h]
		if !ok || !bytes.Equal(keys[n], r.key) { // of two with one hash, the last is found again
			n = uint64(len(keys))
			index[h], keys = n, append(keys, r.key)
			dst = append(dst, tagKeys)
			dst = appendBytes(dst, r.key)
		}
		keyOf[i] = n
	}
	dst = append(dst, tagHashes)
	dst = appendBytes(dst, cellStarts[recs[0].slot])
	for i, r := range recs {
		key := keyOf[i]
		n := 1 + varintLen(key) + 2 + 1 + varintLen(uint64(len(r.line))) + len(r.line)
		dst = append(dst, tagRecords)
		dst = binary.AppendUvarint(dst, uint64(n))
		dst = append(dst, tagKeyAt)
		dst = binary.AppendUvarint(dst, key)
		dst = append(dst, tagHashAt, 0, tagData)
		dst = appendBytes(dst, r.line)
	}
	sum := md5.Sum(dst[at:])
	return append(dst, sum[:]...)
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func varintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// The service's hash space (the MD5 of the key, 128 bits) in cells, by the
// first byte: what is aggregated is put at the start of a cell, so that events
// of a key always go to the same place, whatever they were packed with.
const cells = 256

// cellStarts are the cells' first hash keys, as the service writes them.
var cellStarts = func() (out [cells][]byte) {
	for i := range out {
		out[i] = new(big.Int).Lsh(big.NewInt(int64(i)), 120).Append(nil, 10)
	}
	return out
}()

func cellOf(key []byte) byte { return md5.Sum(key)[0] }

// grid is what the service's answers told of which shard holds which cell.
// Cells of one shard are packed together; a cell that was never answered for
// is packed alone. So nothing but PutRecords has to be allowed.
type grid struct {
	shard [cells]string
	known bool // some of it
}

// scouts are how many units a call has while nothing is known: those that
// follow are packed by what these learned.
const scouts = 16

// learn takes in where a cell's record went. One that moved says that the
// shard was split or merged: its other cells are asked for anew.
func (g *grid) learn(cell uint64, shard string) {
	old := g.shard[cell]
	if old == shard || shard == "" {
		return
	}
	if old != "" {
		for i := range g.shard {
			if g.shard[i] == old {
				g.shard[i] = ""
			}
		}
	}
	// A shard has one stretch of the hash space, and another has another name:
	// what lies between two of its cells is its, too.
	first, last := int(cell), int(cell)
	for i := range g.shard {
		if g.shard[i] == shard {
			first, last = min(first, i), max(last, i)
		}
	}
	for i := first; i <= last; i++ {
		g.shard[i] = shard
	}
	g.known = true
}

// pack orders records of one call by the units that they make, in the order in
// which the units began, and gives the units' ends. It takes as many records
// as fit into most units.
func (g *grid) pack(recs []*record, most int) (packed []*record, ends []int) {
	type unit struct {
		recs []*record
		size int
	}
	if !g.known {
		most = min(most, scouts)
	}
	var units []*unit
	open := map[string]*unit{}
	for _, r := range recs {
		group := g.shard[r.slot]
		if group == "" {
			group = string([]byte{'?', byte(r.slot)})
		}
		u := open[group]
		n := r.size() + overhead
		if u == nil || u.size+n > maxAggregate || r.alone {
			if len(units) == most {
				continue // left for the next call
			}
			u = &unit{size: len(magic) + overhead + 64}
			units = append(units, u)
			if !r.alone {
				open[group] = u
			}
		}
		u.recs = append(u.recs, r)
		u.size += n
	}
	for _, u := range units {
		packed = append(packed, u.recs...)
		ends = append(ends, len(packed))
	}
	return packed, ends
}
