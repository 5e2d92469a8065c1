package simulation_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"datasync/exporter/simulation/simtcp"
)

// receiver is a TLS line receiver as SIEMs have them. It stores what it read a
// little later, and loses what it had not stored when it is killed.
type receiver struct {
	w       *world
	address string
	key     string
	// weak ones end with a bare FIN.
	weak bool
	// behind is how long what was read waits to be stored.
	behind time.Duration

	mu     sync.Mutex
	host   *simtcp.Host
	life   int
	frozen chan struct{} // nil: it runs; closed at the thaw
	ln     *simtcp.Listener
	queue  [][]byte // read, not stored
	stored []string // lines, in the order stored
	lives  []int    // how much was stored when each life ended
	ended  sync.WaitGroup
}

func (r *receiver) start() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ln != nil {
		return nil
	}
	r.host = r.w.net.Host("receiver of " + r.key)
	ln, err := r.host.Listen(r.address)
	if err != nil {
		return err
	}
	r.ln = ln
	r.life++
	life := r.life
	r.ended.Add(1)
	go func() {
		defer r.ended.Done()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.ended.Add(1)
			go func() {
				defer r.ended.Done()
				r.serve(c, life)
			}()
		}
	}()
	return nil
}

// serve reads lines until the peer ends, and answers an orderly end at once: a
// drain proves that it read them, not that it stored them.
func (r *receiver) serve(raw net.Conn, life int) {
	defer raw.Close()
	t := tls.Server(raw, r.w.server)
	if err := raw.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return
	}
	if t.Handshake() != nil || raw.SetReadDeadline(time.Time{}) != nil {
		return
	}
	in := bufio.NewReaderSize(t, 16<<10)
	for {
		r.awake()
		line, err := in.ReadBytes('\n')
		if err == nil {
			r.took(line, life)
			continue
		}
		if !errors.Is(err, io.EOF) {
			return
		}
		r.awake()
		if !r.weak {
			_ = t.CloseWrite() // where the peer is gone, nothing depends on it
		}
		return
	}
}

// awake waits while the process is stopped.
func (r *receiver) awake() {
	for {
		r.mu.Lock()
		frozen := r.frozen
		r.mu.Unlock()
		if frozen == nil {
			return
		}
		<-frozen
	}
}

// took takes in a line that was read; the queue is stored in one go, a while
// after its first line.
func (r *receiver) took(line []byte, life int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life != life || r.ln == nil {
		return // killed: this goroutine only does not know yet
	}
	r.queue = append(r.queue, line)
	if r.behind == 0 {
		r.storeLocked()
	} else if len(r.queue) == 1 {
		time.AfterFunc(r.behind, func() { r.store(life) })
	}
}

func (r *receiver) store(life int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life == life && r.ln != nil {
		r.storeLocked()
	}
}

func (r *receiver) storeLocked() {
	for _, l := range r.queue {
		r.stored = append(r.stored, string(bytes.TrimSuffix(l, []byte("\n"))))
		r.w.trace("%s stores %s", r.key, eventID(l))
	}
	r.queue = nil
}

// down ends the receiver: its memory is lost, and the kernel ends what was
// open; or, where it vanishes, nobody hears a word.
func (r *receiver) down(vanish bool) {
	r.mu.Lock()
	if r.ln == nil {
		r.mu.Unlock()
		return
	}
	r.ln, r.queue = nil, nil
	r.lives = append(r.lives, len(r.stored))
	host := r.host
	r.thawLocked()
	r.mu.Unlock()
	if vanish {
		r.w.net.Block(r.address, true)
		host.Vanish()
	} else {
		host.Kill()
	}
}

// stop ends it in good order: what it read it stores first.
func (r *receiver) stop() {
	r.mu.Lock()
	if r.ln != nil {
		r.storeLocked()
	}
	r.mu.Unlock()
	r.down(false)
}

func (r *receiver) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen == nil && r.ln != nil {
		r.frozen = make(chan struct{})
	}
}

func (r *receiver) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.thawLocked()
}

func (r *receiver) thawLocked() {
	if r.frozen != nil {
		close(r.frozen)
		r.frozen = nil
	}
}

// settle stores what waits: when we die, receivers that live on have the time to.
func (r *receiver) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ln != nil {
		r.storeLocked()
	}
}
