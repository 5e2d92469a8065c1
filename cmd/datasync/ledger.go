package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"datasync/exporter/admin"
)

type ledgerCmd struct {
	adminFlags
	Tenant string `arg:"" optional:"" help:"Only this tenant's sinks."`
	JSON   bool   `help:"Print the admin API's answer as it is."`
}

// Run shows the account; one that does not balance is a failure.
func (l *ledgerCmd) Run(ctx context.Context, c *console) error {
	path := "/v1/ledger"
	if l.Tenant != "" {
		path += "?tenant=" + url.QueryEscape(l.Tenant)
	}
	var raw json.RawMessage
	if err := l.ask(ctx, c, "GET", path, &raw); err != nil {
		return err
	}
	var ledger admin.Ledger
	if err := json.Unmarshal(raw, &ledger); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", path, err)
	}
	var err error
	if l.JSON {
		_, err = fmt.Fprintf(c.Out, "%s\n", raw)
	} else {
		err = writeLedger(c.Out, ledger)
	}
	if err == nil && !ledger.Balanced {
		err = exitCode(exitFailed)
	}
	return err
}

// writeLedger prints a table of the feeds, one of the sinks, and the verdict.
func writeLedger(w io.Writer, l admin.Ledger) error {
	var b strings.Builder
	var rows []string
	for _, f := range l.Feeds {
		rows = append(rows, row(f.Feed, f.Balanced, f.Read, f.Made, f.Accepted, f.Quarantined, f.Unrouted, f.Duplicate, f.Suppressed, f.Retried))
	}
	table(&b, "FEED\tREAD\t+ MADE\t= ACCEPTED\t+ QUARANTINED\t+ UNROUTED\t+ DUPLICATE\t+ SUPPRESSED\t| RETRIED\t", rows)
	writeGaps(&b, l.Feeds)
	rows = nil
	for _, s := range l.Sinks {
		rows = append(rows, row(s.Tenant+"/"+s.Sink, s.Balanced, s.Received, s.Delivered, s.Filtered, s.SampledOut, s.Refused, s.Expired, s.Damaged, s.Queued, s.Repeats, s.Replayed))
	}
	table(&b, "SINK\tRECEIVED\t= DELIVERED\t+ FILTERED\t+ SAMPLED OUT\t+ REFUSED\t+ EXPIRED\t+ DAMAGED\t+ QUEUED\t| REPEATS\tREPLAYED\t", rows)
	if l.Balanced {
		b.WriteString("The ledger balances.\n")
	} else {
		b.WriteString("The ledger does NOT balance: see the rows marked. This is a fault of the service; please report it.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// writeGaps names what feeds never read.
func writeGaps(b *strings.Builder, feeds []admin.FeedRow) {
	for _, f := range feeds {
		switch {
		case f.Missed > 0:
			fmt.Fprintf(b, "%s never read %s records of its topic:\n", f.Feed, thousands(f.Missed))
		case len(f.Gaps) > 0:
			fmt.Fprintf(b, "%s may not have read all of its stream:\n", f.Feed)
		default:
			continue
		}
		for _, g := range f.Gaps {
			if g.Message != "" {
				fmt.Fprintf(b, "  %s  %s\n", g.Found.UTC().Format(time.DateTime), g.Message)
				continue
			}
			why := "they were deleted before they could be read"
			if g.Why == "consumed" {
				why = "another consumer of the group took them"
			}
			fmt.Fprintf(b, "  %s  %s partition %d, offsets %d to %d: %s\n", g.Found.UTC().Format(time.DateTime), g.Topic, g.Partition, g.From, g.To-1, why)
		}
		b.WriteString("\n")
	}
}

func row(name string, balanced bool, counts ...int64) string {
	cells := []string{name}
	for _, n := range counts {
		cells = append(cells, thousands(n))
	}
	mark := ""
	if !balanced {
		mark = "<- does not balance"
	}
	return strings.Join(append(cells, mark), "\t")
}

func table(b *strings.Builder, header string, rows []string) {
	if len(rows) == 0 {
		return
	}
	for _, line := range align(header, rows) {
		fmt.Fprintln(b, strings.TrimRight(line, " "))
	}
	b.WriteString("\n")
}
