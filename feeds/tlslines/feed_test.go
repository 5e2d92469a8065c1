package tlslines

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
)

func TestLinesAreTakenTogether(t *testing.T) {
	w := &world{}
	r := start(t, w, nil)
	c := r.dial()
	var want []string
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "{\"n\":%d,\"x\":%q}\n", i, strings.Repeat("x", 100))
		want = append(want, fmt.Sprintf("acme/{\"n\":%d,\"x\":%q}", i, strings.Repeat("x", 100)))
	}
	send(t, c, text.String())
	until(t, "lines of an open connection", func() bool { return len(w.taken()) == 5000 })
	send(t, c, `{"last":1}`)
	if err := finish(t, c); err != nil {
		t.Fatalf("the end was not answered: %v", err)
	}
	if got := w.taken(); !slices.Equal(got, append(want, `acme/{"last":1}`)) {
		t.Errorf("%d lines, such as %.200q", len(got), got[:3])
	}
	if w.submits > 500 {
		t.Errorf("%d submits for 5001 lines", w.submits)
	}
	if s := r.feed.Status(); s.Connections != 1 || s.Ends != 1 || s.Lines != 5001 || s.Broken != 0 {
		t.Errorf("%+v", s)
	}
}

// The answer to an end is a receipt: none before all is durable.
func TestEndIsAnsweredOnlyWhenDurable(t *testing.T) {
	entered, release := make(chan struct{}, 9), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	w := &world{before: func(*intake.Request, []string) error {
		entered <- struct{}{}
		<-release
		return nil
	}}
	r := start(t, w, nil)
	defer free()
	c := r.dial()
	send(t, c, "{}\n{}\n")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() { answered <- answer(t, c) }()
	<-entered
	select {
	case err := <-answered:
		t.Fatalf("answered (%v) while the lines are not durable", err)
	case <-time.After(200 * time.Millisecond):
	}
	free()
	if err := <-answered; err != nil || len(w.taken()) != 2 {
		t.Errorf("answer %v, %d lines", err, len(w.taken()))
	}
}

// A stop makes durable what was read, and resets: the sender cannot take the
// end for an answer, and sends again what it has no answer for.
func TestStopIsNoAnswer(t *testing.T) {
	w := &world{}
	r := start(t, w, func(o *Options) { o.Gather = time.Hour })
	idle, busy := r.dial(), r.dial()
	send(t, busy, "{\"n\":1}\n{\"n\":2}\n{\"half")
	until(t, "two connections, of which one was read from", func() bool {
		return r.feed.Status().Open == 2 && r.feed.Status().Waiting == 2
	})
	r.stop()
	if err := r.ended(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*tls.Conn{idle, busy} {
		if err := answer(t, c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a stop ends a connection with %v, want a reset", err)
		}
	}
	if got := w.taken(); !slices.Equal(got, []string{`acme/{"n":1}`, `acme/{"n":2}`}) {
		t.Errorf("taken %q", got)
	}
	if s := r.feed.Status(); s.Unfinished != 1 || s.Broken != 2 || s.Ends != 0 || s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

func TestFullJournalHoldsTheSender(t *testing.T) {
	var mu sync.Mutex
	full := true
	w := &world{before: func(*intake.Request, []string) error {
		mu.Lock()
		defer mu.Unlock()
		if full {
			return feeds.ErrFull
		}
		return nil
	}}
	r := start(t, w, nil)
	c := r.dial()
	line := strings.Repeat("x", 1000) + "\n"
	sent := make(chan int, 1)
	go func() {
		n := 0
		for ; n < 20_000; n++ { // more than any socket holds
			if _, err := c.Write([]byte(line)); err != nil {
				break
			}
		}
		sent <- n
	}()
	until(t, "word of the full journal", func() bool { return w.said("nothing is read, and senders wait: journal is full") == 1 })
	select {
	case n := <-sent:
		t.Fatalf("%d lines were sent though nothing is read", n)
	case <-time.After(200 * time.Millisecond):
	}
	mu.Lock()
	full = false
	mu.Unlock()
	if n := <-sent; n != 20_000 {
		t.Fatalf("%d lines could be sent", n)
	}
	if err := finish(t, c); err != nil || len(w.taken()) != 20_000 {
		t.Errorf("answer %v, %d lines", err, len(w.taken()))
	}
	if w.said("journal is full") != 1 || w.said("taking lines works again") != 1 {
		t.Errorf("told %q", w.told)
	}
}

func TestStopWhileTheJournalIsFull(t *testing.T) {
	w := &world{before: func(*intake.Request, []string) error { return feeds.ErrFull }}
	r := start(t, w, nil)
	c := r.dial()
	send(t, c, "{}\n")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	until(t, "a full journal", func() bool { return w.said("journal is full") == 1 })
	r.stop()
	if err := r.ended(); err != nil {
		t.Fatal(err)
	}
	if err := answer(t, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("lines that were not kept are answered with %v", err)
	}
}

func TestStoppedJournalEndsTheFeed(t *testing.T) {
	w := &world{before: func(*intake.Request, []string) error { return fmt.Errorf("append: %w", feeds.ErrStopped) }}
	r := start(t, w, nil)
	c := r.dial()
	send(t, c, "{}\n")
	if err := r.ended(); !errors.Is(err, feeds.ErrStopped) || !strings.Contains(err.Error(), "tls feed agents: keep lines from 127.0.0.1:") {
		t.Errorf("ended with %v", err)
	}
	if err := answer(t, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("answered with %v", err)
	}
}

func TestBrokenConnections(t *testing.T) {
	w := &world{}
	r := start(t, w, nil)
	c := r.dial()
	send(t, c, "{\"n\":1}\n{\"half")
	until(t, "the first line", func() bool { return len(w.taken()) == 1 })
	reset(c.NetConn())
	until(t, "a broken connection", func() bool { return r.feed.Status().Broken == 1 })
	if s := r.feed.Status(); s.Unfinished != 1 || len(w.taken()) != 1 {
		t.Errorf("%+v, taken %q", s, w.taken())
	}
	// A sender that ends without close_notify, as rsyslog does, has said all.
	c = r.dial()
	send(t, c, "{\"n\":2}\n{\"n\":3}")
	if err := c.NetConn().(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := answer(t, c); err != nil {
		t.Errorf("a bare FIN is answered with %v", err)
	}
	if got := w.taken(); !slices.Equal(got, []string{`acme/{"n":1}`, `acme/{"n":2}`, `acme/{"n":3}`}) {
		t.Errorf("taken %q", got)
	}
}

func TestLongLines(t *testing.T) {
	w := &world{}
	r := start(t, w, func(o *Options) { o.MaxEvent, o.BatchBytes, o.Memory = 100<<10, 1, 1 })
	one, two := r.dial(), r.dial()
	long := strings.Repeat("x", 99<<10)
	beyond := strings.Repeat("y", 1<<20)
	var wg sync.WaitGroup
	for i, c := range []*tls.Conn{one, two} { // one large buffer for the two of them
		wg.Go(func() {
			for range 20 {
				_, err := fmt.Fprintf(c, "{%d}\n%s\n%s\n{%d}\n", i, long, beyond, i)
				if err != nil {
					t.Error(err)
				}
			}
			if err := finish(t, c); err != nil {
				t.Errorf("answer: %v", err)
			}
		})
	}
	wg.Wait()
	counts := map[string]int{}
	for _, l := range w.taken() {
		counts[l]++
	}
	cut := "acme/" + beyond[:100<<10] + "|line is longer than 100 KiB; this is its beginning"
	if len(counts) != 4 || counts["acme/{0}"] != 40 || counts["acme/{1}"] != 40 || counts["acme/"+long] != 40 || counts[cut] != 40 {
		t.Errorf("%d different lines; {0} %d, {1} %d, long %d, cut %d", len(counts), counts["acme/{0}"], counts["acme/{1}"], counts["acme/"+long], counts[cut])
	}
	if s := r.feed.Status(); s.Long != 40 {
		t.Errorf("%+v", s)
	}
}

func TestTooManyConnections(t *testing.T) {
	w := &world{}
	r := start(t, w, func(o *Options) { o.MaxConns = 2 })
	first, second := r.dial(), r.dial()
	until(t, "two connections", func() bool { return r.feed.Status().Open == 2 })
	for range 3 {
		if err := answer(t, r.dial()); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("one too many ends with %v", err)
		}
	}
	if n := w.said("a connection from 127.0.0.1 was refused: 2 connections are open"); n != 1 {
		t.Errorf("told %d times: %q", n, w.told)
	}
	if err := finish(t, first); err != nil {
		t.Fatal(err)
	}
	until(t, "room", func() bool { return r.feed.Status().Open == 1 })
	third := r.dial()
	send(t, third, "{}\n")
	for _, c := range []*tls.Conn{second, third} {
		if err := finish(t, c); err != nil {
			t.Error(err)
		}
	}
	until(t, "three refusals", func() bool { return r.feed.Status().Refused == 3 })
	if len(w.taken()) != 1 {
		t.Errorf("taken %q", w.taken())
	}
}

// try sends a line with a certificate and gives how the connection ended.
func (r *rig) try(c *tls.Config, line string) error {
	r.t.Helper()
	t, err := tls.Dial("tcp", r.addr, c)
	if err != nil {
		return err
	}
	defer t.Close()
	if _, err := t.Write([]byte(line + "\n")); err != nil {
		return err
	}
	if err := t.CloseWrite(); err != nil {
		return err
	}
	return answer(r.t, t)
}

func TestTenantByCertificate(t *testing.T) {
	w := &world{}
	r := start(t, w, func(o *Options) {
		o.Tenant, o.ClientCA, o.Known = "", "own", known("acme", "beta")
	})
	acme := r.config(r.ca.issue("a", "acme"))
	acme.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 2 { // the second is resumed
		if err := r.try(acme, "{}"); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.try(r.config(r.ca.issue("b", "Beta Ltd", "beta", "siem.example")), "[]"); err != nil {
		t.Fatal(err)
	}
	if got := w.taken(); !slices.Equal(got, []string{"acme/{}", "acme/{}", "beta/[]"}) {
		t.Errorf("taken %q", got)
	}
	stranger := newAuthority(t, t.TempDir())
	for name, c := range map[string]*tls.Config{
		"none of them is a tenant":             r.config(r.ca.issue("g", "ghost", "siem.example")),
		"it names 2 tenants":                   r.config(r.ca.issue("t", "acme", "beta")),
		"the client showed no certificate":     r.config("", ""),
		"is not of an authority in client_ca:": r.config(stranger.issue("s", "acme")),
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c.MaxVersion = version
			err := r.try(c, "{}")
			var alert *net.OpError
			if !errors.As(err, &alert) {
				t.Errorf("%s: the client sees %v", name, err)
			}
		}
		until(t, "word of: "+name, func() bool { return w.said(name) == 1 })
	}
	if n := len(w.taken()); n != 3 {
		t.Errorf("%d lines, three were sent by those who may", n)
	}
	until(t, "eight refusals", func() bool { return r.feed.Status().Refused == 8 })
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		cn   string
		dns  []string
		want feeds.TenantID
	}{
		{"acme", nil, "acme"}, {"", []string{"acme"}, "acme"}, {"acme", []string{"acme"}, "acme"}, {"x", []string{"y", "beta"}, "beta"},
		{"acme", []string{"beta"}, ""}, {"ACME", nil, ""}, {"acme.example", nil, ""}, {"", nil, ""}, {"../acme", nil, ""},
	} {
		got, err := named(&x509.Certificate{Subject: pkix.Name{CommonName: c.cn}, DNSNames: c.dns}, known("acme", "beta"))
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%q %q: %q, %v", c.cn, c.dns, got, err)
		}
	}
}

// Authorities that go take with them whom they let in, tickets included.
func TestClientCAChanges(t *testing.T) {
	w := &world{}
	var mu sync.Mutex
	now := time.Now()
	r := start(t, w, func(o *Options) {
		o.ClientCA = "own"
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	})
	c := r.config(r.ca.issue("a", "agent"))
	c.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	if err := r.try(c, "{}"); err != nil {
		t.Fatal(err)
	}
	other := newAuthority(t, t.TempDir())
	pem, err := os.ReadFile(filepath.Join(other.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.ca.dir, "ca.pem"), append(pem, '\n', '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = now.Add(time.Minute)
	mu.Unlock()
	if err := r.try(c, "{}"); err == nil {
		t.Error("a client of an authority that is gone is let in")
	}
	if err := r.try(r.config(other.issue("o", "agent")), "{}"); err != nil {
		t.Errorf("a client of the new authority: %v", err)
	}
}

func TestWhatIsNoTLS(t *testing.T) {
	w := &world{}
	r := start(t, w, func(o *Options) { o.Handshake = 50 * time.Millisecond })
	old := r.config("", "")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if c, err := tls.Dial("tcp", r.addr, old); err == nil {
		_ = c.Close()
		t.Error("TLS 1.1 is spoken")
	}
	for _, say := range []string{"{\"plain\":\"lines\"}\n", ""} {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte(say)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "three refusals", func() bool { return r.feed.Status().Refused == 3 })
	until(t, "word", func() bool {
		return w.said("what came is not TLS") == 1 && w.said("did not finish its handshake") == 1 && w.said("TLS: ") >= 1
	})
	if len(w.taken()) != 0 {
		t.Errorf("taken %q", w.taken())
	}
}

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	cert, key := newAuthority(t, dir).issue("server", "server")
	good := Options{Name: "agents", Format: "canonical", Intake: &world{}, Cert: cert, Key: key}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"name": func(o *Options) { o.Name = "A" }, "intake": func(o *Options) { o.Intake = nil }, "cert": func(o *Options) { o.Cert = "" },
		"files": func(o *Options) { o.Key = filepath.Join(dir, "none.pem") }, "limits": func(o *Options) { o.MaxConns = -1 },
		"known": func(o *Options) { o.ClientCA = cert }, "ca": func(o *Options) { o.ClientCA, o.Tenant = key, "acme" },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "tls feed") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
