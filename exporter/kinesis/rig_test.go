package kinesis

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"datasync/exporter/lane"
	"datasync/exporter/state"
	"datasync/feeds"
)

// apiErr is an *apiError as the SDK gives one.
type apiErr struct{ *apiError }

// ErrorFault is smithy.APIError's.
func (apiErr) ErrorFault() smithy.ErrorFault { return smithy.FaultClient }

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
	o.Stream = f.name
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
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
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

// unpacked is one event as a consumer sees it.
type unpacked struct {
	data []byte
	key  string
}

// unpack does what the KCL does with a record: all of an aggregated record is
// thrown away if one of its records belongs to another shard.
func unpack(t testing.TB, r fakeRecord) (out []unpacked) {
	if !bytes.HasPrefix(r.data, []byte{0xf3, 0x89, 0x9a, 0xc2}) {
		return []unpacked{{r.data, r.key}}
	}
	body := r.data[4 : len(r.data)-16]
	if sum := md5.Sum(body); !bytes.Equal(sum[:], r.data[len(r.data)-16:]) {
		t.Error("the checksum of an aggregated record is wrong")
	}
	m := message(t, body)
	for _, raw := range m[3] {
		rec := message(t, raw.bytes)
		if len(rec[1]) != 1 || len(rec[3]) != 1 || len(rec[2]) != 1 {
			t.Errorf("a packed record has %v", rec)
			continue
		}
		key := string(m[1][rec[1][0].number].bytes)
		hash, ok := new(big.Int).SetString(string(m[2][rec[2][0].number].bytes), 10)
		if !ok || hash.Cmp(r.from) < 0 || hash.Cmp(r.to) > 0 {
			t.Errorf("a packed record is for hash %v, and its shard has %v–%v", hash, r.from, r.to)
			return nil
		}
		out = append(out, unpacked{rec[3][0].bytes, key})
	}
	return out
}

type field struct {
	number uint64
	bytes  []byte
}

// message reads protobuf, field by field.
func message(t testing.TB, b []byte) map[uint64][]field {
	out := map[uint64][]field{}
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		v, m := binary.Uvarint(b[max(n, 0):])
		if n <= 0 || m <= 0 {
			t.Fatal("no protobuf")
		}
		b = b[n+m:]
		f := field{number: v}
		if tag&7 == 2 {
			f.bytes = b[:v]
			b = b[v:]
		}
		out[tag>>3] = append(out[tag>>3], f)
	}
	return out
}

// keyOrder gives the numbers n of the events of each key, in the order in
// which the stream has them, repeats left out.
func keyOrder(t testing.TB, f *fakeStream) map[string][]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string][]int{}
	seen := map[int]bool{}
	for _, r := range f.recs {
		for _, u := range unpack(t, r) {
			var e struct{ N int }
			if err := json.Unmarshal(u.data, &e); err != nil {
				t.Fatalf("%q: %v", u.data, err)
			}
			if !seen[e.N] {
				seen[e.N] = true
				out[u.key] = append(out[u.key], e.N)
			}
		}
	}
	return out
}

var _ Listener = (*lane.Runner)(nil)
