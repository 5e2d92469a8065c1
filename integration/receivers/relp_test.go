package receivers

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// TestFaultRELPAcknowledged: rsyslog is killed under load. What it acknowledged
// is in its file where its queue is as docs/tls-receivers.md has it; a queue in
// memory acknowledges what it then loses.
func TestFaultRELPAcknowledged(t *testing.T) {
	const rate, kills, seed = 250, 5, 1
	n := max(events(t)/10, 12*rate)
	random := rand.New(rand.NewPCG(seed, seed))
	a := servers.NewAuthority(t, "test CA")
	v := servers.NewRsyslog(t, a.Server(time.Hour),
		servers.Door{RELP: true, TLS12: true}, servers.Door{RELP: true, TLS12: true, Octet: true}, servers.Door{RELP: true, TLS12: true, Queue: servers.Synced},
		servers.Door{RELP: true, TLS12: true, Queue: servers.OnDisk}, servers.Door{RELP: true, TLS12: true, Queue: servers.Memory})
	sinks := drops
	for _, d := range v.Doors {
		sinks += emitterTo(d, mutual(a.CA(), a.Client("client-"+d.Name, time.Hour)))
	}
	s := harness.NewService(t, "")
	s.Tenants(1, sinks)
	s.Up(30 * time.Second)
	gen := harness.Start(t, "datasync generate", "generate", "--rate", fmt.Sprint(rate), "--count", fmt.Sprint(n),
		"--tenants", "1", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	for range kills {
		harness.Pause(time.Duration(1200+random.IntN(1000)) * time.Millisecond)
		v.Kill()
		harness.Pause(300 * time.Millisecond)
		v.Up()
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
	v.Stop(30 * time.Second)
	v.Up() // a queue on disk is emptied by the next life
	for _, d := range v.Doors {
		if d.Queue == servers.OnDisk {
			harness.Until(t, time.Minute, "the queue on disk in the file", func() bool {
				ids, _ := arrived(t, d, whole)
				return len(ids) == n
			})
		}
	}
	v.Stop(30 * time.Second)
	for _, d := range v.Doors {
		ids, torn := arrived(t, d, whole)
		lost := n - len(ids)
		repeats := -len(ids)
		for _, times := range ids {
			repeats += times
		}
		t.Logf("%s: seed %d, %d kills, %d events, %d lost, %d repeated, %d lines torn", d.Name, seed, kills, n, lost, repeats, torn)
		if (lost > 0) != (d.Queue == servers.Memory) {
			t.Errorf("%s: %d of the events that it acknowledged are lost", d.Name, lost)
		}
	}
}
