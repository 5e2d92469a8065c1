package syslog_test

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"datasync/formats/formatstest"
	"datasync/formats/syslog"
)

const event = `{"schema":"mitigation/1","kind":"mitigation","event_time":1795309107042,"action":"block","severity":%s}`

func framer(t testing.TB, o syslog.Options) *syslog.Framer {
	t.Helper()
	f, err := syslog.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAppendFrame(t *testing.T) {
	line := fmt.Sprintf(event, "4")
	head := "<131>1 2026-11-22T00:58:27.042Z edge.example datasync - mitigation - "
	got := framer(t, syslog.Options{Hostname: "edge.example"}).AppendFrame([]byte("kept"), []byte(line+"\n"), syslog.MetaOf([]byte(line)))
	if want := fmt.Sprintf("kept%d %s%s", len(head)+len(line), head, line); string(got) != want {
		t.Errorf("frame\n%s\nexpected\n%s", got, want)
	}
}

func TestHeader(t *testing.T) {
	base := syslog.Options{Hostname: "h"}
	with := func(change func(*syslog.Options)) syslog.Options { o := base; change(&o); return o }
	for _, c := range []struct {
		name, line string
		o          syslog.Options
		want       string
	}{
		{"severity 5 is critical", fmt.Sprintf(event, "5"), base, "<130>1 "},
		{"severity 3 is a warning", fmt.Sprintf(event, "3"), base, "<132>1 "},
		{"severity 2 is a notice", fmt.Sprintf(event, "2"), base, "<133>1 "},
		{"severity 1 is info", fmt.Sprintf(event, "1"), base, "<134>1 "},
		{"unknown severity, blocked: a notice", fmt.Sprintf(event, "0"), base, "<133>1 "},
		{"unknown severity, allowed: info", `{"action":"allow","severity":0}`, base, "<134>1 "},
		{"unknown severity, logged: info", `{"action":"log","severity":0}`, base, "<134>1 "},
		{"facility kern", fmt.Sprintf(event, "4"), with(func(o *syslog.Options) { o.Facility = "kern" }), "<3>1 "},
		{"facility local7", fmt.Sprintf(event, "4"), with(func(o *syslog.Options) { o.Facility = "local7" }), "<187>1 "},
		{"facility authpriv", fmt.Sprintf(event, "4"), with(func(o *syslog.Options) { o.Facility = "authpriv" }), "<83>1 "},
		{"no time, no kind", `{"severity":1}`, base, "<134>1 - h datasync - - - {"},
		{"a time before 1970", `{"event_time":-5,"severity":1}`, base, "1 - h "},
		{"a time after the year 9999", `{"event_time":999999999999999,"severity":1}`, base, "1 - h "},
		{"a float is no time", `{"event_time":1.5,"severity":1}`, base, "1 - h "},
		{"own names", `{}`, syslog.Options{Hostname: "a", AppName: "b", ProcID: "c", MsgID: "d"}, "1 - a b c d - {}"},
		{"spaces, controls and other letters", `{}`, syslog.Options{Hostname: "a b\n", AppName: "é", ProcID: "\x00", MsgID: "x]\""}, "1 - a_b_ __ _ x]\" - {}"},
		{"too long", `{}`, syslog.Options{Hostname: strings.Repeat("h", 300), AppName: strings.Repeat("a", 300), ProcID: strings.Repeat("p", 300), MsgID: strings.Repeat("m", 300)},
			" " + strings.Repeat("h", 255) + " " + strings.Repeat("a", 48) + " " + strings.Repeat("p", 128) + " " + strings.Repeat("m", 32) + " - {}"},
		{"members in any order, others between", `{"x":{"severity":5},"severity":4,"y":"\"kind\":\"no\"","action":"block","kind":"alert","event_time":1000}`, base,
			"<131>1 1970-01-01T00:00:01.000Z h datasync - alert - {"},
	} {
		got := framer(t, c.o).AppendFrame(nil, []byte(c.line), syslog.MetaOf([]byte(c.line)))
		if !strings.Contains(string(got), c.want) {
			t.Errorf("%s: %s, expected %s in it", c.name, got, c.want)
		}
		count, rest, _ := strings.Cut(string(got), " ")
		if n, err := strconv.Atoi(count); err != nil || n != len(rest) {
			t.Errorf("%s: MSG-LEN %s of %d bytes", c.name, count, len(rest))
		}
	}
}

func TestFacilities(t *testing.T) {
	if err := syslog.CheckFacility(""); err != nil {
		t.Error(err)
	}
	_, err := syslog.New(syslog.Options{Facility: "local8"})
	if err == nil || !strings.Contains(err.Error(), "local7") {
		t.Errorf("facility local8: %v", err)
	}
}

// TestStream cuts a stream of frames apart again, as a receiver does.
func TestStream(t *testing.T) {
	f := framer(t, syslog.Options{}) // this machine's name, whatever it is
	header := regexp.MustCompile(`^<1[0-9]{2}>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [!-~]{1,255} datasync - [a-z]+ - $`)
	lines := formatstest.Lines(formatstest.Events(1, 100))
	var stream []byte
	for line := range bytes.Lines(lines) {
		stream = f.AppendFrame(stream, line, syslog.MetaOf(line))
	}
	for line := range bytes.Lines(lines) {
		count, rest, _ := bytes.Cut(stream, []byte(" "))
		n, err := strconv.Atoi(string(count))
		if err != nil || n > len(rest) {
			t.Fatalf("MSG-LEN %q with %d bytes left", count, len(rest))
		}
		msg := rest[:n]
		stream = rest[n:]
		at := bytes.IndexByte(msg, '{')
		if !header.Match(msg[:at]) || !bytes.Equal(msg[at:], line[:len(line)-1]) {
			t.Fatalf("message %s\nof line %s", msg, line)
		}
	}
	if len(stream) != 0 {
		t.Errorf("%d bytes left over", len(stream))
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	f := framer(b, syslog.Options{})
	line := formatstest.Lines(formatstest.Events(1, 1))
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = f.AppendFrame(buf[:0], line, syslog.MetaOf(line))
	}
}
