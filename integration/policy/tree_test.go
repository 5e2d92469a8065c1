package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const root = "../.."

// source is one Go file of the repository, both modules.
type source struct {
	path    string // from the root, with slashes
	dir     string // its package: "feeds/journal"
	test    bool
	made    bool // generated
	text    []byte
	set     *token.FileSet
	file    *ast.File
	imports []string
}

// line is where a node begins.
func (s *source) line(n ast.Node) int { return s.set.Position(n.Pos()).Line }

// lines is how many lines a node takes.
func (s *source) lines(n ast.Node) int { return s.set.Position(n.End()).Line - s.line(n) + 1 }

// tree is every Go file, parsed once for all tests.
var tree = sync.OnceValues(func() ([]*source, error) {
	var out []*source
	err := walk(func(path string) error {
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		s, err := parse(path)
		out = append(out, s)
		return err
	})
	return out, err
})

// walk visits every file of the repository that people write.
func walk(visit func(path string) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if slices.Contains([]string{".git", ".task", ".testbed", "node_modules", "testdata", "bin", "data", "demo-data"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		return visit(rel)
	})
}

func parse(path string) (*source, error) {
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return nil, err
	}
	dir := filepath.ToSlash(filepath.Dir(path))
	s := &source{path: path, dir: dir, test: strings.HasSuffix(path, "_test.go"), text: text, set: token.NewFileSet()}
	s.file, err = parser.ParseFile(s.set, path, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	s.made = ast.IsGenerated(s.file)
	for _, i := range s.file.Imports {
		s.imports = append(s.imports, strings.Trim(i.Path.Value, `"`))
	}
	return s, nil
}

// sources gives every Go file, or those that keep returns true for.
func sources(t *testing.T, keep func(*source) bool) []*source {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	var out []*source
	for _, s := range all {
		if keep(s) {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		t.Fatal("no source found: the test looks in the wrong place")
	}
	return out
}

func written(s *source) bool    { return !s.made }
func productive(s *source) bool { return !s.test && !s.made }

// exceptions are places that a rule lets be, each with its reason.
type exceptions map[string]string

// finder collects what breaks a rule, and which exceptions were needed.
type finder struct {
	t      *testing.T
	except exceptions
	used   map[string]bool
}

func newFinder(t *testing.T, e exceptions) *finder {
	return &finder{t, e, map[string]bool{}}
}

// found reports that key breaks the rule, unless it is excepted.
func (f *finder) found(key, format string, args ...any) {
	f.t.Helper()
	if f.except[key] != "" {
		f.used[key] = true
		return
	}
	f.t.Errorf(key+": "+format, args...)
}

// done reports exceptions that nothing needs any more.
func (f *finder) done() {
	f.t.Helper()
	for key := range f.except {
		if !f.used[key] {
			f.t.Errorf("the exception for %s is not needed any more; remove it", key)
		}
	}
}
