package simtcp_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"datasync/exporter/simulation/simtcp"
)

// meet makes a network with one connection in a bubble.
func meet(t *testing.T) (n *simtcp.Network, there *simtcp.Host, a, b *simtcp.Conn) {
	n = simtcp.New(1)
	there = n.Host("server")
	ln, err := there.Listen("there")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = n.Host("client").Dial(context.Background(), "tcp", "there"); err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return n, there, a, s.(*simtcp.Conn)
}

func TestAHostThatVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, there, a, b := meet(t)
		there.Vanish()
		if _, err := b.Read(make([]byte, 1)); err == nil {
			t.Error("a read on a host that is gone")
		}
		write(t, a, 10)
		began := time.Now()
		time.Sleep(30 * time.Second)
		if look, over, err := a.Look(time.Now()); err != nil || over || look.Unacked != 1 || look.LastAck < 30*time.Second || look.Acked != 1 {
			t.Errorf("%+v %v %v", look, over, err)
		}
		_, err := read(a)
		if !errors.Is(err, syscall.ETIMEDOUT) || time.Since(began) < time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestAHostThatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, there, a, _ := meet(t)
		there.Vanish()
		write(t, a, 10)
		there.Reboot()
		if _, err := read(a); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	})
}

func TestABlockedPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, _, a, b := meet(t)
		n.Block("there", true)
		write(t, a, 10)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := n.Host("other").Dial(ctx, "tcp", "there"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if look, _, _ := a.Look(time.Now()); look.Unacked != 1 {
			t.Errorf("%+v", look)
		}
		n.Block("there", false)
		take(t, b, 10)
		if look, over, err := a.Look(time.Now()); err != nil || over || look.Unacked != 0 || look.Acked != 11 {
			t.Errorf("%+v %v %v", look, over, err)
		}
	})
}

// A FIN that crossed ours is no answer: the reset behind it shows in Err.
func TestFINsThatCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, there, a, _ := meet(t)
		write(t, a, 10)
		there.Kill() // its buffer is empty still: a FIN
		if err := a.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := read(a); err == nil {
			t.Error("the end was no end")
		}
		time.Sleep(time.Second)
		if _, over, err := a.Look(time.Now()); !over || err != nil {
			t.Error(over, err)
		}
		if err := a.Err(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("what was on its way to a dead process: %v", err)
		}
	})
}
