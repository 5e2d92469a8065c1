package kinesis

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// read gives all records of a stream, shard by shard in order.
func read(k *servers.Kinesalite, stream string) (out []servers.Record) {
	k.Each(stream, func(r servers.Record) { out = append(out, r) })
	return out
}

// events unpacks records: each is an event, or an aggregated record of the KPL.
func events(t testing.TB, rs []servers.Record) (out [][]byte) {
	t.Helper()
	for _, r := range rs {
		if !strings.HasPrefix(string(r.Data), "\xf3\x89\x9a\xc2") {
			out = append(out, r.Data)
			continue
		}
		body, sum := r.Data[4:len(r.Data)-16], r.Data[len(r.Data)-16:]
		if got := md5.Sum(body); !bytes.Equal(got[:], sum) {
			t.Fatalf("record %s: the checksum is wrong", r.SequenceNumber)
		}
		for n, v := range fields(t, body) {
			if n != 3 {
				continue
			}
			for _, rec := range v {
				for n, v := range fields(t, rec) {
					if n == 3 {
						out = append(out, v...)
					}
				}
			}
		}
	}
	return out
}

// fields reads a protobuf message: the values of each length-delimited field.
func fields(t testing.TB, b []byte) map[uint64][][]byte {
	t.Helper()
	out := map[uint64][][]byte{}
	next := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			t.Fatal("no protobuf")
		}
		b = b[n:]
		return v
	}
	for len(b) > 0 {
		tag := next()
		switch v := next(); tag & 7 {
		case 0:
		case 2:
			if v > uint64(len(b)) {
				t.Fatal("a field is longer than its message")
			}
			out[tag>>3] = append(out[tag>>3], b[:v])
			b = b[v:]
		default:
			t.Fatalf("wire type %d", tag&7)
		}
	}
	return out
}

// ids counts the event ids of a stream's events.
func ids(t testing.TB, evs [][]byte) harness.IDs {
	t.Helper()
	out := harness.IDs{}
	for _, e := range evs {
		var ev struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal(e, &ev); err != nil || ev.ID == "" {
			t.Fatalf("no event: %.200q (%v)", e, err)
		}
		out[ev.ID]++
	}
	return out
}

// merge adds counts up.
func merge(all ...harness.IDs) harness.IDs {
	out := harness.IDs{}
	for _, ids := range all {
		for id, n := range ids {
			out[id] += n
		}
	}
	return out
}

// tenantOf is the name of the i-th tenant that generate makes events for.
func tenantOf(i int) string { return fmt.Sprintf("t%04d", i) }
