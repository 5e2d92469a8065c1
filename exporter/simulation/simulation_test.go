// Package simulation_test runs the whole service against machines, a network,
// disks and clocks that one seed draws, and holds it to its promise.
package simulation_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"datasync/emitter/emittertest"
)

// seeds says which seeds are run: SIM_SEED is one of them, SIM_SEEDS how many
// from SIM_FROM on.
func seeds(t *testing.T) (from, count uint64) {
	number := func(name string, otherwise uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	if one := number("SIM_SEED", 0); one != 0 {
		return one, 1
	}
	return number("SIM_FROM", 1), number("SIM_SEEDS", defaultSeeds)
}

// enough is after how many seeds that fail, and how many problems of one, there
// is no more to be learned.
const enough = 3

// hangs is how long, on a real clock, one seed may take: where a goroutine
// waits for what no bubble sees, virtual time stands still.
const hangs = 5 * time.Minute

func TestSimulation(t *testing.T) {
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIASIMULATION", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere"} {
		t.Setenv(k, v)
	}
	// One processor: the order in which goroutines run is not the seed's, but
	// so it is nearly always the same.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	from, count := seeds(t)
	certs := certificatesOf(t)
	var all tally
	failed := 0
	for seed := from; seed < from+count && failed < enough; seed++ {
		r := simulate(t, seed, certs)
		all.add(r)
		if n := seed - from + 1; n%100 == 0 {
			t.Logf("%d seeds so far", n)
		}
		if len(r.problems) == 0 {
			if count == 1 {
				t.Logf("seed %d: %s, trace %x", seed, &r.tally, r.trace)
				if testing.Verbose() {
					t.Log(r.log)
				}
			}
			continue
		}
		failed++
		for _, p := range r.problems[:min(len(r.problems), enough)] {
			t.Errorf("seed %d: %s", seed, p)
		}
		t.Errorf("run it again: "+again, seed)
		if count == 1 || interleaved { // such a seed may not fail again
			t.Log(r.log)
		}
	}
	t.Logf("%d seeds from %d on: %s", all.seeds, from, &all)
}

// certificatesOf makes the certificates on the clock that all bubbles start with.
func certificatesOf(t *testing.T) (certs emittertest.CertSet) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if certs, err = emittertest.WriteCerts(dir); err != nil {
			t.Fatal(err)
		}
	})
	return certs
}

// result is what became of one seed.
type result struct {
	tally
	problems []string
	trace    []byte
	log      string
}

// tally counts what the runs went through.
type tally struct {
	seeds, lives, posts, sure, maybe, delivered, repeats int
	virtual                                              time.Duration
}

func (a *tally) add(r result) {
	a.seeds++
	a.lives += r.lives
	a.posts += r.posts
	a.sure += r.sure
	a.maybe += r.maybe
	a.delivered += r.delivered
	a.repeats += r.repeats
	a.virtual += r.virtual
}

func (a *tally) String() string {
	return fmt.Sprintf("%d lives, %d posts, %d events answered with 200 and %d in doubt, %d delivered and %d repeated, %v of virtual time",
		a.lives, a.posts, a.sure, a.maybe, a.delivered, a.repeats, a.virtual.Round(time.Second))
}

func simulate(t *testing.T, seed uint64, certs emittertest.CertSet) (r result) {
	watchdog := time.AfterFunc(hangs, func() {
		buf := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "seed %d hangs\n%s\n", seed, buf[:runtime.Stack(buf, true)])
		os.Exit(1)
	})
	defer watchdog.Stop()
	dir, err := os.MkdirTemp(t.TempDir(), "sim")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	// What pools hold of an earlier bubble may not be used in this one: decoders
	// of zstd have channels. Two collections empty every sync.Pool.
	runtime.GC()
	runtime.GC()
	cryptotest.SetGlobalRandom(t, seed)
	defer overtake(seed)()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, dir, certs)
		r = w.run()
	})
	return r
}

// run lives one seed through.
func (w *world) run() (r result) {
	stopS3, err := w.serve(s3Address, w.s3)
	if err != nil {
		w.t.Fatal(err)
	}
	stopStreams, err := w.serve(streamAddress, w.streams)
	if err != nil {
		w.t.Fatal(err)
	}
	w.up()
	for range 15 + w.plan.rng.IntN(45) {
		w.next()
	}
	w.heal()
	w.posting.Wait()
	w.deliverAll()
	w.check(&r)
	if err := w.stop(); err != nil {
		w.wrong("the last stop ended with %v", err)
	}
	for _, rc := range w.receivers {
		rc.stop()
		rc.ended.Wait()
	}
	w.client.CloseIdleConnections()
	w.customer.Kill()
	stopS3()
	stopStreams()
	pause(context.Background(), 2*time.Minute) // what is on its way arrives, and every goroutine ends
	r.problems, r.trace, r.log = w.problems, w.effects.Sum(nil)[:6], w.log.String()
	r.lives, r.posts, r.virtual = w.lives, len(w.posts), w.since()
	return r
}

// heal ends all trouble.
func (w *world) heal() {
	w.trace("heal")
	w.mend()
	for _, r := range w.receivers {
		r.raise()
	}
	w.s3.mu.Lock()
	w.s3.failing = 0
	w.s3.mu.Unlock()
	for _, s := range w.streams {
		s.Lock()
		s.Losing, s.Failing, s.RecordRate, s.Whole = 0, 0, 0, nil
		s.Unlock()
	}
	w.net.Block(s3Address, false)
	w.net.Block(streamAddress, false)
	w.restart()
	w.putBack(0)
	for _, s := range w.plan.sinks {
		if s.there {
			if said := w.admin(fmt.Sprintf("/v1/lanes/%s/%s/resume", s.tenant, s.name)); said != "" {
				w.wrong("resume %s: %s", s.key(), said)
			}
		}
	}
}

// patience is how long everything may take to be delivered once all is well.
const patience = 3 * time.Hour

// deliverAll waits until nothing is queued.
func (w *world) deliverAll() {
	began := time.Now()
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		l, err := w.life.svc.Views().Ledger("")
		if err != nil {
			w.wrong("the ledger: %v", err)
			return
		}
		queued := int64(0)
		for _, s := range l.Sinks {
			queued += s.Queued
		}
		if queued == 0 {
			if !l.Balanced {
				w.wrong("the ledger does not balance: %+v", l)
			}
			for _, s := range l.Sinks {
				w.trace("ledger %s/%s %+v", s.Tenant, s.Sink, s.Totals)
			}
			w.trace("all is delivered")
			return
		}
		if time.Since(began) > patience {
			for _, s := range w.life.svc.Views().Lanes(false) {
				if s.Behind.Events > 0 {
					w.wrong("not delivered after %v: %s/%s has %d events waiting, state %s %s: %s", patience, s.Tenant, s.Sink, s.Behind.Events, s.State, s.Reason, s.Message)
				}
			}
			return
		}
		pause(context.Background(), wait)
	}
}

// stopped says whether a shard of the journal has stopped for good.
func (w *world) stopped() bool {
	resp, err := w.client.Get("http://" + adminAddress + "/readyz")
	if err != nil {
		return true
	}
	_ = resp.Body.Close()
	return resp.StatusCode != 200
}
