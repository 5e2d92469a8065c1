package tlslines

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"datasync/feeds"
	"datasync/feeds/certs"
)

// identity is who the feed is and whom it lets in.
type identity struct {
	o      *Options
	config *tls.Config
	pair   *certs.Pair
	pool   *certs.Pool // nil: everybody is let in

	mu   sync.Mutex
	of   *x509.CertPool // what made is for
	made *tls.Config
}

func newIdentity(o *Options, tell func(error)) (*identity, error) {
	id := &identity{o: o}
	co := certs.Options{Now: o.Now, OnError: tell}
	var err error
	if id.pair, err = certs.NewPair(o.Cert, o.Key, co); err != nil {
		return nil, err
	}
	id.config = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: id.pair.Get}
	if o.ClientCA == "" {
		return id, nil
	}
	if id.pool, err = certs.NewPool(o.ClientCA, co); err != nil {
		return nil, err
	}
	id.config.GetConfigForClient = id.forClient
	return id, nil
}

// forClient gives the settings with the authorities as they are now. Other
// authorities have other keys for session tickets: who was let in by an authority
// that is gone is not let in again by a ticket.
func (id *identity) forClient(*tls.ClientHelloInfo) (*tls.Config, error) {
	pool, err := id.pool.Get()
	if err != nil {
		return nil, err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.of == pool {
		return id.made, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: id.pair.Get, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails
	c.SetSessionTicketKeys([][32]byte{key})
	// A client whose certificate names nobody is told so by TLS, at each
	// handshake, resumed ones too.
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		_, err := id.tenant(cs)
		return err
	}
	id.of, id.made = pool, c
	return c, nil
}

// tenant is whose events a connection brings; empty: each event says so.
func (id *identity) tenant(cs tls.ConnectionState) (feeds.TenantID, error) {
	if id.o.Tenant != "" || id.pool == nil {
		return id.o.Tenant, nil
	}
	if len(cs.PeerCertificates) == 0 { // TLS asked for one, so this is never so
		return "", errors.New("no client certificate")
	}
	return named(cs.PeerCertificates[0], id.o.Known)
}

// named is the tenant that a certificate names: the one name among its DNS
// names and its subject's common name that is a tenant we know, letter for
// letter.
func named(cert *x509.Certificate, known func(feeds.TenantID) bool) (feeds.TenantID, error) {
	var names []string
	var found []feeds.TenantID
	for _, name := range append(slices.Clone(cert.DNSNames), cert.Subject.CommonName) {
		if name == "" || slices.Contains(names, name) {
			continue
		}
		names = append(names, name)
		if id := feeds.TenantID(name); feeds.ValidName(name) && known(id) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", fmt.Errorf("%w: its names are %.200q, and none of them is a tenant that has a file; issue one whose common name or DNS name is the tenant's name", errNobody, names)
	}
	return "", fmt.Errorf("%w: it names %d tenants (%q); issue one for each", errNobody, len(found), found)
}

var errNobody = errors.New("the client's certificate names no tenant")

// refusal says what a failed handshake means; nil where there is nothing to say
// (somebody looked whether the port is open, or went away).
func refusal(err error) error {
	var header tls.RecordHeaderError
	var alert *net.OpError
	var verify *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, errNobody):
		return err
	case errors.As(err, &header):
		return errors.New("what came is not TLS: have the sender use TLS")
	case errors.As(err, &unknown):
		return fmt.Errorf("the client's certificate is not of an authority in client_ca: %w", err)
	case errors.As(err, &verify):
		return fmt.Errorf("the client's certificate does not count: %w", err)
	case errors.As(err, &alert) && alert.Op == "remote error":
		return fmt.Errorf("the client refused our certificate or settings (%w): give it the authority that signed cert, and check that cert holds the name it dials", err)
	case strings.Contains(err.Error(), "client didn't provide a certificate"):
		return errors.New("the client showed no certificate, and client_ca asks for one")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded), strings.Contains(err.Error(), "context deadline exceeded"):
		return errors.New("the client did not finish its handshake in time")
	}
	return fmt.Errorf("TLS: %w", err)
}
