package bench

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/integration/harness"
)

// source is work that waits until it is let go, so that a system's start is
// not measured with it.
type source struct {
	feed string // the feed's YAML, {dir} and {feed} as in harness.Service
	// before is done once the service runs, and not measured; it delivers the
	// first done events.
	before func(*testing.T, *harness.Service)
	done   int
	// topic and broker are for programs that are not ours: the broker takes
	// nothing until begin.
	topic, broker string
	// begin lets the work go, to the service; it returns once nothing more is to be done here.
	begin func(*harness.Service)
}

func kafka(t *testing.T, b *bed, n int) source     { return topic(t, b, b.topic("none", n)) }
func kafkaZstd(t *testing.T, b *bed, n int) source { return topic(t, b, b.topic("zstd", n)) }

// topic is a topic whose first broker stands behind a gate.
func topic(t *testing.T, b *bed, name string) source {
	t.Helper()
	g := newGate(t, b.broker.Addr)
	return source{
		feed:  fmt.Sprintf("  - name: bench\n    kafka: {brokers: [%q], topic: %s, group: %q}\n    format: canonical\n", g.addr, name, t.Name()),
		topic: name, broker: g.addr,
		begin: func(*harness.Service) { close(g.open) },
	}
}

// gate hands connections on once it is open. A consumer that knows no other
// broker waits there; then it learns the brokers' own addresses, so that what
// it fetches does not go through here.
type gate struct {
	addr string
	open chan struct{}
}

func newGate(t *testing.T, to string) gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := gate{l.Addr().String(), make(chan struct{})}
	var conns sync.WaitGroup
	ended := make(chan struct{})
	conns.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return // closed at the end
			}
			conns.Go(func() { g.pass(from, to, ended) })
		}
	})
	t.Cleanup(func() {
		close(ended)
		_ = l.Close() // ends Accept
		conns.Wait()
	})
	return g
}

// pass hands one connection on until either side or the row ends.
func (g gate) pass(from net.Conn, addr string, ended <-chan struct{}) {
	defer from.Close()
	select {
	case <-g.open:
	case <-ended:
		return
	}
	to, err := net.Dial("tcp", addr)
	if err != nil {
		return // its end is what the consumer sees
	}
	defer to.Close()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() { _, _ = io.Copy(pair[0], pair[1]); done <- struct{}{} }() // an error ends it, as the end does
	}
	select {
	case <-done:
	case <-ended:
	}
}

// files is one file that appears, whole, in a folder that the feed follows.
func files(t *testing.T, b *bed, n int) source {
	t.Helper()
	path := b.file(n)
	return source{
		feed: "  - name: bench\n    file: {path: \"{dir}/in/*.ndjson\", follow: true}\n    format: canonical\n",
		begin: func(s *harness.Service) {
			if err := os.Link(path, filepath.Join(s.Dir, "in", "a.ndjson")); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// posters is how many requests there are at a time.
const posters = 8

const httpFeed = "  - name: bench\n    http: {listen: \"{feed}\"}\n    format: auto\n"

// posts are requests of up to 500 events of one tenant as a JSON array.
func posts(t *testing.T, b *bed, n int) source {
	t.Helper()
	bodies := arrays(t, b.file(n), 500, b.tenants)
	return source{feed: httpFeed, begin: func(s *harness.Service) { postAll(t, s, bodies, posters, func(time.Duration) {}) }}
}

// postAll has bodies posted, each sent by whoever is free and answered for
// before the next; took is told how long each answer was waited for.
func postAll(t *testing.T, s *harness.Service, bodies []array, posters int, took func(time.Duration)) {
	queue := make(chan array)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: posters}}
	defer client.CloseIdleConnections()
	var workers sync.WaitGroup
	for range posters {
		workers.Go(func() {
			for a := range queue {
				began := time.Now()
				if err := a.post(client, s.Feed); err != nil {
					t.Error(err)
				}
				took(time.Since(began))
			}
		})
	}
	for _, a := range bodies {
		queue <- a
	}
	close(queue)
	workers.Wait()
}

// array is the body of one request.
type array struct {
	tenant string
	events int
	body   []byte
}

// arrays packs a file's events, a tenant's together, in the order in which they fill up.
func arrays(t *testing.T, path string, most, tenants int) (full []array) {
	t.Helper()
	open := map[string]*array{}
	finish := func(a *array) {
		a.body = append(a.body, ']')
		full = append(full, *a)
		delete(open, a.tenant)
	}
	harness.EachLine(t, path, func(line []byte) {
		_, rest, _ := bytes.Cut(line, []byte(`"tenant_id":"`))
		name, _, ok := bytes.Cut(rest, []byte(`"`))
		if !ok {
			t.Fatalf("no tenant in %.120q", line)
		}
		a := open[string(name)]
		if a == nil {
			a = &array{tenant: string(name)}
			open[a.tenant] = a
		}
		a.body = append(append(a.body, "[,"[min(a.events, 1)]), line...)
		if a.events++; a.events == most {
			finish(a)
		}
	})
	for i := 1; i <= tenants; i++ {
		if a := open[fmt.Sprintf("t%04d", i)]; a != nil {
			finish(a)
		}
	}
	return full
}

// post sends it; anything but an answer for all of its events is an error.
func (a *array) post(c *http.Client, addr string) error {
	req, err := http.NewRequest(http.MethodPost, "http://"+addr+"/v1/ingest/canonical/"+a.tenant, bytes.NewReader(a.body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer key-of-"+a.tenant)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if want := fmt.Sprintf(`"accepted":%d,"rejected":[]`, a.events); err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(answer), want)) {
		err = fmt.Errorf("%d events of %s: %s: %.300s", a.events, a.tenant, resp.Status, answer)
	}
	return err
}
