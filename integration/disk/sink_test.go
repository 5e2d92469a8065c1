package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// TestFaultFullSink: the disk under a folder of drops is full, or the one under
// the spool is: the lane says so and waits, the other tenant's go on, producers
// notice nothing; when there is room, all of it is delivered, once.
func TestFaultFullSink(t *testing.T) {
	for name, spool := range map[string]bool{"folder of drops": false, "spool": true} {
		t.Run(name, func(t *testing.T) {
			const n, seed = 30_000, 1
			s := harness.NewService(t, "")
			small := mount(t, "32m")
			s.Tenants(2, "  - name: drops\n    dir: {path: \"{dir}/drops\"}\n    deliver: {max_age: 1s}\n")
			memory := ""
			if spool {
				memory = "memory: 8MiB\n"
				if err := os.MkdirAll(filepath.Join(s.Dir, "data"), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(small, filepath.Join(s.Dir, "data/spool")); err != nil {
					t.Fatal(err)
				}
				s.Write("tenants/t0001.yaml", fmt.Sprintf("tenant: t0001\napi_keys: [key-of-t0001]\nsinks:\n  - name: drops\n    dir: {path: \"%s/drops\"}\n    compression: none\n    deliver: {max_age: 5s}\n", s.Dir))
			} else {
				s.Write("tenants/t0001.yaml", fmt.Sprintf("tenant: t0001\napi_keys: [key-of-t0001]\nsinks:\n  - name: drops\n    dir: {path: \"%s/drops\"}\n    deliver: {max_age: 1s}\n", small))
			}
			raw, err := os.ReadFile(filepath.Join(s.Dir, "datasync.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			s.Write("datasync.yaml", memory+string(raw))
			s.Up(time.Minute)
			disk := fill(t, small)
			p := produce(t, s, events(t, seed, n), 0)
			p.wait(time.Minute)
			if len(p.refusals()) > 0 {
				t.Errorf("producers noticed: %v", p.refusals())
			}
			var l struct{ State, Reason, Message string }
			harness.Until(t, 30*time.Second, "word of the full disk", func() bool {
				return harness.Get(t.Context(), "http://"+s.Admin+"/v1/lanes/t0001/drops", &l) && l.State != "running"
			})
			if l.Reason != "full" || l.Message == "" {
				t.Errorf("the lane is %s, %q: %s", l.State, l.Reason, l.Message)
			}
			disk.empty()
			began := time.Now()
			s.Delivered(n, time.Minute)
			t.Logf("%s: %s, %s (%s); all delivered %v after there was room", name, l.State, l.Reason, strings.SplitN(l.Message, "\n", 2)[0], time.Since(began).Round(100*time.Millisecond))
			s.End(false)
			where := filepath.Join(s.Dir, "drops")
			if !spool {
				where = small
			}
			harness.Drops(t, where, "drops").Want(t, "drops", seed, n, true)
		})
	}
}
