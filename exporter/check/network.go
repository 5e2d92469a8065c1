package check

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"strings"
	"syscall"
	"time"
)

// Trace gives a context under which every new connection tells its steps:
// resolve, connect, TLS. What was told once is not told again.
func (r *Run) Trace(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart: func(i httptrace.DNSStartInfo) { r.begin("resolve", i.Host) },
		DNSDone: func(i httptrace.DNSDoneInfo) {
			if i.Err != nil {
				return
			}
			as := make([]string, len(i.Addrs))
			for k, a := range i.Addrs {
				as[k] = a.String()
			}
			host, _ := r.begun()
			r.done(Step{Name: "resolve", Seen: host + " is " + strings.Join(as, ", ")})
		},
		ConnectStart: func(_, address string) { r.begin("connect", address) },
		ConnectDone: func(_, address string, err error) {
			if err == nil {
				r.done(Step{Name: "connect", Seen: address})
			}
		},
		TLSHandshakeStart: func() { r.begin("tls", "") },
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			_, began := r.begun()
			r.Handshake(began, s, err)
		},
	})
}

// Control gives a net.Dialer's Control that tells what next, the egress rules,
// says of an address. next nil lets all pass.
func (r *Run) Control(next func(network, address string, c syscall.RawConn) error) func(network, address string, c syscall.RawConn) error {
	return func(network, address string, c syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		began := r.begin("egress", host)
		if next != nil {
			if err := next(network, address, c); err != nil {
				return err
			}
		}
		r.done(Step{Name: "egress", Seen: host + " may be reached", Took: time.Since(began)})
		r.begin("connect", address)
		return nil
	}
}

// Handshake tells how a TLS handshake ended, for dialers that shake hands themselves.
func (r *Run) Handshake(began time.Time, s tls.ConnectionState, err error) {
	if err != nil {
		seen := ""
		var verify *tls.CertificateVerificationError
		if errors.As(err, &verify) && len(verify.UnverifiedCertificates) > 0 {
			seen = "the peer is " + Certificate(verify.UnverifiedCertificates[0])
		}
		r.mu.Lock()
		r.open.name, r.open.seen, r.open.since = "tls", seen, began
		r.mu.Unlock()
		return
	}
	step := Step{Name: "tls", Seen: tls.VersionName(s.Version) + ", " + tls.CipherSuiteName(s.CipherSuite), Took: time.Since(began)}
	if len(s.PeerCertificates) > 0 {
		step.Seen += "; the peer is " + Certificate(s.PeerCertificates[0])
		step.Note = EndsSoon(s.PeerCertificates[0])
	}
	r.done(step)
}

// begin notes what is under way on the network.
func (r *Run) begin(name, what string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open.name, r.open.what, r.open.seen, r.open.since = name, what, "", time.Now()
	return r.open.since
}

// begun is what begin noted last.
func (r *Run) begun() (what string, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open.what, r.open.since
}

// done tells a step of the network that went well. Its time, where it is not
// given, is from when it was begun.
func (r *Run) done(s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Took == 0 {
		s.Took = time.Since(r.open.since)
	}
	r.open.name, r.last = "", time.Now()
	if key := s.Name + " " + s.Seen; !r.told[key] {
		r.told[key] = true
		r.tell(s)
	}
}
