package schemas

import (
	_ "embed"
	"encoding/json"
	"testing"
)

//go:embed testdata/event.json
var sampleLine []byte

//go:embed testdata/event735.json
var typicalLine []byte

// typical is as long as most events are.
var typical = typicalLine[:len(typicalLine)-1]

// sample has nearly all scalar fields.
var sample = sampleLine[:len(sampleLine)-1]

const sampleNow = 1795309108000

func BenchmarkScan(b *testing.B) {
	var h Head
	b.ReportAllocs()
	b.SetBytes(int64(len(sample)))
	for b.Loop() {
		if p := Scan(sample, sampleNow, &h); p != nil {
			b.Fatal(p)
		}
	}
}

func BenchmarkScanTypical(b *testing.B) {
	var h Head
	b.ReportAllocs()
	b.SetBytes(int64(len(typical)))
	for b.Loop() {
		if p := Scan(typical, sampleNow, &h); p != nil {
			b.Fatal(p)
		}
	}
}

func BenchmarkValid(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(sample)))
	for b.Loop() {
		if !Valid(sample) {
			b.Fatal("not valid")
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	var e Event
	b.ReportAllocs()
	b.SetBytes(int64(len(sample)))
	for b.Loop() {
		if err := Decode(sample, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeTypical(b *testing.B) {
	var e Event
	b.ReportAllocs()
	b.SetBytes(int64(len(typical)))
	for b.Loop() {
		if err := Decode(typical, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	var e Event
	if err := Decode(sample, &e); err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.ReportAllocs()
	b.SetBytes(int64(len(sample)))
	for b.Loop() {
		buf = AppendJSON(buf[:0], &e)
	}
}

// BenchmarkEncodingJSONValid is the yardstick for the machine of the day.
func BenchmarkEncodingJSONValid(b *testing.B) {
	b.SetBytes(int64(len(typical)))
	for b.Loop() {
		json.Valid(typical)
	}
}
