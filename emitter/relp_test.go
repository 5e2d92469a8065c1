package emitter_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
)

// relpOptions are quick ones for a RELP receiver.
func relpOptions(r *emittertest.RELP) emitter.Options {
	o := quick(nil)
	o.Addresses, o.TLS = []string{r.Addr()}, emitter.TLS{CA: r.Certs().CA}
	o.Confirm = emitter.Protocol
	return o
}

func TestRELPEverythingArrivesOnce(t *testing.T) {
	const n = 5000
	r := emittertest.NewRELP(t, emittertest.RELPOptions{})
	f := feed(t, relpOptions(r), n)
	f.allConfirmed(n)
	if repeats := arrived(t, r.Records(), n); repeats != 0 {
		t.Errorf("%d repeats without a fault", repeats)
	}
	if s := f.c.Status(); s.Confirm != "protocol" || s.Losses != 0 || s.Read != s.Confirmed || s.Peer.Version != "TLS 1.3" {
		t.Errorf("status %+v", s)
	}
	// A quiet session is closed in order, unless the machine is too busy for that.
	more := n
	for ; r.Closed() == 0 && more < n+20; more++ {
		f.to(more + 1)
		f.allConfirmed(more + 1)
		f.wait("a quiet session that is ended", func() bool { return !f.c.Status().Connected || !again(f) })
	}
	if r.Closed() == 0 {
		t.Error("no session was closed in order")
	}
	arrived(t, r.Records(), more)
	if s := f.c.Status(); s.Reason != "" {
		t.Errorf("status %+v", s)
	}
}

// TestRELPReplaysFromTheLastAck: a receiver dies at random instants, before and
// after it answered and before and after it stored; what it acknowledged is
// never sent again, and what it did not is.
func TestRELPReplaysFromTheLastAck(t *testing.T) {
	for name, act := range map[string]emittertest.Act{
		"killed between ack and store": emittertest.AckDie, "killed between store and ack": emittertest.StoreDie, "serverclose": emittertest.Goodbye,
	} {
		t.Run(name, func(t *testing.T) {
			const n, deaths, every = 6000, 20, 277
			died := 0
			r := emittertest.NewRELP(t, emittertest.RELPOptions{Each: func(i int, _ string) emittertest.Act {
				if i%every == 0 && died < deaths {
					died++
					return act
				}
				return emittertest.Take
			}})
			f := feed(t, relpOptions(r), n)
			f.allConfirmed(n)
			// What a session began with is the line behind the last answer that came
			// through: a reset takes with it what the sender had not read.
			acked, repeats, received, dead := 0, 0, 0, true
			var starts []uint64 // of the sessions behind a death; a slow machine ends quiet ones, too
			for i, s := range r.Sessions() {
				if len(s) == 0 {
					continue
				}
				var first int
				if _, err := fmt.Sscanf(s[0], `{"event_id":"%d"`, &first); err != nil {
					t.Fatal(err)
				}
				if first > acked || first < acked-128 {
					t.Fatalf("session %d began with line %d, the last acknowledged before it was line %d", i, first, acked-1)
				}
				if dead {
					starts = append(starts, uint64(first*len(testLine(0)+"\n")))
				}
				repeats += acked - first
				acked = first + len(s)
				received += len(s)
				if dead = received%every == 0 && received/every <= deaths; dead && act != emittertest.AckDie {
					acked-- // the last one got no answer
				}
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.lost) != deaths || len(starts) != deaths+1 {
				t.Fatalf("%d losses, %d sessions, %d deaths", len(f.lost), len(starts), died)
			}
			for i, l := range f.lost {
				if l.from != l.read || starts[i+1] != l.from {
					t.Errorf("loss %d: from %d, acknowledged %d, sent again from %d", i, l.from, l.read, starts[i+1])
				}
			}
			stored := map[string]bool{}
			for _, l := range r.Records() {
				stored[l] = true
			}
			lost := n - len(stored)
			if lost > 0 && act != emittertest.AckDie || lost > deaths {
				t.Errorf("%d lines lost", lost)
			}
			t.Logf("%d faults, %d events, %d lost (acknowledged and not stored), %d repeated", died, n, lost, repeats)
		})
	}
}

// TestRELPWindow: no more than a window is on the way without an answer, and a
// receiver that answers nothing is kept, shown as slow.
func TestRELPWindow(t *testing.T) {
	var mu sync.Mutex
	silent := true
	r := emittertest.NewRELP(t, emittertest.RELPOptions{Each: func(int, string) emittertest.Act {
		mu.Lock()
		defer mu.Unlock()
		if silent {
			return emittertest.Silent
		}
		return emittertest.Take
	}})
	f := feed(t, relpOptions(r), 1000)
	f.wait("a stall", func() bool { return len(f.states) > 0 && f.states[len(f.states)-1].Stalled })
	f.wait("a window of records", func() bool { return len(r.Sessions()[0]) >= 128 || !again(f) })
	pause(t, 20*time.Millisecond)
	if got := r.Sessions(); len(got) != 1 || len(got[0]) != 128 {
		t.Errorf("%d sessions, %d records without an answer", len(got), len(got[0]))
	}
	mu.Lock()
	silent = false
	mu.Unlock()
	r.Die()
	f.allConfirmed(1000)
	arrived(t, r.Records(), 1000)
}

// TestRELPRejection: a record that a receiver rejects while it takes others is
// given up after three times, kept first, and nobody waits for it any longer.
func TestRELPRejection(t *testing.T) {
	const n, bad = 500, 123
	r := emittertest.NewRELP(t, emittertest.RELPOptions{Each: func(_ int, rec string) emittertest.Act {
		if rec == testLine(bad) {
			return emittertest.Reject
		}
		return emittertest.Take
	}})
	var mu sync.Mutex
	var kept []string
	full := 1
	o := relpOptions(r)
	refused := func(record []byte, at uint64, reason string) error {
		mu.Lock()
		defer mu.Unlock()
		if full > 0 {
			full--
			return fmt.Errorf("no room in the quarantine")
		}
		kept = append(kept, fmt.Sprintf("%s|%s", record, reason))
		if want := uint64((bad + 1) * len(testLine(0)+"\n")); at != want {
			t.Errorf("refused at %d, want %d", at, want)
		}
		return nil
	}
	f := feedRefusing(t, o, n, refused)
	f.allConfirmed(n)
	mu.Lock()
	defer mu.Unlock()
	if len(kept) == 0 || kept[0] != testLine(bad)+"|the receiver answered 500 not this one" {
		t.Errorf("kept %q", kept)
	}
	seen := map[string]int{}
	for _, l := range r.Records() {
		seen[l]++
	}
	for i := range n {
		if got := seen[testLine(i)]; (i == bad) != (got == 0) {
			t.Errorf("line %d arrived %d times", i, got)
		}
	}
	times := 0
	for _, s := range r.Sessions() {
		for _, l := range s {
			if l == testLine(bad) {
				times++
			}
		}
	}
	if times != 3 {
		t.Errorf("the record was sent %d times", times)
	}
}

// TestRELPRejectsEverything: a receiver that takes nothing is away, and nothing
// is given up for it.
func TestRELPRejectsEverything(t *testing.T) {
	r := emittertest.NewRELP(t, emittertest.RELPOptions{Each: func(int, string) emittertest.Act { return emittertest.Reject }})
	f := feedRefusing(t, relpOptions(r), 10, func([]byte, uint64, string) error { t.Error("given up"); return nil })
	f.wait("five tries", func() bool { return len(r.Sessions()) >= 5 || !again(f) })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.states {
		if s.Reason != "" && (s.Reason != emitter.Invalid || !strings.Contains(s.Err.Error(), "500 not this one") || s.Hint == "") {
			t.Errorf("state %+v", s)
		}
	}
	if s := f.c.Status(); s.Confirmed != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestRELPOpening(t *testing.T) {
	lines := emittertest.New(t, emittertest.Options{})
	for name, c := range map[string]struct {
		addr, ca string
		class    emitter.Class
		text     string
	}{
		"a receiver of lines": {lines.Addr(), lines.Certs().CA, emitter.Timeout, "imrelp"},
		"refused":             {"500 go away", "", emitter.Invalid, "500 go away"},
		"without syslog":      {"200 OK\ncommands=other", "", emitter.Invalid, "imrelp"},
		"something else":      {"hello", "", emitter.Invalid, "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			o := quick(nil)
			o.Addresses, o.TLS.CA = []string{c.addr}, c.ca
			if c.ca == "" {
				r := emittertest.NewRELP(t, emittertest.RELPOptions{Opening: c.addr})
				o.Addresses, o.TLS.CA = []string{r.Addr()}, r.Certs().CA
			}
			o.Confirm, o.DialTimeout = emitter.Protocol, 200*time.Millisecond
			f := feed(t, o, 3)
			f.wait("a verdict", func() bool { return len(f.states) > 0 })
			if s := f.c.Status(); s.Reason != c.class || !strings.Contains(s.Err.Error()+s.Hint, c.text) {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// TestRELPClientCertificate: a refused certificate is told before a record goes out.
func TestRELPClientCertificate(t *testing.T) {
	r := emittertest.NewRELP(t, emittertest.RELPOptions{ClientCA: true})
	f := feed(t, relpOptions(r), 3)
	f.wait("a verdict", func() bool { return len(f.states) > 0 })
	if s := f.c.Status(); s.Reason != emitter.TLSClientCert || !strings.Contains(s.Hint, "tls.cert") {
		t.Errorf("status %+v", s)
	}
	if n := len(r.Sessions()); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// TestRELPCertificateRefusedAfterwards: librelp looks at dates after the handshake
// and then closes the session without a word why.
func TestRELPCertificateRefusedAfterwards(t *testing.T) {
	for _, asked := range []bool{true, false} {
		r := emittertest.NewRELP(t, emittertest.RELPOptions{ClientCA: asked, Opening: "serverclose"})
		o := relpOptions(r)
		want := emitter.Reset
		if asked {
			o.TLS.Cert, o.TLS.Key = r.Certs().ClientCert, r.Certs().ClientKey
			want = emitter.TLSClientCert
		}
		f := feed(t, o, 3)
		f.wait("a verdict", func() bool { return len(f.states) > 0 })
		if s := f.states[0]; s.Reason != want || s.Hint == "" {
			t.Errorf("state %+v", s)
		}
	}
}

func TestRELPFlush(t *testing.T) {
	r := emittertest.NewRELP(t, emittertest.RELPOptions{})
	f := feed(t, relpOptions(r), 300)
	f.wait("all offered", func() bool { return f.next == 300 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := f.flush(ctx); err != nil {
		t.Fatal(err)
	}
	if s := f.c.Status(); s.Confirmed != s.Offered || r.Acked() != 300 {
		t.Errorf("after Flush: %d acknowledged, %+v", r.Acked(), s)
	}
}

// TestRELPOctets: octet-counted frames are cut apart again; the record is the message.
func TestRELPOctets(t *testing.T) {
	r := emittertest.NewRELP(t, emittertest.RELPOptions{})
	o := relpOptions(r)
	o.Octets = true
	c, err := emitter.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Offer([]byte("5 a b\nc11 hello world"))
	c.Offer([]byte("1 x"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.Records(), "|"); got != "a b\nc|hello world|x" {
		t.Errorf("got %q", got)
	}
}
