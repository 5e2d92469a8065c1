package readers

import (
	"fmt"
	"slices"
	"strings"
)

// column is one field of the drops, as readers of other makers are to see it.
type column struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"` // of the table below; "times" and the like are none
	Required bool     `json:"required"`
	Members  []column `json:"members,omitempty"`
}

// table is the schema, written down apart from the product's own: a test holds
// its names to `datasync schema event`. "!" marks what is never null; members
// of structs are indented; json is an object's text, in Parquet only.
const table = `
schema string!
event_id string!
tenant_id string!
channel_id string
source string!
source_instance string
vendor_version string
integration string
kind string!
event_time time!
time_precision string!
ingest_time time!
request_id string
correlation_id string
action string!
disposition string!
enforced bool!
mode string
action_raw string
codes_raw string
rule_id string
rule_name string
rule_set string
rule_category string
match_on string
matches structs
 rule_id string
 name string
 category string
 stage string
 score double
 blocking bool
 location string
 data string
score double
score_raw double
score_kind string
score_threshold double
severity int8!
stage string
tactics list
techniques list
reason string
client_ip string
client_port int32
forwarded_for string
client_asn int64
client_country string
user_agent string
tls_ja3 string
tls_ja4 string
client_fp string
session_id string
session_state string
http_method string
http_host string
http_path string
http_query string
http_protocol string
http_referrer string
http_status int32
bytes_out int64
bytes_in int64
duration_ms double
net struct
 dst_ip string
 dst_port int32
 transport string
 direction string
 payload_b64 string
host struct
 name string
 container string
 pod string
 cluster_id string
 cluster_name string
 node_id string
decision struct
 latency_ms double
 status int32
audit struct
 actor string
 object_type string
 object_id string
 change string
agg struct
 count int64
 first_seen time
 last_seen time
meta struct
 labels list
 redactions list
 truncated list
 unmapped json
 raw_sha256 string
extra json
`

// columns are the table's, all or those of the named fields.
func columns(fields []string) []column {
	var out []column
	for line := range strings.Lines(strings.TrimPrefix(table, "\n")) {
		name, kind, _ := strings.Cut(strings.TrimSpace(line), " ")
		c := column{Name: name, Type: strings.TrimSuffix(kind, "!"), Required: strings.HasSuffix(kind, "!")}
		if strings.HasPrefix(line, " ") {
			last := &out[len(out)-1]
			last.Members = append(last.Members, c)
		} else {
			out = append(out, c)
		}
	}
	return slices.DeleteFunc(out, func(c column) bool { return fields != nil && !slices.Contains(fields, c.Name) })
}

// physical is a leaf's physical and logical type in a Parquet file.
var physical = map[string]string{
	"string": "BYTE_ARRAY String", "json": "BYTE_ARRAY String", "list": "BYTE_ARRAY String",
	"time": "INT64 Timestamp(ms,UTC)", "int8": "INT32 Int8", "int32": "INT32 Int32", "int64": "INT64 Int64",
	"double": "DOUBLE -", "bool": "BOOLEAN -",
}

// leaves are the leaf columns that a file must have: path, types, and the
// definition and repetition level up to which values go, which is where it may
// be null and where it repeats.
func leaves(of []column, path string, def, rep int) (out []string) {
	for _, c := range of {
		name, def, rep := path+c.Name, def, rep
		if !c.Required {
			def++
		}
		switch c.Type {
		case "struct":
			out = append(out, leaves(c.Members, name+".", def, rep)...)
			continue
		case "structs":
			out = append(out, leaves(c.Members, name+".list.element.", def+1, rep+1)...)
			continue
		case "list":
			name, def, rep = name+".list.element", def+1, rep+1
		}
		out = append(out, fmt.Sprintf("%s %s %d %d", name, physical[c.Type], def, rep))
	}
	return out
}

// dialect is how a reader spells its types, and a struct's member.
type dialect struct {
	types                      map[string]string
	member, object, list, null string
}

var duckDB = dialect{
	types: map[string]string{"string": "VARCHAR", "json": "VARCHAR", "list": "VARCHAR[]", "time": "TIMESTAMP WITH TIME ZONE",
		"int8": "TINYINT", "int32": "INTEGER", "int64": "BIGINT", "double": "DOUBLE", "bool": "BOOLEAN"},
	member: "%s %s", object: "STRUCT(%s)", list: "%s[]",
}

var pyArrow = dialect{
	types: map[string]string{"string": "string", "json": "string", "list": "list<element: string not null>", "time": "timestamp[ms, tz=UTC]",
		"int8": "int8", "int32": "int32", "int64": "int64", "double": "double", "bool": "bool"},
	member: "%s: %s", object: "struct<%s>", list: "list<element: %s not null>", null: " not null",
}

// of is the type of a column.
func (d *dialect) of(c column) string {
	if c.Members == nil {
		return d.types[c.Type]
	}
	var members []string
	for _, m := range c.Members {
		members = append(members, fmt.Sprintf(d.member, m.Name, d.of(m)))
	}
	s := fmt.Sprintf(d.object, strings.Join(members, ", "))
	if c.Type == "structs" {
		s = fmt.Sprintf(d.list, s)
	}
	return s
}

// all is the columns with their types, as the reader is to show them.
func (d *dialect) all(of []column) (out []string) {
	for _, c := range of {
		s := c.Name + " " + d.of(c)
		if c.Required {
			s += d.null
		}
		out = append(out, s)
	}
	return out
}
