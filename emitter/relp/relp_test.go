package relp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func read(s string) (Frame, error) { return Read(bufio.NewReader(strings.NewReader(s)), 100) }

func TestFrames(t *testing.T) {
	for _, c := range []struct {
		f    Frame
		wire string
	}{
		{Frame{1, "open", []byte("relp_version=0")}, "1 open 14 relp_version=0\n"},
		{Frame{999999999, "syslog", []byte("a\nb c")}, "999999999 syslog 5 a\nb c\n"},
		{Frame{7, "close", nil}, "7 close 0\n"},
		{Frame{0, "serverclose", nil}, "0 serverclose 0\n"},
	} {
		if got := AppendFrame([]byte("x"), c.f.Txn, c.f.Command, c.f.Data); string(got) != "x"+c.wire {
			t.Errorf("%q, want %q", got, c.wire)
		}
		got, err := read(c.wire + "2 rsp 0\n")
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c.f) {
			t.Errorf("%q: %v, %v", c.wire, got, err)
		}
	}
	if f, err := read("3 rsp 0 \n"); err != nil || len(f.Data) != 0 { // some write the space all the same
		t.Errorf("%v, %v", f, err)
	}
}

func TestWhatIsNoFrame(t *testing.T) {
	for text, want := range map[string]error{
		"": io.EOF, "1": io.ErrUnexpectedEOF, "1 rsp": io.ErrUnexpectedEOF, "1 rsp 6 200": io.ErrUnexpectedEOF, "1 rsp 6 200 OK": io.ErrUnexpectedEOF,
		"x": ErrProtocol, "\n": ErrProtocol, "1\n": ErrProtocol, " 1 rsp 0\n": ErrProtocol, "1234567890 rsp 0\n": ErrProtocol, "1 RSP 0\n": ErrProtocol,
		"1 rsp x\n": ErrProtocol, "1 rsp 101 ": ErrProtocol, "1 rsp 2 abc\n": ErrProtocol, "-1 rsp 0\n": ErrProtocol,
		"1 " + strings.Repeat("a", 40) + " 0\n": ErrProtocol, "1 " + strings.Repeat("a", 33) + "0\n": ErrProtocol, "1 " + strings.Repeat("a", 33) + " 0\n": ErrProtocol,
		"1  0\n": ErrProtocol,
	} {
		if f, err := read(text); !errors.Is(err, want) {
			t.Errorf("%q: %v, %v, want %v", text, f, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("1 rsp 6 200 OK\n0 serverclose 0\n"))
	f.Add([]byte("12 syslog 3 a\nb\n"))
	f.Add([]byte("0 " + strings.Repeat("a", 33) + "0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			frame, err := Read(r, 1000)
			if err != nil {
				return
			}
			again, err := read2(AppendFrame(nil, frame.Txn, frame.Command, frame.Data))
			if err != nil || again.Txn != frame.Txn || again.Command != frame.Command || !bytes.Equal(again.Data, frame.Data) {
				t.Fatalf("%+v came back as %+v, %v", frame, again, err)
			}
		}
	})
}

func read2(b []byte) (Frame, error) { return Read(bufio.NewReader(bytes.NewReader(b)), 1000) }

func answer(t *testing.T, s *Session, txn int, text string) error {
	t.Helper()
	return s.Next(bufio.NewReader(bytes.NewReader(AppendFrame(nil, txn, "rsp", []byte(text)))))
}

// TestSettledInOrder: answers may come in any order, what counts is the prefix.
func TestSettledInOrder(t *testing.T) {
	s := newSession()
	for i := range 4 {
		s.Append(nil, []byte{byte(i)}, uint64(10*(i+1)))
	}
	for _, c := range []struct {
		txn  int
		mark uint64
	}{{3, 0}, {2, 20}, {5, 20}, {4, 40}} {
		if err := answer(t, s, c.txn, "200 OK"); err != nil {
			t.Fatal(err)
		}
		if mark, _ := s.Settled(); mark != c.mark {
			t.Errorf("after the answer to %d: %d, want %d", c.txn, mark, c.mark)
		}
	}
	if err := answer(t, s, 4, "200 OK"); !errors.Is(err, ErrProtocol) {
		t.Errorf("a second answer: %v", err)
	}
}

// TestRejected: the others are still waited for, and nothing behind it is settled.
func TestRejected(t *testing.T) {
	s := newSession()
	for i := range 3 {
		s.Append(nil, []byte{byte(i)}, uint64(i+1))
	}
	if err := answer(t, s, 2, "500 no"); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Room(true); ok || err == nil {
		t.Error("there is room after a rejection")
	}
	if err := answer(t, s, 3, "200 OK"); err != nil {
		t.Fatal(err)
	}
	var r *Rejection
	if err := answer(t, s, 4, "500 no"); !errors.As(err, &r) || r.Record != DigestOf([]byte{0}) || !r.Vouched || r.Error() != "the receiver answered 500 no" {
		t.Errorf("%v", err)
	}
	if mark, _ := s.Settled(); mark != 0 {
		t.Errorf("settled up to %d behind a rejection", mark)
	}
}

// TestSkipped: what is not sent is settled, and told, in its turn.
func TestSkipped(t *testing.T) {
	s := newSession()
	s.Append(nil, []byte("a"), 1)
	s.Skip(&Refusal{Record: []byte("b"), Reason: "why", At: 2}, 2)
	if mark, refused := s.Settled(); mark != 0 || refused != nil {
		t.Errorf("%d, %v", mark, refused)
	}
	if err := answer(t, s, 2, "200"); err != nil {
		t.Fatal(err)
	}
	mark, refused := s.Settled()
	if mark != 2 || len(refused) != 1 || string(refused[0].Record) != "b" {
		t.Errorf("%d, %v", mark, refused)
	}
	if _, refused := s.Settled(); refused != nil {
		t.Error("told twice")
	}
}

// TestNumbersWrap: transactions go from 999,999,999 to 1.
func TestNumbersWrap(t *testing.T) {
	s := newSession()
	s.txn = maxTxn - 1
	if got := string(s.Append(s.Append(nil, []byte("a"), 1), []byte("b"), 2)); got != "999999999 syslog 1 a\n1 syslog 1 b\n" {
		t.Errorf("%q", got)
	}
	if got := string(s.AppendClose(nil)); got != "2 close 0\n" {
		t.Errorf("%q", got)
	}
}
