package journal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"datasync/feeds"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenBytes compares with testdata/<name>.hex, which a person has read.
func goldenBytes(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	text := []byte(hex.Dump(got))
	if *update {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Fatalf("%s has changed: the format on disk is version %d and stays readable\ngot:\n%s\nwant:\n%s", name, formatVersion, text, want)
	}
}

func goldenHeader() segmentHeader {
	return segmentHeader{ID: 0x1122334455667788, Journal: "abc123", First: 7, Generation: 2, Created: 1_700_000_000_000,
		PrevID: 0x99, PrevEnd: 4096, PrevCommit: 6, Failed: true, Seq: 50, Events: 49, Source: 1000, DurableFrom: 6}
}

// goldenCommit is two tenants, three events, a fact of each kind.
func goldenCommit() *builder {
	b := &builder{}
	batch := &Batch{Arena: []byte("{\"a\":1}\n{\"b\":2}\n{\"a\":3}\n"), Events: []Event{
		{Off: 0, Len: 8, Tenant: 0, Kind: 0, Time: 1000}, {Off: 8, Len: 8, Tenant: 1, Kind: 1, Time: 1001}, {Off: 16, Len: 8, Tenant: 0, Kind: 4, Time: 999}}}
	last := b.addEvents(batch, 50)
	b.addFacts([]Fact{{Key: "pos/acme", Value: []byte("51")}, {Key: "n", Value: AppendCounts(nil, 3), Add: true}, {Key: "gone"}})
	b.sortEvents()
	names := []feeds.TenantID{"acme", "beta"}
	b.plan(commitHead{Source: 1003, Time: 1_700_000_000_500, First: 51, Last: last, Before: 49, Durable: 6},
		func(t TenantRef) feeds.TenantID { return names[t] },
		func(t TenantRef) Position { return Position{Events: 40 + uint64(t), Bytes: 4000 + uint64(t)} })
	b.fill()
	b.stamp(0x1122334455667788, 7)
	return b
}

func goldenIndex() ([]byte, footer) {
	x := newIndex()
	b := goldenCommit()
	for _, bl := range b.blocks {
		x.add(bl.tenant, segmentHeaderLen+bl.off, 1_700_000_000_500, b.buf[bl.tail:bl.tailEnd])
	}
	f := footer{IndexOff: segmentHeaderLen + int64(len(b.buf)), Commit: 7, Last: 53, Time: 1_700_000_000_500, Events: 52, Source: 1003, Checkpoint: 7}
	return x.encode(func(t TenantRef) feeds.TenantID { return []feeds.TenantID{"acme", "beta"}[t] }, &f), f
}

// TestGoldenFormat holds the bytes of version 1.
func TestGoldenFormat(t *testing.T) {
	h := goldenHeader()
	goldenBytes(t, "segment-header", h.encode())
	goldenBytes(t, "commit", goldenCommit().buf)
	raw, f := goldenIndex()
	goldenBytes(t, "index", append(raw, f.encode(0x1122334455667788)...))
	table := newFactTable()
	table.fold("a", []byte("1"), false)
	table.fold("b", AppendCounts(nil, 300), true)
	pieces := table.checkpoint(func(yield func(string, Position) bool) { yield("acme", Position{51, 40, 4000}) })
	goldenBytes(t, "checkpoint-piece", pieces[0].facts)
}

// TestRoundTrips reads back what was written.
func TestRoundTrips(t *testing.T) {
	h := goldenHeader()
	if got, err := decodeSegmentHeader(h.encode()); err != nil || got != h {
		t.Fatalf("header: %+v %v", got, err)
	}
	for at := range 1024 { // one flipped bit never matters: the other copy is whole
		p := h.encode()
		p[at] ^= 0x10
		if got, err := decodeSegmentHeader(p); err != nil || got != h {
			t.Fatalf("header with byte %d flipped: %+v %v", at, got, err)
		}
	}
	b := goldenCommit()
	head, err := decodeCommitHead(b.buf, magicHead, 0x1122334455667788)
	if err != nil || head != b.parts[0].head || head.Number != 7 || head.size() != int64(len(b.buf)) {
		t.Fatalf("head: %+v %v", head, err)
	}
	if _, err := decodeCommitHead(b.buf, magicHead, 1); !errors.Is(err, errDamaged) {
		t.Fatalf("the head of another segment counts: %v", err)
	}
	raw, f := goldenIndex()
	if got, err := decodeFooter(f.encode(5), 5); err != nil || got != f {
		t.Fatalf("footer: %+v %v", got, err)
	}
	x, err := decodeIndex(raw, f)
	if err != nil {
		t.Fatal(err)
	}
	var m blockMeta
	l := x.blocks(0, "acme")
	if l.len() != 1 || l.at(0, &m) != nil || m.Events != 2 || m.Held.Events != 40 || m.MinTime != 999 || m.MaxTime != 1000 ||
		!reflect.DeepEqual(m.Steps, []Step{{2, 2}}) || !reflect.DeepEqual(m.Kinds, []KindRun{{0, 1, 8}, {4, 1, 8}}) {
		t.Fatalf("block: %+v", m)
	}
	if x.blocks(0, "nobody").len() != 0 {
		t.Fatal("a tenant that is not there has blocks")
	}
}

// TestNewerVersion is said to be newer, not damaged.
func TestNewerVersion(t *testing.T) {
	h := goldenHeader()
	p := h.encode()
	p[4], p[secondCopy+4] = 9, 9
	if _, err := decodeSegmentHeader(p); !errors.Is(err, errNewer) {
		t.Fatalf("%v", err)
	}
}

func FuzzCommit(f *testing.F) {
	f.Add(goldenCommit().buf, uint16(0), byte(0))
	f.Add(goldenCommit().buf, uint16(20), byte(1))
	f.Add(goldenCommit().buf, uint16(100), byte(0x80))
	f.Fuzz(func(t *testing.T, p []byte, at uint16, x byte) {
		p = slices.Clone(p)
		if len(p) > 0 {
			p[int(at)%len(p)] ^= x
		}
		seen := 0
		k := &walker{w: window{f: memFile(p), limit: int64(len(p))}, id: 0x1122334455667788, acked: 1<<64 - 1}
		check := func(c *commitAt) error {
			seen++
			var m blockMeta
			frames(c.dir, func(body []byte) {
				if _, _, err := decodeDirEntry(body, &m); err == nil {
					checkMeta(t, &m)
				}
			})
			frames(c.facts, func(body []byte) { _, _, _, _ = decodeFact(body) })
			return nil
		}
		k.visit = check
		if k.walk(0) == nil && k.last != nil {
			_ = check(k.last)
			_, _ = k.judge(k.last)
		}
	})
}

// checkMeta: whatever was decoded, cutting stays inside the block.
func checkMeta(t *testing.T, m *blockMeta) {
	if m.Events > 1<<20 {
		return
	}
	_ = m.end()
	for _, seq := range []feeds.Sequence{0, m.First, m.First + 1, m.last(), m.last() + 1, 1<<64 - 1} {
		if n := m.before(seq); n < 0 || n > int(m.Events) {
			t.Fatalf("before(%d) of %+v is %d", seq, m, n)
		}
	}
	n := 0
	for _, s := range m.cutSteps(nil, 0, int(m.Events)) {
		n += int(s.Count)
	}
	if n != int(m.Events) {
		t.Fatalf("steps of %+v add up to %d", m, n)
	}
}

func FuzzIndex(f *testing.F) {
	raw, foot := goldenIndex()
	f.Add(raw, foot.encode(1)[:footerLen-4])
	f.Fuzz(func(t *testing.T, raw, tail []byte) {
		// The sums are made to fit, so that what lies behind them is tried too.
		tail = append(slices.Clone(tail), make([]byte, footerLen)...)[:footerLen-4]
		le.PutUint32(tail[16:], uint32(len(raw)))
		le.PutUint32(tail[28:], crcOf(raw))
		foot, err := decodeFooter(le.AppendUint32(tail, crcSeeded(1, tail)), 1)
		if err != nil {
			return
		}
		x, err := decodeIndex(raw, foot)
		if err != nil {
			return
		}
		var m blockMeta
		for i := range x.records {
			r := x.record(i)
			x.blocks(0, feeds.TenantID(r.name))
			for b := range r.list.len() {
				if r.list.at(b, &m) == nil {
					checkMeta(t, &m)
				}
				_ = r.list.key(b)
			}
			r.list.fromSeq(5, &m)
		}
	})
}

func FuzzHeaders(f *testing.F) {
	h := goldenHeader()
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		_, _ = decodeSegmentHeader(p)
		_, _ = decodeCommitHead(p, magicHead, 1)
		_, _ = decodeFooter(p, 1)
		_ = Counts(p)
		_ = decodeRanges(p)
	})
}

// memFile is a file of bytes, to read only.
type memFile []byte

func (m memFile) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }
func (m memFile) WriteAt([]byte, int64) (int, error)      { return 0, os.ErrPermission }
func (m memFile) Sync() error                             { return nil }
func (m memFile) Resize(int64) error                      { return os.ErrPermission }
func (m memFile) Close() error                            { return nil }
