package journal_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datasync/feeds/journal"
)

// TestTools makes a folder, damages a block and the tail, and sees that verify
// finds both, that repair keeps every byte, and that both refuse a folder in use.
func TestTools(t *testing.T) {
	dir := t.TempDir()
	s, err := journal.OpenStore(dir, journal.Options{ReserveBytes: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	j, err := s.Shard("http-0")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		b, _ := lineBatch(j, "acme", i*10, 10)
		if _, err := j.Append(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if _, err := journal.Verify(&out, dir); err == nil {
		t.Fatal("verify of a folder in use worked")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if rep, err := journal.Verify(&out, dir); err != nil || len(rep.Incidents) > 0 || rep.Events != 50 || rep.Blocks != 5 {
		t.Fatalf("%+v %v\n%s", rep, err, out.String())
	}
	path := filepath.Join(dir, "http-0", "0000000000000001.seg")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(data), `"n":23`)
	data[at+5] ^= 1
	if err := os.WriteFile(path, append(data, "torn"...), 0o600); err != nil {
		t.Fatal(err)
	}
	rep, err := journal.Verify(&out, dir)
	if err != nil || len(rep.Incidents) != 2 {
		t.Fatalf("verify: %+v %v", rep, err)
	}
	if after, err := os.ReadFile(path); err != nil || len(after) != len(data)+4 {
		t.Fatalf("verify changed the file: %d bytes, %v", len(after), err)
	}
	if rep, err = journal.Repair(&out, dir); err != nil || len(rep.Incidents) != 2 {
		t.Fatalf("repair: %+v %v", rep, err)
	}
	aside, err := filepath.Glob(filepath.Join(dir, "set-aside", "*"))
	if err != nil || len(aside) != 2 {
		t.Fatalf("set aside: %v %v", aside, err)
	}
	out.Reset()
	if err := journal.Inspect(&out, dir); err != nil || !strings.Contains(out.String(), "shard http-0: 1 segments") {
		t.Fatalf("inspect: %v\n%s", err, out.String())
	}
}
