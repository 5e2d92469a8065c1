package emitter

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync/atomic"
	"time"

	"datasync/emitter/relp"
)

// conn is one connection with its two goroutines: a writer, which takes chunks
// from the client's queue while the connection is the active one, and a reader,
// which always reads and has the last word on how the connection ended.
type conn struct {
	c       *Client
	address string // as configured
	wire    *wire
	tls     *tls.Conn
	peer    Peer
	// certAsked: the peer asked for a client certificate; not where the session was resumed.
	certAsked bool

	session   *relp.Session // Protocol
	answers   *bufio.Reader // of session
	condemned map[relp.Digest]string
	frames    []byte // of the writer

	// Guarded by Client.mu.
	active bool    // the writer may take chunks
	stop   bool    // the writer is to drain at the next chunk boundary
	gone   bool    // the connection has ended
	place  station // of what was written last

	asked     atomic.Bool   // our end was sent: what ends now is an answer
	quiesced  chan struct{} // closed when everything, FIN included, is with the kernel
	killed    chan struct{} // closed by kill and leave
	writerEnd chan error    // capacity 1
	over      chan ending   // capacity 1: the reader's last word
	finished  chan struct{} // closed when both goroutines have ended
}

// ending is how a connection ended, as the reader saw it.
type ending struct {
	notify bool // the peer said close_notify
	fin    bool // then the raw stream ended, without a reset
	asked  bool // we had sent our end before
	err    error
	tcp    TCP
}

// errBareFIN is a connection that ended without close_notify.
var errBareFIN = errors.New("the peer closed without close_notify")

// errUnasked is an orderly end that the peer began.
var errUnasked = errors.New("the peer closed the connection")

// proof is nil where the ending proves that the peer read everything.
func (e ending) proof(weak bool) error {
	switch {
	case e.err != nil:
		return e.err
	case !e.fin:
		return io.ErrUnexpectedEOF
	case !e.asked && e.notify:
		return errUnasked
	case !e.asked || (!e.notify && !weak):
		return errBareFIN
	}
	return nil
}

// orderly says that the peer began the end itself and in good order: it is
// shutting down or restarting, and what it read before is its own.
func (e ending) orderly() bool { return e.notify && e.fin && e.err == nil }

// start begins to read; what is written is gathered from here on.
func (k *conn) start() {
	k.quiesced = make(chan struct{})
	k.killed = make(chan struct{})
	k.writerEnd = make(chan error, 1)
	k.over = make(chan ending, 1)
	k.finished = make(chan struct{})
	k.wire.startGathering()
	go k.write()
	go k.read()
}

// activate lets the writer take chunks.
func (k *conn) activate() {
	k.c.mu.Lock()
	k.active = true
	k.place = station{mark: k.c.marks.written, wire: k.wire.total()}
	k.condemned = maps.Clone(k.c.condemned)
	k.c.mu.Unlock()
	k.c.room.Broadcast()
}

// drain makes the writer send the end behind the last whole chunk.
func (k *conn) drain() {
	k.c.mu.Lock()
	k.active, k.stop = true, true
	k.c.mu.Unlock()
	k.c.room.Broadcast()
}

// kill ends the connection by a reset, so that the kernel forgets what is unsent,
// and waits for its goroutines.
func (k *conn) kill() {
	_ = k.wire.SetLinger(0) // best effort: the connection is given up
	k.end()
}

// leave ends the connection in good order without waiting for the answer.
func (k *conn) leave() {
	k.drain()
	timer := time.NewTimer(leaveWait)
	defer timer.Stop()
	select {
	case <-k.quiesced:
	case <-k.finished:
	case <-timer.C: // a write is blocked
	}
	k.end()
}

// leaveWait is how long leave waits for the last write.
const leaveWait = 100 * time.Millisecond

func (k *conn) end() {
	close(k.killed)
	_ = k.wire.Close() // nothing depends on this connection any more
	<-k.finished
}

func (k *conn) write() {
	err := k.writeAll()
	if err != nil {
		// The reader has the last word: an alert may lie there still to be read.
		// Where the kernel does not end it, this does.
		_ = k.wire.SetReadDeadline(time.Now().Add(time.Second))
	}
	k.writerEnd <- err
}

func (k *conn) writeAll() error {
	for {
		b := k.c.take(k, false)
		if b == nil {
			if err := k.wire.flush(); err != nil {
				return err
			}
			if b = k.c.take(k, true); b == nil {
				break
			}
		}
		if err := k.send(b); err != nil {
			k.c.dropped(b)
			return err
		}
		k.c.wrote(k, b)
	}
	if !k.c.draining(k) {
		return nil
	}
	k.asked.Store(true)
	if k.session != nil {
		if _, err := k.tls.Write(k.session.AppendClose(nil)); err != nil {
			return err
		}
	}
	if err := k.tls.CloseWrite(); err != nil {
		return err
	}
	if err := k.wire.flush(); err != nil {
		return err
	}
	if err := k.wire.CloseWrite(); err != nil {
		return err
	}
	close(k.quiesced)
	return nil
}

// send writes a chunk, as it is or as RELP has it.
func (k *conn) send(b *chunk) error {
	if k.session != nil {
		return k.sendRecords(b)
	}
	_, err := k.tls.Write(b.b)
	return err
}

func (k *conn) read() {
	defer close(k.finished)
	var e ending
	if k.session != nil {
		e = k.readAnswers()
	} else {
		e = k.readEnd()
	}
	if t, _, err := k.wire.Look(time.Now()); err == nil { // before Close: it is gone after
		e.tcp = t
	}
	k.c.mu.Lock()
	k.gone = true
	k.c.mu.Unlock()
	k.c.room.Broadcast()
	if e.err != nil || !e.fin {
		_ = k.wire.SetLinger(0) // best effort: what is unsent will be sent again
	}
	_ = k.wire.Close() // the end was judged above
	// The kernel tells an error once: where the writer got it, the reader saw a plain end.
	if err := <-k.writerEnd; err != nil && !errors.Is(err, net.ErrClosed) {
		if e.err == nil || isTimeout(e.err) {
			e.err = err
		}
	}
	k.over <- e
}

// readEnd reads until the connection ends and says how.
func (k *conn) readEnd() ending {
	buf := make([]byte, 1<<10)
	var err error
	for err == nil {
		_, err = k.tls.Read(buf)
	}
	e := ending{asked: k.asked.Load()}
	if errors.Is(err, io.EOF) && !k.wire.eof.Load() {
		e.notify = true
		if !e.asked {
			// The peer's own close: its FIN is there already or never comes.
			_ = k.wire.SetReadDeadline(time.Now().Add(time.Second))
		}
		for err = nil; err == nil; {
			_, err = k.wire.Read(buf)
		}
	}
	if e.fin = errors.Is(err, io.EOF); !e.fin {
		e.err = err
		return e
	}
	if e.asked {
		e.err = k.settle()
	}
	return e
}

// settle waits until the peer's kernel has acknowledged our FIN. A FIN of the
// peer that crossed ours is no answer: where it closed with our bytes still on
// the way, its reset comes now.
func (k *conn) settle() error {
	for {
		_, over, err := k.wire.Look(time.Now())
		if err != nil {
			return fmt.Errorf("reading TCP_INFO: %w", err)
		}
		if err := k.wire.Err(); err != nil {
			return err
		}
		if over {
			return nil
		}
		select {
		case <-k.killed:
			return net.ErrClosed
		case <-time.After(time.Millisecond):
		}
	}
}

// take hands k's writer the next chunk. It returns nil when the writer is to
// stop, and without wait also when nothing is there.
func (c *Client) take(k *conn, wait bool) *chunk {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if k.stop || k.gone {
			return nil
		}
		if k.active {
			if b := c.queue.pop(); b != nil {
				return b
			}
		}
		if !wait {
			return nil
		}
		c.room.Wait()
	}
}

func (c *Client) draining(k *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return k.stop && !k.gone
}

// wrote counts a chunk as written and wakes the owner where it has to decide.
func (c *Client) wrote(k *conn, b *chunk) {
	now := time.Now()
	wire := k.wire.total()
	c.mu.Lock()
	first := c.marks.written == c.marks.read
	before := c.marks.written
	if k.session == nil { // records count when they are begun: their answers may be there already
		c.marks.written += uint64(len(b.b))
	}
	k.place = station{mark: c.marks.written, wire: wire}
	c.status.BytesWritten += uint64(len(b.b))
	c.queue.wrote(b)
	c.lastWrite = now
	poke := first ||
		(before < c.rotateMark && c.marks.written >= c.rotateMark) ||
		(c.wantRoom && c.queue.waiting <= c.o.Buffer/2) ||
		(len(c.flushes) > 0 && c.queue.waiting == 0)
	c.mu.Unlock()
	if poke {
		c.poke()
	}
}

// dropped gives a chunk back whose write failed; the owner rewinds behind it.
func (c *Client) dropped(b *chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.torn = true
	c.queue.wrote(b)
}
