package tenants

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"datasync/exporter/tenants/conf"
	"datasync/feeds"
)

func TestChannelsMergeUnderTenants(t *testing.T) {
	tree(t, map[string]string{
		"t/channels/c.yaml": "quota: {events_per_second: 5, journal_bytes: 2GiB}\nredact: {query_params: [a]}\nsinks:\n" +
			"  - name: shared\n    dir: {path: shared}\n    deliver: {max_age: 1m, max_events: 7}\n    kinds: [audit, alert]\n" +
			"  - name: moved\n    dir: {path: moved}\n  - name: untouched\n    dir: {path: u}\n",
		"t/a.yaml": "tenant: a\nchannel: c\nquota: {events_per_second: 9}\nredact: {query_params: [b]}\nsinks:\n" +
			"  - name: own\n    dir: {path: own}\n" +
			"  - name: shared\n    deliver: {max_events: 8}\n    kinds: [audit]\n" +
			"  - name: moved\n    emitter: {address: 'h:1'}\n",
		"t/b.yaml": "tenant: b\nchannel: c\n",
	})
	set, ps := LoadTenants("t")
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	a, b := set.Tenant("a"), set.Tenant("b")
	if a.Quota != (Quota{2 << 30, 9}) || b.Quota != (Quota{2 << 30, 5}) || strings.Join(a.Redact.QueryParams, ",") != "b" {
		t.Errorf("%+v %+v %+v", a.Quota, b.Quota, a.Redact)
	}
	names := func(t *Tenant) (out string) {
		for _, s := range t.Sinks {
			out += s.Name + "/" + string(s.Tenant) + " "
		}
		return out
	}
	if got := names(a); got != "shared/a moved/a untouched/a own/a " {
		t.Error(got)
	}
	if got := names(b); got != "shared/b moved/b untouched/b " {
		t.Error(got)
	}
	if d := a.Sinks[0]; d.Deliver.MaxAge != time.Minute || d.Deliver.MaxEvents != 8 || d.Output.Kinds.Has(2) || d.Dir.Path != "shared" {
		t.Errorf("%+v", d)
	}
	if m := a.Sinks[1]; m.Dir != nil || m.Emitter == nil {
		t.Error("the tenant's choice of a sink's kind does not win")
	}
	if a.Sinks[2] == b.Sinks[2] {
		t.Error("two tenants share a channel's sink")
	}
	if a.Channel != "c" || a.File != filepath.Join("t", "a.yaml") {
		t.Error(a.Channel, a.File)
	}
}

// reread reads the book's folder again and gives what changed.
func reread(t *testing.T, b *book) (*Set, string) {
	t.Helper()
	set, ps := b.read(false)
	return set, ps.Error()
}

func TestReloadKeepsWhatIsGood(t *testing.T) {
	const sinkA = "sinks:\n  - name: x\n    dir: {path: x}\n"
	tree(t, map[string]string{"t/a.yaml": "tenant: a\n" + sinkA, "t/b.yaml": "tenant: b\nchannel: c\n", "t/channels/c.yaml": sinkA})
	b := newBook("t")
	first, ps := b.read(true)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	if again, problems := reread(t, b); again != first || problems != "" {
		t.Error("a reading that found nothing new made a new set", problems)
	}

	write(t, "t/a.yaml", "tenant: a\nsinks: 1\n")
	bad, problems := reread(t, b)
	if bad.Tenant("a") != first.Tenant("a") || !strings.HasPrefix(problems, "t/a.yaml:2:8: ") {
		t.Error("an invalid file does not leave the last good settings in force", problems)
	}

	write(t, "t/a.yaml", "tenant: a\n"+sinkA+"  - name: y\n    dir: {path: y}\n")
	second, problems := reread(t, b)
	if problems != "" || len(second.Tenant("a").Sinks) != 2 || second.Tenant("a").Sinks[0] != first.Tenant("a").Sinks[0] {
		t.Error("a sink was not added, or another lost its identity", problems)
	}
	if second.Tenant("b") != first.Tenant("b") {
		t.Error("a tenant that did not change lost its identity")
	}

	write(t, "t/channels/c.yaml", "sinks:\n  - name: x\n    dir: {path: elsewhere}\n")
	third, _ := reread(t, b)
	if got := third.Tenant("b").Sinks[0].Dir.Path; got != "elsewhere" {
		t.Error("a change of the channel does not reach its tenant:", got)
	}
	if third.Tenant("a") != second.Tenant("a") {
		t.Error("a channel's change touched another tenant")
	}

	write(t, "t/channels/c.yaml", "sinks: 1")
	fourth, problems := reread(t, b)
	if fourth.Tenant("b") != third.Tenant("b") || !strings.Contains(problems, "channels/c.yaml:1:8") {
		t.Error("a bad channel changed its tenant", problems)
	}
	write(t, "t/channels/c.yaml", "sinks:\n  - name: x\n    dir: {path: mended}\n")
	if fifth, problems := reread(t, b); problems != "" || fifth.Tenant("b").Sinks[0].Dir.Path != "mended" {
		t.Error("a mended channel does not reach its tenant", problems)
	}

	if err := os.Remove("t/a.yaml"); err != nil {
		t.Fatal(err)
	}
	if sixth, _ := reread(t, b); sixth.Tenant("a") != nil || sixth.Len() != 1 {
		t.Error("a removed file leaves its tenant")
	}
}

func TestReloadOfConflicts(t *testing.T) {
	tree(t, map[string]string{"t/b.yaml": "tenant: b\napi_keys: [k1]\n", "t/c.yaml": "tenant: c\napi_keys: [k2]\n"})
	b := newBook("t")
	first, _ := b.read(true)
	// A newcomer that sorts first takes neither the id nor the key of one in force.
	write(t, "t/a.yaml", "tenant: b\napi_keys: [k2]\n")
	set, problems := reread(t, b)
	if set.Tenant("b") != first.Tenant("b") || !strings.HasPrefix(problems, "t/a.yaml:1:9: tenant \"b\" has a file already, t/b.yaml") {
		t.Error(problems)
	}
	write(t, "t/a.yaml", "tenant: a\napi_keys: [k2]\n")
	set, problems = reread(t, b)
	if set.Tenant("a") != nil || !strings.HasPrefix(problems, "t/a.yaml:2:11: api key 1 is also in t/c.yaml") || strings.Contains(problems, "k2") {
		t.Error(problems)
	}
	// When the other gives way, the newcomer is let in, though its file did not change.
	write(t, "t/c.yaml", "tenant: c\napi_keys: [k3]\n")
	if set, problems = reread(t, b); problems != "" || set.Len() != 3 {
		t.Error(problems, set.Len())
	}
	if id, _ := set.ByKey("k2"); id != "a" {
		t.Error(id)
	}
	// Keys may be swapped in one step.
	write(t, "t/b.yaml", "tenant: b\napi_keys: [k3]\n")
	write(t, "t/c.yaml", "tenant: c\napi_keys: [k1]\n")
	if set, problems = reread(t, b); problems != "" {
		t.Error(problems)
	}
	if id, _ := set.ByKey("k1"); id != "c" {
		t.Error(id)
	}
	// One that is refused keeps its own last good key.
	write(t, "t/a.yaml", "tenant: a\napi_keys: [k1]\n")
	if set, problems = reread(t, b); !strings.Contains(problems, "t/c.yaml") {
		t.Error(problems)
	}
	if id, _ := set.ByKey("k2"); id != "a" {
		t.Error("a refused change took the last good settings away")
	}
}

func TestReloadSeesReferencedFiles(t *testing.T) {
	tree(t, map[string]string{"t/a.yaml": "tenant: a\napi_keys: [\"${file:secret}\"]\n", "secret": "one\n"})
	b := newBook("t")
	b.read(true)
	write(t, "secret", "three\n")
	set, problems := reread(t, b)
	if _, ok := set.ByKey("three"); !ok || problems != "" {
		t.Error("a changed secret was not seen", problems)
	}
}

func TestWatcherTellsOfChanges(t *testing.T) {
	for name, o := range map[string]WatchOptions{
		"told by the system": {Poll: time.Hour, Settle: time.Millisecond},
		"polling":            {Poll: 5 * time.Millisecond, Settle: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			tree(t, map[string]string{"t/a.yaml": "tenant: a\n", "t/bad.yaml": "tenant: BAD\n"})
			changes := make(chan Change, 100)
			w, err := NewWatcher("t", func(c Change) { changes <- c }, o)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- w.Run(ctx) }()
			wait := func(what string, ok func(Change) bool) {
				t.Helper()
				deadline := time.After(time.Minute)
				for {
					select {
					case c := <-changes:
						if ok(c) {
							return
						}
					case <-deadline:
						t.Fatal("not told of " + what)
					}
				}
			}
			wait("the problems at the start", func(c Change) bool { return c.Old == c.New && len(c.Problems) == 1 })
			write(t, "t/b.yaml", "tenant: b\n")
			wait("a new file", func(c Change) bool { return c.Old.Len() == 1 && c.New.Tenant("b") != nil })
			if w.Set().Len() != 2 {
				t.Error("Set is behind what was told")
			}
			write(t, "t/bad.yaml", "tenant: good\n")
			wait("a mended file", func(c Change) bool { return len(c.Problems) == 0 && c.New.Tenant("good") != nil })
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReloadResolvesReferencesAnew(t *testing.T) {
	t.Setenv("ROTATING", "one")
	tree(t, map[string]string{"t/a.yaml": "tenant: a\napi_keys: [\"${env:ROTATING}\"]\n"})
	told := 0
	w, err := NewWatcher("t", func(Change) { told++ }, WatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("ROTATING", "two")
	if ps := w.Reload(); len(ps) > 0 || told != 1 {
		t.Error(ps, told)
	}
	if _, ok := w.Set().ByKey("two"); !ok {
		t.Error("the new value is not in force")
	}
	if _, err := NewWatcher("nowhere", nil, WatchOptions{}); err == nil {
		t.Error("a folder that is not there is watched")
	}
}

func FuzzTenantFile(f *testing.F) {
	f.Add(contractTenant)
	f.Add("tenant: a\nsinks: [{name: x, dir: {path: y}, filter: 'enforced', deliver: {schedule: '@every 1h'}}]")
	f.Add("&a [*a]")
	f.Add("a: &a {b: *a}\n<<: *a")
	f.Fuzz(func(t *testing.T, text string) {
		v, ps := conf.Parse("f", []byte(text), tenantKeys, conf.Refs{
			Env: func(string) (string, bool) { return "value", true }, ReadFile: func(string) ([]byte, error) { return []byte("x"), nil },
		})
		if v == nil && len(ps) == 0 {
			t.Fatal("no value and no problem")
		}
		if v != nil {
			l := newLoader(conf.Refs{})
			l.tenant(conf.Merge(v, v), v)
			v.Complete()
		}
		conf.Public([]byte(text), tenantKeys)
		for _, p := range ps {
			if p.Line < 1 || p.Col < 1 || strings.Contains(p.Message, "\n") {
				t.Fatalf("%+v", p)
			}
		}
	})
}

func BenchmarkLoad10000Tenants(b *testing.B) {
	files := map[string]string{"t/channels/c.yaml": "redact: {query_params: [session]}\nsinks:\n  - name: lake\n    dir: {path: ./out}\n    deliver: {schedule: '*/5 * * * *', timezone: Europe/London}\n"}
	const n = 10_000
	for i := range n {
		files[fmt.Sprintf("t/t%05d.yaml", i)] = fmt.Sprintf("tenant: t%05d\nchannel: c\napi_keys: [\"key-%d\"]\nquota: {journal_bytes: 5GiB, events_per_second: 20000}\nsinks:\n  - name: drops\n    dir: {path: ./out}\n    format: ndjson\n    compression: gzip\n    deliver: {schedule: \"@hourly\"}\n    filter: 'enforced && client_country != \"GB\"'\n  - name: siem\n    emitter: {address: \"127.0.0.1:6514\", framing: lines}\n", i, i)
	}
	tree(b, files)
	var set *Set
	var again *book
	for b.Loop() {
		again = newBook("t")
		var ps Problems
		if set, ps = again.read(true); len(ps) > 0 || set.Len() != n {
			b.Fatal(ps, set.Len())
		}
	}
	b.StopTimer()
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB-live")
	b.ReportMetric(float64(m.HeapSys)/1e6, "MB-heap-peak")
	start := time.Now()
	again.read(false)
	b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms-reread")
	if _, ok := set.ByKey("key-77"); !ok || set.Tenant(feeds.TenantID("t00077")) == nil {
		b.Fatal("not found")
	}
}

// TestABadChannelIsSaidOnce: what a tenant leaves to its channel is no mistake
// of the tenant's while the channel cannot be read.
func TestABadChannelIsSaidOnce(t *testing.T) {
	tree(t, map[string]string{"t/a.yaml": "tenant: a\nchannel: c\nsinks:\n  - name: x\n    filter: 'severity > 4'\n", "t/channels/c.yaml": "sinks: 1\n"})
	for _, want := range []string{"channel \"c\" has mistakes", "channel \"c\" has no file"} {
		_, ps := LoadTenants("t")
		n := 0
		for _, p := range ps {
			if p.File == filepath.Join("t", "a.yaml") {
				n++
			}
		}
		if n != 1 || !strings.Contains(ps.Error(), want) {
			t.Errorf("%d problems of the tenant: %v", n, ps)
		}
		if err := os.RemoveAll("t/channels/c.yaml"); err != nil {
			t.Fatal(err)
		}
	}
}

// Ten thousand files that were all written just before the start look as if
// they might have changed since: that is found out without parsing them again.
func TestFilesThatAreTheSameAreNotParsedAgain(t *testing.T) {
	files := map[string]string{}
	for i := range 50 {
		files[fmt.Sprintf("t/t%d.yaml", i)] = fmt.Sprintf("tenant: t%d\nsinks:\n  - name: s\n    dir: {path: d}\n", i)
	}
	tree(t, files)
	b := newBook("t")
	first, ps := b.read(true)
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	all := testing.AllocsPerRun(5, func() { b.read(true) })
	same := testing.AllocsPerRun(1, func() {
		for _, e := range b.tenants {
			e.seen.fresh = true
		}
		if set, ps := b.read(false); set != first || len(ps) > 0 {
			t.Errorf("changed by itself: %v", ps)
		}
	})
	if same > all/4 {
		t.Errorf("%.0f allocations, %.0f where all is read anew", same, all)
	}
}
