package kinesis

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"datasync/exporter/kinesis/kinesistest"
)

func TestPartitionKeys(t *testing.T) {
	long := strings.Repeat("é", 200)
	for _, c := range []struct{ field, line, want string }{
		{"client_ip", `{"event_id":"e1","client_ip":"2001:db8::1"}`, "2001:db8::1"},
		{"client_ip", `{"event_id":"e1","net":{"client_ip":"x"},"client_ip":"1.2.3.4"}`, "1.2.3.4"},
		{"client_ip", `{"event_id":"e1","net":{"client_ip":"x"}}`, "e1"},
		{"client_ip", `{"event_id":"e1","tags":["a,]}",{"client_ip":"x"}],"client_ip":"y"}`, "y"},
		{"client_ip", `{"event_id":"e1","reason":"\"client_ip\":\"x\"{","client_ip":"y"}`, "y"},
		{"client_ip", `{"event_id":"e1","client_ip":""}`, "e1"},
		{"client_ip", `{"event_id":"e1","client_ip":null}`, "e1"},
		{"http_status", `{"event_id":"e1","http_status":403}`, "403"},
		{"enforced", `{"enforced":true,"event_id":"e1"}`, "true"},
		{"matches", `{"event_id":"e1","matches":[{"rule_id":"r"}]}`, "e1"},
		{"user_agent", `{"event_id":"e1","user_agent":"a\"b\\\u00e9\n"}`, "a\"b\\é\n"},
		{"user_agent", `{"event_id":"e1","user_agent":"` + long + `"}`, long[:256]},
		{"user_agent", `{"event_id":"e1","user_agent":"x` + long + `"}`, "x" + long[:254]},
		{"", `{"event_id":"e1"}`, "e1"},
	} {
		s := newSink(Options{Stream: "s", PartitionKey: c.field}, nil, nil)
		if got := string(s.partitionKey([]byte(c.line))); got != c.want {
			t.Errorf("%s of %s is %q, want %q", c.field, c.line, got, c.want)
		}
	}
	s := newSink(Options{Stream: "s"}, nil, nil)
	a, b := s.partitionKey([]byte(`{"action":"block"}`)), s.partitionKey([]byte(`{"action":"pass"}`))
	if len(a) == 0 || bytes.Equal(a, b) || !bytes.Equal(a, s.partitionKey([]byte(`{"action":"block"}`))) {
		t.Errorf("events without an id have the keys %q and %q", a, b)
	}
}

// The shortcut agrees with encoding/json on whatever object.
func TestScalarsAreFound(t *testing.T) {
	value := rapid.OneOf(
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.SampledFrom([]string{`"k":"x"`, `{"k":1}`, `\`, `"`, `,`, `}`}), func(s string) any { return s }),
		rapid.Map(rapid.Int(), func(i int) any { return i }),
		rapid.SampledFrom([]any{nil, true, false, []any{"k", map[string]any{"k": "deep"}}, map[string]any{"k": "deep", "x": []any{1, "]"}}, map[string]any{}}),
	)
	rapid.Check(t, func(rt *rapid.T) {
		m := rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "k", "kk", "z", `k"`, `\`}), value).Draw(rt, "object")
		line, err := json.Marshal(m)
		if err != nil {
			rt.Fatal(err)
		}
		want := ""
		switch v := m["k"].(type) {
		case string:
			want = strings.ToValidUTF8(v, "\ufffd")
		case int, bool:
			want = fmt.Sprint(v)
		}
		if got := string(scalar(line, member("k"))); got != want {
			rt.Errorf("k of %s is %q, want %q", line, got, want)
		}
	})
}

// A record packed and unpacked is what it was, with one hash key for all of it.
func TestAggregatesUnpack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var recs []*record
		for range rapid.IntRange(2, 40).Draw(rt, "records") {
			key := []byte(rapid.SampledFrom([]string{"a", "b", "ключ", "10.0.0.1", strings.Repeat("k", 256)}).Draw(rt, "key"))
			recs = append(recs, &record{line: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(rt, "line"), key: key, slot: uint64(cellOf(key))})
		}
		data := appendAggregate(nil, recs)
		at := kinesistest.Hash{byte(recs[0].slot)} // the cell's first, no wider
		got := unpack(t, kinesistest.Record{Data: data, From: at, To: at})
		if len(got) != len(recs) {
			rt.Fatalf("%d of %d records come out", len(got), len(recs))
		}
		for i, r := range recs {
			if !bytes.Equal(got[i].Data, r.line) || got[i].Key != string(r.key) {
				rt.Errorf("record %d is %q of %q, was %q of %q", i, got[i].Data, got[i].Key, r.line, r.key)
			}
		}
	})
}

func TestGridLearns(t *testing.T) {
	g := &grid{}
	recs := func() (rs []*record) {
		for i := range 600 {
			rs = append(rs, &record{line: make([]byte, 100), key: []byte("k"), slot: uint64(i % cells)})
		}
		return rs
	}
	if packed, ends := g.pack(recs(), maxRecords); len(ends) != scouts || len(packed) != 3*scouts {
		t.Errorf("%d events in %d records while nothing is known, want those of %d cells", len(packed), len(ends), scouts)
	}
	g.learn(7, "")
	g.learn(90, "shard0")
	g.learn(10, "shard0")
	if g.shard[9] != "" || g.shard[11] != "shard0" || g.shard[89] != "shard0" || g.shard[91] != "" {
		t.Errorf("between two cells of a shard: %q", g.shard)
	}
	if _, ends := g.pack(recs(), maxRecords); len(ends) != 1+cells-81 {
		t.Errorf("%d records, want one for the shard and one for each of %d unknown cells", len(ends), cells-81)
	}
	for _, i := range []uint64{0, 255, 128, 127} {
		g.learn(i, fmt.Sprint("shard", i/128))
	}
	if packed, ends := g.pack(recs(), maxRecords); len(ends) != 2 || len(packed) != 600 {
		t.Errorf("%d events in %d records for two shards", len(packed), len(ends))
	}
	if packed, ends := g.pack(recs(), 1); len(ends) != 1 || len(packed) >= 600 || len(packed) == 0 {
		t.Errorf("with one record a call, %d events in %d records", len(packed), len(ends))
	}
	g.learn(3, "child") // the first shard was split
	if g.shard[4] != "" || g.shard[3] != "child" || g.shard[200] != "shard1" {
		t.Errorf("after a split: %q %q %q", g.shard[3], g.shard[4], g.shard[200])
	}
}

func TestOptions(t *testing.T) {
	if _, err := New(Options{}, nil); err == nil {
		t.Error("a sink without a stream")
	}
	if _, err := New(Options{Stream: "s", Ordered: true, Aggregate: true}, nil); err == nil {
		t.Error("ordered and aggregate at once")
	}
	stream, err := New(Options{Stream: "s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Sink.Close(); err != nil {
		t.Error(err)
	}
}

func TestIndexIsBytesIndex(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		letters := rapid.SampledFrom([]byte(`ab"":,`))
		line := rapid.SliceOfN(letters, 0, 40).Draw(rt, "line")
		name := member(rapid.StringMatching(`[ab]{0,3}`).Draw(rt, "name"))
		if got, want := index(line, name), bytes.Index(line, name); got != want {
			rt.Errorf("%q in %q: %d, want %d", name, line, got, want)
		}
	})
}

func BenchmarkPartitionKey(b *testing.B) {
	line := []byte(`{"schema":"mitigation/1","event_id":"gen-1-1","tenant_id":"t0010","source":"netacea","source_instance":"w-9067","vendor_version":"6.0.13","integration":"cloudflare","kind":"mitigation","event_time":1795995994033,"time_precision":"ms","request_id":"ab969e5c3f788efc","action":"block","disposition":"blocked","enforced":true,"mode":"mitigate","action_raw":"ip_blocked","codes_raw":"210","match_on":"ip","severity":2,"client_ip":"203.0.113.45","client_port":26690}`)
	s := newSink(Options{Stream: "s", PartitionKey: "client_ip"}, nil, nil)
	for b.Loop() {
		if len(s.partitionKey(line)) != 12 {
			b.Fatal("not found")
		}
	}
}

func TestAppendBase64(t *testing.T) {
	data := make([]byte, 300)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for n := range data {
		for _, room := range []int{0, 1, 7, 500} { // in place, or in memory that must grow
			got := appendBase64(append(make([]byte, 0, 2+room), "x:"...), data[:n])
			if want := "x:" + base64.StdEncoding.EncodeToString(data[:n]); string(got) != want {
				t.Fatalf("%d bytes, room for %d: %s, want %s", n, room, got, want)
			}
		}
	}
	for i := range 1 << 12 { // each pair of letters
		b := []byte{byte(i >> 4), byte(i << 4), 0, 0, 0, 0, 0, 0, 0}
		if got := string(appendBase64(nil, b)); got != base64.StdEncoding.EncodeToString(b) {
			t.Fatalf("%03x: %s", i, got)
		}
	}
}
