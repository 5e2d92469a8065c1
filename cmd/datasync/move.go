package main

import (
	"context"
	"fmt"
	"strings"

	"datasync/exporter/admin"
	"datasync/feeds"
)

// moveFlags are what pause, resume, retry and flush have in common.
type moveFlags struct {
	adminFlags
	Sink string `arg:"" name:"tenant/sink" help:"The sink, as acme/siem."`
}

type (
	pauseCmd  struct{ moveFlags }
	resumeCmd struct{ moveFlags }
	retryCmd  struct{ moveFlags }
	flushCmd  struct{ moveFlags }
)

// Run pauses the sink.
func (p *pauseCmd) Run(ctx context.Context, c *console) error { return p.move(ctx, c, admin.Pause) }

// Run resumes the sink.
func (r *resumeCmd) Run(ctx context.Context, c *console) error { return r.move(ctx, c, admin.Resume) }

// Run retries the sink.
func (r *retryCmd) Run(ctx context.Context, c *console) error { return r.move(ctx, c, admin.Retry) }

// Run flushes the sink.
func (f *flushCmd) Run(ctx context.Context, c *console) error { return f.move(ctx, c, admin.Flush) }

func (m *moveFlags) move(ctx context.Context, c *console, a admin.Action) error {
	tenant, sink, ok := strings.Cut(m.Sink, "/")
	if !ok || !feeds.ValidName(tenant) || !feeds.ValidName(sink) {
		return usagef("%q is no sink; name it as TENANT/SINK, for example acme/siem (datasync status lists them)", m.Sink)
	}
	var answer struct{}
	if err := m.ask(ctx, c, "POST", fmt.Sprintf("/v1/lanes/%s/%s/%s", tenant, sink, a), &answer); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.Out, "%s %s: done\n", a, m.Sink)
	return err
}
