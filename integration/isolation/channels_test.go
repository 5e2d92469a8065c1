package isolation

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// TestChannels: three tenants of a channel and one of none. A channel's sink is
// each tenant's own (drops, numbers, connection), the tenant's own values win,
// a change reaches all of them at once, and a file with mistakes none.
func TestChannels(t *testing.T) {
	lines := listen(t, servers.NewCerts(t))
	s := service(t, "", "")
	of := []string{"tn000001zz", "tn000002zz", "tn000003zz"}
	drops := func(name, more string) string {
		return fmt.Sprintf("  - name: %s\n    dir: {path: %q}\n    compression: none\n    deliver: {max_age: 1s, max_events: 20}\n%s", name, filepath.Join(s.Dir, "drops"), more)
	}
	channel := func(text string) { s.Write("tenants/channels/retail.yaml", text) }
	mkdir(t, filepath.Join(s.Dir, "tenants", "channels"))
	shared := "redact: {fields: [user_agent]}\nsinks:\n" + drops("lake", "") + lines.sink()
	channel(shared)
	own := map[string]string{of[0]: "sinks:\n  - name: lake\n    filter: 'severity > 4'\n", of[1]: "redact: {fields: [http_path]}\n"}
	for _, n := range of {
		s.Write("tenants/"+n+".yaml", fmt.Sprintf("tenant: %s\nchannel: retail\napi_keys: [key-of-%s]\n%s", n, n, own[n]))
	}
	tenant(s, "tn000004zz", "", drops("other", ""))
	s.Up(time.Minute)
	sent := 0
	send := func() {
		t.Helper()
		sent += 20
		for _, n := range append(of, "tn000004zz") {
			var body strings.Builder
			for i := range 20 {
				line := event(fmt.Sprintf("%s-%d-%d", n, sent, i), n, `,"user_agent":"agent-x","http_path":"/path-x"`)
				body.WriteString(strings.Replace(line, `"severity":3`, fmt.Sprintf(`"severity":%d`, 4+i%2), 1) + "\n")
			}
			if a, err := post(ingest(s, n), "key-of-"+n, strings.NewReader(body.String())); err != nil || a.status != http.StatusOK {
				t.Fatalf("%v %+v", err, a)
			}
		}
	}
	arrived := func(sink string, want map[string]int) {
		t.Helper()
		var got map[string]int
		harness.Until(t, time.Minute, "delivery to "+sink, func() bool {
			got = map[string]int{}
			for id := range harness.Drops(t, filepath.Join(s.Dir, "drops"), sink) {
				got[id[:10]]++
			}
			for n, k := range want {
				if got[n] < k {
					return false
				}
			}
			return true
		})
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("sink %s holds %v, want %v", sink, got, want)
		}
	}
	send()
	arrived("lake", map[string]int{of[0]: 10, of[1]: 20, of[2]: 20})
	lines.until(t, 3)

	channel(shared + drops("later", ""))
	sinks(t, s, "later", 3)
	send()
	arrived("lake", map[string]int{of[0]: 20, of[1]: 40, of[2]: 40})
	arrived("later", map[string]int{of[0]: 20, of[1]: 20, of[2]: 20})

	channel("sinks: [{name: lake, dir: {pth: x}}]\n")
	harness.Until(t, time.Minute, "word of the channel's mistake", func() bool { return strings.Contains(s.Output(), "channels/retail.yaml") })
	send()
	arrived("later", map[string]int{of[0]: 40, of[1]: 40, of[2]: 40})
	arrived("lake", map[string]int{of[0]: 30, of[1]: 60, of[2]: 60})

	channel(shared) // the later sink is gone, its place kept
	sinks(t, s, "later", 0)
	s.End(false)
	s.Up(time.Minute)
	send()
	channel(shared + drops("later", "")) // and goes on there
	arrived("later", map[string]int{of[0]: 80 - 20, of[1]: 80 - 20, of[2]: 80 - 20})
	arrived("lake", map[string]int{of[0]: 40, of[1]: 80, of[2]: 80})
	arrived("other", map[string]int{"tn000004zz": 80})
	for _, n := range of {
		harness.Until(t, time.Minute, "lines of "+n, func() bool { return lines.of(n) >= 80 })
	}
	l := s.Delivered(4*80, time.Minute)
	s.End(false)
	if lines.mixed > 0 || lines.conns < 6 || !l.Balanced {
		t.Errorf("%d connections, %d of them with two tenants; balanced: %v", lines.conns, lines.mixed, l.Balanced)
	}
	objectsOf(t, filepath.Join(s.Dir, "drops"))
	for n, gone := range map[string]string{of[0]: "agent-x", of[1]: "path-x", of[2]: "agent-x"} {
		has, lacks := false, true
		eachLine(t, filepath.Join(s.Dir, "drops", "tenant="+n), func(line string) {
			has = has || strings.Contains(line, "-x")
			lacks = lacks && !strings.Contains(line, gone)
		})
		if !has || !lacks {
			t.Errorf("%s: redaction of the channel, or its own: %s is there: %v", n, gone, !lacks)
		}
	}
}

// sinks waits until so many tenants have a sink of a name.
func sinks(t *testing.T, s *harness.Service, name string, n int) {
	t.Helper()
	harness.Until(t, time.Minute, fmt.Sprintf("%d sinks %s", n, name), func() bool {
		var answer struct {
			Tenants []struct{ Sinks []string }
		}
		k := 0
		if !harness.Get(context.Background(), "http://"+s.Admin+"/v1/tenants", &answer) {
			return false
		}
		for _, tenant := range answer.Tenants {
			for _, sink := range tenant.Sinks {
				if sink == name {
					k++
				}
			}
		}
		return k == n
	})
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// eachLine gives the lines of all drops below a folder.
func eachLine(t *testing.T, dir string, f func(line string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, ".ndjson") {
			harness.EachLine(t, path, func(line []byte) { f(string(line)) })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
