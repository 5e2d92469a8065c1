package tenants

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"

	"datasync/exporter/tenants/conf"
	"datasync/schemas"
)

const (
	// maxFilter is the longest filter, in bytes.
	maxFilter = 8 << 10
	// filterCost bounds one evaluation, in CEL's units: a comparison is about
	// one, a look through text one per ten bytes. A filter of ordinary size
	// stays below a thousand.
	filterCost = 50_000
)

// Filter is a compiled CEL expression over a canonical event. It may be used
// by many goroutines at once.
//
// Its variables are the canonical fields by name, those of net, host,
// decision, audit, agg and meta as net.dst_ip and so on; matches is a list of
// maps. A field that the event does not have is "", 0, false or [].
type Filter struct {
	src string
	prg cel.Program
}

// String is the filter's source.
func (f *Filter) String() string { return f.src }

// CompileFilter compiles a filter. The error says where in the expression the
// mistake is and, for a misspelt field, which was meant.
func CompileFilter(src string) (*Filter, error) {
	if len(src) > maxFilter {
		return nil, fmt.Errorf("the filter is longer than %d bytes", maxFilter)
	}
	if strings.TrimSpace(src) == "" {
		return nil, errors.New("the filter is empty; remove the key, or write one as enforced && severity >= 3")
	}
	env, err := filterEnv()
	if err != nil {
		return nil, err
	}
	checked, issues := env.Compile(src)
	if issues != nil && issues.Err() != nil {
		return nil, filterError(src, issues)
	}
	if checked.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("the filter gives %s, not true or false; compare it with something", checked.OutputType())
	}
	prg, err := env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(filterCost))
	if err != nil {
		return nil, fmt.Errorf("the filter cannot be used: %w", err)
	}
	return &Filter{src: src, prg: prg}, nil
}

// Match says whether the filter lets the event pass. An error is one of
// evaluation: an index out of range, a division by zero, too much work.
func (f *Filter) Match(e *schemas.Event) (bool, error) {
	out, _, err := f.prg.Eval(&row{event: reflect.ValueOf(e).Elem()})
	if err != nil {
		return false, fmt.Errorf("filter %q: %w", f.src, err)
	}
	return out == types.True, nil
}

// filterError puts CEL's findings into one line.
func filterError(src string, issues *cel.Issues) error {
	var parts []string
	for _, e := range issues.Errors() {
		msg := strings.TrimSuffix(e.Message, " (in container '')")
		if name, ok := strings.CutPrefix(msg, "undeclared reference to '"); ok {
			name = dotted(src, e.Location.Line(), e.Location.Column(), strings.TrimSuffix(name, "'"))
			msg = fmt.Sprintf("unknown field or function %q", name)
			if near := conf.Nearest(name, filterNames()); near != "" {
				msg += fmt.Sprintf("; did you mean %q?", near)
			}
		}
		msg, _, _ = strings.Cut(strings.ReplaceAll(msg, "Syntax error: ", ""), " expecting {")
		parts = append(parts, fmt.Sprintf("%s (at %d:%d of the expression)", msg, e.Location.Line(), e.Location.Column()+1))
		if len(parts) == 3 {
			break
		}
	}
	return errors.New(strings.Join(parts, "; "))
}

// dotted is the name that begins at a place, with what follows its dots.
func dotted(src string, line, col int, name string) string {
	lines := strings.Split(src, "\n")
	if line < 1 || line > len(lines) || col < 0 || col > len(lines[line-1]) {
		return name
	}
	rest := lines[line-1][col:]
	end := strings.IndexFunc(rest, func(r rune) bool {
		return r != '_' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	if end >= 0 {
		rest = rest[:end]
	}
	isStruct := func(known string) bool { return strings.HasPrefix(known, name+".") }
	if !isStruct(rest) || !slices.ContainsFunc(filterNames(), isStruct) {
		return name
	}
	return rest
}

// filterEnv is made once: it costs milliseconds and a megabyte.
var filterEnv = sync.OnceValues(func() (*cel.Env, error) {
	opts := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(maxFilter),
		cel.ParserRecursionLimit(64),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateRegexProgramSizeLimit(1000),
			cel.ValidateComprehensionNestingLimit(2), prefixes{}),
		ext.Strings(ext.StringsVersion(4)),
		ext.Sets(),
		cel.Function("cidr", cel.Overload("cidr_string_string", []*cel.Type{cel.StringType, cel.StringType},
			cel.BoolType, cel.BinaryBinding(inPrefix))),
	}
	for _, b := range bindings() {
		opts = append(opts, cel.Variable(b.name, b.celType()))
	}
	return cel.NewEnv(opts...)
})

// inPrefix is cidr("10.0.0.0/8", client_ip): false for what is no address.
func inPrefix(prefix, addr ref.Val) ref.Val {
	p, ok1 := prefix.Value().(string)
	a, ok2 := addr.Value().(string)
	if !ok1 || !ok2 {
		return types.MaybeNoSuchOverloadErr(prefix)
	}
	pre, err := netip.ParsePrefix(p)
	if err != nil {
		return types.NewErr("cidr: %q is no prefix; write one as 10.0.0.0/8", p)
	}
	ip, err := netip.ParseAddr(a)
	return types.Bool(err == nil && pre.Contains(ip.Unmap()))
}

// prefixes refuses a cidr() whose prefix, written out, is none.
type prefixes struct{}

func (prefixes) Name() string { return "datasync.cidr" }

func (prefixes) Validate(_ *cel.Env, _ cel.ValidatorConfig, a *ast.AST, issues *cel.Issues) {
	for _, call := range ast.MatchDescendants(ast.NavigateAST(a), ast.FunctionMatcher("cidr")) {
		arg := call.AsCall().Args()[0]
		if arg.Kind() != ast.LiteralKind {
			continue
		}
		s, _ := arg.AsLiteral().Value().(string)
		if _, err := netip.ParsePrefix(s); err != nil {
			issues.ReportErrorAtID(arg.ID(), "%q is no prefix; write one as 10.0.0.0/8", s)
		}
	}
}

// binding ties a variable to a field of schemas.Event.
type binding struct {
	name    string
	field   schemas.Field
	path    []int
	members []binding // StructList
}

func (b *binding) celType() *cel.Type {
	switch b.field.Type {
	case schemas.Time, schemas.Int8, schemas.Int32, schemas.Int64:
		return cel.IntType
	case schemas.Float64:
		return cel.DoubleType
	case schemas.Boolean:
		return cel.BoolType
	case schemas.List:
		return cel.ListType(cel.StringType)
	case schemas.StructList:
		return cel.ListType(cel.MapType(cel.StringType, cel.DynType))
	default:
		return cel.StringType
	}
}

// bindings finds the Go field of each canonical field: their names differ only
// in case and underscores. A struct's members become variables of their own.
var bindings = sync.OnceValue(func() []binding {
	return bind("", nil, reflect.TypeFor[schemas.Event](), schemas.Fields())
})

func bind(prefix string, path []int, in reflect.Type, fields []schemas.Field) []binding {
	var out []binding
	for _, f := range fields {
		want := strings.ReplaceAll(f.Name, "_", "")
		sf, ok := in.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, want) })
		if !ok {
			panic("tenants: schemas." + in.Name() + " has no field for " + f.Name)
		}
		at := append(append([]int(nil), path...), sf.Index...)
		switch f.Type {
		case schemas.Struct:
			out = append(out, bind(f.Name+".", at, sf.Type, f.Members)...)
		case schemas.StructList:
			out = append(out, binding{name: f.Name, field: f, path: at, members: bind("", nil, sf.Type.Elem(), f.Members)})
		default:
			out = append(out, binding{name: prefix + f.Name, field: f, path: at})
		}
	}
	return out
}

var bound = sync.OnceValue(func() map[string]*binding {
	out := make(map[string]*binding)
	all := bindings()
	for i := range all {
		out[all[i].name] = &all[i]
	}
	return out
})

func filterNames() []string {
	var out []string
	for _, b := range bindings() {
		out = append(out, b.name)
	}
	return out
}

// row shows an event to a filter.
type row struct{ event reflect.Value }

// ResolveName gives a variable's value.
func (r *row) ResolveName(name string) (any, bool) {
	b, ok := bound()[name]
	if !ok {
		return nil, false
	}
	return b.value(r.event), true
}

// Parent is none.
func (r *row) Parent() interpreter.Activation { return nil }

// value is the field's value in v, its zero value where it is absent.
func (b *binding) value(v reflect.Value) ref.Val {
	f := v.FieldByIndex(b.path)
	if f.Kind() == reflect.Struct { // schemas.Int, Float, Bool: the value comes first
		f = f.Field(0)
	}
	switch f.Kind() {
	case reflect.String:
		return types.String(f.String())
	case reflect.Bool:
		return types.Bool(f.Bool())
	case reflect.Float64:
		return types.Double(f.Float())
	case reflect.Slice:
		return b.listValue(f)
	default:
		return types.Int(f.Int())
	}
}

func (b *binding) listValue(f reflect.Value) ref.Val {
	if b.members == nil {
		list, _ := f.Interface().([]string)
		return types.NewStringList(types.DefaultTypeAdapter, list)
	}
	elems := make([]ref.Val, f.Len())
	for i := range elems {
		m := make(map[ref.Val]ref.Val, len(b.members))
		for j := range b.members {
			m[types.String(b.members[j].name)] = b.members[j].value(f.Index(i))
		}
		elems[i] = types.NewRefValMap(types.DefaultTypeAdapter, m)
	}
	return types.NewRefValList(types.DefaultTypeAdapter, elems)
}
