package receivers

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
)

// peerOptions is what a peer is told. A peer is a process of this test's own
// binary that can be killed, frozen and cut off like any other: a receiver, or
// where Proxy is set a layer 4 proxy to there.
type peerOptions struct {
	Netns, Listen string
	Cert, Key, CA string
	Out           string
	RcvBuf        int           // the kernel's receive buffer; 0 as it likes
	StoreAfter    time.Duration // it answers at once and stores later; 0: it stores before it reads on
	Proxy         string
}

const peerVariable = "DATASYNC_PEER"

func TestMain(m *testing.M) {
	if text := os.Getenv(peerVariable); text != "" {
		var o peerOptions
		check(json.Unmarshal([]byte(text), &o))
		if o.Proxy != "" {
			runProxy(&o)
		}
		runPeer(&o)
	}
	check(flag.Set("test.parallel", "64")) // tests that are parallel here wait more than they compute
	os.Exit(m.Run())
}

// peer is its process, as a test sees it.
type peer struct {
	t testing.TB
	o peerOptions
	*harness.Process
}

// Up starts it, again too. Emitters wait for it, so a test need not.
func (p *peer) Up() {
	p.t.Helper()
	text, err := json.Marshal(p.o)
	if err != nil {
		p.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), peerVariable+"="+string(text))
	p.Process = harness.Launch(p.t, "peer at "+p.o.Listen, harness.Within(p.o.Netns, cmd))
}

// What a receiver does when told.
const (
	holdOn   = syscall.SIGUSR1 // reads no more; the second time it goes on
	resetAll = syscall.SIGUSR2
	slowDown = syscall.SIGHUP
	endNow   = syscall.SIGTERM // in good order; where it holds, with what lies unread
)

// receiver is the receiver in its own process.
type receiver struct {
	o    *peerOptions
	cfg  *tls.Config
	out  *os.File
	slow atomic.Bool

	mu     sync.Mutex
	conns  map[*net.TCPConn]*tls.Conn
	number int
	held   chan struct{} // nil: it reads
	ending bool
	serve  sync.WaitGroup
	late   chan lateEntries
}

type lateEntries struct {
	at time.Time // when to store them
	b  []byte
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func runPeer(o *peerOptions) {
	told := make(chan os.Signal, 16)
	signal.Notify(told, holdOn, resetAll, slowDown, endNow)
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	check(err)
	ca, err := os.ReadFile(o.CA)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	r := &receiver{o: o, conns: map[*net.TCPConn]*tls.Conn{}, late: make(chan lateEntries, 1<<16),
		cfg: &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}}
	r.out, err = os.OpenFile(o.Out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(err)
	l, err := net.Listen("tcp", o.Listen)
	check(err)
	if o.RcvBuf > 0 { // of the connections to come, too
		raw, err := l.(*net.TCPListener).SyscallConn()
		check(err)
		check(raw.Control(func(fd uintptr) {
			check(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, o.RcvBuf))
		}))
	}
	go r.storeLate()
	go r.accept(l)
	for s := range told {
		r.do(s, l)
	}
}

func (r *receiver) do(s os.Signal, l net.Listener) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch s {
	case holdOn:
		if r.held == nil {
			r.held = make(chan struct{})
		} else {
			close(r.held)
			r.held = nil
		}
	case slowDown:
		r.slow.Store(true)
	case resetAll:
		for c := range r.conns {
			_ = c.SetLinger(0)
			_ = c.Close()
		}
	case endNow:
		_ = l.Close()
		r.ending = true
		for c, t := range r.conns {
			if r.held != nil {
				_ = t.Close() // goodbye, and a reset for what lies unread
				continue
			}
			_ = c.SetReadDeadline(time.Now()) // it stores what it has read, then ends
		}
		if r.held != nil {
			os.Exit(0)
		}
		go func() { r.serve.Wait(); os.Exit(0) }()
	}
}

func (r *receiver) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		check(err)
		c := nc.(*net.TCPConn)
		t := tls.Server(c, r.cfg)
		r.mu.Lock()
		r.number++
		r.conns[c] = t
		number := r.number
		ending := r.ending
		r.mu.Unlock()
		if ending {
			_ = c.Close()
			return
		}
		r.serve.Add(1)
		go func() {
			defer r.serve.Done()
			r.read(t, fmt.Sprintf("%d.%d", os.Getpid(), number))
			r.mu.Lock()
			delete(r.conns, c)
			r.mu.Unlock()
			_ = c.Close() // closed before in most ways
		}()
	}
}

// read stores what comes, whole lines of it, before it reads on.
func (r *receiver) read(t *tls.Conn, tag string) {
	var rest, entries []byte
	buf := make([]byte, 32<<10)
	for {
		r.mu.Lock()
		held := r.held
		r.mu.Unlock()
		if held != nil {
			<-held
		}
		b := buf
		if r.slow.Load() {
			<-time.After(10 * time.Millisecond)
			b = buf[:4<<10]
		}
		n, err := t.Read(b)
		rest = append(rest, b[:n]...)
		entries = entries[:0]
		for {
			line, after, whole := bytes.Cut(rest, []byte{'\n'})
			if !whole {
				break
			}
			entries = entry(entries, tag, line)
			rest = after
		}
		r.store(entries)
		rest = append([]byte(nil), rest...)
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) {
			_ = t.Close() // the answer to a drain, or our own end
			return
		}
		if err != nil {
			return
		}
	}
}

// entry is what is noted of a line: the connection, the event's id, and a hash
// of all its bytes. A million lines are files of gigabytes otherwise.
func entry(to []byte, tag string, line []byte) []byte {
	_, rest, _ := bytes.Cut(line, []byte(idHead))
	id, _, ok := bytes.Cut(rest, []byte(`"`))
	if !ok || !bytes.HasPrefix(line, []byte(head)) || !bytes.HasSuffix(line, []byte("}")) {
		id = []byte("torn")
	}
	h := fnv.New64a()
	_, _ = h.Write(line)
	return fmt.Appendf(to, "%s %s %x\n", tag, id, h.Sum64())
}

func (r *receiver) store(entries []byte) {
	switch {
	case len(entries) == 0:
	case r.o.StoreAfter > 0:
		r.late <- lateEntries{time.Now().Add(r.o.StoreAfter), append([]byte(nil), entries...)}
	default:
		_, err := r.out.Write(entries) // in one call: a kill leaves no half entry
		check(err)
	}
}

func (r *receiver) storeLate() {
	for e := range r.late {
		<-time.After(time.Until(e.at))
		_, err := r.out.Write(e.b)
		check(err)
	}
}
