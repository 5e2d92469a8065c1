package kinesis

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"datasync/exporter/kinesis/kinesistest"
	"datasync/exporter/lane"
	"datasync/exporter/state"
	"datasync/feeds"
)

// fakeStream is a stream that keeps what it stores.
type fakeStream struct {
	*kinesistest.Stream
	t    testing.TB
	recs []kinesistest.Record
	have map[string]int // by event_id, unpacked
}

func newFakeStream(t testing.TB, shards int) *fakeStream {
	f := &fakeStream{t: t, Stream: kinesistest.NewStream("events", shards, 1), have: map[string]int{}}
	f.Stored = func(r kinesistest.Record) {
		f.recs = append(f.recs, r)
		for _, u := range unpack(t, r) {
			f.have[string(scalar(u.Data, member("event_id")))]++
		}
	}
	return f
}

// direct is a caller that reaches the stream without a network and without the
// SDK's own retries.
type direct struct{ f *fakeStream }

func (d direct) close() {}

func (d direct) put(_ context.Context, body []byte, n int) ([]result, error) {
	status, text := kinesistest.Account{d.f.Name: d.f.Stream}.Put(body)
	if status == 0 {
		return nil, context.DeadlineExceeded
	}
	var out struct {
		Type    string `json:"__type"`
		Message string
		Records []struct{ ShardId, ErrorCode, ErrorMessage string }
	}
	if err := json.Unmarshal(text, &out); err != nil {
		panic(err)
	}
	if status != 200 {
		return nil, &smithy.GenericAPIError{Code: out.Type, Message: out.Message, Fault: smithy.FaultClient}
	}
	rs := make([]result, n)
	for i, r := range out.Records {
		rs[i] = result{stored: r.ErrorCode == "", shard: r.ShardId, code: r.ErrorCode, message: r.ErrorMessage}
		if !rs[i].stored {
			rs[i].shard = shardName.FindString(r.ErrorMessage)
		}
	}
	return rs, nil
}

// quick are times with which a test does not wait.
var quick = Tuning{Linger: time.Millisecond, RetryMin: time.Millisecond, RetryMax: 4 * time.Millisecond,
	PauseMin: time.Millisecond, PauseMax: 4 * time.Millisecond}

// rig is a sink over a fake stream; it stands for the Runner and checks what a
// Runner may rely on.
type rig struct {
	t    testing.TB
	f    *fakeStream
	sink *Sink

	mu        sync.Mutex
	offered   []lane.Segment
	lines     map[feeds.Sequence][]string // ids of each segment, by To.Seq
	confirmed int
	refusedBy map[string]string // reason, by id
	counts    state.Counts
	troubles  []*lane.Trouble
	room      chan struct{}
	news      chan struct{}
	refusal   error
	patience  time.Duration
}

func newRig(t testing.TB, f *fakeStream, o Options, c caller) *rig {
	r := &rig{t: t, f: f, lines: map[feeds.Sequence][]string{}, refusedBy: map[string]string{},
		room: make(chan struct{}, 1), news: make(chan struct{}, 1), patience: time.Minute}
	o.Stream = f.Name
	if o.Tuning == (Tuning{}) {
		o.Tuning = quick
	} else if o.Tuning.RetryMin == 0 {
		o.Tuning = Tuning{Linger: o.Tuning.Linger} // the defaults
	}
	if c == nil {
		c = direct{f}
	}
	r.sink = newSink(o, r, c)
	return r
}

func note(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Confirmed is Listener's: in the order offered, and only what the stream has.
func (r *rig) Confirmed(segs []lane.Segment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.f.Lock()
	defer r.f.Unlock()
	for _, s := range segs {
		want := r.offered[r.confirmed]
		r.confirmed++
		if s.From != want.From || s.To != want.To {
			r.t.Errorf("confirmed %v–%v, and %v–%v was offered before", s.From.Seq, s.To.Seq, want.From.Seq, want.To.Seq)
		}
		no := 0
		for _, id := range r.lines[s.To.Seq] {
			switch {
			case r.refusedBy[id] != "":
				no++
			case r.f.have[id] == 0:
				r.t.Errorf("confirmed, and the stream has no %s", id)
			}
		}
		if s.Counts.Refused != uint64(no) || s.Counts.Events != want.Counts.Events-uint64(no) {
			r.t.Errorf("confirmed as %d events and %d refused; %d of %d were refused", s.Counts.Events, s.Counts.Refused, no, want.Counts.Events)
		}
		r.counts.Add(s.Counts)
	}
	note(r.news)
}

// Refuse is Listener's.
func (r *rig) Refuse(_ context.Context, _ lane.Segment, reason string, lines ...[]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refusal != nil {
		return r.refusal
	}
	for _, l := range lines {
		r.refusedBy[string(scalar(l, member("event_id")))] = reason
	}
	return nil
}

// Room is Listener's.
func (r *rig) Room(*lane.Stream) { note(r.room) }

// Trouble is Listener's.
func (r *rig) Trouble(_ *lane.Stream, t *lane.Trouble) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.troubles = append(r.troubles, t)
	note(r.news)
}

// offer offers lines as one segment, when there is room.
func (r *rig) offer(lines []string) {
	r.t.Helper()
	seg := lane.Segment{Counts: state.Counts{Events: uint64(len(lines))}}
	var data []byte
	r.mu.Lock()
	seg.From.Seq = feeds.Sequence(len(r.offered))
	seg.To.Seq = seg.From.Seq + 1
	for _, l := range lines {
		data = append(append(data, l...), '\n')
		r.lines[seg.To.Seq] = append(r.lines[seg.To.Seq], string(scalar([]byte(l), member("event_id"))))
	}
	r.offered = append(r.offered, seg)
	r.mu.Unlock()
	deadline := time.After(r.patience)
	for !r.sink.Offer(data, seg) {
		select {
		case <-r.room:
		case <-deadline:
			r.t.Fatalf("no room for %v", r.patience)
		}
	}
	clear(data) // the sink has a copy
}

// until waits for a condition.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.After(r.patience)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		r.mu.Lock()
		done := ok()
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.news:
		case <-tick.C:
		case <-deadline:
			r.sink.mu.Lock()
			defer r.sink.mu.Unlock()
			defer r.t.FailNow()
			r.t.Errorf("no %s: %d of %d confirmed, %d records pending, %d calls, until %v, troubles %d", what, r.confirmed, len(r.offered),
				len(r.sink.pending), r.sink.calls, time.Until(r.sink.until), len(r.troubles))
		}
	}
}

func (r *rig) allConfirmed() {
	r.t.Helper()
	r.until("confirmation of everything", func() bool { return r.confirmed == len(r.offered) })
}

// end closes the sink and looks for what it left.
func (r *rig) end() {
	r.t.Helper()
	if err := r.sink.Close(); err != nil {
		r.t.Error(err)
	}
}

// event is the i-th event of a key.
func event(i int, key string, pad int) string {
	return fmt.Sprintf(`{"event_id":"e%d","client_ip":%q,"n":%d,"pad":"%s"}`, i, key, i, bytes.Repeat([]byte("x"), pad))
}

// unpack gives the events of a record as a consumer sees them.
func unpack(t testing.TB, r kinesistest.Record) []kinesistest.Event {
	t.Helper()
	events, err := kinesistest.Unpack(r)
	if err != nil {
		t.Error(err)
	}
	return events
}

// keyOrder gives the numbers n of the events of each key, in the order in
// which the stream has them, repeats left out.
func keyOrder(t testing.TB, f *fakeStream) map[string][]int {
	f.Lock()
	defer f.Unlock()
	out := map[string][]int{}
	seen := map[int]bool{}
	for _, r := range f.recs {
		for _, u := range unpack(t, r) {
			var e struct{ N int }
			if err := json.Unmarshal(u.Data, &e); err != nil {
				t.Fatalf("%q: %v", u.Data, err)
			}
			if !seen[e.N] {
				seen[e.N] = true
				out[u.Key] = append(out[u.Key], e.N)
			}
		}
	}
	return out
}

var _ Listener = (*lane.Runner)(nil)
