package lane

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"datasync/exporter/tenants"
	"datasync/feeds/journal"
	"datasync/formats"
	"datasync/schemas"
)

func TestASinkThatBecomesAStreamLeavesItsDrop(t *testing.T) {
	r := newRig(t)
	b := &bucket{after: func(int, *Drop) error { return errTest }}
	drops := dropSink("acme", b, nil)
	k := r.begin(drops)
	r.append("acme", 3)
	r.until(k, "events", func(v View) bool { return v.End.Events == 3 })
	r.runner.Do(k, OrderFlush)
	for b.count() == 0 {
		r.byHand()
	}
	r.runner.Swap(k, streamSink("acme", &taking{}), 0)
	if d, err := r.shard.Home.Pending(k); d != nil || err != nil {
		t.Errorf("the drop is pending: %+v, %v", d, err)
	}
	b.after = nil
	r.runner.Swap(k, drops, 0)
	r.runner.Do(k, OrderFlush)
	for !caughtUp(r.runner.Views(&k)[0]) {
		r.byHand()
	}
	if f := r.runner.Views(&k)[0].Fact; f.Number != 2 || f.Settled() != 3 || b.count() != 2 {
		t.Errorf("%d objects, %+v", b.count(), f)
	}
}

func TestWhatExpiresBehindAPendingDropIsNotItsOwn(t *testing.T) {
	h := newHand(t, nil, newGround(t))
	b := &bucket{fail: func(int, *Drop) error { return errTest }}
	h.sink = dropSink(h.key.Tenant, b, func(s *tenants.Sink) { s.Name = h.key.Sink; s.Deliver.MaxEvents = 3 })
	h.append(0, 12)
	h.append(1, 1)
	h.start()
	for b.count() == 0 {
		h.turn()
	}
	ref := h.g.logs[0].Tenant(h.key.Tenant)
	to, err := h.g.logs[0].Locate(ref, h.seqs[0][9])
	if err != nil {
		t.Fatal(err)
	}
	if err := h.g.logs[0].Expire(ref, to); err != nil { // 5 to 9; 1 to 4 are the drop's
		t.Fatal(err)
	}
	b.fail = nil
	h.start() // another life: it is encoded anew
	for h.turn() || h.wait(1<<40) {
		h.balance()
	}
	f := h.runner.Views(&h.key)[0].Fact
	if f.Settled() != 12 || f.Expired != 5 || f.Delivered != 3+2 {
		t.Errorf("%+v", f)
	}
}

func TestHolesAreCutAtTheEndOfADrop(t *testing.T) {
	hole := func(from, to uint64) journal.Hole {
		return journal.Hole{From: journal.Position{Events: from}, To: journal.Position{Events: to}}
	}
	for _, c := range []struct{ in, want []journal.Hole }{
		{[]journal.Hole{hole(0, 3)}, []journal.Hole{hole(0, 3)}},
		{[]journal.Hole{hole(3, 9)}, []journal.Hole{hole(3, 5)}},
		{[]journal.Hole{hole(5, 9)}, nil},
		{[]journal.Hole{hole(1, 2), hole(4, 7), hole(8, 9)}, []journal.Hole{hole(1, 2), hole(4, 5)}},
	} {
		if got := within(slices.Clone(c.in), journal.Position{Events: 5}); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.in, got, c.want)
		}
	}
}

// damaged is a journal that has lost the first event of what a pending drop
// holds, and tells of a hole behind it as well.
type damaged struct{ Journal }

func (d damaged) Read(ref journal.TenantRef, from journal.Position, o journal.ReadOptions, c *journal.Chunk) error {
	if o.Until == 0 {
		return d.Journal.Read(ref, from, o, c)
	}
	if err := d.Journal.Read(ref, from, journal.ReadOptions{MaxEvents: 1}, c); err != nil {
		return err
	}
	lost := journal.Hole{From: from, To: c.Next}
	err := d.Journal.Read(ref, lost.To, o, c)
	behind := journal.Hole{From: c.Next, To: journal.Position{Seq: c.Next.Seq + 4, Events: c.Next.Events + 4, Bytes: c.Next.Bytes}}
	c.Holes, c.Next = append([]journal.Hole{lost}, append(c.Holes, behind)...), behind.To
	return err
}

func TestADropThatLostEventsSinceIsTheSameDrop(t *testing.T) {
	for _, stored := range []bool{false, true} {
		r := newRig(t)
		b := &bucket{fail: func(int, *Drop) error { return errTest }}
		if stored {
			b.fail, b.after = nil, b.fail
		}
		k := r.begin(dropSink("acme", b, func(s *tenants.Sink) { s.Deliver.Manifest = true }))
		r.append("acme", 6)
		r.until(k, "events", func(v View) bool { return v.End.Events == 6 })
		r.runner.Do(k, OrderFlush)
		for b.count() == 0 {
			r.byHand()
		}
		r.shard.Journal = damaged{r.shard.Journal}
		b.fail, b.after = nil, nil
		r.runner.Do(k, OrderRetry)
		r.byHand()
		v := r.runner.Views(&k)[0]
		if v.Status.State != Running || !caughtUp(v) || v.Fact.Damaged != 1 || v.Fact.Delivered != 3 || v.Fact.Filtered != 2 {
			t.Fatalf("stored before %v: %+v, %+v", stored, v.Status, v.Fact)
		}
		manifests := 0
		for key, body := range b.objs {
			if strings.HasSuffix(key, ".manifest.json") && strings.Contains(string(body), `"damaged": 1`) {
				manifests++
			}
		}
		if manifests != 1 || len(b.objs) != 2 {
			t.Errorf("stored before %v: %d objects, %d manifests tell of the damage", stored, len(b.objs), manifests)
		}
	}
}

// TestADropOfAnOlderEncoderIsTheSameDrop: bytes that differ are ours where
// another version of the encoders decided the drop, and only there.
func TestADropOfAnOlderEncoderIsTheSameDrop(t *testing.T) {
	for _, older := range []bool{true, false} {
		r := newRig(t)
		b := &bucket{fail: func(int, *Drop) error { return errTest }}
		k := r.begin(dropSink("acme", b, nil))
		r.append("acme", 6)
		r.until(k, "events", func(v View) bool { return v.End.Events == 6 })
		r.runner.Do(k, OrderFlush)
		for b.count() == 0 {
			r.byHand()
		}
		p := &r.runner.by[k][0].drop.Pending
		if older {
			p.Encoder = "0"
		}
		b.fail, b.objs = nil, map[string][]byte{p.Key: []byte("the same events, told as version 0 did")}
		r.runner.Do(k, OrderRetry)
		r.byHand()
		if v := r.runner.Views(&k)[0]; caughtUp(v) != older || (v.Status.State == Parked) == older {
			t.Errorf("older %v: %+v, %+v", older, v.Status, v.Fact)
		}
	}
}

// A pending drop is finished with the settings it was decided with, perhaps by
// a later version: what stands in the golden file must stay readable.
func TestRecordedSettingsAreADurableFormat(t *testing.T) {
	out := tenants.Output{Format: formats.Parquet, Compression: formats.Zstd, Level: 3, Schema: "canonical", Kinds: schemas.DefaultKinds,
		Filter: "enforced", Fields: []string{"event_id"}, Sample: 0.5}
	got, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "output.json"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != strings.TrimSuffix(string(want), "\n") {
		t.Errorf("settings are recorded as\n%s\nand not, as is stored out there,\n%s", got, want)
	}
}
