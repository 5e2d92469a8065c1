package kafka

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
)

// wire is a network before a broker that flips one bit in every second answer
// to a Fetch that holds records. It takes the answers apart as the broker
// wrote them (version 10, which the program asks for), so that it hits each of
// places in turn.
type wire struct {
	net.Listener
	to string // the broker

	mu      sync.Mutex
	rnd     *rand.Rand
	records map[string]int // answers with records, by topic
	flipped map[string]int // by topic and place
	conns   map[net.Conn]bool
}

// places are where a bit is flipped. No CRC covers the first two.
var places = []string{"answer's head", "base offset", "batch's head", "records"}

const fetchKey, fetchVersion, batchHead = 1, 10, 61

func newWire(t *testing.T, seed uint64) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l, rnd: rand.New(rand.NewPCG(seed, 0)), records: map[string]int{}, flipped: map[string]int{}, conns: map[net.Conn]bool{}}
	return w
}

// serve leads connections to a broker until the test ends.
func (w *wire) serve(t *testing.T, broker string) {
	w.to = broker
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := w.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.lead(c) })
		}
	})
	t.Cleanup(func() {
		_ = w.Close() // ends Accept
		w.mu.Lock()
		for c := range w.conns {
			_ = c.Close() // whoever used it has ended
		}
		w.mu.Unlock()
		all.Wait()
	})
}

// least is how often the place that was hit least was hit in a topic.
func (w *wire) least(topic string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.flipped[topic+": "+places[0]]
	for _, p := range places {
		n = min(n, w.flipped[topic+": "+p])
	}
	return n
}

// said is how many bits were flipped, and where.
func (w *wire) said() (n int, where string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(w.flipped)) {
		n += w.flipped[k]
		parts = append(parts, fmt.Sprintf("%s %d", k, w.flipped[k]))
	}
	return n, strings.Join(parts, ", ")
}

// lead carries one connection.
func (w *wire) lead(c net.Conn) {
	up, err := net.Dial("tcp", w.to)
	if err != nil {
		_ = c.Close() // as if nobody listened
		return
	}
	w.mu.Lock()
	w.conns[c], w.conns[up] = true, true
	w.mu.Unlock()
	var asked sync.Map // correlation ids of what was fetched
	var both sync.WaitGroup
	both.Go(func() {
		defer up.Close()
		carry(up, c, func(b []byte) {
			if len(b) >= 12 && binary.BigEndian.Uint16(b[4:]) == fetchKey && binary.BigEndian.Uint16(b[6:]) == fetchVersion {
				asked.Store(binary.BigEndian.Uint32(b[8:]), true)
			}
		})
	})
	both.Go(func() {
		defer c.Close()
		carry(c, up, func(b []byte) {
			if len(b) < 8 {
				return
			}
			if _, ok := asked.LoadAndDelete(binary.BigEndian.Uint32(b[4:])); ok {
				w.flip(b)
			}
		})
	})
	both.Wait()
	w.mu.Lock()
	delete(w.conns, c)
	delete(w.conns, up)
	w.mu.Unlock()
}

// carry hands on one message after the other, each with its length before it.
func carry(to io.Writer, from io.Reader, look func(message []byte)) {
	for {
		var size [4]byte
		if _, err := io.ReadFull(from, size[:]); err != nil {
			return
		}
		b := make([]byte, 4+binary.BigEndian.Uint32(size[:]))
		copy(b, size[:])
		if _, err := io.ReadFull(from, b[4:]); err != nil {
			return
		}
		look(b)
		if _, err := to.Write(b); err != nil {
			return
		}
	}
}

// flip changes one bit of every second answer that holds records.
func (w *wire) flip(b []byte) {
	topic, at := records(b)
	if len(b)-at <= batchHead {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.records[topic]++; w.records[topic]%2 == 0 {
		return
	}
	place := places[w.records[topic]/2%len(places)]
	from, to := 4, at // behind the length: the correlation id and all before the records
	if place != places[0] {
		batch, end := w.batch(b, at)
		switch place {
		case "base offset":
			from, to = batch, batch+8
		case "batch's head":
			from, to = batch+8, batch+batchHead
		default:
			from, to = batch+batchHead, end
		}
	}
	b[from+w.rnd.IntN(to-from)] ^= 1 << w.rnd.IntN(8)
	w.flipped[topic+": "+place]++
}

// records gives the topic of a Fetch answer and where its records begin.
func records(b []byte) (topic string, at int) {
	be := binary.BigEndian
	if len(b) < 24 {
		return "", len(b)
	}
	at = 4 + 4 + 4 + 2 + 4 + 4 // length, correlation, throttle, error, session, topics
	n := int(be.Uint16(b[at:]))
	if at+2+n+42 > len(b) {
		return "", len(b) // an error, and no topic
	}
	topic = string(b[at+2 : at+2+n])
	at += 2 + n + 4 + 4 + 2 + 3*8 // partitions, partition, error, three offsets
	aborted := max(int(int32(be.Uint32(b[at:]))), 0)
	return topic, min(at+4+16*aborted+4, len(b))
}

// batch chooses one of the batches that begin at a place, and gives where it lies.
func (w *wire) batch(b []byte, at int) (from, to int) {
	var starts []int
	for at+batchHead < len(b) {
		end := at + 12 + int(binary.BigEndian.Uint32(b[at+8:]))
		if end > len(b) {
			break
		}
		starts = append(starts, at)
		at = end
	}
	if len(starts) == 0 {
		return at, len(b)
	}
	from = starts[w.rnd.IntN(len(starts))]
	return from, from + 12 + int(binary.BigEndian.Uint32(b[from+8:]))
}
