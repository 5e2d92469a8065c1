package simulation_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"datasync/exporter/kinesis/kinesistest"
)

// store is an S3 that keeps what it confirmed, and fails as it is told to.
type store struct {
	w       *world
	mu      sync.Mutex
	rng     *rand.Rand
	objects map[string]object
	writes  map[string]int
	// failing is the share of requests that fail.
	failing float64
}

type object struct {
	body []byte
	head http.Header
}

// ServeHTTP is http.Handler's.
func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.mu.Lock()
	how := -1
	if s.rng.Float64() < s.failing {
		how = s.rng.IntN(len(failures))
	}
	s.mu.Unlock()
	if how < 0 {
		s.do(w, r, body)
		return
	}
	f := failures[how]
	s.w.trace("s3 %s fails: %s", r.Method, f.name)
	if f.done {
		s.do(discard{http.Header{}}, r, body)
	}
	if f.hang {
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Minute):
		}
	}
	if f.status == 0 {
		panic(http.ErrAbortHandler) // the connection is cut
	}
	refuse(w, f.status, f.code)
}

// failures are the ways in which a request fails.
var failures = []struct {
	name       string
	status     int // 0: no answer
	code       string
	done, hang bool
}{
	{name: "500", status: 500, code: "InternalError"},
	{name: "503", status: 503, code: "SlowDown"},
	{name: "403", status: 403, code: "AccessDenied"},
	{name: "409", status: 409, code: "ConditionalRequestConflict"},
	{name: "done and 500", status: 500, code: "InternalError", done: true},
	{name: "cut"},
	{name: "done and cut", done: true},
	{name: "hangs", hang: true},
	{name: "done and hangs", done: true, hang: true},
}

type discard struct{ head http.Header }

func (d discard) Header() http.Header         { return d.head }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<Error><Code>"+code+"</Code><Message>as drawn</Message></Error>")
}

func (s *store) do(w http.ResponseWriter, r *http.Request, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.TrimPrefix(r.URL.Path, "/lake/")
	o, there := s.objects[key]
	switch r.Method {
	case http.MethodPut:
		if there && r.Header.Get("If-None-Match") == "*" {
			refuse(w, 412, "PreconditionFailed")
			return
		}
		s.objects[key] = object{body, r.Header.Clone()}
		s.writes[key]++
		s.w.trace("s3 holds %s", s.w.named(key))
	case http.MethodHead:
		if !there {
			w.WriteHeader(404)
			return
		}
		for k, v := range o.head {
			if strings.HasPrefix(k, "X-Amz-Meta-") {
				w.Header()[k] = v
			}
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(o.body)))
	case http.MethodDelete:
		delete(s.objects, key)
		w.WriteHeader(204)
	default:
		refuse(w, 400, "NotHere")
	}
}

// host serves a handler on a machine of its own until stop is called.
func (w *world) serve(address string, h http.Handler) (stop func(), err error) {
	ln, err := w.net.Host(address).Listen(address)
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln) // it ends by Close
	}()
	return func() {
		_ = srv.Close() // nothing is under way any more
		<-done
	}, nil
}

// newStream adds a Kinesis stream.
func (w *world) newStream(name string) {
	s := kinesistest.NewStream(name, 1+w.plan.rng.IntN(3), w.plan.rng.Uint64())
	s.Codes = []string{"InternalFailure", "ProvisionedThroughputExceededException"}
	s.Stored = func(r kinesistest.Record) {
		w.records[name] = append(w.records[name], r) // with the stream's lock held
		w.trace("kinesis %s stores %d bytes", name, len(r.Data))
	}
	w.streams[name] = s
}

// pause lets time pass.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
