package emitter

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"datasync/emitter/relp"
)

// Class is why a peer cannot be reached or takes nothing.
type Class string

// The reason classes of an emitter.
const (
	DNS           Class = "dns"
	Connect       Class = "connect"
	Forbidden     Class = "forbidden" // Options.Control refused the address
	TLSVerify     Class = "tls-verify"
	TLSClientCert Class = "tls-client-cert"
	Reset         Class = "reset"
	Timeout       Class = "timeout"
	Slow          Class = "slow"
	Invalid       Class = "invalid" // the peer's protocol refuses the session or a record
	Full          Class = "full"    // Events.OnRefused could not keep what the peer refuses
)

// Error is a failure of the connection with its class and a hint for the operator.
type Error struct {
	Class   Class
	Doing   string // what was being done: "connecting to", "draining", …
	Address string
	Hint    string
	Err     error
}

// Error is what was being done, to whom, and the cause; the hint is apart.
func (e *Error) Error() string { return fmt.Sprintf("%s %s: %v", e.Doing, e.Address, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// refused marks an error of Options.Control.
type refused struct{ err error }

func (r *refused) Error() string { return "address refused: " + r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

// errNoAnswer is an endpoint that does not answer a drain.
var errNoAnswer = errors.New("the peer does not answer the end of a connection")

// classify maps err. certAsked says that the peer asked for a client
// certificate, haveCert that we sent one.
func classify(doing, address string, err error, certAsked, haveCert bool) *Error {
	var known *Error
	if errors.As(err, &known) {
		return known
	}
	e := &Error{Doing: doing, Address: address, Err: err}
	var (
		dns    *net.DNSError
		no     *refused
		verify *tls.CertificateVerificationError
		host   x509.HostnameError
		record tls.RecordHeaderError
		reject *relp.Rejection
	)
	switch {
	case errors.As(err, &reject):
		e.Class, e.Hint = Invalid, "the receiver's log says what it has against it; it is offered again until the receiver takes it"
	case errors.Is(err, relp.ErrProtocol):
		e.Class, e.Hint = Invalid, relpHint
	case errors.Is(err, relp.ErrServerClose) && certAsked && doing == doOpen: // librelp, where only it, not OpenSSL, finds fault with the certificate
		e.Class, e.Hint = TLSClientCert, silentHint(haveCert)
	case errors.Is(err, relp.ErrServerClose):
		e.Class, e.Hint = Reset, "the receiver is being stopped or restarted"
	case errors.As(err, &no):
		e.Class, e.Hint = Forbidden, "the service's egress rules do not allow this address"
	case errors.As(err, &dns):
		e.Class, e.Hint = DNS, "check the host name and the resolver"
	case errors.As(err, &host):
		e.Class, e.Hint = TLSVerify, "the certificate is for another name: set tls.server_name, or have the certificate reissued"
	case errors.As(err, &verify):
		e.Class, e.Hint = TLSVerify, "set tls.ca to the authority that signed the receiver's certificate, or check that it is not expired"
	case errors.As(err, &record):
		e.Class, e.Hint = TLSVerify, "the receiver does not speak TLS on this port"
	case isAlert(err):
		e.Class, e.Hint = alertClass(err, certAsked, haveCert)
	case isReset(err) && certAsked && (doing == doProbe || doing == doHandshake || doing == doOpen):
		e.Class, e.Hint = TLSClientCert, silentHint(haveCert)
	case errors.Is(err, errNoAnswer):
		e.Class, e.Hint = Timeout, "drain cannot confirm what this receiver reads; it needs confirm: window"
	case isTimeout(err) && doing == doOpen:
		e.Class, e.Hint = Timeout, relpHint
	case isTimeout(err):
		e.Class, e.Hint = Timeout, "no answer: check that the receiver runs and that no firewall drops the packets"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Class, e.Hint = Connect, "nothing listens there: check that the receiver runs, and the port"
	case isReset(err):
		e.Class, e.Hint = Reset, "the receiver ended the connection; its log says why"
		if doing == doHandshake {
			e.Hint = "the receiver ended the connection during the handshake: does it speak TLS on this port?"
		}
	default:
		e.Class, e.Hint = Connect, "check the address, the route and the network"
	}
	return e
}

// relpHint is for a peer that does not answer as RELP has it.
const relpHint = "does the receiver speak RELP on this port (rsyslog: imrelp, not imtcp)?"

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || (errors.As(err, &n) && n.Timeout())
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ENOTCONN) || // shutdown(2) of what a reset ended
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, errBareFIN) || errors.Is(err, errUnasked) || errors.Is(err, errSuspect) || errors.Is(err, net.ErrClosed)
}

// isAlert says that the peer sent a TLS alert; crypto/tls has no type for it.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func alertClass(err error, certAsked, haveCert bool) (Class, string) {
	text := err.Error()
	for _, s := range []string{"bad certificate", "certificate required", "certificate authority", "revoked", "expired", "unknown certificate", "unsupported certificate", "access denied", "error decrypting"} {
		if strings.Contains(text, s) {
			if !haveCert {
				return TLSClientCert, "the receiver wants a client certificate: set tls.cert and tls.key"
			}
			return TLSClientCert, "the receiver refuses our certificate: check its issuer and dates against what the receiver trusts"
		}
	}
	if certAsked && !haveCert && strings.Contains(text, "handshake failure") {
		return TLSClientCert, "the receiver asked for a client certificate: set tls.cert and tls.key"
	}
	return TLSVerify, "the receiver refused the handshake: compare TLS versions and ciphers (tls.min_version)"
}

// silentHint is for a peer that ends the connection once it has seen the certificate
// instead of saying by an alert what it has against it, as GnuTLS receivers do. With
// TLS 1.2 its reset may overtake the end of the handshake (RFC 5246, section 7.3).
func silentHint(haveCert bool) string {
	if !haveCert {
		return "the receiver asked for a client certificate and then ended the connection: set tls.cert and tls.key"
	}
	return "the receiver asked for our certificate and then ended the connection: check its issuer and dates against what the receiver trusts, and the receiver's log"
}

var (
	errDead    = errors.New("bytes are not acknowledged and probes not answered")
	errStalled = errors.New("the receiver takes nothing")
	errSuspect = errors.New("another connection to the peer broke during the drain")
	errNoDrain = &noDrain{}
	errStopped = errors.New("we stopped before the receiver had answered")
)

// noDrain is a drain without an answer; it is a timeout.
type noDrain struct{}

func (*noDrain) Error() string   { return "no answer to the drain" }
func (*noDrain) Timeout() bool   { return true }
func (*noDrain) Temporary() bool { return true }

// lostError is a connection's end as Flush tells it.
type lostError struct{ cause *Error }

func (l *lostError) Error() string        { return ErrLost.Error() + ": " + l.cause.Error() }
func (l *lostError) Is(target error) bool { return target == ErrLost }
func (l *lostError) Unwrap() error        { return l.cause }
