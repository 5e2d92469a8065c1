package certs_test

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
	"strings"
	"testing"
	"time"

	"datasync/feeds/certs"
)

// rig is a certificate's files, a clock, and what was told.
type rig struct {
	t         *testing.T
	cert, key string
	now       time.Time
	told      []string
}

func newRig(t *testing.T) *rig {
	dir := t.TempDir()
	return &rig{t: t, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"), now: time.Unix(1_800_000_000, 0)}
}

func (r *rig) options() certs.Options {
	return certs.Options{Now: func() time.Time { return r.now }, OnError: func(err error) { r.told = append(r.told, err.Error()) }}
}

// issue makes a certificate of a serial number and its key.
func (r *rig) issue(serial int64) (cert, key []byte) {
	r.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		r.t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		r.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk})
}

// put writes a file that looks as if it was written at another second than any before.
func (r *rig) put(path string, data []byte, second int64) {
	r.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(second, 0), time.Unix(second, 0)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) serial(p *certs.Pair) int64 {
	r.t.Helper()
	c, err := p.Get(nil)
	if err != nil {
		r.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		r.t.Fatal(err)
	}
	return leaf.SerialNumber.Int64()
}

func TestCertificateIsReadAgain(t *testing.T) {
	r := newRig(t)
	if _, err := certs.NewPair(r.cert, r.key, r.options()); err == nil {
		t.Fatal("files that are not there were read")
	}
	cert, key := r.issue(1)
	r.put(r.cert, cert, 1)
	r.put(r.key, key, 1)
	p, err := certs.NewPair(r.cert, r.key, r.options())
	if err != nil {
		t.Fatal(err)
	}
	cert, key = r.issue(2)
	r.put(r.cert, cert, 2)
	r.put(r.key, key, 2)
	if got := r.serial(p); got != 1 {
		t.Errorf("serial %d: the files are looked at with every connection", got)
	}
	r.now = r.now.Add(11 * time.Second)
	if got := r.serial(p); got != 2 || len(r.told) != 0 {
		t.Errorf("serial %d, want the new one; told %q", got, r.told)
	}
}

// A certificate and its key cannot be replaced at once. Who looks in between
// goes on with the old ones, and takes the new ones once both are there.
func TestCertificateBeforeItsKey(t *testing.T) {
	r := newRig(t)
	cert, key := r.issue(1)
	r.put(r.cert, cert, 1)
	r.put(r.key, key, 1)
	p, err := certs.NewPair(r.cert, r.key, r.options())
	if err != nil {
		t.Fatal(err)
	}
	cert, key = r.issue(2)
	r.put(r.cert, cert, 2)
	for range 3 {
		r.now = r.now.Add(11 * time.Second)
		if got := r.serial(p); got != 1 {
			t.Fatalf("serial %d, want the old one while the key does not match", got)
		}
	}
	if len(r.told) != 1 || !strings.Contains(r.told[0], "going on with the old one") {
		t.Errorf("told %q, want it once", r.told)
	}
	r.put(r.key, key, 2)
	r.now = r.now.Add(11 * time.Second)
	if got := r.serial(p); got != 2 {
		t.Errorf("serial %d: the new certificate is not used once its key is there", got)
	}
	if err := os.Remove(r.key); err != nil {
		t.Fatal(err)
	}
	r.now = r.now.Add(11 * time.Second)
	if got := r.serial(p); got != 2 || len(r.told) != 2 {
		t.Errorf("serial %d, told %q: a file that goes is told, and changes nothing", got, r.told)
	}
}

func TestAuthoritiesAreReadAgain(t *testing.T) {
	r := newRig(t)
	r.put(r.cert, []byte("nothing"), 1)
	if _, err := certs.NewPool(r.cert, r.options()); err == nil {
		t.Fatal("a file without a certificate was taken")
	}
	cert, _ := r.issue(1)
	r.put(r.cert, cert, 2)
	p, err := certs.NewPool(r.cert, r.options())
	if err != nil {
		t.Fatal(err)
	}
	old, err := p.Get()
	if err != nil {
		t.Fatal(err)
	}
	if same, err := p.Get(); err != nil || same != old {
		t.Errorf("another pool though nothing changed (%v)", err)
	}
	cert, _ = r.issue(2)
	r.put(r.cert, cert, 3)
	r.now = r.now.Add(11 * time.Second)
	now, err := p.Get()
	if err != nil || now == old || now.Equal(old) {
		t.Errorf("the new authority is not used (%v)", err)
	}
}
