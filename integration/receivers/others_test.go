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

// others are receivers that need nothing more than to end their side when we
// end ours, killed with lines in flight. What they read they store before they
// read on, all but stunnel, which hands it to another process.
func others() []*row {
	rows := []*row{
		{name: "rsyslog ossl", start: func(t testing.TB, c servers.Certs) *servers.Receiver { return servers.NewRsyslog(t, c, servers.Door{}) }},
		{name: "rsyslog gtls", weak: true, start: func(t testing.TB, c servers.Certs) *servers.Receiver {
			return servers.NewRsyslog(t, c, servers.Door{GnuTLS: true})
		}},
		{name: "syslog-ng", start: func(t testing.TB, c servers.Certs) *servers.Receiver {
			return servers.NewSyslogNG(t, c, servers.Door{})
		}},
		{name: "openssl s_server", start: servers.NewOpenSSL},
		{name: "gnutls-serv", start: servers.NewGnuTLS, parse: echoes()},
		{name: "socat", start: servers.NewSocat},
		{name: "stunnel", start: servers.NewStunnel},
		{name: "Java", start: servers.NewJava},
		{name: "Node", start: servers.NewNode},
		{name: "Python", start: servers.NewPython, weak: true},
		{name: "ncat", fickle: true, start: servers.NewNcat},
	}
	for _, r := range rows {
		if r.full = 10; !strings.Contains(r.name, "syslog") { // TestFaultReceiversDieAndFreeze has those
			r.short = 1
		}
		r.inject = func(_ *testing.T, x *place) {
			x.tool.Kill()
			harness.Pause(500 * time.Millisecond)
			x.tool.Up()
		}
	}
	return rows
}

// TestOtherReceivers: each takes every line as it was sent, once and in order,
// and is shown as it answers.
func TestOtherReceivers(t *testing.T) {
	n := events(t)
	a := servers.NewAuthority(t, "test CA")
	client := a.Client("client", time.Hour)
	own := a.Server(time.Hour)
	rows := others()
	made := make([]*servers.Receiver, len(rows))
	sinks := drops
	for i, r := range rows {
		made[i] = r.start(t, own)
		d := made[i].Doors[0]
		d.Name = fmt.Sprintf("door%02d", i)
		sinks += emitterTo(d, mutual(a.CA(), client))
	}
	s := harness.NewService(t, "")
	s.Tenants(1, sinks)
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "1",
		"--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	s.Delivered(int64(n), 2*time.Minute)
	for i, r := range rows {
		l := laneOf(t, s, "t0001", made[i].Doors[0].Name)
		t.Logf("%s: confirm: %s", r.name, l.Facts["confirm"])
		if want := r.confirms(); want != "" && l.Facts["confirm"] != want || l.State != "running" {
			t.Errorf("%s: %+v", r.name, l)
		}
	}
	s.End(false)
	whole := sent(t, s)
	for i, r := range rows {
		d := made[i].Doors[0]
		if r.parse != nil {
			raw, err := os.ReadFile(d.Out)
			if err != nil {
				t.Fatal(err)
			}
			lines, _ := servers.Echoed(raw)
			d.Out += ".lines"
			if err := os.WriteFile(d.Out, lines, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		ids, torn := arrived(t, d, whole)
		if repeats := ids.Want(t, r.name, 1, n, false); repeats > 0 && !r.fickle || torn > 0 {
			t.Errorf("%s: %d repeats, %d lines not whole", r.name, repeats, torn)
		}
		got := newRecord(d.Out, plainLines)
		got.whole(t, r.name, n)
	}
}

// TestFaultOthers: each is killed with lines in flight.
func TestFaultOthers(t *testing.T) {
	t.Parallel()
	faultTable(t, others(), func(r *row) int { return r.short })
}
