package edge

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datasync/integration/harness"
)

// event is what the tests look at in a drop.
type event struct {
	EventID       string `json:"event_id"`
	Tenant        string `json:"tenant_id"`
	Source        string `json:"source"`
	Integration   string `json:"integration"`
	VendorVersion string `json:"vendor_version"`
	Kind          string `json:"kind"`
	RequestID     string `json:"request_id"`
	CorrelationID string `json:"correlation_id"`
	Action        string `json:"action"`
	Disposition   string `json:"disposition"`
	Enforced      bool   `json:"enforced"`
	ActionRaw     string `json:"action_raw"`
	RuleID        string `json:"rule_id"`
	Reason        string `json:"reason"`
	ClientIP      string `json:"client_ip"`
	UserAgent     string `json:"user_agent"`
	SessionID     string `json:"session_id"`
	HTTPMethod    string `json:"http_method"`
	HTTPPath      string `json:"http_path"`
	HTTPProtocol  string `json:"http_protocol"`
	HTTPStatus    int    `json:"http_status"`
	Matches       []struct {
		RuleID string `json:"rule_id"`
	} `json:"matches"`
}

// events are those in a tenant's drops; no id may come twice.
func events(t *testing.T, s *harness.Service, tenant string) (list []event) {
	t.Helper()
	seen := map[string]bool{}
	files(t, filepath.Join(s.Dir, "drops", "tenant="+tenant), func(path string) {
		if !strings.HasSuffix(path, ".ndjson") {
			return
		}
		harness.EachLine(t, path, func(line []byte) {
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v: %s", path, err, line)
			}
			if seen[e.EventID] || e.Tenant != tenant {
				t.Errorf("%s: twice, or of another tenant: %s", path, line)
			}
			seen[e.EventID] = true
			list = append(list, e)
		})
	})
	return list
}

// files calls f for every file below a folder.
func files(t *testing.T, dir string, f func(path string)) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			f(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// nowhere holds journal, quarantine, drops and log to have none of the secrets.
func nowhere(t *testing.T, s *harness.Service, log string, secrets []string) {
	t.Helper()
	look := func(where string, b []byte) {
		for _, secret := range secrets {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds %s", where, secret)
			}
		}
	}
	look("the log", []byte(log))
	looked := 0
	for _, dir := range []string{"data", "drops"} {
		files(t, filepath.Join(s.Dir, dir), func(path string) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			look(path, b)
			looked++
		})
	}
	if looked < 4 {
		t.Errorf("only %d files were there to look at", looked)
	}
}

// answer is what a post was told.
type answer struct {
	status int
	body   string
	header http.Header
}

// post sends a body to the HTTP feed; headers are pairs.
func post(t *testing.T, s *harness.Service, path, key string, body []byte, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Feed+"/v1/ingest/"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, string(b), resp.Header}
}
