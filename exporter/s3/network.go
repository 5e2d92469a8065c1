package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"syscall"
	"time"
)

// Time-outs. None of them ends an upload that goes on, however slowly: one
// that stands still ends after stallTimeout.
const (
	dialTimeout   = 5 * time.Second
	tlsTimeout    = 10 * time.Second
	stallTimeout  = 30 * time.Second
	answerTimeout = time.Minute // from the last byte sent to the first of the answer
	// idleTimeout ends unused connections before stores do.
	idleTimeout = 15 * time.Second
	// slowest is the rate in bytes/s that the whole of an operation is allowed
	// for, beside answerTimeout.
	slowest = 64 << 10
	// maxAnswer bounds what is read of an answer; nothing that is asked for is larger.
	maxAnswer = 4 << 20
)

// newHTTP makes the one HTTP client of all sinks. It speaks HTTP/1.1, as S3 does.
func newHTTP(o Options) *http.Client {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	n := &network{dial: dialer.DialContext}
	if o.Dial != nil {
		n.dial = o.Dial
	}
	if o.Control != nil {
		dialer.Control = func(network, address string, c syscall.RawConn) error {
			if err := o.Control(network, address, c); err != nil {
				return &refusedError{err}
			}
			return nil
		}
	}
	return &http.Client{
		Transport: bounded{&http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: n.reach, DialTLSContext: n.dialTLS,
			TLSHandshakeTimeout: tlsTimeout, ResponseHeaderTimeout: answerTimeout, ExpectContinueTimeout: time.Second,
			IdleConnTimeout: idleTimeout, MaxIdleConns: 128, MaxIdleConnsPerHost: 64,
			WriteBufferSize: 64 << 10, MaxResponseHeaderBytes: 64 << 10,
		}},
		// A redirect could lead where nobody wants us; a store that moved says so in an error.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// network dials.
type network struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (n *network) reach(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := n.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return stalling{c}, nil
}

// dialTLS reads AWS_CA_BUNDLE, which the SDK honours too, at each connection:
// a bundle that is mended helps without a restart.
func (n *network) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	roots, err := authorities()
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, RootCAs: roots}
	raw, err := n.reach(ctx, network, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	c := tls.Client(raw, cfg)
	// net/http leaves these hooks to whoever shakes hands; check.Run listens.
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	err = c.HandshakeContext(ctx)
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(c.ConnectionState(), err)
	}
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}

// authorities are those of AWS_CA_BUNDLE; nil, the system's, where it names none.
func authorities() (*x509.CertPool, error) {
	path := os.Getenv("AWS_CA_BUNDLE")
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, &bundleError{fmt.Errorf("read AWS_CA_BUNDLE: %w", err)}
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, &bundleError{fmt.Errorf("AWS_CA_BUNDLE %s holds no certificate", path)}
	}
	return roots, nil
}

// stalling ends a connection to which nothing can be written for stallTimeout.
type stalling struct{ net.Conn }

func (c stalling) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &stalledError{err}
	}
	return n, err
}

// bounded gives at most maxAnswer bytes of an answer: the SDK reads all of an error's.
type bounded struct{ *http.Transport }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Transport.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// loan is a drop's body for the time of a Put: the HTTP transport may read on
// for a moment after it has answered, and then the body is the caller's again.
type loan struct {
	mu   sync.RWMutex
	body io.ReaderAt
}

var errReturned = errors.New("the object's bytes are no longer needed")

// ReadAt is io.ReaderAt's.
func (l *loan) ReadAt(p []byte, off int64) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.body == nil {
		return 0, errReturned
	}
	return l.body.ReadAt(p, off)
}

// end waits for reads under way; there are none after it.
func (l *loan) end() {
	l.mu.Lock()
	l.body = nil
	l.mu.Unlock()
}
