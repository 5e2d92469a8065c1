package main

import (
	"context"
	"fmt"

	"datasync/exporter/trial"
)

// receiveCmd is a TLS receiver to try an emitter against.
type receiveCmd struct {
	Listen   string `required:"" placeholder:"ADDR" help:"Address to listen on, host:port."`
	Cert     string `required:"" type:"existingfile" placeholder:"FILE" help:"The receiver's certificate (PEM)."`
	Key      string `required:"" type:"existingfile" placeholder:"FILE" help:"Its key (PEM)."`
	ClientCA string `type:"existingfile" placeholder:"FILE" help:"Demand a client certificate signed by this authority."`
	Framing  string `enum:"lines,octet-counted" default:"lines" help:"How lines come: lines or octet-counted."`
	Out      string `placeholder:"FILE" help:"Append the lines to FILE (made at the start); without it they go to standard output."`
}

// Run receives until SIGINT or SIGTERM and then says on standard error what came.
func (r *receiveCmd) Run(ctx context.Context, c *console) error {
	rec, err := trial.NewReceiver(trial.ReceiveOptions{
		Listen: r.Listen, Cert: r.Cert, Key: r.Key, ClientCA: r.ClientCA, Framing: r.Framing, Out: r.Out, Stdout: c.Out,
		Report: func(err error) { fmt.Fprintf(c.Err, "datasync: %v\n", err) },
	})
	if err != nil {
		return err
	}
	if err := rec.Start(); err != nil {
		return err
	}
	fmt.Fprintf(c.Err, "receiving on %s\n", rec.Addr())
	<-ctx.Done()
	err = rec.Close()
	n := rec.Counts()
	fmt.Fprintf(c.Err, "%d lines (%d bytes) over %d connections; %d unfinished lines not written, %d connections refused\n",
		n.Lines, n.Bytes, n.Connections, n.Unfinished, n.Refused)
	return err
}
