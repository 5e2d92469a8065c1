package kafkafeed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"datasync/feeds"
	"datasync/feeds/journal"
)

// topicKey is the fact that names the topic of which a shard holds a partition.
const topicKey = "kafka/topic"

// lastKey is the fact that tells the last record taken: counts of its offset,
// its time and a hash of it. A topic that was deleted and made anew under the
// same name has another record there.
const lastKey = "kafka/last"

// GapPrefix begins the keys of the facts of a shard that name its gaps; the
// first offset that is missing follows.
const GapPrefix = "kafka-gap/"

// Why offsets were not read.
const (
	// Deleted: the topic's retention, or somebody, deleted them before they were read.
	Deleted = "deleted"
	// Consumed: the group had committed offsets beyond what this journal holds.
	Consumed = "consumed"
)

// Gap is a range of a partition's offsets that this feed never reads: [From, To).
type Gap struct {
	Topic     string    `json:"topic"`
	Partition int       `json:"partition"`
	From      int64     `json:"from"`
	To        int64     `json:"to"`
	Why       string    `json:"why"` // Deleted or Consumed
	Found     time.Time `json:"found"`
	group     string
}

// String says for an operator what is missing and what follows from it.
func (g Gap) String() string {
	what := fmt.Sprintf("offsets %d to %d (%d) of topic %s partition %d were not read: ", g.From, g.To-1, g.To-g.From, g.Topic, g.Partition)
	if g.Why == Consumed {
		return what + fmt.Sprintf("the group %s had committed %d, so another member of it took them, or this data_dir is not the one that did; one group belongs to one datasync", g.group, g.To)
	}
	return what + "they were deleted before they could be; the topic's retention is too short for how long this feed was away"
}

// ParseGap reads the value of a fact under GapPrefix.
func ParseGap(value []byte) (Gap, error) {
	var g Gap
	if err := json.Unmarshal(value, &g); err != nil {
		return Gap{}, fmt.Errorf("read the fact of a gap: %w", err)
	}
	return g, nil
}

func (p *partition) gap(from, to int64, why string) Gap {
	return Gap{Topic: p.f.o.Topic, Partition: p.n, From: from, To: to, Why: why, Found: time.Now().UTC(), group: p.f.o.Group}
}

// facts become durable with the submit of a pile.
func (p *partition) facts(pile *pile) []journal.Fact {
	var facts []journal.Fact
	if last, ok := pile.last(); ok {
		facts = append(facts, journal.Fact{Key: lastKey, Value: journal.AppendCounts(nil, last.offset, last.time, last.hash)})
	}
	if !p.named {
		facts = append(facts, journal.Fact{Key: topicKey, Value: []byte(p.f.o.Topic)})
	}
	for _, g := range p.gaps {
		value, _ := json.Marshal(g) // strings and numbers: it does not fail
		facts = append(facts, journal.Fact{Key: GapPrefix + strconv.FormatInt(g.From, 10), Value: value})
	}
	return facts
}

var (
	errOtherTopic = errors.New("a feed's name belongs to one topic")
	errMadeAnew   = errors.New("the topic was deleted and made anew")
	errShorter    = errors.New("the topic was made anew, or the brokers lost records")
	errKeep       = errors.New("the journal does not take them")
)

// place is where a partition is read from.
type place struct {
	next    int64
	journal int64 // what the journal said
	fresh   bool  // neither journal nor group know: from the oldest record
	ahead   bool  // the group is ahead of the journal
	behind  bool  // the journal is ahead of the group
}

// start decides where to begin: at the larger of the two. source is the
// journal's next offset, 0 for none; committed the group's, negative for none.
func start(source uint64, committed int64) place {
	p := place{journal: int64(source)}
	p.next = max(p.journal, committed, 0)
	p.fresh = source == 0 && committed < 0
	// promise: offsets that another consumer took in our place are named.
	p.ahead = committed > p.journal
	p.behind = source > 0 && committed < p.journal
	return p
}

// buffer is what one response is worked on in.
type buffer struct {
	wire []byte // as it came
	raw  []byte // its records, decompressed
	pile pile
}

// keepBuffer is how much room a buffer keeps.
const keepBuffer = 8 << 20

// trim gives back the room that one large response took.
func (b *buffer) trim() *buffer {
	if cap(b.wire) > keepBuffer {
		b.wire = nil
	}
	if cap(b.raw) > keepBuffer {
		b.raw = nil
	}
	b.pile.reset()
	return b
}

// pile gathers records for one submit.
type pile struct {
	records []feeds.Record
	offsets []int64
	bytes   int
	text    []byte
	ends    []int
}

func (p *pile) reset() {
	clear(p.records)
	p.records, p.offsets, p.bytes = p.records[:0], p.offsets[:0], 0
}

func (p *pile) add(r *record) {
	rec := feeds.Record{Key: r.key, Value: r.value, Held: r.held, Seq: sequence(r.offset)}
	if r.ms > 0 {
		rec.Time = time.UnixMilli(r.ms)
	}
	p.records = append(p.records, rec)
	p.offsets = append(p.offsets, r.offset)
	p.bytes += len(r.key) + len(r.value)
}

// lastRecord is what is remembered of a record.
type lastRecord struct{ offset, time, hash uint64 }

func remember(offset, ms int64, key, value []byte) lastRecord {
	h := fnv.New64a()
	_, _ = h.Write(key) // never fails
	_, _ = h.Write(value)
	return lastRecord{uint64(offset), uint64(max(ms, 0)), h.Sum64()}
}

func (p *pile) last() (lastRecord, bool) {
	n := len(p.records)
	if n == 0 {
		return lastRecord{}, false
	}
	r, ms := &p.records[n-1], int64(0)
	if !r.Time.IsZero() {
		ms = r.Time.UnixMilli()
	}
	return remember(p.offsets[n-1], ms, r.Key, r.Value), true
}

// sameTopic makes sure that the last record taken is still what it was, where
// it is still there.
func (p *partition) sameTopic(ctx context.Context, c *fetcher) error {
	value, ok := p.shard.Log.Fact(lastKey)
	known := journal.Counts(value)
	if !ok || len(known) != 3 {
		return nil
	}
	want := lastRecord{known[0], known[1], known[2]}
	return p.exchange(ctx, c, question{int64(want.offset), 1, busyWait}, func(r *response, buf *buffer) error {
		if r.err != nil {
			return nil // the fetch that follows tells of it
		}
		return sameRecord(r.records, buf, want)
	})
}

func sameRecord(records []byte, buf *buffer, want lastRecord) error {
	for b, rest, ok := cutBatch(records); ok; b, rest, ok = cutBatch(rest) {
		h, err := parseBatch(b)
		if err != nil {
			return err
		}
		if h.last < int64(want.offset) {
			continue
		}
		inside, raw, err := h.inflate(buf.raw[:0])
		buf.raw = raw
		if err != nil {
			return err
		}
		for range h.count {
			var r record
			if r, inside, err = h.next(inside); err != nil {
				return err
			}
			if got := remember(r.offset, r.ms, r.key, r.value); got.offset == want.offset && got != want {
				return fmt.Errorf("the record at offset %d is not the one that was taken: %w", r.offset, errMadeAnew)
			}
		}
		return nil
	}
	return nil
}

// sequence is the number of the first event of the record at an offset. The
// events of a record are counted from 1, so that 0 stays before all of them.
func sequence(offset int64) feeds.Sequence {
	return feeds.Sequence(offset)<<feeds.SequenceBits + 1
}

// named gives the records their names: one text for all of them, so that a
// record costs no allocation.
func (p *pile) named(topic string, partition int) []feeds.Record {
	id := "kafka:" + topic + ":" + strconv.Itoa(partition) + ":"
	position := "partition " + strconv.Itoa(partition) + " offset "
	p.text, p.ends = p.text[:0], slices.Grow(p.ends[:0], 2*len(p.records))
	for _, o := range p.offsets {
		p.text = strconv.AppendInt(append(p.text, id...), o, 10)
		p.ends = append(p.ends, len(p.text))
		p.text = strconv.AppendInt(append(p.text, position...), o, 10)
		p.ends = append(p.ends, len(p.text))
	}
	text, at := string(p.text), 0
	for i := range p.records {
		p.records[i].ID = text[at:p.ends[2*i]]
		p.records[i].Position = text[p.ends[2*i]:p.ends[2*i+1]]
		at = p.ends[2*i+1]
	}
	return p.records
}
