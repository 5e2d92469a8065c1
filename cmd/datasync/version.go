package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by a release build: -ldflags "-X main.version=v1.2.3".
var version = ""

type versionCmd struct{}

// Run prints one line: the version, the commit it was built from, and Go's.
func (versionCmd) Run(c *console) error {
	_, err := fmt.Fprintf(c.Out, "datasync %s %s %s/%s\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// buildVersion is the release's version, else what the Go toolchain noted.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return describe(version, "", nil)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	return describe(version, info.Main.Version, settings)
}

func describe(release, module string, settings map[string]string) string {
	v := release
	if v == "" {
		v = module
	}
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	commit := settings["vcs.revision"]
	if release == "" && v != "devel" || len(commit) < 12 {
		return v // the toolchain's version names the commit itself
	}
	v += " (" + commit[:12]
	if settings["vcs.modified"] == "true" {
		v += ", modified"
	}
	return v + ")"
}
