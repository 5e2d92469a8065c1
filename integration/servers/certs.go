package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// ServerName is the only name in the certificates that Authority.Server
// issues: the receiver's address is not in them.
const ServerName = "receiver.test"

// Certs names the PEM files of a certificate, its key, and the authority that issued it.
type Certs struct{ CA, Cert, Key string }

// NewCerts makes an authority and one certificate for a day, of a receiver at
// 127.0.0.1, with which a client may show itself as well.
func NewCerts(t testing.TB) Certs {
	t.Helper()
	return NewAuthority(t, "integration CA").Local("cert", 24*time.Hour)
}

// Authority issues certificates into files of its folder, and is good for a day.
type Authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority with its own certificate.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, 24*time.Hour)
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

// CA is the file of the authority's own certificate.
func (a *Authority) CA() string { return filepath.Join(a.dir, "ca.pem") }

// Server issues a receiver's certificate for ServerName that ends at
// now+valid; a valid below 0 has expired. The one before is replaced where it lies.
func (a *Authority) Server(valid time.Duration) Certs {
	a.t.Helper()
	return a.named("server", ServerName, x509.ExtKeyUsageServerAuth, valid)
}

// Client issues a client's as Server does a receiver's. Names of files keep
// several apart.
func (a *Authority) Client(file string, valid time.Duration) Certs {
	a.t.Helper()
	return a.named(file, "datasync", x509.ExtKeyUsageClientAuth, valid)
}

// Named issues a client's certificate for a name.
func (a *Authority) Named(file, name string, valid time.Duration) Certs {
	a.t.Helper()
	return a.named(file, name, x509.ExtKeyUsageClientAuth, valid)
}

// Local issues a certificate of a receiver at 127.0.0.1, with which a client
// may show itself as well.
func (a *Authority) Local(file string, valid time.Duration) Certs {
	a.t.Helper()
	return a.issue(file, valid, &x509.Certificate{
		Subject: pkix.Name{CommonName: "receiver"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *Authority) named(file, name string, use x509.ExtKeyUsage, valid time.Duration) Certs {
	a.t.Helper()
	return a.issue(file, valid, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}})
}

func (a *Authority) issue(file string, valid time.Duration, template *x509.Certificate) Certs {
	a.t.Helper()
	leaf, key := a.sign(template, valid)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return Certs{a.CA(), a.write(file+".pem", "CERTIFICATE", leaf.Raw), a.write(file+".key", "PRIVATE KEY", der)}
}

func (a *Authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	return write(a.t, filepath.Join(a.dir, name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}

// sign signs a certificate with the authority's key, the authority's own with itself.
func (a *Authority) sign(template *x509.Certificate, valid time.Duration) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(valid)
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}
