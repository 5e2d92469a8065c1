// Package emittertest is a TLS receiver that misbehaves on request, with the
// certificates to reach it, for tests of emitters.
package emittertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// TB is what is used of *testing.T and *testing.B; the package testing itself
// stays out of programs that import this one.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	TempDir() string
	Cleanup(func())
}

// CertSet names the PEM files of a small authority and what it signed. The
// server's certificate is for 127.0.0.1, ::1 and localhost.
type CertSet struct {
	CA                      string
	ServerCert, ServerKey   string
	ClientCert, ClientKey   string
	ForeignCert, ForeignKey string // a client certificate that CA did not sign
}

// Certs makes a set in the test's folder.
func Certs(t TB) CertSet {
	t.Helper()
	s, err := WriteCerts(t.TempDir())
	if err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

// WriteCerts makes a set in dir, valid for a day. Keys are readable by the owner only.
func WriteCerts(dir string) (CertSet, error) {
	ca, err := newAuthority("Data Sync trial CA")
	if err != nil {
		return CertSet{}, err
	}
	foreign, err := newAuthority("another CA")
	if err != nil {
		return CertSet{}, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	s := CertSet{
		CA:         in("ca.pem"),
		ServerCert: in("server.pem"), ServerKey: in("server.key"),
		ClientCert: in("client.pem"), ClientKey: in("client.key"),
		ForeignCert: in("foreign.pem"), ForeignKey: in("foreign.key"),
	}
	if err := writePEM(s.CA, "CERTIFICATE", ca.der, 0o644); err != nil {
		return CertSet{}, err
	}
	for _, leaf := range []struct {
		by        *authority
		name      string
		cert, key string
	}{
		{ca, "receiver", s.ServerCert, s.ServerKey},
		{ca, "sender", s.ClientCert, s.ClientKey},
		{foreign, "stranger", s.ForeignCert, s.ForeignKey},
	} {
		if err := leaf.by.sign(leaf.name, leaf.cert, leaf.key); err != nil {
			return CertSet{}, fmt.Errorf("making the certificate of the %s: %w", leaf.name, err)
		}
	}
	return s, nil
}

// Server is the TLS configuration of a receiver; clientCA demands a client certificate.
func (s CertSet) Server(clientCA bool) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(s.ServerCert, s.ServerKey)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if clientCA {
		pemBytes, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, err
		}
		cfg.ClientCAs = x509.NewCertPool()
		cfg.ClientCAs.AppendCertsFromPEM(pemBytes)
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return cfg, nil
}

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	der  []byte
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl, err := template(name)
	if err != nil {
		return nil, err
	}
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key, der}, nil
}

func (a *authority) sign(name, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl, err := template(name)
	if err != nil {
		return err
	}
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	tmpl.DNSNames = []string{"localhost"}
	tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writePEM(certFile, "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	return writePEM(keyFile, "PRIVATE KEY", keyDER, 0o600)
}

func template(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(24 * time.Hour),
	}, nil
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, b, mode); err != nil {
		return fmt.Errorf("writing a certificate: %w", err)
	}
	return nil
}

// Client is the TLS configuration of a sender that trusts CA and has no certificate.
func (s CertSet) Client() (*tls.Config, error) {
	pemBytes, err := os.ReadFile(s.CA)
	if err != nil {
		return nil, err
	}
	cfg := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	cfg.RootCAs.AppendCertsFromPEM(pemBytes)
	return cfg, nil
}
