package kinesistest

import (
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// call is the body of a PutRecords call of records of a size, one a key.
func call(stream string, keys, size int) []byte {
	data := base64.StdEncoding.EncodeToString(make([]byte, size))
	var rs []string
	for i := range keys {
		rs = append(rs, fmt.Sprintf(`{"Data":%q,"PartitionKey":"k%02d"}`, data, i))
	}
	return fmt.Appendf(nil, `{%s,"Records":[%s]}`, stream, strings.Join(rs, ","))
}

func TestShardsTakeWhatTheServiceLetsThem(t *testing.T) {
	for _, c := range []struct {
		name           string
		records, bytes float64
		size           int
		want           int // of 500 records a tenth of a second, for two seconds, into two shards
	}{
		{"records", ServiceRecords, 0, 10, 2 * 3 * ServiceRecords},
		{"bytes", 0, ServiceBytes, 6_000, 2 * 3 * ServiceBytes / 6_003},
		{"neither", 0, 0, 10, 20 * 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewStream("s", 2, 1)
				s.RecordRate, s.ByteRate = c.records, c.bytes
				for range 20 {
					if status, text := (Account{"s": s}).Put(call(`"StreamName":"s"`, 500, c.size)); status != 200 {
						t.Fatalf("%d: %s", status, text)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if s.Records > c.want || s.Records < c.want*9/10 || s.Records+s.Throttled != 20*500 {
					t.Errorf("%d stored and %d throttled of %d, want some %d", s.Records, s.Throttled, 20*500, c.want)
				}
			})
		})
	}
}

// However shards are split and merged, they share all of the hash space.
func TestReshardingLeavesNoGap(t *testing.T) {
	s := NewStream("s", 3, 1)
	for i := range 200 {
		if s.Rand.IntN(2) == 0 {
			s.Split()
		} else {
			s.Merge()
		}
		next := new(big.Int)
		for _, x := range s.shards {
			if new(big.Int).SetBytes(x.from[:]).Cmp(next) != 0 || x.to.compare(x.from) < 0 {
				t.Fatalf("after %d moves %s has %x to %x", i, x.id, x.from, x.to)
			}
			next.Add(new(big.Int).SetBytes(x.to[:]), big.NewInt(1))
		}
		if next.Cmp(new(big.Int).Lsh(big.NewInt(1), 128)) != 0 {
			t.Fatalf("after %d moves the shards end at %x", i, next)
		}
	}
}

func TestStreamsAreNamedOrGivenByARN(t *testing.T) {
	a := Account{"s": NewStream("s", 1, 1), "other": NewStream("other", 1, 1)}
	for _, c := range []struct {
		stream string
		want   int
	}{
		{`"StreamName":"s"`, 200},
		{`"StreamName":"none"`, 400},
		{`"StreamARN":"arn:aws:kinesis:eu-west-1:000000000000:stream/s"`, 200},
		{`"StreamARN":"arn:aws:kinesis:eu-west-1:000000000000:stream/s","StreamName":"s"`, 200},
		{`"StreamARN":"arn:aws:kinesis:eu-west-1:000000000000:stream/s","StreamName":"other"`, 400},
		{`"StreamARN":"arn:aws:kinesis:us-east-1:000000000000:stream/s"`, 400},
	} {
		if status, text := a.Put(call(c.stream, 1, 1)); status != c.want {
			t.Errorf("%s: %d %s", c.stream, status, text)
		}
	}
	if a["s"].Records != 3 || a["other"].Records != 0 {
		t.Errorf("%d and %d records are stored, want 3 and 0", a["s"].Records, a["other"].Records)
	}
}

func TestRecordsThatTheServiceRefuses(t *testing.T) {
	for name, records := range map[string]string{
		"none":            ``,
		"no key":          `{"Data":"AA==","PartitionKey":""}`,
		"too long a key":  `{"Data":"AA==","PartitionKey":"` + strings.Repeat("k", 257) + `"}`,
		"too large":       `{"Data":"` + base64.StdEncoding.EncodeToString(make([]byte, 1<<20)) + `","PartitionKey":"k"}`,
		"hash too large":  `{"Data":"AA==","PartitionKey":"k","ExplicitHashKey":"340282366920938463463374607431768211456"}`,
		"hash no number":  `{"Data":"AA==","PartitionKey":"k","ExplicitHashKey":"ff"}`,
		"one of them bad": `{"Data":"AA==","PartitionKey":"k"},{"Data":"AA==","PartitionKey":""}`,
		"no base64":       `{"Data":"?","PartitionKey":"k"}`,
	} {
		s := NewStream("s", 1, 1)
		if status, text := (Account{"s": s}).Put([]byte(`{"StreamName":"s","Records":[` + records + `]}`)); status != 400 || s.Records != 0 {
			t.Errorf("%s: %d %s, %d stored", name, status, text, s.Records)
		}
	}
}
