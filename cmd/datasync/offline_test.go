package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datasync/feeds/journal"
)

func TestSchemas(t *testing.T) {
	for _, name := range schemaNames {
		got := call(t, nil, "schema", name)
		if got.code != exitOK || len(got.out) < 100 || !strings.HasSuffix(got.out, "}\n") {
			t.Errorf("%s: %+v", name, got)
		}
		if name != "parquet" && !json.Valid([]byte(got.out)) {
			t.Errorf("%s is no JSON", name)
		}
	}
	for _, name := range laterSchemas {
		if got := call(t, nil, "schema", name); got.code != exitUsage || !strings.Contains(got.err, "not in this build yet") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := call(t, nil, "schema", "bogus"); got.code != exitUsage || !strings.Contains(got.err, "event, config, tenant, parquet") {
		t.Errorf("%+v", got)
	}
}

func TestJournalOfAWrongPathIsBadUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"inspect", "verify", "repair"} {
		for _, dir := range []string{file, file + "-not-there"} {
			if got := call(t, nil, "journal", verb, dir); got.code != exitUsage || !strings.Contains(got.err, file) {
				t.Errorf("%s %s: %+v", verb, dir, got)
			}
		}
	}
}

func TestReport(t *testing.T) {
	var b strings.Builder
	damaged, err := writeReport(&b, journal.Report{Shards: 1, Segments: 2, Commits: 3, Blocks: 4, Events: 5000,
		Incidents: []journal.Incident{{What: "torn-tail", Shard: "edge-n", File: "1.seg", Off: 4096, Bytes: 2048, Message: "never acknowledged"}}})
	want := "torn-tail: edge-n, 1.seg at 4,096, 2.0 KiB: never acknowledged\n1 shards, 2 segments, 3 commits, 4 blocks, 5,000 events; 1 incidents\n"
	if damaged || err != nil || b.String() != want {
		t.Errorf("%v %v %q", damaged, err, b.String())
	}
	if damaged, _ := writeReport(&b, journal.Report{Incidents: []journal.Incident{{What: "damage"}}}); !damaged {
		t.Error("damage is not called damage")
	}
}
