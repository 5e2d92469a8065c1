package simtcp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"datasync/exporter/simulation/simtcp"
)

// conn is what the kernel's and the simulated connections have in common.
type conn interface {
	net.Conn
	CloseWrite() error
	SetLinger(int) error
}

// pairs make two ends of a connection: the kernel's say what is right.
var pairs = map[string]func(t *testing.T) (a, b conn){
	"kernel": func(t *testing.T) (a, b conn) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn), s.(*net.TCPConn)
	},
	"simulated": func(t *testing.T) (a, b conn) {
		n := simtcp.New(1)
		ln, err := n.Host("server").Listen("there")
		if err != nil {
			t.Fatal(err)
		}
		c, err := n.Host("client").Dial(context.Background(), "tcp", "there")
		if err != nil {
			t.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c, s.(*simtcp.Conn)
	},
}

// both runs a test on the kernel's TCP and on ours.
func both(t *testing.T, test func(t *testing.T, a, b conn)) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			defer a.Close()
			defer b.Close()
			for _, c := range []conn{a, b} {
				if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
					t.Fatal(err)
				}
			}
			test(t, a, b)
		})
	}
}

func write(t *testing.T, c conn, n int) {
	t.Helper()
	if _, err := c.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

func read(c conn) (int, error) {
	return c.Read(make([]byte, 100))
}

// take reads n bytes, and waits for them.
func take(t *testing.T, c conn, n int) {
	t.Helper()
	if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestAnOrderlyEnd(t *testing.T) {
	both(t, func(t *testing.T, a, b conn) {
		write(t, a, 50)
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		take(t, b, 50)
		_, err := read(b)
		wants(t, "read behind the FIN", err, io.EOF)
		write(t, b, 70) // the other half is open
		take(t, a, 70)
		_ = b.Close()
		_, err = read(a)
		wants(t, "read behind the other FIN", err, io.EOF)
		_, err = a.Write([]byte("x"))
		wants(t, "write behind our FIN", err, syscall.EPIPE)
	})
}

func TestClosedWithUnreadData(t *testing.T) {
	both(t, func(t *testing.T, a, b conn) {
		write(t, a, 50)
		take(t, b, 49) // so it is there
		write(t, b, 10)
		take(t, a, 9)
		_ = b.Close()
		_, err := read(a)
		if err == nil { // what had come before is still given
			_, err = read(a)
		}
		wants(t, "read", err, syscall.ECONNRESET)
		_, err = read(a)
		wants(t, "the error is told once; read", err, io.EOF)
		_, err = a.Write([]byte("x"))
		wants(t, "write", err, syscall.EPIPE)
	})
}

func TestClosedWithNothingUnread(t *testing.T) {
	both(t, func(t *testing.T, a, b conn) {
		write(t, a, 50)
		take(t, b, 50)
		_ = b.Close()
		_, err := read(a)
		wants(t, "read", err, io.EOF)
		// Nobody is there to read this: it is answered with a reset.
		write(t, a, 10)
		for err = nil; err == nil; {
			_, err = a.Write([]byte("x"))
		}
		wants(t, "write", err, syscall.EPIPE)
	})
}

func TestLinger(t *testing.T) {
	both(t, func(t *testing.T, a, b conn) {
		if err := b.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		_ = b.Close()
		_, err := read(a)
		wants(t, "read", err, syscall.ECONNRESET)
	})
}

func TestAFINAndThenAReset(t *testing.T) {
	both(t, func(t *testing.T, a, b conn) {
		if err := b.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, err := read(a)
		wants(t, "read", err, io.EOF)
		write(t, a, 50)
		take(t, b, 49)
		_ = b.Close()
		for err = nil; err == nil; {
			_, err = a.Write([]byte("x"))
		}
		wants(t, "write", err, syscall.EPIPE)
		_, err = read(a)
		wants(t, "read: the end was seen first", err, io.EOF)
	})
}

func TestBuffersFillUp(t *testing.T) {
	both(t, func(t *testing.T, a, b conn) {
		text := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
		done := make(chan error, 1)
		go func() {
			_, err := a.Write(text)
			done <- errors.Join(err, a.CloseWrite())
		}()
		got, err := io.ReadAll(b)
		if err := errors.Join(err, <-done); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, text) {
			t.Errorf("%d bytes came, or others", len(got))
		}
		if err := a.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	both(t, func(t *testing.T, a, b conn) {
		if err := a.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := read(a)
		wants(t, "read", err, os.ErrDeadlineExceeded)
		for err = nil; err == nil; { // until nothing goes in any more
			_, err = a.Write(make([]byte, 1<<20))
		}
		wants(t, "write", err, os.ErrDeadlineExceeded)
		if err := a.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		write(t, b, 5)
		take(t, a, 5)
	})
}
