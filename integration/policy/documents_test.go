package policy

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// read gives a file of the repository; the test fails where there is none.
func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A package that is more than plumbing has its design beside it, short enough
// to be kept true.
func TestDesigns(t *testing.T) {
	const maxLines = 250
	for _, dir := range []string{"feeds/journal", "exporter/lane", "emitter", "feeds", "formats"} {
		t.Run(dir, func(t *testing.T) {
			text := read(t, dir+"/DESIGN.md")
			if n := strings.Count(text, "\n"); n > maxLines {
				t.Errorf("%d lines, at most %d", n, maxLines)
			}
			for _, part := range []string{"purpose", "promise", "assum", "flow", "fail", "decision"} {
				if !strings.Contains(strings.ToLower(text), part) {
					t.Errorf("nothing about %s", part)
				}
			}
		})
	}
}

var promise = regexp.MustCompile(`// promise: (.*)`)

// The lines that keep the promise are few, marked, and to be found from the
// drawing of the whole.
func TestPromisesAreListed(t *testing.T) {
	architecture := read(t, "ARCHITECTURE.md")
	marked := 0
	for _, s := range sources(t, func(s *source) bool { return productive(s) && inProduct(s) }) {
		found := promise.FindAllSubmatch(s.text, -1)
		marked += len(found)
		if len(found) > 0 && !strings.Contains(architecture, s.path) {
			t.Errorf("%s keeps a promise (%s), and ARCHITECTURE.md does not name it", s.path, found[0][1])
		}
	}
	if marked < 5 {
		t.Errorf("%d lines are marked // promise:, and the product promises more than that", marked)
	}
	for _, file := range goFile.FindAllString(architecture, -1) {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil {
			t.Errorf("ARCHITECTURE.md names %s, which is not there", file)
		}
	}
}

var goFile = regexp.MustCompile(`\b[a-z][a-z0-9_]*/[a-z0-9_/]+\.go\b`)

func TestReadmeShowsTheTwoCommandsFirst(t *testing.T) {
	const screen = 50 // lines
	lines := strings.Split(read(t, "README.md"), "\n")
	first := strings.Join(lines[:min(screen, len(lines))], "\n")
	for _, command := range []string{"go run ./cmd/datasync demo", "go test ./..."} {
		if !strings.Contains(first, command) {
			t.Errorf("%q is not on README's first screen", command)
		}
	}
}

func TestWhatAUserLooksForIsThere(t *testing.T) {
	for file, holds := range map[string]string{
		"LICENSE":         "Apache License",
		"CHANGELOG.md":    "# Changelog",
		"README.md":       "LICENSE",
		"Taskfile.yml":    "check:",
		"docs/metrics.md": "datasync_delivered_events_total",
	} {
		if !strings.Contains(read(t, file), holds) {
			t.Errorf("%s does not hold %q", file, holds)
		}
	}
	info, err := os.Stat(filepath.Join(root, ".ci/run"))
	if err != nil || info.Mode()&0o100 == 0 {
		t.Errorf(".ci/run is not there or not executable: %v", err)
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	err := walk(func(file string) error {
		if !strings.HasSuffix(file, ".md") {
			return nil
		}
		for _, m := range link.FindAllStringSubmatch(read(t, file), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, path.Dir(file), m[1])); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", file, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
