package kills

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/readers"
	"datasync/integration/servers"
)

// oneSinks are those of a tenant that lives for one drop a sink.
const oneSinks = `  - name: drops
    {s3}
    compression: zstd
    deliver: {max_events: 5, max_age: 1h, manifest: true}
  - name: lake
    dir: {path: "{drops}"}
    format: parquet
    deliver: {max_events: 5, max_age: 1h, manifest: true}
  - name: siem
    emitter: {address: "{receiver}", tls: {ca: "{ca}"}, rotate_every: 1s, retry_max: 1s}
`

// bed is what all lives of a test share; each has a service, a journal and a
// tenant of its own.
type bed struct {
	t      *testing.T
	store  *servers.Store
	bucket string
	drops  string // folder
	siem   *servers.Receive
	ledger *ledger
	lives  int
	died   map[string]int // where
}

func newBed(t *testing.T) *bed {
	t.Helper()
	servers.Credentials(t)
	b := &bed{t: t, store: servers.NewStore(t), drops: t.TempDir(), siem: servers.NewReceive(t), ledger: newLedger(t, "", 0, 0), died: map[string]int{}}
	b.bucket = b.store.Bucket("lake")
	return b
}

// life is a service of one tenant.
type life struct {
	*rig
	b      *bed
	tenant string
}

func (b *bed) life() *life {
	b.t.Helper()
	b.lives++
	l := &life{rig: &rig{t: b.t, Service: harness.NewService(b.t, "")}, b: b, tenant: fmt.Sprintf("t%04d", b.lives)}
	s3 := fmt.Sprintf("s3: {bucket: lake, region: us-east-1, endpoint: %q, path_style: true}", b.store.URL())
	l.Write("tenants/"+l.tenant+".yaml", fmt.Sprintf("tenant: %[1]s\napi_keys: [key-of-%[1]s]\nsinks:\n%[2]s", l.tenant,
		strings.NewReplacer("{s3}", s3, "{drops}", b.drops).Replace(b.siem.In(oneSinks))))
	return l
}

// body is five events, the same each time for n.
func (l *life) body(n int) []byte {
	var b strings.Builder
	for i := range 5 {
		fmt.Fprintf(&b, `{"schema":"mitigation/1","event_id":"%s-%d-%d","tenant_id":"%[1]s","source":"test","kind":"mitigation","event_time":1795309107000,"time_precision":"ms","action":"block","disposition":"blocked","enforced":true,"severity":3}`+"\n", l.tenant, n, i)
	}
	return []byte(b.String())
}

// post sends batch n until it is acknowledged; false: the program died first.
func (l *life) post(n int, running func() bool) bool {
	l.t.Helper()
	body := l.body(n)
	for try := 0; running(); try++ {
		accepted, err := send(l.Feed, l.tenant, fmt.Sprint("batch-", n), body)
		if err == nil {
			err = l.b.ledger.enter(body, accepted, try)
			if err != nil {
				l.t.Error(err)
			}
			return err == nil
		}
		if _, wrong := err.(wrongAnswer); wrong {
			l.t.Error(err)
			return false
		}
		harness.Pause(2 * time.Millisecond)
	}
	return false
}

// stored says whether both sinks have n drops of the tenant, with manifests.
func (l *life) stored(n int) bool {
	l.t.Helper()
	for _, dir := range []string{l.b.bucket, l.b.drops} {
		found, err := filepath.Glob(filepath.Join(dir, "tenant="+l.tenant, "*", "*", "*", "*.manifest.json"))
		if err != nil {
			l.t.Fatal(err)
		}
		if len(found) < n {
			return false
		}
	}
	return true
}

// whole is a life from the first start through one commit and a drop to each
// sink to an orderly stop, unless the program dies before.
func (l *life) whole(p *harness.Process) {
	l.t.Helper()
	began := time.Now()
	if !l.post(1, p.Running) {
		return
	}
	for p.Running() && !l.stored(1) {
		if time.Since(began) > time.Minute {
			l.t.Fatalf("no drops within a minute:\n%s", p.Output())
		}
		harness.Pause(5 * time.Millisecond)
	}
	if p.Running() {
		p.Signal(syscall.SIGTERM)
	}
	p.Wait(time.Minute)
}

// again is the life after: the batch that was perhaps not acknowledged is sent
// again, and one more, and all of it must arrive.
func (l *life) again() {
	l.t.Helper()
	l.up()
	for n := 1; n <= 2; n++ {
		l.post(n, l.Running)
	}
	for began := time.Now(); !l.stored(2); harness.Pause(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			led, _ := l.Ledger()
			l.t.Fatalf("%s: the events of both batches are acknowledged and not stored: %+v", l.tenant, led)
		}
	}
	if led, ok := l.Ledger(); !ok || !led.Balanced {
		l.t.Errorf("%s: the ledger does not balance: %+v", l.tenant, led)
	}
	l.End(false)
	if left, err := os.ReadDir(filepath.Join(l.b.drops, ".datasync-tmp")); err == nil && len(left) > 0 {
		l.t.Errorf("%s: left behind: %v", l.tenant, left)
	}
	if err := os.RemoveAll(filepath.Join(l.Dir, "data")); err != nil { // the reserve is large
		l.t.Fatal(err)
	}
	l.Forget()
}

// settle holds all drops and lines of all lives to what was acknowledged. It
// gives how many lines came again.
func (b *bed) settle() (repeats int) {
	b.t.Helper()
	b.siem.Stop(30 * time.Second)
	harness.Drops(b.t, b.drops, "lake") // their numbers
	for where, ids := range map[string]harness.IDs{"NDJSON in S3": harness.Drops(b.t, b.bucket, "drops"), "Parquet in the folder": readers.IDs(b.t, b.drops, "lake")} {
		if repeats := b.ledger.settle(where, ids); repeats > 0 {
			b.t.Errorf("%s: %d events came again", where, repeats)
		}
	}
	return b.ledger.settle("the emitters' receiver", b.siem.IDs())
}

// table is where the lives died, and how often.
func (b *bed) table() string {
	var out strings.Builder
	for _, where := range slices.Sorted(maps.Keys(b.died)) {
		fmt.Fprintf(&out, "\n%5d  %s", b.died[where], where)
	}
	return out.String()
}

// aim is the n-th call of a kind in one thread.
type aim struct {
	call string
	n    int
}

// die is a life that dies at a call; false: it came to its end before.
func (b *bed) die(a aim) bool {
	b.t.Helper()
	l := b.life()
	x := trace(b.t, fmt.Sprintf("%s:signal=KILL:when=%d", a.call, a.n), "run", "--config", filepath.Join(l.Dir, "datasync.yaml"))
	l.whole(x.Process)
	code := x.Wait(time.Minute)
	if code > 0 {
		b.t.Errorf("%v: the program ended with %d", a, code)
	}
	if code < 0 {
		b.died[last(x.calls(), a)]++
	}
	x.Forget()
	l.again()
	return code < 0
}

// last describes the call at which a program died.
func last(all []call, a aim) string {
	counts := map[int]int{}
	for _, c := range all {
		if c.name != a.call {
			continue
		}
		if counts[c.thread]++; counts[c.thread] == a.n {
			return c.name + " " + place(c)
		}
	}
	return a.call + " of a call that strace did not log"
}

var (
	quoted = regexp.MustCompile(`"[^"]*"`)
	inPath = regexp.MustCompile(`<([^>]*)>`)
)

// place names what a call is about.
func place(c call) string {
	path := ""
	if m := inPath.FindStringSubmatch(c.text); m != nil {
		path = m[1]
	}
	if m := quoted.FindString(c.text); m != "" && strings.HasSuffix(c.name, "at") {
		path = strings.Trim(m, `"`)
	}
	for _, p := range []struct{ in, name string }{
		{"/journal/control", "journal, control"}, {"/journal/quarantine", "journal, quarantine"}, {"/journal/edge-0", "journal, events and facts"},
		{"/journal/files-0", "journal, file feed"}, {"/journal", "journal, folder"}, {"/spool", "spool"}, {".datasync-tmp", "drop, temporary"},
		{"tenant=", "drop, in place"}, {"socket:", "socket"}, {"eventfd", "wake-up of a thread"}, {"/tenants", "settings"}, {"/data", "data folder"},
	} {
		if strings.Contains(path, p.in) {
			return p.name
		}
	}
	return "start of the program"
}

// aims are the calls of one whole life in which nothing dies: each kind, up to
// the most that one thread makes of it.
func (b *bed) aims() []aim {
	b.t.Helper()
	l := b.life()
	x := trace(b.t, "", "run", "--config", filepath.Join(l.Dir, "datasync.yaml"))
	l.whole(x.Process)
	if code := x.Wait(time.Minute); code != 0 {
		b.t.Fatalf("a life without a kill ended with %d:\n%s", code, x.Output())
	}
	l.again()
	most, by := map[string]int{}, map[string]int{}
	for _, c := range x.calls() {
		by[fmt.Sprint(c.thread, c.name)]++
		most[c.name] = max(most[c.name], by[fmt.Sprint(c.thread, c.name)])
	}
	var out []aim
	for _, name := range watched {
		for n := 1; n <= most[name]; n++ {
			out = append(out, aim{name, n})
		}
	}
	return out
}

// callKills kills lives at up to n calls drawn from all; 0 is all of them.
func callKills(t *testing.T, n int) {
	b := newBed(t)
	seed := uint64(time.Now().UnixNano())
	all := b.aims()
	rng := rand.New(rand.NewPCG(seed, 0))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	chosen := all
	if n > 0 {
		chosen = all[:min(n, len(all))]
	}
	kills := 0
	for _, a := range chosen {
		if b.die(a) {
			kills++
		}
	}
	repeats := b.settle()
	t.Logf("seed %d: killed at %d of %d system calls of a life with one commit, a drop to each of two sinks and lines to a third; %d events acknowledged, lost 0, repeats in drops 0, at the receiver %d; killed at%s",
		seed, kills, len(all), len(b.ledger.acked), repeats, b.table())
	if kills < len(chosen)/2 {
		t.Errorf("only %d of %d lives died", kills, len(chosen))
	}
}

// TestFaultCalls: a few in CI, others each time.
func TestFaultCalls(t *testing.T) { callKills(t, 30) }
