package adapt

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"
)

// cfRow is a row of firewall_events.
func cfRow(ray string, index int, more string) string {
	return fmt.Sprintf(`{"Datetime":1795309107,"RayID":%q,"MatchIndex":%d,"RuleID":"rule-%d","Action":"log"%s}`, ray, index, index, more)
}

// TestRowsOfARayBecomeOneEvent, in whatever order they come, among others.
func TestRowsOfARayBecomeOneEvent(t *testing.T) {
	var rows []string
	for ray := range 50 {
		for i := range 1 + ray%4 {
			rows = append(rows, cfRow(fmt.Sprint("ray", ray), i, ""))
		}
	}
	rows = append(rows, cfRow("ray1", 0, "")) // delivered twice
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		rng.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		out := run(t, "cloudflare-firewall", strings.Join(rows, "\n"))
		if len(out.Events) != 50 || len(out.Bad) != 0 {
			t.Fatalf("seed %d: %d events, %+v", seed, len(out.Events), out.Bad)
		}
		all := strings.Join(out.lines(), "")
		for ray := range 50 {
			want := fmt.Sprintf(`"event_id":"cf:ray%d:0"`, ray)
			if strings.Count(all, want) != 1 {
				t.Errorf("seed %d: %s %d times", seed, want, strings.Count(all, want))
			}
		}
		for _, line := range out.lines() {
			var ray int
			if _, err := fmt.Sscanf(line[strings.Index(line, "cf:ray"):], "cf:ray%d:0", &ray); err != nil {
				t.Fatal(err)
			}
			var matches []string
			for i := range 1 + ray%4 {
				matches = append(matches, fmt.Sprintf(`{"rule_id":"rule-%d","blocking":false}`, i))
			}
			if want := `"matches":[` + strings.Join(matches, ",") + `]`; !strings.Contains(line, want) {
				t.Errorf("seed %d: %s\nlacks %s", seed, line, want)
			}
		}
	}
}

func TestRowsWithoutATerminatingOne(t *testing.T) {
	out := run(t, "cloudflare-firewall", cfRow("a", 3, "")+"\n"+cfRow("a", 2, "")+"\n"+`{"Datetime":1795309107,"RayID":"b"}`+"\n"+`{"Datetime":1795309107,"RayID":["x"]}`+"\n"+`{"Datetime":1795309107,"RayID":["x"]}`)
	var ids []string
	for _, line := range out.lines() {
		_, id, _ := strings.Cut(line, `"event_id":"`)
		id, _, _ = strings.Cut(id, `"`)
		ids = append(ids, id)
	}
	if got := strings.Join(ids, " "); got != "cf:a:2 rec:2 rec:3 rec:4" {
		t.Errorf("ids %s", got)
	}
}

// TestBadRowsStandAlone: what cannot be merged is taken row by row, and what is
// bad is told at its own place, its own bytes with it and no good row's.
func TestBadRowsStandAlone(t *testing.T) {
	bad := `{"RayID":"a","MatchIndex":1,"RuleID":"no time"}`
	lead := `{"RayID":"b","MatchIndex":0}`
	rows := []string{cfRow("a", 0, ""), `7`, bad, cfRow("b", 1, ""), lead, `{broken`, cfRow("c", 0, `,"Big":"`+strings.Repeat("x", 200<<10)+`"`), cfRow("c", 1, `,"Bag":"`+strings.Repeat("y", 200<<10)+`"`)}
	out := run(t, "cloudflare-firewall", strings.Join(rows, "\n"))
	got := strings.Join(out.lines(), "")
	for _, id := range []string{`"cf:a:0"`, `"cf:b:1"`, `"cf:c:0"`, `"cf:c:1"`} {
		if strings.Count(got, id) != 1 {
			t.Errorf("%s is there %d times", id, strings.Count(got, id))
		}
	}
	if len(out.Bad) != 3 || out.Bad[0].Index != 1 || out.Bad[1].Index != 4 || string(out.Bad[1].Data) != lead || out.Bad[2].Index != 5 || string(out.Bad[2].Data) != rows[5] {
		t.Errorf("%.300v", out.Bad)
	}
}

// TestBadRowsAreNotJoinedOverGoodOnes: with very many bad rows, those that
// follow share their bytes; a row that an earlier event holds must not be
// among them, or a retry would make it a second time.
func TestBadRowsAreNotJoinedOverGoodOnes(t *testing.T) {
	rows := []string{cfRow("a", 0, "")}
	for range maxBad + 10 {
		rows = append(rows, `{"RayID":"z"}`)
	}
	rows = append(rows, cfRow("a", 1, ""), `{"RayID":"y"}`, `{"RayID":"x"}`)
	out := run(t, "cloudflare-firewall", strings.Join(rows, "\n"))
	n := 0
	for _, b := range out.Bad {
		n += 1 + b.More
		if strings.Contains(string(b.Data), "rule-1") {
			t.Errorf("a good row is among the bad ones: %s", b.Data)
		}
	}
	if len(out.Events) != 1 || n != len(rows)-2 || len(out.Bad) > maxBad+3 {
		t.Errorf("%d events, %d bad in %d", len(out.Events), n, len(out.Bad))
	}
}

func TestManyRowsOfOneRay(t *testing.T) {
	var rows []string
	for i := range maxMatched + 1 {
		rows = append(rows, cfRow("a", i, ""))
	}
	if out := run(t, "cloudflare-firewall", strings.Join(rows, "\n")); len(out.Events) != len(rows) {
		t.Errorf("%d events of %d rows: more than an event can hold are one each", len(out.Events), len(rows))
	}
	if out := run(t, "cloudflare-firewall", strings.Join(rows[1:], "\n")); len(out.Events) != 1 {
		t.Errorf("%d events of %d rows", len(out.Events), len(rows)-1)
	}
}

// TestRubbishNeedsNoRows: a record may be millions of lines that are nothing,
// and what finds the rows of a RayID must not cost a hundred times its size.
func TestRubbishNeedsNoRows(t *testing.T) {
	out := run(t, "cloudflare-firewall", strings.Repeat("7\n{}\n{\"RayID\":[]}\n", 10_000))
	if n := cap(out.cloudflare.rows); n != 0 || len(out.Bad) != maxBad {
		t.Errorf("room for %d rows, %d bad", n, len(out.Bad))
	}
	if size := unsafe.Sizeof(cloudflareRow{}); size > 32 {
		t.Errorf("a row takes %d bytes", size)
	}
}

func FuzzCloudflareFirewall(f *testing.F) {
	f.Add(readFile(f, "cloudflare_firewall_events.json"))
	f.Add(readFile(f, "cloudflare_firewall_merged.ndjson"))
	f.Add("[" + cfRow("a", 1, "") + "," + cfRow("a", 0, `,"x":"\u2028"`) + ",7]")
	f.Add(cfRow("a", 0, "") + "\n{\n" + cfRow("a", 0, `,"Cookies":[]`) + "\n" + `{"RayID":"a"}`)
	fuzzCDN(f, "cloudflare-firewall")
}

// fuzzCDN holds an adapter to what every one promises.
func fuzzCDN(f *testing.F, format string) {
	a, _ := For(format)
	f.Fuzz(func(t *testing.T, value string) {
		in := input(value)
		var out Output
		a(in, &out)
		check(t, in, &out)
		again := append([]byte(nil), out.Arena...)
		out.Reset()
		a(in, &out)
		if string(again) != string(out.Arena) {
			t.Fatalf("the second time it is\n%s\nand not\n%s", out.Arena, again)
		}
	})
}

func benchmarkFormat(b *testing.B, format, record string, events int) {
	a, _ := For(format)
	in := input(record)
	var out Output
	b.ReportAllocs()
	b.SetBytes(int64(len(record)))
	for b.Loop() {
		out.Reset()
		a(in, &out)
		if len(out.Events) != events {
			b.Fatal(out.Bad)
		}
	}
}

// BenchmarkCloudflareFirewall is of one event of one row.
func BenchmarkCloudflareFirewall(b *testing.B) {
	benchmarkFormat(b, "cloudflare-firewall", readFile(b, "cloudflare_firewall_events.json"), 1)
}

// BenchmarkCloudflareFirewallUpload is of an upload: 1,000 requests of three rows each.
func BenchmarkCloudflareFirewallUpload(b *testing.B) {
	sample := strings.TrimSpace(readFile(b, "cloudflare_firewall_events.json"))
	var rows []string
	for i := range 3000 {
		row := strings.Replace(sample, "8e6a1b2c3d4e5f60", fmt.Sprintf("%016x", i%1000), 1)
		rows = append(rows, strings.Replace(row, `"MatchIndex":0`, fmt.Sprintf(`"MatchIndex":%d`, i/1000), 1))
	}
	benchmarkFormat(b, "cloudflare-firewall", strings.Join(rows, "\n"), 1000)
}
