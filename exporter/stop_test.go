package exporter_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// events are n canonical lines; their ids begin with prefix.
func events(prefix string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `{"schema":"mitigation/1","event_id":"%s-%d","source":"test","kind":"mitigation","event_time":1795309107000,"time_precision":"ms","action":"block","disposition":"blocked","enforced":true,"severity":3}`+"\n", prefix, i)
	}
	return b.String()
}

// TestAStopDeliversWhatIsDue: what was answered just before, for tenants whose
// lanes do not exist yet, goes out if it is due, and the rest is named.
func TestAStopDeliversWhatIsDue(t *testing.T) {
	const tenants = 30
	b := newBench(t)
	for i := range tenants {
		b.tenant(fmt.Sprintf("t%d", i), `  - name: due
    dir: {path: "{out}"}
    deliver: {max_age: 1h, max_events: 2}
  - name: later
    dir: {path: "{out}"}
    deliver: {max_age: 1h}
`)
	}
	b.up()
	for i := range tenants {
		tenant := fmt.Sprintf("t%d", i)
		if code, answer := b.post(tenant, events(tenant, 4)); code != http.StatusOK {
			t.Fatalf("%d: %s", code, answer)
		}
	}
	b.down()
	for i := range tenants {
		if ids := b.ids(filepath.Join(fmt.Sprintf("tenant=t%d", i), "sink=due")); len(ids) != 4 {
			t.Errorf("tenant t%d: %d of 4 events went out at the stop", i, len(ids))
		}
	}
	if ids := b.ids("sink=later"); len(ids) != 0 {
		t.Errorf("%d events went out that were not due", len(ids))
	}
	said := b.log.String()
	for _, want := range []string{`"sinks":30,`, `"events":120,`, `"sink":"later","state":"running","reason":"","events":4,`} {
		if !strings.Contains(said, want) {
			t.Errorf("the stop does not say %s", want)
		}
	}
	if strings.Count(said, `"sink":"due"`) > 0 || strings.Count(said, "left for this sink") != 20 {
		t.Error("the stop does not name the sinks with something left, 20 at most")
	}
}
