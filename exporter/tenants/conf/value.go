package conf

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"time"
)

// Pos is a place in a file, from 1.
type Pos struct {
	File      string
	Line, Col int
}

// Problem is a problem at the place.
func (p Pos) Problem(format string, args ...any) Problem {
	return Problem{File: p.File, Line: p.Line, Col: p.Col, Message: fmt.Sprintf(format, args...)}
}

// Value is a checked value of a file. It is immutable once parsed, and may be
// shared between merges.
type Value struct {
	Pos Pos // of the value
	Key Pos // of its key, in a mapping

	typ  *Type
	text string // scalars, references resolved
	ref  bool   // text holds a reference: it is never shown
	bad  bool   // a problem was told; the value stands for nothing

	b bool
	i int64 // kindInt, kindSize, kindDuration
	f float64

	list   []*Value
	fields []*Value // by the object's keys; nil: absent
}

// Empty is a mapping with no key given.
func Empty(o *Object, at Pos) *Value {
	return &Value{Pos: at, Key: at, typ: &Type{kind: kindObject, object: o}, fields: make([]*Value, len(o.Keys))}
}

// Has says whether the key is given and sound.
func (v *Value) Has(name string) bool {
	f := v.fields[v.typ.object.index(name)]
	return f != nil && !f.bad
}

// Given says whether the key is written, sound or not.
func (v *Value) Given(name string) bool { return v.fields[v.typ.object.index(name)] != nil }

// At is the place of a key's value; where it is absent, of the mapping.
func (v *Value) At(name string) Pos {
	if f := v.fields[v.typ.object.index(name)]; f != nil {
		return f.Pos
	}
	return v.Pos
}

// KeyAt is the place of a key; where it is absent, of the mapping.
func (v *Value) KeyAt(name string) Pos {
	if f := v.fields[v.typ.object.index(name)]; f != nil {
		return f.Key
	}
	return v.Pos
}

// get is the key's value or default, or a zero value.
func (v *Value) get(name string) *Value {
	i := v.typ.object.index(name)
	if f := v.fields[i]; f != nil && !f.bad {
		return f
	}
	if d := v.typ.object.defaults[i]; d != nil {
		return d
	}
	return &Value{typ: &v.typ.object.Keys[i].Type}
}

// Str is the text of a key, its default, or "".
func (v *Value) Str(name string) string { return v.get(name).text }

// Shown is the text of a key for a message: hidden where it comes from a reference.
func (v *Value) Shown(name string) string { return v.get(name).shown() }

// Bool is the key's value, its default, or false.
func (v *Value) Bool(name string) bool { return v.get(name).b }

// Int is the key's whole number or bytes, its default, or 0.
func (v *Value) Int(name string) int64 { return v.get(name).i }

// Float is the key's number, its default, or 0.
func (v *Value) Float(name string) float64 { return v.get(name).f }

// Duration is the key's length of time, its default, or 0.
func (v *Value) Duration(name string) time.Duration { return time.Duration(v.get(name).i) }

// List is the sound elements of a key.
func (v *Value) List(name string) []*Value { return v.get(name).list }

// Strs is the texts of a list.
func (v *Value) Strs(name string) []string {
	list := v.get(name).list
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.text
	}
	return out
}

// Text is the text of a scalar.
func (v *Value) Text() string { return v.text }

// Obj is the mapping of a key; empty, standing where v does, where absent.
func (v *Value) Obj(name string) *Value {
	i := v.typ.object.index(name)
	if f := v.fields[i]; f != nil && !f.bad {
		return f
	}
	return Empty(v.typ.object.Keys[i].Type.object, v.Pos)
}

// shown is the text for a message: quoted, or hidden.
func (v *Value) shown() string {
	if v.ref || v.typ.secret {
		return "the value"
	}
	if len(v.text) > 80 {
		return fmt.Sprintf("%q…", v.text[:80])
	}
	return fmt.Sprintf("%q", v.text)
}

// Merge lays own over base: a key of own wins, mappings are merged key by key,
// lists of mappings by their identity key, other lists are replaced. Neither
// is changed.
func Merge(base, own *Value) *Value {
	if base == nil || base.bad {
		return own
	}
	if own == nil || own.bad {
		return base
	}
	switch {
	case own.typ.kind == kindObject:
		return mergeObjects(base, own)
	case own.typ.kind == kindList && own.typ.elem.kind == kindObject:
		return mergeLists(base, own)
	}
	return own
}

func mergeObjects(base, own *Value) *Value {
	out := *own
	out.fields = make([]*Value, len(own.fields))
	copy(out.fields, own.fields)
	o := own.typ.object
	taken := false // own made a choice among OneOf
	for _, name := range o.OneOf {
		taken = taken || own.Given(name)
	}
	for i, k := range base.typ.object.Keys {
		j, ok := o.byName[k.Name]
		if !ok || base.fields[i] == nil {
			continue
		}
		if own.fields[j] == nil && taken && o.chooses(k.Name) {
			continue
		}
		if own.fields[j] == nil {
			out.fields[j] = base.fields[i]
		} else if !own.fields[j].bad {
			out.fields[j] = Merge(base.fields[i], own.fields[j])
		}
	}
	return &out
}

func (o *Object) chooses(name string) bool {
	for _, n := range o.OneOf {
		if n == name {
			return true
		}
	}
	return false
}

func mergeLists(base, own *Value) *Value {
	out := *own
	out.list = nil
	used := make(map[string]bool, len(own.list))
	mine := make(map[string]*Value, len(own.list))
	for _, e := range own.list {
		mine[e.identity()] = e
	}
	for _, e := range base.list {
		id := e.identity()
		if m := mine[id]; m != nil && !used[id] {
			out.list, used[id] = append(out.list, Merge(e, m)), true
		} else if m == nil {
			out.list = append(out.list, e)
		}
	}
	for _, e := range own.list {
		if !used[e.identity()] {
			out.list = append(out.list, e)
		}
	}
	return &out
}

// identity is the text of the mapping's identity key.
func (v *Value) identity() string {
	for i, k := range v.typ.object.Keys {
		if k.Identity && v.fields[i] != nil {
			return v.fields[i].text
		}
	}
	return ""
}

// Complete finds the required keys that are missing and the choices that were
// not made, or made twice, anywhere below v.
func (v *Value) Complete() Problems {
	var ps Problems
	v.complete(&ps)
	return ps
}

func (v *Value) complete(ps *Problems) {
	if v == nil || v.bad {
		return
	}
	for _, e := range v.list {
		e.complete(ps)
	}
	if v.fields == nil {
		return
	}
	o := v.typ.object
	for i, k := range o.Keys {
		if k.Required && v.fields[i] == nil {
			*ps = append(*ps, v.Pos.Problem("%s needs %s: %s", o.Name, k.Name, k.Doc))
		}
		v.fields[i].complete(ps)
	}
	if len(o.OneOf) == 0 {
		return
	}
	first := ""
	for _, name := range o.OneOf {
		switch {
		case !v.Given(name):
		case first == "":
			first = name
		default:
			*ps = append(*ps, v.KeyAt(name).Problem("%s has both %s and %s; keep one of them", o.Name, first, name))
		}
	}
	if first == "" {
		*ps = append(*ps, v.Pos.Problem("%s needs one of %s", o.Name, OneOfWords(o.OneOf)))
	}
}

// Digest changes when, and only when, a value below v changes.
func (v *Value) Digest() string {
	h := sha256.New()
	v.digest(h)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func (v *Value) digest(h hash.Hash) {
	var n [8]byte
	put := func(x int) {
		binary.LittleEndian.PutUint64(n[:], uint64(x))
		h.Write(n[:])
	}
	put(len(v.text))
	h.Write([]byte(v.text))
	put(len(v.list))
	for _, e := range v.list {
		e.digest(h)
	}
	for i, f := range v.fields {
		if f != nil {
			put(i + 1)
			f.digest(h)
		}
	}
	put(0)
}
