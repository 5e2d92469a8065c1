package soak

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The soak's own checks, on what they are there to find.

func TestTallyFindsWhatIsWrong(t *testing.T) {
	a := newTally()
	for range chunkSize + 10 {
		a.make(7, 1)
	}
	for k := range kinds {
		for n := 1; n <= chunkSize; n++ {
			a.arrive(k, 1, fmt.Appendf(nil, "gen-7-%d", n))
		}
	}
	if a.sources[7].chunks[0] != nil || a.sources[7].chunks[1] == nil {
		t.Error("a chunk is kept though all of it arrived, or gone though not")
	}
	if owed, events := a.outstanding(); owed != 10*int64(kinds) || events != 10 || len(a.wrong) > 0 {
		t.Errorf("%d arrivals of %d events are to come, wrong: %q", owed, events, a.wrong)
	}
	a.arriveAll(stream, []byte(`\x00{"event_id":"gen-7-65537"}..{"event_id":"gen-7-65538"}`))
	a.arrive(siem, 1, []byte("gen-7-65537"))
	a.arrive(siem, 1, []byte("gen-7-65537"))
	if n, examples := a.missing(); n != [kinds]int{10, 10, 8, 9} || examples[stream] != "gen-7-65546 of t0001" {
		t.Errorf("missing: %v %q", n, examples)
	}
	if a.again[siem] != 1 || len(a.wrong) > 0 {
		t.Errorf("a line that came again counts %d times, and is wrong: %q", a.again[siem], a.wrong)
	}
	for _, c := range []struct{ id, says string }{{"gen-7-5", "twice"}, {"gen-7-65546", "arrived at t0002"}, {"gen-7-65547", "never made"}, {"gen-8-1", "never made"}, {"poison-1-1", "never made"}} {
		a.wrong = nil
		a.arrive(lake, 2, []byte(c.id))
		if len(a.wrong) != 1 || !strings.Contains(a.wrong[0], c.says) {
			t.Errorf("%s: %q, want %q", c.id, a.wrong, c.says)
		}
	}
}

func TestFollowerTakesEachLineOnce(t *testing.T) {
	a := newTally()
	for range 10_000 {
		a.make(1, 1)
	}
	f := &follower{path: filepath.Join(t.TempDir(), "lines"), odd: true}
	out, err := os.Create(f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var all strings.Builder
	for n := 1; n <= 10_000; n++ {
		line := fmt.Sprintf(`{"schema":"mitigation/1","event_id":"gen-1-%d","tenant_id":"t0001","pad":%q}`+"\n", n, strings.Repeat("x", 600))
		if n%1000 == 500 { // a torn line before it
			all.WriteString(line[:n/100+20])
		}
		all.WriteString(line)
	}
	text := all.String()
	for at := 0; at < len(text); at += 1_234_567 {
		if _, err := out.WriteString(text[at:min(len(text), at+1_234_567)]); err != nil {
			t.Fatal(err)
		}
		if err := f.pass(a); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := a.missing(); n[siem] != 0 || a.again[siem] != 0 || f.torn != 10 || f.lines != 10_000 || len(a.wrong) > 0 {
		t.Errorf("missing %d, again %d, torn %d of %d lines, wrong %q", n[siem], a.again[siem], f.torn, f.lines, a.wrong)
	}
	if mb, err := onDisk(filepath.Dir(f.path)); err != nil || mb > 2 {
		t.Errorf("%.1f MB of %.1f are kept on disk (%v)", mb, float64(len(text))/(1<<20), err)
	}
}

func TestLeaksAreFound(t *testing.T) {
	const lasts = 20 * time.Minute
	series := func(what int, of func(life, i int) float64) (all []sample) {
		for life := 1; life <= 4; life++ {
			for i := range 30 {
				s := sample{life: life, at: time.Duration(life-1)*5*time.Minute + time.Duration(i)*10*time.Second, age: time.Duration(i) * 10 * time.Second}
				for at := range s.used {
					s.used[at] = 200
				}
				s.used[what] = of(life, i)
				all = append(all, s)
			}
		}
		return all
	}
	for _, c := range []struct {
		name string
		what int
		of   func(life, i int) float64
		grew int
	}{
		{"steady", descriptors, func(_, i int) float64 { return 200 + float64(i%3)*30 }, 0},
		{"two a second within a life", descriptors, func(_, i int) float64 { return 200 + float64(i)*20 }, 4},
		{"from life to life", journal, func(life, _ int) float64 { return 100 * float64(life) }, 1},
	} {
		if table, grew := leaks(series(c.what, c.of), lasts); len(grew) != c.grew {
			t.Errorf("%s: %q, want %d\n%s", c.name, grew, c.grew, table)
		}
	}
}

func TestImpossibleMetrics(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        bool
	}{
		{"datasync_ledger_balanced", "1", false},
		{"datasync_ledger_balanced", "0", true},
		{`datasync_journal_incidents_total{kind="expired"}`, "1", true},
		{`datasync_journal_incidents_total{kind="expired"}`, "0", false},
		{`datasync_journal_incidents_total{kind="torn-tail"}`, "3", false},
		{"go_goroutines", "7", false},
	} {
		if got := impossible(c.name, c.value); got != c.want {
			t.Errorf("%s %s: %v", c.name, c.value, got)
		}
	}
}
