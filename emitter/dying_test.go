package emitter_test

import (
	"bufio"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
)

// dying is a weak receiver that is killed within a drain, having read
// everything, and is back at once: first the connection that was dialled ahead
// is reset, then the drained one ends by the kernel's bare FIN, as for an answer.
func dying(t *testing.T, set emittertest.CertSet) (addr string) {
	cfg, err := set.Server(false)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	drained, ended := make(chan struct{}), make(chan struct{})
	serve := func(n int, raw *net.TCPConn) {
		defer raw.Close()
		c := tls.Server(raw, cfg)
		if c.Handshake() != nil {
			return
		}
		if n == 1 {
			<-drained
			_ = raw.SetLinger(0) // reset
			_ = raw.Close()
			close(ended)
			return
		}
		for in := bufio.NewReader(c); ; {
			if _, err := in.ReadBytes('\n'); err != nil {
				break
			}
		}
		if n == 0 {
			close(drained)
			<-ended
			pause(t, 50*time.Millisecond) // the reset is seen first
		}
	}
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(n, c.(*net.TCPConn)) })
		}
	})
	return l.Addr().String()
}

// TestDyingWeakPeerDoesNotAnswer: with the connection dialled ahead broken, the
// end of the other is no answer to its drain.
func TestDyingWeakPeerDoesNotAnswer(t *testing.T) {
	set := emittertest.Certs(t)
	o := quick(nil)
	o.Addresses, o.TLS.CA = []string{dying(t, set)}, set.CA
	o.Learned = map[string]emitter.Answer{o.Addresses[0]: emitter.AnswerFIN}
	f := feed(t, o, 1)
	f.wait("a loss", func() bool { return len(f.lost) > 0 })
	f.mu.Lock()
	defer f.mu.Unlock()
	if l := f.lost[0]; l.from != 0 || l.read != 0 {
		t.Errorf("the peer died with all it had read; from %d on it is asked for again, and up to %d counted as read", l.from, l.read)
	}
}

// TestADeadPeerMayHaveForgottenWhatItRead: what it had proven to have read, and
// nothing had confirmed, is asked for again when it dies.
func TestADeadPeerMayHaveForgottenWhatItRead(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	o := quick(r)
	o.RotateEvery, o.Tuning.IdleAfter, o.Tuning.Grace = time.Hour, time.Hour, time.Hour
	f := feed(t, o, 10)
	f.wait("all offered", func() bool { return len(f.ends) == 10 })
	if err := f.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.wait("a connection to watch it by", func() bool { s := f.c.Status(); return s.Connected && s.Confirmed == 0 && s.Read == s.Offered })
	r.End(emittertest.Kill)
	f.wait("a loss", func() bool { return len(f.lost) > 0 })
	f.mu.Lock()
	defer f.mu.Unlock()
	if from := f.lost[0].from; from != 0 {
		t.Errorf("asked for again from %d on, and nothing was confirmed", from)
	}
}
