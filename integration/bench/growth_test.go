package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
)

// growth is what the same events cost as there are more tenants, and more
// partitions. The topic's key is the tenant, so a tenant's events are in one
// partition (unless it is the only one).
var growth = []scale{
	{1, 16}, {10, 16}, {100, 16}, {1000, 16}, {10_000, 16}, {1000, 1}, {1000, 4}, {1000, 64},
}

// TestBenchGrowth measures one path as the number of tenants and of partitions
// grows: drops of a minute, so that a small tenant has small drops.
func TestBenchGrowth(t *testing.T) {
	b := newBed(t, scale{})
	var rows []row
	for _, s := range growth {
		name := fmt.Sprintf("%d tenants, %d partitions: Kafka → folder, NDJSON gzip", s.tenants, s.partitions)
		t.Run(name, func(t *testing.T) {
			b.scale = s
			rows = append(rows, b.measure(t, path{name: name, run: datasync, from: kafka, to: minutes}))
		})
	}
	write(os.Stdout, b.conditions(t), rows)
}

// TestBenchLater measures what TestBenchGrowth's first drops do not show: of
// the drops of a minute, 59 in an hour find their folders there. The first half
// of the events is delivered before.
func TestBenchLater(t *testing.T) {
	b := newBed(t, scale{})
	var rows []row
	for _, n := range []int{1, 1000, 10_000} {
		name := fmt.Sprintf("%d tenants: files → folder, NDJSON gzip, later drops", n)
		t.Run(name, func(t *testing.T) {
			b.scale = scale{tenants: n}
			rows = append(rows, b.measure(t, path{name: name, run: datasync, from: halves, to: minutes}))
		})
	}
	write(os.Stdout, b.conditions(t), rows)
}

// halves is a file whose first half is delivered before, and then the second.
func halves(t *testing.T, b *bed, n int) source {
	t.Helper()
	whole, err := os.Open(b.file(n))
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	lines := bufio.NewReaderSize(whole, 1<<20)
	parts := []string{filepath.Join(t.TempDir(), "a.ndjson"), filepath.Join(t.TempDir(), "b.ndjson")}
	for i, count := range []int{n / 2, n - n/2} {
		copyLines(t, lines, parts[i], count)
	}
	appear := func(s *harness.Service, part string) {
		if err := os.Link(part, filepath.Join(s.Dir, "in", filepath.Base(part))); err != nil {
			t.Fatal(err)
		}
	}
	return source{
		feed: files(t, b, n).feed,
		before: func(t *testing.T, s *harness.Service) {
			appear(s, parts[0])
			deliver(t, s, n/2)
		},
		done:  n / 2,
		begin: func(s *harness.Service) { appear(s, parts[1]) },
	}
}

func copyLines(t *testing.T, from *bufio.Reader, to string, n int) {
	t.Helper()
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for range n {
		line, err := from.ReadSlice('\n')
		if err == nil {
			_, err = w.Write(line)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// minutes is a folder with drops of a minute.
func minutes(*testing.T, *bed) sink {
	return sink{
		yaml: "  - name: s\n    dir: {path: \"{dir}/drops\"}\n    compression: gzip\n    deliver: {max_age: 1m}\n",
		unit: "objects", once: true,
		count: func(t *testing.T, s *harness.Service) (int, harness.IDs) {
			return drops(t, filepath.Join(s.Dir, "drops"), "ndjson")
		},
	}
}

// backlogs are paths from the journal alone: every sink was paused until the
// journal held everything.
var backlogs = []path{
	{name: "backlog → folder, NDJSON gzip", run: datasync, from: backlog, to: folder("ndjson", "gzip")},
	{name: "backlog → TLS, JSON lines", run: datasync, from: backlog, to: lines},
}

// TestBenchBacklog measures how what waited is drained.
func TestBenchBacklog(t *testing.T) {
	b := newBed(t, scale{tenants: 20, partitions: 16})
	var rows []row
	for _, p := range backlogs {
		t.Run(p.name, func(t *testing.T) { rows = append(rows, b.measure(t, p)) })
	}
	write(os.Stdout, b.conditions(t), rows)
}

// backlog is a file that is in the journal, whole, before the sinks may begin.
func backlog(t *testing.T, b *bed, n int) source {
	t.Helper()
	f := files(t, b, n)
	all := func(t *testing.T, s *harness.Service, action string) {
		for i := range b.tenants {
			act(t, s, fmt.Sprintf("t%04d/s", i+1), action)
		}
	}
	return source{
		feed: f.feed,
		before: func(t *testing.T, s *harness.Service) {
			all(t, s, "pause")
			f.begin(s)
			harness.Until(t, patience, "everything in the journal", func() bool {
				l, ok := s.Ledger()
				return ok && l.Feeds[0].Read >= int64(n)
			})
			whenIdle(t, s, func() bool { return true })
		},
		begin: func(s *harness.Service) { all(t, s, "resume") },
	}
}

// act has a sink's lanes paused, resumed, flushed.
func act(t *testing.T, s *harness.Service, sink, action string) {
	t.Helper()
	resp, err := (&http.Client{Timeout: time.Minute}).Post(fmt.Sprintf("http://%s/v1/lanes/%s/%s", s.Admin, sink, action), "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		t.Fatalf("%s %s: %s", action, sink, resp.Status)
	}
}
