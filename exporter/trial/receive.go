package trial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ReceiveOptions configures a Receiver. Listen, Cert and Key are required.
type ReceiveOptions struct {
	Listen    string // host:port; port 0 takes a free one, and keeps it over Cut and Start
	Cert, Key string // PEM files
	ClientCA  string // PEM file; demands a client certificate signed by it
	// Framing is "lines" (also "") or "octet-counted" (RFC 5425). Of a frame the
	// message is written as one line; newlines inside it become "#012", as
	// syslog servers do.
	Framing string
	// Out is the file the lines go to: made at the start, appended to where it
	// exists (a half line at its end, from a crash, is cut: it was never
	// confirmed). "" writes to Stdout.
	Out    string
	Stdout io.Writer // nil: os.Stdout
	// Report is told of connections that failed, one at a time; nil: nobody is.
	Report func(error)
}

// Counts is what a Receiver has seen since it was made.
type Counts struct {
	Connections, Refused uint64 // Refused: the TLS handshake failed
	Lines, Bytes         uint64 // written, newlines included
	Unfinished           uint64 // lines or frames begun and not finished by their sender: not written
	Ends                 uint64 // orderly ends answered
}

// Receiver is a TLS receiver of lines that keeps the promise an emitter relies
// on: it answers the end of a connection only when all of it is on disk. Cut and
// Start may alternate; methods may be called concurrently except those two.
type Receiver struct {
	o   ReceiveOptions
	cfg *tls.Config
	out *output

	mu       sync.Mutex
	addr     string
	listener net.Listener
	conns    map[*net.TCPConn]*tls.Conn

	wg                                   sync.WaitGroup
	connections, refused, ends, unfinish atomic.Uint64
}

const (
	handshakeLimit = 10 * time.Second
	readSize       = 64 << 10
	maxLine        = 1 << 20 // an event is at most 256 KiB
)

// NewReceiver reads the certificates and makes the file; Start makes it listen.
func NewReceiver(o ReceiveOptions) (*Receiver, error) {
	if o.Framing != "" && o.Framing != "lines" && o.Framing != "octet-counted" {
		return nil, fmt.Errorf("receiver: framing %q: it is lines or octet-counted", o.Framing)
	}
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	if err != nil {
		return nil, fmt.Errorf("receiver: reading certificate %s and key %s: %w", o.Cert, o.Key, err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if o.ClientCA != "" {
		pem, err := os.ReadFile(o.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("receiver: reading the client CA: %w", err)
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("receiver: client CA %s: no certificate in it", o.ClientCA)
		}
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	out, err := openOutput(o.Out, o.Stdout)
	if err != nil {
		return nil, err
	}
	return &Receiver{o: o, cfg: cfg, out: out, addr: o.Listen, conns: map[*net.TCPConn]*tls.Conn{}}, nil
}

// Start listens, again after Cut.
func (r *Receiver) Start() error {
	l, err := net.Listen("tcp", r.Addr())
	if err != nil {
		return fmt.Errorf("receiver: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addr, r.listener = l.Addr().String(), l
	r.wg.Add(1)
	go r.accept(l)
	return nil
}

// Addr is the address listened on.
func (r *Receiver) Addr() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addr
}

// Counts is what came so far.
func (r *Receiver) Counts() Counts {
	c := Counts{Connections: r.connections.Load(), Refused: r.refused.Load(), Unfinished: r.unfinish.Load(), Ends: r.ends.Load()}
	c.Lines, c.Bytes = r.out.counts()
	return c
}

// Cut goes away as a crashed process does: nobody listens, all connections are
// reset. What was written stays in the file.
func (r *Receiver) Cut() { r.end(true) }

// Close stops listening, ends the connections in good order and closes the file, synced.
func (r *Receiver) Close() error {
	r.end(false)
	return r.out.close()
}

func (r *Receiver) end(reset bool) {
	r.mu.Lock()
	l := r.listener
	r.listener = nil
	conns := maps.Clone(r.conns)
	r.mu.Unlock()
	if l != nil {
		_ = l.Close() // its error would be that it is closed
	}
	orderly := !reset && r.out.sync() == nil // close repeats the error
	for c, t := range conns {
		if orderly {
			_ = t.Close() // close_notify tells the sender that what we read is kept
			continue
		}
		_ = c.SetLinger(0) // the connection is given up
		_ = c.Close()      // as above
	}
	r.wg.Wait()
}

func (r *Receiver) accept(l net.Listener) {
	defer r.wg.Done()
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, or a connection that died in the queue.
			r.report(fmt.Errorf("receiver: accepting: %w", err))
			time.Sleep(10 * time.Millisecond)
			continue
		}
		c, ok := nc.(*net.TCPConn)
		if !ok {
			_ = nc.Close() // a TCP listener makes no other
			continue
		}
		t := tls.Server(c, r.cfg)
		if !r.keep(c, t, l) {
			_ = c.Close() // ended meanwhile
			continue
		}
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			defer r.drop(c)
			r.serve(c, t)
		}()
	}
}

func (r *Receiver) keep(c *net.TCPConn, t *tls.Conn, l net.Listener) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != l {
		return false
	}
	r.conns[c] = t
	return true
}

func (r *Receiver) drop(c *net.TCPConn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	_ = c.Close() // closed before in most ways
}

func (r *Receiver) serve(c *net.TCPConn, t *tls.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeLimit)
	err := t.HandshakeContext(ctx)
	cancel()
	if err != nil {
		r.refused.Add(1)
		r.report(fmt.Errorf("receiver: TLS handshake with %s: %w", c.RemoteAddr(), err))
		return
	}
	r.connections.Add(1)
	rest, err := r.read(t)
	if len(rest) > 0 {
		r.unfinish.Add(1)
	}
	if !errors.Is(err, io.EOF) {
		if !errors.Is(err, net.ErrClosed) {
			_ = c.SetLinger(0) // no answer: the sender sends again
			r.report(fmt.Errorf("receiver: reading from %s: %w", c.RemoteAddr(), err))
		}
		return
	}
	// promise: the end is answered only after everything before it is on disk.
	if err := r.out.sync(); err != nil {
		_ = c.SetLinger(0) // as above
		r.report(err)
		return
	}
	r.ends.Add(1)
	_ = t.Close() // the sender may be gone
}

// read writes what comes until the sender's end (io.EOF) and returns the
// unfinished rest.
func (r *Receiver) read(t *tls.Conn) (rest []byte, err error) {
	cut := cutLines
	if r.o.Framing == "octet-counted" {
		cut = cutFrames
	}
	buf := make([]byte, 0, 2*readSize)
	var lines []byte
	for {
		if cap(buf)-len(buf) < readSize {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
		n, rerr := t.Read(buf[len(buf) : len(buf)+readSize])
		buf = buf[:len(buf)+n]
		var used, count int
		lines, used, count, err = cut(lines[:0], buf)
		if werr := r.out.write(lines, count); werr != nil {
			return buf[used:], werr
		}
		buf = append(buf[:0], buf[used:]...)
		switch {
		case err != nil:
			return buf, err
		case rerr != nil:
			return buf, rerr
		case len(buf) > maxLine:
			return buf, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
	}
}

func (r *Receiver) report(err error) {
	if r.o.Report == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.o.Report(err)
}
