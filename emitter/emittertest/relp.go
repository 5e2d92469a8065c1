package emittertest

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"net"
	"strings"
	"sync"

	"datasync/emitter/relp"
)

// Act is what a RELP receiver does with a record.
type Act uint8

// The acts.
const (
	Take     Act = iota // store it, then say 200
	AckDie              // say 200, then die before it is stored
	StoreDie            // store it, then die before it says so
	Reject              // say 500
	Silent              // say nothing, for ever
	Goodbye             // say serverclose instead, and close in order
)

// RELPOptions configures a RELP receiver; the zero value takes everything.
type RELPOptions struct {
	Certs    *CertSet // nil: a new set
	ClientCA bool     // demand a client certificate of Certs.CA
	// Each says what to do with the n-th record received (from 1, over all
	// connections); nil takes all. One call at a time.
	Each func(n int, record string) Act
	// Opening is the answer to open; "" is the usual, "serverclose" that.
	Opening string
}

// RELP is a receiver that speaks RELP over TLS on loopback.
type RELP struct {
	t    TB
	o    RELPOptions
	cfg  *tls.Config
	addr string

	mu       sync.Mutex
	listener net.Listener
	conns    map[*net.TCPConn]bool
	received int
	acked    int // records, over all connections
	records  []string
	sessions [][]string // what each session received
	closed   int        // sessions that the client closed in order

	wg sync.WaitGroup
}

// NewRELP starts a receiver on a free port; it stops with the test.
func NewRELP(t TB, o RELPOptions) *RELP {
	t.Helper()
	if o.Certs == nil {
		set := Certs(t)
		o.Certs = &set
	}
	if o.Opening == "" {
		o.Opening = "200 OK\nrelp_version=0\nrelp_software=emittertest\ncommands=syslog"
	}
	cfg, err := o.Certs.Server(o.ClientCA)
	if err != nil {
		t.Fatalf("%v", err)
	}
	r := &RELP{t: t, o: o, cfg: cfg, addr: "127.0.0.1:0", conns: map[*net.TCPConn]bool{}}
	r.Start()
	t.Cleanup(func() { r.Stop(); r.wg.Wait() })
	return r
}

// Addr is host:port; it stays the same over Stop and Start.
func (r *RELP) Addr() string { return r.addr }

// Certs are the certificates in use.
func (r *RELP) Certs() CertSet { return *r.o.Certs }

// Start listens (again).
func (r *RELP) Start() {
	r.t.Helper()
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		r.t.Fatalf("receiver: %v", err)
	}
	r.addr = l.Addr().String()
	r.mu.Lock()
	r.listener = l
	r.mu.Unlock()
	r.wg.Add(1)
	go func() {
		defer r.wg.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Add(1)
			go r.serve(c.(*net.TCPConn))
		}
	}()
}

// Stop stops listening and ends all connections as the kernel does for a killed process.
func (r *RELP) Stop() {
	r.mu.Lock()
	l := r.listener
	r.listener = nil
	r.mu.Unlock()
	if l != nil {
		_ = l.Close() // its error would be that it is closed
	}
	r.Die()
}

// Die ends all connections as the kernel does for a killed process, and goes on listening.
func (r *RELP) Die() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close() // a dying receiver does not look at errors
	}
}

// Records are what was stored so far.
func (r *RELP) Records() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.records...)
}

// Acked counts the records that were answered by 200.
func (r *RELP) Acked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.acked
}

// Sessions are the records that each session received, taken or not.
func (r *RELP) Sessions() [][]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([][]string(nil), r.sessions...)
}

// Closed counts the sessions that the client closed in order.
func (r *RELP) Closed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *RELP) serve(tcp *net.TCPConn) {
	defer r.wg.Done()
	r.mu.Lock()
	r.conns[tcp] = true
	alive := r.listener != nil
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.conns, tcp)
		r.mu.Unlock()
		_ = tcp.Close() // closed before in most ways
	}()
	c := tls.Server(tcp, r.cfg)
	if !alive || c.Handshake() != nil {
		return
	}
	in := bufio.NewReader(c)
	session := -1
	for {
		f, err := relp.Read(in, 1<<20)
		if err != nil {
			return
		}
		answer := "200 OK"
		switch f.Command {
		case "open":
			r.mu.Lock()
			session = len(r.sessions)
			r.sessions = append(r.sessions, nil)
			r.mu.Unlock()
			if !bytes.Contains(f.Data, []byte("commands=syslog")) {
				answer = "500 what do you want"
			} else {
				answer = r.o.Opening
			}
			if answer == "serverclose" {
				_, _ = c.Write([]byte("0 serverclose 0\n")) // the client may be gone
				_ = c.Close()                               // as above
				return
			}
		case "syslog":
			var die bool
			if answer, die = r.record(session, string(f.Data)); die {
				if strings.HasPrefix(answer, "0 ") {
					_, _ = c.Write([]byte(answer)) // the client may be gone
					_ = c.Close()                  // as above
				} else if answer != "" {
					_, _ = c.Write(relp.AppendFrame(nil, f.Txn, "rsp", []byte(answer))) // as above
				}
				return
			}
		case "close":
			r.mu.Lock()
			r.closed++
			r.mu.Unlock()
			_, _ = c.Write(append(relp.AppendFrame(nil, f.Txn, "rsp", nil), "0 serverclose 0\n"...)) // as above
			_ = c.Close()                                                                            // as above
			return
		default:
			answer = "500 unknown command"
		}
		if answer == "" {
			continue
		}
		if _, err := c.Write(relp.AppendFrame(nil, f.Txn, "rsp", []byte(answer))); err != nil {
			return
		}
	}
}

// record takes a record in and says what to answer, and whether to die then.
func (r *RELP) record(session int, data string) (answer string, die bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received++
	r.sessions[session] = append(r.sessions[session], data)
	act := Take
	if r.o.Each != nil {
		act = r.o.Each(r.received, data)
	}
	switch act {
	case Reject:
		return "500 not this one", false
	case Silent:
		return "", false
	case StoreDie:
		r.records = append(r.records, data)
		return "", true
	case Goodbye:
		return "0 serverclose 0\n", true
	case AckDie:
		r.acked++
		return "200 OK", true
	}
	r.acked++
	r.records = append(r.records, data)
	return "200 OK", false
}
