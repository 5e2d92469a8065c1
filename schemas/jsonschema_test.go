package schemas

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write generated files anew")

// TestJSONSchemaIsFresh generates the JSON Schema from the table and compares
// it with the file that is embedded; with -update it writes that file.
func TestJSONSchemaIsFresh(t *testing.T) {
	schema := object{
		{"$schema", "https://json-schema.org/draft/2020-12/schema"},
		{"$id", "urn:datasync:" + Version},
		{"title", "Canonical mitigation event, " + Version},
		{"description", "One line of JSON, at most 262144 bytes. Members that are not described here stay where they are."},
	}
	schema = append(schema, membersSchema(fields[:])...)
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(schema); err != nil {
		t.Fatal(err)
	}
	plain := bytes.ReplaceAll(want.Bytes(), []byte(`\u0026`), []byte("&"))
	if *update {
		if err := os.WriteFile("mitigation-1.schema.json", plain, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(plain, JSONSchema()) {
		t.Error("mitigation-1.schema.json is not what the table says; run: go test ./schemas -run JSONSchema -update")
	}
}

func membersSchema(table []Field) object {
	var properties object
	required := []string{}
	for _, f := range table {
		properties = append(properties, member{f.Name, fieldSchema(&f)})
		if f.Required {
			required = append(required, f.Name)
		}
	}
	out := object{{"type", "object"}}
	if len(required) > 0 {
		out = append(out, member{"required", required})
	}
	return append(out, member{"properties", properties})
}

func fieldSchema(f *Field) object {
	// Optional fields of another type are kept aside, not refused; a schema for
	// consumers says what they will find.
	s := object{{"description", f.Doc}}
	switch f.Type {
	case String:
		s = append(s, member{"type", "string"})
		if f.Required {
			s = append(s, member{"minLength", 1})
		}
	case Enum:
		s = append(s, member{"type", "string"}, member{"enum", f.Values})
	case Time:
		s = append(s, member{"type", "integer"})
		if f.Name == "event_time" {
			s = append(s, member{"minimum", int64(Earliest)})
		}
	case Int8:
		s = append(s, member{"type", "integer"}, member{"minimum", 0}, member{"maximum", 5})
	case Int32:
		s = append(s, member{"type", "integer"}, member{"minimum", -1 << 31}, member{"maximum", 1<<31 - 1})
	case Int64:
		s = append(s, member{"type", "integer"})
	case Float64:
		s = append(s, member{"type", "number"})
	case Boolean:
		s = append(s, member{"type", "boolean"})
	case List:
		s = append(s, member{"type", "array"}, member{"items", object{{"type", "string"}}})
	case Struct:
		s = append(s, membersSchema(f.Members)...)
	case StructList:
		s = append(s, member{"type", "array"}, member{"items", membersSchema(f.Members)})
	case Object:
		s = append(s, member{"type", "object"})
	}
	return s
}

// object is a JSON object that keeps its order.
type object []member

type member struct {
	key   string
	value any
}

func (o object) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(AppendString(out, m.key), ':')
		if text, ok := m.value.(string); ok { // without HTML's escapes
			out = AppendString(out, text)
			continue
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		out = append(out, v...)
	}
	return append(out, '}'), nil
}
