package tenants

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datasync/exporter/tenants/conf"
)

// TestMistakes holds every message with its place to testdata/mistakes.golden,
// which a person reads.
func TestMistakes(t *testing.T) {
	t.Setenv("SECRET", "hunter2 with spaces")
	t.Setenv("TENANT", "Not A Name")
	path, err := filepath.Abs("testdata/mistakes.golden")
	if err != nil {
		t.Fatal(err)
	}
	cases, err := filepath.Glob("testdata/mistakes/*.yaml")
	if err != nil || len(cases) < 10 {
		t.Fatal("no cases", err)
	}
	texts := map[string]string{}
	for _, c := range cases {
		b, err := os.ReadFile(c)
		if err != nil {
			t.Fatal(err)
		}
		texts[filepath.Base(c)] = string(b)
	}
	tree(t, map[string]string{"afile": "x", "empty.pem": "nothing", "tenants/channels/broken.yaml": "sinks: [", "tenants/channels/fine.yaml": "sinks:\n  - name: shared\n    dir: {path: out}\n    deliver: {schedule: '* * * *'}\n"})
	certificate(t)
	var out strings.Builder
	for _, c := range cases {
		name := filepath.Base(c)
		var ps Problems
		if strings.HasPrefix(name, "service") {
			write(t, name, texts[name])
			_, ps = load(name, conf.Refs{})
			ps = ps.Sorted()
		} else {
			write(t, "tenants/"+name, texts[name])
			_, ps = LoadTenants("tenants")
			if err := os.Remove("tenants/" + name); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&out, "# %s\n%s\n\n", name, ps.Error())
	}
	if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), "Not A Name") {
		t.Error("a message shows the value of a reference")
	}
	golden(t, path, out.String())
}

func TestUnreadable(t *testing.T) {
	tree(t, map[string]string{"no-tenants.yaml": "data_dir: x\n"})
	for _, c := range []struct{ got, want string }{
		{errorOf(Load("missing.yaml")), "missing.yaml: cannot read the configuration: no such file or directory"},
		{func() string { _, ps := LoadTenants("nowhere"); return ps.Error() }(), "nowhere: cannot read the tenants' folder: no such file or directory; make it, or set tenants to the right one"},
	} {
		if c.got != c.want {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

func errorOf(_ *Service, err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}

func TestOneBadFileLeavesTheOthers(t *testing.T) {
	tree(t, map[string]string{
		"tenants/a.yaml": "tenant: a\napi_keys: [ka]\n", "tenants/b.yaml": "tenant: b\napi_keys: [ka]\n",
		"tenants/c.yaml": "tenant: a\n", "tenants/d.yml": "tenant: d\nbad: 1\n", "tenants/e.yaml": "tenant: e\napi_keys: [ke]\n",
		"tenants/readme.txt": "no", "tenants/.hidden.yaml": "no",
	})
	set, ps := LoadTenants("tenants")
	if set.Len() != 2 || set.Tenant("a") == nil || set.Tenant("e") == nil {
		t.Errorf("loaded %d tenants", set.Len())
	}
	want := `tenants/b.yaml:2:11: api key 1 is also in tenants/a.yaml; a key belongs to one tenant, so give one of them another
tenants/c.yaml:1:9: tenant "a" has a file already, tenants/a.yaml; rename this one, or remove a file
tenants/d.yml:2:1: unknown key "bad"; the tenant's file has tenant, channel, api_keys, redact, quota, alerts, sinks`
	if ps.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", ps.Error(), want)
	}
	if id, ok := set.ByKey("ke"); !ok || id != "e" {
		t.Error("key of e is not found")
	}
	if _, ok := set.ByKey("kx"); ok {
		t.Error("an unknown key is found")
	}
	if _, ok := set.ByKey(""); ok {
		t.Error("no key is found")
	}
}

func TestValidateHoldsFeedsAgainstTenants(t *testing.T) {
	tree(t, map[string]string{
		"tenants/acme.yaml": "tenant: acme\n",
		"datasync.yaml":     "feeds:\n  - name: in\n    file: {path: ./in/*, tenant: acmee}\n    format: netacea\n",
	})
	_, _, ps := Validate("datasync.yaml")
	want := `datasync.yaml:3:34: feed in is for tenant "acmee", which has no file in ./tenants; did you mean "acme"?`
	if ps.Error() != want {
		t.Errorf("got %s\nwant %s", ps.Error(), want)
	}
	write(t, "tenants/acmee.yaml", "tenant: acmee\n")
	s, set, ps := Validate("datasync.yaml")
	if len(ps) > 0 || s == nil || set.Len() != 2 {
		t.Error(ps, set.Len())
	}
}

// A certificate names a tenant where the feed does not; without one the format has to.
func TestTenantsOfTLSFeeds(t *testing.T) {
	tree(t, map[string]string{"tenants/acme.yaml": "tenant: acme\n"})
	certificate(t)
	feed := func(more string) string {
		return "feeds:\n  - name: agents\n    tls: {listen: \"127.0.0.1:6514\", cert: cert.pem, key: key.pem" + more + "}\n    format: netacea\n"
	}
	for more, want := range map[string]string{
		", tenant: acme":                          "",
		", client_ca: cert.pem":                   "",
		", client_ca: cert.pem, tenant: acme":     "",
		"":                                        "datasync.yaml:4:13: events of format netacea name no tenant; set tenant beside the feed's other settings, or client_ca, so that certificates name it",
		", client_ca: cert.pem, tenant: acmee":    "datasync.yaml:3:96: feed agents is for tenant \"acmee\", which has no file in ./tenants; did you mean \"acme\"?",
		", client_ca: missing.pem, tenant: acme":  "datasync.yaml:3:78: client_ca: cannot read missing.pem: no such file or directory",
		", client_ca: cert.pem, tenants: [acme] ": "datasync.yaml:3:88: unknown key \"tenants\"; did you mean \"tenant\"?",
	} {
		write(t, "datasync.yaml", feed(more))
		_, _, ps := Validate("datasync.yaml")
		got := ""
		if len(ps) > 0 {
			got = ps.Error()
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", more, got, want)
		}
	}
}
