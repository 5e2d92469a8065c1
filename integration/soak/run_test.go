package soak

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// run is a soak: load for as long as the plan says, a fault after the other,
// and in the end everything is where it should be.
func run(t *testing.T, o plan) {
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	t.Logf("faults of seed %d (DATASYNC_SOAK_SEED)", o.seed)
	r := newRig(t, o)
	r.start()
	r.gather.start()
	r.watch.start()
	rate, what := o.rate, "as asked for"
	if rate == 0 {
		most := r.measure()
		rate, what = most*o.share, fmt.Sprintf("%.0f%% of a measured %.0f", o.share*100, most)
	} else {
		r.load.start()
	}
	r.say("%.0f events/s, %s, for %d tenants; a fault every %v for %v", rate, what, o.tenants, o.every, o.lasts)
	r.load.set(rate)
	l := &log{counts: map[string]int{}, began: time.Now(), made: r.tally.figures().made}
	r.faults(l)
	l.ended, l.loaded = time.Now(), r.tally.figures().made
	r.settle(l)
	r.judge(l)
	r.report(l)
}

// log is what happened.
type log struct {
	counts       map[string]int
	n            int
	breaks       []broken
	began, ended time.Time
	made, loaded int // events when faults began, when they ended
}

// broken is a time in which connections to receivers may have ended without a drain.
type broken struct {
	from, to time.Time
	where    int
}

// measure has all feeds give what is taken for 20 s, with as many events on the
// way as the plan lets, and waits for nearly all of them. It gives how many a
// second were taken and arrived everywhere; drops and rotations that waited for
// their time are in it, so it is rather too little.
func (r *rig) measure() float64 {
	began := time.Now()
	r.load.set(math.Inf(1))
	r.load.start()
	harness.Pause(20 * time.Second)
	r.load.set(0)
	harness.Until(r.t, 5*time.Minute, "end of what was made for the measurement", func() bool {
		f := r.tally.figures()
		return f.owed < int64(f.made)*int64(kinds)/20
	})
	took, f := time.Since(began), r.tally.figures()
	arrived := float64(f.made) - float64(f.owed)/float64(kinds)
	r.say("at most: %.0f events were taken and arrived within %.1f s", arrived, took.Seconds())
	return arrived / took.Seconds()
}

// faults lets one happen every so often until the time is up or the test has failed.
func (r *rig) faults(l *log) {
	ends, others := decks(r)
	told := time.Now()
	for i := 0; time.Since(l.began) < r.lasts && !r.t.Failed(); i++ {
		next := time.Now().Add(r.every)
		f := others.draw
		if restless := int(time.Since(l.began)/r.stretch)%2 == 0; i == 0 || restless && r.rng.IntN(2) == 0 {
			f = ends.draw
		}
		if i == 0 {
			r.strike(l, faults[0])
		} else {
			r.strike(l, f())
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			r.progress()
		}
		r.wrong()
		harness.Pause(time.Until(next))
	}
}

// strike is one fault, for a fifth to three fifths of the time to the next.
func (r *rig) strike(l *log, f fault) {
	r.t.Helper()
	l.counts[f.name]++
	l.n++
	r.say("%s", f.name)
	from := time.Now()
	end := f.begin(r)
	harness.Pause(r.every/5 + time.Duration(r.rng.Int64N(int64(r.every)*2/5)))
	end()
	if f.breaks != 0 {
		l.breaks = append(l.breaks, broken{from, time.Now(), f.breaks})
	}
	r.say("%s: over", f.name)
}

// progress says how far the run is.
func (r *rig) progress() {
	f := r.tally.figures()
	var last string
	r.watch.mu.Lock()
	if n := len(r.watch.all); n > 0 {
		for i, name := range sampled {
			last += fmt.Sprintf(", %s %.0f", name, r.watch.all[n-1].used[i])
		}
	}
	r.watch.mu.Unlock()
	r.say("so far: %d events, %d arrivals to come, repeated %v%s", f.made, f.owed, f.again, last)
}

// wrong fails the test for what the tally found.
func (r *rig) wrong() {
	r.t.Helper()
	r.tally.mu.Lock()
	defer r.tally.mu.Unlock()
	for _, w := range r.tally.wrong {
		r.t.Error(w)
	}
	if r.tally.more > 0 {
		r.t.Errorf("and %d more", r.tally.more)
	}
	r.tally.wrong, r.tally.more = nil, 0
}

// settle ends the load, lets everything arrive, and stops everything.
func (r *rig) settle(l *log) {
	r.t.Helper()
	r.load.set(0)
	r.load.stop()
	added := r.gather.extras()
	for i := range added {
		r.tenant(i, settings{extra: true})
	}
	r.say("the load ends; %d arrivals to come", r.tally.figures().owed)
	began, told, patience := time.Now(), time.Now(), patience
	if r.t.Failed() { // a look is enough
		patience = 20 * time.Second
	}
	for {
		owed, _ := r.tally.outstanding()
		led, ok := r.Ledger()
		queued, extra := int64(0), 0
		for _, s := range led.Sinks {
			queued += s.Queued
			if s.Sink == "extra" {
				extra++
			}
		}
		if owed == 0 && ok && queued == 0 && extra == len(added) {
			break
		}
		if time.Since(began) > patience {
			r.t.Errorf("after %v %d arrivals are still to come, the service has %d queued", patience, owed, queued)
			break
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			r.progress()
		}
		harness.Pause(200 * time.Millisecond)
	}
	r.watch.stop()
	if r.rest && !r.t.Failed() {
		r.atRest()
	}
	r.gather.stop()
	if err := r.gather.pass(); err != nil {
		r.t.Errorf("reading what arrived: %v", err)
	}
	r.ledger(r.gather.extras())
	r.down(false)
	r.receiver.Stop(time.Minute)
	r.rsyslog.Stop(time.Minute)
	if err := r.gather.pass(); err != nil {
		r.t.Errorf("reading what arrived last: %v", err)
	}
}

// atRest holds the service that has nothing to do any more to a new life of it,
// which has the same journal and never had a fault. Connections to stores are
// kept for a minute and a half.
func (r *rig) atRest() {
	r.t.Helper()
	look := func(limit time.Duration, better func(a, b float64) float64) (s sample) {
		first := len(r.watch.all)
		for began := time.Now(); time.Since(began) < limit || len(r.watch.all) == first; harness.Pause(time.Second) {
			if err := r.watch.sample(); err != nil {
				r.t.Fatalf("watching the service at rest: %v", err)
			}
		}
		s = r.watch.all[first]
		for _, one := range r.watch.all[first:] {
			s.age = one.age
			for i, v := range one.used {
				s.used[i] = better(s.used[i], v)
			}
		}
		r.watch.all = r.watch.all[:first] // they are of no load
		return s
	}
	old := look(2*time.Minute, math.Min)
	r.down(false)
	r.start()
	fresh := look(time.Minute, math.Max)
	r.say("at rest at the age of %.0f s: %.0f descriptors and %.0f goroutines; a new life has %.0f and %.0f",
		old.age.Seconds(), old.used[descriptors], old.used[goroutines], fresh.used[descriptors], fresh.used[goroutines])
	for _, i := range []int{descriptors, goroutines} {
		if old.used[i] > fresh.used[i]+atRest {
			r.t.Errorf("at rest there are %.0f %s, in a new life %.0f", old.used[i], sampled[i], fresh.used[i])
		}
	}
}

// patience is how long all may take to arrive when the faults have ended.
const patience = 5 * time.Minute

// ledger holds the service's own account to what was made.
func (r *rig) ledger(extra map[int]int64) {
	r.t.Helper()
	led, ok := r.Ledger()
	if !ok || !led.Balanced {
		r.t.Errorf("the ledger does not balance: %+v", led)
		return
	}
	sinks := 0
	for _, s := range led.Sinks {
		var i int
		if _, err := fmt.Sscanf(s.Tenant, "t%d", &i); err != nil {
			r.t.Fatal(err)
		}
		owed := int64(0)
		for _, from := range r.load.sources {
			owed += int64(r.tally.of(from.seed, i))
		}
		if s.Sink == "extra" {
			if got := extra[i]; s.Delivered != got || s.Refused+s.Damaged+s.Queued > 0 {
				r.t.Errorf("%d events are at %s/extra: %+v", got, s.Tenant, s)
			}
			continue
		}
		sinks++
		if s.Received != owed || s.Delivered != owed || s.Expired+s.Refused+s.Damaged+s.Filtered+s.Queued > 0 {
			r.t.Errorf("%d events of %s were made: %+v", owed, s.Tenant, s)
		}
	}
	if sinks != r.tenants*int(kinds) {
		r.t.Errorf("%d sinks are in the ledger", sinks)
	}
	for _, f := range led.Feeds {
		for _, from := range r.load.sources {
			if from.feed != f.Feed {
				continue
			}
			made, bad := int64(r.tally.of(from.seed, 0)), int64(from.bad)
			// A post of poison that was cut off is posted, and refused, again.
			if f.Accepted != made || f.Unrouted > 0 || f.Quarantined < bad || f.Quarantined > bad && f.Feed != "edge" {
				r.t.Errorf("%d events and %d other records came by %s: %+v", made, bad, f.Feed, f)
			}
		}
	}
}

// judge says what is lost or is there that should not be.
func (r *rig) judge(l *log) {
	r.t.Helper()
	r.wrong()
	missing, examples := r.tally.missing()
	for k := range kinds {
		if missing[k] > 0 {
			r.t.Errorf("%s: %d events are lost, such as %s", kindNames[k], missing[k], examples[k])
		}
	}
	for i, f := range r.gather.lines {
		allowed := r.allowed(l, f, 1<<i)
		r.say("%s: %d lines, %d of them repeated, at most %d may be; %d torn by breaks", f.path, f.lines, f.again, allowed, f.torn)
		if f.again > allowed {
			r.t.Errorf("%s: %d lines were repeated, and the breaks explain %d", f.path, f.again, allowed)
		}
	}
	table, grew := leaks(r.watch.all, r.lasts)
	r.t.Log(table)
	for _, g := range grew {
		r.t.Error(g)
	}
	if most := r.watch.most()[journal]; most > float64(r.plan.journal>>20) {
		r.t.Errorf("the journal grew to %.0f MB, its cap is %d", most, r.plan.journal>>20)
	}
}

// allowed is what the breaks of connections to a receiver may have repeated:
// each, once, the lines of the two rotations before it and of those until it was
// over. On a busy machine a rotation lasts as long as its drain may take.
func (r *rig) allowed(l *log, f *follower, where int) (n int64) {
	const drain = 30 * time.Second
	for _, b := range l.breaks {
		if b.where&where != 0 {
			n += f.until(b.to.Add(2*time.Second)) - f.until(b.from.Add(-2*(r.rotate+drain)))
		}
	}
	return n
}

// report prints the table of faults and the line of figures.
func (r *rig) report(l *log) {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(l.counts)) {
		fmt.Fprintf(&b, "\n%5d  %s", l.counts[name], name)
	}
	f, most := r.tally.figures(), r.watch.most()
	missing, _ := r.tally.missing()
	loaded := l.ended.Sub(l.began)
	r.t.Logf("faults:%s", b.String())
	r.t.Logf("seed %d: %d faults in %.0f s under %.0f events/s, %d lives; %d events of %d tenants to 4 sinks each (%d objects; %d posts, %d asked again); lost %d, twice in drops %d, repeated at receivers %d, in Kinesis %d; most: RSS %d MB (peak %d), %.0f descriptors, %.0f goroutines, journal %.0f MB of %d, %.0f sinks parked; held back %d times",
		r.seed, l.n, loaded.Seconds(), float64(l.loaded-l.made)/loaded.Seconds(), r.watch.life, f.made, r.tenants, r.gather.objects, r.poster.posts.Load(), r.poster.again.Load(),
		missing[drops]+missing[lake]+missing[stream]+missing[siem], f.again[drops]+f.again[lake], f.again[siem], f.again[stream],
		int(most[rss]), r.Peak>>20, most[descriptors], most[goroutines], most[journal], r.plan.journal>>20, most[parked], r.load.held.Load())
}
