package policy

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// One sentence a package says what it is responsible for.
func TestOnePackageCommentEach(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range sources(t, func(s *source) bool { return !s.test }) {
		comments[s.dir] = append(comments[s.dir], nil...)
		if s.file.Doc != nil {
			comments[s.dir] = append(comments[s.dir], s.file.Doc.Text())
		}
	}
	for dir, texts := range comments {
		if len(texts) != 1 {
			t.Errorf("%s: %d package comments, want one", dir, len(texts))
			continue
		}
		text := strings.TrimSpace(texts[0])
		if !strings.HasPrefix(text, "Package ") && !strings.HasPrefix(text, "Command ") || !strings.HasSuffix(text, ".") || moreSentences.MatchString(text) {
			t.Errorf("%s: the package comment is not one sentence that begins with Package or Command: %q", dir, text)
		}
	}
}

var moreSentences = regexp.MustCompile(`\.\s+[A-Z]|\n\n`)

// What others call says what it does.
func TestExportedThingsHaveComments(t *testing.T) {
	for _, s := range sources(t, productive) {
		if s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s:%d: %s has no comment", s.path, s.line(d), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, name := range silentSpecs(d) {
					t.Errorf("%s:%d: %s has no comment", s.path, s.line(name), name.Name)
				}
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	for {
		switch x := typ.(type) {
		case *ast.StarExpr:
			typ = x.X
		case *ast.IndexExpr:
			typ = x.X
		case *ast.IndexListExpr:
			typ = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// silentSpecs are the exported names of a declaration that no comment is about.
func silentSpecs(d *ast.GenDecl) []*ast.Ident {
	if d.Doc != nil && d.Tok != token.TYPE {
		return nil // a comment for the whole group
	}
	var out []*ast.Ident
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() && spec.Doc == nil && d.Doc == nil {
				out = append(out, spec.Name)
			}
		case *ast.ValueSpec:
			for _, n := range spec.Names {
				if n.IsExported() && spec.Doc == nil && spec.Comment == nil {
					out = append(out, n)
				}
			}
		}
	}
	return out
}

var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func TestNothingIsLeftForLater(t *testing.T) {
	for _, s := range sources(t, written) {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				if unfinished.MatchString(c.Text) {
					t.Errorf("%s:%d: %s", s.path, s.line(c), c.Text)
				}
			}
		}
	}
	err := walk(func(path string) error {
		if !slices.ContainsFunc([]string{".md", ".yml", ".yaml", ".mjs", ".sh", "run"}, func(end string) bool { return strings.HasSuffix(path, end) }) {
			return nil
		}
		for i, line := range strings.Split(read(t, path), "\n") {
			if unfinished.MatchString(line) {
				t.Errorf("%s:%d: %s", path, i+1, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A test that is skipped says nothing and looks green; one that sleeps is slow
// on a fast machine and fails on a slow one. Inside a synctest bubble time is
// virtual and sleeping is fine.
func TestTestsNeitherSkipNorSleep(t *testing.T) {
	f := newFinder(t, sleepExceptions)
	for _, s := range sources(t, func(s *source) bool { return s.test }) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch name := callee(call); {
			case name == "synctest.Test":
				return false
			case name == "time.Sleep":
				f.found(s.path, "line %d sleeps; wait for the thing itself, or use testing/synctest", s.line(call))
			case skip.MatchString(name):
				f.found(s.path, "line %d skips (%s); what a test needs is there, or it fails", s.line(call), name)
			}
			return true
		})
	}
	f.done()
}

var skip = regexp.MustCompile(`^(t|b|f|tb|rt)\.Skip(f|Now)?$|^testing\.Short$`)

func callee(call *ast.CallExpr) string {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + sel.Sel.Name
}
