package httpfeed

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"datasync/feeds/intake"
)

// count takes everything and keeps nothing.
type count struct{ world }

func (*count) Submit(_ context.Context, r *intake.Request) (res intake.Result, _ error) {
	for range r.Records {
		res.Accepted++
	}
	return res, nil
}

var sample = `{"Request":"GET /products/42 HTTP/2","UserAgent":"` + strings.Repeat("a", 700) + `","Status":"403"}`

// sink is a response that goes nowhere.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(p []byte) (int, error) { return len(p), nil }
func (s *sink) WriteHeader(int)             {}

// BenchmarkHandler is what a request of one event costs beyond net/http.
func BenchmarkHandler(b *testing.B) {
	o := newWorld().options()
	o.Intake = &count{}
	f, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	body := strings.NewReader(sample)
	r, _ := http.NewRequest("POST", "/v1/ingest/netacea/acme/", nil)
	r.Header.Set("X-Netacea-API-Key", "ka")
	r.Body, r.ContentLength = io.NopCloser(body), int64(len(sample))
	w := &sink{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(sample)
		clear(w.h)
		f.ServeHTTP(w, r)
	}
	if f.Status().ByStatus[200] == 0 {
		b.Fatal("nothing was taken")
	}
}

// BenchmarkRequests is a request of one event on a kept connection, the client's
// cost included.
func BenchmarkRequests(b *testing.B) {
	o := newWorld().options()
	o.Intake = &count{}
	s := start(b, o)
	req := "POST /v1/ingest/netacea/acme/ HTTP/1.1\r\nHost: x\r\nX-Netacea-API-Key: ka\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n" +
		"2db\r\n" + sample[:0x2db] + "\r\n0\r\n\r\n"
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		c := s.dial(b, "")
		in := bufio.NewReader(c)
		for p.Next() {
			if _, err := io.WriteString(c, req); err != nil {
				b.Error(err)
				return
			}
			res, err := http.ReadResponse(in, nil)
			if err != nil || res.StatusCode >= 500 {
				b.Error(res, err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
		}
	})
}
