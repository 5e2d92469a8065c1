package receivers

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// blow is something that happens to all receivers under load.
type blow struct {
	name string
	do   func(t *testing.T, v *servers.Receiver)
}

var blows = []blow{
	{"killed and away", func(_ *testing.T, v *servers.Receiver) {
		v.Kill()
		harness.Pause(3 * time.Second)
		v.Up()
	}},
	{"frozen, and it goes on", func(_ *testing.T, v *servers.Receiver) {
		v.Signal(syscall.SIGSTOP)
		harness.Pause(3 * time.Second)
		v.Signal(syscall.SIGCONT)
	}},
	{"frozen, and killed with what lies unread", func(_ *testing.T, v *servers.Receiver) {
		v.Signal(syscall.SIGSTOP)
		harness.Pause(1500 * time.Millisecond)
		v.Kill()
		v.Up()
	}},
	{"restarted in order", func(_ *testing.T, v *servers.Receiver) {
		v.Stop(30 * time.Second)
		v.Up()
	}},
	{"killed at full speed", func(_ *testing.T, v *servers.Receiver) {
		v.Kill()
		v.Up()
	}},
}

// TestFaultReceiversDieAndFreeze: rsyslog and syslog-ng get all sorts of ends
// under load, and every event is whole in every file in the end.
func TestFaultReceiversDieAndFreeze(t *testing.T) {
	const rate = 2000
	n := max(events(t), 36*rate)
	a := servers.NewAuthority(t, "test CA")
	client := a.Client("client", time.Hour)
	made := []*servers.Receiver{
		servers.NewRsyslog(t, a.Server(time.Hour), servers.Door{}, servers.Door{Octet: true, TLS12: true}, servers.Door{GnuTLS: true, Octet: true}),
		servers.NewSyslogNG(t, a.Server(time.Hour), servers.Door{}, servers.Door{Octet: true, TLS12: true}),
	}
	sinks := drops
	for _, v := range made {
		for _, d := range v.Doors {
			sinks += emitterTo(d, mutual(a.CA(), client))
		}
	}
	s := harness.NewService(t, "")
	s.Tenants(2, sinks)
	s.Up(30 * time.Second)
	gen := harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(rate), "--count", fmt.Sprint(n),
		"--tenants", "2", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	for _, b := range blows {
		harness.Pause(2500 * time.Millisecond)
		for _, v := range made { // one after the other: they must not wait for each other either
			b.do(t, v)
		}
		if !gen.Running() {
			t.Logf("the load ended before %q", b.name)
		}
	}
	if code := gen.Wait(2 * time.Minute); code != 0 {
		t.Fatalf("generate exited with %d: %s", code, gen.Output())
	}
	l := s.Delivered(int64(n), 2*time.Minute)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	s.End(false)
	whole := sent(t, s)
	for _, v := range made {
		v.Stop(30 * time.Second)
		for _, d := range v.Doors {
			ids, torn := arrived(t, d, whole)
			repeats := ids.Want(t, d.Name, 1, n, false)
			t.Logf("%s (%s): %d events, none may be missing; %d repeats, %d lines torn by kills", d.Name, confirm(d), n, repeats, torn)
			if repeats == 0 {
				t.Errorf("%s: no repeats: nothing was under way when it was killed", d.Name)
			}
			if torn > 3*len(blows) {
				t.Errorf("%s: %d lines are not whole", d.Name, torn)
			}
		}
	}
}
