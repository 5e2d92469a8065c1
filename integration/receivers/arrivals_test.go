package receivers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// What every canonical event begins with, and what its id stands behind.
const (
	head   = `{"ingest_time":`
	idHead = `"event_id":"`
)

// eachEvent calls with every line's event and what stands before it.
func eachEvent(t *testing.T, path string, call func(id string, before, event []byte)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 256<<10), 2<<20)
	for sc.Scan() {
		at := max(bytes.LastIndex(sc.Bytes(), []byte(head)), 0)
		before, event := sc.Bytes()[:at], sc.Bytes()[at:]
		_, rest, _ := bytes.Cut(event, []byte(idHead))
		id, _, _ := bytes.Cut(rest, []byte(`"`))
		call(string(id), before, event)
	}
	if err := sc.Err(); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// sent is every event as a sink of uncompressed drops beside the emitters has it.
func sent(t *testing.T, s *harness.Service) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.Dir, "drops/*/*/*/*/*.ndjson"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no drops: %v", err)
	}
	events := map[string]string{}
	for _, p := range paths {
		eachEvent(t, p, func(id string, _, event []byte) { events[id] = string(event) })
	}
	return events
}

// confirm is what an emitter learns of a door: rsyslog's GnuTLS driver alone
// ends its side without close_notify.
func confirm(d *servers.Door) string {
	switch {
	case d.GnuTLS:
		return "weak"
	case d.RELP:
		return "protocol"
	}
	return "drain"
}

// arrived counts a door's ids and holds its lines to those sent, byte for byte.
// torn is how many lines a killed receiver left half written: whatever was on
// them must be there again.
func arrived(t *testing.T, d *servers.Door, sent map[string]string) (ids harness.IDs, torn int) {
	t.Helper()
	ids = harness.IDs{}
	example := ""
	eachEvent(t, d.Out, func(id string, before, event []byte) {
		switch header := strings.Count(string(before), "|"); {
		case sent[id] != string(event):
			torn++
			example = fmt.Sprintf("%.80q…%q", event, event[max(len(event)-40, 0):])
		case bytes.Contains(before, []byte(head)), d.Octet && header != 3 && header != 4, !d.Octet && len(before) > 0:
			torn++
			example = fmt.Sprintf("before it %.200q", before)
			ids[id]++
		default:
			ids[id]++
		}
	})
	if torn > 0 {
		t.Logf("%s: %d lines are not whole, such as %s", d.Name, torn, example)
	}
	return ids, torn
}

// lane is what GET /v1/lanes/{t}/{s} says.
type lane struct {
	State, Reason, Message string
	Facts                  map[string]string
	Totals                 struct{ Delivered, Repeats int64 }
}

func laneOf(t *testing.T, s *harness.Service, tenant, sink string) lane {
	t.Helper()
	var l lane
	if !harness.Get(context.Background(), "http://"+s.Admin+"/v1/lanes/"+tenant+"/"+sink, &l) {
		return lane{}
	}
	return l
}
