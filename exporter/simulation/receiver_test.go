package simulation_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"datasync/emitter/relp"
	"datasync/exporter/simulation/simtcp"
)

// speech is how a receiver tells what it has, as its sink's confirm has it.
type speech string

const (
	drains       speech = "drain"
	keeps        speech = "window" // the connection is kept
	acknowledges speech = "protocol, protocol: relp"
)

// receiver is a TLS line receiver as SIEMs have them. It stores what it read a
// little later, and loses what it had not stored when it is killed; one of RELP
// stores before it acknowledges.
type receiver struct {
	w       *world
	address string
	key     string
	speaks  speech
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
	ended  sync.WaitGroup

	live    []*tls.Conn   // connections that are up
	drained int           // lines at the queue's head whose drain was answered
	forgets bool          // it dies within after of a drain, with what it had not stored
	spared  bool          // not now: nobody watches it
	after   time.Duration // see forgets
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
	if !r.opened(t, life) {
		return
	}
	defer r.closed(t)
	in := bufio.NewReaderSize(t, 16<<10)
	if r.speaks == acknowledges {
		r.acknowledge(in, t, life)
		return
	}
	for {
		r.awake()
		line, err := in.ReadBytes('\n')
		if err == nil {
			if !r.took(line, life) {
				return
			}
			continue
		}
		if !errors.Is(err, io.EOF) {
			return
		}
		r.awake()
		if !r.lives(life) {
			return
		}
		if !r.weak {
			_ = t.CloseWrite() // where the peer is gone, nothing depends on it
		}
		r.closed(t)
		r.answered(life)
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

// acknowledge takes RELP's records (docs of librelp, relp.html) until the session ends.
func (r *receiver) acknowledge(in *bufio.Reader, t *tls.Conn, life int) {
	for {
		r.awake()
		f, err := relp.Read(in, 1<<20)
		if err != nil {
			return
		}
		r.awake()
		var answer []byte
		switch f.Command {
		case "open":
			answer = relp.AppendFrame(nil, f.Txn, "rsp", []byte("200 OK\nrelp_version=0\nrelp_software=simulation\ncommands=syslog"))
		case "syslog":
			if !r.took(f.Data, life) {
				return
			}
			answer = relp.AppendFrame(nil, f.Txn, "rsp", []byte("200 OK"))
		case "close":
			answer = append(relp.AppendFrame(nil, f.Txn, "rsp", nil), "0 serverclose 0\n"...)
		}
		if _, err := t.Write(answer); err != nil || f.Command == "close" {
			return
		}
	}
}

// opened notes a connection that is up; false: this life is over.
func (r *receiver) opened(t *tls.Conn, life int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life != life || r.ln == nil {
		return false
	}
	r.live = append(r.live, t)
	r.dieLocked()
	return true
}

func (r *receiver) closed(t *tls.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live = slices.DeleteFunc(r.live, func(o *tls.Conn) bool { return o == t })
}

// answered notes a drain: what was read is proven to be, and need not be stored.
func (r *receiver) answered(life int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life == life {
		r.drained = len(r.queue)
		r.dieLocked()
	}
}

// forget has the receiver die within after of its next drain, where that leaves
// lines that it has not stored, and be back at once. Its peer watches it then:
// there is another connection. Weak ones do not: see DESIGN.md, "What it does
// not do", of the emitter.
func (r *receiver) forget(after time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgets, r.after = r.speaks == drains && !r.weak, after
}

func (r *receiver) dieLocked() {
	if !r.forgets || r.drained == 0 || len(r.live) == 0 {
		return
	}
	r.forgets = false
	life := r.life
	time.AfterFunc(r.after, func() {
		r.mu.Lock()
		dies := r.life == life && r.ln != nil && r.drained > 0 && len(r.live) > 0 && !r.spared
		r.mu.Unlock()
		if dies {
			r.w.trace("%s forgets %d lines", r.key, r.drained)
			r.down(killed)
			r.raise()
		}
	})
}

// lives says whether that life goes on: a goroutine may not know of its end yet.
func (r *receiver) lives(life int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life == life && r.ln != nil
}

// took takes in a line that was read; the queue is stored in one go, a while
// after its first line. False: this life is over.
func (r *receiver) took(line []byte, life int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life != life || r.ln == nil {
		return false
	}
	r.queue = append(r.queue, line)
	if r.behind == 0 {
		r.storeLocked()
	} else if len(r.queue) == 1 {
		time.AfterFunc(r.behind, func() { r.store(life) })
	}
	return true
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
	r.queue, r.drained = nil, 0
}

// end is how a receiver ends.
type end uint8

const (
	killed   end = iota // the kernel ends what was open
	vanished            // nobody hears a word
	inOrder             // it stores what it read, says close_notify (but for weak ones) and closes
)

// down ends the receiver: but for an end in order, its memory is lost.
func (r *receiver) down(how end) {
	r.mu.Lock()
	if r.ln == nil {
		r.mu.Unlock()
		return
	}
	if how == inOrder {
		r.storeLocked()
	}
	if r.drained > 0 {
		unknown := bothAtOnce
		if how == vanished {
			unknown = silence
		}
		r.w.known.Store(max(r.w.known.Load(), int64(r.w.since()+unknown)))
	}
	// Its connections end before its memory does: it answers nothing in between.
	switch how {
	case killed:
		r.host.Kill()
	case vanished:
		r.w.net.Block(r.address, true)
		r.host.Vanish()
	}
	r.ln, r.queue, r.drained = nil, nil, 0
	host, live := r.host, r.live
	r.live = nil
	r.thawLocked()
	r.mu.Unlock()
	if how != inOrder {
		return
	}
	for _, t := range live {
		if !r.weak {
			_ = t.CloseWrite() // the peer may be gone
		}
	}
	host.Kill()
}

// stop ends it in good order, once it has read what it got while it stood still.
func (r *receiver) stop() {
	r.thaw()
	pause(context.Background(), time.Millisecond)
	r.down(inOrder)
}

func (r *receiver) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen != nil || r.ln == nil {
		return
	}
	r.frozen = make(chan struct{})
	if frozen := r.frozen; r.speaks == keeps {
		time.AfterFunc(stillAtMost, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.frozen == frozen {
				r.thawLocked()
			}
		})
	}
}

// stillAtMost is less than what a kernel holds counts as read after, with
// confirm: window.
const stillAtMost = 25 * time.Second

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

// spare has the receiver not forget anything until it is settled.
func (r *receiver) spare() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spared = true
}

// settle stores what waits: when we die, receivers that live on have the time to.
func (r *receiver) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spared = false
	if r.ln != nil {
		r.storeLocked()
	}
}
