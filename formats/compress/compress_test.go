package compress_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"datasync/formats/compress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// text is n bytes that compress, but not to nothing.
func text(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{"block", "captcha", "198.51.100.", "203.0.113.", `"client_ip":`, `"action":`, "\n"}
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteByte(byte('0' + r.IntN(10)))
	}
	return b.Bytes()[:n]
}

func pack(t testing.TB, c compress.Codec, level int, parts ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := compress.NewWriter(&out, c, level)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatalf("wrote %d of %d: %v", n, len(p), err)
		}
	}
	n, err := w.Close()
	if err != nil || n != int64(out.Len()) {
		t.Fatalf("size %d of %d: %v", n, out.Len(), err)
	}
	return out.Bytes()
}

func unpack(data []byte, c compress.Codec, limit int64) ([]byte, error) {
	r, err := compress.NewReader(bytes.NewReader(data), string(c), limit)
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(r)
	return out, errors.Join(err, r.Close())
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []compress.Codec{compress.Gzip, compress.Zstd} {
		for _, n := range []int{0, 1, 100, 65535, 65536, 65537, 131072, 1 << 20} {
			for _, level := range []int{0, 1, 5, 9} {
				if level > 1 && n > 200_000 {
					continue
				}
				want := text(n)
				got, err := unpack(pack(t, c, level, want), c, int64(n))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s %d, %d bytes: %d came back, %v", c, level, n, len(got), err)
				}
			}
		}
	}
}

// TestSplits: the same input gives the same bytes however it is written, at
// every level, whatever GOMAXPROCS is.
func TestSplits(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	r := rand.New(rand.NewPCG(3, 4))
	in := text(200_000)
	for _, c := range []compress.Codec{compress.Gzip, compress.Zstd} {
		for _, level := range []int{0, 1, 3, 6, 9} {
			want := pack(t, c, level, in)
			for _, top := range []int{700, 150_000} {
				runtime.GOMAXPROCS(1 + r.IntN(6))
				var parts [][]byte
				for rest := in; len(rest) > 0; {
					n := min(len(rest), r.IntN(top))
					parts, rest = append(parts, rest[:n]), rest[n:]
				}
				if !bytes.Equal(pack(t, c, level, parts...), want) {
					t.Errorf("%s %d depends on how its input is split", c, level)
				}
			}
		}
	}
}

// TestBombs: data that grows a thousand and thirty thousand times is stopped at
// the bound, with little memory taken.
func TestBombs(t *testing.T) {
	const size, limit = 48 << 20, 1 << 20
	zeros := make([]byte, 1<<20)
	for _, c := range []compress.Codec{compress.Gzip, compress.Zstd} {
		parts := make([][]byte, size/len(zeros))
		for i := range parts {
			parts[i] = zeros
		}
		bomb := pack(t, c, 0, parts...)
		if times := size / len(bomb); times < 200 {
			t.Fatalf("%s: grows %d times only", c, times)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, err := compress.NewReader(bytes.NewReader(bomb), string(c), limit)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		if !errors.Is(err, compress.ErrTooLarge) || n != limit {
			t.Errorf("%s: read %d of at most %d, %v", c, n, limit, err)
		}
		if _, err := r.Read(zeros); !errors.Is(err, compress.ErrTooLarge) {
			t.Errorf("%s: the error does not stay: %v", c, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 24<<20 {
			t.Errorf("%s: took %d MiB", c, took>>20)
		}
	}
}

// TestWindow: a frame that asks for a window of 1 GiB is refused before it gets
// any memory.
func TestWindow(t *testing.T) {
	frame := []byte{0x28, 0xB5, 0x2F, 0xFD, 0x00, 20 << 3, 0x01, 0x00, 0x00}
	if _, err := unpack(frame, compress.Zstd, 1<<20); !errors.Is(err, compress.ErrTooLarge) {
		t.Errorf("a window of 1 GiB: %v", err)
	}
}

func TestReaderErrors(t *testing.T) {
	good := map[compress.Codec][]byte{"gzip": pack(t, "gzip", 0, text(90_000)), "zstd": pack(t, "zstd", 0, text(90_000))}
	for c, data := range good {
		if _, err := unpack(data, c, 90_000); err != nil {
			t.Errorf("%s: exactly the bound: %v", c, err)
		}
		if _, err := unpack(data, c, 89_999); !errors.Is(err, compress.ErrTooLarge) {
			t.Errorf("%s: one above the bound: %v", c, err)
		}
		for _, cut := range []int{1, 5, 20, len(data) / 2, len(data) - 1} {
			if _, err := unpack(data[:cut], c, 1<<20); !errors.Is(err, compress.ErrCorrupt) {
				t.Errorf("%s cut at %d: %v", c, cut, err)
			}
		}
		flipped := bytes.Clone(data)
		flipped[len(data)/2] ^= 4
		if _, err := unpack(flipped, c, 1<<20); !errors.Is(err, compress.ErrCorrupt) {
			t.Errorf("%s with a bit flipped: %v", c, err)
		}
		if _, err := unpack([]byte("GET / HTTP/1.1"), c, 1<<20); !errors.Is(err, compress.ErrCorrupt) {
			t.Errorf("%s of no such data: %v", c, err)
		}
		broken := errors.New("connection reset")
		for _, at := range []int{0, 3, len(data) / 2} {
			src := io.MultiReader(bytes.NewReader(data[:at]), iotest.ErrReader(broken))
			r, err := compress.NewReader(src, string(c), 1<<20)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				r.Close()
			}
			if !errors.Is(err, broken) || errors.Is(err, compress.ErrCorrupt) {
				t.Errorf("%s, its source broken at %d: %v", c, at, err)
			}
		}
		// What went wrong must not show in the next.
		if got, err := unpack(data, c, 90_000); err != nil || len(got) != 90_000 {
			t.Errorf("%s after errors: %d bytes, %v", c, len(got), err)
		}
	}
	if _, err := unpack(nil, "gzip", 10); !errors.Is(err, compress.ErrCorrupt) {
		t.Errorf("empty gzip: %v", err)
	}
	if _, err := unpack(nil, "br", 10); !errors.Is(err, compress.ErrEncoding) {
		t.Errorf("unknown encoding: %v", err)
	}
	two := append(bytes.Clone(good["gzip"]), good["gzip"]...)
	if got, err := unpack(two, "gzip", 180_000); err != nil || len(got) != 180_000 {
		t.Errorf("two gzip members: %d bytes, %v", len(got), err)
	}
	if _, err := unpack(two, "gzip", 179_999); !errors.Is(err, compress.ErrTooLarge) {
		t.Errorf("two gzip members above the bound: %v", err)
	}
}

func TestClosedReader(t *testing.T) {
	for _, c := range []compress.Codec{compress.Gzip, compress.Zstd} {
		data := pack(t, c, 0, text(1000))
		r, err := compress.NewReader(bytes.NewReader(data), string(c), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Close(), r.Close()); err != nil {
			t.Error(err)
		}
		if n, err := r.Read(make([]byte, 10)); n != 0 || err == nil {
			t.Errorf("%s: read %d bytes from a closed reader", c, n)
		}
	}
}

func TestBlocks(t *testing.T) {
	in := text(200_000)
	one := compress.AppendZstd([]byte("head"), in)
	if !bytes.Equal(one, compress.AppendZstd([]byte("head"), in)) || !bytes.HasPrefix(one, []byte("head")) {
		t.Fatal("a block is not the same twice")
	}
	frame := one[4:]
	got, err := compress.DecodeZstd([]byte("kept"), frame, len(in))
	if err != nil || string(got[:4]) != "kept" || !bytes.Equal(got[4:], in) {
		t.Errorf("a block came back as %d bytes: %v", len(got), err)
	}
	room := make([]byte, 0, 1<<20)
	if got, err := compress.DecodeZstd(room, frame, len(in)); err != nil || &got[0] != &room[:1][0] {
		t.Errorf("the room given was not used: %v", err)
	}
	if _, err := compress.DecodeZstd(nil, frame, len(in)-1); !errors.Is(err, compress.ErrTooLarge) {
		t.Errorf("above the bound: %v", err)
	}
	if got, err := compress.DecodeZstd(nil, compress.AppendZstd(nil, nil), 0); err != nil || len(got) != 0 {
		t.Errorf("an empty block: %d bytes, %v", len(got), err)
	}
	for name, bad := range map[string][]byte{
		"cut": frame[:len(frame)-1], "cut in the header": frame[:3], "empty": nil,
		"two frames": append(bytes.Clone(frame), frame...), "no frame": []byte(strings.Repeat("x", 40)),
		"no length":     pack(t, compress.Zstd, 0, in),
		"with rubbish":  append(bytes.Clone(frame), 'x'),
		"bit flipped":   func() []byte { b := bytes.Clone(frame); b[len(b)/2] ^= 1; return b }(),
		"only skipping": {0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0},
	} {
		out, err := compress.DecodeZstd([]byte("kept"), bad, 1<<20)
		if !errors.Is(err, compress.ErrCorrupt) || string(out) != "kept" {
			t.Errorf("%s: %q, %v", name, out[:min(len(out), 9)], err)
		}
	}
}

// TestSmallBlocksComeBack: zstd leaves out the length of a small frame unless
// told otherwise, and a block that a journal had rewritten was lost by that.
func TestSmallBlocksComeBack(t *testing.T) {
	for n := range 600 {
		in := bytes.Repeat([]byte("p"), n)
		if got, err := compress.DecodeZstd(nil, compress.AppendZstd(nil, in), n); err != nil || !bytes.Equal(got, in) {
			t.Fatalf("%d bytes came back as %d: %v", n, len(got), err)
		}
		if got, err := compress.DecodeZstd(nil, pack(t, compress.Zstd, 0, in), n); n > 0 && n < 256 && (err != nil || !bytes.Equal(got, in)) {
			t.Fatalf("%d bytes in a frame without a length came back as %d: %v", n, len(got), err)
		}
	}
}

// FuzzDecodeZstd: nothing takes more than the bound, nothing panics.
func FuzzDecodeZstd(f *testing.F) {
	f.Add(compress.AppendZstd(nil, text(500)))
	f.Add([]byte{0x28, 0xB5, 0x2F, 0xFD, 0x00, 20 << 3, 0x01, 0x00, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 10_000
		if out, err := compress.DecodeZstd(nil, data, limit); err == nil && len(out) > limit || err != nil && out != nil {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
		for _, c := range []compress.Codec{compress.Gzip, compress.Zstd} {
			if out, _ := unpack(data, c, limit); len(out) > limit {
				t.Fatalf("%s: %d bytes", c, len(out))
			}
		}
	})
}

func BenchmarkBlock(b *testing.B) {
	in := text(64 << 10)
	frame := compress.AppendZstd(nil, in)
	var out []byte
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			out = compress.AppendZstd(out[:0], in)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			var err error
			if out, err = compress.DecodeZstd(out[:0], frame, len(in)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
