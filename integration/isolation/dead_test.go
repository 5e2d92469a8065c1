package isolation

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// ways are those in which a tenant's sinks are dead, as the trouble server plays them.
var ways = []string{"blackhole", "drip", "500s", "TLS failure"}

// deadSinks are sinks of four kinds at the trouble server; those of S3 and
// Kinesis speak plain HTTP to it, and once TLS that nobody trusts.
func deadSinks(addr string, c servers.Certs) (sinks string, names []string) {
	sinks = fmt.Sprintf(`  - name: lake
    s3: {bucket: b, region: us-east-1, endpoint: "http://%[1]s", path_style: true}
    deliver: {max_age: 1s}
  - name: lake-tls
    s3: {bucket: b, region: us-east-1, endpoint: "https://%[1]s", path_style: true}
    deliver: {max_age: 1s}
  - name: stream
    kinesis: {stream: s, region: us-east-1, endpoint: "http://%[1]s"}
  - name: tls
    emitter: {address: %[1]q, tls: {ca: %[2]q}, rotate_every: 1s, retry_max: 1s}
`, addr, c.CA)
	return sinks, []string{"lake", "lake-tls", "stream", "tls"}
}

// TestFaultOneDeadTenant: 1 of 1,000 tenants has sinks that are dead in turn
// four ways, at 2,000 events a second. Each way is held against the seconds
// before, in which that tenant's sinks are paused.
func TestFaultOneDeadTenant(t *testing.T) { deadTenant(t, 2*time.Second, 1, 1.5, 50*time.Millisecond) }

// deadTenant bounds the others' p99 at what it was without, times bound, and slack.
func deadTenant(t *testing.T, phase time.Duration, rounds int, bound float64, slack time.Duration) {
	t.Helper()
	servers.Credentials(t)
	certs := servers.NewCerts(t)
	sink, bad := listen(t, certs), newTrouble(t, certs)
	s := service(t, "", "")
	own, names := deadSinks(bad.addr, certs)
	const tenants = 1000
	for i := 1; i <= tenants; i++ {
		more := ""
		if i == 1 {
			more = own
		}
		tenant(s, name(i), "", sink.sink()+more)
	}
	s.Up(time.Minute)
	l := load(t, s, tenants, 2000)
	order(t, s, names, "pause")
	sink.until(t, tenants)
	harness.Pause(3 * time.Second) // connections are made
	memory := s.PeakMemory()
	clean, dead := map[string]*delays{}, map[string]*delays{}
	for range rounds {
		for _, way := range ways {
			sink.measure(t, phase, clean, way)
			bad.way.Store(way)
			order(t, s, names, "resume")
			sink.measure(t, phase, dead, way)
			order(t, s, names, "pause")
		}
	}
	sent := l.stop()
	grown := s.PeakMemory() - memory
	for _, way := range ways {
		a, b := clean[way].typical(), dead[way].typical()
		t.Logf("%-12s others' p99 %v, %v without: ×%.2f (%d and %d events)", way, b.Round(100*time.Microsecond), a.Round(100*time.Microsecond), float64(b)/float64(a), dead[way].n, clean[way].n)
		if float64(b) > float64(a)*bound+float64(slack) {
			t.Errorf("%s: the others' p99 is %v, and %v without", way, b, a)
		}
		if dead[way].n < int(phase.Seconds()*float64(rounds)*1000) {
			t.Errorf("%s: only %d events of others arrived", way, dead[way].n)
		}
	}
	if grown > 150<<20 {
		t.Errorf("memory grew by %d MB", grown>>20)
	}
	if hits := bad.hits.Load(); hits < 4 {
		t.Errorf("the dead sinks were tried %d times", hits)
	}
	s.End(true) // a stop would try the dead sinks for half a minute
	t.Logf("%d events to %d tenants, one of them dead four ways (%d connections); memory grew by %d MB to %d", sent, tenants, bad.hits.Load(), grown>>20, s.Peak>>20)
}

// TestFaultBacklogAndFlood: a tenant whose sink comes back to a backlog, and
// one that sends as fast as it can, cost the others a share of the processor
// and not their turn.
func TestFaultBacklogAndFlood(t *testing.T) { backlogAndFlood(t, 100_000) }

func backlogAndFlood(t *testing.T, events int) {
	t.Helper()
	certs := servers.NewCerts(t)
	sink := listen(t, certs)
	s := service(t, "", "")
	const tenants = 200
	for i := 1; i <= tenants; i++ {
		tenant(s, name(i), "", sink.sink())
	}
	s.Up(time.Minute)
	order(t, s, []string{"siem"}, "pause")
	flood(t, s, name(1), events)
	l := load(t, s, tenants, 1000)
	sink.until(t, tenants-1)
	harness.Pause(2 * time.Second)
	quiet := map[string]*delays{}
	sink.measure(t, 3*time.Second, quiet, "quiet")
	took := map[string]time.Duration{}
	for what, do := range map[string]func(){
		"backlog": func() {
			order(t, s, []string{"siem"}, "resume")
			harness.Until(t, 2*time.Minute, "end of the backlog", func() bool { return sink.of(name(1)) >= int64(events) })
		},
		"flood": func() {
			flood(t, s, name(2), events)
			harness.Until(t, 2*time.Minute, "end of the flood", func() bool { return sink.of(name(2)) >= int64(events) })
		},
	} {
		began := time.Now()
		d := sink.during(do)
		took[what] = time.Since(began)
		a, b := quiet["quiet"].typical(), d.typical()
		t.Logf("%s of %d events, %v: others' p99 %v, %v when quiet (%d events)", what, events, took[what].Round(time.Millisecond), b.Round(100*time.Microsecond), a.Round(100*time.Microsecond), d.n)
		// Behind it in one queue they would wait for all of it.
		if b > took[what]/3 && b > 10*a+100*time.Millisecond {
			t.Errorf("%s: the others' p99 is %v, %v when quiet", what, b, a)
		}
	}
	sent := l.stop()
	s.End(false)
	t.Logf("%d events of others meanwhile; peak %d MB", sent, s.Peak>>20)
}

func name(i int) string { return fmt.Sprintf("t%04d", i) }

// flood posts n events of a tenant as fast as they are taken.
func flood(t *testing.T, s *harness.Service, tenant string, n int) {
	t.Helper()
	for at := 0; at < n; at += 2000 {
		var b strings.Builder
		for i := at; i < min(n, at+2000); i++ {
			b.WriteString(event(fmt.Sprintf("%s-%d", tenant, i), tenant, "") + "\n")
		}
		if a, err := post(ingest(s, tenant), "key-of-"+tenant, strings.NewReader(b.String())); err != nil || a.status != http.StatusOK {
			t.Fatalf("%v %+v", err, a)
		}
	}
}

// order gives an order to sinks of the first tenant.
func order(t *testing.T, s *harness.Service, sinks []string, what string) {
	t.Helper()
	for _, k := range sinks {
		url := fmt.Sprintf("http://%s/v1/lanes/%s/%s/%s", s.Admin, name(1), k, what)
		if a, err := post(url, "", strings.NewReader("{}"), "Content-Type", "application/json"); err != nil || a.status >= 300 {
			t.Fatalf("%s: %v %+v", url, err, a)
		}
	}
}

// loader writes events to the file that the service follows.
type loader struct {
	end  chan struct{}
	done chan struct{}
	sent atomic.Int64
}

func (l *loader) stop() int64 {
	close(l.end)
	<-l.done
	return l.sent.Load()
}
