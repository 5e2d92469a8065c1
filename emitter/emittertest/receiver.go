package emittertest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Answer is what a receiver does when the sender has ended its side.
type Answer uint8

// The answers.
const (
	Orderly  Answer = iota // close_notify, then FIN
	BareFIN                // FIN without close_notify, as rsyslog's GnuTLS driver
	NoAnswer               // keeps the connection open
)

// Death is how connections end from the receiver's side.
type Death uint8

// The deaths.
const (
	Shutdown Death = iota // close_notify, then FIN (a reset where bytes lie unread)
	Kill                  // what the kernel does for a killed process: FIN, or a reset where bytes lie unread
	RST                   // a reset in any case
)

// Options configures a Receiver; the zero value is an orderly one.
type Options struct {
	Certs     *CertSet // nil: a new set
	ClientCA  bool     // demand a client certificate of Certs.CA
	Answer    Answer
	ReadSize  int           // bytes taken at a time; 0 is 64 KiB
	ReadPause time.Duration // after each read: a slow reader
	// StoreAfter is how long a line waits in the receiver's own memory before
	// it counts as received; a death loses what waits there.
	StoreAfter time.Duration
	OneAtATime bool // serves one connection after the other
	// RefuseSessions breaks off handshakes that offer to resume a session, as
	// OpenSSL does where no session id context is set.
	RefuseSessions bool
}

// Receiver is a TLS receiver of lines on loopback. Its methods may be called concurrently.
type Receiver struct {
	t    TB
	o    Options
	cfg  *tls.Config
	addr string

	mu          sync.Mutex
	answer      Answer
	listener    net.Listener
	conns       map[*session]bool
	lines       []string
	held        chan struct{} // non-nil: nobody reads until it is closed
	connections int
	memory      []stored      // with StoreAfter
	changed     chan struct{} // closed and renewed at every new line and connection
	life        chan struct{} // closed and renewed at every death but Shutdown

	wg sync.WaitGroup
}

type session struct {
	raw   *net.TCPConn
	tls   *tls.Conn
	dead  bool // guarded by Receiver.mu
	gone  chan struct{}
	shut  chan struct{} // closed: its reader is to store what it has and say goodbye
	ended chan struct{} // closed when it has
	life  chan struct{} // of the process that reads here
}

// New starts a receiver on a free port; it stops with the test.
func New(t TB, o Options) *Receiver {
	t.Helper()
	if o.Certs == nil {
		set := Certs(t)
		o.Certs = &set
	}
	if o.ReadSize == 0 {
		o.ReadSize = 64 << 10
	}
	cfg, err := o.Certs.Server(o.ClientCA)
	if err != nil {
		t.Fatalf("%v", err)
	}
	if o.RefuseSessions {
		cfg.UnwrapSession = func(ticket []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
			if len(ticket) == 0 { // a client of TLS 1.2 that has none yet
				return nil, nil
			}
			return nil, errors.New("sessions are refused")
		}
	}
	r := &Receiver{t: t, o: o, cfg: cfg, addr: "127.0.0.1:0", answer: o.Answer, conns: map[*session]bool{}, changed: make(chan struct{}), life: make(chan struct{})}
	r.Start()
	t.Cleanup(func() {
		r.Stop(RST)
		r.Release()
		r.wg.Wait()
	})
	return r
}

// Addr is host:port; it stays the same over Stop and Start.
func (r *Receiver) Addr() string { return r.addr }

// Certs are the certificates in use.
func (r *Receiver) Certs() CertSet { return *r.o.Certs }

// Start listens (again).
func (r *Receiver) Start() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.listen(); err != nil {
		r.t.Fatalf("receiver: %v", err)
	}
}

// listen opens the listener; mu is held.
func (r *Receiver) listen() error {
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		return err
	}
	r.addr, r.listener = l.Addr().String(), l
	r.wg.Add(1)
	go r.accept(l)
	return nil
}

// Stop stops listening and ends all connections by d.
func (r *Receiver) Stop(d Death) {
	r.mu.Lock()
	l := r.listener
	r.listener = nil
	r.mu.Unlock()
	if l != nil {
		_ = l.Close() // its error would be that it is closed
	}
	r.End(d)
}

// End ends all present connections by d and goes on listening. A process that
// dies takes those with it that it had not accepted yet.
func (r *Receiver) End(d Death) {
	r.mu.Lock()
	var all []*session
	var err error
	for s := range r.conns {
		if !s.dead {
			s.dead = true
			all = append(all, s)
		}
	}
	if d != Shutdown {
		close(r.life)
		r.life = make(chan struct{})
		if r.listener != nil {
			_ = r.listener.Close() // its error would be that it is closed
			err = r.listen()
		}
	}
	r.mu.Unlock()
	if err != nil {
		r.t.Fatalf("receiver: %v", err)
	}
	for _, s := range all {
		switch d {
		case Shutdown:
			// By its own reader: what a process has read it stores before it says
			// goodbye, and not behind what its successor got.
			close(s.shut)
			_ = s.raw.SetReadDeadline(time.Unix(1, 0)) // it only wakes the reader
		case RST:
			_ = s.raw.SetLinger(0) // as above
			_ = s.raw.Close()      // as above
		case Kill:
			_ = s.raw.Close() // as above
		}
		close(s.gone)
		if d == Shutdown {
			<-s.ended
		}
	}
}

// Hold stops all reading, new connections included, until Release.
func (r *Receiver) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == nil {
		r.held = make(chan struct{})
	}
}

// Release lets reading go on.
func (r *Receiver) Release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held != nil {
		close(r.held)
		r.held = nil
	}
}

// Set changes the answer to the sender's end.
func (r *Receiver) Set(a Answer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = a
}

// Lines are the whole lines received so far, over all connections, without their newlines.
func (r *Receiver) Lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.lines...)
}

// Connections counts handshakes completed.
func (r *Receiver) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.connections
}

// Wait waits until ok says yes, asked whenever a line or a connection came; it
// fails the test after limit.
func (r *Receiver) Wait(limit time.Duration, what string, ok func(lines, connections int) bool) {
	r.t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		r.mu.Lock()
		lines, connections, changed := len(r.lines), r.connections, r.changed
		r.mu.Unlock()
		if ok(lines, connections) {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.t.Fatalf("waited %v for %s: %d lines, %d connections", limit, what, lines, connections)
		}
	}
}

func (r *Receiver) accept(l net.Listener) {
	defer r.wg.Done()
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		tcp := nc.(*net.TCPConn)
		s := &session{raw: tcp, tls: tls.Server(tcp, r.cfg), gone: make(chan struct{}), shut: make(chan struct{}), ended: make(chan struct{})}
		r.mu.Lock()
		if r.listener != l {
			r.mu.Unlock()
			_ = tcp.SetLinger(0) // as the kernel does
			_ = tcp.Close()      // who accepted it is dead
			continue
		}
		r.conns[s], s.life = true, r.life
		r.mu.Unlock()
		r.wg.Add(1)
		serve := func() {
			defer r.wg.Done()
			r.serve(s)
		}
		if r.o.OneAtATime {
			serve()
		} else {
			go serve()
		}
	}
}

func (r *Receiver) serve(s *session) {
	defer func() {
		r.mu.Lock()
		delete(r.conns, s)
		r.mu.Unlock()
		if closed(s.shut) {
			_ = s.tls.Close() // a dying receiver does not look at errors
		}
		_ = s.raw.Close() // closed before in most ways
		close(s.ended)
	}()
	if err := s.tls.Handshake(); err != nil {
		return
	}
	r.mu.Lock()
	r.connections++
	r.tell()
	r.mu.Unlock()
	if !errors.Is(r.read(s), io.EOF) {
		return
	}
	r.mu.Lock()
	answer := r.answer
	r.mu.Unlock()
	switch answer {
	case Orderly:
		_ = s.tls.Close() // the sender may be gone
	case NoAnswer:
		<-s.gone
	case BareFIN:
	}
}

// read takes lines until the sender's end.
func (r *Receiver) read(s *session) error {
	buf := make([]byte, r.o.ReadSize)
	var part []byte
	for {
		r.mu.Lock()
		held := r.held
		r.mu.Unlock()
		if held != nil {
			select {
			case <-held:
			case <-s.gone:
				return net.ErrClosed
			}
		}
		n, err := s.tls.Read(buf)
		part = r.take(s, append(part, buf[:n]...))
		if err != nil {
			return err
		}
		if r.o.ReadPause > 0 {
			select {
			case <-time.After(r.o.ReadPause):
			case <-s.gone:
				return net.ErrClosed
			}
		}
	}
}

// take stores the whole lines in b and returns the rest.
func (r *Receiver) take(s *session, b []byte) []byte {
	end := bytes.LastIndexByte(b, '\n')
	if end < 0 {
		return b
	}
	lines := bytes.Split(b[:end], []byte{'\n'})
	rest := append([]byte(nil), b[end+1:]...)
	store := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if closed(s.life) {
			return // what a dead process had read is lost
		}
		for _, l := range lines {
			r.lines = append(r.lines, string(l))
		}
		r.tell()
	}
	if r.o.StoreAfter == 0 {
		store()
		return rest
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.memory = append(r.memory, stored{time.Now().Add(r.o.StoreAfter), store, s.life})
	if len(r.memory) == 1 {
		r.wg.Add(1)
		go r.storeMemory()
	}
	return rest
}

// stored are lines that the receiver holds in its own memory until due.
type stored struct {
	due   time.Time
	store func()
	life  chan struct{} // closed: its process has died
}

// storeMemory stores what is held, in order, and ends when nothing is.
func (r *Receiver) storeMemory() {
	defer r.wg.Done()
	for {
		r.mu.Lock()
		first := r.memory[0]
		r.mu.Unlock()
		select {
		case <-first.life:
		case <-time.After(time.Until(first.due)):
			first.store()
		}
		r.mu.Lock()
		r.memory = r.memory[1:]
		done := len(r.memory) == 0
		r.mu.Unlock()
		if done {
			return
		}
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (r *Receiver) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}
