package exporter_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"datasync/exporter"
	"datasync/exporter/admin"
	"datasync/exporter/tenants"
	"datasync/exporter/trial"
)

// bench is a service in this process, started and stopped over one folder.
type bench struct {
	t    *testing.T
	dir  string
	svc  *exporter.Service
	log  bytes.Buffer
	stop func() error
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir()}
	for _, d := range []string{"in", "tenants", "out"} {
		if err := os.MkdirAll(filepath.Join(b.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.write("datasync.yaml", fmt.Sprintf(`data_dir: %[1]s/data
feeds:
  - name: edge
    http: {listen: "127.0.0.1:0"}
    format: auto
  - name: files
    file: {path: "%[1]s/in/*.ndjson", follow: true}
    format: canonical
tenants: %[1]s/tenants
admin: {listen: "127.0.0.1:0"}
`, b.dir))
	t.Cleanup(func() {
		if b.stop != nil {
			b.down()
		}
		if t.Failed() {
			t.Log(b.log.String())
		}
	})
	return b
}

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) tenant(name, sinks string) {
	b.write("tenants/"+name+".yaml", fmt.Sprintf("tenant: %s\napi_keys: [key-of-%s]\nsinks:\n%s", name, name,
		strings.ReplaceAll(sinks, "{out}", filepath.Join(b.dir, "out"))))
}

func (b *bench) up() {
	b.t.Helper()
	cfg, err := tenants.Load(filepath.Join(b.dir, "datasync.yaml"))
	if err != nil {
		b.t.Fatal(err)
	}
	if b.svc, err = exporter.New(cfg, exporter.Options{Log: zerolog.New(zerolog.SyncWriter(&b.log)), Version: "test"}); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	svc := b.svc
	go func() { ended <- svc.Run(ctx) }()
	b.stop = func() error { cancel(); return <-ended }
	b.until("readiness", func() bool {
		resp, err := http.Get("http://" + b.svc.Addr("admin") + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (b *bench) down() {
	b.t.Helper()
	err := b.stop()
	b.stop = nil
	if err != nil {
		b.t.Errorf("the service ended with %v", err)
	}
}

func (b *bench) until(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("no %s", what)
		}
	}
}

// delivered waits until the feeds have read n events and nothing is queued.
func (b *bench) delivered(n int64) admin.Ledger {
	b.t.Helper()
	var l admin.Ledger
	b.until(fmt.Sprintf("delivery of %d events", n), func() bool {
		var err error
		if l, err = b.svc.Views().Ledger(""); err != nil {
			b.t.Fatal(err)
		}
		read, queued := int64(0), int64(0)
		for _, f := range l.Feeds {
			read += f.Read
		}
		for _, s := range l.Sinks {
			queued += s.Queued
		}
		return read >= n && queued == 0
	})
	if !l.Balanced {
		b.t.Errorf("the ledger does not balance: %+v", l)
	}
	return l
}

// ids counts the event ids in the gzip NDJSON drops below out whose path holds part.
func (b *bench) ids(part string) map[string]int {
	b.t.Helper()
	ids := map[string]int{}
	err := filepath.WalkDir(filepath.Join(b.dir, "out"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".ndjson.gz") || !strings.Contains(path, part) {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			return err
		}
		sc := bufio.NewScanner(z)
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			_, rest, _ := strings.Cut(sc.Text(), `"event_id":"`)
			id, _, _ := strings.Cut(rest, `"`)
			ids[id]++
		}
		return sc.Err()
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return ids
}

func (b *bench) post(tenant, body string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://"+b.svc.Addr("edge")+"/v1/ingest/canonical/"+tenant, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key-of-"+tenant)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// ask sends a request to the admin API.
func (b *bench) ask(method, path string) (status int, body []byte) {
	b.t.Helper()
	req, err := http.NewRequest(method, "http://"+b.svc.Addr("admin")+path, strings.NewReader("{}"))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, body
}

const gzipDrops = `  - name: drops
    dir: {path: "{out}"}
    deliver: {max_age: 1s, max_events: 500}
`

func TestBadRecordsEndInQuarantineAndGoodOnesArrive(t *testing.T) {
	b := newBench(t)
	for i := 1; i <= 5; i++ {
		b.tenant(fmt.Sprintf("t%04d", i), gzipDrops)
	}
	const n = 4000
	g := trial.NewGenerator(trial.GeneratorOptions{Tenants: 5, Seed: 7, Bad: 0.1})
	var file bytes.Buffer
	good, bad := 0, map[string]int{}
	for range n {
		line, _, why := g.Next(nil)
		file.Write(append(line, '\n'))
		if bad[why]++; why == "" {
			good++
		}
	}
	delete(bad, "")
	b.write("in/a.ndjson", file.String())
	b.up()
	// A raw newline makes two lines of one record.
	l := b.delivered(int64(n + bad["raw newline"]))
	var files admin.FeedRow
	for _, f := range l.Feeds {
		if f.Feed == "files" {
			files = f
		}
	}
	if files.Accepted != int64(good) || files.Quarantined+files.Unrouted != int64(n-good+bad["raw newline"]) {
		t.Errorf("%d good of %d; the feed counts %+v", good, n, files)
	}
	ids := b.ids("")
	if len(ids) != good {
		t.Errorf("%d of %d good events in the drops", len(ids), good)
	}
	for id, k := range ids {
		if k != 1 {
			t.Errorf("%s is there %d times", id, k)
		}
	}
	checkQuarantine(t, b, bad)
}

// checkQuarantine asks the admin API for the entries: each has a reason, and
// every kind of fault is among them.
func checkQuarantine(t *testing.T, b *bench, bad map[string]int) {
	t.Helper()
	resp, err := http.Get("http://" + b.svc.Addr("admin") + "/v1/quarantine?limit=1000")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if n := strings.Count(text, `"reason":""`); n != 0 || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %d entries without a reason", resp.Status, n)
	}
	for fault, hint := range map[string]string{
		"wrong type": "enforced", "no tenant": "tenant", "300 KiB": "256 KiB", "invalid UTF-8": "UTF-8",
		"100 years ahead": "event_time", "repeated key": "source",
	} {
		if bad[fault] > 0 && !strings.Contains(text, hint) {
			t.Errorf("no entry tells of %s (%q)", fault, hint)
		}
	}
}

func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	b := newBench(t)
	b.tenant("t0001", gzipDrops)
	b.tenant("t0002", gzipDrops)
	b.up()
	g := trial.NewGenerator(trial.GeneratorOptions{Tenants: 3, Seed: 1, ZipfS: -1})
	sent := map[string]int{}
	send := func(n int) {
		t.Helper()
		for range n {
			line, tenant, _ := g.Next(nil)
			status, answer := b.post(tenant, string(line))
			if tenant == "t0003" && status == http.StatusForbidden {
				continue // not there yet
			}
			if status != http.StatusOK {
				t.Fatalf("%s: %d %s", tenant, status, answer)
			}
			sent[tenant]++
		}
	}
	send(60)
	b.delivered(int64(sent["t0001"] + sent["t0002"]))
	// A new tenant, a second sink for another; a broken file changes nothing.
	b.tenant("t0003", gzipDrops)
	b.tenant("t0002", gzipDrops+"  - name: later\n    dir: {path: \"{out}\"}\n    deliver: {max_age: 1s}\n")
	b.write("tenants/t0001.yaml", "tenant: t0001\nsinks: [{name: drops, dir: {pth: x}}]\n")
	before := sent["t0002"]
	b.svc.Reload()
	send(60)
	l := b.delivered(int64(sent["t0001"] + sent["t0002"] + sent["t0003"]))
	for _, tenant := range []string{"t0001", "t0002", "t0003"} {
		if got := len(b.ids("tenant=" + tenant + "/sink=drops/")); got != sent[tenant] || sent[tenant] == 0 {
			t.Errorf("%s: %d of %d events in its drops", tenant, got, sent[tenant])
		}
	}
	if got := len(b.ids("sink=later/")); got != sent["t0002"]-before {
		t.Errorf("a sink that came later has %d events, %d came after it", got, sent["t0002"]-before)
	}
	for _, s := range l.Sinks {
		if s.Sink == "later" && s.Received != int64(sent["t0002"]-before) {
			t.Errorf("its account begins wrong: %+v", s)
		}
	}
}

func TestASinkThatIsRemovedAndPutBackGoesOn(t *testing.T) {
	b := newBench(t)
	b.tenant("t0001", gzipDrops)
	b.up()
	g := trial.NewGenerator(trial.GeneratorOptions{Tenants: 1, Seed: 1})
	send := func() {
		t.Helper()
		for range 20 {
			line, _, _ := g.Next(nil)
			if status, answer := b.post("t0001", string(line)); status != http.StatusOK {
				t.Fatalf("%d %s", status, answer)
			}
		}
	}
	send()
	b.delivered(20)
	b.write("tenants/t0001.yaml", "tenant: t0001\napi_keys: [key-of-t0001]\nsinks: []\n")
	b.svc.Reload()
	send()
	b.down() // a restart in between must not lose its place
	b.up()
	send()
	b.tenant("t0001", gzipDrops)
	b.svc.Reload()
	send()
	b.delivered(80)
	ids := b.ids("")
	for id, k := range ids {
		if k != 1 {
			t.Errorf("%s is there %d times", id, k)
		}
	}
	if len(ids) != 80 {
		t.Errorf("%d of 80 events in the drops", len(ids))
	}
}

// A sink that is away when its tenant's first event comes has its place too:
// before that event.
func TestASinkThatWasAwayAtTheFirstEvent(t *testing.T) {
	b := newBench(t)
	other := "  - name: other\n    dir: {path: \"{out}\"}\n    deliver: {max_age: 1s}\n"
	b.tenant("t0001", gzipDrops+other)
	b.up()
	b.tenant("t0001", other)
	b.svc.Reload()
	for _, after := range []func(){
		func() { b.tenant("t0001", gzipDrops+other); b.svc.Reload() }, func() {},
	} {
		if status, answer := b.post("t0001", events(fmt.Sprint(len(b.ids("sink=other"))), 20)); status != http.StatusOK {
			t.Fatalf("%d %s", status, answer)
		}
		b.until("delivery to the other sink", func() bool { return len(b.ids("sink=other"))%20 == 0 && len(b.ids("sink=other")) > 0 })
		after()
	}
	b.until("delivery of 40 events to the sink that was away", func() bool { return len(b.ids("sink=drops")) == 40 })
	b.delivered(40)
}
