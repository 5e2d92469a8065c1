package conf

import (
	"encoding/json"
	"strings"
)

// words says in words what a type is.
func (t *Type) words() string {
	switch {
	case t.format != "":
		return t.format
	case len(t.enum) > 0:
		return OneOfWords(t.enum)
	}
	switch t.kind {
	case kindString:
		return "text"
	case kindBool:
		return "true or false"
	case kindInt:
		return "a whole number"
	case kindFloat:
		return "a number"
	case kindSize:
		return "a size"
	case kindDuration:
		return "a duration"
	case kindList:
		return "a list"
	}
	return "a mapping"
}

const reference = `\$\{(env|file):[^}]+\}`

// JSONSchema is the JSON Schema (2020-12) of a file that o describes.
func JSONSchema(o *Object, id string) []byte {
	s := o.schema()
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"] = id
	s["title"] = o.Name
	s["$defs"] = map[string]any{"reference": map[string]any{
		"type": "string", "pattern": reference,
		"description": "A value from an environment variable (${env:NAME}) or a file (${file:PATH}).",
	}}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("conf: a schema that is no JSON: " + err.Error()) // a description's default is no JSON: a mistake in the program
	}
	return append(b, '\n')
}

func (o *Object) schema() map[string]any {
	props := make(map[string]any, len(o.Keys))
	var required []string
	for _, k := range o.Keys {
		s := k.Type.schema()
		s["description"] = k.Doc
		if k.Default != "" {
			s["default"] = k.Type.defaultJSON(k.Default)
		}
		props[k.Name] = s
		if k.Identity || k.Required && !o.Partial {
			required = append(required, k.Name)
		}
	}
	s := map[string]any{"type": "object", "additionalProperties": false, "properties": props}
	if o.Doc != "" {
		s["description"] = o.Doc
	}
	if required != nil {
		s["required"] = required
	}
	if len(o.OneOf) > 0 {
		var choices []any
		for _, name := range o.OneOf {
			choices = append(choices, map[string]any{"required": []string{name}})
		}
		if o.Partial {
			choices = append(choices, map[string]any{"not": map[string]any{"anyOf": append([]any(nil), choices...)}})
		}
		s["oneOf"] = choices
	}
	return s
}

func (t *Type) schema() map[string]any {
	ref := map[string]any{"$ref": "#/$defs/reference"}
	orRef := func(s map[string]any) map[string]any { return map[string]any{"anyOf": []any{s, ref}} }
	switch t.kind {
	case kindObject:
		return t.object.schema()
	case kindList:
		list := map[string]any{"type": "array", "items": t.elem.schema()}
		if t.single {
			return map[string]any{"anyOf": []any{list, t.elem.schema()}}
		}
		return list
	case kindBool:
		return orRef(map[string]any{"type": "boolean"})
	case kindInt, kindFloat:
		s := map[string]any{"type": map[bool]string{true: "integer", false: "number"}[t.kind == kindInt], "minimum": t.min}
		if t.max > t.min {
			s["maximum"] = t.max
		}
		return orRef(s)
	case kindSize:
		return orRef(map[string]any{"type": []string{"string", "integer"}, "pattern": sizeForm.String()})
	case kindDuration:
		return orRef(map[string]any{"type": "string", "pattern": `^([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*$`})
	}
	if len(t.enum) > 0 {
		return orRef(map[string]any{"enum": t.enum})
	}
	s := map[string]any{"type": "string"}
	if t.pattern != "" {
		s["pattern"] = t.pattern
		return orRef(s)
	}
	s["minLength"] = 1
	return s
}

// defaultJSON is a default as JSON has it.
func (t *Type) defaultJSON(text string) any {
	switch t.kind {
	case kindBool, kindInt, kindFloat:
		return json.RawMessage(strings.ReplaceAll(text, "_", ""))
	}
	return text
}
