package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"datasync/exporter/admin"
)

// quarantineCmd is what can be done with records that could not become events.
type quarantineCmd struct {
	List  quarantineListCmd  `cmd:"" default:"withargs" help:"The newest entries, with the reason of each."`
	Show  quarantineShowCmd  `cmd:"" help:"One entry, and its record as it is kept: secrets are masked."`
	Retry quarantineRetryCmd `cmd:"" help:"Submit records once more, after what was wrong was mended."`
}

// entriesFlags choose entries.
type entriesFlags struct {
	Tenant string `help:"Only this tenant's; _unrouted: those of nobody."`
	Feed   string `help:"Only this feed's."`
	Limit  int    `default:"100" help:"How many, ${default} unless told."`
}

// path is what to ask for.
func (f *entriesFlags) path() string {
	q := url.Values{"limit": {strconv.Itoa(f.Limit)}}
	if f.Tenant != "" {
		q.Set("tenant", f.Tenant)
	}
	if f.Feed != "" {
		q.Set("feed", f.Feed)
	}
	return "/v1/quarantine?" + q.Encode()
}

type quarantineListCmd struct {
	adminFlags
	entriesFlags
	JSON bool `help:"Print the admin API's answer as it is."`
}

// Run lists entries.
func (l *quarantineListCmd) Run(ctx context.Context, c *console) error {
	if l.JSON {
		return l.raw(ctx, c, l.path())
	}
	var answer struct{ Entries []admin.QuarantineView }
	if err := l.ask(ctx, c, "GET", l.path(), &answer); err != nil {
		return err
	}
	return writeEntries(c.Out, answer.Entries, time.Now())
}

// raw prints an answer as it is.
func (f adminFlags) raw(ctx context.Context, c *console, path string) error {
	var raw json.RawMessage
	if err := f.ask(ctx, c, "GET", path, &raw); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.Out, "%s\n", raw)
	return err
}

// writeEntries prints a table, each entry's reason in a line of its own.
func writeEntries(w io.Writer, entries []admin.QuarantineView, now time.Time) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(w, "There is nothing in the quarantine.")
		return err
	}
	rows := make([]string, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, strings.Join([]string{e.ID, span(now.Sub(e.At)), dash(e.Tenant), origin(&e), strconv.Itoa(max(e.Events, 1)), size(e.Bytes), dash(printable(e.Position))}, "\t"))
	}
	var b strings.Builder
	lines := align("ID\tAGE\tTENANT\tFROM\tEVENTS\tBYTES\tPOSITION", rows)
	fmt.Fprintln(&b, lines[0])
	for i, e := range entries {
		fmt.Fprintf(&b, "%s\n    %s\n", strings.TrimRight(lines[i+1], " "), printable(e.Reason))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// origin is the feed, or the sink that refused an event.
func origin(e *admin.QuarantineView) string {
	if e.Sink != "" {
		return "sink " + e.Sink
	}
	return e.Feed
}

type quarantineShowCmd struct {
	adminFlags
	ID   string `arg:"" help:"The entry."`
	JSON bool   `help:"Print the admin API's answer as it is."`
	Raw  bool   `help:"Print the record alone, byte for byte."`
}

// Run shows one entry.
func (s *quarantineShowCmd) Run(ctx context.Context, c *console) error {
	path := "/v1/quarantine/" + url.PathEscape(s.ID)
	if s.JSON {
		return s.raw(ctx, c, path)
	}
	var e admin.QuarantineView
	if err := s.ask(ctx, c, "GET", path, &e); err != nil {
		return err
	}
	record := []byte(e.Record)
	if e.Base64 != "" {
		var err error
		if record, err = base64.StdEncoding.DecodeString(e.Base64); err != nil {
			return fmt.Errorf("reading the record of entry %s: %w", s.ID, err)
		}
	}
	if s.Raw {
		_, err := c.Out.Write(record)
		return err
	}
	var b strings.Builder
	for _, row := range [][2]string{{"id", e.ID}, {"of", e.Of}, {"at", e.At.UTC().Format(time.RFC3339)}, {"tenant", e.Tenant}, {"feed", e.Feed}, {"sink", e.Sink}, {"format", e.Format},
		{"position", e.Position}, {"bytes", strconv.FormatInt(e.Bytes, 10)}, {"masked", strings.Join(e.Redactions, ", ")}, {"reason", e.Reason}} {
		if row[1] != "" {
			fmt.Fprintf(&b, "%-9s %s\n", row[0], printable(row[1]))
		}
	}
	b.WriteByte('\n')
	for line := range strings.Lines(string(record)) {
		fmt.Fprintln(&b, printable(strings.TrimRight(line, "\r\n")))
	}
	_, err := io.WriteString(c.Out, b.String())
	return err
}

type quarantineRetryCmd struct {
	adminFlags
	entriesFlags
	IDs []string `arg:"" optional:"" name:"id" help:"The entries. None: the newest of --tenant or --feed, the oldest of them first."`
}

// Run retries entries one by one; one that still is no event makes the command
// fail in the end, and keeps no other back.
func (r *quarantineRetryCmd) Run(ctx context.Context, c *console) error {
	ids := r.IDs
	if len(ids) == 0 {
		if r.Tenant == "" && r.Feed == "" {
			return usagef("say which entries: their ids, or --tenant or --feed")
		}
		var answer struct{ Entries []admin.QuarantineView }
		if err := r.ask(ctx, c, "GET", r.path(), &answer); err != nil {
			return err
		}
		for _, e := range slices.Backward(answer.Entries) {
			if e.Sink == "" {
				ids = append(ids, e.ID)
			}
		}
	}
	failed := 0
	for _, id := range ids {
		var done admin.Retried
		err := r.ask(ctx, c, "POST", "/v1/quarantine/"+url.PathEscape(id)+"/retry", &done)
		if err != nil {
			failed++
			fmt.Fprintf(c.Err, "datasync: %v\n", err)
			var usage usageError
			if ctx.Err() != nil || errors.As(err, &usage) {
				return err
			}
			continue
		}
		rest := ""
		if n := len(done.Rejected) + done.More; n > 0 {
			rest = fmt.Sprintf("; %d still are none (%s)", n, printable(done.Rejected[0].Reason))
		}
		if _, err := fmt.Fprintf(c.Out, "%s: %d accepted%s\n", id, done.Accepted, rest); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d entries stay in the quarantine", failed, len(ids))
	}
	return nil
}
