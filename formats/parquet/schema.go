package parquet

import (
	"fmt"
	"slices"
	"strings"

	pq "github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"

	"datasync/schemas"
)

// extra is the column behind the canonical ones: a JSON object, as text, of the
// event's top-level members that are none of them.
const extra = "extra"

// group is a pq.Group whose members keep their order, not the alphabet's.
type group struct {
	pq.Group
	order []string
}

// Fields is the members in order.
func (g group) Fields() []pq.Field {
	fields := g.Group.Fields()
	slices.SortFunc(fields, func(a, b pq.Field) int {
		return slices.Index(g.order, a.Name()) - slices.Index(g.order, b.Name())
	})
	return fields
}

// String is the group as schema text.
func (g group) String() string { return pq.NewSchema("", g).String() }

// add puts a member behind the others.
func (g *group) add(name string, n pq.Node) {
	g.Group[name] = n
	g.order = append(g.order, name)
}

// layout is the schema of a file with the chosen top-level fields (nil: all),
// and its columns in the same order.
func layout(fields []string) (*pq.Schema, []column) {
	root := group{Group: pq.Group{}}
	var cols []column
	for n, f := range topLevel() {
		if fields != nil && !slices.Contains(fields, f.Name) {
			continue
		}
		root.add(f.Name, node(f, f.Name))
		if len(f.Members) == 0 {
			cols = append(cols, leaf(n, f, f.Name))
		}
		for _, m := range f.Members {
			cols = append(cols, leaf(n, f, f.Name+"."+m.Name))
		}
	}
	schema := pq.NewSchema("event", root)
	for i, path := range schema.Columns() {
		cols[i].describe(schema, path)
	}
	return schema, cols
}

// leaf is a column before it is described: a leaf of top-level field n.
func leaf(n int, f schemas.Field, path string) column {
	c := column{path: path, seen: 1 << n, fill: fillers[path], dictionary: dictionaries[path]}
	if f.Required {
		c.seen = ^uint64(0)
	}
	return c
}

// describe adds what the schema says of the column at path.
func (c *column) describe(schema *pq.Schema, path []string) {
	leaf, _ := schema.Lookup(path...) // it is one of the schema's own
	c.typ = leaf.Node.Type()
	c.maxRep, c.maxDef = byte(leaf.MaxRepetitionLevel), byte(leaf.MaxDefinitionLevel)
	c.meta = format.ColumnMetaData{
		Type: format.Type(c.typ.Kind()), PathInSchema: path, Encoding: []format.Encoding{format.Plain, format.RLE},
	}
	if c.dictionary {
		c.meta.Encoding = append(c.meta.Encoding, format.RLEDictionary)
	}
}

// topLevel is the canonical fields, and extra.
func topLevel() []schemas.Field {
	return append(slices.Clone(schemas.Fields()), schemas.Field{Name: extra, Type: schemas.Object})
}

// node is the schema of one field, whose path is the names from the top.
func node(f schemas.Field, path string) pq.Node {
	var n pq.Node
	switch f.Type {
	case schemas.Struct:
		n = members(f, path)
	case schemas.StructList:
		n = pq.List(members(f, path))
	case schemas.List:
		n = pq.List(encoded(pq.String(), path))
	case schemas.Time:
		n = encoded(pq.Timestamp(pq.Millisecond), path)
	case schemas.Int8:
		n = encoded(pq.Int(8), path)
	case schemas.Int32:
		n = encoded(pq.Int(32), path)
	case schemas.Int64:
		n = encoded(pq.Int(64), path)
	case schemas.Float64:
		n = encoded(pq.Leaf(pq.DoubleType), path)
	case schemas.Boolean:
		n = encoded(pq.Leaf(pq.BooleanType), path)
	default: // String, Enum, Object's text
		n = encoded(pq.String(), path)
	}
	if f.Required {
		return n
	}
	return pq.Optional(n)
}

// members is a field's members as a group.
func members(f schemas.Field, path string) pq.Node {
	g := group{Group: pq.Group{}}
	for _, m := range f.Members {
		g.add(m.Name, node(m, path+"."+m.Name))
	}
	return g
}

// encoded gives a leaf its encoding: a dictionary where it pays, else plain,
// which every reader reads (DELTA_LENGTH_BYTE_ARRAY, the library's default for
// text, some cannot).
func encoded(n pq.Node, path string) pq.Node {
	if dictionaries[path] {
		return pq.Encoded(n, &pq.RLEDictionary)
	}
	return pq.Encoded(n, &pq.Plain)
}

// Schema is the schema of a file with every column, as text.
func Schema() string {
	s, _ := layout(nil)
	return s.String() + "\n"
}

// CheckFields says which of the names has no column, and what would be right.
func CheckFields(names []string) error {
	all := topLevel()
	for _, n := range names {
		if !slices.ContainsFunc(all, func(f schemas.Field) bool { return f.Name == n }) {
			return fmt.Errorf("field %q has no column of its own in Parquet; name fields of the schema, or %q for all others: %s",
				n, extra, nearest(n, all))
		}
	}
	return nil
}

// nearest is the fields that begin alike, or all.
func nearest(name string, all []schemas.Field) string {
	var like, names []string
	head, _, _ := strings.Cut(name, "_")
	for _, f := range all {
		names = append(names, f.Name)
		if strings.HasPrefix(f.Name, head) {
			like = append(like, f.Name)
		}
	}
	if like != nil {
		names = like
	}
	return strings.Join(names, ", ")
}
