package trial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"datasync/exporter"
	"datasync/exporter/admin"
	"datasync/exporter/tenants"
)

// DemoOptions configure a demo.
type DemoOptions struct {
	// Dir is where it keeps everything; empty: a new temporary folder.
	Dir string
	// Rate is events a second; 0 is 500.
	Rate int
	// For is how long it generates; 0: until the context ends.
	For time.Duration
	// Tenants is how many; 0 is 5.
	Tenants int
	// Log is the service's log; the story of the demo goes to Out.
	Log zerolog.Logger
	Out io.Writer
}

// Demo runs the whole product in this process: a generator posts events over
// HTTP to the real service, which delivers them to drops and to a receiver
// that is cut off for a while. It ends with the ledger, compared with what was sent.
func Demo(ctx context.Context, o DemoOptions) error {
	d, err := newDemo(o)
	if err != nil {
		return err
	}
	return d.run(ctx)
}

type demo struct {
	o        DemoOptions
	start    time.Time
	seed     uint64
	certs    Certs
	receiver *Receiver
	lines    string // the receiver's file
	svc      *exporter.Service
	client   *http.Client
	gen      *Generator
	sent     int
}

func newDemo(o DemoOptions) (*demo, error) {
	if o.Rate == 0 {
		o.Rate = 500
	}
	if o.Tenants == 0 {
		o.Tenants = 5
	}
	if o.Out == nil {
		o.Out = os.Stdout
	}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "datasync-demo-")
		if err != nil {
			return nil, fmt.Errorf("make the demo's folder: %w", err)
		}
		o.Dir = dir
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the demo's folder: %w", err)
	}
	tls := filepath.Join(o.Dir, "tls")
	if err := os.MkdirAll(tls, 0o700); err != nil {
		return nil, fmt.Errorf("make the demo's folder: %w", err)
	}
	certs, err := NewCerts(tls)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	d := &demo{o: o, start: now, certs: certs, lines: filepath.Join(o.Dir, "receiver.jsonl"),
		client: &http.Client{Timeout: 30 * time.Second},
		// Another seed each time: ids must not repeat where a folder is used again.
		seed: uint64(now.UnixMilli())}
	d.gen = NewGenerator(GeneratorOptions{Tenants: o.Tenants, Seed: d.seed, Start: now})
	d.receiver, err = NewReceiver(ReceiveOptions{Listen: "127.0.0.1:0", Cert: certs.Cert, Key: certs.Key, Out: d.lines})
	return d, err
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.o.Out, "%6.1fs  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context) error {
	if err := d.receiver.Start(); err != nil {
		return err
	}
	var err error
	if d.svc, err = d.serve(); err != nil {
		return errors.Join(err, d.receiver.Close())
	}
	svcCtx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- d.svc.Run(svcCtx) }()
	d.say("the service runs: POST http://%s/v1/ingest/canonical, admin http://%s/", d.svc.Addr("edge"), d.svc.Addr("admin"))
	d.say("%d tenants, each with gzip NDJSON and Parquet drops below %s and JSON lines over TLS to %s",
		d.o.Tenants, filepath.Join(d.o.Dir, "drops"), d.receiver.Addr())
	if err = d.play(ctx); err == nil {
		err = d.settle()
	}
	ledger, lerr := d.svc.Views().Ledger("")
	stop()
	if err = errors.Join(err, lerr, <-ended, d.receiver.Close()); err != nil {
		return err
	}
	return d.verdict(ledger)
}

// play posts events and, in the second quarter of its time, has no receiver.
func (d *demo) play(ctx context.Context) error {
	cutAt, backAt := 10*time.Second, 20*time.Second
	var end <-chan time.Time
	if d.o.For > 0 {
		cutAt, backAt = d.o.For/4, d.o.For/2
		end = time.After(d.o.For)
	}
	cut, back := time.After(cutAt), time.After(backAt)
	tick, report := time.NewTicker(100*time.Millisecond), time.NewTicker(5*time.Second)
	defer tick.Stop()
	defer report.Stop()
	away := false
	for {
		select {
		case <-tick.C:
			if err := d.post(ctx); err != nil {
				return err
			}
			continue
		case <-report.C:
			d.report()
			continue
		case <-cut:
			d.say("the receiver goes away; its lines wait in the journal, the drops go on")
			d.receiver.Cut()
			away = true
			continue
		case <-back:
			d.say("the receiver is back")
			if err := d.receiver.Start(); err != nil {
				return err
			}
			away = false
			continue
		case <-end:
			d.say("no more events are made; %d were sent", d.sent)
		case <-ctx.Done():
			d.say("interrupted; %d events were sent", d.sent)
		}
		if away {
			return d.receiver.Start()
		}
		return nil
	}
}

// post sends a tenth of a second's events, each tenant's with its own key.
func (d *demo) post(ctx context.Context) error {
	bodies := map[string]*bytes.Buffer{}
	due := int(time.Since(d.start).Seconds()*float64(d.o.Rate)) - d.sent
	var line []byte
	for range min(due, d.o.Rate) {
		var tenant string
		line, tenant, _ = d.gen.Next(line[:0])
		if bodies[tenant] == nil {
			bodies[tenant] = &bytes.Buffer{}
		}
		bodies[tenant].Write(line)
		if !bytes.HasSuffix(line, []byte("\n")) {
			bodies[tenant].WriteByte('\n')
		}
		d.sent++
	}
	for tenant, body := range bodies {
		if err := d.postOne(ctx, tenant, body.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) postOne(ctx context.Context, tenant string, body []byte) error {
	// Not the interrupted context: what was generated is sent.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	url := "http://" + d.svc.Addr("edge") + "/v1/ingest/canonical/" + tenant
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+demoKey(tenant))
	resp, err := d.client.Do(req)
	if err != nil {
		return fmt.Errorf("post events: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("post events: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("post events of %s: %s: %s", tenant, resp.Status, bytes.TrimSpace(answer))
	}
	return nil
}

// serve writes the configuration that a user would write, and starts the service.
func (d *demo) serve() (*exporter.Service, error) {
	conf := filepath.Join(d.o.Dir, "config")
	dir := filepath.Join(conf, "tenants")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the demo's configuration: %w", err)
	}
	files := map[string]string{filepath.Join(conf, "datasync.yaml"): fmt.Sprintf(demoService, filepath.Join(d.o.Dir, "data"), dir)}
	for n := 1; n <= d.o.Tenants; n++ {
		t := fmt.Sprintf("t%04d", n)
		files[filepath.Join(dir, t+".yaml")] = fmt.Sprintf(demoTenant, t, demoKey(t),
			filepath.Join(d.o.Dir, "drops"), filepath.Join(d.o.Dir, "drops"), d.receiver.Addr(), d.certs.CA)
	}
	for name, text := range files {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write the demo's configuration: %w", err)
		}
	}
	cfg, err := tenants.Load(filepath.Join(conf, "datasync.yaml"))
	if err != nil {
		return nil, err
	}
	return exporter.New(cfg, exporter.Options{Log: d.o.Log, Version: "demo"})
}

func demoKey(tenant string) string { return "demo-key-of-" + tenant }

const demoService = `data_dir: %q
feeds:
  - name: edge
    http: {listen: "127.0.0.1:0"}
    format: auto
tenants: %q
admin: {listen: "127.0.0.1:0"}
log: {level: info, format: console}
`

const demoTenant = `tenant: %s
api_keys: [%q]
sinks:
  - name: drops
    dir: {path: %q}
    format: ndjson
    compression: gzip
    deliver: {max_age: 5s, manifest: true}
  - name: lake
    dir: {path: %q}
    format: parquet
    compression: zstd
    deliver: {max_age: 10s}
  - name: siem
    emitter: {address: %q, tls: {ca: %q}, rotate_every: 2s, retry_max: 2s}
`

// settle cuts what is left and waits until every lane has delivered everything.
func (d *demo) settle() error {
	if err := d.svc.FlushAll(); err != nil {
		return err
	}
	deadline := time.Now().Add(time.Minute)
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for range t.C {
		left := int64(0)
		for _, l := range d.svc.Views().Lanes(false) {
			left += l.Behind.Events
		}
		if left == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d events are still not delivered after a minute", left)
		}
	}
	return nil
}

func (d *demo) report() {
	var behind int64
	worst := "running"
	byState := map[string]int{}
	for _, l := range d.svc.Views().Lanes(false) {
		behind += l.Behind.Events
		byState[l.State]++
		if admin.Worse(l.State, worst) {
			worst = l.State
		}
	}
	var states []string
	for _, s := range admin.States {
		if byState[s] > 0 {
			states = append(states, fmt.Sprintf("%d %s", byState[s], s))
		}
	}
	d.say("%7d events sent · sinks: %s · %d deliveries to go", d.sent, strings.Join(states, ", "), behind)
}

// verdict reads back what arrived and compares it with what was sent.
func (d *demo) verdict(l admin.Ledger) error {
	got, err := readBack(filepath.Join(d.o.Dir, "drops"), d.lines, fmt.Sprintf("gen-%d-", d.seed))
	if err != nil {
		return err
	}
	fmt.Fprintf(d.o.Out, "\n%-8s %-8s %10s %10s %10s %10s %8s\n", "tenant", "sink", "received", "delivered", "filtered", "queued", "repeats")
	for _, r := range l.Sinks {
		fmt.Fprintf(d.o.Out, "%-8s %-8s %10d %10d %10d %10d %8d\n", r.Tenant, r.Sink, r.Received, r.Delivered, r.Filtered, r.Queued, r.Repeats)
	}
	for _, f := range l.Feeds {
		fmt.Fprintf(d.o.Out, "feed %s: read %d = accepted %d + quarantined %d + unrouted %d + duplicate %d\n",
			f.Feed, f.Read, f.Accepted, f.Quarantined, f.Unrouted, f.Duplicate)
	}
	fmt.Fprintf(d.o.Out, "\nsent %d · NDJSON drops: %d ids in %d objects, %d twice · Parquet: %d objects · receiver: %d ids, %d lines repeated\n",
		d.sent, got.dropIDs, got.dropObjects, got.dropTwice, got.parquetObjects, got.lineIDs, got.lineRepeats)
	switch {
	case !l.Balanced:
		return errors.New("the ledger does not balance")
	case got.dropIDs != d.sent || got.dropTwice != 0:
		return fmt.Errorf("the drops hold %d of %d events, %d of them twice", got.dropIDs, d.sent, got.dropTwice)
	case got.lineIDs != d.sent:
		return fmt.Errorf("the receiver has %d of %d events", got.lineIDs, d.sent)
	case got.parquetObjects == 0 && d.sent > 0:
		return errors.New("there are no Parquet drops")
	}
	fmt.Fprintf(d.o.Out, "the ledger balances: every event is in the drops exactly once and at the receiver at least once\nlook around: %s\n", d.o.Dir)
	return nil
}
