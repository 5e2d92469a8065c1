// Command datasync takes security events in and delivers them to each tenant's sinks; every sub-command has a file of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is the command line. A sub-command's Run may ask for a context.Context,
// which ends at SIGINT or SIGTERM, and for *console.
type cli struct {
	Run      runCmd      `cmd:"" help:"Run the service until SIGTERM or Ctrl-C; SIGHUP reads the tenants' files again."`
	Demo     demoCmd     `cmd:"" help:"Show the whole product in one process: no other service, no file to write first."`
	Validate validateCmd `cmd:"" help:"Check the configuration and every tenant's file; nothing is dialled."`
	TestSink testSinkCmd `cmd:"" help:"Try one sink for real, stage by stage: what is seen, how long it takes, and how to mend what fails."`
	Receive  receiveCmd  `cmd:"" help:"Receive lines over TLS, to try an emitter against."`
	Generate generateCmd `cmd:"" help:"Make realistic seeded events, for trying and for benchmarks."`
	Journal  journalCmd  `cmd:"" help:"Read a journal without a running service."`
	Schema   schemaCmd   `cmd:"" help:"Print a schema: event, config, tenant or parquet."`
	Version  versionCmd  `cmd:"" help:"Print the version."`

	Status statusCmd `cmd:"" group:"admin" help:"Show what every sink is doing."`
	Ledger ledgerCmd `cmd:"" group:"admin" help:"Show the account of every event, and whether it balances."`
	Pause  pauseCmd  `cmd:"" group:"admin" help:"Stop delivering to a sink; everything is kept, across restarts."`
	Resume resumeCmd `cmd:"" group:"admin" help:"Go on after a pause."`
	Retry  retryCmd  `cmd:"" group:"admin" help:"Try a sink now instead of at its next retry."`
	Flush  flushCmd  `cmd:"" group:"admin" help:"Cut and send what is there without waiting for a limit."`

	Quarantine quarantineCmd `cmd:"" group:"admin" help:"Records that could not become events: list, show, retry."`
}

// console is where a sub-command reads and writes.
type console struct {
	In       io.Reader
	Out, Err io.Writer
	// Getenv reads the environment.
	Getenv func(string) string
}

// Exit codes (contract.md).
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// exitCode ends the program with that code and no further word: the
// sub-command has said what there is to say.
type exitCode int

// Error is for callers that print it all the same.
func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is a failure of how the program was called or configured.
type usageError struct{ err error }

// Error is the failure's message.
func (e usageError) Error() string { return e.err.Error() }

// Unwrap gives the failure.
func (e usageError) Unwrap() error { return e.err }

// usagef makes a usageError as fmt.Errorf makes an error.
func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], &console{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}))
}

// run parses the arguments, runs the sub-command and gives the exit code.
func run(ctx context.Context, args []string, c *console) (code int) {
	type exited int // what kong's --help asks for
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	parser, err := kong.New(new(cli),
		kong.Name("datasync"),
		kong.Description("Takes security events in and delivers them to each tenant's sinks, losing none.\n\nTry: datasync demo"),
		kong.ExplicitGroups([]kong.Group{{Key: "admin", Title: "Commands for a running service (--admin, $DATASYNC_ADMIN, $DATASYNC_ADMIN_TOKEN):"}}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Writers(c.Out, c.Err),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Bind(c),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		return c.fail(fmt.Errorf("building the command line: %w", err))
	}
	call, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(c.Err, "datasync: %v\nSee: datasync --help, or datasync COMMAND --help\n", err)
		return exitUsage
	}
	if err := call.Run(); err != nil {
		return c.fail(err)
	}
	return exitOK
}

// fail prints an error and gives its exit code.
func (c *console) fail(err error) int {
	var silent exitCode
	if errors.As(err, &silent) {
		return int(silent)
	}
	fmt.Fprintf(c.Err, "datasync: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}
