// Package certs holds certificates and authorities of listeners, read again when their files change.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// lookEvery is how often the files are looked at, at most.
const lookEvery = 10 * time.Second

// Options of a Pair or Pool; the zero value is the documented default.
type Options struct {
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// OnError is told, once each time another thing is wrong, that changed files
	// cannot be used and that the old ones stay in force. nil: nobody is told.
	OnError func(error)
}

// state is how the files looked when they were read.
type state [2]struct {
	size int64
	time time.Time
}

// watched reads files again when they changed, and keeps the last good reading.
type watched struct {
	o     Options
	what  string
	paths []string
	read  func() error // takes the files in; called with mu held

	mu     sync.Mutex
	good   bool // read worked once
	looked time.Time
	seen   state
	said   string // the last error told
}

func newWatched(o Options, what string, paths ...string) watched {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.OnError == nil {
		o.OnError = func(error) {}
	}
	return watched{o: o, what: what, paths: paths}
}

// look reads the files if it is time to and they changed; called with mu held.
// The error is of the first reading, which nothing can stand in for.
func (w *watched) look() error {
	now := w.o.Now()
	if w.good && now.Sub(w.looked) < lookEvery && !now.Before(w.looked) {
		return nil
	}
	w.looked = now
	is, err := stat(w.paths)
	if err == nil && w.good && is == w.seen {
		return nil
	}
	if err == nil {
		err = w.read()
	}
	switch {
	case err == nil:
		// Only what was read counts as seen: a certificate that was replaced a
		// moment before its key is read again with it.
		w.seen, w.good, w.said = is, true, ""
	case !w.good:
		return err
	case w.said != err.Error():
		w.said = err.Error()
		w.o.OnError(fmt.Errorf("read %s again, going on with the old one: %w", w.what, err))
	}
	return nil
}

func stat(paths []string) (is state, err error) {
	for i, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return is, err
		}
		is[i].size, is[i].time = info.Size(), info.ModTime()
	}
	return is, nil
}

// Pair is a certificate with its key. It is safe for concurrent use.
type Pair struct {
	watched
	current *tls.Certificate
}

// NewPair reads the PEM files of a certificate and its key.
func NewPair(cert, key string, o Options) (*Pair, error) {
	p := &Pair{watched: newWatched(o, "certificate "+cert, cert, key)}
	p.read = func() error {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err == nil {
			p.current = &pair
		}
		return err
	}
	if _, err := p.Get(nil); err != nil {
		return nil, err
	}
	return p, nil
}

// Get gives the certificate as tls.Config's GetCertificate wants it.
func (p *Pair) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.look(); err != nil {
		return nil, err
	}
	return p.current, nil
}

// Pool is a set of authorities. It is safe for concurrent use.
type Pool struct {
	watched
	current *x509.CertPool
}

// ErrNoCertificate means that a file holds no PEM certificate.
var ErrNoCertificate = errors.New("no PEM certificate in it")

// NewPool reads the PEM file of authorities.
func NewPool(path string, o Options) (*Pool, error) {
	p := &Pool{watched: newWatched(o, "authorities "+path, path)}
	p.read = func() error {
		pem, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("%s: %w", path, ErrNoCertificate)
		}
		p.current = pool
		return nil
	}
	if _, err := p.Get(); err != nil {
		return nil, err
	}
	return p, nil
}

// Get gives the authorities: another pool whenever the file was read anew.
func (p *Pool) Get() (*x509.CertPool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.look(); err != nil {
		return nil, err
	}
	return p.current, nil
}
