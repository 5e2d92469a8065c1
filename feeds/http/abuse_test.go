package httpfeed

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// zeros is n zero bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBombsStayBounded(t *testing.T) {
	const size = 256 << 20
	for _, encoding := range []string{"gzip", "zstd"} {
		t.Run(encoding, func(t *testing.T) {
			bomb := packReader(t, encoding, zeros(size))
			w := newWorld()
			o := w.options()
			o.MaxBody = 1 << 20
			s := start(t, o)
			var peak runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&peak)
			before := peak.TotalAlloc
			for range 4 {
				got := s.post(t, "/v1/ingest/canonical", strings.NewReader(bomb), key, "ka", "Content-Encoding", encoding)
				if got.status != 413 {
					t.Fatalf("%d bytes that are %d: %+v", len(bomb), size, got)
				}
			}
			runtime.ReadMemStats(&peak)
			if grown := peak.TotalAlloc - before; grown > 64<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
			if s.Status().Memory != 0 {
				t.Error("memory is still taken")
			}
		})
	}
}

// TestRubbishBehindALongLineIsCheap: whether a body is taken line by line is
// told by its first line, which was read again for each bad line behind it: a
// body of 10 MiB kept a processor busy for an hour.
func TestRubbishBehindALongLineIsCheap(t *testing.T) {
	o := newWorld().options()
	o.MaxBody = 4 << 20
	s := start(t, o)
	took := func(body string) time.Duration {
		began := time.Now()
		if got := s.post(t, "/v1/ingest/netacea", strings.NewReader(body), key, "ka"); got.status != 200 || !strings.Contains(got.body, "rejected_more") {
			t.Fatalf("%d %.200s", got.status, got.body)
		}
		return time.Since(began)
	}
	bad := strings.Repeat("x\n", 100_000)
	short, long := took("{}\n"+bad), took(`{"a":"`+strings.Repeat("y", 1<<20)+"\"}\n"+bad)
	if long > 10*short+time.Second {
		t.Errorf("100,000 bad lines took %v, behind a line of 1 MiB %v", short, long)
	}
}

// dial opens a plain connection and sends text on it.
func (s *server) dial(t testing.TB, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// drip sends a byte again and again until the connection breaks.
func drip(c net.Conn, every time.Duration, stop <-chan struct{}) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if _, err := c.Write([]byte(" ")); err != nil {
				return
			}
		}
	}
}

const head = "POST /v1/ingest/canonical HTTP/1.1\r\nHost: x\r\nAuthorization: ka\r\n"

func TestSlowLorisIsCutOff(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.ReadGrace = 100 * time.Millisecond
	s := start(t, o)
	for name, text := range map[string]string{
		"head": head + "X-Slow: ", "sized body": head + "Content-Length: 60000\r\n\r\n{", "chunked body": head + "Transfer-Encoding: chunked\r\n\r\nffff\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := s.dial(t, text)
			stop, ended := make(chan struct{}), make(chan struct{})
			go func() { drip(c, 10*time.Millisecond, stop); close(ended) }()
			b, err := io.ReadAll(c)
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Error("the connection is still open")
			}
			if name != "head" && !strings.HasPrefix(string(b), "HTTP/1.1 408 ") {
				t.Errorf("answered %q", b)
			}
			close(stop)
			<-ended
		})
	}
}

func TestASlowButHonestSenderIsHeard(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.ReadGrace, o.MaxBody = time.Second, 1<<20
	s := start(t, o)
	const pieces = 8
	c := s.dial(t, head+fmt.Sprintf("Content-Length: %d\r\n\r\n{", pieces*progress+2))
	tick := time.NewTicker(250 * time.Millisecond) // 8 × 64 KiB in 2 s: above the grace in all
	defer tick.Stop()
	for range pieces {
		<-tick.C
		if _, err := c.Write([]byte(strings.Repeat(" ", progress))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Write([]byte("}")); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.Contains(line, " 200 ") {
		t.Errorf("%q %v", line, err)
	}
}

// TestAConnectionOpenedAheadHasTheWholeTime: clients open connections before they
// need them, and net/http counts the first request from then.
func TestAConnectionOpenedAheadHasTheWholeTime(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.ReadGrace = 600 * time.Millisecond
	s := start(t, o)
	c := s.dial(t, "")
	<-time.After(400 * time.Millisecond)
	if _, err := io.WriteString(c, head+"Content-Length: 2\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	<-time.After(400 * time.Millisecond)
	if _, err := io.WriteString(c, "}"); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.Contains(line, " 200 ") {
		t.Errorf("%q %v", line, err)
	}
}

func TestBodiesInMemoryAreBounded(t *testing.T) {
	w := newWorld()
	w.hold, w.entered = make(chan struct{}), make(chan struct{}, 100)
	o := w.options()
	o.MaxBody = 1 << 20 // so 5 MiB for all bodies
	o.BodyMemory = 1
	s := start(t, o)
	body := `{"a":"` + strings.Repeat("x", 1<<20-100) + `"}`
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range 12 {
		wg.Go(func() {
			r, err := s.try("POST", "/v1/ingest/canonical", strings.NewReader(body), key, "ka")
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			statuses[r.status]++
			mu.Unlock()
		})
	}
	until(t, func() bool { st := s.Status(); return st.Requests+uint64(len(w.entered)) == 12 })
	if m := s.Status().Memory; m > 5<<20 {
		t.Errorf("%d bytes are in memory", m)
	}
	close(w.hold)
	wg.Wait()
	if statuses[503] == 0 || statuses[200] == 0 || statuses[200]+statuses[503] != 12 {
		t.Errorf("statuses %v", statuses)
	}
	if m := s.Status().Memory; m != 0 {
		t.Errorf("%d bytes are still taken", m)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	w := newWorld()
	o := w.options()
	o.MaxConns = 2
	s := start(t, o)
	a, b := s.dial(t, head), s.dial(t, head)
	until(t, func() bool { return s.Status().Conns == 2 })
	c := s.dial(t, head+"Content-Length: 2\r\n\r\n{}")
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection was served")
	}
	_, _ = a.Close(), b.Close()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, " 200 ") {
		t.Errorf("once there is room: %q %v", line, err)
	}
}

func TestIdleConnectionsMakeRoom(t *testing.T) {
	o := newWorld().options()
	o.MaxConns = 1
	s := start(t, o)
	for range 2 { // the second while the first is kept open
		c := s.dial(t, head+"Content-Length: 2\r\n\r\n{}")
		if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, " 200 ") {
			t.Fatalf("%q %v", line, err)
		}
	}
}

func TestAnAnswerMayTakeLongerThanReading(t *testing.T) {
	w := newWorld()
	w.hold, w.entered = make(chan struct{}), make(chan struct{}, 2)
	o := w.options()
	o.ReadGrace = 50 * time.Millisecond
	s := start(t, o)
	answered := make(chan reply)
	for range 2 { // the second waits for the first
		go func() {
			r, err := s.try("POST", "/v1/ingest/canonical", strings.NewReader("{}"), key, "ka", "Idempotency-Key", "k")
			if err != nil {
				r.body = err.Error()
			}
			answered <- r
		}()
	}
	<-w.entered
	<-time.After(4 * o.ReadGrace)
	close(w.hold)
	for range 2 {
		if r := <-answered; r.status != 200 {
			t.Errorf("%+v", r)
		}
	}
}

func TestWhoSendsTooMuchSeesTheAnswer(t *testing.T) {
	o := newWorld().options()
	o.MaxBody = 1 << 20
	s := start(t, o)
	const size = 4 << 20
	c := s.dial(t, head+fmt.Sprintf("Content-Length: %d\r\n\r\n", size))
	for range 2 { // slower than net/http waits by itself before it resets
		if n, err := io.Copy(c, zeros(size/2)); err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		<-time.After(700 * time.Millisecond)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, " 413 ") {
		t.Errorf("%q %v", line, err)
	}
}

func TestExpectContinueIsToldBeforeItSends(t *testing.T) {
	s := start(t, newWorld().options())
	c := s.dial(t, head+"Content-Length: 100000000\r\nExpect: 100-continue\r\n\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.Contains(line, " 413 ") {
		t.Errorf("%q %v", line, err)
	}
}

func TestHugeHeadIsRefused(t *testing.T) {
	s := start(t, newWorld().options())
	c := s.dial(t, head+"X: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	if line, err := bufio.NewReader(c).ReadString('\n'); err == nil && !strings.Contains(line, " 431 ") {
		t.Errorf("%q", line)
	}
}

func TestStopAnswersWhatIsUnderWay(t *testing.T) {
	w := newWorld()
	w.hold, w.entered = make(chan struct{}), make(chan struct{}, 1)
	s := start(t, w.options())
	answered := make(chan reply, 1)
	go func() {
		r, err := s.try("POST", "/v1/ingest/canonical", strings.NewReader("{}"), key, "ka")
		if err != nil {
			r.body = err.Error()
		}
		answered <- r
	}()
	<-w.entered
	s.cancel()
	until(t, s.stopping.Load)
	until(t, func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(w.hold)
	if r := <-answered; r.status != 200 {
		t.Errorf("%+v", r)
	}
	s.stop(t)
}

func TestStopGivesUpAfterTheGrace(t *testing.T) {
	w := newWorld()
	w.hold, w.entered = make(chan struct{}), make(chan struct{}, 1) // for ever
	o := w.options()
	o.StopGrace = 50 * time.Millisecond
	s := start(t, o)
	answered := make(chan reply, 1)
	go func() {
		r, _ := s.try("POST", "/v1/ingest/canonical", strings.NewReader("{}"), key, "ka")
		answered <- r
	}()
	<-w.entered
	s.stop(t)
	if r := <-answered; r.status != 503 || r.header.Get("Retry-After") == "" || w.taken() != 0 {
		t.Errorf("%+v", r)
	}
}

// certificate writes a new one for 127.0.0.1 and gives the pool that trusts it.
func certificate(t testing.TB, cert, key string, serial int64) *x509.CertPool {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pemCert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool.AppendCertsFromPEM(pemCert)
	if os.WriteFile(cert, pemCert, 0o600) != nil || os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}), 0o600) != nil {
		t.Fatal("cannot write the certificate")
	}
	return pool
}

func TestTLSWithACertificateThatChanges(t *testing.T) {
	w := newWorld()
	o := w.options()
	var mu sync.Mutex
	now := time.Now()
	o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	o.Cert, o.Key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	pool := certificate(t, o.Cert, o.Key, 1)
	s := start(t, o)
	post := func(pool *x509.CertPool) error {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		defer tr.CloseIdleConnections()
		req, _ := http.NewRequestWithContext(context.Background(), "POST", "https"+strings.TrimPrefix(s.url, "http")+"/v1/ingest/canonical", strings.NewReader("{}"))
		req.Header.Set(key, "ka")
		res, err := tr.RoundTrip(req)
		if err == nil {
			err = res.Body.Close()
			if res.StatusCode != 200 {
				t.Errorf("status %d", res.StatusCode)
			}
		}
		return err
	}
	if err := post(pool); err != nil {
		t.Fatal(err)
	}
	pool = certificate(t, o.Cert, o.Key, 2)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(o.Cert, later, later); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	if err := post(pool); err != nil {
		t.Errorf("the new certificate is not used: %v", err)
	}
	if res, err := http.Post(s.url, "", nil); err == nil {
		_ = res.Body.Close()
		if res.StatusCode == 200 {
			t.Error("plain HTTP is taken on a TLS feed")
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Cert = "no-such-file.pem"
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Serve(context.Background(), ln); err == nil || !strings.Contains(err.Error(), "no-such-file.pem") {
		t.Errorf("a certificate that is not there: %v", err)
	}
}
