package main

import (
	"fmt"
	"io"
	"os"

	"datasync/feeds/journal"
)

// journalCmd reads a journal without a running service.
type journalCmd struct {
	Inspect inspectCmd `cmd:"" help:"Show what a journal holds."`
	Verify  verifyCmd  `cmd:"" help:"Read all of it and check every checksum; exit 1 where something is damaged."`
	Repair  repairCmd  `cmd:"" help:"Set damaged ranges aside, so that the rest is delivered. It discards nothing."`
}

// journalDir is the argument of all three.
type journalDir struct {
	Dir string `arg:"" help:"The journal's folder: data_dir/journal."`
}

type (
	inspectCmd struct{ journalDir }
	verifyCmd  struct{ journalDir }
	repairCmd  struct{ journalDir }
)

// Run prints what lies in the folder.
func (i *inspectCmd) Run(c *console) error {
	if err := i.check(); err != nil {
		return err
	}
	return journal.Inspect(c.Out, i.Dir)
}

// Run reads everything and changes nothing.
func (v *verifyCmd) Run(c *console) error {
	if err := v.check(); err != nil {
		return err
	}
	report, err := journal.Verify(c.Out, v.Dir)
	if err != nil {
		return err
	}
	damaged, err := writeReport(c.Out, report)
	if err != nil || !damaged {
		return err
	}
	if _, err := fmt.Fprintf(c.Out, "Stop the service and run: datasync journal repair %s\n", v.Dir); err != nil {
		return err
	}
	return exitCode(exitFailed)
}

// Run sets aside what is damaged; that there was some is no failure.
func (r *repairCmd) Run(c *console) error {
	if err := r.check(); err != nil {
		return err
	}
	report, err := journal.Repair(c.Out, r.Dir)
	if err != nil {
		return err
	}
	_, err = writeReport(c.Out, report)
	return err
}

// check tells a mistyped path from an empty journal.
func (j *journalDir) check() error {
	info, err := os.Stat(j.Dir)
	if err != nil {
		return usagef("journal folder: %w", err)
	}
	if !info.IsDir() {
		return usagef("%s is a file; give the journal's folder (data_dir/journal)", j.Dir)
	}
	return nil
}

// writeReport prints the totals and what was found, and says whether any of it
// is damage to events that had been acknowledged.
func writeReport(w io.Writer, r journal.Report) (damaged bool, err error) {
	for _, i := range r.Incidents {
		damaged = damaged || i.What == "damage"
		if _, err := fmt.Fprintf(w, "%s: %s, %s at %s, %s: %s\n", i.What, i.Shard, i.File, thousands(i.Off), size(i.Bytes), i.Message); err != nil {
			return damaged, err
		}
	}
	_, err = fmt.Fprintf(w, "%s shards, %s segments, %s commits, %s blocks, %s events; %d incidents\n",
		thousands(r.Shards), thousands(r.Segments), thousands(r.Commits), thousands(r.Blocks), thousands(r.Events), len(r.Incidents))
	return damaged, err
}
