package kinesis

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// TestTestSinkKinesis: one record that says that it is a test, plain and
// aggregated; and each mistake as the lanes tell it.
func TestTestSinkKinesis(t *testing.T) {
	servers.Credentials(t)
	k := servers.NewKinesalite(t)
	k.Stream("bots", 2)
	s := harness.NewService(t, "")
	sink := func(name, stream, endpoint, more string) string {
		return fmt.Sprintf("  - name: %s\n    kinesis: {stream: %s, region: eu-west-1, endpoint: %q%s}\n", name, stream, endpoint, more)
	}
	s.Tenants(1, sink("plain", "bots", k.URL(), "")+sink("packed", "bots", k.URL(), ", aggregate: true")+
		sink("stream", "missing", k.URL(), "")+sink("dns", "bots", "http://kinesis.invalid:4567", "")+
		sink("connect", "bots", "http://"+harness.FreePort(t), "")+sink("metadata", "bots", "http://169.254.169.254", ""))
	for _, name := range []string{"plain", "packed"} {
		r := s.TestSink("t0001/" + name)
		if _, seen := r.Step(t, "stream"); !r.Works || !strings.Contains(seen, "ACTIVE: provisioned, open shards: 2") {
			t.Errorf("%s: %+v", name, r)
		}
	}
	var ids []string
	k.Each("bots", func(r servers.Record) {
		var e struct {
			ID     string `json:"event_id"`
			Tenant string `json:"tenant_id"`
		}
		if err := json.Unmarshal(r.Data, &e); err != nil || e.Tenant != "t0001" || !strings.HasPrefix(e.ID, "datasync-test-") {
			t.Errorf("%q: %v", r.Data, err)
		}
		ids = append(ids, e.ID)
	})
	if len(ids) != 2 || ids[0] == ids[1] {
		t.Errorf("the stream has %q", ids)
	}
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "10", "--tenants", "1", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	for _, c := range [][3]string{{"stream", "stream", "not-found"}, {"dns", "resolve", "dns"}, {"connect", "connect", "connect"}, {"metadata", "egress", "forbidden"}} {
		s.SinkFails("t0001/"+c[0], c[1], c[2])
	}
	s.End(false)
}

// TestTestSinkWithoutCredentials: kinesalite takes any, so there are none.
func TestTestSinkWithoutCredentials(t *testing.T) {
	servers.Credentials(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	k := servers.NewKinesalite(t)
	k.Stream("bots", 1)
	s := harness.NewService(t, "")
	s.Tenants(1, fmt.Sprintf("  - name: stream\n    kinesis: {stream: bots, region: eu-west-1, endpoint: %q}\n", k.URL()))
	harness.Run(t, 0, "generate", "--rate", "0", "--count", "10", "--tenants", "1", "--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	s.SinkFails("t0001/stream", "credentials", "auth")
	s.End(false)
}
