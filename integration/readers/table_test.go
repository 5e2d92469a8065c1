package readers

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"datasync/integration/harness"
)

// object is what a JSON Schema says of an object.
type object struct {
	Type       string            `json:"type"`
	Required   []string          `json:"required"`
	Properties map[string]object `json:"properties"`
	Items      *object           `json:"items"`
}

// TestTableIsTheSchemas: a field that the schema has, and the readers do not
// look at, would be checked by nobody.
func TestTableIsTheSchemas(t *testing.T) {
	var s object
	if err := json.Unmarshal([]byte(harness.Run(t, 0, "schema", "event")), &s); err != nil {
		t.Fatal(err)
	}
	all := columns(nil)
	if extra := all[len(all)-1]; extra.Name != "extra" {
		t.Fatalf("the last column is %s, not extra", extra.Name)
	}
	same(t, "event", s, all[:len(all)-1])
}

func same(t *testing.T, where string, s object, of []column) {
	t.Helper()
	words := map[string]string{"string": "string", "time": "integer", "int8": "integer", "int32": "integer", "int64": "integer",
		"double": "number", "bool": "boolean", "list": "array", "structs": "array", "struct": "object", "json": "object"}
	var names []string
	for _, c := range of {
		names = append(names, c.Name)
		p := s.Properties[c.Name]
		if p.Type != words[c.Type] || slices.Contains(s.Required, c.Name) != c.Required {
			t.Errorf("%s.%s is %s, required %v; the schema says %s, %v", where, c.Name, c.Type, c.Required, p.Type, s.Required)
		}
		if c.Type == "structs" {
			p = *p.Items
		}
		if c.Members != nil {
			same(t, c.Name, p, c.Members)
		}
	}
	if want := slices.Sorted(maps.Keys(s.Properties)); !slices.Equal(slices.Sorted(slices.Values(names)), want) {
		t.Errorf("%s has %q, the schema %q", where, names, want)
	}
}
