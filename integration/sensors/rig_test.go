package sensors

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/schemas"
)

const tenant = "shop"

// limit is how long anything may take; it says nothing about speed.
const limit = time.Minute

// newService is the program with an HTTP feed "edge" and a file feed for each of
// the formats, over in/FORMAT*.json; the tenant has a sink "drops" of what sinks
// get by default, and one of all there is.
func newService(t *testing.T, formats ...string) *harness.Service {
	t.Helper()
	s := harness.NewService(t, "")
	var files strings.Builder
	for _, f := range formats {
		fmt.Fprintf(&files, "  - name: %[1]s\n    file: {path: \"%[2]s/in/%[1]s*.json\", follow: true, tenant: %[3]s}\n    format: %[1]s\n", f, s.Dir, tenant)
	}
	s.Write("datasync.yaml", fmt.Sprintf(`data_dir: %[1]s/data
feeds:
  - name: edge
    http: {listen: %[2]q}
%[4]stenants: %[1]s/tenants
admin: {listen: %[3]q}
`, s.Dir, s.Feed, s.Admin, files.String()))
	sink := "  - name: %s\n    dir: {path: %s/drops}\n    compression: none\n    deliver: {max_age: 1s}\n%s"
	s.Write("tenants/"+tenant+".yaml", fmt.Sprintf("tenant: %s\napi_keys: [key]\nsinks:\n", tenant)+
		fmt.Sprintf(sink, "drops", s.Dir, "")+fmt.Sprintf(sink, "all", s.Dir, "    kinds: [mitigation, match, alert, audit, request]\n"))
	harness.Run(t, 0, "validate", "--config", filepath.Join(s.Dir, "datasync.yaml"))
	return s
}

// counts are a feed's in the ledger.
type counts struct {
	Feed                                    string
	Read, Accepted, Quarantined, Suppressed int64
}

// feeds waits until the feeds have read n values, every sink has all of its
// events, and gives what the ledger says of each feed; it must balance.
func feeds(t *testing.T, s *harness.Service, n int64) map[string]counts {
	t.Helper()
	s.Delivered(n, limit)
	var l struct {
		Balanced bool
		Feeds    []counts
	}
	if !harness.Get(context.Background(), "http://"+s.Admin+"/v1/ledger", &l) || !l.Balanced {
		t.Errorf("the ledger: %+v", l)
	}
	of := map[string]counts{}
	for _, f := range l.Feeds {
		of[f.Feed] = f
	}
	return of
}

// delivered reads every event in the drops of a sink, by what key says of it;
// none may be there twice.
func delivered(t *testing.T, s *harness.Service, sink string, key func(*schemas.Event) string) map[string]schemas.Event {
	t.Helper()
	for id, n := range harness.Drops(t, filepath.Join(s.Dir, "drops"), sink) {
		if n != 1 {
			t.Errorf("sink %s: event %s is there %d times", sink, id, n)
		}
	}
	events := map[string]schemas.Event{}
	err := filepath.WalkDir(filepath.Join(s.Dir, "drops"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, "/sink="+sink+"/") {
			return err
		}
		harness.EachLine(t, path, func(line []byte) {
			var ev schemas.Event
			if err := schemas.Decode(bytes.Clone(line), &ev); err != nil {
				t.Errorf("%s: %v: %s", path, err, line)
			}
			if _, there := events[key(&ev)]; there {
				t.Errorf("sink %s: %s is there twice", sink, key(&ev))
			}
			events[key(&ev)] = ev
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// nowhere holds every file below the folders of the program to hold no word.
func nowhere(t *testing.T, s *harness.Service, word string) {
	t.Helper()
	seen := 0
	for _, dir := range []string{"data", "drops"} {
		err := filepath.WalkDir(filepath.Join(s.Dir, dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if i := bytes.Index(b, []byte(word)); i >= 0 {
				t.Errorf("%s holds %q", path, b[max(0, i-80):min(len(b), i+40)])
			}
			seen++
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 3 {
		t.Errorf("only %d files were searched", seen)
	}
}

// post sends a body to the HTTP feed and holds the answer to a status and text.
func post(t *testing.T, s *harness.Service, path, body string, status int, says string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.Feed+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || !strings.Contains(string(answer), says) {
		t.Errorf("POST %s: %d %s (%v), want %d with %s", path, resp.StatusCode, answer, err, status, says)
	}
}
