package main

import (
	"context"
	"time"

	"datasync/exporter/tenants"
	"datasync/exporter/trial"
)

// demoCmd shows the whole product in one process.
type demoCmd struct {
	Dir  string        `placeholder:"DIR" help:"Keep everything below DIR instead of in a new temporary folder."`
	Rate int           `default:"500" help:"Events a second."`
	For  time.Duration `placeholder:"DURATION" help:"End after that time, with the account (60s); without it, run until Ctrl-C."`
}

// Run plays the demo until --for is over or ctx ends.
func (d *demoCmd) Run(ctx context.Context, c *console) error {
	if d.Rate < 1 || d.For < 0 {
		return usagef("demo: --rate must be at least 1 and --for must not be negative")
	}
	log := newLog(c.Err, tenants.Log{Level: "warn", Format: "console"})
	return trial.Demo(ctx, trial.DemoOptions{Dir: d.Dir, Rate: d.Rate, For: d.For, Log: log, Out: c.Out})
}
