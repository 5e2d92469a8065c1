package engine

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
)

// TestAcceptEachSinkAlone measures file → journal → one kind of sink, for 200
// tenants: events a second, processor time and peak memory of the service's
// process alone (the receiver is another).
func TestAcceptEachSinkAlone(t *testing.T) {
	n := harness.Events(t)
	for _, c := range []struct{ name, sinks string }{
		{"journal alone", "  []\n"},
		{"NDJSON gzip", "  - name: s\n    dir: {path: \"{dir}/drops\"}\n    deliver: {max_age: 2s}\n"},
		{"NDJSON zstd", "  - name: s\n    dir: {path: \"{dir}/drops\"}\n    compression: zstd\n    deliver: {max_age: 2s}\n"},
		{"Parquet zstd", "  - name: s\n    dir: {path: \"{dir}/drops\"}\n    format: parquet\n    deliver: {max_age: 2s}\n"},
		{"emitter", "  - name: s\n    emitter: {address: \"{receiver}\", tls: {ca: \"{ca}\"}, rotate_every: 2s}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := harness.NewService(t, "")
			rc := newReceiver(t, s.Dir)
			s.Tenants(tenantCount, rc.in(c.sinks))
			harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(tenantCount),
				"--seed", "1", "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
			began := time.Now()
			s.Up(30 * time.Second)
			s.Delivered(int64(n), 10*time.Minute)
			took := time.Since(began)
			s.End(false)
			t.Logf("%-14s %8.0f events/s, %5.1f CPU s per million events, peak memory %d MB",
				c.name, float64(n)/took.Seconds(), s.Used.Seconds()*1e6/float64(n), s.Peak>>20)
		})
	}
}
