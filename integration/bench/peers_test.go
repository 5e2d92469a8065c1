package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// duel is a path of ours beside other programs' that do the same job, as far as
// they can: one destination for everything, so one tenant.
type duel struct {
	path
	peers []peer
}

// peer is another program on the same job. Its configuration is in
// integration/testbed/peers, as its own documentation recommends it for speed.
type peer struct {
	name    string
	program string // is looked for in PATH; "" is one that task peers installs
	run     func(*testing.T, job) cost
}

// toLines are the peers that send lines over TLS.
var toLines = []peer{
	{"rsyslog", "", rsyslog},
	{"OpenTelemetry Collector", "", collector},
	{"Redpanda Connect", "redpanda-connect", inPath("redpanda-connect", "redpanda-connect.yaml", "run")},
	{"Fluent Bit", "fluent-bit", inPath("fluent-bit", "fluent-bit.yaml", "--config")},
}

var duels = []duel{
	{path{name: "Kafka → TLS, JSON lines", run: datasync, from: kafka, to: lines}, toLines},
	{path{name: "Kafka, zstd batches → TLS, JSON lines", run: datasync, from: kafkaZstd, to: lines}, toLines},
}

// rounds is how often ours and the peers run in turn (A B A B …), so that
// neither has the machine's better minutes to itself.
const rounds = 2

// TestBenchPeers measures us and the peers on the same job, one alone at a time.
func TestBenchPeers(t *testing.T) {
	b := newBed(t, scale{tenants: 1, partitions: 16})
	var rows []row
	for _, d := range duels {
		for n := range rounds {
			var ours *row
			for _, p := range append([]peer{{"datasync", "", d.run}}, d.peers...) {
				if p.program != "" {
					if _, err := exec.LookPath(p.program); err != nil {
						t.Logf("without %s: no %s in PATH", p.name, p.program)
						continue
					}
				}
				t.Run(fmt.Sprintf("%s/%s/%d", d.name, p.name, n+1), func(t *testing.T) {
					one := d.path
					one.name, one.run = p.name+": "+d.name, p.run
					r := b.measure(t, one)
					if r.ours = ours; ours == nil {
						ours = &r
					}
					rows = append(rows, r)
				})
			}
		}
	}
	write(os.Stdout, b.conditions(t), rows)
}

// rsyslog runs rsyslog's imkafka and omfwd on a job that ends in lines over TLS.
func rsyslog(t *testing.T, j job) cost {
	t.Helper()
	if _, err := os.Stat("/usr/lib/x86_64-linux-gnu/rsyslog/imkafka.so"); err != nil {
		t.Fatalf("rsyslog's Kafka input is missing (task peers installs it): %v", err)
	}
	conf := configured(t, j, "rsyslog.conf")
	return foreign(t, j, exec.Command(servers.Installed(t, "/usr/sbin/rsyslogd", "receivers"), "-n", "-f", conf, "-i", filepath.Join(t.TempDir(), "pid")))
}

// collector runs the OpenTelemetry Collector's Kafka receiver and syslog exporter
// on a job that ends in lines over TLS.
func collector(t *testing.T, j job) cost {
	t.Helper()
	return foreign(t, j, exec.Command(servers.Installed(t, ".testbed/otelcol", "peers"), "--config=file:"+configured(t, j, "otelcol.yaml")))
}

// inPath runs a program that the registries do not have: arguments, then its
// configuration.
func inPath(program, conf string, args ...string) func(*testing.T, job) cost {
	return func(t *testing.T, j job) cost {
		t.Helper()
		return foreign(t, j, exec.Command(program, append(args, configured(t, j, conf))...))
	}
}

// configured is a peer's configuration for a job, as a file.
func configured(t *testing.T, j job, name string) (path string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../testbed/peers", name))
	if err != nil {
		t.Fatal(err)
	}
	dir, to := t.TempDir(), j.sink.door
	path = filepath.Join(dir, name)
	filled := strings.NewReplacer("{dir}", dir, "{ca}", to.ca, "{port}", to.port(), "{topic}", j.source.topic,
		"{broker}", j.source.broker, "{group}", strings.ReplaceAll(t.Name(), "/", "-")).Replace(string(text))
	if err := os.WriteFile(path, []byte(filled), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// foreign measures a program that is not ours on a job that ends in lines over
// TLS: from the first event let go to the last one arrived. It is asked for
// nothing while it works.
func foreign(t *testing.T, j job, program *exec.Cmd) cost {
	t.Helper()
	p := harness.Launch(t, filepath.Base(program.Path), program)
	done := func() bool { return j.sink.door.lines(t) >= j.events }
	idle(t, p, 2*time.Second, func() bool { return true }) // it has started
	began, cpu := time.Now(), p.CPU()
	j.source.begin(nil)
	idle(t, p, time.Second, done)
	c := cost{took: time.Since(began), cpu: p.CPU() - cpu, peak: p.PeakMemory()}
	c.written, c.ids = j.sink.count(t, nil)
	p.Kill()
	return c
}

// idle waits until a program has used less than a tenth of a core for so long,
// and ok says yes.
func idle(t *testing.T, p *harness.Process, quiet time.Duration, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	was := p.CPU()
	for began := time.Now(); ; {
		<-tick.C
		now := p.CPU()
		if now-was <= quiet/10 && ok() {
			return
		}
		was = now
		switch {
		case !p.Running():
			t.Fatalf("%s ended:\n%s", p.Name, p.Output())
		case time.Since(began) > patience:
			t.Fatalf("%s is not done within %v:\n%s", p.Name, patience, p.Output())
		}
	}
}
