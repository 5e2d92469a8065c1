package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"testing"
)

// The rules on a file that breaks them: a rule that finds nothing there would
// find nothing anywhere.
const offender = `package p

import ("context"; "testing"; "testing/synctest"; "time")

type Wide interface { small; D(); E(); F() }
type small interface { A(); B(); C() }

const Silent = 1

// Group has a comment.
const (
	One = 1
	Two = 2
)

var (
	Loud = 1 // Loud has one.
)

type T[K any] struct{}

func (t *T[K]) Method() {}
func (t *hidden) Method() {}

func NewThing(ctx context.Context, a, b string, c, d int) {}

func TestX(t *testing.T) {
	time.Sleep(1)
	t.Skip("not here")
	synctest.Test(t, func(t *testing.T) { time.Sleep(1) })
}
`

func TestTheRulesThemselves(t *testing.T) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "p.go", offender, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var silent, calls []string
	wide, args := 0, 0
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			if i, ok := n.Type.(*ast.InterfaceType); ok {
				wide = max(wide, methods(i))
			}
		case *ast.GenDecl:
			for _, id := range silentSpecs(n) {
				silent = append(silent, id.Name)
			}
		case *ast.FuncDecl:
			if constructor.MatchString(n.Name.Name) {
				args = positional(n.Type)
			}
			if n.Recv != nil && exportedReceiver(n) {
				silent = append(silent, n.Name.Name)
			}
		case *ast.CallExpr:
			name := callee(n)
			if name == "synctest.Test" {
				return false
			}
			if name == "time.Sleep" || skip.MatchString(name) {
				calls = append(calls, name)
			}
		}
		return true
	})
	if wide != 6 {
		t.Errorf("Wide has %d methods, want 6", wide)
	}
	if args != 4 {
		t.Errorf("NewThing has %d positional arguments, want 4", args)
	}
	if want := []string{"Wide", "Silent", "T", "Method"}; !slices.Equal(silent, want) {
		t.Errorf("without comment: %q, want %q", silent, want)
	}
	if want := []string{"time.Sleep", "t.Skip"}; !slices.Equal(calls, want) {
		t.Errorf("calls: %q, want %q", calls, want)
	}
	for text, bad := range map[string]bool{"// TO" + "DO: later": true, "// a TO" + "DOS attack": false, "// FIX" + "ME": true} {
		if unfinished.MatchString(text) != bad {
			t.Errorf("%q: want %v", text, bad)
		}
	}
	if !moreSentences.MatchString("Package p is small. It does more.") || moreSentences.MatchString("Package p reads data_dir/p.log and more, e.g. files.") {
		t.Error("sentences are counted wrongly")
	}
}
