package emitter

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestRotateAt(t *testing.T) {
	o := Options{}.withDefaults()
	t0 := time.Unix(1000, 0)
	s := func(d float64) time.Time { return t0.Add(time.Duration(d * float64(time.Second))) }
	const never = -1.0
	for name, c := range map[string]struct {
		p    pace
		want float64 // seconds after t0
	}{
		"nothing unconfirmed":           {pace{marks: marks{9, 9, 9, 9}, connected: t0}, never},
		"waiting only":                  {pace{marks: marks{9, 5, 5, 5}, connected: t0}, never},
		"first burst, quiet":            {pace{marks: marks{9, 9, 0, 0}, connected: t0, lastWrite: s(2)}, 3},
		"busy":                          {pace{marks: marks{9, 9, 0, 0}, connected: t0, lastWrite: s(9.5)}, 10},
		"busy, rotated before":          {pace{marks: marks{9, 9, 5, 0}, connected: t0, lastRotation: s(10), lastWrite: s(19.9)}, 20},
		"many bytes":                    {pace{marks: marks{1 << 29, 1 << 29, 0, 0}, connected: t0, lastWrite: s(9)}, 1},
		"many bytes before the last":    {pace{marks: marks{1 << 29, 1 << 29, 1, 0}, base: 1 << 29, connected: t0, lastWrite: s(9)}, 10},
		"read, to be confirmed":         {pace{marks: marks{9, 9, 9, 0}, connected: t0, lastRotation: s(1), lastWrite: s(0)}, 6},
		"read, the connection is newer": {pace{marks: marks{9, 9, 9, 0}, connected: s(4), lastRotation: s(1), lastWrite: s(0)}, 9},
		"trickle: not at every line":    {pace{marks: marks{9, 9, 8, 0}, connected: t0, lastRotation: s(3), lastWrite: s(3.5)}, 8},
		"former life":                   {pace{marks: marks{7, 7, 7, 0}, connected: t0}, 5},
		"flush with lines to write":     {pace{marks: marks{9, 5, 0, 0}, flush: 9, connected: t0, lastWrite: s(3)}, 4},
		"flush, all written":            {pace{marks: marks{9, 9, 0, 0}, flush: 9, connected: t0, lastWrite: s(3)}, 0},
		"flush done, unconfirmed stays": {pace{marks: marks{9, 9, 9, 0}, flush: 9, connected: t0, lastRotation: s(2), lastWrite: s(1)}, 7},
	} {
		got := rotateAt(c.p, &o)
		if c.want == never {
			if !got.IsZero() {
				t.Errorf("%s: in %v, want never", name, got.Sub(t0))
			}
		} else if !got.Equal(s(c.want)) {
			t.Errorf("%s: after %v, want %vs", name, got.Sub(t0), c.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	o := Options{}.withDefaults()
	for _, c := range []struct{ outage, least, most time.Duration }{
		{0, 100 * time.Millisecond, 200 * time.Millisecond},
		{time.Minute, 3750 * time.Millisecond, 7500 * time.Millisecond}, // back within seconds of a minute's outage
		{time.Hour, 15 * time.Second, 30 * time.Second},
	} {
		if got := backoff(c.outage, 0, &o); got != c.least {
			t.Errorf("outage %v: at least %v, want %v", c.outage, got, c.least)
		}
		if got := backoff(c.outage, 1, &o); got != c.most {
			t.Errorf("outage %v: at most %v, want %v", c.outage, got, c.most)
		}
	}
	if drainTimeout(0, &o) != 30*time.Second || drainTimeout(99, &o) != 8*time.Minute {
		t.Error("drain timeouts", drainTimeout(0, &o), drainTimeout(99, &o))
	}
}

// TestHealth: a live peer with a closed window is stalled for as long as it
// lives; a silent one is dead; an old last ACK alone says nothing.
func TestHealth(t *testing.T) {
	o := Options{}.withDefaults()
	t0 := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		at      func(sec int) TCP
		blocked bool
		want    verdict
		until   int
	}{
		"flowing":                           {func(s int) TCP { return TCP{Unacked: 3, Acked: uint64(s), NotSent: 9} }, true, alive, 600},
		"zero window, answering":            {func(int) TCP { return TCP{NotSent: 90, LastAck: 10 * time.Second} }, true, stalled, 600},
		"probes unanswered":                 {func(s int) TCP { return TCP{NotSent: 90, Probes: uint64(s)} }, true, dead, 4},
		"no ACK":                            {func(s int) TCP { return TCP{Unacked: 2, LastAck: time.Duration(s) * time.Second} }, false, dead, 21},
		"no ACK yet":                        {func(s int) TCP { return TCP{Unacked: 2, LastAck: time.Duration(s) * time.Second} }, false, alive, 19},
		"first byte after an hour of quiet": {func(int) TCP { return TCP{Unacked: 1, LastAck: time.Hour} }, false, alive, 19},
		"all acknowledged, quiet":           {func(s int) TCP { return TCP{LastAck: time.Duration(s) * time.Second} }, false, alive, 600},
	} {
		var h health
		var got verdict
		for s := range c.until + 1 {
			if got = h.judge(t0.Add(time.Duration(s)*time.Second), c.at(s), c.blocked, &o); got == dead {
				break
			}
		}
		if got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestMarks(t *testing.T) {
	m := marks{offered: 100, written: 80, read: 40, confirmed: 20}
	m.drained(false)
	if m != (marks{100, 80, 80, 40}) {
		t.Errorf("drained: %+v", m)
	}
	m.written = 90
	m.drained(true)
	if m != (marks{100, 90, 90, 40}) {
		t.Errorf("drained in haste: %+v", m)
	}
	m.rewind(40)
	if m != (marks{40, 40, 40, 40}) {
		t.Errorf("rewound: %+v", m)
	}
}

func TestEndingIsProofOnlyWhereThePeerAnswered(t *testing.T) {
	for name, c := range map[string]struct {
		e    ending
		weak bool
		want bool
	}{
		"answered":             {ending{asked: true, notify: true, fin: true}, false, true},
		"bare FIN":             {ending{asked: true, fin: true}, false, false},
		"bare FIN, weak peer":  {ending{asked: true, fin: true}, true, true},
		"not asked":            {ending{notify: true, fin: true}, false, false},
		"not asked, weak":      {ending{fin: true}, true, false},
		"close_notify, no FIN": {ending{asked: true, notify: true}, false, false},
		"close_notify, RST":    {ending{asked: true, notify: true, err: errDead}, false, false},
		"weak, RST after":      {ending{asked: true, fin: true, err: errDead}, true, false},
	} {
		if got := c.e.proof(c.weak) == nil; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestQueueKeepsOffersWhole(t *testing.T) {
	var q queue
	var in, out []byte
	for i := range 300 {
		b := make([]byte, i*37%9000+1)
		for j := range b {
			b[j] = byte(i)
		}
		q.push(b)
		in = append(in, b...)
		if i%7 == 0 {
			k := q.pop()
			out = append(out, k.b...)
			q.wrote(k)
		}
	}
	for k := q.pop(); k != nil; k = q.pop() {
		for i := 1; i < len(k.b); i++ {
			if k.b[i] != k.b[i-1] && int(k.b[i-1])*37%9000+1 > len(k.b) {
				t.Fatal("an offer is in two chunks")
			}
		}
		out = append(out, k.b...)
		q.wrote(k)
	}
	if string(in) != string(out) || q.waiting != 0 {
		t.Errorf("%d bytes in, %d out, %d waiting", len(in), len(out), q.waiting)
	}
}

// TestShutdownAfterAReset: the writer may be the one to whom the kernel tells
// the reset, as ENOTCONN, in the middle of a drain.
func TestShutdownAfterAReset(t *testing.T) {
	err := &net.OpError{Op: "close", Net: "tcp", Err: os.NewSyscallError("shutdown", syscall.ENOTCONN)}
	if e := classify(doDrain, "a:1", err, false, false); e.Class != Reset {
		t.Errorf("a drain: %s", e.Class)
	}
	if e := classify(doProbe, "a:1", err, true, false); e.Class != TLSClientCert {
		t.Errorf("the first drain: %s", e.Class)
	}
}

// TestWindowJudge: time and later bytes together confirm; at the end of all,
// twice the time and a window with nothing behind it.
func TestWindowJudge(t *testing.T) {
	const kib = 1 << 10
	o := (&Options{Tuning: Tuning{Hold: 10 * time.Second}}).withDefaults()
	began := time.Unix(1000, 0)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	type sample struct {
		at      int
		acked   uint64 // bytes, without the SYN
		window  uint64
		ackAge  int
		loud    bool
		unacked uint64
	}
	for name, c := range map[string]struct {
		samples []sample
		want    held
	}{
		"not acknowledged":                {[]sample{{at: 0, acked: 999, window: 64 * kib}, {at: 60, acked: 999, window: 64 * kib, unacked: 1}}, held{}},
		"acknowledged just now":           {[]sample{{at: 0, acked: 1000, window: 64 * kib}}, held{acked: 1}},
		"held, nothing behind it":         {[]sample{{at: 0, acked: 1000, window: 64 * kib}, {at: 11, acked: 1000, window: 64 * kib}}, held{acked: 1, read: 1}},
		"held, but the kernel was silent": {[]sample{{at: 0, acked: 1000, window: 64 * kib}, {at: 60, acked: 1000, window: 64 * kib, ackAge: 55}}, held{acked: 1}},
		"bytes without the time":          {[]sample{{at: 0, acked: 1000, window: 64 * kib}, {at: 5, acked: 10 << 20, window: 64 * kib}}, held{acked: 2}},
		"too few bytes behind it":         {[]sample{{at: 0, acked: 1000, window: 64 * kib}, {at: 11, acked: 1000 + 160*kib - 1, window: 64 * kib, loud: true}}, held{acked: 1, read: 1}},
		"bytes and time":                  {[]sample{{at: 0, acked: 1000, window: 64 * kib}, {at: 11, acked: 1000 + 160*kib, window: 64 * kib, loud: true}}, held{acked: 1, read: 1, confirmed: 1}},
		"the widest window counts":        {[]sample{{at: 0, acked: 1000, window: 640 * kib}, {at: 11, acked: 1000 + 160*kib, window: 64 * kib, loud: true}}, held{acked: 1, read: 1}},
		"the tail, after twice the time":  {[]sample{{at: 0, acked: 10 << 20, window: 64 * kib}, {at: 21, acked: 10 << 20, window: 64 * kib}}, held{acked: 2, read: 2, confirmed: 2}},
		"the tail, in front of much":      {[]sample{{at: 0, acked: 10 << 20, window: 640 * kib}, {at: 79, acked: 10 << 20, window: 300 * kib}}, held{acked: 2, read: 2, confirmed: 1}},
		"that tail in the end":            {[]sample{{at: 0, acked: 10 << 20, window: 640 * kib}, {at: 80, acked: 10 << 20, window: 300 * kib}}, held{acked: 2, read: 2, confirmed: 2}},
		"no tail while more waits":        {[]sample{{at: 0, acked: 1000, window: 64 * kib}, {at: 21, acked: 1000, window: 64 * kib, loud: true}}, held{acked: 1, read: 1}},
	} {
		w := window{}
		w.note(station{mark: 1, wire: 1000})
		var got held
		for i, s := range c.samples {
			if s.acked >= 10<<20 {
				w.note(station{mark: 2, wire: 10 << 20})
			}
			got = w.judge(at(s.at), TCP{Acked: s.acked + 1, Window: s.window, LastAck: time.Duration(s.ackAge) * time.Second, Unacked: s.unacked}, !s.loud, &o)
			if i < len(c.samples)-1 && got.confirmed > 0 {
				t.Errorf("%s: confirmed %d at once", name, got.confirmed)
			}
		}
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestWindowStationsAreBounded: a trickle that is never confirmed costs no memory.
func TestWindowStationsAreBounded(t *testing.T) {
	var w window
	for i := range uint64(100_000) {
		w.note(station{mark: i + 1, wire: i})
		w.note(station{mark: i + 1, wire: i})
	}
	if n := len(w.stations); n > maxStations || w.stations[n-1].mark != 100_000 {
		t.Errorf("%d stations", n)
	}
	for i := 1; i < len(w.stations); i++ {
		if w.stations[i].mark <= w.stations[i-1].mark {
			t.Fatal("stations out of order")
		}
	}
}

// TestNothingIsTakenWhileALossIsTold, not even an offer without bytes: the marks
// are back at what was read, so it would be confirmed before what was lost.
func TestNothingIsTakenWhileALossIsTold(t *testing.T) {
	c := &Client{o: Options{Buffer: 1000}}
	c.lost = true
	for _, b := range [][]byte{nil, []byte("x\n")} {
		if _, ok := c.Offer(b); ok {
			t.Errorf("an offer of %d bytes was taken", len(b))
		}
	}
	if n := c.Room(1, 10); n != 0 || !c.wantRoom {
		t.Errorf("room for %d, wanted %v", n, c.wantRoom)
	}
	c.lost = false
	if _, ok := c.Offer(nil); !ok || c.Room(1, 10) != 10 {
		t.Error("nothing is taken when it is over")
	}
}
