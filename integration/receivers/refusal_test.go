package receivers

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// mistake is what is wrong between an emitter and a receiver, and how it shows.
type mistake struct {
	name   string
	tls    string // the emitter's settings
	reason string
	hint   string // part of what `datasync status` says
}

func mistakes(a, other *servers.Authority) []mistake {
	good := a.Client("client", time.Hour)
	return []mistake{
		{"wrong-ca", mutual(other.CA(), good), "tls-verify", "set tls.ca to the authority that signed the receiver's certificate"},
		{"wrong-name", fmt.Sprintf("ca: %q, cert: %q, key: %q", a.CA(), good.Cert, good.Key), "tls-verify", "set tls.server_name"},
		{"no-cert", fmt.Sprintf("ca: %q, server_name: %s", a.CA(), servers.ServerName), "tls-client-cert", "set tls.cert and tls.key"},
		{"foreign-cert", mutual(a.CA(), other.Client("client", time.Hour)), "tls-client-cert", "check its issuer and dates"},
		{"old-cert", mutual(a.CA(), a.Client("old", -time.Hour)), "tls-client-cert", "check its issuer and dates"},
	}
}

// TestMistakes: each shows its reason and what to do, holds nobody else up, and
// is over as soon as it is mended, without a restart.
func TestMistakes(t *testing.T) {
	a, other := servers.NewAuthority(t, "test CA"), servers.NewAuthority(t, "another CA")
	ms := mistakes(a, other)
	good := a.Client("client", time.Hour)
	made := []*servers.Receiver{
		servers.NewRsyslog(t, a.Server(time.Hour), servers.Door{}, servers.Door{TLS12: true}, servers.Door{GnuTLS: true}, servers.Door{GnuTLS: true, TLS12: true}, servers.Door{RELP: true, TLS12: true}),
		servers.NewSyslogNG(t, a.Server(time.Hour), servers.Door{}, servers.Door{TLS12: true}),
	}
	wrong, right := drops, drops
	want := map[string]mistake{}
	for _, v := range made {
		for _, d := range v.Doors {
			for _, m := range ms {
				as := *d
				as.Name = d.Name + "-" + m.name
				wrong += emitterTo(&as, m.tls)
				right += emitterTo(&as, mutual(a.CA(), good))
				want[as.Name] = m
			}
		}
	}
	s := harness.NewService(t, "")
	s.Tenants(1, wrong)
	const n = 50
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "1",
		"--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	harness.Pause(8 * time.Second) // several tries each: the verdict stays
	status := harness.Run(t, 0, "status", "--admin", "http://"+s.Admin)
	for name, m := range want {
		l := laneOf(t, s, "t0001", name)
		if l.State != "parked" || l.Reason != m.reason || !strings.Contains(l.Message, m.hint) {
			t.Errorf("%s: want parked, %s, %q; got %+v", name, m.reason, m.hint, l)
		}
		if l.Totals.Delivered != 0 {
			t.Errorf("%s: %d delivered", name, l.Totals.Delivered)
		}
		if !strings.Contains(status, m.hint) {
			t.Errorf("%s: %q is not in the status", name, m.hint)
		}
	}
	t.Logf("status:\n%s", status)
	if l := laneOf(t, s, "t0001", "drops"); l.Totals.Delivered != n {
		t.Errorf("the sink beside them: %+v", l)
	}
	s.Tenants(1, right)
	s.Delivered(n, time.Minute)
	s.End(false)
	whole := sent(t, s)
	for _, v := range made {
		v.Stop(30 * time.Second)
		for _, d := range v.Doors {
			ids, torn := arrived(t, d, whole)
			if repeats := ids.Want(t, d.Name, 1, n, false); repeats != (len(ms)-1)*n || torn > 0 {
				t.Errorf("%s: %d repeats from %d emitters, %d lines not whole", d.Name, repeats, len(ms), torn)
			}
		}
	}
}

// TestExpiredCertificates: the receiver's, and the emitter's own, at the start and
// in operation; all are renewed where they lie, and nobody touches the service.
func TestExpiredCertificates(t *testing.T) {
	a := servers.NewAuthority(t, "test CA")
	made := []*servers.Receiver{
		servers.NewRsyslog(t, a.Server(-time.Minute), servers.Door{}, servers.Door{GnuTLS: true}),
		servers.NewSyslogNG(t, a.Server(-time.Minute), servers.Door{}),
	}
	client := a.Client("client", -time.Minute)
	sinks := drops
	for _, v := range made {
		for _, d := range v.Doors {
			sinks += emitterTo(d, mutual(a.CA(), client))
		}
	}
	s := harness.NewService(t, "")
	s.Tenants(1, sinks)
	const n = 50
	more := func(seed int) {
		t.Helper()
		harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", fmt.Sprint(seed),
			"--to", filepath.Join(s.Dir, "in", fmt.Sprintf("%d.ndjson", seed)))
	}
	all := func(reason, hint string) {
		t.Helper()
		for _, v := range made {
			for _, d := range v.Doors {
				harness.Until(t, 20*time.Second, d.Name+" "+reason, func() bool {
					l := laneOf(t, s, "t0001", d.Name)
					return l.State == "parked" && l.Reason == reason && strings.Contains(l.Message, hint)
				})
			}
		}
	}
	more(1)
	s.Up(30 * time.Second)
	all("tls-verify", "expired")
	a.Server(time.Hour)
	for _, v := range made {
		v.Stop(30 * time.Second)
		v.Up()
	}
	all("tls-client-cert", "check its issuer and dates")
	a.Client("client", time.Hour)
	s.Delivered(n, time.Minute)
	a.Client("client", -time.Minute) // it expires in operation
	more(2)
	all("tls-client-cert", "check its issuer and dates")
	a.Client("client", time.Hour)
	s.Delivered(2*n, time.Minute)
	s.End(false)
	for _, v := range made {
		for _, d := range v.Doors {
			ids, _ := arrived(t, d, sent(t, s))
			for seed := 1; seed <= 2; seed++ {
				of := harness.IDs{}
				for id, k := range ids {
					if strings.HasPrefix(id, fmt.Sprintf("gen-%d-", seed)) {
						of[id] = k
					}
				}
				of.Want(t, d.Name, seed, n, true)
			}
		}
	}
}

// TestUnreachable: what fails before a certificate is looked at, and is mended in the file.
func TestUnreachable(t *testing.T) {
	a := servers.NewAuthority(t, "test CA")
	v := servers.NewSyslogNG(t, a.Server(time.Hour), everyWay...)
	right := mutual(a.CA(), a.Client("client", time.Hour))
	s := harness.NewService(t, "")
	cases := []struct{ addr, reason, state, hint string }{
		{"no.such.host.invalid:6514", "dns", "waiting", "check the host name"},
		{harness.FreePort(t), "connect", "waiting", "nothing listens there"},
		{s.Admin, "tls-verify", "parked", "does not speak TLS"},
		{"169.254.169.254:6514", "forbidden", "parked", "egress"},
	}
	wrong, mended := drops, drops
	for i, c := range cases {
		d := *v.Doors[i]
		mended += emitterTo(&d, right)
		d.Addr = c.addr
		wrong += emitterTo(&d, right)
	}
	s.Tenants(1, wrong)
	const n = 50
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "1",
		"--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	for i, c := range cases {
		harness.Until(t, 20*time.Second, c.reason, func() bool {
			l := laneOf(t, s, "t0001", v.Doors[i].Name)
			return l.Reason == c.reason && l.State == c.state && strings.Contains(l.Message, c.hint)
		})
	}
	s.Tenants(1, mended)
	s.Delivered(n, time.Minute)
	s.End(false)
	for _, d := range v.Doors {
		ids, _ := arrived(t, d, sent(t, s))
		ids.Want(t, d.Name, 1, n, true)
	}
}
