package conf

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds on what a file may hold; aliases count each time they are used.
const (
	maxDepth = 32
	maxNodes = 200_000
)

// Parse checks a file's bytes against its description and gives its value with
// all that is wrong in it. Missing keys are Complete's to find, after merging.
// The value is nil only where the bytes are no YAML mapping.
func Parse(file string, data []byte, o *Object, refs Refs) (*Value, Problems) {
	p := &parser{file: file, refs: refs}
	root := p.load(data)
	if len(p.problems) > 0 {
		return nil, p.problems
	}
	t := Obj(o)
	if root == nil {
		return Empty(o, Pos{File: file, Line: 1, Col: 1}), nil
	}
	v := p.value(root, &t, "the file", 0)
	if v.bad {
		return nil, p.problems
	}
	return v, p.problems
}

type parser struct {
	file     string
	refs     Refs
	problems Problems
	nodes    int
	full     bool // maxNodes was told
}

// load gives the document's node; nil for an empty file.
func (p *parser) load(data []byte) *yaml.Node {
	l, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		p.syntax(err)
		return nil
	}
	var doc, next yaml.Node
	if err := l.Load(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		p.syntax(err)
		return nil
	}
	if err := l.Load(&next); err == nil {
		p.at(&next, "a second document begins here; put it into a file of its own")
	} else if !errors.Is(err, io.EOF) {
		p.syntax(err)
	}
	if len(doc.Content) != 1 {
		return nil
	}
	return doc.Content[0]
}

func (p *parser) syntax(err error) {
	pr := Problem{File: p.file, Line: 1, Col: 1, Message: "this is not YAML: " + err.Error()}
	var le *yaml.LoadError
	if errors.As(err, &le) {
		pr.Message = "this is not YAML: " + strings.TrimPrefix(le.Message, "yaml: ")
		mark := le.Mark
		if mark.Line == 0 {
			mark = le.ContextMark
		}
		if mark.Line > 0 {
			pr.Line, pr.Col = mark.Line, mark.Column
		}
	}
	p.problems = append(p.problems, pr)
}

func (p *parser) pos(n *yaml.Node) Pos { return Pos{File: p.file, Line: n.Line, Col: n.Column} }

func (p *parser) at(n *yaml.Node, format string, args ...any) {
	p.problems = append(p.problems, p.pos(n).Problem(format, args...))
}

// value checks a node against a type; name is for messages.
func (p *parser) value(n *yaml.Node, t *Type, name string, depth int) *Value {
	v := &Value{Pos: p.pos(n), typ: t}
	if p.nodes++; depth > maxDepth || p.nodes > maxNodes {
		if v.bad = true; !p.full {
			p.full = true
			p.at(n, "this is nested too deep or too large to be settings")
		}
		return v
	}
	if n.Kind == yaml.AliasNode {
		at := v.Pos
		v = p.value(n.Alias, t, name, depth+1)
		v.Pos = at
		return v
	}
	switch t.kind {
	case kindObject:
		p.object(v, n, name, depth)
	case kindList:
		p.list(v, n, name, depth)
	default:
		p.scalar(v, n, name)
	}
	return v
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (p *parser) object(v *Value, n *yaml.Node, name string, depth int) {
	o := v.typ.object
	v.fields = make([]*Value, len(o.Keys))
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.at(n, "%s must be a mapping, with keys such as %s", name, OneOfWords(o.names()[:min(3, len(o.Keys))]))
		v.bad = true
		return
	}
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		switch {
		case key.Tag == "!!merge":
			p.at(key, "merge keys (<<) are not supported; write the keys out, or share them by a channel")
			continue
		case key.Kind != yaml.ScalarNode:
			p.at(key, "a key must be a word")
			continue
		}
		if first := seen[key.Value]; first != nil {
			p.at(key, "key %q is here twice, first at line %d; keep one", key.Value, first.Line)
			continue
		}
		seen[key.Value] = key
		at, ok := o.byName[key.Value]
		if !ok {
			p.unknown(key, o)
			continue
		}
		f := p.value(val, &o.Keys[at].Type, key.Value, depth+1)
		f.Key = p.pos(key)
		v.fields[at] = f
	}
}

// unknown tells of a key that the object does not have, and which was meant.
func (p *parser) unknown(key *yaml.Node, o *Object) {
	for _, k := range o.Keys {
		if sub := k.Type.object; sub != nil {
			if _, ok := sub.byName[key.Value]; ok {
				p.at(key, "unknown key %q; it belongs under %s", key.Value, k.Name)
				return
			}
		}
	}
	if near := Nearest(key.Value, o.names()); near != "" {
		p.at(key, "unknown key %q; did you mean %q?", key.Value, near)
		return
	}
	for _, k := range o.Keys {
		if sub := k.Type.object; sub != nil {
			if near := Nearest(key.Value, sub.names()); near != "" {
				p.at(key, "unknown key %q; did you mean %q, under %s?", key.Value, near, k.Name)
				return
			}
		}
	}
	p.at(key, "unknown key %q; %s has %s", key.Value, o.Name, strings.Join(o.names(), ", "))
}

func (p *parser) list(v *Value, n *yaml.Node, name string, depth int) {
	switch {
	case isNull(n):
	case n.Kind == yaml.SequenceNode:
		v.list = make([]*Value, 0, len(n.Content))
		for _, c := range n.Content {
			e := p.value(c, v.typ.elem, name, depth+1)
			switch e.Key = e.Pos; {
			case !e.bad:
				v.list = append(v.list, e)
			case v.typ.elem.kind != kindObject:
				v.bad = true // a list of words stands or falls as a whole
			}
		}
	case v.typ.single && n.Kind == yaml.ScalarNode:
		e := p.value(n, v.typ.elem, name, depth+1)
		if v.bad = e.bad; !v.bad {
			v.list = []*Value{e}
		}
	default:
		p.at(n, "%s must be a list, as [a, b]", name)
		v.bad = true
	}
}

func (p *parser) scalar(v *Value, n *yaml.Node, name string) {
	v.bad = true
	switch {
	case n.Kind != yaml.ScalarNode:
		p.at(n, "%s must be %s, not a mapping or a list", name, v.typ.words())
		return
	case isNull(n):
		p.at(n, "%s has no value; give one, or remove the key", name)
		return
	case !plainTags[n.Tag]:
		p.at(n, "the tag %s is not supported; write the value without it", n.Tag)
		return
	}
	v.text = n.Value
	if HasReference(n.Value) {
		text, err := p.refs.resolve(n.Value)
		if err != nil {
			p.at(n, "%s: %v", name, err)
			return
		}
		v.text, v.ref = text, true
	}
	if err := v.parse(); err != nil {
		p.at(n, "%s: %v", name, err)
		return
	}
	v.bad = false
}

var plainTags = map[string]bool{"!!str": true, "!!int": true, "!!float": true, "!!bool": true, "!!timestamp": true}

// Public is a file as a value for JSON: literal secrets as {"secret":"set"},
// references as they are written. Keys that o does not describe are left out.
func Public(data []byte, o *Object) any {
	p := &parser{}
	n := p.load(data)
	if n == nil {
		return map[string]any{}
	}
	t := Obj(o)
	return t.public(n, 0)
}

func (t *Type) public(n *yaml.Node, depth int) any {
	if depth > maxDepth {
		return nil
	}
	switch n.Kind {
	case yaml.AliasNode:
		return t.public(n.Alias, depth+1)
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; t.kind == kindObject && i+1 < len(n.Content); i += 2 {
			if at, ok := t.object.byName[n.Content[i].Value]; ok {
				out[n.Content[i].Value] = t.object.Keys[at].Type.public(n.Content[i+1], depth+1)
			}
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for _, c := range n.Content {
			if t.kind == kindList {
				out = append(out, t.elem.public(c, depth+1))
			}
		}
		return out
	}
	return t.publicScalar(n)
}

func (t *Type) publicScalar(n *yaml.Node) any {
	if t.kind == kindList && t.single {
		t = t.elem
	}
	if isNull(n) || t.kind == kindObject || t.kind == kindList {
		return nil
	}
	v := &Value{typ: t, text: n.Value}
	switch {
	case t.secret && !IsReference(n.Value):
		return map[string]string{"secret": "set"}
	case HasReference(n.Value), v.parse() != nil:
		return n.Value
	case t.kind == kindBool:
		return v.b
	case t.kind == kindInt:
		return v.i
	case t.kind == kindFloat:
		return v.f
	}
	return n.Value
}
