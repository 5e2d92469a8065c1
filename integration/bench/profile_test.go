package bench

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datasync/integration/harness"
)

// profiled has a row's CPU profile written while work is done: for the first
// seconds, as many as DATASYNC_PROFILE says (none: nothing is done), and then
// what was allocated. go tool pprof reads both.
func profiled(t *testing.T, s *harness.Service, work func()) {
	t.Helper()
	seconds := os.Getenv("DATASYNC_PROFILE")
	if seconds == "" {
		work()
		return
	}
	name := strings.Map(func(r rune) rune {
		if r < 'a' || r > 'z' {
			return '-'
		}
		return r
	}, strings.ToLower(filepath.Base(t.Name())))
	done := make(chan struct{})
	go func() {
		defer close(done)
		fetch(t, s, "profile?seconds="+seconds, filepath.Join(os.TempDir(), "bench"+name+".cpu"))
	}()
	work()
	<-done
	fetch(t, s, "allocs", filepath.Join(os.TempDir(), "bench"+name+".allocs"))
}

func fetch(t *testing.T, s *harness.Service, what, to string) {
	resp, err := http.Get("http://" + s.Admin + "/debug/pprof/" + what)
	if err != nil {
		t.Error(err)
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Errorf("profile %s: %v", what, err)
	}
	t.Logf("profile: %s", to)
}
