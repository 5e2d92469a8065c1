package engine

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// TestParquetIsReadByDuckDB compares rows and types of Parquet drops, as DuckDB
// reads them, with the NDJSON drops of the same events.
func TestParquetIsReadByDuckDB(t *testing.T) {
	const n = 20_000
	s := harness.NewService(t, "")
	s.Tenants(3, `  - name: drops
    dir: {path: "{dir}/drops"}
    compression: none
    deliver: {max_age: 2s}
  - name: lake
    dir: {path: "{dir}/drops"}
    format: parquet
    deliver: {max_age: 2s}
  - name: snap
    dir: {path: "{dir}/drops"}
    format: parquet
    compression: snappy
    fields: [event_id, event_time, client_ip, action, score]
    deliver: {max_age: 2s}
`)
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "3", "--seed", "9",
		"--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	s.Delivered(n, time.Minute)
	s.End(false)
	glob := func(sink, ext string) string {
		return fmt.Sprintf("'%s/drops/*/sink=%s/*/*/*.%s'", s.Dir, sink, ext)
	}
	lake := fmt.Sprintf("read_parquet(%s, hive_partitioning=false)", glob("lake", "parquet"))
	types := map[string]string{}
	for line := range strings.Lines(string(harness.DuckDB(t, "DESCRIBE SELECT * FROM "+lake))) {
		var c struct {
			Name string `json:"column_name"`
			Type string `json:"column_type"`
		}
		if err := json.Unmarshal([]byte(line), &c); err != nil {
			t.Fatal(err)
		}
		types[c.Name] = c.Type
	}
	for name, want := range map[string]string{
		"event_id": "VARCHAR", "event_time": "TIMESTAMP WITH TIME ZONE", "ingest_time": "TIMESTAMP WITH TIME ZONE",
		"enforced": "BOOLEAN", "score": "DOUBLE", "client_asn": "BIGINT", "http_status": "INTEGER", "tactics": "VARCHAR[]",
	} {
		if types[name] != want {
			t.Errorf("column %s is %s to DuckDB, want %s", name, types[name], want)
		}
	}
	// The same events, column by column: what NDJSON says, and what Parquet says.
	compare := fmt.Sprintf(`SELECT count(*) AS rows,
		count(*) FILTER (WHERE j.tenant_id IS DISTINCT FROM p.tenant_id OR j.kind IS DISTINCT FROM p.kind
			OR j.event_time IS DISTINCT FROM epoch_ms(p.event_time) OR j.action IS DISTINCT FROM p.action
			OR j.enforced IS DISTINCT FROM p.enforced OR j.severity IS DISTINCT FROM p.severity
			OR j.client_ip IS DISTINCT FROM p.client_ip OR j.client_asn IS DISTINCT FROM p.client_asn
			OR j.rule_id IS DISTINCT FROM p.rule_id OR j.score IS DISTINCT FROM p.score
			OR j.user_agent IS DISTINCT FROM p.user_agent OR j.http_status IS DISTINCT FROM p.http_status
			OR j.http_path IS DISTINCT FROM p.http_path) AS different
		FROM read_json(%s, format='newline_delimited', hive_partitioning=false, columns={event_id:'VARCHAR', tenant_id:'VARCHAR', kind:'VARCHAR',
			event_time:'BIGINT', action:'VARCHAR', enforced:'BOOLEAN', severity:'INTEGER', client_ip:'VARCHAR', client_asn:'BIGINT',
			rule_id:'VARCHAR', score:'DOUBLE', user_agent:'VARCHAR', http_status:'INTEGER', http_path:'VARCHAR'}) j
		JOIN %s p USING (event_id)`, glob("drops", "ndjson"), lake)
	var got struct {
		Rows      json.Number
		Different json.Number
	}
	if err := json.Unmarshal(harness.DuckDB(t, compare), &got); err != nil {
		t.Fatal(err)
	}
	if got.Rows != json.Number(fmt.Sprint(n)) || got.Different != "0" {
		t.Errorf("%s rows join, want %d; %s of them differ", got.Rows, n, got.Different)
	}
	columns := harness.DuckDB(t, fmt.Sprintf("SELECT count(*) AS n FROM (DESCRIBE SELECT * FROM read_parquet(%s, hive_partitioning=false))", glob("snap", "parquet")))
	if !strings.Contains(string(columns), "5") {
		t.Errorf("a projection of 5 fields has columns %s", columns)
	}
}
