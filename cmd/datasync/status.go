package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"datasync/exporter/admin"
)

type statusCmd struct {
	adminFlags
	JSON bool `help:"Print the admin API's answer as it is."`
}

// Run shows every sink, those with trouble first.
func (s *statusCmd) Run(ctx context.Context, c *console) error {
	if s.JSON {
		var raw json.RawMessage
		if err := s.ask(ctx, c, "GET", "/v1/lanes", &raw); err != nil {
			return err
		}
		_, err := fmt.Fprintf(c.Out, "%s\n", raw)
		return err
	}
	var answer struct{ Lanes []admin.LaneView }
	if err := s.ask(ctx, c, "GET", "/v1/lanes?shards=false", &answer); err != nil {
		return err
	}
	return writeStatus(c.Out, answer.Lanes, time.Now())
}

// writeStatus prints the counts per state, then a table: worst states first,
// each sink's trouble in a line of its own below it.
func writeStatus(w io.Writer, lanes []admin.LaneView, now time.Time) error {
	if len(lanes) == 0 {
		_, err := fmt.Fprintln(w, "There are no sinks.")
		return err
	}
	slices.SortStableFunc(lanes, func(a, b admin.LaneView) int {
		switch {
		case admin.Worse(a.State, b.State):
			return -1
		case admin.Worse(b.State, a.State):
			return 1
		default:
			return cmp.Or(strings.Compare(a.Tenant, b.Tenant), strings.Compare(a.Sink, b.Sink))
		}
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", summary(lanes))
	rows := make([]string, 0, len(lanes))
	for _, l := range lanes {
		rows = append(rows, strings.Join([]string{l.Tenant + "/" + l.Sink, l.State, dash(l.Reason), span(now.Sub(l.Since)),
			thousands(l.Behind.Events), size(l.Behind.Bytes), behindAge(l.Behind), thousands(l.Totals.Delivered), lastDelivered(l.LastDelivered, now)}, "\t"))
	}
	lines := align("SINK\tSTATE\tREASON\tFOR\tBEHIND\tBYTES\tOLDEST\tDELIVERED\tLAST EVENT, DELIVERED", rows)
	fmt.Fprintln(&b, lines[0])
	for i, l := range lanes {
		fmt.Fprintln(&b, lines[i+1])
		if note := trouble(l, now); note != "" {
			fmt.Fprintf(&b, "    %s\n", note)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func summary(lanes []admin.LaneView) string {
	n := map[string]int{}
	for _, l := range lanes {
		n[l.State]++
	}
	var parts []string
	for _, state := range admin.States {
		if n[state] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[state], state))
		}
	}
	return fmt.Sprintf("%d sinks: %s", len(lanes), strings.Join(parts, ", "))
}

// trouble is what went wrong, when it is tried again, and what was lost.
func trouble(l admin.LaneView, now time.Time) string {
	note := printable(l.Message)
	if l.NextRetry != nil {
		if note != "" {
			note += "; "
		}
		note += "next try in " + span(l.NextRetry.Sub(now))
	}
	if l.Totals.Expired > 0 {
		if note != "" {
			note += "; "
		}
		note += thousands(l.Totals.Expired) + " undelivered events expired: the tenant was over its quota.journal_bytes or its fair share of journal.max_bytes, or the sink was gone for longer than journal.retain"
	}
	return note
}

func lastDelivered(d *admin.Delivered, now time.Time) string {
	if d == nil {
		return "-"
	}
	return d.EventTime.UTC().Format("2006-01-02T15:04:05Z") + ", " + span(now.Sub(d.At)) + " ago"
}

func behindAge(b admin.Behind) string {
	if b.Oldest == nil {
		return "-"
	}
	return span(time.Duration(b.AgeSeconds * float64(time.Second)))
}

// align lays tab-separated rows out in columns; the first line is the header.
func align(header string, rows []string) []string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, header)
	for _, r := range rows {
		fmt.Fprintln(t, r)
	}
	_ = t.Flush() // a strings.Builder takes everything
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

func dash(s string) string { return cmp.Or(s, "-") }

// span is a duration for people: its two largest units.
func span(d time.Duration) string {
	d = max(0, d)
	day := 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
}

// size is a count of bytes for people.
func size(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), 0
	for v >= 1<<10 && unit < 4 {
		v, unit = v/(1<<10), unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, " KMGT"[unit])
}

// thousands is a count with its digits in threes.
func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
