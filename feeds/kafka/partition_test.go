package kafkafeed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
)

// rig is a partition over a journal in memory.
type rig struct {
	p      *partition
	buf    buffer
	errs   []string
	gaps   []Gap
	facts  map[string]string
	source uint64
	fails  []error
	took   []feeds.Record
	sizes  []int
	keep   bool
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{facts: map[string]string{}}
	f, err := New(Options{Name: "m", Brokers: []string{"127.0.0.1:1"}, Topic: "top", Format: "canonical", Retry: time.Millisecond,
		Open:    func(context.Context, int) (Shard, error) { return Shard{r, r}, nil },
		OnError: func(err error) { r.errs = append(r.errs, err.Error()) }, OnGap: func(g Gap) { r.gaps = append(r.gaps, g) }})
	if err != nil {
		t.Fatal(err)
	}
	r.keep = true
	r.p = newPartition(f, 3, &marks{offsets: map[int]int64{}})
	r.p.shard = Shard{r, r}
	return r
}

func (r *rig) Submit(_ context.Context, q *intake.Request) (intake.Result, error) {
	n := 0
	for rec := range q.Records {
		n++
		if len(r.fails) == 0 && r.keep {
			rec.Value, rec.Key = slices.Clone(rec.Value), slices.Clone(rec.Key)
			r.took = append(r.took, rec)
		}
	}
	if len(r.fails) > 0 {
		err := r.fails[0]
		r.fails = r.fails[1:]
		return intake.Result{}, err
	}
	for _, f := range q.Facts(nil) {
		r.facts[f.Key] = string(f.Value)
	}
	r.sizes = append(r.sizes, n)
	r.source = q.Source
	return intake.Result{}, nil
}

func (r *rig) Source() uint64 { return r.source }
func (r *rig) Fact(key string) ([]byte, bool) {
	v, ok := r.facts[key]
	return []byte(v), ok
}

func (r *rig) forget() { r.keep, r.took, r.sizes = false, r.took[:0], r.sizes[:0] }

// fetch gives the partition a response, as often as it asks for it again.
func (r *rig) fetch(t *testing.T, records []byte) {
	t.Helper()
	was := r.p.next
	for range 2 {
		if err := r.p.take(t.Context(), &response{records: records}, &r.buf); err != nil {
			t.Fatal(err)
		}
		if r.p.next != was {
			return
		}
	}
}

func (r *rig) values() (out []string) {
	for _, rec := range r.took {
		out = append(out, string(rec.Value))
	}
	return out
}

func TestRecordsBecomeARequest(t *testing.T) {
	r := newRig(t)
	r.p.next = 100
	r.fetch(t, made{base: 98, key: "acme", values: values("v", 5)}.batch(t))
	if len(r.took) != 3 || r.source != 103 || r.p.next != 103 {
		t.Fatalf("%d records, source %d, next %d", len(r.took), r.source, r.p.next)
	}
	rec := r.took[0]
	if string(rec.Value) != `{"v":2}` || string(rec.Key) != "acme" || rec.Seq != 100<<feeds.SequenceBits+1 || rec.Time.UnixMilli() != 1_700_000_000_020 ||
		rec.ID != "kafka:top:3:100" || rec.Position != "partition 3 offset 100" {
		t.Errorf("%+v", rec)
	}
	if r.facts[topicKey] != "top" {
		t.Errorf("facts %v", r.facts)
	}
}

func TestSubmitsInParts(t *testing.T) {
	r := newRig(t)
	r.p.f.o.BatchBytes = 50
	in := values("v", 40) // of 7 and 8 bytes
	b := append(made{values: in[:20]}.batch(t), made{base: 20, codec: 4, values: in[20:]}.batch(t)...)
	r.fetch(t, b)
	if !slices.Equal(r.values(), in) || r.source != 40 || len(r.sizes) < 5 || slices.Max(r.sizes) > 8 {
		t.Errorf("%v in parts of %v, source %d", r.values(), r.sizes, r.source)
	}
}

// A journal that is full: the same again, and the group is told of nothing meanwhile.
func TestFullJournal(t *testing.T) {
	r := newRig(t)
	r.fails = []error{feeds.ErrFull, fmt.Errorf("x: %w", feeds.ErrFull)}
	r.fetch(t, made{values: values("v", 5)}.batch(t))
	if !slices.Equal(r.values(), values("v", 5)) || r.p.marks.take()[3] != 5 {
		t.Errorf("%v", r.values())
	}
	if len(r.errs) != 2 || !strings.Contains(r.errs[0], "journal.max_bytes") || !strings.Contains(r.errs[1], "all is well again") {
		t.Errorf("told %q", r.errs)
	}
	r = newRig(t)
	r.fails = []error{feeds.ErrStopped}
	err := r.p.take(t.Context(), &response{records: made{values: values("v", 5)}.batch(t)}, &r.buf)
	if !errors.Is(err, feeds.ErrStopped) || r.p.marks.take() != nil || r.p.next != 0 {
		t.Errorf("stopped: %v, next %d", err, r.p.next)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.fails = slices.Repeat([]error{feeds.ErrFull}, 3)
	err = r.p.take(ctx, &response{records: made{values: values("v", 5)}.batch(t)}, &r.buf)
	if !errors.Is(err, context.Canceled) || r.p.marks.take() != nil || len(r.fails) != 2 {
		t.Errorf("the generation's end: %v, %d tries left", err, len(r.fails))
	}
}

// Whatever single bit flips in the records of a response: nothing wrong is
// taken, and what comes when the same is asked for again is all that is missing.
func TestEveryFlippedBit(t *testing.T) {
	in := values("v", 9)
	good := slices.Concat(made{base: 10, values: in[:3]}.batch(t), made{base: 13, codec: 4, values: in[3:6]}.batch(t), made{base: 16, values: in[6:]}.batch(t))
	r := newRig(t)
	for bit := range len(good) * 8 {
		bad := slices.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		r.p.next, r.p.jumps, r.took = 10, nil, nil
		_ = r.p.take(t.Context(), &response{records: bad}, &r.buf) // an error, or nothing at all
		for tries := 0; r.p.next < 19 && tries < 4; tries++ {
			at := slices.Clone(good) // a broker gives what lies at the offset wanted
			for lastOf(at) < r.p.next {
				_, at, _ = cutBatch(at)
			}
			if err := r.p.take(t.Context(), &response{records: at}, &r.buf); err != nil {
				t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
			}
		}
		if r.p.next != 19 || !slices.Equal(r.values(), in) {
			t.Fatalf("bit %d of byte %d: next %d, taken %v", bit%8, bit/8, r.p.next, r.values())
		}
		for i, rec := range r.took {
			if rec.Seq != sequence(int64(10+i)) {
				t.Fatalf("bit %d of byte %d: record %d has number %d", bit%8, bit/8, i, rec.Seq)
			}
		}
	}
}

// Compaction leaves holes, in batches and between them: they are taken as they are.
func TestCompactedLog(t *testing.T) {
	r := newRig(t)
	b := slices.Concat(made{base: 4, offsets: []int64{1, 5}, last: 9, values: values("v", 2)}.batch(t), made{base: 30, values: values("w", 2)}.batch(t))
	if err := r.p.take(t.Context(), &response{records: b}, &r.buf); err != nil || len(r.took) != 0 {
		t.Fatalf("%v: a jump that was seen once is taken: %v", err, r.values())
	}
	r.fetch(t, b)
	if got := []feeds.Sequence{r.took[0].Seq, r.took[1].Seq, r.took[2].Seq, r.took[3].Seq}; !slices.Equal(got, []feeds.Sequence{sequence(5), sequence(9), sequence(30), sequence(31)}) || r.source != 32 {
		t.Errorf("numbers %v, source %d", got, r.source)
	}
	if len(r.gaps) != 0 || len(r.errs) != 0 {
		t.Errorf("told %v %v", r.gaps, r.errs)
	}
}

// The end of a response may be the beginning of a batch; a response that has
// nothing else is damaged.
func TestPartialBatches(t *testing.T) {
	r := newRig(t)
	b := slices.Concat(made{values: values("v", 2)}.batch(t), made{base: 2, values: values("w", 2)}.batch(t)[:40])
	r.fetch(t, b)
	if r.source != 2 || len(r.took) != 2 {
		t.Errorf("source %d, %v", r.source, r.values())
	}
	if err := r.p.take(t.Context(), &response{records: b[:40]}, &r.buf); !errors.Is(err, errGarbled) {
		t.Errorf("half a batch: %v", err)
	}
}

func TestWhereToBegin(t *testing.T) {
	for _, c := range []struct {
		name      string
		source    uint64
		committed int64
		want      place
	}{
		{"nobody knows", 0, -2, place{fresh: true}},
		{"the journal alone", 7, -2, place{next: 7, journal: 7, behind: true}},
		{"both the same", 7, 7, place{next: 7, journal: 7}},
		{"killed before the commit", 9, 7, place{next: 9, journal: 9, behind: true}},
		{"another consumer was here", 7, 9, place{next: 9, journal: 7, ahead: true}},
		{"another data_dir", 0, 9, place{next: 9, ahead: true}},
		{"the group at the very beginning", 0, 0, place{}},
	} {
		if got := start(c.source, c.committed); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

// What another consumer took is named in the shard, durably with the new
// place, before anybody hears of it.
func TestConsumedByOthers(t *testing.T) {
	r := newRig(t)
	r.source = 7
	r.fails = []error{feeds.ErrFull}
	if err := r.p.begin(t.Context(), 12); err != nil {
		t.Fatal(err)
	}
	if r.source != 12 || len(r.gaps) != 1 || r.gaps[0].From != 7 || r.gaps[0].To != 12 || r.gaps[0].Why != Consumed {
		t.Fatalf("source %d, gaps %+v", r.source, r.gaps)
	}
	g, err := ParseGap([]byte(r.facts[GapPrefix+"7"]))
	if err != nil || g.From != 7 || g.To != 12 || g.Topic != "top" || g.Partition != 3 {
		t.Errorf("fact %+v %v", g, err)
	}
	if s := r.gaps[0].String(); !strings.Contains(s, "offsets 7 to 11 (5) of topic top partition 3") || !strings.Contains(s, "the group datasync had committed 12") {
		t.Error(s)
	}
}

func TestAnotherTopicUnderTheSameName(t *testing.T) {
	r := newRig(t)
	r.facts[topicKey] = "other"
	err := r.p.begin(t.Context(), -2)
	if _, hint := judge(err); !errors.Is(err, errOtherTopic) || !strings.Contains(hint, "another name") {
		t.Errorf("%v", err)
	}
}

var _ Log = (*journal.Journal)(nil)
