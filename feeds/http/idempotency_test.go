package httpfeed

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func (s *server) once(t testing.TB, k, id, body string) reply {
	t.Helper()
	return s.post(t, "/v1/ingest/canonical", strings.NewReader(body), key, k, "Idempotency-Key", id)
}

func TestSameKeyIsTakenOnce(t *testing.T) {
	w := newWorld()
	o := w.options()
	now := time.Unix(1e9, 0)
	o.Now = func() time.Time { return now }
	s := start(t, o)
	first := s.once(t, "ka", "k1", "{}\n7\n{}")
	again := s.once(t, "ka", "k1", "{}\n7\n{}")
	if first.status != 200 || again.status != 200 || again.body != first.body || w.taken() != 2 {
		t.Fatalf("%+v and then %+v; %d taken", first, again, w.taken())
	}
	if got := s.once(t, "ka", "k1", "{}"); got.status != 422 || !strings.Contains(got.body, "new key") {
		t.Errorf("another body: %+v", got)
	}
	if got := s.post(t, "/v1/ingest/netacea", strings.NewReader("{}\n7\n{}"), key, "ka", "Idempotency-Key", "k1"); got.status != 422 {
		t.Errorf("another format: %+v", got)
	}
	if got := s.once(t, "kb", "k1", "{}"); got.status != 200 || w.taken() != 3 {
		t.Errorf("another tenant's key of that name: %+v", got)
	}
	if got := s.once(t, "ka", "k2", "7"); got.status != 400 {
		t.Errorf("nothing accepted: %+v", got)
	}
	if got := s.once(t, "ka", "k2", "{}"); got.status != 200 {
		t.Errorf("mended, with the same key: %+v", got)
	}
	now = now.Add(remembered)
	if got := s.once(t, "ka", "k1", "{}\n{}"); got.status != 200 || w.taken() != 6 {
		t.Errorf("ten minutes later: %+v; %d taken", got, w.taken())
	}
}

func TestAnswersOutliveACrash(t *testing.T) {
	w := newWorld()
	w.crash = true // durable, and then the process is gone before it can answer
	s := start(t, w.options())
	if got := s.once(t, "ka", "k1", "{}\n7"); got.status != 503 {
		t.Fatalf("%+v", got)
	}
	s.stop(t)
	w.crash = false
	s = start(t, w.options())
	got := s.once(t, "ka", "k1", "{}\n7")
	if got.status != 200 || got.body != `{"accepted":1,"rejected":[{"index":1,"reason":"not an object: 7"}]}` || w.taken() != 1 {
		t.Errorf("after the crash: %+v; %d taken", got, w.taken())
	}
	if s.Status().Replayed != 1 || w.repeats != 2 {
		t.Errorf("not counted: %+v, %d", s.Status(), w.repeats)
	}
}

func TestASecondOneWaits(t *testing.T) {
	w := newWorld()
	w.hold, w.entered = make(chan struct{}), make(chan struct{}, 10)
	s := start(t, w.options())
	replies := make(chan reply)
	for range 5 {
		go func() {
			r, err := s.try("POST", "/v1/ingest/canonical", strings.NewReader("{}"), key, "ka", "Idempotency-Key", "k1")
			if err != nil {
				r.body = err.Error()
			}
			replies <- r
		}()
	}
	<-w.entered
	until(t, func() bool { return s.Status().InFlight == 5 })
	close(w.hold)
	for range 5 {
		if r := <-replies; r.status != 200 || r.body != `{"accepted":1,"rejected":[]}` {
			t.Errorf("%+v", r)
		}
	}
	if w.taken() != 1 {
		t.Errorf("taken %d times", w.taken())
	}
}

func TestTheNextTriesWhereTheFirstFailed(t *testing.T) {
	w := newWorld()
	w.err = fmt.Errorf("broken")
	s := start(t, w.options())
	if got := s.once(t, "ka", "k1", "{}"); got.status != 503 {
		t.Fatalf("%+v", got)
	}
	w.err = nil
	if got := s.once(t, "ka", "k1", "{}"); got.status != 200 || w.taken() != 1 {
		t.Errorf("%+v", got)
	}
}

func TestSweepDeletesWhatExpired(t *testing.T) {
	w := newWorld()
	now := time.Unix(1e9, 0)
	o := w.options()
	o.Now = func() time.Time { return now }
	s := start(t, o)
	s.once(t, "ka", "old", "{}")
	now = now.Add(8 * time.Minute)
	s.once(t, "ka", "new", "{}")
	if len(s.answered.aging) != 2 {
		t.Errorf("to be forgotten: %v", s.answered.aging)
	}
	s.stop(t)
	w.facts["idem/edge/not-ours"] = []byte("x")
	w.facts["idem/edge/00112233445566778899aabbccddeeff"] = []byte("unreadable")
	f, err := New(o) // it knows of those of the one before
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(3 * time.Minute)
	f.answered.sweep(now)
	if len(w.facts) != 2 {
		t.Errorf("left: %q", w.facts)
	}
	if !f.answered.enterable(t) {
		t.Error("a key is still held")
	}
	now = now.Add(8 * time.Minute)
	f.answered.sweep(now)
	if len(w.facts) != 1 || len(f.answered.aging) != 0 {
		t.Errorf("left: %q, %v", w.facts, f.answered.aging)
	}
}

func (m *memory) enterable(testing.TB) bool { return len(m.busy) == 0 }

// until waits for something that other goroutines bring about.
func until(t testing.TB, is func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(time.Minute)
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it does not come about")
		}
	}
}

// What intake calls no event is told in the answer, and counted again where the
// answer is given again.
func TestSuppressedIsTold(t *testing.T) {
	w := newWorld()
	w.suppress = `"masked"`
	s := start(t, w.options())
	body := "{}\n{\"masked\":1}\n{\"masked\":2}\n"
	for range 2 {
		got := s.post(t, "/v1/ingest/netacea/acme", strings.NewReader(body), key, "ka", "Idempotency-Key", "k1")
		if got.status != 200 || got.body != `{"accepted":1,"rejected":[],"suppressed":2}` {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	if w.taken() != 1 || w.repeats != 3 {
		t.Errorf("%d taken, %d counted as repeats", w.taken(), w.repeats)
	}
	if got := s.post(t, "/v1/ingest/netacea/acme", strings.NewReader(`{"masked":1}`), key, "ka"); got.status != 200 || got.body != `{"accepted":0,"rejected":[],"suppressed":1}` {
		t.Errorf("nothing else: %d %s", got.status, got.body)
	}
}
