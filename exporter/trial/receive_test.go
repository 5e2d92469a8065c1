package trial

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/emitter"
)

func startReceiver(t *testing.T, change func(*ReceiveOptions)) (*Receiver, Certs, string) {
	t.Helper()
	dir := t.TempDir()
	certs, err := NewCerts(dir)
	if err != nil {
		t.Fatal(err)
	}
	o := ReceiveOptions{Listen: "127.0.0.1:0", Cert: certs.Cert, Key: certs.Key, Out: filepath.Join(dir, "out.ndjson")}
	if change != nil {
		change(&o)
	}
	r, err := NewReceiver(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(o.Out); err != nil {
		t.Errorf("the file is not there from the start: %v", err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return r, certs, o.Out
}

func send(t *testing.T, r *Receiver, certs Certs, text string) *emitter.Client {
	t.Helper()
	c, err := emitter.New(emitter.Options{
		Addresses: []string{r.Addr()}, TLS: emitter.TLS{CA: certs.CA, Cert: certs.ClientCert, Key: certs.ClientKey},
		Tuning: emitter.Tuning{RetryMin: 5 * time.Millisecond},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.Offer([]byte(text)); !ok {
		t.Fatal("not taken")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

func written(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReceiveLines(t *testing.T) {
	r, certs, out := startReceiver(t, func(o *ReceiveOptions) { o.ClientCA = filepath.Join(filepath.Dir(o.Cert), "ca.pem") })
	long := strings.Repeat("y", 300<<10)
	c := send(t, r, certs, "one\ntwo\n"+long+"\nhalf")
	defer c.Close()
	if got := written(t, out); got != "one\ntwo\n"+long+"\n" {
		t.Errorf("%d bytes in the file", len(got))
	}
	if n := r.Counts(); n.Lines != 3 || n.Unfinished != 1 || n.Ends < 2 {
		t.Errorf("counts %+v", n)
	}
}

func TestReceiveFrames(t *testing.T) {
	r, certs, out := startReceiver(t, func(o *ReceiveOptions) { o.Framing = "octet-counted" })
	c := send(t, r, certs, "5 <13>1"+"9 two\nlines"+"4 end\n"+"99 unfinished")
	defer c.Close()
	if got := written(t, out); got != "<13>1\ntwo#012lines\nend\n" {
		t.Errorf("file %q", got)
	}
	if n := r.Counts(); n.Lines != 3 || n.Unfinished != 1 {
		t.Errorf("counts %+v", n)
	}
}

func TestCutFrames(t *testing.T) {
	for in, want := range map[string]string{
		"":              "[] 0 0 ok",
		"12":            "[] 0 0 ok",
		"3 ab":          "[] 0 0 ok",
		"3 abc2":        "[abc\n] 5 1 ok",
		"0 ":            "[] 0 0 bad",
		"03 abc":        "[] 0 0 bad",
		"{\"a\":1}\n":   "[] 0 0 bad",
		"123456789 a":   "[] 0 0 bad",
		"1 a3 b":        "[a\n] 3 1 ok",
		"1 a{":          "[a\n] 3 1 bad",
		"9999999 hello": "[] 0 0 bad",
	} {
		lines, used, count, err := cutFrames(nil, []byte(in))
		verdict := "ok"
		if err != nil {
			verdict = "bad"
		}
		if got := fmt.Sprintf("[%s] %d %d %s", lines, used, count, verdict); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

// TestCutAndBack is what the demo does: the receiver crashes and comes back at
// the same address and file; nothing is missing.
func TestCutAndBack(t *testing.T) {
	r, certs, out := startReceiver(t, nil)
	for i := range 3 {
		c := send(t, r, certs, fmt.Sprintf("round %d\n", i))
		r.Cut()
		if _, err := tls.Dial("tcp", r.Addr(), nil); err == nil {
			t.Error("still there after Cut")
		}
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := written(t, out); got != "round 0\nround 1\nround 2\n" {
		t.Errorf("file %q", got)
	}
}

// TestNoAnswerWithoutSync: an end is answered only when the file is synced.
func TestNoAnswerWithoutSync(t *testing.T) {
	r, certs, _ := startReceiver(t, nil)
	if err := r.out.file.Close(); err != nil { // fsync fails from here on
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", r.Addr(), clientConfig(t, certs))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "EOF") {
		t.Errorf("the end was answered: %d bytes, %v", n, err)
	}
}

func clientConfig(t *testing.T, certs Certs) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certs.ClientCert, certs.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true} // a test on loopback
}

func TestReceiverCutsAHalfLineOfACrash(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "whole\n": "whole\n", "whole\nhal": "whole\n", "hal": "",
		"whole\n" + strings.Repeat("z", 200<<10): "whole\n",
	} {
		path := filepath.Join(t.TempDir(), "out")
		if err := os.WriteFile(path, []byte(in), 0o600); err != nil {
			t.Fatal(err)
		}
		o, err := openOutput(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.write([]byte("new\n"), 1); err != nil {
			t.Fatal(err)
		}
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
		if got := written(t, path); got != want+"new\n" {
			t.Errorf("%.20q became %.20q", in, got)
		}
	}
}
