package receivers

import (
	"net"
	"sync"
)

// proxyBuffer is how much a proxy takes of a connection before the receiver has
// taken it.
const proxyBuffer = 1 << 20

// runProxy is a layer 4 proxy in its own process: it acknowledges a MiB of what
// it has not passed on. Its end is a kill.
func runProxy(o *peerOptions) {
	l, err := net.Listen("tcp", o.Listen)
	check(err)
	for {
		c, err := l.Accept()
		check(err)
		go func() {
			defer c.Close()
			to, err := net.Dial("tcp", o.Proxy)
			if err != nil {
				return // the sender finds its connection ended
			}
			defer to.Close()
			var both sync.WaitGroup
			both.Go(func() { pass(to, c, proxyBuffer) })
			both.Go(func() { pass(c, to, 32<<10) })
			both.Wait()
		}()
	}
}

// pass copies one direction with a buffer of its own, and its end.
func pass(to, from net.Conn, size int) {
	const part = 16 << 10
	parts := make(chan []byte, size/part)
	go func() {
		defer close(parts)
		for {
			b := make([]byte, part)
			n, err := from.Read(b)
			if n > 0 {
				parts <- b[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	for b := range parts {
		if _, err := to.Write(b); err != nil {
			_ = from.Close()
			for range parts { // its reader ends
			}
			return
		}
	}
	_ = to.(*net.TCPConn).CloseWrite()
}
