package tlslines

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datasync/feeds"
	"datasync/feeds/intake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is an intake in memory, which may refuse, and what was told.
type world struct {
	mu      sync.Mutex
	before  func(r *intake.Request, lines []string) error // nil: all is taken
	lines   []string                                      // tenant/line, and | reason where the transport gave one
	submits int
	told    []string
}

func (w *world) Submit(_ context.Context, r *intake.Request) (intake.Result, error) {
	var lines []string
	for rec := range r.Records {
		line := string(r.Tenant) + "/" + string(rec.Value)
		if rec.Bad != "" {
			line += "|" + rec.Bad
		}
		lines = append(lines, line)
	}
	w.mu.Lock()
	before := w.before
	w.submits++
	w.mu.Unlock()
	if before != nil {
		if err := before(r, lines); err != nil {
			return intake.Result{}, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, lines...)
	return intake.Result{Accepted: len(lines)}, nil
}

func (w *world) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

func (w *world) tell(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, err.Error())
}

func (w *world) said(part string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.told {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

// authority issues certificates into a folder.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, dir string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	var der []byte
	der, a.key = a.sign(template, template, nil)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) sign(c, parent *x509.Certificate, by *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if by == nil {
		by = key
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue makes a certificate of 127.0.0.1 that names who it is told to.
func (a *authority) issue(file, commonName string, dns ...string) (cert, key string) {
	a.t.Helper()
	der, k := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: commonName}, DNSNames: dns, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, a.cert, a.key)
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(file+".pem", "CERTIFICATE", der), a.write(file+".key", "PRIVATE KEY", pk)
}

// rig is a running feed.
type rig struct {
	*world
	t    testing.TB
	ca   *authority
	feed *Feed
	addr string
	stop context.CancelFunc
	done chan error
}

func start(t testing.TB, w *world, change func(*Options)) *rig {
	t.Helper()
	r := &rig{world: w, t: t, ca: newAuthority(t, t.TempDir()), done: make(chan error, 1)}
	o := Options{Name: "agents", Format: "canonical", Tenant: "acme", Intake: w, OnError: w.tell, Retry: time.Millisecond}
	o.Cert, o.Key = r.ca.issue("server", "server")
	if change != nil {
		change(&o)
	}
	if o.ClientCA == "own" {
		o.ClientCA = filepath.Join(r.ca.dir, "ca.pem")
	}
	var err error
	if r.feed, err = New(o); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = ln.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.done <- r.feed.Serve(ctx, ln) }()
	t.Cleanup(func() { stop(); <-r.done; close(r.done) })
	return r
}

// ended waits for Serve's end, and gives its error.
func (r *rig) ended() error {
	r.t.Helper()
	select {
	case err := <-r.done:
		r.done <- err // for the cleanup
		return err
	case <-time.After(time.Minute):
		r.t.Fatal("the feed does not end")
		return nil
	}
}

func (r *rig) config(cert, key string) *tls.Config {
	r.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(r.ca.cert)
	c := &tls.Config{RootCAs: pool}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			r.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// dial connects without a certificate.
func (r *rig) dial() *tls.Conn {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.addr, r.config("", ""))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() }) // closed by then, mostly
	return c
}

func send(t testing.TB, c *tls.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// finish ends a connection in good order and gives what the peer ends it with:
// nil is an answer.
func finish(t testing.TB, c *tls.Conn) error {
	t.Helper()
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	return answer(t, c)
}

// answer waits for the peer's end: nil is close_notify or a bare FIN.
func answer(t testing.TB, c *tls.Conn) error {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	n, err := c.Read(b[:])
	if n != 0 {
		t.Fatalf("the feed says something: %q", b)
	}
	if err.Error() == "EOF" {
		return nil
	}
	return err
}

// until waits until ok.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("no %s within a minute", what)
		case <-time.After(time.Millisecond):
		}
	}
}

func known(ids ...feeds.TenantID) func(feeds.TenantID) bool {
	return func(id feeds.TenantID) bool { return slices.Contains(ids, id) }
}
