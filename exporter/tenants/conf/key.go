package conf

import (
	"fmt"
	"slices"
	"time"
)

// Object describes a mapping: which keys it may hold. It is made once, with
// NewObject, and never changed.
type Object struct {
	Name string // "feed", "s3": for messages and as the schema's definition
	Doc  string
	Keys []Key
	// OneOf names keys of which exactly one must be given.
	OneOf []string
	// Partial says that required keys may come from another file that this one
	// is merged over, so the schema of one file cannot demand them.
	Partial bool

	byName   map[string]int
	defaults []*Value
}

// Key describes one key of an Object.
type Key struct {
	Name string
	Type Type
	Doc  string
	// Default is the value where the key is absent, as it would be written.
	Default string
	// DefaultDoc says in words what an absent key means, where it is no constant.
	DefaultDoc string
	// Required keys must be given; Identity keys in each file, not only merged.
	Required, Identity bool
}

// NewObject makes the description usable. It panics where the description
// contradicts itself: that is a mistake in the program.
func NewObject(o Object) *Object {
	o.byName = make(map[string]int, len(o.Keys))
	o.defaults = make([]*Value, len(o.Keys))
	for i := range o.Keys {
		k := &o.Keys[i]
		if _, twice := o.byName[k.Name]; twice {
			panic("conf: " + o.Name + " describes " + k.Name + " twice")
		}
		o.byName[k.Name] = i
		if k.Default == "" {
			continue
		}
		v := &Value{typ: &k.Type, text: k.Default}
		if err := v.parse(); err != nil {
			panic("conf: default of " + o.Name + "." + k.Name + ": " + err.Error())
		}
		o.defaults[i] = v
	}
	for _, name := range o.OneOf {
		o.index(name)
	}
	return &o
}

func (o *Object) index(name string) int {
	i, ok := o.byName[name]
	if !ok {
		panic(fmt.Sprintf("conf: %s describes no key %q", o.Name, name))
	}
	return i
}

// names are the keys, in the order described.
func (o *Object) names() []string {
	out := make([]string, len(o.Keys))
	for i, k := range o.Keys {
		out[i] = k.Name
	}
	return out
}

type kind uint8

const (
	kindString kind = iota
	kindBool
	kindInt
	kindFloat
	kindSize
	kindDuration
	kindList
	kindObject
)

// Type describes a value.
type Type struct {
	kind     kind
	secret   bool
	enum     []string
	pattern  string // for the schema; check judges
	min, max float64
	bounded  bool
	elem     *Type
	single   bool // a list of one may be written as the value alone
	object   *Object
	check    func(string) error
	format   string // for people: "host:port", "a path"
}

// String is any text that is not empty.
func String() Type { return Type{kind: kindString} }

// Secret is text that is never shown.
func Secret() Type { return Type{kind: kindString, secret: true} }

// Enum is one of the words.
func Enum(words ...string) Type { return Type{kind: kindString, enum: words} }

// Bool is true or false.
func Bool() Type { return Type{kind: kindBool} }

// Int is a whole number from min to max.
func Int(lo, hi int64) Type {
	return Type{kind: kindInt, min: float64(lo), max: float64(hi), bounded: true}
}

// Float is a number from min to max.
func Float(lo, hi float64) Type { return Type{kind: kindFloat, min: lo, max: hi, bounded: true} }

// Size is an amount of bytes, at least min: 10MiB, 1GB, 4096.
func Size(lo int64) Type { return Type{kind: kindSize, min: float64(lo), bounded: true} }

// Duration is a length of time, at least min: 10s, 24h, 7d.
func Duration(lo time.Duration) Type {
	return Type{kind: kindDuration, min: float64(lo), bounded: true}
}

// List is a list of elem.
func List(elem Type) Type { return Type{kind: kindList, elem: &elem} }

// OneOrMore is a list of elem, or one elem alone.
func OneOrMore(elem Type) Type { return Type{kind: kindList, elem: &elem, single: true} }

// Obj is a mapping.
func Obj(o *Object) Type { return Type{kind: kindObject, object: o} }

// Where adds a test of the text: its error says what is wrong, without the
// value, and what would be right. format names the shape for people.
func (t Type) Where(format string, check func(string) error) Type {
	t.format, t.check = format, check
	return t
}

// Pattern adds a regular expression to the schema; Where judges.
func (t Type) Pattern(re string) Type {
	t.pattern = re
	return t
}

// Nearest is the candidate that s is most likely a misspelling of; "" where
// none is near.
func Nearest(s string, candidates []string) string {
	best, bestAt := "", 1+max(1, len(s)/3)
	for _, c := range candidates {
		if d := distance(s, c); d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// distance counts the insertions, deletions, changes and swaps of neighbours
// between a and b.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var rows [3][65]int
	for j := range len(b) + 1 {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		older, old, row := &rows[(i+2)%3], &rows[i%3], &rows[(i+1)%3]
		if i == 1 {
			older, old, row = &rows[0], &rows[1], &rows[2]
		}
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(old[j]+1, row[j-1]+1, old[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], older[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}

// OneOfWords is "a, b or c".
func OneOfWords(words []string) string {
	switch len(words) {
	case 0:
		return ""
	case 1:
		return words[0]
	}
	out := words[0]
	for _, w := range words[1 : len(words)-1] {
		out += ", " + w
	}
	return out + " or " + words[len(words)-1]
}

// Known says whether word is one of words; the error names them and the
// nearest. what is the noun: "field", "kind".
func Known(what, word string, words []string) error {
	if slices.Contains(words, word) {
		return nil
	}
	if n := Nearest(word, words); n != "" {
		return fmt.Errorf("unknown %s %q; did you mean %q?", what, word, n)
	}
	if len(words) > 20 {
		return fmt.Errorf("unknown %s %q", what, word)
	}
	return fmt.Errorf("unknown %s %q; use %s", what, word, OneOfWords(words))
}
