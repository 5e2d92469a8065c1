package emitter

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"datasync/emitter/relp"
)

const (
	doConnect   = "connecting to"
	doHandshake = "TLS handshake with"
	doOpen      = "opening a RELP session with"
	doProbe     = "first drain of"
	doDrain     = "draining"
	doSend      = "sending to"
)

// dialed is what one attempt over all addresses came to.
type dialed struct {
	conn    *conn
	err     *Error
	learned []fact
}

type fact struct {
	address string
	answer  Answer
}

// connect tries the addresses in order. An endpoint whose answer to a drain is
// not known (or that gave none) is connected, drained empty and connected again:
// before the first byte goes out we know that its answer will mean something,
// and that it takes our certificate, which TLS 1.3 tells only after the handshake.
func (c *Client) connect(ctx context.Context) (d dialed) {
	for _, a := range c.o.Addresses {
		answer := c.answerOf(a)
		if c.o.Confirm != Drain {
			answer = AnswerNotify // its answer does not matter
		}
		if answer == AnswerUnknown || answer == AnswerNone {
			got, err := c.probe(ctx, a)
			if got != AnswerUnknown && got != answer {
				d.learned = append(d.learned, fact{a, got})
			}
			if err != nil {
				d.err = err
				continue
			}
		}
		if d.conn, d.err = c.dial(ctx, a, false); d.err == nil {
			return d
		}
	}
	return d
}

// Probe does with one address what a Client does before the first byte goes to
// one that it does not know: connect, shake hands, and drain empty (Drain) or
// open a session (Protocol). It tells how the address answered a drain. shaken, if not nil, is told when the handshake began
// and what came of it.
func Probe(ctx context.Context, o Options, address string, shaken func(began time.Time, s tls.ConnectionState, err error)) (Answer, *Error) {
	c, err := New(o)
	if err != nil {
		return AnswerUnknown, classify(doConnect, address, err, false, false)
	}
	c.shaken = shaken
	if o.Confirm != Drain {
		return AnswerUnknown, c.visit(ctx, address)
	}
	return c.probe(ctx, address)
}

// visitWait is how long a peer has to object to our certificate, which TLS 1.3
// tells only after the handshake.
const visitWait = 300 * time.Millisecond

// visit connects, opens the session where the protocol has one, and leaves again.
func (c *Client) visit(ctx context.Context, address string) *Error {
	k, err := c.dial(ctx, address, true)
	if err != nil {
		return err
	}
	timer := time.NewTimer(visitWait)
	defer timer.Stop()
	select {
	case e := <-k.over:
		<-k.finished
		cause := e.err
		if cause == nil {
			cause = errUnasked
		}
		return classify(doHandshake, address, cause, k.certAsked, !k.peer.ClientNotAfter.IsZero())
	case <-timer.C:
	case <-ctx.Done():
	}
	k.leave()
	return nil
}

// Certificate is the client certificate of t's files, nil where it names none.
// Files that cannot be used are told as at a connect.
func (t *TLS) Certificate() (*x509.Certificate, *Error) {
	cfg, err := load(t)
	if err != nil || len(cfg.Certificates) == 0 {
		return nil, err
	}
	return cfg.Certificates[0].Leaf, nil
}

// probe drains a connection that carried nothing.
func (c *Client) probe(ctx context.Context, address string) (Answer, *Error) {
	k, err := c.dial(ctx, address, true)
	if err != nil {
		return AnswerUnknown, err
	}
	k.drain()
	timer := time.NewTimer(c.o.DrainTimeout)
	defer timer.Stop()
	var cause error
	select {
	case e := <-k.over:
		<-k.finished
		if cause = e.proof(true); cause == nil {
			if e.notify {
				return AnswerNotify, nil
			}
			return AnswerFIN, nil
		}
	case <-timer.C:
		k.kill()
		return AnswerNone, classify(doProbe, address, errNoAnswer, false, false)
	case <-ctx.Done():
		k.kill()
		cause = ctx.Err()
	}
	return AnswerUnknown, classify(doProbe, address, cause, k.certAsked, !k.peer.ClientNotAfter.IsZero())
}

// dial connects; full asks for a handshake in which the peer sees our certificate again.
func (c *Client) dial(ctx context.Context, address string, full bool) (*conn, *Error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.DialTimeout)
	defer cancel()
	cfg, own, err := c.conf.get(&c.o.TLS)
	if err != nil {
		return nil, err
	}
	cfg = cfg.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName, _, _ = net.SplitHostPort(address) // checked by New
	}
	var offered *offering
	if c.conf.unresumed[address] {
		cfg.ClientSessionCache = nil
	} else {
		offered = &offering{ClientSessionCache: cfg.ClientSessionCache, none: full}
		cfg.ClientSessionCache = offered
	}
	k, err := c.attempt(ctx, address, cfg, own)
	if err == nil || err.Doing != doHandshake || offered == nil || !offered.any || ctx.Err() != nil {
		return k, err
	}
	// Some refuse the very session that they gave: OpenSSL servers that ask for
	// client certificates and set no session id context (rsyslog).
	cfg.ClientSessionCache = nil
	if k, err = c.attempt(ctx, address, cfg, own); err == nil {
		c.conf.unresumed[address] = true
	}
	return k, err
}

// offering notes whether the handshake offered a session to resume.
type offering struct {
	tls.ClientSessionCache
	none bool // none is to be offered; the one that the handshake brings is kept
	any  bool
}

// Get is tls.ClientSessionCache's.
func (o *offering) Get(key string) (*tls.ClientSessionState, bool) {
	if o.none {
		return nil, false
	}
	s, ok := o.ClientSessionCache.Get(key)
	o.any = ok && s != nil
	return s, ok
}

// attempt connects and shakes hands once; cfg is its own.
func (c *Client) attempt(ctx context.Context, address string, cfg *tls.Config, own time.Time) (*conn, *Error) {
	reach := c.o.Dial
	if reach == nil {
		reach = c.dialTCP
	}
	tcp, derr := reach(ctx, "tcp", address)
	if derr != nil {
		return nil, classify(doConnect, address, derr, false, false)
	}
	cfg = cfg.Clone()
	certAsked := false
	if get := cfg.GetClientCertificate; get != nil {
		cfg.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certAsked = true
			return get(r)
		}
	}
	w := &wire{Transport: tcp}
	t := tls.Client(w, cfg)
	began := time.Now()
	herr := t.HandshakeContext(ctx)
	if c.shaken != nil {
		c.shaken(began, t.ConnectionState(), herr)
	}
	if herr != nil {
		_ = w.Close() // the handshake's error is what counts
		if ctx.Err() != nil {
			herr = ctx.Err()
		}
		return nil, classify(doHandshake, address, herr, certAsked, !own.IsZero())
	}
	k := &conn{c: c, wire: w, tls: t, address: address, certAsked: certAsked, peer: describe(address, tcp, t.ConnectionState(), own)}
	if c.o.Confirm == Protocol {
		if serr := k.openSession(ctx); serr != nil {
			_ = w.Close() // the session's error is what counts
			if ctx.Err() != nil {
				serr = ctx.Err()
			}
			return nil, classify(doOpen, address, serr, certAsked, !own.IsZero())
		}
	}
	k.start()
	return k, nil
}

// dialTCP connects the kernel's way.
func (c *Client) dialTCP(ctx context.Context, network, address string) (Transport, error) {
	alive := keepAlive
	if c.o.Confirm == Window { // what the peer's kernel says in the quiet counts
		alive = min(alive, max(c.o.Tuning.Hold/2, time.Second))
	}
	dialer := net.Dialer{
		Control:         c.control,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: alive, Interval: alive, Count: 4},
	}
	nc, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is no TCP connection", nc), nc.Close())
	}
	return tcpConn{tcp}, nil
}

// openSession opens a RELP session, within ctx.
func (k *conn) openSession(ctx context.Context) (err error) {
	stop := context.AfterFunc(ctx, func() { _ = k.wire.SetReadDeadline(time.Unix(1, 0)) }) // the read ends by it
	defer stop()
	k.answers = bufio.NewReaderSize(k.tls, 4<<10)
	k.session, err = relp.Open(k.answers, k.tls)
	return err
}

// control tunes the socket and asks the owner whether it may connect.
func (c *Client) control(network, address string, raw syscall.RawConn) error {
	if c.o.Control != nil {
		if err := c.o.Control(network, address, raw); err != nil {
			return &refused{err}
		}
	}
	return tune(raw)
}

func describe(address string, tcp Transport, s tls.ConnectionState, own time.Time) Peer {
	p := Peer{
		Address: address, Remote: tcp.RemoteAddr().String(), Resumed: s.DidResume,
		Version: tls.VersionName(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite),
		ClientNotAfter: own,
	}
	if len(s.PeerCertificates) > 0 {
		leaf := s.PeerCertificates[0]
		p.Subject, p.Issuer, p.NotAfter = leaf.Subject.String(), leaf.Issuer.String(), leaf.NotAfter
	}
	return p
}

// configs keeps the TLS configuration, and with it the sessions to resume, until
// a file changes. One dial at a time uses it.
type configs struct {
	stamp string
	from  *tls.Config // what TLS.Config returned last
	cfg   *tls.Config
	own   time.Time // our certificate's NotAfter
	// unresumed are the addresses that refused a session which they had given.
	unresumed map[string]bool
}

func (c *configs) get(t *TLS) (*tls.Config, time.Time, *Error) {
	if t.Config != nil {
		from, err := t.Config()
		if err != nil {
			return nil, time.Time{}, &Error{Class: TLSVerify, Doing: "preparing", Address: "TLS", Err: err, Hint: "check the tls settings"}
		}
		if c.cfg == nil || from != c.from {
			c.from, c.cfg = from, from.Clone()
			c.finish(t)
		}
		return c.cfg, c.own, nil
	}
	stamp, err := stampOf(t.CA, t.Cert, t.Key)
	if err == nil && c.cfg != nil && stamp == c.stamp {
		return c.cfg, c.own, nil
	}
	cfg, fail := load(t)
	if fail != nil {
		return nil, time.Time{}, fail
	}
	c.stamp, c.cfg = stamp, cfg
	c.finish(t)
	return c.cfg, c.own, nil
}

// finish fills in what both ways share.
func (c *configs) finish(t *TLS) {
	if c.cfg.ServerName == "" {
		c.cfg.ServerName = t.ServerName
	}
	if c.cfg.MinVersion == 0 {
		c.cfg.MinVersion = t.MinVersion
	}
	if c.cfg.ClientSessionCache == nil {
		c.cfg.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	}
	c.unresumed = make(map[string]bool)
	c.cfg.DynamicRecordSizingDisabled = true // lines are gathered: big records from the first
	c.own = time.Time{}
	if len(c.cfg.Certificates) > 0 && c.cfg.Certificates[0].Leaf != nil {
		c.own = c.cfg.Certificates[0].Leaf.NotAfter
	}
	if c.cfg.GetClientCertificate == nil {
		certs := c.cfg.Certificates
		c.cfg.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			for i := range certs {
				if r.SupportsCertificate(&certs[i]) == nil {
					return &certs[i], nil
				}
			}
			if len(certs) > 0 {
				return &certs[0], nil // let the peer say what it has against it
			}
			return &tls.Certificate{}, nil
		}
	}
}

func load(t *TLS) (*tls.Config, *Error) {
	cfg := &tls.Config{MinVersion: t.MinVersion, ServerName: t.ServerName}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		pool := x509.NewCertPool()
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = errors.New("no certificate in it")
		}
		if err != nil {
			return nil, &Error{Class: TLSVerify, Doing: "reading tls.ca", Address: t.CA, Err: err, Hint: "it must be a readable PEM file of certificates"}
		}
		cfg.RootCAs = pool
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, &Error{Class: TLSClientCert, Doing: "reading tls.cert and tls.key", Address: t.Cert, Err: err, Hint: "both must be readable PEM files that belong together"}
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// stampOf changes when one of the files does.
func stampOf(paths ...string) (string, error) {
	var b strings.Builder
	for _, p := range paths {
		if p == "" {
			continue
		}
		fi, err := os.Stat(p)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s %d %d\n", p, fi.Size(), fi.ModTime().UnixNano())
	}
	return b.String(), nil
}

func (c *Client) answerOf(address string) Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.learned[address]
}

func (c *Client) learn(address string, a Answer) {
	c.mu.Lock()
	c.learned[address] = a
	c.mu.Unlock()
	if c.o.Events.OnLearned != nil {
		c.o.Events.OnLearned(address, a)
	}
}

// forget makes the next connect drain the endpoint empty again.
func (c *Client) forget(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.learned, address)
}
