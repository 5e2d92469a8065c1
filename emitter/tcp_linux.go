package emitter

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

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

// look samples TCP_INFO. It works on a broken connection until it is closed.
func look(c *net.TCPConn, now time.Time) (t TCP, state uint8, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return t, 0, err
	}
	var info *unix.TCPInfo
	cerr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	if cerr != nil {
		return t, 0, cerr
	}
	if err != nil {
		return t, 0, err
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
	}, info.State, nil
}

// pendingError takes the socket's error (a reset that came after the FIN).
func pendingError(c *net.TCPConn) error {
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
