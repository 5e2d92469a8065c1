package state

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"

	"datasync/failpoint"
	"datasync/feeds/journal"
)

// The keys of the facts, all here.
const (
	laneKey  = "lane/"  // + tenant/sink, in the lane's shard: Lane
	dropKey  = "drop/"  // + tenant/sink, in the lane's shard: Pending
	pauseKey = "pause/" // + tenant/sink, in control: Pause
	sinkKey  = "sink/"  // + tenant/sink, in control: Known
	peerKey  = "peer/"  // + tenant/sink, in control: Peers
)

// Home is where the facts of one shard's lanes live. Methods may be called
// concurrently for different lanes; one lane has one caller at a time.
type Home struct{ log Log }

// At gives the home in a shard's journal.
func At(log Log) *Home { return &Home{log} }

// Lane is where the lane stands; false where it never was.
func (h *Home) Lane(k Key) (Lane, bool, error) {
	var l Lane
	ok, err := h.get(laneKey+k.String(), &l)
	return l, ok, err
}

// Lanes are all lanes that the shard knows, those of removed sinks too.
func (h *Home) Lanes() iter.Seq2[Key, Lane] {
	return func(yield func(Key, Lane) bool) {
		for name, v := range h.log.Facts(laneKey) {
			k, err := ParseKey(strings.TrimPrefix(name, laneKey))
			var l Lane
			if err != nil || json.Unmarshal(v, &l) != nil {
				continue
			}
			if !yield(k, l) {
				return
			}
		}
	}
}

// Begin records where new lanes start, durable on return.
func (h *Home) Begin(ctx context.Context, lanes map[Key]Lane) error {
	facts := make([]journal.Fact, 0, len(lanes))
	for k, l := range lanes {
		facts = append(facts, fact(laneKey+k.String(), l))
	}
	err := h.log.Put(ctx, facts...)
	failpoint.At(failpoint.LanesBegun)
	return err
}

// Advance records that a lane without a pending drop stands elsewhere. It is
// durable with the shard's next commit: a crash before that repeats what an
// emitter sent (allowed) and cuts nothing twice (a drop is Recorded first).
func (h *Home) Advance(k Key, l Lane) {
	h.log.PutLater(fact(laneKey+k.String(), l))
	failpoint.At(failpoint.Placed)
}

// Drop is a pending drop. It can only be completed: what was decided is done.
type Drop struct {
	home *Home
	key  Key
	Pending
}

// Record makes the decision to store a drop durable. Only then may it be stored.
func (h *Home) Record(ctx context.Context, k Key, p Pending) (*Drop, error) {
	failpoint.At(failpoint.Decided)
	// promise: a drop's range, number and key are durable before its first byte is sent.
	if err := h.log.Put(ctx, fact(dropKey+k.String(), p)); err != nil {
		return nil, fmt.Errorf("record drop %d of %s: %w", p.Number, k, err)
	}
	failpoint.At(failpoint.Recorded)
	return &Drop{h, k, p}, nil
}

// Pending is the drop that was recorded and not completed; nil where there is none.
func (h *Home) Pending(k Key) (*Drop, error) {
	d := &Drop{home: h, key: k}
	ok, err := h.get(dropKey+k.String(), &d.Pending)
	if err != nil || !ok {
		return nil, err
	}
	// A Record that failed may have become durable all the same; the lane, told
	// that it had not, may have gone on without it. Nothing of it was stored.
	if l, _, err := h.Lane(k); err != nil || d.From.Seq < l.Pos.Seq {
		return nil, err
	}
	return d, nil
}

// Complete settles the drop in l and forgets it, both in one commit; until that
// commit a crash stores the same bytes under the same key again, a no-op.
func (d *Drop) Complete(l *Lane, now int64) {
	l.Settle(d.To, d.Counts, now)
	l.Number = d.Number
	if d.Tick > l.Tick {
		l.Tick = d.Tick
	}
	d.home.log.PutLater(fact(laneKey+d.key.String(), *l), journal.Fact{Key: dropKey + d.key.String()})
	failpoint.At(failpoint.Completed)
}

// Abandon forgets the drop of a sink that takes drops no more. Its number is
// used up, for the object may have been stored.
func (d *Drop) Abandon(l *Lane) {
	l.Number = d.Number
	d.home.log.PutLater(fact(laneKey+d.key.String(), *l), journal.Fact{Key: dropKey + d.key.String()})
}

// Pause is who stopped a sink by hand.
type Pause struct {
	Since int64 `json:"since"` // ms UTC
}

// Paused says whether a sink was paused by a person; h is control's.
func (h *Home) Paused(k Key) (Pause, bool, error) {
	var p Pause
	ok, err := h.get(pauseKey+k.String(), &p)
	return p, ok, err
}

// SetPause pauses a sink, or lets it run again (nil), durable on return.
func (h *Home) SetPause(ctx context.Context, k Key, p *Pause) error {
	if p == nil {
		return h.log.Put(ctx, journal.Fact{Key: pauseKey + k.String()})
	}
	return h.log.Put(ctx, fact(pauseKey+k.String(), *p))
}

// Known is what control remembers of a sink: since when it exists and, where
// its file or entry is gone, since when (0: it is there). All ms UTC.
type Known struct {
	Created int64 `json:"created"`
	Gone    int64 `json:"gone,omitempty"`
}

// Sinks are all sinks that ever were; h is control's.
func (h *Home) Sinks() iter.Seq2[Key, Known] {
	return func(yield func(Key, Known) bool) {
		for name, v := range h.log.Facts(sinkKey) {
			k, err := ParseKey(strings.TrimPrefix(name, sinkKey))
			var kn Known
			if err != nil || json.Unmarshal(v, &kn) != nil {
				continue
			}
			if !yield(k, kn) {
				return
			}
		}
	}
}

// Know remembers sinks, durable on return. A sink must be known only after its
// lanes began in every shard that holds events of its tenant: what arrives
// first in a shard for a known sink is then new to it, and delivered.
func (h *Home) Know(ctx context.Context, sinks map[Key]Known) error {
	facts := make([]journal.Fact, 0, len(sinks))
	for k, kn := range sinks {
		facts = append(facts, fact(sinkKey+k.String(), kn))
	}
	err := h.log.Put(ctx, facts...)
	failpoint.At(failpoint.SinksKnown)
	return err
}

// Peers is how each address of an emitter answers a drain.
type Peers map[string]string

// Peers is what was learned of a sink's addresses; h is control's.
func (h *Home) Peers(k Key) (Peers, error) {
	var p Peers
	_, err := h.get(peerKey+k.String(), &p)
	return p, err
}

// Learn remembers how a sink's addresses answer.
func (h *Home) Learn(k Key, p Peers) { h.log.PutLater(fact(peerKey+k.String(), p)) }

func (h *Home) get(key string, into any) (bool, error) {
	v, ok := h.log.Fact(key)
	if !ok || len(v) == 0 {
		return false, nil
	}
	if err := json.Unmarshal(v, into); err != nil {
		return false, fmt.Errorf("fact %s: %w", key, err)
	}
	return true, nil
}

func fact(key string, v any) journal.Fact {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("state: %T does not marshal: %v", v, err)) // plain structs of numbers and strings
	}
	return journal.Fact{Key: key, Value: b}
}
