package state

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"datasync/feeds/journal"
)

var update = flag.Bool("update", false, "write the golden files anew")

// memory is a Log that counts its calls.
type memory struct {
	facts map[string][]byte
	calls [][]journal.Fact // PutLater's
	err   error            // of Put
}

func (m *memory) Put(_ context.Context, facts ...journal.Fact) error {
	if m.err != nil {
		return m.err
	}
	m.set(facts)
	return nil
}

func (m *memory) PutLater(facts ...journal.Fact) {
	m.calls = append(m.calls, facts)
	m.set(facts)
}

func (m *memory) set(facts []journal.Fact) {
	if m.facts == nil {
		m.facts = map[string][]byte{}
	}
	for _, f := range facts {
		if len(f.Value) == 0 {
			delete(m.facts, f.Key)
		} else {
			m.facts[f.Key] = f.Value
		}
	}
}

func (m *memory) Fact(key string) ([]byte, bool) { v, ok := m.facts[key]; return v, ok }

func (m *memory) Facts(prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(m.facts)) {
			if strings.HasPrefix(k, prefix) && !yield(k, m.facts[k]) {
				return
			}
		}
	}
}

// fill gives every field of a struct a value of its own.
func fill(v reflect.Value, n *int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Uint64, reflect.Uint32:
		*n++
		v.SetUint(uint64(*n))
	case reflect.Int64:
		*n++
		v.SetInt(int64(*n))
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice: // json.RawMessage
		v.SetBytes([]byte(`{"format":"ndjson"}`))
	default:
		panic("a fact has a field of kind " + v.Kind().String() + ": teach the test")
	}
}

// full is a T of which no field is zero.
func full[T any]() T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	return v
}

// The facts are read by later versions: what stands in the golden files must
// stay readable, so a field may be added to them but never renamed or removed.
func TestFactsAreADurableFormat(t *testing.T) {
	peers := Peers{"siem.example:6514": "close_notify"}
	for name, v := range map[string]any{
		"lane": full[Lane](), "drop": full[Pending](), "pause": full[Pause](), "sink": full[Known](), "peer": peers,
	} {
		file := filepath.Join("testdata", name+".json")
		got, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, '\n')
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: a fact reads\n%s\nand not, as is stored out there,\n%s", file, got, want)
		}
		back := reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(want, back.Interface()); err != nil {
			t.Fatal(err)
		}
		if p, ok := back.Interface().(*Pending); ok { // kept as it is written
			p.Output = json.RawMessage(`{"format":"ndjson"}`)
		}
		if !reflect.DeepEqual(back.Elem().Interface(), v) {
			t.Errorf("%s reads back as %+v", file, back.Elem())
		}
	}
}

func TestKeysOfFacts(t *testing.T) {
	m := &memory{}
	h, k := At(m), Key{"acme", "lake"}
	ctx := context.Background()
	if err := errors.Join(
		h.Begin(ctx, map[Key]Lane{k: {}}),
		h.SetPause(ctx, k, &Pause{Since: 5}),
		h.Know(ctx, map[Key]Known{k: {Created: 7}}),
	); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Record(ctx, k, Pending{Number: 1}); err != nil {
		t.Fatal(err)
	}
	h.Learn(k, Peers{"a:1": "fin"})
	want := []string{"drop/acme/lake", "lane/acme/lake", "pause/acme/lake", "peer/acme/lake", "sink/acme/lake"}
	if got := slices.Sorted(maps.Keys(m.facts)); !slices.Equal(got, want) {
		t.Errorf("facts are stored under %v", got)
	}
}

func TestFactsRoundTrip(t *testing.T) {
	h, k := At(&memory{}), Key{"acme", "lake"}
	other := Key{"acme", "siem"}
	ctx := context.Background()
	if _, ok, err := h.Lane(k); ok || err != nil {
		t.Fatalf("a lane that never was: %v, %v", ok, err)
	}
	if d, err := h.Pending(k); d != nil || err != nil {
		t.Fatalf("a drop that never was: %v, %v", d, err)
	}
	if err := h.Begin(ctx, map[Key]Lane{k: {Number: 3}, other: {}}); err != nil {
		t.Fatal(err)
	}
	l := full[Lane]()
	h.Advance(k, l)
	if got, ok, err := h.Lane(k); !ok || err != nil || got != l {
		t.Errorf("lane: %+v, %v, %v", got, ok, err)
	}
	if got := maps.Collect(h.Lanes()); len(got) != 2 || got[k] != l || got[other] != (Lane{}) {
		t.Errorf("lanes: %+v", got)
	}
	p := full[Pending]()
	if _, err := h.Record(ctx, k, p); err != nil {
		t.Fatal(err)
	}
	d, err := h.Pending(k)
	if err != nil || d == nil || !reflect.DeepEqual(d.Pending, p) {
		t.Errorf("drop: %+v, %v", d, err)
	}
	if d, err := h.Pending(other); d != nil || err != nil {
		t.Errorf("another lane's drop: %+v, %v", d, err)
	}

	if err := h.SetPause(ctx, k, &Pause{Since: 9}); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := h.Paused(k); !ok || err != nil || got.Since != 9 {
		t.Errorf("pause: %+v, %v, %v", got, ok, err)
	}
	if err := h.SetPause(ctx, k, nil); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := h.Paused(k); ok || err != nil {
		t.Errorf("a pause that ended: %v, %v", ok, err)
	}
	if err := h.Know(ctx, map[Key]Known{k: {Created: 1}, other: {Created: 2, Gone: 3}}); err != nil {
		t.Fatal(err)
	}
	if got := maps.Collect(h.Sinks()); len(got) != 2 || got[k].Created != 1 || got[other] != (Known{2, 3}) {
		t.Errorf("sinks: %+v", got)
	}
	h.Learn(k, Peers{"a:1": "fin"})
	if got, err := h.Peers(k); err != nil || got["a:1"] != "fin" {
		t.Errorf("peers: %+v, %v", got, err)
	}
}

func TestADropIsCompletedInOneCall(t *testing.T) {
	m := &memory{}
	h, k := At(m), Key{"acme", "lake"}
	l := Lane{Pos: journal.Position{Seq: 4, Events: 3}, Start: journal.Position{Seq: 2, Events: 1}, Number: 6, Delivered: 2, Tick: 100}
	if err := h.Begin(context.Background(), map[Key]Lane{k: l}); err != nil {
		t.Fatal(err)
	}
	to := journal.Position{Seq: 14, Events: 13}
	d, err := h.Record(context.Background(), k, Pending{From: l.Pos, To: to, Number: 7, Tick: 90, Counts: Counts{Events: 8, Filtered: 2}})
	if err != nil {
		t.Fatal(err)
	}
	d.Complete(&l, 1234)
	if len(m.calls) != 1 || len(m.calls[0]) != 2 {
		t.Fatalf("a crash can come between: %d calls", len(m.calls))
	}
	if l.Number != 7 || l.Pos != to || l.Delivered != 10 || l.Filtered != 2 || l.Tick != 100 || l.LastAt != 1234 || l.Settled() != 12 {
		t.Errorf("completed to %+v", l)
	}
	if got, ok, _ := h.Lane(k); !ok || got != l {
		t.Errorf("the fact says %+v", got)
	}
	if d, err := h.Pending(k); d != nil || err != nil {
		t.Errorf("it is pending still: %v, %v", d, err)
	}
}

func TestAnAbandonedDropUsesUpItsNumber(t *testing.T) {
	h, k := At(&memory{}), Key{"acme", "lake"}
	l := Lane{Number: 6, Pos: journal.Position{Seq: 4, Events: 3}}
	d, err := h.Record(context.Background(), k, Pending{From: l.Pos, Number: 7, Counts: Counts{Events: 8}})
	if err != nil {
		t.Fatal(err)
	}
	d.Abandon(&l)
	got, _, err := h.Lane(k)
	if err != nil || got.Number != 7 || got.Pos != l.Pos || got.Settled() != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if d, err := h.Pending(k); d != nil || err != nil {
		t.Errorf("it is pending still: %v, %v", d, err)
	}
}

func TestADropThatTheLaneWentPastIsNone(t *testing.T) {
	h, k := At(&memory{}), Key{"acme", "lake"}
	if _, err := h.Record(context.Background(), k, Pending{From: journal.Position{Seq: 4}, Number: 7}); err != nil {
		t.Fatal(err)
	}
	h.Advance(k, Lane{Pos: journal.Position{Seq: 4}})
	if d, err := h.Pending(k); d == nil || err != nil {
		t.Errorf("a drop at the lane's place: %v, %v", d, err)
	}
	h.Advance(k, Lane{Pos: journal.Position{Seq: 5}})
	if d, err := h.Pending(k); d != nil || err != nil {
		t.Errorf("the lane would go back to %+v, %v", d, err)
	}
}

func TestADropThatCannotBeRecordedIsNone(t *testing.T) {
	m := &memory{err: errors.New("no room")}
	d, err := At(m).Record(context.Background(), Key{"acme", "lake"}, Pending{Number: 3})
	if d != nil || !errors.Is(err, m.err) || !strings.Contains(err.Error(), "drop 3 of acme/lake") {
		t.Errorf("%v, %v", d, err)
	}
}

func TestABrokenFactIsToldAndPassedOver(t *testing.T) {
	k := Key{"acme", "lake"}
	h := At(&memory{facts: map[string][]byte{"lane/acme/lake": []byte(`{"pos":`), "drop/acme/lake": []byte(`7`), "lane/no-sink": []byte(`{}`), "lane/acme/siem": []byte(`{}`)}})
	if _, _, err := h.Lane(k); err == nil || !strings.Contains(err.Error(), "lane/acme/lake") {
		t.Errorf("lane: %v", err)
	}
	if _, err := h.Pending(k); err == nil {
		t.Error("a broken drop passes for none: its number would be used again")
	}
	if got := maps.Collect(h.Lanes()); len(got) != 1 {
		t.Errorf("lanes: %v", got)
	}
}

func drawCounts(t *rapid.T, label string) Counts {
	n := rapid.Uint64Range(0, 5)
	c := Counts{Events: n.Draw(t, label), Filtered: n.Draw(t, "filtered"), SampledOut: n.Draw(t, "sampled out"),
		Refused: n.Draw(t, "refused"), Expired: n.Draw(t, "expired"), Damaged: n.Draw(t, "damaged")}
	if c.Events > 0 {
		c.FirstEvent = rapid.Int64Range(1, 1000).Draw(t, "first")
		c.LastEvent = c.FirstEvent + rapid.Int64Range(0, 50).Draw(t, "span")
	}
	return c
}

func TestCountsAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cs := make([]Counts, rapid.IntRange(1, 5).Draw(t, "ranges"))
		var sum Counts
		var total, settled uint64
		l := Lane{Pos: journal.Position{Seq: 1}, Start: journal.Position{Seq: 1}}
		for i := range cs {
			cs[i] = drawCounts(t, "events")
			sum.Add(cs[i])
			total += cs[i].Sum()
			l.Settle(journal.Position{Seq: l.Pos.Seq + 10, Events: l.Pos.Events + cs[i].Sum()}, cs[i], int64(i+1))
			if settled = l.Settled(); settled != l.Pos.Events-l.Start.Events {
				t.Fatalf("the ledger does not balance: %+v", l)
			}
			if l.Read.Seq < l.Pos.Seq {
				t.Fatalf("read %d lies behind settled %d", l.Read.Seq, l.Pos.Seq)
			}
		}
		if sum.Sum() != total || settled != total {
			t.Fatalf("%d in parts, %d together, %d settled", total, sum.Sum(), settled)
		}
		lo, hi := int64(0), int64(0)
		for _, c := range cs {
			if c.Events > 0 && (lo == 0 || c.FirstEvent < lo) {
				lo = c.FirstEvent
			}
			hi = max(hi, c.LastEvent)
		}
		if sum.FirstEvent != lo || sum.LastEvent != hi {
			t.Fatalf("times %d to %d, want %d to %d", sum.FirstEvent, sum.LastEvent, lo, hi)
		}
		// What is taken away part by part leaves nothing, and never less.
		for _, c := range cs {
			sum.Sub(c)
		}
		if sum.Sum() != 0 {
			t.Fatalf("left: %+v", sum)
		}
		if sum.Sub(Counts{Events: 3, Damaged: 1}); sum.Sum() != 0 {
			t.Fatalf("below nothing: %+v", sum)
		}
	})
}

func TestReadGoesNoFurtherBackThanSettled(t *testing.T) {
	l := Lane{Read: journal.Position{Seq: 30, Events: 29}}
	l.Settle(journal.Position{Seq: 20, Events: 19}, Counts{Events: 19}, 1)
	if l.Read.Seq != 30 {
		t.Errorf("read went back to %d", l.Read.Seq)
	}
	l.Settle(journal.Position{Seq: 40, Events: 39}, Counts{Filtered: 20}, 2)
	if l.Read != l.Pos || l.LastAt != 1 {
		t.Errorf("%+v", l)
	}
}

func TestKeysThatAreNoneAreRefused(t *testing.T) {
	if k, err := ParseKey("acme/lake"); err != nil || k != (Key{"acme", "lake"}) || k.String() != "acme/lake" {
		t.Errorf("%v, %v", k, err)
	}
	for _, s := range []string{"", "acme", "acme/", "/lake", "acme/lake/x", "ACME/lake", "acme/../x", "acme/la ke"} {
		if k, err := ParseKey(s); err == nil {
			t.Errorf("%q is taken for %v", s, k)
		}
	}
}

// FuzzFacts: whatever stands in the facts of a lane, it is an error or a state
// that reads back as it is written, at no more cost than its length.
func FuzzFacts(f *testing.F) {
	for _, name := range []string{"lane", "drop", "pause", "sink", "peer"} {
		b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"from":{"seq":1},"to":{"seq":0},"number":18446744073709551615,"cut":-1}`))
	f.Add([]byte(`[[[`))
	k := Key{"acme", "drops"}
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, prefix := range []string{laneKey, dropKey, pauseKey, sinkKey, peerKey} {
			log := &memory{facts: map[string][]byte{prefix + k.String(): value}}
			read(t, prefix, At(log), k)
		}
	})
}

// read reads the one fact there is, and writes it again.
func read(t *testing.T, prefix string, h *Home, k Key) {
	t.Helper()
	again := func(v any) {
		b := fact("", v).Value
		back := reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(b, back.Interface()); err != nil {
			t.Fatalf("%s does not read back: %v", b, err)
		}
		if c := fact("", back.Elem().Interface()).Value; string(c) != string(b) {
			t.Fatalf("%s reads back as %s", b, c)
		}
	}
	switch prefix {
	case laneKey:
		if l, ok, err := h.Lane(k); ok && err == nil {
			again(l)
		}
		for range h.Lanes() {
		}
	case dropKey:
		if d, err := h.Pending(k); d != nil && err == nil {
			again(d.Pending)
			d.Complete(&Lane{}, 1)
		}
	case pauseKey:
		if p, ok, err := h.Paused(k); ok && err == nil {
			again(p)
		}
	case sinkKey:
		for _, s := range h.Sinks() {
			again(s)
		}
	case peerKey:
		if p, err := h.Peers(k); p != nil && err == nil {
			again(p)
		}
	}
}
