package engine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/readers"
)

// odd are members of events at the edges of the types. In row they are as a
// reader of Parquet is to find them, where that is not what the line says.
var odd = []struct{ name, line, row string }{
	{"nothing", `"reason":""`, ``},
	{"empty lists and objects", `"tactics":[],"matches":[],"net":{},"meta":{"labels":[],"raw_sha256":""},"host":{"name":""}`, ``},
	{"null", `"reason":null,"tactics":null,"score":null,"http_status":null,"net":null,"host":{"name":null}`, ``},
	{"text", `"rule_name":"é漢字🙂\u00e9\ud83d\ude42\"\\\/\t\n","http_path":"/caf\u00e9/\u2028x","reason":"-","stage":"null","tactics":["","ü","1:a"]`, ``},
	{"long text", `"http_query":"` + strings.Repeat("é=1&", 20_000) + `"`, ``},
	{"bounds", `"client_asn":9223372036854775807,"bytes_in":-9223372036854775808,"bytes_out":9007199254740993,"client_port":-2147483648,"http_status":2147483647`, ``},
	{"zeros", `"client_asn":0,"http_status":0,"score":0,"decision":{"latency_ms":-0.0,"status":0},"agg":{"count":0,"first_seen":0,"last_seen":-1}`, ``},
	{"floats", `"score":0.1,"score_raw":1e-7,"score_threshold":1.7976931348623157e308,"duration_ms":5e-324,"decision":{"latency_ms":0.30000000000000004}`, ``},
	{"floats without a point", `"score":60,"duration_ms":1E2`, ``},
	{"matches", `"matches":[{},{"rule_id":"","blocking":false,"score":0},{"blocking":true,"data":"x"}]`, ``},
	{"times", `"agg":{"count":3,"first_seen":951782400000,"last_seen":253402300799999}`, ``},
}

// foreign are events that no table of fixed types holds as JSON: the tenant
// that has them takes Parquet only.
var foreign = []struct{ name, line, row string }{
	{"other types", `"client_port":"80","tactics":["a",1],"http_status":403.5,"client_asn":9223372036854775808,"reason":"r"`,
		`"extra":"{\"client_port\":\"80\",\"tactics\":[\"a\",1],\"http_status\":403.5,\"client_asn\":9223372036854775808}","reason":"r"`},
	{"unknown members", `"vendor":{"a":[1,2.50,null]},"x":"\u00e9","net":{"dst_port":443,"vlan":7}`,
		`"extra":"{\"vendor\":{\"a\":[1,2.50,null]},\"x\":\"\\u00e9\",\"net.vlan\":7}","net":{"dst_port":443}`},
	{"unmapped", `"meta":{"unmapped":{"k":[1,{"z":"é"}]},"labels":["l"]}`, `"meta":{"unmapped":"{\"k\":[1,{\"z\":\"é\"}]}","labels":["l"]}`},
}

// oddEvents writes them to a file for the feed, and gives them as rows.
func oddEvents(t *testing.T, path string) (rows []string) {
	t.Helper()
	var lines strings.Builder
	add := func(tenant string, events []struct{ name, line, row string }) {
		for i, e := range events {
			head := fmt.Sprintf(`{"schema":"mitigation/1","event_id":"odd-%s-%d","tenant_id":%[1]q,"source":"netacea","kind":"alert",`+
				`"event_time":%[3]d,"time_precision":"ms","action":"log","disposition":"detected","enforced":false,"severity":0,"rule_id":%[4]q,`,
				tenant, i, 946684800000+int64(i)*86_399_999, e.name)
			lines.WriteString(head + e.line + "}\n")
			if e.row == "" {
				e.row = e.line
			}
			rows = append(rows, head+e.row+"}")
		}
	}
	add("t0001", odd)
	add("foreign", foreign)
	if err := os.WriteFile(path, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return rows
}

// TestDropsAreReadByOthers: DuckDB and pyarrow find in every drop, in each
// format and compression, what the source said, column by column.
func TestDropsAreReadByOthers(t *testing.T) {
	const n = 20_000
	s := harness.NewService(t, "")
	text, columns := "", ""
	for _, c := range []string{"none", "gzip", "zstd"} {
		text += fmt.Sprintf("  - name: lines-%s\n    dir: {path: \"{dir}/drops\"}\n    compression: %[1]s\n    deliver: {max_age: 2s}\n", c)
	}
	for _, c := range []string{"none", "snappy", "zstd"} {
		columns += fmt.Sprintf("  - name: columns-%s\n    dir: {path: \"{dir}/drops\"}\n    format: parquet\n    compression: %[1]s\n    deliver: {max_age: 2s}\n", c)
	}
	some := []string{"event_id", "event_time", "client_ip", "action", "score", "tactics", "net"}
	columns += fmt.Sprintf("  - name: columns-some\n    dir: {path: \"{dir}/drops\"}\n    format: parquet\n    fields: [%s]\n    deliver: {max_age: 2s}\n", strings.Join(some, ", "))
	s.Tenants(3, text+columns)
	s.Write("tenants/foreign.yaml", "tenant: foreign\nsinks:\n"+strings.ReplaceAll(columns, "{dir}", s.Dir))
	in := filepath.Join(s.Dir, "in", "a.ndjson")
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "3", "--seed", "9", "--to", in)
	rows := oddEvents(t, filepath.Join(s.Dir, "in", "odd.ndjson"))
	s.Up(30 * time.Second)
	l := s.Delivered(int64(n+len(rows)), time.Minute)
	s.End(false)
	if !l.Balanced || l.Feeds[0].Quarantined+l.Feeds[1].Quarantined > 0 {
		t.Errorf("the ledger does not balance, or events were refused: %+v", l.Feeds)
	}
	truth := func(o readers.Options) *readers.Truth {
		u := readers.NewTruth(t, o).AddFile(in)
		for _, r := range rows {
			u.Add(r)
		}
		return u
	}
	all := truth(readers.Options{})
	for sink, u := range map[string]*readers.Truth{"lines-none": all, "lines-gzip": all, "lines-zstd": all, "columns-none": all,
		"columns-snappy": all, "columns-zstd": all, "columns-some": truth(readers.Options{Fields: some})} {
		want := n + len(rows)
		if strings.HasPrefix(sink, "lines") {
			want -= len(foreign)
		}
		ids := readers.Check(t, u, filepath.Join(s.Dir, "drops"), sink)
		twice := 0
		for _, k := range ids {
			twice += k - 1
		}
		if len(ids) != want || twice > 0 {
			t.Errorf("sink %s has %d events, want %d; %d came again", sink, len(ids), want, twice)
		}
	}
}
