package main

import (
	"fmt"

	"datasync/exporter/tenants"
)

// validateCmd checks all that can be checked without a network.
type validateCmd struct {
	Config string `required:"" placeholder:"FILE" help:"The service's configuration file."`
}

// Run prints every problem as FILE:LINE:COL: message, or what was found sound.
func (v *validateCmd) Run(c *console) error {
	s, set, problems := tenants.Validate(v.Config)
	if len(problems) > 0 {
		fmt.Fprintln(c.Err, problems.Error())
		return exitCode(exitUsage)
	}
	sinks := 0
	for _, t := range set.All() {
		sinks += len(t.Sinks)
	}
	fmt.Fprintf(c.Out, "%s is valid: %d feeds, %d tenants, %d sinks\n", v.Config, len(s.Feeds), set.Len(), sinks)
	return nil
}
