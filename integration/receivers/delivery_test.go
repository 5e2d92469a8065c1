package receivers

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// events is how many a run makes: a tenth of the acceptance's, for each of ten doors.
func events(t *testing.T) int { return min(max(harness.Events(t)/5, 20_000), 100_000) }

// drops is a sink beside the emitters: what they should have sent.
const drops = `  - name: drops
    dir: {path: "{dir}/drops"}
    compression: none
    deliver: {max_age: 2s}
`

// emitterTo is a sink named as its door, with the client's side of mutual TLS.
func emitterTo(d *servers.Door, tls string) string {
	how := ""
	if d.RELP {
		how = ", confirm: protocol, protocol: relp"
	}
	return fmt.Sprintf("  - name: %s\n    emitter: {address: %q, framing: %s, tls: {%s}, rotate_every: 2s, retry_max: 2s%s}\n",
		d.Name, d.Addr, d.Framing(), tls, how)
}

func mutual(ca string, own servers.Certs) string {
	return fmt.Sprintf("ca: %q, cert: %q, key: %q, server_name: %s", ca, own.Cert, own.Key, servers.ServerName)
}

// everyWay is both framings by both versions of TLS.
var everyWay = []servers.Door{{}, {Octet: true}, {TLS12: true}, {Octet: true, TLS12: true}}

// withLong adds events of the length to a file of generated ones, under ids that follow theirs.
func withLong(t *testing.T, path string, n, more, length int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := 1; i <= more; i++ {
		line := fmt.Sprintf(`{"schema":"mitigation/1","event_id":"gen-1-%d","tenant_id":"t0001","source":"long","kind":"mitigation","event_time":%d,"time_precision":"ms","action":"block","disposition":"blocked","enforced":true,"severity":2,"rule_name":"Zürich \"quoted\"\ttab 日本","net":{"payload_b64":"%s"}}`,
			n+i, time.Now().UnixMilli(), strings.Repeat("QUJD", length/4))
		if _, err := fmt.Fprintln(f, line); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEverythingArrives: JSON lines and octet-counted frames, TLS 1.3 and 1.2,
// client certificates, lines of 200 KB among the others; every line byte for
// byte, and once.
func TestEverythingArrives(t *testing.T) {
	n, long := events(t), 20
	a := servers.NewAuthority(t, "test CA")
	client := a.Client("client", time.Hour)
	// A process for each door of rsyslog, and one tenant: where connections come and
	// go at once on several doors, rsyslog 8.2302 mixes them up (the lines of one door
	// came out at another, a TLS record of one connection went to another).
	made := []*servers.Receiver{servers.NewSyslogNG(t, a.Server(time.Hour), everyWay...)}
	for _, d := range append(everyWay, servers.Door{GnuTLS: true}, servers.Door{GnuTLS: true, Octet: true, TLS12: true},
		servers.Door{RELP: true, TLS12: true}, servers.Door{RELP: true, Octet: true, TLS12: true}) {
		made = append(made, servers.NewRsyslog(t, a.Server(time.Hour), d))
	}
	sinks := drops
	for _, v := range made {
		for _, d := range v.Doors {
			sinks += emitterTo(d, mutual(a.CA(), client))
		}
	}
	s := harness.NewService(t, "")
	s.Tenants(1, sinks)
	in := filepath.Join(s.Dir, "in", "a.ndjson")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "1", "--to", in)
	withLong(t, in, n, long, 200_000)
	began := time.Now()
	s.Up(30 * time.Second)
	s.Delivered(int64(n+long), 2*time.Minute)
	t.Logf("%d events to %d doors in %.1f s", n+long, 12, time.Since(began).Seconds())
	for _, v := range made {
		for _, d := range v.Doors {
			version := map[bool]string{true: "TLS 1.2 ", false: "TLS 1.3 "}[d.TLS12]
			l := laneOf(t, s, "t0001", d.Name)
			t.Logf("%s: %v", d.Name, l.Facts)
			if l.Facts["confirm"] != confirm(d) || !strings.HasPrefix(l.Facts["tls"], version) || l.State != "running" || l.Facts["peer"] != "CN="+servers.ServerName {
				t.Errorf("%s: confirm should be %s over %s, the lane shows %+v", d.Name, confirm(d), version, l)
			}
		}
	}
	s.End(false)
	whole := sent(t, s)
	for _, v := range made {
		v.Stop(30 * time.Second)
		for _, d := range v.Doors {
			ids, torn := arrived(t, d, whole)
			ids.Want(t, d.Name, 1, n+long, true)
			if torn > 0 {
				t.Errorf("%s: %d lines are not as they were sent", d.Name, torn)
			}
		}
	}
}
