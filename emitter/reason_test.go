package emitter_test

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
)

// firstFailure is the first state with a reason.
func firstFailure(t *testing.T, o emitter.Options) emitter.State {
	t.Helper()
	f := feed(t, o, 1)
	f.wait("a failure", func() bool { return len(f.states) > 0 && f.states[0].Reason != "" })
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.states[0]
}

func TestReasons(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for {
			c, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 smtp.example ESMTP\r\n")) // the client may be gone
			_ = c.Close()                                        // as above
		}
	}()
	closer := emittertest.New(t, emittertest.Options{})
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	broken := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(broken, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		server emittertest.Options
		change func(o *emitter.Options, r *emittertest.Receiver)
		want   emitter.Class
		hint   string
	}{
		"nobody listens": {change: func(o *emitter.Options, r *emittertest.Receiver) { r.Stop(emittertest.Kill) }, want: emitter.Connect, hint: "port"},
		"no such host":   {change: func(o *emitter.Options, _ *emittertest.Receiver) { o.Addresses = []string{"no.such.host.invalid:1"} }, want: emitter.DNS, hint: "host name"},
		"refused address": {change: func(o *emitter.Options, _ *emittertest.Receiver) {
			o.Control = func(string, string, syscall.RawConn) error { return errors.New("loopback is denied") }
		}, want: emitter.Forbidden, hint: "egress"},
		"system roots":       {change: func(o *emitter.Options, _ *emittertest.Receiver) { o.TLS.CA = "" }, want: emitter.TLSVerify, hint: "tls.ca"},
		"other name":         {change: func(o *emitter.Options, _ *emittertest.Receiver) { o.TLS.ServerName = "siem.example" }, want: emitter.TLSVerify, hint: "server_name"},
		"broken CA file":     {change: func(o *emitter.Options, _ *emittertest.Receiver) { o.TLS.CA = broken }, want: emitter.TLSVerify, hint: "PEM"},
		"no CA file":         {change: func(o *emitter.Options, _ *emittertest.Receiver) { o.TLS.CA = broken + "x" }, want: emitter.TLSVerify, hint: "PEM"},
		"no client cert":     {server: emittertest.Options{ClientCA: true}, want: emitter.TLSClientCert, hint: "tls.cert"},
		"foreign cert":       {server: emittertest.Options{ClientCA: true}, change: foreign(tls.VersionTLS13), want: emitter.TLSClientCert, hint: "issuer"},
		"foreign cert, 1.2":  {server: emittertest.Options{ClientCA: true}, change: foreign(tls.VersionTLS12), want: emitter.TLSClientCert, hint: "issuer"},
		"plain text service": {change: func(o *emitter.Options, _ *emittertest.Receiver) { o.Addresses = []string{plain.Addr().String()} }, want: emitter.TLSVerify, hint: "TLS"},
		"mute service": {change: func(o *emitter.Options, _ *emittertest.Receiver) {
			o.Addresses, o.DialTimeout = []string{mute.Addr().String()}, 30*time.Millisecond
		}, want: emitter.Timeout, hint: "firewall"},
	} {
		t.Run(name, func(t *testing.T) {
			set := closer.Certs()
			c.server.Certs = &set
			r := emittertest.New(t, c.server)
			o := quick(r)
			if c.change != nil {
				c.change(&o, r)
			}
			s := firstFailure(t, o)
			if s.Reason != c.want || !strings.Contains(s.Hint, c.hint) || s.Err == nil || s.Connected {
				t.Errorf("got %s (%v; %s), want %s with %q", s.Reason, s.Err, s.Hint, c.want, c.hint)
			}
			if n := len(r.Lines()); n != 0 {
				t.Errorf("%d lines went out", n)
			}
		})
	}
}

// foreign is a client certificate that the receiver does not trust.
func foreign(version uint16) func(*emitter.Options, *emittertest.Receiver) {
	return func(o *emitter.Options, r *emittertest.Receiver) {
		set := r.Certs()
		o.TLS.Config = func() (*tls.Config, error) {
			pair, err := tls.LoadX509KeyPair(set.ForeignCert, set.ForeignKey)
			if err != nil {
				return nil, err
			}
			cfg, err := set.Client()
			if err != nil {
				return nil, err
			}
			cfg.Certificates, cfg.MaxVersion = []tls.Certificate{pair}, version
			return cfg, nil
		}
	}
}

// TestClientCertificate: taken where it is trusted, renewed without a restart,
// and sessions are resumed.
func TestClientCertificate(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{ClientCA: true})
	set := r.Certs()
	o := quick(r)
	o.TLS.Cert, o.TLS.Key = set.ForeignCert, set.ForeignKey
	f := feed(t, o, 20)
	f.wait("a refusal", func() bool { return len(f.states) > 0 && f.states[0].Reason == emitter.TLSClientCert })
	for from, to := range map[string]string{set.ClientCert: set.ForeignCert, set.ClientKey: set.ForeignKey} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, append(b, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.allConfirmed(20)
	arrived(t, r.Lines(), 20)
	if p := f.c.Status().Peer; !p.Resumed || p.ClientNotAfter.IsZero() || p.Subject == "" {
		t.Errorf("peer %+v", p)
	}
}

// TestRefusedSessions: a receiver that breaks off at the session it gave gets
// full handshakes from then on, and nobody is told of a failure.
func TestRefusedSessions(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			r := emittertest.New(t, emittertest.Options{RefuseSessions: true})
			set := r.Certs()
			cfg, err := set.Client()
			if err != nil {
				t.Fatal(err)
			}
			cfg.MaxVersion = version
			o := quick(r)
			o.TLS.Config = func() (*tls.Config, error) { return cfg, nil }
			f := feed(t, o, 100)
			f.allConfirmed(100)
			for i := range 3 {
				f.to(200 + i)
				f.allConfirmed(200 + i)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, s := range f.states {
				if s.Reason != "" {
					t.Errorf("told of %s: %v", s.Reason, s.Err)
				}
			}
			if n := arrived(t, r.Lines(), 202); n != 0 {
				t.Errorf("%d repeats", n)
			}
		})
	}
}

// silent is a receiver that resets every connection after the handshake, as
// rsyslog's GnuTLS driver does with certificates that it refuses; with overtaken
// the reset comes before the end of a TLS 1.2 handshake.
func silent(t *testing.T, set emittertest.CertSet, overtaken bool) string {
	t.Helper()
	cfg, err := set.Server(true)
	if err != nil {
		t.Fatal(err)
	}
	cfg.ClientAuth = tls.RequestClientCert
	if overtaken {
		cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own := cfg.Clone()
			own.MaxVersion = tls.VersionTLS12
			own.VerifyConnection = func(tls.ConnectionState) error {
				_ = hello.Conn.(*net.TCPConn).SetLinger(0) // the client may be gone
				return hello.Conn.Close()
			}
			return own, nil
		}
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				s := c.(*tls.Conn)
				_ = s.HandshakeContext(t.Context())         // the client may be gone
				_ = s.NetConn().(*net.TCPConn).SetLinger(0) // as above
				_ = s.NetConn().Close()                     // as above
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().String()
}

// TestSilentRefusal: a certificate refused without an alert is told as such, and
// at the latest after the second broken connection, whatever was learned before.
func TestSilentRefusal(t *testing.T) {
	for name, c := range map[string]struct {
		cert, overtaken bool
		learned         emitter.Answer
		hint            string
	}{
		"none":                  {hint: "set tls.cert"},
		"none, 1.2":             {overtaken: true, hint: "set tls.cert"},
		"refused":               {cert: true, hint: "issuer"},
		"refused, 1.2":          {cert: true, overtaken: true, hint: "issuer"},
		"refused after a while": {cert: true, learned: emitter.AnswerFIN, hint: "issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			r := emittertest.New(t, emittertest.Options{})
			o := quick(r)
			set := r.Certs()
			o.Addresses = []string{silent(t, set, c.overtaken)}
			if c.cert {
				o.TLS.Cert, o.TLS.Key = set.ClientCert, set.ClientKey
			}
			o.Learned = map[string]emitter.Answer{o.Addresses[0]: c.learned}
			f := feed(t, o, 50)
			f.wait("the reason", func() bool {
				n := len(f.states)
				return n > 0 && f.states[n-1].Reason == emitter.TLSClientCert && strings.Contains(f.states[n-1].Hint, c.hint)
			})
			if s := f.c.Status(); s.Read != 0 || s.Losses > 2 {
				t.Errorf("lines were sent again and again: %+v", s)
			}
		})
	}
}
