package kinesisfeed

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
)

const (
	// streamKey is the fact that names the stream that the journal's shard holds.
	streamKey = "kinesis/stream"
	// beginKey is the fact that says since when a feed that began with "now" reads, in ms UTC.
	beginKey = "kinesis/begin"
	// markPrefix begins the facts of how far each shard was read.
	markPrefix = "kinesis/shard/"
)

// GapPrefix begins the keys of the facts of a journal's shard that name its
// gaps; the Kinesis shard and the sequence number before the gap follow.
const GapPrefix = "kinesis-gap/"

// mark is how far a shard was read: the fact under markPrefix and its id.
type mark struct {
	First string `json:"first"`           // the shard's first sequence number: another shard of the same id has another
	Seq   string `json:"seq,omitempty"`   // of the last record that is durable; empty: none yet
	Until int64  `json:"until,omitempty"` // ms UTC: what arrived before was read
	Done  bool   `json:"done,omitempty"`  // the shard was read to its end
}

func (m mark) fact(id string) journal.Fact {
	value, _ := json.Marshal(m) // strings and numbers: it does not fail
	return journal.Fact{Key: markPrefix + id, Value: value}
}

// marks are what the facts say of all shards.
func (f *Feed) marks() map[string]mark {
	out := map[string]mark{}
	for key, value := range f.o.Facts.Facts(markPrefix) {
		var m mark
		if json.Unmarshal(value, &m) == nil {
			out[strings.TrimPrefix(key, markPrefix)] = m
		}
	}
	return out
}

// Gap is a part of a shard that this feed may never have read.
type Gap struct {
	Stream string    `json:"stream"`
	Shard  string    `json:"shard"`
	After  string    `json:"after,omitempty"`  // the last sequence number that was read; empty: none was
	Before string    `json:"before,omitempty"` // the first one behind the gap; empty: the shard's end
	From   time.Time `json:"from"`             // what arrived before was read
	To     time.Time `json:"to"`               // zero: not known
	Found  time.Time `json:"found"`
}

// String says for an operator what is missing and what follows from it.
func (g Gap) String() string {
	to := "its end"
	if !g.To.IsZero() {
		to = g.To.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("records of stream %s, %s, that arrived between %s and %s (behind sequence number %s) may have been deleted before they were read; the stream's retention is too short for how long this feed was away",
		g.Stream, g.Shard, g.From.UTC().Format(time.RFC3339), to, cmp.Or(g.After, "none"))
}

// ParseGap reads the value of a fact under GapPrefix.
func ParseGap(value []byte) (Gap, error) {
	var g Gap
	if err := json.Unmarshal(value, &g); err != nil {
		return Gap{}, fmt.Errorf("read the fact of a gap: %w", err)
	}
	return g, nil
}

func (g Gap) fact() journal.Fact {
	value, _ := json.Marshal(g) // as above
	return journal.Fact{Key: GapPrefix + g.Shard + "/" + g.After, Value: value}
}

var (
	errOtherStream = errors.New("a feed's name belongs to one stream: give the feed of the new stream another name")
	errMadeAnew    = errors.New("the stream was deleted and made anew: give the feed another name to read it from its beginning")
	errKeep        = errors.New("the journal does not take them")
)

// sameStream makes sure that the facts are of this stream, and notes it, and
// the time of the beginning, where the feed is new.
func (f *Feed) sameStream(ctx context.Context) error {
	if f.same {
		return nil // shards are read already
	}
	stream, known := f.o.Facts.Fact(streamKey)
	if known && string(stream) != f.o.Stream {
		return fmt.Errorf("its shard of the journal holds stream %s: %w", stream, errOtherStream)
	}
	begin, timed := f.o.Facts.Fact(beginKey)
	if n := journal.Counts(begin); timed && len(n) == 1 {
		f.begin = time.UnixMilli(int64(n[0]))
	}
	if known {
		f.same = true
		return nil
	}
	facts := []journal.Fact{{Key: streamKey, Value: []byte(f.o.Stream)}}
	if f.o.StartNow {
		f.begin = f.o.Clock()
		facts = append(facts, journal.Fact{Key: beginKey, Value: journal.AppendCounts(nil, uint64(f.begin.UnixMilli()))})
	}
	err := f.keep(ctx, facts)
	f.same = err == nil
	return err
}

// forget names what was lost with shards that are gone, and forgets these.
func (f *Feed) forget(ctx context.Context, p plan) error {
	var facts []journal.Fact
	var gaps []Gap
	for _, id := range p.lost {
		m := p.marks[id]
		g := Gap{Stream: f.o.Stream, Shard: id, After: m.Seq, From: time.UnixMilli(m.Until).UTC(), Found: f.o.Clock().UTC()}
		gaps = append(gaps, g)
		facts = append(facts, g.fact(), journal.Fact{Key: markPrefix + id})
	}
	for _, id := range p.old {
		facts = append(facts, journal.Fact{Key: markPrefix + id})
	}
	if len(facts) == 0 {
		return nil
	}
	if err := f.keep(ctx, facts); err != nil {
		return err
	}
	for _, g := range gaps {
		f.o.OnGap(g)
	}
	return nil
}

// keep makes facts durable.
func (f *Feed) keep(ctx context.Context, facts []journal.Fact) error {
	_, err := f.o.Intake.Submit(ctx, &intake.Request{Format: f.o.Format, Records: func(func(feeds.Record) bool) {},
		Facts: func(*intake.Result) []journal.Fact { return facts }})
	if err != nil {
		return fmt.Errorf("%w: %w", errKeep, err)
	}
	return nil
}

// later says whether sequence number a comes behind b: numbers without leading zeros.
func later(a, b string) bool {
	if len(a) != len(b) {
		return len(a) > len(b)
	}
	return a > b
}
