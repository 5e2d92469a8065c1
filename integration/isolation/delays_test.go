package isolation

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// load makes perSecond events a second of tenants at random, each with the
// time at which it was written.
func load(t *testing.T, s *harness.Service, tenants, perSecond int) *loader {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(s.Dir, "in", "load.ndjson"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l := &loader{end: make(chan struct{}), done: make(chan struct{})}
	write := func(who func(i int) int, n int) {
		var b bytes.Buffer
		for i := range n {
			b.WriteString(event(fmt.Sprintf("load-%d", l.sent.Add(1)), name(who(i)), fmt.Sprintf(`,"sent":%d`, time.Now().UnixMicro())) + "\n")
		}
		if _, err := f.Write(b.Bytes()); err != nil {
			t.Error(err)
		}
	}
	write(func(i int) int { return i + 1 }, tenants) // one of each
	rng := rand.New(rand.NewPCG(20, 1))
	go func() {
		defer close(l.done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-l.end:
				if err := f.Close(); err != nil {
					t.Error(err)
				}
				return
			case <-tick.C:
				write(func(int) int { return 1 + rng.IntN(tenants) }, perSecond/100)
			}
		}
	}()
	return l
}

// window is how long delays are put together for one p99.
const window = 500 * time.Millisecond

// delays are those of events of all tenants but the first two.
type delays struct {
	n       int
	windows map[int64][]time.Duration
}

// typical is the median of the windows' p99: a hiccup of the machine spoils
// one window, a sink that holds others up spoils most.
func (d *delays) typical() time.Duration {
	var p []time.Duration
	for _, w := range d.windows {
		slices.Sort(w)
		p = append(p, w[len(w)*99/100])
	}
	slices.Sort(p)
	if len(p) == 0 {
		return time.Hour // nothing arrived at all
	}
	return p[len(p)/2]
}

// tlsSink is a receiver in this process that notes when lines come.
type tlsSink struct {
	addr  string
	certs servers.Certs

	mu    sync.Mutex
	count map[string]int64
	into  *delays // nil: nobody measures
	conns int     // that brought a line
	mixed int     // that brought lines of two tenants
}

// listen starts it; it ends with the test.
func listen(t *testing.T, certs servers.Certs) *tlsSink {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.Cert, certs.Key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	k := &tlsSink{addr: ln.Addr().String(), certs: certs, count: map[string]int64{}}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go k.serve(c)
		}
	}()
	return k
}

func (k *tlsSink) sink() string {
	return fmt.Sprintf("  - name: siem\n    emitter: {address: %q, tls: {ca: %q}, rotate_every: 5m}\n", k.addr, k.certs.CA)
}

func (k *tlsSink) serve(c net.Conn) {
	defer c.Close()
	sc := bufio.NewScanner(c)
	sc.Buffer(make([]byte, 4<<10), 1<<20)
	owner, mixed := "", false
	for sc.Scan() {
		now := time.Now()
		line := sc.Bytes()
		_, rest, _ := bytes.Cut(line, []byte(`"tenant_id":"`))
		who, _, _ := bytes.Cut(rest, []byte(`"`))
		k.mu.Lock()
		switch {
		case owner == "":
			owner = string(who)
			k.conns++
		case owner != string(who) && !mixed:
			mixed = true
			k.mixed++
		}
		k.mu.Unlock()
		_, rest, timed := bytes.Cut(line, []byte(`"sent":`))
		k.mu.Lock()
		k.count[string(who)]++
		if d := k.into; timed && d != nil && string(who) > name(2) {
			if us, err := strconv.ParseInt(string(rest[:bytes.IndexAny(rest, ",}")]), 10, 64); err == nil {
				d.n++
				at := us / window.Microseconds()
				d.windows[at] = append(d.windows[at], now.Sub(time.UnixMicro(us)))
			}
		}
		k.mu.Unlock()
	}
}

// of is how many events of a tenant came.
func (k *tlsSink) of(tenant string) int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count[tenant]
}

// until waits until something came for so many tenants.
func (k *tlsSink) until(t *testing.T, tenants int) {
	t.Helper()
	harness.Until(t, time.Minute, "connection of every tenant", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.count) >= tenants
	})
}

// during measures while something is done.
func (k *tlsSink) during(do func()) *delays {
	d := &delays{windows: map[int64][]time.Duration{}}
	k.mu.Lock()
	k.into = d
	k.mu.Unlock()
	do()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.into = nil
	return d
}

// measure adds what comes within a while to what was measured under a name.
func (k *tlsSink) measure(t *testing.T, for_ time.Duration, into map[string]*delays, what string) {
	t.Helper()
	d := k.during(func() { harness.Pause(for_) })
	if was := into[what]; was != nil {
		was.n += d.n
		for at, w := range d.windows {
			was.windows[at] = append(was.windows[at], w...)
		}
		return
	}
	into[what] = d
}

// trouble is a server that is dead in one of the ways.
type trouble struct {
	addr string
	way  atomic.Value // string
	hits atomic.Int64
}

func newTrouble(t *testing.T, certs servers.Certs) *trouble {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(certs.Cert, certs.Key)
	if err != nil {
		t.Fatal(err)
	}
	b := &trouble{addr: ln.Addr().String()}
	b.way.Store(ways[0])
	over := make(chan struct{})
	t.Cleanup(func() { close(over); _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.hits.Add(1)
			go func() {
				defer c.Close()
				b.play(c, &tls.Config{Certificates: []tls.Certificate{pair}}, over)
			}()
		}
	}()
	return b
}

// play is one connection; errors of it are what it is for.
func (b *trouble) play(c net.Conn, conf *tls.Config, over <-chan struct{}) {
	way := b.way.Load().(string)
	if way == "blackhole" { // taken, and never read
		<-over
		return
	}
	r := bufio.NewReader(c)
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	if first[0] == 0x16 && way == "TLS failure" {
		_, _ = io.WriteString(c, "\x15\x03\x03\x00\x02\x02\x28") // alert: handshake failure
		return
	}
	var peer io.ReadWriter = struct {
		io.Reader
		io.Writer
	}{r, c}
	if first[0] == 0x16 {
		peer = tls.Server(&peeked{c, r}, conf)
	}
	if way == "drip" { // a byte a second, both ways
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for _, reply := range []byte("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n") {
			var one [1]byte
			if _, err := peer.Read(one[:]); err != nil {
				return
			}
			if first[0] != 0x16 {
				if _, err := peer.Write([]byte{reply}); err != nil {
					return
				}
			}
			select {
			case <-tick.C:
			case <-over:
				return
			}
		}
		return
	}
	if req, err := http.ReadRequest(bufio.NewReader(peer)); err == nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(peer, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
	}
}

// peeked is a connection of which a byte was looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

// Read reads what was looked at first.
func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }
