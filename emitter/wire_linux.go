package emitter

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// chunk holds whole Offers, so that no line is spread over two connections.
type chunk struct {
	b    []byte
	ends []int // of the Offers in b, where queue.ends wants them
}

// Chunks come in a few sizes, so that thousands of clients with a line or two
// waiting hold kilobytes, and a busy one writes 64 KiB at a time.
var (
	chunkSizes = [...]int{4 << 10, 16 << 10, 64 << 10, 256 << 10}
	chunkPools [len(chunkSizes)]sync.Pool
)

func newChunk(need int) *chunk {
	for i, size := range chunkSizes {
		if need <= size {
			if k, ok := chunkPools[i].Get().(*chunk); ok {
				return k
			}
			return &chunk{b: make([]byte, 0, size)}
		}
	}
	return &chunk{b: make([]byte, 0, need)}
}

func (k *chunk) release() {
	for i, size := range chunkSizes {
		if cap(k.b) == size {
			k.b, k.ends = k.b[:0], k.ends[:0]
			chunkPools[i].Put(k)
			return // it is another's from here on
		}
	}
}

// queue is what waits to be written, in order. Client.mu guards it.
type queue struct {
	chunks  []*chunk
	head    int
	waiting int // bytes, those being written included
	ends    bool
}

func (q *queue) push(b []byte) {
	if n := len(q.chunks); n > q.head {
		last := q.chunks[n-1]
		if len(last.b)+len(b) <= cap(last.b) {
			last.add(b, q.ends)
			q.waiting += len(b)
			return
		}
	}
	k := newChunk(max(len(b), min(q.waiting, 64<<10)))
	k.add(b, q.ends)
	q.chunks = append(q.chunks, k)
	q.waiting += len(b)
}

func (k *chunk) add(b []byte, ends bool) {
	k.b = append(k.b, b...)
	if ends {
		k.ends = append(k.ends, len(k.b))
	}
}

// pop hands the first chunk out; its bytes count as waiting until wrote.
func (q *queue) pop() *chunk {
	if q.head == len(q.chunks) {
		return nil
	}
	k := q.chunks[q.head]
	q.chunks[q.head] = nil
	if q.head++; q.head == len(q.chunks) {
		q.chunks, q.head = q.chunks[:0], 0
	}
	return k
}

func (q *queue) wrote(k *chunk) {
	q.waiting -= len(k.b)
	k.release()
}

func (q *queue) clear() {
	for _, k := range q.chunks[q.head:] {
		k.release()
	}
	*q = queue{ends: q.ends}
}

// Transport is the connection below TLS. The kernel's TCP is the one that
// counts; a simulation brings one of its own, which must keep what drains rest
// on: a peer's FIN says that it closed with nothing unread, and a reset that it
// did not.
type Transport interface {
	net.Conn
	// CloseWrite sends our FIN behind all that was written. The writer calls it, once.
	CloseWrite() error
	// SetLinger(0) makes Close forget what is unsent and reset the connection.
	SetLinger(seconds int) error
	// Look samples what the kernel knows. over: both FINs are acknowledged, or
	// the connection was reset. It works on a connection that broke, until
	// Close; called beside Read and Write.
	Look(now time.Time) (t TCP, over bool, err error)
	// Err takes the error that waits to be told (a reset that came after the
	// FIN); nil where none does.
	Err() error
}

// tcpConn is a Transport of the kernel's.
type tcpConn struct{ *net.TCPConn }

// wire is the net.Conn below TLS: it gathers records so that one system call
// carries 256 KiB, and remembers whether the raw stream ended, which tls.Conn
// does not tell (its io.EOF stands for close_notify and for a bare FIN).
type wire struct {
	Transport
	eof     atomic.Bool
	blocked atomic.Bool // a write is waiting in the kernel

	mu     sync.Mutex
	gather bool // after the handshake
	buf    *chunk
	sent   uint64 // bytes of the connection so far, those gathered included
	err    error
}

const wireSize = 256 << 10

// Read reads from the socket and remembers its end.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Transport.Read(p)
	if errors.Is(err, io.EOF) {
		w.eof.Store(true)
	}
	return n, err
}

// Write takes TLS records; they leave at 256 KiB or with flush.
func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.sent += uint64(len(p))
	if !w.gather {
		return w.Transport.Write(p)
	}
	if w.buf != nil && len(w.buf.b)+len(p) > wireSize {
		if err := w.flushLocked(); err != nil {
			return 0, err
		}
	}
	if w.buf == nil {
		w.buf = newChunk(wireSize)
	}
	w.buf.b = append(w.buf.b, p...)
	return len(p), nil
}

func (w *wire) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flushLocked()
}

func (w *wire) flushLocked() error {
	if w.err != nil || w.buf == nil {
		return w.err
	}
	w.blocked.Store(true)
	_, w.err = w.Transport.Write(w.buf.b)
	w.blocked.Store(false)
	w.buf.release()
	w.buf = nil
	return w.err
}

// total is how many bytes the connection has carried when all that was written arrives.
func (w *wire) total() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

func (w *wire) startGathering() {
	w.mu.Lock()
	w.gather = true
	w.mu.Unlock()
}

// SetWriteDeadline does nothing: tls.Conn.CloseWrite would set one of 5 s and
// then forbid writing, but the records it wrote are still to be flushed, and a
// peer that is slow is not to be cut off. The owner ends a blocked write.
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline sets the read deadline only.
func (w *wire) SetDeadline(t time.Time) error { return w.Transport.SetReadDeadline(t) }

// The states of tcpi_state that matter at the end of a connection.
const (
	tcpTimeWait = 6
	tcpClosed   = 7
)

const (
	sendBuffer = 256 << 10 // with the low-water mark: bounds what one dead peer swallows
	notSentLow = 64 << 10
	keepAlive  = 15 * time.Second
)

// tune sets the options of a socket before it connects.
func tune(c syscall.RawConn) error {
	var err error
	cerr := c.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer); err == nil {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLow)
		}
	})
	if cerr != nil {
		return cerr
	}
	return err
}

// Look is Transport's: it samples TCP_INFO.
func (c tcpConn) Look(now time.Time) (t TCP, over bool, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return t, false, err
	}
	var info *unix.TCPInfo
	cerr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if cerr != nil {
		return t, false, cerr
	}
	if err != nil {
		return t, false, err
	}
	return TCP{
		Unacked:  uint64(info.Unacked),
		NotSent:  uint64(info.Notsent_bytes),
		Acked:    info.Bytes_acked,
		Window:   uint64(info.Snd_wnd),
		Probes:   uint64(info.Probes),
		LastAck:  time.Duration(info.Last_ack_recv) * time.Millisecond,
		RTT:      time.Duration(info.Rtt) * time.Microsecond,
		SampleAt: now,
	}, info.State == tcpClosed || info.State == tcpTimeWait, nil
}

// Err is Transport's: it takes SO_ERROR.
func (c tcpConn) Err() error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	cerr := raw.Control(func(fd uintptr) {
		n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	})
	if cerr != nil {
		return cerr
	}
	if err == nil && n != 0 {
		err = syscall.Errno(n)
	}
	return err
}
