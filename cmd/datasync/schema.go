package main

import (
	"bytes"
	"slices"
	"strings"

	"datasync/exporter/tenants"
	"datasync/formats/parquet"
	"datasync/schemas"
)

type schemaCmd struct {
	Name string `arg:"" help:"event, config, tenant or parquet."`
}

// schemaNames are what contract.md lists, and laterSchemas those of them that
// this build does not have.
var (
	schemaNames  = []string{"event", "config", "tenant", "parquet"}
	laterSchemas = []string{"ocsf-1.8", "ocsf-1.3", "ecs"}
)

// Run prints the schema: JSON Schema, or for parquet the message type.
func (s *schemaCmd) Run(c *console) error {
	var text []byte
	switch s.Name {
	case "event":
		text = schemas.JSONSchema()
	case "config":
		text = tenants.ServiceSchema()
	case "tenant":
		text = tenants.TenantSchema()
	case "parquet":
		text = []byte(parquet.Schema())
	default:
		have := strings.Join(schemaNames, ", ")
		if slices.Contains(laterSchemas, s.Name) {
			return usagef("schema %s is not in this build yet; it has %s", s.Name, have)
		}
		return usagef("there is no schema %q; use one of %s", s.Name, have)
	}
	_, err := c.Out.Write(append(bytes.TrimRight(text, "\n"), '\n'))
	return err
}
