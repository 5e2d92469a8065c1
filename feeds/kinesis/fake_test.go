package kinesisfeed

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datasync/feeds/cloud"
	"datasync/feeds/intake"
	"datasync/feeds/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stored is a record of the fake.
type stored struct {
	Data                        []byte
	SequenceNumber              string
	PartitionKey                string
	ApproximateArrivalTimestamp float64
	n                           int
}

type fakeShard struct {
	id, parent, adjacent string
	first                int
	records              []stored
	closed, gone         bool
}

// fakeStream speaks enough of Kinesis' JSON 1.1.
type fakeStream struct {
	t      testing.TB
	mu     sync.Mutex
	now    time.Time
	shards []*fakeShard
	seq    int
	fail   func(op string) (status int, code string) // "" answers
	calls  map[string]int
	hours  int // of retention; 0: it may not be asked for
}

func newStream(t testing.TB, shards int) *fakeStream {
	s := &fakeStream{t: t, calls: map[string]int{}, seq: 1000, now: time.UnixMilli(1_800_000_000_000)}
	for range shards {
		s.open("", "")
	}
	return s
}

func (s *fakeStream) open(parent, adjacent string) *fakeShard {
	s.seq++
	sh := &fakeShard{id: fmt.Sprintf("shardId-%012d", len(s.shards)), parent: parent, adjacent: adjacent, first: s.seq}
	s.shards = append(s.shards, sh)
	return sh
}

func (s *fakeStream) put(shard int, data ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range data {
		s.seq++
		s.shards[shard].records = append(s.shards[shard].records, stored{Data: []byte(d), SequenceNumber: "4957" + strconv.Itoa(s.seq),
			PartitionKey: "k", ApproximateArrivalTimestamp: float64(s.now.UnixMilli()) / 1000, n: s.seq})
	}
}

// split ends a shard and opens two behind it; merge ends two and opens one.
func (s *fakeStream) split(shard int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shards[shard].closed = true
	s.open(s.shards[shard].id, "")
	s.open(s.shards[shard].id, "")
}

func (s *fakeStream) merge(a, b int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shards[a].closed, s.shards[b].closed = true, true
	s.open(s.shards[a].id, s.shards[b].id)
}

func (s *fakeStream) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeStream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var in struct {
		StreamName, ShardId, ShardIteratorType, StartingSequenceNumber, ShardIterator, NextToken string
		Limit                                                                                    int
		Timestamp                                                                                float64
	}
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		return // the caller went away
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	status, out := http.StatusOK, any(nil)
	if s.fail != nil {
		if code, name := s.fail(op); name != "" {
			status, out = code, map[string]any{"__type": name, "message": "as the test wants it"}
		}
	}
	if out == nil {
		switch op {
		case "ListShards":
			out = s.list(in.NextToken)
		case "GetShardIterator":
			out = map[string]any{"ShardIterator": s.iterator(in.ShardId, in.ShardIteratorType, in.StartingSequenceNumber, in.Timestamp)}
		case "GetRecords":
			out = s.read(in.ShardIterator, in.Limit)
		case "DescribeStreamSummary":
			if s.hours == 0 {
				status, out = 400, map[string]any{"__type": "AccessDeniedException", "message": "no"}
			} else {
				out = map[string]any{"StreamDescriptionSummary": map[string]any{"StreamName": in.StreamName, "RetentionPeriodHours": s.hours}}
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out) // the caller may be gone
}

// list gives two shards a page.
func (s *fakeStream) list(token string) any {
	at, _ := strconv.Atoi(token)
	var shards []map[string]any
	out := map[string]any{}
	for i := at; i < len(s.shards); i++ {
		if len(shards) == 2 {
			out["NextToken"] = strconv.Itoa(i)
			break
		}
		sh := s.shards[i]
		if sh.gone {
			continue
		}
		m := map[string]any{"ShardId": sh.id, "SequenceNumberRange": map[string]any{"StartingSequenceNumber": "4957" + strconv.Itoa(sh.first)},
			"HashKeyRange": map[string]any{"StartingHashKey": "0", "EndingHashKey": "1"}}
		if sh.parent != "" {
			m["ParentShardId"] = sh.parent
		}
		if sh.adjacent != "" {
			m["AdjacentParentShardId"] = sh.adjacent
		}
		shards = append(shards, m)
	}
	out["Shards"] = shards
	return out
}

// iterator is "shard/sequence that was read last".
func (s *fakeStream) iterator(shard, kind, after string, from float64) string {
	switch kind {
	case "AFTER_SEQUENCE_NUMBER":
		return shard + "/" + strings.TrimPrefix(after, "4957")
	case "AT_TIMESTAMP":
		for _, sh := range s.shards {
			if sh.id != shard {
				continue
			}
			last := 0
			for _, r := range sh.records {
				if r.ApproximateArrivalTimestamp < from {
					last = r.n
				}
			}
			return shard + "/" + strconv.Itoa(last)
		}
	}
	return shard + "/0"
}

func (s *fakeStream) read(iterator string, limit int) any {
	id, last, _ := strings.Cut(iterator, "/")
	n, _ := strconv.Atoi(last)
	for _, sh := range s.shards {
		if sh.id != id {
			continue
		}
		records := []stored{}
		rest := 0
		for _, r := range sh.records {
			if r.n > n && len(records) < limit {
				records = append(records, r)
			} else if r.n > n {
				rest++
			}
		}
		out := map[string]any{"Records": records, "MillisBehindLatest": rest * 1000}
		if len(records) > 0 {
			n = records[len(records)-1].n
		}
		if rest > 0 || !sh.closed {
			out["NextShardIterator"] = id + "/" + strconv.Itoa(n)
		}
		return out
	}
	return map[string]any{"Records": []stored{}}
}

// world is an intake and its facts in memory.
type world struct {
	journaltest.MemoryFacts
	mu     sync.Mutex
	before func(lines []string) error
	lines  []string // tenant/id/value, or | reason
	order  []string // positions
	told   []string
	gaps   []Gap
	times  []time.Time
}

func (w *world) Submit(_ context.Context, r *intake.Request) (intake.Result, error) {
	var lines, order []string
	var times []time.Time
	for rec := range r.Records {
		line := string(r.Tenant) + "/" + rec.ID + "/" + string(rec.Value)
		if rec.Bad != "" {
			line += "|" + rec.Bad
		}
		lines, order, times = append(lines, line), append(order, rec.Position), append(times, rec.Time)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.before != nil {
		if err := w.before(lines); err != nil {
			return intake.Result{}, err
		}
	}
	w.lines, w.order, w.times = append(w.lines, lines...), append(w.order, order...), append(w.times, times...)
	w.PutLater(r.Facts(&intake.Result{})...)
	return intake.Result{Accepted: len(lines)}, nil
}

func (w *world) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

func (w *world) said(part string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.told {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

// run starts a feed over a fake; stop ends it and gives Run's error.
func run(t testing.TB, s *fakeStream, w *world, change func(*Options)) (stop func() error) {
	t.Helper()
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""} {
		t.Setenv(k, v)
	}
	srv := httptest.NewServer(s)
	o := Options{Name: "vendor", Stream: "logs", Format: "netacea", Tenant: "acme", Intake: w, Facts: w, AWS: cloud.Options{Endpoint: srv.URL},
		Every: time.Millisecond, Poll: time.Millisecond, Watch: 20 * time.Millisecond, Retry: time.Millisecond, Limit: 3,
		Clock:   func() time.Time { s.mu.Lock(); defer s.mu.Unlock(); return s.now },
		OnError: func(err error) { w.mu.Lock(); defer w.mu.Unlock(); w.told = append(w.told, err.Error()) },
		OnGap:   func(g Gap) { w.mu.Lock(); defer w.mu.Unlock(); w.gaps = append(w.gaps, g) }}
	if change != nil {
		change(&o)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	ended := false
	end := func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		err := <-done
		srv.Close()
		return err
	}
	t.Cleanup(func() { _ = end() })
	return end
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("no %s within a minute", what)
		case <-time.After(time.Millisecond):
		}
	}
}
