package kafka

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// flipper is a network that flips one bit in every so many large answers.
type flipper struct {
	every int

	mu      sync.Mutex
	large   int
	flipped int
}

func (f *flipper) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	return flippingListener{l, f}, err
}

func (f *flipper) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flipped
}

type flippingListener struct {
	net.Listener
	f *flipper
}

func (l flippingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &flippingConn{c, l.f}, err
}

type flippingConn struct {
	net.Conn
	f *flipper
}

func (c *flippingConn) Write(b []byte) (int, error) {
	if len(b) < 10_000 { // no records in it
		return c.Conn.Write(b)
	}
	c.f.mu.Lock()
	c.f.large++
	flip := c.f.large%c.f.every == 0
	if flip {
		c.f.flipped++
	}
	c.f.mu.Unlock()
	if flip {
		b = bytes.Clone(b)
		at := rand.IntN(len(b))
		if rand.IntN(2) == 0 { // what no CRC covers lies near the front
			at = 4 + rand.IntN(120)
		}
		b[at] ^= 1 << rand.IntN(8)
	}
	return c.Conn.Write(b)
}

func decode(t *testing.T, line []byte) map[string]any {
	t.Helper()
	e := map[string]any{}
	if err := json.Unmarshal(line, &e); err != nil {
		t.Fatal(err)
	}
	return e
}
