package lane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"datasync/exporter/tenants"
	"datasync/formats"
	"datasync/formats/compress"
	"datasync/schemas"
)

// vault is a DropSink that fails before or after it stores, and in which we die.
type vault struct {
	h    *hand
	objs map[string][]byte
	calm bool // nothing goes wrong any more
	dead bool
}

// Put is DropSink's.
func (v *vault) Put(_ context.Context, d *Drop) error {
	how := "well"
	if !v.calm {
		for v.h.below(3, "meanwhile") == 0 {
			v.happen(rapid.SampledFrom(vaultOps).Draw(v.h.draw, "what"))
		}
		how = rapid.SampledFrom([]string{"well", "well", "well", "well", "refuse", "park", "lose the answer", "die before", "die behind"}).Draw(v.h.draw, "put")
	}
	switch how {
	case "refuse":
		return &Error{Verdict: Wait, Class: Throttled, Err: errTest}
	case "park":
		return &Error{Verdict: Away, Park: true, Class: Forbidden, Err: errTest}
	case "die before":
		return v.die()
	}
	body, err := io.ReadAll(io.NewSectionReader(d.Body, 0, d.Size))
	if err != nil {
		v.h.Fatal(err)
	}
	if old, ok := v.objs[d.Key]; !ok {
		v.objs[d.Key] = body
	} else if !d.Differs && !bytes.Equal(old, body) {
		v.h.Fatalf("%s was stored with other bytes:\n%q\nnow\n%q", d.Key, old, body)
	}
	switch how {
	case "lose the answer":
		return &Error{Verdict: Away, Class: Timeout, Err: errTest}
	case "die behind":
		return v.die()
	}
	return nil
}

func (v *vault) die() error {
	v.h.crash()
	v.dead = true
	return errTest
}

// record is what becomes of a decision that is made durable.
func (v *vault) record() (durable bool, err error) {
	if v.calm || v.dead {
		return true, nil
	}
	switch rapid.SampledFrom([]string{"well", "well", "well", "fail", "fail and be durable", "die", "die and be durable"}).Draw(v.h.draw, "record") {
	case "fail":
		return false, errTest
	case "fail and be durable":
		return true, errTest
	case "die":
		return false, v.die()
	case "die and be durable":
		v.dead = true // the loop of the model ends the life behind this turn
		return true, errTest
	}
	return true, nil
}

var vaultOps = []string{"append", "append", "arrive", "arrive", "flush", "retry", "pause", "resume"}

func (v *vault) happen(what string) {
	switch shard := v.h.below(2, "shard"); what {
	case "append":
		v.h.append(shard, 1+v.h.below(12, "events"))
	case "arrive":
		v.h.arrive(shard)
	default:
		v.h.runner.Do(v.h.key, Order(what))
	}
}

// vault begins a life that stores where the last one did.
func (h *hand) vault(v *vault, set *tenants.Sink) {
	v.dead = false
	set.Tenant, set.Name, set.Dir = h.key.Tenant, h.key.Sink, &tenants.DirSink{Path: "unused"}
	h.sink = &Sink{Settings: set, Drops: v}
	for _, f := range h.facts {
		f.onPut = v.record
	}
	h.start()
}

// drawSettings are any of a drop's settings.
func drawSettings(t *rapid.T) *tenants.Sink {
	s := &tenants.Sink{}
	s.Output = tenants.Output{Format: formats.NDJSON, Schema: "canonical", Kinds: schemas.DefaultKinds, Sample: 1,
		Compression: rapid.SampledFrom([]formats.Compression{formats.None, formats.Gzip, formats.Zstd}).Draw(t, "compression")}
	if rapid.Bool().Draw(t, "filter") {
		s.Output.Filter = "enforced"
	}
	s.Deliver = tenants.Deliver{Manifest: true, MaxEvents: rapid.SampledFrom([]int{3, 10, 1000}).Draw(t, "max events"),
		MaxBytes: rapid.SampledFrom([]int64{600, 1 << 20}).Draw(t, "max bytes")}
	if rapid.Bool().Draw(t, "scheduled") {
		s.Deliver.Schedule, s.Deliver.Empty = every(time.Minute), rapid.Bool().Draw(t, "empty")
	} else {
		s.Deliver.MaxAge = 30 * time.Second
	}
	return s
}

const year = 365 * 24 * time.Hour

// jumps are what happens to a clock.
var jumps = []time.Duration{time.Hour, -time.Hour, 3 * time.Second, -3 * time.Second}

func TestDropsAreExactlyOnceWhateverHappens(t *testing.T) {
	g := newGround(t)
	rapid.Check(t, func(t *rapid.T) {
		h := newHand(t, t, g)
		v := &vault{h: h, objs: map[string][]byte{}}
		chunks := rapid.SampledFrom([]int{1, 700, 1 << 20})
		h.chunk = chunks.Draw(t, "chunk")
		h.append(0, 3)
		h.append(1, 3)
		h.vault(v, drawSettings(t))
		expired := false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch op := rapid.SampledFrom(append([]string{"turn", "turn", "turn", "turn", "wait", "die", "swap", "unreadable", "expire", "clock"}, vaultOps...)).Draw(t, "op"); op {
			case "turn":
				h.turn()
			case "wait":
				h.wait(int64(h.below(70_000, "ms")))
			case "die":
				h.crash()
				v.dead = true
			case "swap":
				set := drawSettings(t)
				set.Tenant, set.Name, set.Dir = h.key.Tenant, h.key.Sink, &tenants.DirSink{Path: "unused"}
				h.sink = &Sink{Settings: set, Drops: v}
				h.runner.Swap(h.key, h.sink, 0)
			case "unreadable":
				h.broken["read"] = 1
			case "clock":
				h.jump(rapid.SampledFrom(jumps).Draw(t, "jump"))
			case "expire":
				expired = true
				h.expire(h.below(2, "shard"))
			default:
				v.happen(op)
			}
			if v.dead {
				h.crash()
				h.chunk = chunks.Draw(t, "chunk")
				h.vault(v, drawSettings(t))
			}
			h.balance()
		}
		v.settle()
		h.balance()
		h.late()
		v.check(expired)
	})
}

// expire takes away a shard's events up to some place.
func (h *hand) expire(shard int) {
	log := h.g.logs[shard]
	ref := log.Tenant(h.key.Tenant)
	to, err := log.Locate(ref, h.seqs[shard][h.below(len(h.seqs[shard]), "up to")])
	if err != nil {
		h.Fatal(err)
	}
	if err := log.Expire(ref, to); err != nil {
		h.Fatal(err)
	}
}

// settle lets everything go well until all is delivered.
func (v *vault) settle() {
	h := v.h
	v.calm = true
	h.broken["read"] = 0
	if h.runner.Views(&h.key)[0].Status.State == Paused {
		h.runner.Do(h.key, OrderResume)
	}
	for range 2000 {
		for h.arrive(0) || h.arrive(1) {
		}
		if h.turn() {
			continue
		}
		done := true
		for _, l := range h.runner.by[h.key] {
			done = done && l.fact.Pos.Events >= l.end.Events && l.drop == nil
		}
		if done || !h.wait(1<<40) {
			return
		}
	}
	h.Fatal("it comes to no end")
}

// check holds what was stored to: each event in one drop, in order; numbers
// without a gap; ranges without a gap; accounts that are those of the manifests.
func (v *vault) check(expired bool) {
	for i, view := range v.h.runner.Views(&v.h.key) {
		f := view.Fact
		made := uint64(v.h.made[i])
		if f.Settled() != made || !expired && (f.Delivered != made-made/3 || f.Filtered != made/3) {
			v.h.Fatalf("%s: of %d events, %+v", view.Shard, made, f)
		}
		var ids []int
		var at, sum uint64
		for n := uint64(1); n <= f.Number; n++ {
			m := v.manifest(view.Shard, n)
			if m.From.Events < at || m.To.Events < m.From.Events {
				v.h.Fatalf("drop %d of %s covers %d to %d, that before it ends at %d", n, view.Shard, m.From.Events, m.To.Events, at)
			}
			if got := m.Events + m.Filtered + m.SampledOut + m.Refused + m.Expired + m.Damaged; got != m.To.Events-m.From.Events {
				v.h.Fatalf("drop %d of %s accounts for %d of its %d events: %+v", n, view.Shard, got, m.To.Events-m.From.Events, m)
			}
			at, sum = m.To.Events, sum+m.Events
			ids = append(ids, v.ids(m)...)
		}
		if sum != f.Delivered || len(ids) != int(sum) {
			v.h.Fatalf("%s: delivered %d, in the manifests %d, in the objects %d", view.Shard, f.Delivered, sum, len(ids))
		}
		if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
			v.h.Fatalf("%s: %v", view.Shard, ids)
		}
	}
	for key := range v.objs {
		if !strings.Contains(key, "."+string(v.h.key.Tenant)+".") && !strings.Contains(key, "tenant="+string(v.h.key.Tenant)+"/") {
			v.h.Fatalf("%s is not the tenant's", key)
		}
	}
}

// manifest finds the one manifest of a number.
func (v *vault) manifest(shard string, number uint64) (m Manifest) {
	found := 0
	for key, body := range v.objs {
		if strings.HasSuffix(key, fmt.Sprintf(".%s.%012d.manifest.json", shard, number)) {
			found++
			if err := json.Unmarshal(body, &m); err != nil {
				v.h.Fatal(err)
			}
		}
	}
	if found != 1 {
		v.h.Fatalf("%d manifests of number %d of %s", found, number, shard)
	}
	return m
}

// ids are the numbers of the events in an object.
func (v *vault) ids(m Manifest) []int {
	if m.Key == "" {
		return nil
	}
	body, ok := v.objs[m.Key]
	if !ok || int64(len(body)) != m.Bytes {
		v.h.Fatalf("%s has %d bytes, its manifest says %d", m.Key, len(body), m.Bytes)
	}
	lines := v.plain(m.Key, body)
	var ids []int
	for line := range strings.Lines(lines) {
		var shard, n int
		if _, err := fmt.Sscanf(line[strings.Index(line, `"event_id":"`):], `"event_id":"%d-%d"`, &shard, &n); err != nil {
			v.h.Fatalf("%v: %q", err, line)
		}
		ids = append(ids, n)
	}
	return ids
}

func (v *vault) plain(key string, body []byte) string {
	how := formats.None
	switch {
	case strings.HasSuffix(key, ".gz"):
		how = formats.Gzip
	case strings.HasSuffix(key, ".zst"):
		how = formats.Zstd
	default:
		return string(body)
	}
	r, err := compress.NewReader(bytes.NewReader(body), string(how), 1<<20)
	if err != nil {
		v.h.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		v.h.Fatal(err)
	}
	return string(got)
}
