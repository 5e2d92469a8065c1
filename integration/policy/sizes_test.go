package policy

import (
	"bytes"
	"go/ast"
	"regexp"
	"testing"
)

// The sizes at which one stops to think: split, or write the reason down in
// exceptions_test.go.
const (
	maxFunction     = 70  // lines
	maxTestFunction = 120 // lines: tables are long
	maxFile         = 500 // lines
	maxMethods      = 5   // of an interface
	maxFiles        = 8   // of a package, tests not counted
	maxPositional   = 3   // parameters of a constructor, a context not counted
)

func TestFunctionsAreShort(t *testing.T) {
	f := newFinder(t, functionExceptions)
	for _, s := range sources(t, written) {
		limit := maxFunction
		if s.test {
			limit = maxTestFunction
		}
		for _, d := range s.file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && s.lines(fn) > limit {
				f.found(s.path+" "+fn.Name.Name, "%d lines, at most %d", s.lines(fn), limit)
			}
		}
	}
	f.done()
}

func TestFilesAreShort(t *testing.T) {
	f := newFinder(t, fileExceptions)
	for _, s := range sources(t, written) {
		if n := bytes.Count(s.text, []byte("\n")); n > maxFile {
			f.found(s.path, "%d lines, at most %d", n, maxFile)
		}
	}
	f.done()
}

func TestInterfacesAreNarrow(t *testing.T) {
	f := newFinder(t, interfaceExceptions)
	for _, s := range sources(t, written) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if i, ok := spec.Type.(*ast.InterfaceType); ok && methods(i) > maxMethods {
				f.found(s.path+" "+spec.Name.Name, "%d methods, at most %d", methods(i), maxMethods)
			}
			return true
		})
	}
	f.done()
}

// methods counts an interface's methods; one that is embedded counts as one
// where its methods stand elsewhere.
func methods(i *ast.InterfaceType) int {
	n := 0
	for _, m := range i.Methods.List {
		inner := 1
		if id, ok := m.Type.(*ast.Ident); ok && id.Obj != nil {
			if spec, ok := id.Obj.Decl.(*ast.TypeSpec); ok {
				if sub, ok := spec.Type.(*ast.InterfaceType); ok {
					inner = methods(sub)
				}
			}
		}
		n += max(inner, len(m.Names))
	}
	return n
}

func TestPackagesAreSmall(t *testing.T) {
	f := newFinder(t, packageExceptions)
	files := map[string]int{}
	for _, s := range sources(t, productive) {
		files[s.dir]++
	}
	for dir, n := range files {
		if n > maxFiles {
			f.found(dir, "%d files, at most %d", n, maxFiles)
		}
	}
	// An exception that stands for files still to come is not stale.
	for dir := range f.except {
		f.used[dir] = f.used[dir] || files[dir] > maxFiles/2
	}
	f.done()
}

var constructor = regexp.MustCompile(`^(New|new|Open|open|Dial|Make)([A-Z]|$)`)

func TestConstructorsTakeFewArguments(t *testing.T) {
	f := newFinder(t, constructorExceptions)
	for _, s := range sources(t, productive) {
		for _, d := range s.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !constructor.MatchString(fn.Name.Name) {
				continue
			}
			if n := positional(fn.Type); n > maxPositional {
				f.found(s.path+" "+fn.Name.Name, "%d positional arguments, at most %d; the rest goes into an Options struct", n, maxPositional)
			}
		}
	}
	f.done()
}

func positional(fn *ast.FuncType) int {
	n := 0
	for _, p := range fn.Params.List {
		if sel, ok := p.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
			continue
		}
		n += max(1, len(p.Names))
	}
	return n
}
