package receivers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// serverName is the only name in a receiver's certificate: its address is not in it.
const serverName = "receiver.test"

const (
	useServer = x509.ExtKeyUsageServerAuth
	useClient = x509.ExtKeyUsageClientAuth
)

// authority issues certificates into files of its folder.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// pair names the PEM files of a certificate and its key.
type pair struct{ cert, key string }

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, time.Hour)
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

// ca is the file of the authority's own certificate.
func (a *authority) ca() string { return filepath.Join(a.dir, "ca.pem") }

// server issues a receiver's certificate that ends at now+valid; a valid below 0 has expired.
func (a *authority) server(valid time.Duration) pair {
	return a.issue("server", useServer, valid)
}

// client issues an emitter's.
func (a *authority) client(valid time.Duration) pair {
	return a.issue("client", useClient, valid)
}

// issue writes dir/file.pem and dir/file.key; one that is there is replaced.
func (a *authority) issue(file string, use x509.ExtKeyUsage, valid time.Duration) pair {
	a.t.Helper()
	name := map[x509.ExtKeyUsage]string{useServer: serverName, useClient: "datasync"}[use]
	leaf, key := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}}, valid)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair{a.write(file+".pem", "CERTIFICATE", leaf.Raw), a.write(file+".key", "PRIVATE KEY", der)}
}

func (a *authority) write(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func (a *authority) sign(template *x509.Certificate, valid time.Duration) (*x509.Certificate, *ecdsa.PrivateKey) {
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
