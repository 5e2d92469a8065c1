package isolation

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"datasync/integration/harness"
)

// gzipBomb is size zero bytes, 1,028 times smaller.
func gzipBomb(t *testing.T, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = io.Copy(z, io.LimitReader(zeros{}, size))
	}
	if err != nil || z.Close() != nil {
		t.Fatal("gzip: ", err)
	}
	return b.Bytes()
}

// zstdBomb is size zero bytes, 32,755 times smaller, in a window.
func zstdBomb(t *testing.T, size int64, window int) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	if err == nil {
		_, err = io.Copy(z, io.LimitReader(zeros{}, size))
	}
	if err != nil || z.Close() != nil {
		t.Fatal("zstd: ", err)
	}
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFaultBombs: bodies that are larger than they look, lie about their
// length, hold millions of lines or come a byte at a time, and more connections
// than are taken. Each is told why, memory stays bounded, and a tenant who
// posts an event at the same time is heard.
func TestFaultBombs(t *testing.T) { bombs(t, 1<<20, 5000) }

// bombs has bodies of size bytes of rubbish, and a crowd of connections.
func bombs(t *testing.T, size, connections int) {
	t.Helper()
	s := service(t, "", "")
	for _, name := range []string{"acme", "beta"} {
		tenant(s, name, "", "  - name: drops\n    dir: {path: "+s.Dir+"/drops}\n    deliver: {max_age: 1s}\n")
	}
	s.Up(30 * time.Second)
	stop, heard := honest(t, s)
	const gib = 1 << 30
	inner := gzipBomb(t, 64<<20)
	for _, b := range []struct {
		name, encoding string
		body           io.Reader
		status         int
	}{
		{"gzip × 1,028", "gzip", bytes.NewReader(gzipBomb(t, gib)), 413},
		{"zstd × 32,755, small window", "zstd", bytes.NewReader(zstdBomb(t, gib, 64<<10)), 413},
		{"zstd with a window of 512 MiB", "zstd", bytes.NewReader(zstdBomb(t, gib, 512<<20)), 413},
		{"a bomb within a bomb", "gzip, gzip", bytes.NewReader(inner), 415},
		{"a bomb without a name", "", bytes.NewReader(inner), 413},
		{"chunked, without an end", "", io.LimitReader(zeros{}, 30<<20), 413},
		{"bad lines", "", strings.NewReader(event("a", "acme", "") + "\n" + strings.Repeat("x\n", size/2-1000)), 200},
		{"an array of millions", "", strings.NewReader("[" + strings.Repeat("1,", size/2-1000) + "1]"), 400},
		{"bad lines behind a long one", "", strings.NewReader(`{"a":"` + strings.Repeat("y", size/2) + "\"}\n" + strings.Repeat("x\n", size/5)), 400},
		{"all brackets", "", strings.NewReader(strings.Repeat("[", size-10)), 400},
	} {
		began := time.Now()
		headers := []string{}
		if b.encoding != "" {
			headers = append(headers, "Content-Encoding", b.encoding)
		}
		a, err := post(ingest(s, "acme"), "key-of-acme", io.MultiReader(b.body), headers...) // chunked
		if err != nil || a.status != b.status {
			t.Errorf("%s: %v %d %.300s, want %d", b.name, err, a.status, a.body, b.status)
		}
		if a.status != 200 && !strings.Contains(a.body, `"error":`) && !strings.Contains(a.body, `"rejected":`) {
			t.Errorf("%s: is not told why: %.300s", b.name, a.body)
		}
		t.Logf("%-32s %d in %v, memory at most %d MB", b.name, a.status, time.Since(began).Round(time.Millisecond), s.PeakMemory()>>20)
	}
	for name, head := range map[string]string{
		"a length that lies": "Content-Length: 9000000\r\n\r\n{", "two lengths": "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"a length below 0": "Content-Length: -1\r\n\r\n{}", "a length and chunks": "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		told(t, s, name, head)
	}
	slow := crowd(t, s, connections)
	close(stop)
	n, worst := heard()
	peak := s.PeakMemory()
	if peak > 700<<20 {
		t.Errorf("peak memory %d MB", peak>>20)
	}
	if n < 20 || worst > 30*time.Second {
		t.Errorf("an honest tenant was heard %d times, the slowest after %v", n, worst)
	}
	s.Delivered(1, time.Minute)
	l, _ := s.Ledger()
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	s.End(false)
	t.Logf("%d connections, %d of them cut off; another tenant's %d events answered meanwhile, the slowest in %v; peak %d MB", connections, slow, n, worst.Round(time.Millisecond), peak>>20)
}

// told sends a head and half closes; there is an answer or an end, never an event.
func told(t *testing.T, s *harness.Service, name, head string) {
	t.Helper()
	c, err := net.Dial("tcp", s.Feed)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/ingest/canonical/acme HTTP/1.1\r\nHost: x\r\nAuthorization: key-of-acme\r\n%s", head)
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.Contains(line, " 400 ") {
		t.Errorf("%s: answered %q, %v", name, line, err)
	}
}

// honest posts as another tenant, ten times a second, until stop is closed.
func honest(t *testing.T, s *harness.Service) (stop chan struct{}, heard func() (int, time.Duration)) {
	stop = make(chan struct{})
	var wg sync.WaitGroup
	n, worst := 0, time.Duration(0)
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			began := time.Now()
			a, err := post(ingest(s, "beta"), "key-of-beta", strings.NewReader(event(fmt.Sprint("b", n), "beta", "")))
			if err != nil || a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
				t.Errorf("an honest tenant is told %v %+v", err, a)
				return
			}
			worst = max(worst, time.Since(began))
			n++
		}
	})
	return stop, func() (int, time.Duration) { wg.Wait(); return n, worst }
}

// crowd opens n connections that say a little and then nothing, and counts
// those that were ended by the other side.
func crowd(t *testing.T, s *harness.Service, n int) (ended int) {
	t.Helper()
	var mu sync.Mutex
	var conns []net.Conn
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range n / 50 {
				c, err := net.DialTimeout("tcp", s.Feed, 30*time.Second)
				if err != nil {
					continue // the backlog is full
				}
				_, _ = io.WriteString(c, "POST /v1/ingest/canonical/acme HTTP/1.1\r\nHost: x\r\nX-Slow: ")
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	opened := len(conns)
	for _, c := range conns {
		wg.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(25 * time.Second))
			_, err := io.Copy(io.Discard, c)
			if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
				mu.Lock()
				ended++
				mu.Unlock()
			}
			_ = c.Close()
		})
	}
	wg.Wait()
	if opened < n/2 || ended < opened/4 {
		t.Errorf("%d connections were opened, %d ended", opened, ended)
	}
	return ended
}
