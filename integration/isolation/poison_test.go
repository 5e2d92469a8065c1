package isolation

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// poison are records that break readers somewhere; those that are events may
// arrive, as one line, and all others are in the quarantine with a reason.
var poison = []struct {
	name, value string
	arrives     bool
}{
	{"NaN", event("ID", "acme", `,"score":NaN`), false},
	{"Infinity", event("ID", "acme", `,"score":-Infinity`), false},
	{"1e999", event("ID", "acme", `,"odd":1e999`), true}, // JSON, whatever a reader makes of it
	{"10 MB", event("ID", "acme", `,"pad":"`+strings.Repeat("x", 10_000_000)+`"`), false},
	{"depth 10^4", event("ID", "acme", `,"deep":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)), false},
	{"depth 10^4, objects", event("ID", "acme", `,"deep":`+strings.Repeat(`{"a":`, 10_000)+"1"+strings.Repeat("}", 10_000)), false},
	{"10^4 fields", event("ID", "acme", fields(10_000)), true},
	{"bad UTF-8", event("ID", "acme", `,"text":"`+"\xff\xfe"+`"`), false},
	{"a surrogate alone", event("ID", "acme", `,"text":"\ud800"`), true}, // JSON as well
	{"escaped newline", event("ID", "acme", `,"text":"a\nb\r\nc"`), true},
	{"raw newline", event("ID", "acme", `,"text":"a`+"\n"+`b"`), false}, // two lines of a file, each broken
	{"raw control byte", event("ID", "acme", `,"text":"`+"a\x01b"+`"`), false},
	{"raw U+2028", event("ID", "acme", `,"text":"a`+"\u2028"+`b"`), true},
	{"raw NUL", event("ID", "acme", `,"text":"a`+"\x00"+`b"`), false},
	{"escaped NUL", event("ID", "acme", `,"text":"a\u0000b"`), true},
	{"a key twice", event("ID", "acme", `,"action":"allow"`), false},
	{"a stranger's key twice", event("ID", "acme", `,"odd":1,"odd":2`), false},
	{"a key twice, escaped", event("ID", "acme", `,"\u0061ction":"allow"`), false},
	{"__proto__", event("ID", "acme", `,"__proto__":{"polluted":true}`), true},
	{"another tenant", event("ID", "beta", ""), false},
	{"a number", "42", false},
	{"null", "null", false},
	{"half an event", event("ID", "acme", "")[:80], false},
}

func fields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"field%d":%d`, i, i)
	}
	return b.String()
}

// TestPoisonReachesNoSink: each comes by every feed between two good events;
// the good ones arrive, and so does what is an event, in one line each.
func TestPoisonReachesNoSink(t *testing.T) {
	kafka, producer := broker(t)
	s := service(t, kafka, "")
	drops := "  - name: drops\n    dir: {path: " + s.Dir + "/drops}\n    compression: none\n    deliver: {max_age: 1s}\n"
	tenant(s, "acme", "", drops)
	s.Write("datasync.yaml", strings.NewReplacer("follow: true}", "follow: true, tenant: acme}", "group: g}", "group: g, tenant: acme}").Replace(read(t, s, "datasync.yaml")))
	s.Up(30 * time.Second)
	var file bytes.Buffer
	total := 0
	for i, p := range poison {
		for _, feed := range []string{"edge", "files", "kafka"} {
			id := fmt.Sprintf("%s-%d", feed, i)
			three := []string{event(id+"-before", "acme", ""), strings.Replace(p.value, `"ID"`, `"`+id+`"`, 1), event(id+"-after", "acme", "")}
			total += 3
			switch feed {
			case "edge":
				for _, v := range three {
					a, err := post(ingest(s, "acme"), "key-of-acme", strings.NewReader(v))
					if ok := v != three[1] || p.arrives; err != nil || ok != (a.status == 200) {
						t.Errorf("%s: %v %d %.300s", p.name, err, a.status, a.body)
					}
				}
			case "files":
				file.WriteString(strings.Join(three, "\n") + "\n")
				total += strings.Count(p.value, "\n")
			case "kafka":
				produce(t, producer, three...)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "in", "a.ndjson"), file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l := s.Delivered(int64(total), time.Minute)
	bad := quarantined(t, s)
	s.End(false)
	if !l.Balanced {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	ids := harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops")
	arrived := 0
	for i, p := range poison {
		for _, feed := range []string{"edge", "files", "kafka"} {
			id := fmt.Sprintf("%s-%d", feed, i)
			if ids[id+"-before"] != 1 || ids[id+"-after"] != 1 {
				t.Errorf("%s by %s: the events around it came %d and %d times", p.name, feed, ids[id+"-before"], ids[id+"-after"])
			}
			if want := map[bool]int{true: 1}[p.arrives]; ids[id] != want {
				t.Errorf("%s by %s arrived %d times, want %d", p.name, feed, ids[id], want)
			}
			arrived += ids[id]
		}
	}
	for _, e := range bad {
		if e.Reason == "" || e.Tenant == "" {
			t.Errorf("an entry without a reason or a tenant: %+v", e)
		}
	}
	if got, want := len(bad), total-2*3*len(poison)-arrived; got != want {
		t.Errorf("%d entries in the quarantine, want %d", got, want)
	}
	t.Logf("%d kinds of poison by 3 feeds: %d arrived as one line each, %d in the quarantine with a reason, all %d around them arrived; peak %d MB",
		len(poison), arrived, len(bad), 2*3*len(poison), s.Peak>>20)
}

func read(t *testing.T, s *harness.Service, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
