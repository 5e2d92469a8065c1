package receivers

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// TestOtherReceivers: whoever ends its side when we end ours needs nothing more.
func TestOtherReceivers(t *testing.T) {
	n := events(t)
	a := servers.NewAuthority(t, "test CA")
	client := a.Client("client", time.Hour)
	own := a.Server(time.Hour)
	made := []*servers.Receiver{servers.NewOpenSSL(t, own), servers.NewSocat(t, own), servers.NewStunnel(t, own)}
	sinks := drops
	for _, v := range made {
		sinks += emitterTo(v.Doors[0], mutual(a.CA(), client))
	}
	s := harness.NewService(t, "")
	s.Tenants(1, sinks)
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "1",
		"--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	s.Delivered(int64(n), 2*time.Minute)
	for _, v := range made {
		if l := laneOf(t, s, "t0001", v.Name); l.Facts["confirm"] != "drain" || l.State != "running" {
			t.Errorf("%s: %+v", v.Name, l)
		}
	}
	s.End(false)
	whole := sent(t, s)
	for _, v := range made {
		ids, torn := arrived(t, v.Doors[0], whole)
		if repeats := ids.Want(t, v.Name, 1, n, false); repeats > 0 || torn > 0 {
			t.Errorf("%s: %d repeats, %d lines not whole", v.Name, repeats, torn)
		}
	}
}
