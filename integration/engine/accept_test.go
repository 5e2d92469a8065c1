package engine

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/readers"
	"datasync/integration/servers"
)

const tenantCount = 200

// sinks are those of every tenant: two of drops and an emitter.
const sinks = `  - name: drops
    dir: {path: "{dir}/drops"}
    deliver: {max_age: 4s, max_bytes: 4MiB}
  - name: lake
    dir: {path: "{dir}/drops"}
    format: parquet
    deliver: {max_age: 6s, max_bytes: 8MiB}
  - name: siem
    emitter: {address: "{receiver}", tls: {ca: "{ca}"}, rotate_every: 3s, retry_max: 2s}
`

func TestAcceptEverythingArrives(t *testing.T) {
	n := harness.Events(t)
	s := harness.NewService(t, "")
	rc := servers.NewReceive(t)
	s.Tenants(tenantCount, rc.In(sinks))
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(tenantCount),
		"--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	began := time.Now()
	s.Up(30 * time.Second)
	l := s.Delivered(int64(n), 10*time.Minute)
	took := time.Since(began)
	s.End(false)
	rc.Stop(30 * time.Second)
	check(t, s, rc, l, 1, n)
	t.Logf("%d events for %d tenants to three sinks each in %.1f s: %.0f events/s, %.1f CPU s per million events, peak memory %d MB",
		n, tenantCount, took.Seconds(), float64(n)/took.Seconds(), s.Used.Seconds()*1e6/float64(n), s.Peak>>20)
	if s.Peak > 400<<20 {
		t.Errorf("peak memory %d MB, the bound is 400", s.Peak>>20)
	}
}

// check holds what arrived to what was generated.
func check(t *testing.T, s *harness.Service, rc *servers.Receive, l harness.Ledger, seed, n int) {
	t.Helper()
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	drops := filepath.Join(s.Dir, "drops")
	harness.Drops(t, drops, "drops") // their numbers
	harness.Drops(t, drops, "lake")
	truth := readers.NewTruth(t, readers.Options{}).AddFile(filepath.Join(s.Dir, "in", "a.ndjson"))
	readers.Check(t, truth, drops, "drops").Want(t, "NDJSON drops", seed, n, true)
	readers.Check(t, truth, drops, "lake").Want(t, "Parquet drops", seed, n, true)
	repeats := rc.IDs().Want(t, "receiver", seed, n, false)
	t.Logf("%d events: none missing, none twice in drops; %d lines repeated at the receiver", n, repeats)
}

func TestAcceptEverythingArrivesAcrossKills(t *testing.T) {
	n := harness.Events(t)
	s := harness.NewService(t, "")
	rc := servers.NewReceive(t)
	s.Tenants(tenantCount, rc.In(sinks))
	s.Up(30 * time.Second)
	const blows = 22
	seed := uint64(time.Now().UnixNano())
	t.Logf("random instants of seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	gen := harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(max(n/45, 2000)), "--count", fmt.Sprint(n),
		"--tenants", fmt.Sprint(tenantCount), "--seed", "2", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	for i := range blows {
		harness.Pause(time.Duration(rng.Int64N(int64(2500 * time.Millisecond))))
		s.End(i != 7 && i != 15) // two SIGTERMs, twenty kill -9
		s.Up(30 * time.Second)
	}
	if code := gen.Wait(5 * time.Minute); code != 0 {
		t.Fatalf("generate exited with %d: %s", code, gen.Output())
	}
	l := s.Delivered(int64(n), 10*time.Minute)
	s.End(false)
	rc.Stop(30 * time.Second)
	check(t, s, rc, l, 2, n)
	if s.Peak > 400<<20 {
		t.Errorf("peak memory %d MB, the bound is 400", s.Peak>>20)
	}
}

func TestAcceptTenThousandIdleTenants(t *testing.T) {
	s := harness.NewService(t, "")
	s.Tenants(10_000, "  - name: drops\n    dir: {path: \"{dir}/drops\"}\n")
	for _, name := range []string{"first start", "second start"} {
		began := time.Now()
		s.Up(30 * time.Second)
		took := time.Since(began)
		harness.Pause(2 * time.Second)
		s.End(false)
		t.Logf("%s with 10,000 tenants: ready in %.2f s, %d MB resident at most", name, took.Seconds(), s.Peak>>20)
		if took > 10*time.Second || s.Peak > 300<<20 {
			t.Errorf("%s: ready in %v (bound 10 s), %d MB (bound 300)", name, took, s.Peak>>20)
		}
	}
}

// TestFaultReceiver: killed and away for a while, frozen and killed, reset;
// the other sinks go on meanwhile.
func TestFaultReceiver(t *testing.T) {
	away := 8 * time.Second
	if n := harness.Events(t); n >= 1_000_000 {
		away = time.Minute
	}
	s := harness.NewService(t, "")
	rc := servers.NewReceive(t)
	s.Tenants(5, rc.In(sinks))
	s.Up(30 * time.Second)
	const rate = 2000
	n := int(away.Seconds()+25) * rate
	gen := harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(rate), "--count", fmt.Sprint(n),
		"--tenants", "5", "--seed", "3", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	harness.Pause(3 * time.Second)
	rc.Kill()
	harness.Pause(away)
	dropsGoOn(t, s, rate)
	shownAway(t, s)
	rc.Up()
	harness.Pause(4 * time.Second)
	rc.Signal(syscall.SIGSTOP) // frozen, with lines on the way
	harness.Pause(4 * time.Second)
	dropsGoOn(t, s, rate)
	rc.Kill()
	rc.Up()
	harness.Pause(4 * time.Second)
	rc.Kill() // in full run: resets
	rc.Up()
	if code := gen.Wait(5 * time.Minute); code != 0 {
		t.Fatalf("generate exited with %d: %s", code, gen.Output())
	}
	l := s.Delivered(int64(n), 3*time.Minute)
	s.End(false)
	rc.Stop(30 * time.Second)
	check(t, s, rc, l, 3, n)
}

// dropsGoOn fails where a drop sink is behind by more than its schedule (6 s at
// most) and twice that for the machine explain.
func dropsGoOn(t *testing.T, s *harness.Service, rate int) {
	t.Helper()
	l, ok := s.Ledger()
	if !ok {
		t.Fatal("no ledger")
	}
	queued := map[string]int64{}
	for _, k := range l.Sinks {
		queued[k.Sink] += k.Queued
		if k.Sink != "siem" && k.Delivered == 0 {
			t.Errorf("%s/%s delivered nothing while the receiver is away", k.Tenant, k.Sink)
		}
	}
	for _, sink := range []string{"drops", "lake"} {
		if queued[sink] > int64(18*rate) {
			t.Errorf("the %s sinks are behind by %d events while the receiver is away", sink, queued[sink])
		}
	}
}

// shownAway fails unless every emitter is shown in trouble and every other sink well.
func shownAway(t *testing.T, s *harness.Service) {
	t.Helper()
	var lanes struct {
		Lanes []struct{ Sink, State, Reason string }
	}
	if !harness.Get(t.Context(), "http://"+s.Admin+"/v1/lanes?shards=false", &lanes) || len(lanes.Lanes) == 0 {
		t.Fatal("no lanes")
	}
	for _, k := range lanes.Lanes {
		if k.Sink == "siem" && (k.State == "running" || k.Reason == "") || k.Sink != "siem" && k.State != "running" {
			t.Errorf("with the receiver away %s is %s %s", k.Sink, k.State, k.Reason)
		}
	}
}
