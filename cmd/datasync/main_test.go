package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// result is what a call of the program gave.
type result struct {
	code     int
	out, err string
}

func call(t *testing.T, env map[string]string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(t.Context(), args, &console{In: strings.NewReader(""), Out: &out, Err: &errs, Getenv: func(k string) string { return env[k] }})
	return result{code, out.String(), errs.String()}
}

func TestBadUsageIsExit2WithAHint(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "datasync --help"},
		{[]string{"bogus"}, "datasync --help"},
		{[]string{"status", "--bogus"}, "--bogus"},
		{[]string{"pause"}, "tenant/sink"},
		{[]string{"pause", "acme"}, "TENANT/SINK"},
		{[]string{"pause", "acme/../healthz"}, "TENANT/SINK"},
		{[]string{"flush", "ACME/siem"}, "TENANT/SINK"},
		{[]string{"status", "--admin", "ftp://here"}, "http://127.0.0.1:8080"},
		{[]string{"status", "--admin", "http://"}, "http://127.0.0.1:8080"},
	} {
		got := call(t, nil, c.args...)
		if got.code != exitUsage || !strings.Contains(got.err, c.want) || got.out != "" {
			t.Errorf("%q: %+v, want exit 2 and %q on standard error", c.args, got, c.want)
		}
	}
}

func TestHelpIsExit0(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"status", "--help"}} {
		if got := call(t, nil, args...); got.code != exitOK || !strings.Contains(got.out, "Usage: datasync") {
			t.Errorf("%q: %+v", args, got)
		}
	}
}

func TestExitCodes(t *testing.T) {
	var errs bytes.Buffer
	c := &console{Err: &errs}
	for _, x := range []struct {
		err  error
		code int
		said string
	}{
		{errors.New("no"), exitFailed, "datasync: no\n"},
		{usagef("bad %d", 7), exitUsage, "datasync: bad 7\n"},
		{fmt.Errorf("reading: %w", usagef("bad")), exitUsage, "datasync: reading: bad\n"},
		{exitCode(2), exitUsage, ""},
		{context.Canceled, exitFailed, "datasync: context canceled\n"},
	} {
		errs.Reset()
		if code := c.fail(x.err); code != x.code || errs.String() != x.said {
			t.Errorf("%v: exit %d and %q", x.err, code, errs.String())
		}
	}
}

func TestVersion(t *testing.T) {
	if got := call(t, nil, "version"); got.code != exitOK || !strings.HasPrefix(got.out, "datasync ") || strings.Count(got.out, "\n") != 1 {
		t.Errorf("%+v", got)
	}
	vcs := map[string]string{"vcs.revision": "0123456789abcdef0123", "vcs.modified": "true"}
	for _, c := range []struct {
		release, module string
		settings        map[string]string
		want            string
	}{
		{"v1.2.3", "(devel)", vcs, "v1.2.3 (0123456789ab, modified)"},
		{"", "(devel)", vcs, "devel (0123456789ab, modified)"},
		{"", "v0.0.0-20260101-0123456789ab", vcs, "v0.0.0-20260101-0123456789ab"},
		{"", "", nil, "devel"},
	} {
		if got := describe(c.release, c.module, c.settings); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
