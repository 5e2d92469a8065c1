package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Trial is what `datasync test-sink --json` says.
type Trial struct {
	Works  bool
	Reason string
	Steps  []struct{ Name, Result, Seen, Reason, Hint string }
}

// Step is the last step of a name; the test fails where there is none.
func (r *Trial) Step(t testing.TB, name string) (result, seen string) {
	t.Helper()
	for i := len(r.Steps) - 1; i >= 0; i-- {
		if r.Steps[i].Name == name {
			return r.Steps[i].Result, r.Steps[i].Seen
		}
	}
	t.Fatalf("no step %s in %+v", name, r)
	return "", ""
}

// TestSink has the program try one sink out, beside the service if it runs.
func (s *Service) TestSink(sink string) *Trial {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(Binary(s.t), "test-sink", sink, "--json", "--config", filepath.Join(s.Dir, "datasync.yaml"))
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var r Trial
	if code := cmd.ProcessState.ExitCode(); json.Unmarshal(out.Bytes(), &r) != nil || code != map[bool]int{true: 0, false: 1}[r.Works] || errs.Len() > 0 {
		s.t.Fatalf("test-sink %s: exit %d (%v)\n%s%s", sink, code, err, out.String(), errs.String())
	}
	return &r
}

// SinkFails holds `datasync test-sink` to the reason that the sink's lanes show
// now, and to their words.
func (s *Service) SinkFails(sink, step, reason string) {
	s.t.Helper()
	var l struct{ State, Reason, Message string }
	Until(s.t, 30*time.Second, fmt.Sprintf("reason %s of the lanes of %s", reason, sink), func() bool {
		return Get(s.t.Context(), "http://"+s.Admin+"/v1/lanes/"+sink, &l) && l.Reason == reason
	})
	r := s.TestSink(sink)
	last := -1
	for i := range r.Steps {
		if r.Steps[i].Result == "failed" {
			last = i
		}
	}
	if r.Works || last < 0 || r.Reason != reason || r.Steps[last].Name != step {
		s.t.Errorf("%s: test-sink says %+v, want %s at step %s", sink, r, reason, step)
		return
	}
	if hint := r.Steps[last].Hint; hint == "" || !strings.Contains(l.Message, hint) {
		s.t.Errorf("%s: test-sink says to %q, its lanes say %q", sink, hint, l.Message)
	}
}
