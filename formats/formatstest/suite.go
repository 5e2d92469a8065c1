package formatstest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"datasync/formats"
)

// New starts an object on w: what the suite is run on.
type New func(w io.Writer) (formats.Encoder, error)

// Encode makes a whole object of lines, cut into Writes of at most step lines
// (0: one Write).
func Encode(t testing.TB, start New, lines []byte, step int) []byte {
	t.Helper()
	var out bytes.Buffer
	e, err := start(&out)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range split(lines, func() int { return step }) {
		if err := e.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e.Size() != int64(out.Len()) {
		t.Fatalf("Size after Close is %d, the object has %d bytes", e.Size(), out.Len())
	}
	return out.Bytes()
}

// split cuts lines into runs of as many whole lines as count says each time.
func split(lines []byte, count func() int) (parts [][]byte) {
	for len(lines) > 0 {
		end, n := 0, count()
		for n != 0 && end < len(lines) {
			end += bytes.IndexByte(lines[end:], '\n') + 1
			n--
			if n == 0 {
				break
			}
		}
		if end == 0 {
			end = len(lines)
		}
		parts = append(parts, lines[:end])
		lines = lines[end:]
	}
	return parts
}

// Suite is what every encoder must do, whatever it makes of the lines.
func Suite(t *testing.T, start New, lines []byte) {
	want := Encode(t, start, lines, 0)
	t.Run("any split gives the same bytes", func(t *testing.T) { splits(t, start, lines, want) })
	t.Run("any GOMAXPROCS gives the same bytes", func(t *testing.T) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
		for _, n := range []int{1, 4} {
			runtime.GOMAXPROCS(n)
			same(t, want, Encode(t, start, lines, 50))
		}
	})
	t.Run("the caller's bytes are not kept", func(t *testing.T) { notKept(t, start, lines, want) })
	t.Run("side by side", func(t *testing.T) { sideBySide(t, start, lines, want) })
	t.Run("after others failed", func(t *testing.T) { afterFailures(t, start, lines, want) })
	t.Run("no events", func(t *testing.T) {
		empty := Encode(t, start, nil, 0)
		same(t, empty, Encode(t, start, nil, 0))
		same(t, want, Encode(t, start, lines, 7))
	})
	t.Run("after the end", func(t *testing.T) { afterEnd(t, start, lines) })
	t.Run("half a line", func(t *testing.T) {
		e := must(t, start, io.Discard)
		defer e.Abandon()
		if e.Write(lines[:len(lines)-1]) == nil {
			t.Fatal("a line without its newline was taken")
		}
	})
}

func splits(t *testing.T, start New, lines, want []byte) {
	for _, step := range []int{1, 5} {
		same(t, want, Encode(t, start, lines, step))
	}
	r := rand.New(rand.NewPCG(7, 7))
	for range 2 {
		var out bytes.Buffer
		e := must(t, start, &out)
		for _, part := range split(lines, func() int { return 1 + r.IntN(400) }) {
			if err := e.Write(part); err != nil {
				t.Fatal(err)
			}
			if err := e.Write(nil); err != nil {
				t.Fatal(err)
			}
			if e.Size() > int64(len(want)) || e.Size() != int64(out.Len()) {
				t.Fatalf("Size is %d where the destination has %d", e.Size(), out.Len())
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		same(t, want, out.Bytes())
	}
}

func notKept(t *testing.T, start New, lines, want []byte) {
	var out bytes.Buffer
	e := must(t, start, &out)
	var scratch []byte
	for _, part := range split(lines, func() int { return 13 }) {
		scratch = append(scratch[:0], part...)
		if err := e.Write(scratch); err != nil {
			t.Fatal(err)
		}
		for i := range scratch {
			scratch[i] = 'x'
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	same(t, want, out.Bytes())
}

func sideBySide(t *testing.T, start New, lines, want []byte) {
	const n = 3
	got := make(chan []byte, n)
	for range n {
		go func() {
			var out bytes.Buffer
			e, err := start(&out)
			if err == nil {
				err = errors.Join(e.Write(lines), e.Close())
			}
			if err != nil {
				out.Reset()
			}
			got <- out.Bytes()
		}()
	}
	for range n {
		same(t, want, <-got)
	}
}

// errFull is what a destination that fails says.
var errFull = errors.New("disk is full")

// limited takes n bytes, then fails.
type limited struct{ n int }

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.n {
		return 0, errFull
	}
	l.n -= len(p)
	return len(p), nil
}

func afterFailures(t *testing.T, start New, lines, want []byte) {
	for _, room := range []int{0, len(want) / 2, len(want) - 1} {
		e := must(t, start, &limited{n: room})
		err := e.Write(lines)
		if err == nil {
			err = e.Close()
		} else if e.Write(lines) == nil {
			t.Fatal("Write works again after an error")
		}
		if !errors.Is(err, errFull) {
			t.Fatalf("with room for %d of %d bytes: %v", room, len(want), err)
		}
		e.Abandon()
		same(t, want, Encode(t, start, lines, 0))
	}
	for range 2 {
		e := must(t, start, io.Discard)
		if err := e.Write(lines); err != nil {
			t.Fatal(err)
		}
		e.Abandon()
		e.Abandon()
		same(t, want, Encode(t, start, lines, 0))
	}
}

func afterEnd(t *testing.T, start New, lines []byte) {
	e := must(t, start, io.Discard)
	if err := errors.Join(e.Write(lines), e.Close()); err != nil {
		t.Fatal(err)
	}
	size := e.Size()
	e.Abandon()
	if e.Size() != size {
		t.Fatal("Abandon after Close changed Size")
	}
	if e.Write(lines) == nil || e.Close() == nil {
		t.Fatal("a closed encoder works on")
	}
}

func must(t *testing.T, start New, w io.Writer) formats.Encoder {
	t.Helper()
	e, err := start(w)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func same(t testing.TB, want, got []byte) {
	t.Helper()
	if !bytes.Equal(want, got) {
		t.Fatalf("other bytes: %d where %d were expected", len(got), len(want))
	}
}
