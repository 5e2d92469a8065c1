// Package trial makes what a trial of the service needs: seeded events, a demo with its checks, and a receiver.
package trial

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"
)

// GeneratorOptions say what a Generator makes. The zero value makes good
// events of ten tenants, none of kind request.
type GeneratorOptions struct {
	Tenants  int       // how many, t0001 onwards; 0: 10
	Seed     uint64    // the same seed, options and Start give the same events
	Requests float64   // share of events of kind request, 0 to 1
	Start    time.Time // event_time of the first event; zero: now
	ZipfS    float64   // skew of the tenants: weight 1/rank^ZipfS; 0: 1.1, negative: all alike
	Bad      float64   // share of bad records, 0 to 1: see BadKinds
}

// BadKinds are the kinds of bad records, as Next names them. "raw newline" has
// a newline within the line; "no tenant" is bad only where nothing else names
// the tenant.
var BadKinds = []string{"broken JSON", "raw newline", "wrong type", "no tenant", "300 KiB", "invalid UTF-8", "100 years ahead", "repeated key"}

// Generator makes seeded events in the canonical schema that look like those
// of real sources: several products, every kind, only documentation addresses
// and names. They lack ingest_time, which is intake's to set. It is not safe
// for concurrent use.
type Generator struct {
	o       GeneratorOptions
	rng     *rand.PCG
	tenants []string
	skew    alias
	mixes   []template
	mix     alias
	request template
	ips     []string
	prefix  string // of the ids
	bits    uint64 // this event's randomness, used up by its slots
	n       uint64 // this event's number, from 1
	tenant  string // this event's
	ms      int64  // this event's time
}

// NewGenerator makes a generator.
func NewGenerator(o GeneratorOptions) *Generator {
	if o.Tenants <= 0 {
		o.Tenants = 10
	}
	if o.ZipfS == 0 {
		o.ZipfS = 1.1
	}
	if o.Start.IsZero() {
		o.Start = time.Now()
	}
	g := &Generator{o: o, rng: rand.NewPCG(o.Seed, 0x6D69746967617465), prefix: fmt.Sprintf("gen-%d-", o.Seed), ms: o.Start.UnixMilli()}
	weights := make([]float64, o.Tenants)
	for i := range weights {
		g.tenants = append(g.tenants, fmt.Sprintf("t%04d", i+1))
		weights[i] = 1 / math.Pow(float64(i+1), max(o.ZipfS, 0))
	}
	g.skew = newAlias(weights)
	weights = nil
	for _, m := range mixes {
		g.mixes = append(g.mixes, parseTemplate(m.text))
		weights = append(weights, m.weight)
	}
	g.mix = newAlias(weights)
	g.request = parseTemplate(requestTemplate)
	for i := range 1024 {
		g.ips = append(g.ips, documentationIP(i))
	}
	return g
}

// At moves the clock: the events to come happen from t on.
func (g *Generator) At(t time.Time) { g.ms = t.UnixMilli() }

// Next appends one event to dst, without a newline, and names its tenant. Its
// event_id is gen-<seed>-<n>, n counting from 1 (bad records count too). bad is
// empty, or one of BadKinds.
func (g *Generator) Next(dst []byte) (line []byte, tenant string, bad string) {
	g.n++
	g.bits = g.rng.Uint64()
	if g.bits&3 == 0 {
		g.ms++
	}
	g.tenant = g.tenants[g.skew.pick(g.rng.Uint64())]
	t := &g.request
	if g.o.Requests <= 0 || g.share() >= g.o.Requests {
		t = &g.mixes[g.mix.pick(g.rng.Uint64())]
	}
	if g.o.Bad > 0 && g.share() < g.o.Bad {
		bad = BadKinds[g.rng.Uint64()%uint64(len(BadKinds))]
		return spoil(dst, g.fill(nil, t), bad), g.tenant, bad
	}
	return g.fill(dst, t), g.tenant, ""
}

// share is a random number in [0, 1).
func (g *Generator) share() float64 { return float64(g.rng.Uint64()>>11) / (1 << 53) }

// below uses up some of the event's randomness for a number below n.
func (g *Generator) below(n int) int {
	g.bits = g.bits*0x5851F42D4C957F2D + 0x14057B7EF767814F
	return int((g.bits >> 32) * uint64(n) >> 32)
}

func (g *Generator) fill(dst []byte, t *template) []byte {
	for i := range t.slots {
		dst = append(dst, t.texts[i]...)
		dst = t.slots[i](g, dst)
	}
	return append(dst, t.texts[len(t.slots)]...)
}

// documentationIP is the i-th address: most of the three IPv4 networks kept
// for documentation, some of 2001:db8::/32.
func documentationIP(i int) string {
	if i%8 == 7 {
		return fmt.Sprintf("2001:db8:%x::%x", i&15, i)
	}
	return [...]string{"192.0.2.", "198.51.100.", "203.0.113."}[i%3] + strconv.Itoa(1+i*7%254)
}

// alias draws from a discrete distribution in constant time (Vose).
type alias struct {
	keep  []uint32 // of 1<<32: the share in which a column stands for itself
	other []uint32 // whom it stands for otherwise
}

func newAlias(weights []float64) alias {
	n := len(weights)
	a := alias{make([]uint32, n), make([]uint32, n)}
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	var small, large []int
	p := make([]float64, n)
	for i, w := range weights {
		p[i] = w / sum * float64(n)
		if p[i] < 1 {
			small = append(small, i)
		} else {
			large = append(large, i)
		}
	}
	for len(small) > 0 && len(large) > 0 {
		s, l := small[len(small)-1], large[len(large)-1]
		small = small[:len(small)-1]
		a.keep[s], a.other[s] = uint32(p[s]*math.MaxUint32), uint32(l)
		if p[l] -= 1 - p[s]; p[l] < 1 {
			large = large[:len(large)-1]
			small = append(small, l)
		}
	}
	for _, i := range append(small, large...) {
		a.keep[i], a.other[i] = math.MaxUint32, uint32(i)
	}
	return a
}

func (a *alias) pick(r uint64) int {
	i := (r >> 32) * uint64(len(a.keep)) >> 32
	if uint32(r) <= a.keep[i] {
		return int(i)
	}
	return int(a.other[i])
}
