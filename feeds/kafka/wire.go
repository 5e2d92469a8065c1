package kafkafeed

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// Fetch, version 10 (the first with zstd, Kafka 2.1; brokers up to 4 know it):
//
//	request   size · key 1 · version 10 · correlation · client id
//	          replica -1 · max wait ms · min bytes · max bytes · isolation · session 0 · epoch -1
//	          [topic [partition · leader epoch -1 · offset · log start -1 · max bytes]] · [] forgotten
//	response  size · correlation · throttle ms · error · session
//	          [topic [partition · error · high watermark · last stable · log start ·
//	                  [producer · first offset] aborted · records]]
//
// int8, int16, int32 and int64 are big endian, a string has an int16 length,
// an array an int32 count, records an int32 length; -1 is null.
const (
	fetchKey     = 1
	fetchVersion = 10
	committed    = 1 // isolation: what was aborted is not given as if it were true

	// maxFetch is how much of a partition is asked for at once; a broker gives
	// more where one record batch is larger.
	maxFetch = 1 << 20
	// maxResponse is the largest response that is taken.
	maxResponse = 256 << 20
	// answerIn is how long a broker may take beyond the wait it was allowed.
	answerIn = 10 * time.Second
)

// errGarbled is an answer that makes no sense: the connection is given up and
// the same is asked for again.
var errGarbled = errors.New("the broker's answer is damaged")

// fetcher fetches from the leader of one partition. One goroutine uses it.
type fetcher struct {
	conn      net.Conn
	address   string
	topic     string
	partition int32
	id        int32
	out       []byte
}

// response is the partition's part of a Fetch response. Its slices lie in the
// buffer that it was read into.
type response struct {
	err     error // what the broker says, a kafka.Error
	high    int64 // behind the last record
	aborted []aborted
	records []byte
}

// aborted is a transaction of which the records are not to be taken.
type aborted struct{ producer, first int64 }

// within gives what follows so much time; ctx ends it sooner.
func (f *fetcher) within(ctx context.Context, d time.Duration) error {
	if err := f.conn.SetDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	return ctx.Err() // it may have ended before the deadline was set
}

// ask sends a request; it is answered as soon as there are min bytes, or after wait.
func (f *fetcher) ask(offset int64, minBytes int, wait time.Duration) error {
	f.id++
	be := binary.BigEndian
	b := append(f.out[:0], 0, 0, 0, 0)
	b = be.AppendUint16(b, fetchKey)
	b = be.AppendUint16(b, fetchVersion)
	b = be.AppendUint32(b, uint32(f.id))
	b = appendString(b, clientID)
	b = be.AppendUint32(b, noID)
	b = be.AppendUint32(b, uint32(wait.Milliseconds()))
	b = be.AppendUint32(b, uint32(minBytes))
	b = be.AppendUint32(b, maxFetch)
	b = append(b, committed)
	b = be.AppendUint32(b, 0)    // session
	b = be.AppendUint32(b, noID) // and its epoch: none
	b = be.AppendUint32(b, 1)
	b = appendString(b, f.topic)
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, uint32(f.partition))
	b = be.AppendUint32(b, noID) // leader epoch
	b = be.AppendUint64(b, uint64(offset))
	b = be.AppendUint64(b, 1<<64-1) // log start: for followers
	b = be.AppendUint32(b, maxFetch)
	b = be.AppendUint32(b, 0)
	be.PutUint32(b, uint32(len(b)-4))
	f.out = b
	_, err := f.conn.Write(b)
	return err
}

const noID = 1<<32 - 1 // -1

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// size waits for the answer and gives its length.
func (f *fetcher) size() (int, error) {
	var b [4]byte
	if _, err := io.ReadFull(f.conn, b[:]); err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(b[:])
	if n < 4 || n > maxResponse {
		return 0, fmt.Errorf("%w: %d bytes long", errGarbled, n)
	}
	return int(n), nil
}

// read reads an answer of n bytes into buf and takes it apart. Room is made as
// the bytes come, so that a damaged length costs time and no memory.
func (f *fetcher) read(n int, buf *buffer) (response, error) {
	b := buf.wire[:0]
	for len(b) < n {
		had, step := len(b), min(n-len(b), max(len(b), 2*maxFetch))
		b = slices.Grow(b, step)[:had+step]
		buf.wire = b
		if _, err := io.ReadFull(f.conn, b[had:]); err != nil {
			return response{}, err
		}
	}
	return f.parse(b)
}

func (f *fetcher) parse(b []byte) (response, error) {
	c := cursor{b: b}
	id := c.int32()
	c.skip(4)
	if code := c.int16(); code != 0 && !c.bad {
		return response{err: kafka.Error(code)}, nil
	}
	c.skip(4)
	topics, topic := c.int32(), c.string()
	partitions, partition := c.int32(), c.int32()
	code := c.int16()
	r := response{high: c.int64()}
	c.skip(16)
	for range max(c.int32(), 0) {
		if c.bad {
			break
		}
		r.aborted = append(r.aborted, aborted{c.int64(), c.int64()})
	}
	r.records = c.bytes(int(c.int32()))
	switch {
	case c.bad || len(c.b) != 0:
		return response{}, fmt.Errorf("%w: it ends at the wrong place", errGarbled)
	case id != f.id || topics != 1 || topic != f.topic || partitions != 1 || partition != f.partition:
		return response{}, fmt.Errorf("%w: it answers something else", errGarbled)
	case code != 0:
		r.err = kafka.Error(code)
	}
	return r, nil
}

// cursor reads from the front of b; bad says that there was not enough of it.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) bytes(n int) []byte {
	if n < 0 { // null
		return nil
	}
	if n > len(c.b) {
		c.b, c.bad = nil, true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) skip(n int) { c.bytes(n) }

func (c *cursor) int16() int16 {
	if b := c.bytes(2); len(b) == 2 {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) int32() int32 {
	if b := c.bytes(4); len(b) == 4 {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (c *cursor) int64() int64 {
	if b := c.bytes(8); len(b) == 8 {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (c *cursor) string() string { return string(c.bytes(int(c.int16()))) }

// varint is a zigzag varint.
func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.b, c.bad = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}
