package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"datasync/feeds"
)

// The format on disk, version 1. All numbers are little-endian.
//
//	segment  = header (1024) · commit … commit · [ index · footer (128) ]   sealed
//	         = header (1024) · commit … commit · zeros (preallocated)       active
//	header   = the same 256 bytes twice, at 0 and at 512 (segmentHeader)
//	commit   = head (96) · directory · facts · blocks · tail (96)
//	           the tail is the head again under another magic: a flipped bit in
//	           one of them costs nothing, and a whole tail proves a whole write
//	directory, facts = frames: uvarint length · body · CRC32C(body) (4)
//	           a damaged frame is passed over and the next one found by its CRC
//	block    = one tenant's events, whole lines, laid end to end (codec 0) or
//	           one zstd frame of them (codec 1)
//	index    = per tenant, by name: entries, offsets of the entries; then the
//	           table of tenants
//
// Version and magic stand first everywhere and are judged first: what a newer
// program wrote is said to be newer, not damaged.
const (
	formatVersion    = 1
	segmentHeaderLen = 1024
	headerCopy       = 256
	secondCopy       = 512
	commitHeadLen    = 96
	footerLen        = 128

	codecPlain = 0
	codecZstd  = 1

	frameSeed = 0x5eed // no run of zeros is a valid frame
	maxBlock  = 32 << 10
)

// Every magic begins with 0xFF, a byte that JSON text cannot hold.
var (
	magicSegment = []byte{0xFF, 'D', 'S', 's'}
	magicHead    = []byte{0xFF, 'D', 'S', 'c'}
	magicTail    = []byte{0xFF, 'D', 'S', 't'}
	magicFooter  = []byte{0xFF, 'D', 'S', 'f'}
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian

	errDamaged = errors.New("damaged")
	errNewer   = errors.New("written by a newer version of this program")
)

func crcOf(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

func crcSeeded(id uint64, p []byte) uint32 {
	return crc32.Update(uint32(id^id>>32), castagnoli, p)
}

// segmentHeader says what a segment is and what lies before it.
type segmentHeader struct {
	ID         uint64 // random; seeds the CRC of every commit head
	Journal    string // the store's id, six characters
	First      uint64 // number of the first commit that this segment may hold
	Generation uint32 // counts rewrites
	Created    int64  // ms UTC
	// The segment before: who it is, where its last durable commit ended and
	// which one that was. After a failed fsync (Failed) what lies behind that
	// end was never acknowledged and is ignored for ever.
	PrevID      uint64
	PrevEnd     int64
	PrevCommit  uint64
	Failed      bool
	Seq         feeds.Sequence // the last event number given out before
	Events      uint64         // events ever in the shard before
	Source      uint64
	DurableFrom uint64 // the last commit known durable when this was made
}

func (h *segmentHeader) encode() []byte {
	p := make([]byte, 0, segmentHeaderLen)
	p = append(p, magicSegment...)
	p = le.AppendUint32(p, formatVersion)
	p = le.AppendUint64(p, h.ID)
	p = append(p, fmt.Sprintf("%-8.8s", h.Journal)...)
	p = le.AppendUint64(p, h.First)
	p = le.AppendUint32(p, h.Generation)
	flags := uint32(0)
	if h.Failed {
		flags = 1
	}
	p = le.AppendUint32(p, flags)
	for _, v := range []uint64{uint64(h.Created), h.PrevID, uint64(h.PrevEnd), h.PrevCommit,
		uint64(h.Seq), h.Events, h.Source, h.DurableFrom} {
		p = le.AppendUint64(p, v)
	}
	p = append(p, make([]byte, headerCopy-4-len(p))...)
	p = le.AppendUint32(p, crcOf(p))
	p = append(p, make([]byte, secondCopy-headerCopy)...)
	p = append(p, p[:headerCopy]...)
	return append(p, make([]byte, segmentHeaderLen-len(p))...)
}

// decodeSegmentHeader takes whichever copy is whole. The version is judged
// first, by both copies, so that one flipped bit cannot pose as a newer format.
func decodeSegmentHeader(p []byte) (h segmentHeader, err error) {
	if len(p) < segmentHeaderLen {
		return h, errDamaged
	}
	a, b := le.Uint32(p[4:]), le.Uint32(p[secondCopy+4:])
	if bytes.Equal(p[:4], magicSegment) && a == b && a > formatVersion {
		return h, fmt.Errorf("segment of format %d: %w (this one reads up to %d)", a, errNewer, formatVersion)
	}
	for _, at := range []int{0, secondCopy} {
		c := p[at : at+headerCopy]
		if !bytes.Equal(c[:4], magicSegment) || crcOf(c[:headerCopy-4]) != le.Uint32(c[headerCopy-4:]) {
			continue
		}
		u := func(i int) uint64 { return le.Uint64(c[40+8*i:]) }
		return segmentHeader{
			ID: le.Uint64(c[8:]), Journal: string(bytes.TrimRight(c[16:24], " ")),
			First: le.Uint64(c[24:]), Generation: le.Uint32(c[32:]), Failed: le.Uint32(c[36:])&1 != 0,
			Created: int64(u(0)), PrevID: u(1), PrevEnd: int64(u(2)), PrevCommit: u(3),
			Seq: feeds.Sequence(u(4)), Events: u(5), Source: u(6), DurableFrom: u(7),
		}, nil
	}
	return h, errDamaged
}

// commitHead opens (and, as the tail, closes) a commit.
type commitHead struct {
	Flags     uint8
	Number    uint64
	Source    uint64
	Time      int64 // ms UTC
	First     feeds.Sequence
	Last      feeds.Sequence // the last event number given out, in this commit or before
	Before    uint64         // events ever in the shard before this commit
	Durable   uint64         // durable-through
	DirLen    uint32
	FactsLen  uint32
	BlocksLen uint32
	Blocks    uint32
	Events    uint32
	Facts     uint32
}

// flagCheckpoint marks a commit whose facts are a piece of a checkpoint;
// flagRewritten one of which only some blocks were kept.
const (
	flagCheckpoint = 1
	flagRewritten  = 2
)

// size is the length of the whole commit.
func (h *commitHead) size() int64 {
	return 2*commitHeadLen + int64(h.DirLen) + int64(h.FactsLen) + int64(h.BlocksLen)
}

// put writes the head (or tail) into p[:commitHeadLen].
func (h *commitHead) put(p []byte, magic []byte, segment uint64) {
	copy(p, magic)
	p[4], p[5], p[6], p[7] = formatVersion, h.Flags, 0, 0
	for i, v := range []uint64{h.Number, h.Source, uint64(h.Time), uint64(h.First), uint64(h.Last), h.Before, h.Durable} {
		le.PutUint64(p[8+8*i:], v)
	}
	for i, v := range []uint32{h.DirLen, h.FactsLen, h.BlocksLen, h.Blocks, h.Events, h.Facts, 0} {
		le.PutUint32(p[64+4*i:], v)
	}
	le.PutUint32(p[92:], crcSeeded(segment, p[:92]))
}

// decodeCommitHead reads a head or a tail at the start of p.
func decodeCommitHead(p, magic []byte, segment uint64) (h commitHead, err error) {
	if len(p) < commitHeadLen || !bytes.Equal(p[:4], magic) {
		return h, errDamaged
	}
	if crcSeeded(segment, p[:92]) != le.Uint32(p[92:]) {
		return h, errDamaged
	}
	if p[4] > formatVersion {
		return h, fmt.Errorf("commit of format %d: %w (this one reads up to %d)", p[4], errNewer, formatVersion)
	}
	u := func(i int) uint64 { return le.Uint64(p[8+8*i:]) }
	w := func(i int) uint32 { return le.Uint32(p[64+4*i:]) }
	return commitHead{
		Flags: p[5], Number: u(0), Source: u(1), Time: int64(u(2)),
		First: feeds.Sequence(u(3)), Last: feeds.Sequence(u(4)), Before: u(5), Durable: u(6),
		DirLen: w(0), FactsLen: w(1), BlocksLen: w(2), Blocks: w(3), Events: w(4), Facts: w(5),
	}, nil
}

func frameCRC(body []byte) uint32 { return crc32.Update(frameSeed, castagnoli, body) }

// frameAt gives the frame at the start of p and its whole length; nil where
// there is none that is whole.
func frameAt(p []byte) (body []byte, n int) {
	l, k := binary.Uvarint(p)
	if k <= 0 || l == 0 || l > uint64(len(p)) || uint64(len(p)-k) < l+4 {
		return nil, 0
	}
	body = p[k : k+int(l)]
	if frameCRC(body) != le.Uint32(p[k+int(l):]) {
		return nil, 0
	}
	return body, k + int(l) + 4
}

// frames calls f for every whole frame of p and says how many bytes belonged
// to none.
func frames(p []byte, f func(body []byte)) (lost int) {
	for len(p) > 0 {
		body, n := frameAt(p)
		if body == nil {
			p = p[1:]
			lost++
			continue
		}
		f(body)
		p = p[n:]
	}
	return lost
}

// blockMeta describes a block. Off is relative to the commit's blocks in a
// directory, absolute in an index.
type blockMeta struct {
	Off       int64
	Committed int64
	First     feeds.Sequence
	Events    uint32
	Bytes     uint32 // of the lines
	Stored    uint32 // on disk
	Held      Position
	MinTime   int64
	MaxTime   int64
	Codec     uint8
	CRC       uint32 // of the stored bytes
	Steps     []Step
	Kinds     []KindRun
}

// last is the number of the block's last event.
func (m *blockMeta) last() feeds.Sequence {
	s := m.First
	for i, st := range m.Steps {
		n := uint64(st.Count)
		if i == 0 {
			n--
		}
		s += feeds.Sequence(n * st.By)
	}
	return s
}

// end is the position behind the block's last event.
func (m *blockMeta) end() Position {
	return Position{Seq: m.last() + 1, Events: m.Held.Events + uint64(m.Events), Bytes: m.Held.Bytes + uint64(m.Bytes)}
}

// appendBlockTail encodes all but tenant and offset, the same in directories
// and indexes; the block's CRC stands first, so that it can be set when the
// bytes have been copied.
func appendBlockTail(p []byte, m *blockMeta) []byte {
	p = le.AppendUint32(p, m.CRC)
	p = append(p, m.Codec)
	for _, v := range []uint64{uint64(m.First), uint64(m.Events), uint64(m.Bytes), m.Held.Events, m.Held.Bytes} {
		p = binary.AppendUvarint(p, v)
	}
	if m.Codec != codecPlain {
		p = binary.AppendUvarint(p, uint64(m.Stored))
	}
	p = binary.AppendVarint(p, m.MinTime)
	p = binary.AppendUvarint(p, uint64(m.MaxTime-m.MinTime))
	p = binary.AppendUvarint(p, uint64(len(m.Steps)))
	for _, s := range m.Steps {
		if s.Count == 1 {
			p = binary.AppendUvarint(p, s.By<<1)
		} else {
			p = binary.AppendUvarint(p, s.By<<1|1)
			p = binary.AppendUvarint(p, uint64(s.Count))
		}
	}
	p = binary.AppendUvarint(p, uint64(len(m.Kinds)))
	for _, k := range m.Kinds {
		p = append(p, k.Kind)
		if len(m.Kinds) > 1 {
			p = binary.AppendUvarint(p, uint64(k.Events))
			p = binary.AppendUvarint(p, uint64(k.Bytes))
		}
	}
	return p
}

// reader of varints that remembers whether one was bad.
type fields struct {
	p   []byte
	bad bool
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.p)
	if n <= 0 {
		f.bad = true
		return 0
	}
	f.p = f.p[n:]
	return v
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.p)
	if n <= 0 {
		f.bad = true
		return 0
	}
	f.p = f.p[n:]
	return v
}

func (f *fields) u32() uint32 {
	v := f.uvarint()
	if v > 1<<32-1 {
		f.bad = true
	}
	return uint32(v)
}

func (f *fields) take(n int) []byte {
	if n < 0 || n > len(f.p) {
		f.bad = true
		return make([]byte, min(max(n, 0), 16))
	}
	p := f.p[:n]
	f.p = f.p[n:]
	return p
}

// blockTail decodes into m, reusing its slices. The counts are checked against
// each other, so that no reader can be led outside a block.
func (f *fields) blockTail(m *blockMeta) {
	m.CRC = le.Uint32(f.take(4))
	m.Codec = f.take(1)[0]
	m.First = feeds.Sequence(f.uvarint())
	m.Events, m.Bytes = f.u32(), f.u32()
	m.Held = Position{Seq: m.First, Events: f.uvarint(), Bytes: f.uvarint()}
	m.Stored = m.Bytes
	if m.Codec != codecPlain {
		m.Stored = f.u32()
	}
	m.MinTime = f.varint()
	m.MaxTime = m.MinTime + int64(f.uvarint())
	m.Steps, m.Kinds = m.Steps[:0], m.Kinds[:0]
	n := f.uvarint()
	if n > uint64(len(f.p)) {
		f.bad = true
		return
	}
	sum := uint64(0)
	for range n {
		v := f.uvarint()
		s := Step{Count: 1, By: v >> 1}
		if v&1 != 0 {
			s.Count = f.u32()
		}
		sum += uint64(s.Count)
		m.Steps = append(m.Steps, s)
	}
	f.kinds(m)
	if sum != uint64(m.Events) || m.Events == 0 || m.Steps[0].Count == 0 || m.Codec > codecZstd {
		f.bad = true
	}
}

func (f *fields) kinds(m *blockMeta) {
	n := f.uvarint()
	if n == 0 || n > uint64(len(f.p)) {
		f.bad = true
		return
	}
	if n == 1 {
		m.Kinds = append(m.Kinds, KindRun{Kind: f.take(1)[0], Events: m.Events, Bytes: m.Bytes})
		return
	}
	events, size := uint64(0), uint64(0)
	for range n {
		k := KindRun{Kind: f.take(1)[0], Events: f.u32(), Bytes: f.u32()}
		events += uint64(k.Events)
		size += uint64(k.Bytes)
		m.Kinds = append(m.Kinds, k)
	}
	if events != uint64(m.Events) || size != uint64(m.Bytes) {
		f.bad = true
	}
}

// decodeDirEntry reads one frame of a directory; tail is the part that an
// index shares.
func decodeDirEntry(body []byte, m *blockMeta) (tenant, tail []byte, err error) {
	f := fields{p: body}
	tenant = f.take(int(min(f.uvarint(), 255)))
	m.Off = int64(f.uvarint() & (1<<40 - 1))
	tail = f.p
	f.blockTail(m)
	if f.bad || len(f.p) != 0 {
		return nil, nil, errDamaged
	}
	return tenant, tail, nil
}

// decodeIndexEntry reads the entry of an index at the start of p.
func decodeIndexEntry(p []byte, m *blockMeta) error {
	f := fields{p: p}
	m.Off = int64(f.uvarint())
	m.Committed = f.varint()
	f.blockTail(m)
	if f.bad {
		return errDamaged
	}
	return nil
}

// footer ends a sealed segment.
type footer struct {
	IndexOff   int64
	IndexLen   uint32
	TableOff   uint32 // within the index
	Tenants    uint32
	IndexCRC   uint32
	Commit     uint64 // the last one
	Last       feeds.Sequence
	Time       int64
	Events     uint64 // events ever in the shard, these included
	Source     uint64
	Checkpoint uint64 // the first commit of the last whole checkpoint in it, 0 for none
	Stored     uint64 // bytes of blocks
}

func (t *footer) encode(segment uint64) []byte {
	p := append(make([]byte, 0, footerLen), magicFooter...)
	p = le.AppendUint32(p, formatVersion)
	p = le.AppendUint64(p, uint64(t.IndexOff))
	for _, v := range []uint32{t.IndexLen, t.TableOff, t.Tenants, t.IndexCRC} {
		p = le.AppendUint32(p, v)
	}
	for _, v := range []uint64{t.Commit, uint64(t.Last), uint64(t.Time), t.Events, t.Source, t.Checkpoint, t.Stored} {
		p = le.AppendUint64(p, v)
	}
	p = append(p, make([]byte, footerLen-4-len(p))...)
	return le.AppendUint32(p, crcSeeded(segment, p))
}

func decodeFooter(p []byte, segment uint64) (t footer, err error) {
	if len(p) != footerLen || !bytes.Equal(p[:4], magicFooter) || crcSeeded(segment, p[:footerLen-4]) != le.Uint32(p[footerLen-4:]) {
		return t, errDamaged
	}
	if v := le.Uint32(p[4:]); v > formatVersion {
		return t, fmt.Errorf("index of format %d: %w (this one reads up to %d)", v, errNewer, formatVersion)
	}
	u := func(i int) uint64 { return le.Uint64(p[32+8*i:]) }
	return footer{IndexOff: int64(le.Uint64(p[8:])), IndexLen: le.Uint32(p[16:]), TableOff: le.Uint32(p[20:]),
		Tenants: le.Uint32(p[24:]), IndexCRC: le.Uint32(p[28:]), Commit: u(0), Last: feeds.Sequence(u(1)), Time: int64(u(2)),
		Events: u(3), Source: u(4), Checkpoint: u(5), Stored: u(6)}, nil
}
