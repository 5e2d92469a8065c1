package conf

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes the reference of the files that objects describe: a section
// a file, a table a mapping.
func Markdown(w io.Writer, files ...*Object) error {
	var b strings.Builder
	for _, o := range files {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", strings.ToUpper(o.Name[:1])+o.Name[1:], o.Doc)
		o.table(&b, "", map[*Object]string{})
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// table writes the keys of o, then those of the mappings in it. path is how
// one gets to o; seen says where a mapping was written out before.
func (o *Object) table(b *strings.Builder, path string, seen map[*Object]string) {
	if path != "" {
		fmt.Fprintf(b, "### `%s`\n\n", path)
		if o.Doc != "" {
			fmt.Fprintf(b, "%s\n\n", o.Doc)
		}
	}
	if len(o.OneOf) > 0 {
		fmt.Fprintf(b, "Exactly one of %s is given.\n\n", OneOfWords(o.OneOf))
	}
	b.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	for _, k := range o.Keys {
		def := k.DefaultDoc
		switch {
		case k.Default != "":
			def = "`" + k.Default + "`"
		case k.Required:
			def = "**required**"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.Name, k.Type.cell(), def, strings.ReplaceAll(k.Doc, "|", `\|`))
	}
	b.WriteString("\n")
	for _, k := range o.Keys {
		sub, dots := k.Type.object, path
		if dots != "" {
			dots += "."
		}
		dots += k.Name
		if k.Type.elem != nil {
			sub, dots = k.Type.elem.object, dots+"[]"
		}
		if sub == nil {
			continue
		}
		if at, before := seen[sub]; before {
			fmt.Fprintf(b, "### `%s`\n\nThe keys of `%s`.\n\n", dots, at)
			continue
		}
		seen[sub] = dots
		sub.table(b, dots, seen)
	}
}

// cell says in a table what a type is.
func (t *Type) cell() string {
	switch {
	case t.kind == kindList && t.elem.kind == kindObject:
		return "list of mappings"
	case t.kind == kindList && t.single:
		return t.elem.cell() + ", or a list"
	case t.kind == kindList:
		return "list of " + t.elem.cell()
	case len(t.enum) > 0:
		return "`" + strings.Join(t.enum, "` `") + "`"
	case t.secret:
		return "secret"
	}
	words := t.words()
	if t.bounded && t.max > t.min {
		words += fmt.Sprintf(", %s to %s", t.show(t.min), t.show(t.max))
	} else if t.bounded && t.min > 0 {
		words += ", at least " + t.show(t.min)
	}
	return strings.ReplaceAll(words, "|", `\|`)
}
