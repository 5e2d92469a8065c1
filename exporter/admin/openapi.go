package admin

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// openAPI describes the routes as an OpenAPI 3.1 document, the answers' schemas
// taken from their Go types.
func openAPI() map[string]any {
	paths := map[string]map[string]any{}
	schemas := map[string]any{}
	failed := map[string]any{"description": "what is wrong", "content": jsonContent(schemaOf(reflect.TypeFor[failure](), schemas))}
	for _, r := range append(routes(), route{Method: "GET", Path: metricsPath, Summary: metricsSummary}) {
		ok := map[string]any{"description": "OK"}
		if r.Answer != nil {
			ok["content"] = jsonContent(schemaOf(reflect.TypeOf(r.Answer), schemas))
		}
		op := map[string]any{"summary": r.Summary, "responses": map[string]any{"200": ok, "default": failed}}
		if params := parameters(r); len(params) > 0 {
			op["parameters"] = params
		}
		if r.Method != "GET" {
			op["requestBody"] = map[string]any{"required": false, "content": jsonContent(map[string]any{"type": "object"})}
		}
		if open[r.Path] {
			op["security"] = []any{}
		}
		path := displayPath(r.Path)
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(r.Method)] = op
	}
	return map[string]any{
		"openapi":  "3.1.0",
		"info":     map[string]any{"title": "Data Sync admin API", "version": "1"},
		"security": []any{map[string]any{"token": []any{}}},
		"paths":    paths,
		"components": map[string]any{
			"schemas":         schemas,
			"securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer"}},
		},
	}
}

func jsonContent(schema any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

func parameters(r route) []any {
	var out []any
	for _, part := range strings.Split(r.Path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok && part != "{$}" {
			out = append(out, parameter(strings.TrimSuffix(name, "}"), "path", "", true))
		}
	}
	for _, q := range r.Query {
		out = append(out, parameter(q[0], "query", q[1], false))
	}
	return out
}

func parameter(name, in, what string, required bool) map[string]any {
	p := map[string]any{"name": name, "in": in, "required": required, "schema": map[string]any{"type": "string"}}
	if what != "" {
		p["description"] = what
	}
	return p
}

// schemaOf is the JSON Schema of t as encoding/json writes it. Structs with a
// name go to defs and are referred to.
func schemaOf(t reflect.Type, defs map[string]any) map[string]any {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return map[string]any{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem(), defs)
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem(), defs)}
	case reflect.Map:
		return map[string]any{"type": "object"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Struct:
		ref := map[string]any{"$ref": "#/components/schemas/" + t.Name()}
		if _, done := defs[t.Name()]; done {
			return ref
		}
		props := map[string]any{}
		defs[t.Name()] = map[string]any{"type": "object", "properties": props} // before its fields: a LaneView holds LaneViews
		addFields(t, props, defs)
		return ref
	default:
		return map[string]any{"type": "string"}
	}
}

func addFields(t reflect.Type, props, defs map[string]any) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			addFields(f.Type, props, defs)
		case name != "-":
			props[name] = schemaOf(f.Type, defs)
		}
	}
}
