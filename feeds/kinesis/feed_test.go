package kinesisfeed

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/feeds"
)

// values are the records taken, in order.
func (w *world) values() (out []string) {
	for _, l := range w.taken() {
		_, l, _ = strings.Cut(l, "/")
		_, l, _ = strings.Cut(l, "/")
		out = append(out, l)
	}
	return out
}

// once holds that each of n records was taken once.
func once(t *testing.T, w *world, n int) {
	t.Helper()
	seen := map[string]int{}
	for _, v := range w.values() {
		seen[v]++
	}
	for i := range n {
		if k := seen[fmt.Sprint(i)]; k != 1 {
			t.Errorf("record %d was taken %d times", i, k)
		}
	}
	if len(seen) != n {
		t.Errorf("%d different records, %d were put", len(seen), n)
	}
}

func TestAStreamIsReadFromItsBeginning(t *testing.T) {
	s, w := newStream(t, 3), &world{}
	for i := range 30 {
		s.put(i%3, fmt.Sprint(i))
	}
	stop := run(t, s, w, nil)
	until(t, "all records", func() bool { return len(w.taken()) == 30 })
	s.put(1, "30")
	until(t, "what comes later", func() bool { return len(w.taken()) == 31 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	once(t, w, 31)
	if first := w.taken()[0]; !strings.HasPrefix(first, "acme/kds:logs:49571") {
		t.Errorf("the first is %q", first)
	}
	if !strings.HasPrefix(w.order[0], "shardId-00000000000") || !w.times[0].Equal(s.now) {
		t.Errorf("position %q, time %v", w.order[0], w.times[0])
	}
	if len(w.told) > 0 || len(w.gaps) > 0 {
		t.Errorf("told %q, gaps %v", w.told, w.gaps)
	}
}

// Stopped and killed at every submit, nothing is lost and nothing taken twice;
// what was submitted and not answered has the same ids.
func TestRestartsGoOnExactlyBehind(t *testing.T) {
	s, w := newStream(t, 2), &world{}
	for i := range 40 {
		s.put(i%2, fmt.Sprint(i))
	}
	for len(w.taken()) < 40 {
		submits := 0
		w.before = func([]string) error {
			if submits++; submits > 2 {
				return feeds.ErrStopped
			}
			return nil
		}
		stop := run(t, s, w, func(o *Options) { o.BatchBytes = 1 })
		until(t, "the end of this life", func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return submits > 2 || len(w.lines) == 40
		})
		if err := stop(); err != nil && !errors.Is(err, feeds.ErrStopped) {
			t.Fatal(err)
		}
	}
	once(t, w, 40)
	ids := map[string]bool{}
	for _, l := range w.taken() {
		ids[strings.Split(l, "/")[1]] = true
	}
	if len(ids) != 40 {
		t.Errorf("%d ids for 40 records", len(ids))
	}
}

// A child is read after its parents, through splits and merges, over a restart.
func TestReshardingKeepsTheOrder(t *testing.T) {
	s, w := newStream(t, 1), &world{}
	n := 0
	put := func(shard, k int) {
		for range k {
			s.put(shard, fmt.Sprint(n))
			n++
		}
	}
	put(0, 20)
	s.split(0) // 1, 2
	put(1, 10)
	put(2, 10)
	s.merge(1, 2) // 3
	put(3, 10)
	stop := run(t, s, w, nil)
	until(t, "all records", func() bool { return len(w.taken()) == n })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.split(3) // 4, 5
	put(4, 5)
	put(5, 5)
	stop = run(t, s, w, nil)
	until(t, "all records", func() bool { return len(w.taken()) == n })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	once(t, w, n)
	at := map[string]int{}
	for i, v := range w.values() {
		at[v] = i
	}
	for i := range 20 {
		for j := 20; j < 40; j++ {
			if at[fmt.Sprint(i)] > at[fmt.Sprint(j)] {
				t.Fatalf("%d of a child was taken before %d of its parent", j, i)
			}
		}
	}
	for i := 20; i < 40; i++ {
		for j := 40; j < 50; j++ {
			if at[fmt.Sprint(i)] > at[fmt.Sprint(j)] {
				t.Fatalf("%d of the merged shard was taken before %d of its parents", j, i)
			}
		}
	}
	// Shards that were read to their end are forgotten once the stream forgets them.
	s.do(func() { s.shards[0].gone, s.shards[1].gone, s.shards[2].gone = true, true, true })
	stop = run(t, s, w, nil)
	until(t, "forgetting", func() bool { _, ok := w.Fact("kinesis/shard/shardId-000000000002"); return !ok })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(w.gaps) > 0 || len(w.taken()) != n {
		t.Errorf("gaps %v, %d of %d records", w.gaps, len(w.taken()), n)
	}
}

func TestThrottlingAndExpiredIterators(t *testing.T) {
	s, w := newStream(t, 2), &world{}
	for i := range 60 {
		s.put(i%2, fmt.Sprint(i))
	}
	n := 0
	s.fail = func(op string) (int, string) {
		n++
		switch {
		case op == "GetRecords" && n%5 == 0:
			return 400, "ProvisionedThroughputExceededException"
		case op == "GetRecords" && n%7 == 0:
			return 400, "ExpiredIteratorException"
		case n%11 == 0:
			return 500, "InternalFailure"
		}
		return 0, ""
	}
	stop := run(t, s, w, nil)
	until(t, "all records", func() bool { return len(w.taken()) == 60 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	once(t, w, 60)
	if len(w.told) > 0 {
		t.Errorf("told of what passes: %q", w.told)
	}
}

func TestTroubleIsToldOnce(t *testing.T) {
	s, w := newStream(t, 2), &world{}
	s.put(0, "0")
	s.fail = func(string) (int, string) { return 400, "AccessDeniedException" }
	stop := run(t, s, w, nil)
	until(t, "a third try", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.calls["ListShards"] > 2 })
	s.do(func() { s.fail = nil })
	until(t, "the record", func() bool { return len(w.taken()) == 1 })
	until(t, "word of its end", func() bool { return w.said("all is well again after") == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if w.said("kinesis feed vendor: stream logs: AccessDeniedException: as the test wants it (allow kinesis:ListShards") != 1 || len(w.told) != 2 {
		t.Errorf("told %q", w.told)
	}
}

func TestFullJournalWaits(t *testing.T) {
	s, w := newStream(t, 1), &world{}
	s.put(0, "0", "1")
	full := true
	w.before = func(lines []string) error {
		if full && len(lines) > 0 {
			return feeds.ErrFull
		}
		return nil
	}
	stop := run(t, s, w, nil)
	until(t, "word", func() bool { return w.said("journal is full") == 1 })
	w.mu.Lock()
	full = false
	w.mu.Unlock()
	until(t, "the records", func() bool { return len(w.taken()) == 2 })
	until(t, "word of its end", func() bool { return w.said("all is well again") == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	once(t, w, 2)
}

func TestRetentionThatOvertakesIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		away  time.Duration
		hours int // that the stream keeps; 0: not known
		gap   bool
	}{
		"a short absence":                   {23 * time.Hour, 0, false},
		"longer than every stream keeps":    {30 * time.Hour, 0, true},
		"not longer than this stream keeps": {30 * time.Hour, 168, false},
		"longer than this stream keeps":     {200 * time.Hour, 168, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := newStream(t, 1), &world{}
			s.hours = c.hours
			s.put(0, "0", "1")
			stop := run(t, s, w, nil)
			until(t, "two records", func() bool { return len(w.taken()) == 2 })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			s.put(0, "lost")
			s.do(func() { s.now = s.now.Add(c.away) })
			s.put(0, "2")
			if c.gap {
				s.do(func() { s.shards[0].records = s.shards[0].records[3:] })
			}
			stop = run(t, s, w, nil)
			until(t, "the last record", func() bool { return slices.Contains(w.values(), "2") })
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			var kept []Gap
			for _, raw := range w.Facts(GapPrefix) {
				g, err := ParseGap(raw)
				if err != nil {
					t.Fatal(err)
				}
				kept = append(kept, g)
			}
			if want := map[bool]int{true: 1}[c.gap]; len(kept) != want || len(w.gaps) != want {
				t.Fatalf("gaps %v kept, %v told, want %d", kept, w.gaps, want)
			}
			if c.gap && (kept[0].Shard != "shardId-000000000000" || kept[0].After != "49571003" || kept[0].Before != "49571005" ||
				!strings.Contains(kept[0].String(), "may have been deleted before they were read")) {
				t.Errorf("%+v: %s", kept[0], kept[0])
			}
		})
	}
}

// A feed that is away, and whose last record is still there, has missed nothing.
func TestALongAbsenceWithoutAGap(t *testing.T) {
	s, w := newStream(t, 1), &world{}
	s.put(0, "0", "1")
	stop := run(t, s, w, nil)
	until(t, "two records", func() bool { return len(w.taken()) == 2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.do(func() { s.now = s.now.Add(48 * time.Hour) })
	s.put(0, "2")
	stop = run(t, s, w, nil)
	until(t, "the last record", func() bool { return len(w.taken()) == 3 })
	if err := stop(); err != nil || len(w.gaps) > 0 {
		t.Errorf("%v, gaps %v", err, w.gaps)
	}
}

func TestAShardThatIsGoneBeforeItsEnd(t *testing.T) {
	s, w := newStream(t, 1), &world{}
	s.put(0, "0")
	stop := run(t, s, w, nil)
	until(t, "a record", func() bool { return len(w.taken()) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s.split(0)
	s.put(1, "1")
	s.do(func() { s.shards[0].gone = true })
	stop = run(t, s, w, nil)
	until(t, "the child's record", func() bool { return len(w.taken()) == 2 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if len(w.gaps) != 1 || w.gaps[0].Shard != "shardId-000000000000" || !strings.Contains(w.gaps[0].String(), "and its end") {
		t.Errorf("gaps %v", w.gaps)
	}
	if _, ok := w.Fact("kinesis/shard/shardId-000000000000"); ok {
		t.Error("it is not forgotten")
	}
}

func TestAnotherStreamUnderTheSameName(t *testing.T) {
	s, w := newStream(t, 1), &world{}
	s.put(0, "0")
	stop := run(t, s, w, nil)
	until(t, "a record", func() bool { return len(w.taken()) == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	anew := newStream(t, 0)
	anew.seq = 5000
	anew.open("", "")
	anew.put(0, "x")
	stop = run(t, anew, w, nil)
	until(t, "word", func() bool { return w.said("was deleted and made anew") == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	stop = run(t, s, w, func(o *Options) { o.Stream = "others" })
	until(t, "word", func() bool { return w.said("a feed's name belongs to one stream") == 1 })
	if err := stop(); err != nil || len(w.taken()) != 1 {
		t.Errorf("%v, %q", err, w.taken())
	}
}

func TestBeginningWithNow(t *testing.T) {
	s, w := newStream(t, 1), &world{}
	s.put(0, "old")
	s.do(func() { s.now = s.now.Add(time.Minute) })
	now := func(o *Options) { o.StartNow = true }
	stop := run(t, s, w, now)
	until(t, "the beginning", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.calls["GetRecords"] > 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// What comes while it is away is later than its first beginning.
	s.do(func() { s.now = s.now.Add(time.Minute) })
	s.put(0, "0")
	stop = run(t, s, w, now)
	until(t, "the new record", func() bool { return len(w.taken()) > 0 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := w.values(); !slices.Equal(got, []string{"0"}) {
		t.Errorf("taken %q", got)
	}
}

// pack packs records as the KPL does.
func pack(records ...string) string {
	var body []byte
	field := func(dst []byte, n byte, b []byte) []byte {
		return append(binary.AppendUvarint(append(dst, n<<3|2), uint64(len(b))), b...)
	}
	body = field(body, 1, []byte("key"))
	body = field(body, 2, []byte("12345"))
	for _, r := range records {
		body = field(body, 3, field([]byte{1 << 3, 0, 2 << 3, 0}, 3, []byte(r)))
	}
	sum := md5.Sum(body)
	return magic + string(body) + string(sum[:])
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

func TestPackedAndCompressedRecords(t *testing.T) {
	s, w := newStream(t, 1), &world{}
	damaged := []byte(pack("a", "b"))
	damaged[len(damaged)-1]++
	sum := md5.Sum([]byte{3<<3 | 2, 200})
	s.put(0, `[{"a":1},{"b":2}]`, pack("x", "y", zipped("z")), zipped("[1]"), string(damaged), magic+"\x1a\xc8"+string(sum[:]), "\x1f\x8b\x08 no gzip")
	stop := run(t, s, w, nil)
	until(t, "all", func() bool { return len(w.taken()) == 8 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`acme/kds:logs:49571002/[{"a":1},{"b":2}]`, "acme/kds:logs:49571003:0/x", "acme/kds:logs:49571003:1/y", "acme/kds:logs:49571003:2/z",
		"acme/kds:logs:49571004/[1]", "acme/kds:logs:49571005/" + string(damaged),
		"acme/kds:logs:49571006/" + magic + "\x1a\xc8" + string(sum[:]) + "|" + errPacked.Error(),
	}
	got := w.taken()
	if !slices.Equal(jsonText(got[:7]), jsonText(want)) || !strings.Contains(got[7], "|gzip: ") {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// jsonText is what is left of bytes that are no text.
func jsonText(in []string) (out []string) {
	for _, s := range in {
		out = append(out, strings.ToValidUTF8(s, "?"))
	}
	return out
}

func FuzzUnpack(f *testing.F) {
	f.Add([]byte(pack("a", "b")))
	f.Add([]byte{1 << 3, 0, 3<<3 | 2, 200})
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := md5.Sum(data)
		inner, packed, _ := unpack(slices.Concat([]byte(magic), data, sum[:]))
		total := 0
		for _, r := range inner {
			total += len(r)
		}
		if !packed || total > len(data) {
			t.Errorf("packed %v, %d bytes out of %d", packed, total, len(data))
		}
	})
}

func TestOptions(t *testing.T) {
	w := &world{}
	good := Options{Name: "vendor", Stream: "logs", Format: "netacea", Intake: w, Facts: w}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"name": func(o *Options) { o.Name = "A" }, "stream": func(o *Options) { o.Stream = "" }, "intake": func(o *Options) { o.Intake = nil },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.HasPrefix(err.Error(), "kinesis feed ") && !strings.HasPrefix(err.Error(), "kinesis feed:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
