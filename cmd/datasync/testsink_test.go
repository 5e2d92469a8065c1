package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"datasync/emitter/emittertest"
)

// sinkConfig writes a configuration whose tenant acme has these sinks, and gives its file.
func sinkConfig(t *testing.T, sinks string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "tenants"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "datasync.yaml")
	for path, text := range map[string]string{
		file:                       fmt.Sprintf("data_dir: %s/data\nfeeds:\n  - name: edge\n    http: {listen: \"127.0.0.1:0\"}\ntenants: %s/tenants\n", dir, dir),
		dir + "/tenants/acme.yaml": "tenant: acme\nsinks:\n" + sinks,
		dir + "/tenants/beta.yaml": "tenant: beta\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestTestSink(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	out := filepath.Join(t.TempDir(), "out")
	file := sinkConfig(t, fmt.Sprintf(`  - name: drops
    dir: {path: %q}
  - name: siem
    emitter: {address: %q, tls: {ca: %q}}
  - name: some
    emitter: {address: %q, tls: {ca: %q}}
    fields: [event_id, action]
  - name: wrong
    emitter: {address: %q, tls: {ca: %q}}
  - name: pair
    emitter: {address: ["127.0.0.1:1", %q], tls: {ca: %q}}
`, out, r.Addr(), r.Certs().CA, r.Addr(), r.Certs().CA, r.Addr(), r.Certs().ForeignCert, r.Addr(), r.Certs().CA))
	for _, c := range []struct {
		sink string
		code int
		want []string
	}{
		{"drops", exitOK, []string{"acme/drops: objects in folder " + out, "ok", " ms  write ", "nothing is left behind", "\nThe sink works.\n"}},
		{"siem", exitOK, []string{"acme/siem: lines over TLS to " + r.Addr(), " egress ", " connect ", "TLS 1.3", "confirm: drain", "event_id datasync-test-", "\nThe sink works.\n"}},
		{"some", exitOK, []string{"\nThe sink works.\n"}},
		{"wrong", exitFailed, []string{"failed", "tls          tls-verify: TLS handshake with", "the peer is CN=receiver", "what to do: set tls.ca", "\nThe sink would not work: tls-verify.\n"}},
		{"pair", exitOK, []string{"connect: connecting to 127.0.0.1:1", "what to do: nothing listens there", "\nThe sink works over one of its addresses at least.\n"}},
	} {
		got := call(t, nil, "test-sink", "acme/"+c.sink, "--config", file)
		if got.code != c.code || got.err != "" {
			t.Errorf("%s: %+v", c.sink, got)
		}
		for _, w := range c.want {
			if !strings.Contains(got.out, w) {
				t.Errorf("%s: no %q in\n%s", c.sink, w, got.out)
			}
		}
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("the folder was left behind")
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), "data")); err == nil {
		t.Error("data_dir was touched")
	}
	lines := r.Lines()
	if len(lines) != 3 || !regexp.MustCompile(`^\{"event_id":"datasync-test-[a-z0-9]{10}","action":"none"\}$`).MatchString(lines[1]) {
		t.Errorf("the receiver has %q", lines)
	}
}

func TestTestSinkInJSON(t *testing.T) {
	file := sinkConfig(t, "  - name: gone\n    emitter: {address: \"127.0.0.1:1\"}\n")
	got := call(t, nil, "test-sink", "acme/gone", "--json", "--config", file)
	var p testSinkReport
	if err := json.Unmarshal([]byte(got.out), &p); err != nil || got.code != exitFailed || got.err != "" {
		t.Fatalf("%v: %+v", err, got)
	}
	last := p.Steps[len(p.Steps)-1]
	if p.Sink != "acme/gone" || p.Kind != "emitter" || p.Works || p.Reason != "connect" || p.Steps[0].Result != "ok" ||
		last.Name != "connect" || last.Result != "failed" || last.Reason != "connect" || last.Hint == "" || last.Error == "" {
		t.Errorf("%+v", p)
	}
}

func TestTestSinkSaysWhatThereIs(t *testing.T) {
	file := sinkConfig(t, "  - name: drops\n    dir: {path: /tmp}\n")
	broken := sinkConfig(t, "  - name: drops\n    dyr: {path: /tmp}\n")
	for _, c := range []struct{ sink, file, want string }{
		{"acme/drop", file, `tenant acme has no sink "drop"`},
		{"acme/drop", file, `did you mean "drops"? there are: drops`},
		{"beta/drops", file, "there are no sinks"},
		{"amce/drops", file, `there is no tenant "amce"`},
		{"amce/drops", file, `did you mean "acme"? there are: acme, beta`},
		{"acme", file, "TENANT/SINK"},
		{"acme/drops", file + ".not", "cannot read the configuration"},
		{"acme/drops", broken, `unknown key "dyr"`},
	} {
		if got := call(t, nil, "test-sink", c.sink, "--config", c.file); got.code != exitUsage || !strings.Contains(got.err, c.want) || got.out != "" {
			t.Errorf("%s: %+v, want %q", c.sink, got, c.want)
		}
	}
	if got := call(t, nil, "test-sink", "acme/drops"); got.code != exitUsage || !strings.Contains(got.err, "--config") {
		t.Errorf("%+v", got)
	}
	if got := listed("sinks", "x", strings.Fields(strings.Repeat("sink-of-many ", 25))); !strings.HasSuffix(got, "and 5 more") {
		t.Error(got)
	}
}
