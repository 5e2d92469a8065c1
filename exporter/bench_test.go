package exporter_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"datasync/exporter"
	"datasync/exporter/tenants"
	"datasync/exporter/trial"
)

// BenchmarkWhole runs the whole service in this process: b.N generated events
// of 200 tenants from a file, through the journal, to one kind of sink each
// (none: to the journal alone). cpu-ns/op is the processor time of all of it,
// but the receiver's for the emitter is in it too.
func BenchmarkWhole(b *testing.B) {
	for _, c := range []struct{ name, sink string }{
		{"journal", "  []\n"},
		{"ndjson-gzip", "  - name: s\n    dir: {path: \"{dir}/out\"}\n"},
		{"ndjson-zstd", "  - name: s\n    dir: {path: \"{dir}/out\"}\n    compression: zstd\n"},
		{"parquet", "  - name: s\n    dir: {path: \"{dir}/out\"}\n    format: parquet\n"},
		{"emitter", "  - name: s\n    emitter: {address: \"{receiver}\", tls: {ca: \"{dir}/ca.pem\"}, rotate_every: 1s}\n"},
	} {
		b.Run(c.name, func(b *testing.B) { whole(b, c.sink) })
	}
}

func whole(b *testing.B, sinks string) {
	dir := b.TempDir()
	for _, d := range []string{"in", "tenants"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	certs, err := trial.NewCerts(dir)
	if err != nil {
		b.Fatal(err)
	}
	rc, err := trial.NewReceiver(trial.ReceiveOptions{Listen: "127.0.0.1:0", Cert: certs.Cert, Key: certs.Key, Out: filepath.Join(dir, "lines")})
	if err != nil {
		b.Fatal(err)
	}
	if err := rc.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := rc.Close(); err != nil {
			b.Error(err)
		}
	})
	file(b, dir, "datasync.yaml", fmt.Sprintf("data_dir: %[1]s/data\nfeeds:\n  - name: files\n    file: {path: \"%[1]s/in/*.ndjson\", follow: false}\n    format: canonical\ntenants: %[1]s/tenants\nadmin: {listen: \"127.0.0.1:0\"}\n", dir))
	const count = 200
	for i := 1; i <= count; i++ {
		t := fmt.Sprintf("t%04d", i)
		file(b, dir, "tenants/"+t+".yaml", "tenant: "+t+"\nsinks:\n"+replace(sinks, "{dir}", dir, "{receiver}", rc.Addr(), "{dir}/ca.pem", certs.CA))
	}
	bytes := input(b, filepath.Join(dir, "in", "a.ndjson"), b.N, count)
	cfg, err := tenants.Load(filepath.Join(dir, "datasync.yaml"))
	if err != nil {
		b.Fatal(err)
	}
	read := make(chan struct{})
	svc, err := exporter.New(cfg, exporter.Options{Log: zerolog.Nop(), Done: func(string) { close(read) }})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	b.SetBytes(bytes / int64(b.N))
	before := cpu(b)
	b.ResetTimer()
	go func() { ended <- svc.Run(ctx) }()
	<-read
	if err := svc.FlushAll(); err != nil {
		b.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for left(svc) > 0 {
		<-tick.C
	}
	b.StopTimer()
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N), "cpu-ns/op")
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

// left is how many events are not at the sinks yet; an emitter's count as
// there once they are read.
func left(svc *exporter.Service) (n int64) {
	for _, l := range svc.Views().Lanes(false) {
		n += l.Behind.Events
	}
	return n
}

func file(b *testing.B, dir, name, text string) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

func replace(text string, pairs ...string) string {
	for i := len(pairs) - 2; i >= 0; i -= 2 {
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}

func input(b *testing.B, path string, n, tenants int) int64 {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	g := trial.NewGenerator(trial.GeneratorOptions{Tenants: tenants, Seed: 1})
	var line []byte
	var total int64
	for range n {
		line, _, _ = g.Next(line[:0])
		line = append(line, '\n')
		total += int64(len(line))
		if _, err := w.Write(line); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	return total
}

func cpu(b *testing.B) int64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
