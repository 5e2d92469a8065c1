package main

import (
	"context"
	"fmt"

	"datasync/exporter/trial"
)

// generateCmd makes realistic events, for trying and for benchmarks.
type generateCmd struct {
	Rate     float64 `default:"100" placeholder:"N" help:"Events per second; 0: as fast as it goes."`
	Count    int64   `placeholder:"N" help:"How many events; 0: until interrupted."`
	Tenants  int     `default:"10" placeholder:"N" help:"Among how many tenants, t0001 onwards."`
	Seed     uint64  `default:"1" placeholder:"N" help:"The same seed makes the same events; ids are gen-<seed>-<n>."`
	Requests float64 `placeholder:"SHARE" help:"Share of events of kind request, 0 to 1."`
	To       string  `required:"" placeholder:"TARGET" help:"kafka://BROKER/TOPIC (?compression=zstd&key=none and the like), http://HOST:PORT of an HTTP feed, a FILE (made anew), or - for standard output."`
	Key      string  `placeholder:"K" help:"API key for an HTTP feed; {tenant} in it becomes the tenant."`
}

// Run makes events until there are enough of them or SIGINT or SIGTERM comes,
// and says on standard error how many and how fast.
func (g *generateCmd) Run(ctx context.Context, c *console) error {
	switch {
	case g.Rate < 0 || g.Count < 0:
		return usagef("--rate and --count must not be negative; 0 is as fast as it goes, and without end")
	case g.Tenants < 1:
		return usagef("--tenants %d: at least one is needed", g.Tenants)
	case g.Requests < 0 || g.Requests > 1:
		return usagef("--requests %v is no share; use 0 to 1", g.Requests)
	}
	if err := trial.CheckTarget(g.To); err != nil {
		return usagef("--to %s: %v", g.To, err)
	}
	s, err := trial.Load(ctx, trial.LoadOptions{
		Generator: trial.GeneratorOptions{Tenants: g.Tenants, Seed: g.Seed, Requests: g.Requests},
		Rate:      g.Rate, Count: g.Count, To: g.To, Key: g.Key, Out: c.Out,
	})
	fmt.Fprintln(c.Err, s)
	return err
}
