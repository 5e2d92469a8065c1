package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"datasync/exporter"
	"datasync/exporter/tenants"
)

// runCmd is the service.
type runCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The service's configuration file."`
}

// Run runs the service until ctx ends (SIGINT, SIGTERM).
func (r *runCmd) Run(ctx context.Context, c *console) error {
	cfg, err := tenants.Load(r.Config)
	if err != nil {
		return usageError{err}
	}
	tuneGC(cfg.Memory, c.Getenv)
	svc, err := exporter.New(cfg, exporter.Options{Log: newLog(c.Err, cfg.Log), Version: buildVersion()})
	if err != nil {
		var problems tenants.Problems
		if errors.As(err, &problems) {
			return usageError{err}
		}
		return err
	}
	defer onHangup(svc.Reload)()
	return svc.Run(ctx)
}

// tuneGC sets the collector where the environment does not: buffers are pooled
// and hold no pointers, so a live heap of tens of megabytes is collected too
// often at the default of 100; and the heap shall not grow to several times
// the live one only because there is time. What is live beside the budget (lanes,
// indexes, clients) weighs little in the default and more in a small one, which
// gets up to 128 MiB for it: a limit near the live heap makes the collector run
// all the time.
func tuneGC(memory int64, getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(max(memory, memory/2+128<<20))
	}
}

// onHangup calls f at each SIGHUP until the returned function is called.
func onHangup(f func()) (stop func()) {
	hup := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hup {
			f()
		}
	}()
	return func() {
		signal.Stop(hup)
		close(hup)
		<-done
	}
}

// newLog logs as the configuration says.
func newLog(w io.Writer, l tenants.Log) zerolog.Logger {
	zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	zerolog.DurationFieldUnit = time.Millisecond
	if l.Format == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05.000", NoColor: !terminal(w)}
	}
	level, err := zerolog.ParseLevel(l.Level)
	if err != nil || l.Level == "" {
		level = zerolog.InfoLevel
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// terminal says whether w is one, and so shows colours.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	i, err := f.Stat()
	return err == nil && i.Mode()&os.ModeCharDevice != 0
}
