package kinesis

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/exporter/lane"
	"datasync/exporter/state"
)

// BenchmarkRound is lines' whole way, from the offer to the confirmation, over
// HTTP to a server that only counts: full calls, and such as small tenants
// make. What the server costs is in the figures.
func BenchmarkRound(b *testing.B) {
	for _, n := range []int{maxRecords, 40} {
		for _, mode := range []string{"plain", "aggregate", "ordered"} {
			b.Run(fmt.Sprintf("%s/%d", mode, n), func(b *testing.B) { round(b, modes[mode], n) })
		}
	}
}

func round(b *testing.B, o Options, n int) {
	identity(b)
	srv := httptest.NewServer(http.HandlerFunc(allStored))
	defer srv.Close()
	o.Stream, o.Endpoint, o.Region, o.PartitionKey = "events", srv.URL, "eu-west-1", "client_ip"
	o.Tuning.Linger = time.Nanosecond // a round is one Offer
	done := make(confirms, 1)
	s := newSink(o, done, newClient(o))
	var lines []byte
	for i := range n {
		lines = append(append(lines, event(i, fmt.Sprintf("10.1.2.%d", i), 690)...), '\n')
	}
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		if !s.Offer(lines, lane.Segment{Counts: state.Counts{Events: uint64(n)}}) {
			b.Fatal("no room")
		}
		<-done
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N)/float64(n), "cpu-ns/event")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// processorTime is this process's, of all its threads: others are on the machine, too.
func processorTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// allStored answers as if it had stored everything.
func allStored(w http.ResponseWriter, r *http.Request) {
	records := 0
	for buf := make([]byte, 64<<10); ; {
		n, err := r.Body.Read(buf)
		records += bytes.Count(buf[:n], []byte{'{'}) // one a record, and the request's own; base64 has none
		if err != nil {
			break
		}
	}
	const result = `{"SequenceNumber":"49543463076548007577105092703039560359975228518395019266","ShardId":"shardId-000000000000"},`
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_, _ = io.WriteString(w, `{"FailedRecordCount":0,"Records":[`+strings.TrimSuffix(strings.Repeat(result, records-1), ",")+`]}`)
}

// confirms is a Listener that only notes that all is confirmed.
type confirms chan struct{}

// Confirmed is Listener's.
func (c confirms) Confirmed([]lane.Segment) { c <- struct{}{} }

// Refuse is Listener's.
func (confirms) Refuse(context.Context, lane.Segment, string, ...[]byte) error { return nil }

// Room is Listener's.
func (confirms) Room(*lane.Stream) {}

// Trouble is Listener's.
func (confirms) Trouble(_ *lane.Stream, t *lane.Trouble) {
	if t != nil {
		panic(t.Err)
	}
}
