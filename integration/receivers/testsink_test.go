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

// TestTestSinkReceivers: one line to each that works, and each mistake as the
// lanes tell it, with rsyslog's two drivers and syslog-ng.
func TestTestSinkReceivers(t *testing.T) {
	a, other, ended := servers.NewAuthority(t, "test CA"), servers.NewAuthority(t, "another CA"), servers.NewAuthority(t, "ended CA")
	good := mutual(a.CA(), a.Client("client", time.Hour))
	rsyslog := servers.NewRsyslog(t, a.Server(time.Hour), servers.Door{}, servers.Door{Octet: true}, servers.Door{GnuTLS: true}, servers.Door{TLS12: true}, servers.Door{RELP: true, TLS12: true, Octet: true})
	syslogNG := servers.NewSyslogNG(t, a.Server(time.Hour), servers.Door{}, servers.Door{Octet: true})
	old := servers.NewSyslogNG(t, ended.Server(-time.Minute), servers.Door{})
	s := harness.NewService(t, "")
	var sinks strings.Builder
	var well []*servers.Door
	for _, v := range []*servers.Receiver{rsyslog, syslogNG} {
		for _, d := range v.Doors {
			sinks.WriteString(emitterTo(d, good))
			well = append(well, d)
		}
	}
	var wrong [][3]string // sink, step, reason
	add := func(d servers.Door, name, tls, step, reason string) {
		d.Name += "-" + name
		sinks.WriteString(emitterTo(&d, tls))
		wrong = append(wrong, [3]string{d.Name, step, reason})
	}
	for _, d := range []*servers.Door{rsyslog.Doors[0], rsyslog.Doors[2], syslogNG.Doors[0]} {
		for _, m := range mistakes(a, other) {
			add(*d, m.name, m.tls, map[string]string{"tls-verify": "tls", "tls-client-cert": "drain"}[m.reason], m.reason)
		}
	}
	add(*old.Doors[0], "expired", mutual(ended.CA(), ended.Client("client", time.Hour)), "tls", "tls-verify")
	nowhere := *syslogNG.Doors[0]
	nowhere.Addr = "siem.invalid:6514"
	add(nowhere, "dns", good, "resolve", "dns")
	nowhere.Addr = harness.FreePort(t)
	add(nowhere, "connect", good, "connect", "connect")
	nowhere.Addr = s.Admin
	add(nowhere, "plain", good, "tls", "tls-verify")
	nowhere.Addr = "169.254.169.254:6514"
	add(nowhere, "metadata", good, "egress", "forbidden")
	s.Tenants(1, sinks.String())

	for _, d := range well {
		r := s.TestSink("t0001/" + d.Name)
		first := "drain"
		if d.RELP {
			first = "open"
		}
		result, seen := r.Step(t, first)
		if !r.Works || (result == "note") != d.GnuTLS || strings.Contains(seen, "confirm: weak") != d.GnuTLS {
			t.Errorf("%s: %+v", d.Name, r)
		}
		raw, err := os.ReadFile(d.Out)
		if err != nil || strings.Count(string(raw), "\n") != 1 || !strings.Contains(string(raw), `"event_id":"datasync-test-`) {
			t.Errorf("%s: the receiver has %q, %v", d.Name, raw, err)
		}
	}
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "10", "--tenants", "1", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	for _, c := range wrong {
		s.SinkFails("t0001/"+c[0], c[1], c[2])
	}
	text := harness.Run(t, 1, "test-sink", fmt.Sprintf("t0001/%s-no-cert", rsyslog.Doors[0].Name), "--config", filepath.Join(s.Dir, "datasync.yaml"))
	if !strings.Contains(text, "what to do: the receiver wants a client certificate: set tls.cert and tls.key") || !strings.HasSuffix(text, "The sink would not work: tls-client-cert.\n") {
		t.Errorf("it says\n%s", text)
	}
	s.End(false)
}
