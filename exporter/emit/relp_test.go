package emit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
	"datasync/exporter/lane"
	"datasync/exporter/state"
	"datasync/feeds"
	"datasync/feeds/journal"
)

// book is a Listener that writes down what it is told, and offers again what is lost.
type book struct {
	mu        sync.Mutex
	confirmed []lane.Segment
	lost      []lane.Segment
	epoch     uint64
	done      chan struct{}
	want      int
}

func (b *book) Read([]lane.Segment)                 {}
func (b *book) Room(*lane.Stream)                   {}
func (b *book) Trouble(*lane.Stream, *lane.Trouble) {}
func (b *book) Confirmed(segs []lane.Segment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.confirmed = append(b.confirmed, segs...)
	if len(b.confirmed) == b.want {
		close(b.done)
	}
}
func (b *book) Lost(_ *lane.Stream, epoch uint64, segs []lane.Segment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost, b.epoch = append(b.lost, segs...), epoch
}

// TestRefusedRecord: what a RELP receiver will never take is kept, as the event
// it is without the syslog header, and counted in its segment; its neighbours arrive.
func TestRefusedRecord(t *testing.T) {
	frame := func(s string) string {
		m := "<134>1 2026-11-22T00:58:27.042Z host datasync - mitigation - " + s
		return fmt.Sprintf("%d %s", len(m), m)
	}
	r := emittertest.NewRELP(t, emittertest.RELPOptions{Each: func(_ int, rec string) emittertest.Act {
		if string(message([]byte(rec))) == `{"n": 3}` {
			return emittertest.Reject
		}
		return emittertest.Take
	}})
	b := &book{done: make(chan struct{}), want: 3}
	var kept []string
	fails := 1
	stream, err := New(Options{
		Client: emitter.Options{Addresses: []string{r.Addr()}, TLS: emitter.TLS{CA: r.Certs().CA}, Confirm: emitter.Protocol, Octets: true,
			Tuning: emitter.Tuning{RetryMin: 5 * time.Millisecond}},
		Refuse: func(_ context.Context, s lane.Segment, reason string, lines ...[]byte) error {
			if fails--; fails >= 0 {
				return fmt.Errorf("the quarantine is full")
			}
			kept = append(kept, fmt.Sprintf("%d %s %s", s.From.Seq, reason, lines[0]))
			return nil
		},
	}, b)
	if err != nil {
		t.Fatal(err)
	}
	sink := stream.Sink.(*Sink)
	defer sink.Close()
	offer := func(from int, epoch uint64) {
		t.Helper()
		seg := lane.Segment{From: journal.Position{Seq: feeds.Sequence(from)}, To: journal.Position{Seq: feeds.Sequence(from + 2)}, Counts: state.Counts{Events: 2}, Epoch: epoch}
		if !sink.Offer([]byte(frame(fmt.Sprintf(`{"n": %d}`, from))+frame(fmt.Sprintf(`{"n": %d}`, from+1))), seg) {
			t.Error("not taken")
		}
	}
	for _, from := range []int{0, 2, 4} {
		offer(from, 0)
	}
	for more := true; more; {
		select {
		case <-b.done:
			more = false
		case <-time.After(5 * time.Millisecond):
			b.mu.Lock()
			lost, epoch := b.lost, b.epoch
			b.lost = nil
			b.mu.Unlock()
			for _, s := range lost {
				offer(int(s.From.Seq), epoch)
			}
		case <-t.Context().Done():
			t.Fatal("never confirmed")
		}
	}
	if len(kept) != 1 || kept[0] != `2 the receiver answered 500 not this one {"n": 3}` {
		t.Errorf("kept %q", kept)
	}
	for i, s := range b.confirmed {
		want := state.Counts{Events: 2}
		if i == 1 {
			want = state.Counts{Events: 1, Refused: 1}
		}
		if s.Counts != want || s.From.Seq != feeds.Sequence(2*i) {
			t.Errorf("segment %d: from %d, %+v", i, s.From.Seq, s.Counts)
		}
	}
}
