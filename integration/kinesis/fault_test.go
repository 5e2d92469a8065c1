package kinesis

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// laneState asks for the state and the reason of a sink's lanes.
func laneState(s *harness.Service, tenant, sink string) (state, class, message string) {
	var l struct {
		State   string
		Class   string `json:"reason"`
		Message string
	}
	if !harness.Get(context.Background(), "http://"+s.Admin+"/v1/lanes/"+tenant+"/"+sink, &l) {
		return "", "", ""
	}
	return l.State, l.Class, l.Message
}

// TestFaultKilledAndTheStreamMissing: the stream is not there at first, so the
// lane parks and says so; it is made, and the lane goes on by itself; then the
// service is killed three times on the way. Nothing is missing.
func TestFaultKilledAndTheStreamMissing(t *testing.T) {
	const count = 20_000
	servers.Credentials(t)
	k := servers.NewKinesalite(t)
	s := harness.NewService(t, "")
	s.Tenants(1, fmt.Sprintf(`  - name: stream
    kinesis: {stream: "late", region: eu-west-1, endpoint: %q, partition_key: client_ip}
`, k.URL()))
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(count), "--tenants", "1",
		"--seed", "3", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	var state, class, message string
	harness.Until(t, 30*time.Second, "parked lane", func() bool {
		state, class, message = laneState(s, "t0001", "stream")
		return state == "parked"
	})
	if class != "not-found" {
		t.Errorf("reason %s: %s", class, message)
	}
	t.Logf("%s, %s: %s", state, class, message)
	k.Stream("late", 2)
	for range 3 {
		harness.Until(t, 90*time.Second, "delivery", func() bool {
			state, _, _ = laneState(s, "t0001", "stream")
			return state == "running"
		})
		harness.Pause(400 * time.Millisecond)
		s.End(true)
		s.Up(30 * time.Second)
	}
	s.Delivered(count, 2*time.Minute)
	s.End(false)
	repeats := ids(t, events(t, read(k, "late"))).Want(t, "late", 3, count, false)
	t.Logf("%d events came again", repeats)
}
