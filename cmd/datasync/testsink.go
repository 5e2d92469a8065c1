package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"datasync/exporter"
	"datasync/exporter/check"
	"datasync/exporter/tenants"
	"datasync/exporter/tenants/conf"
	"datasync/feeds"
)

// testSinkCmd tries one sink out, for real.
type testSinkCmd struct {
	Sink   string `arg:"" name:"tenant/sink" help:"The sink, as acme/siem."`
	Config string `required:"" placeholder:"FILE" help:"The service's configuration file."`
	JSON   bool   `help:"Print one JSON object at the end instead."`
}

// Help says what the command leaves behind.
func (t *testSinkCmd) Help() string {
	return `Stage by stage: names, egress, connections, TLS and who the peer is, credentials, and at last a test
object (removed again where that is allowed), record or line (an audit event whose event_id begins with
datasync-test-; it stays). The running service, its journal and its lanes are not touched. Run it as the
service's user and with the service's environment, or other credentials are tried than the service has.

Exit 0 if the sink would work, 1 if not, 2 on bad usage or configuration.`
}

// Run prints each step as it ends.
func (t *testSinkCmd) Run(ctx context.Context, c *console) error {
	cfg, set, err := t.find()
	if err != nil {
		return usageError{err}
	}
	p := &testSinkReport{Sink: t.Sink, Kind: kindOf(set), To: destination(set), Steps: []testSinkStep{}}
	if !t.JSON {
		fmt.Fprintf(c.Out, "%s: %s\n\n", t.Sink, printable(p.To))
	}
	p.Works, err = exporter.TestSink(ctx, cfg, set, func(s check.Step) {
		if step := p.add(s); !t.JSON {
			fmt.Fprint(c.Out, step.text())
		}
	})
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case err != nil:
		return err
	case t.JSON:
		raw, err := json.MarshalIndent(p, "", "  ")
		if err != nil {
			return fmt.Errorf("encoding the report: %w", err)
		}
		fmt.Fprintf(c.Out, "%s\n", raw)
	default:
		fmt.Fprintf(c.Out, "\n%s\n", p.verdict())
	}
	if !p.Works {
		return exitCode(exitFailed)
	}
	return nil
}

// find reads the configuration and gives the sink's settings. Mistakes in other
// tenants' files are none of this command's business.
func (t *testSinkCmd) find() (*tenants.Service, *tenants.Sink, error) {
	tenant, name, ok := strings.Cut(t.Sink, "/")
	if !ok || !feeds.ValidName(tenant) || !feeds.ValidName(name) {
		return nil, nil, fmt.Errorf("%q is no sink; name it as TENANT/SINK, for example acme/siem", t.Sink)
	}
	cfg, err := tenants.Load(t.Config)
	if err != nil {
		return nil, nil, err
	}
	all, problems := tenants.LoadTenants(cfg.Tenants)
	owner := all.Tenant(feeds.TenantID(tenant))
	switch {
	case owner == nil && len(problems) > 0:
		return nil, nil, problems
	case owner == nil:
		var ids []string
		for _, o := range all.All() {
			ids = append(ids, string(o.ID))
		}
		return nil, nil, fmt.Errorf("there is no tenant %q in %s; %s", tenant, cfg.Tenants, listed("tenants", tenant, ids))
	}
	var names []string
	for _, s := range owner.Sinks {
		if s.Name == name {
			return cfg, s, nil
		}
		names = append(names, s.Name)
	}
	return nil, nil, fmt.Errorf("tenant %s has no sink %q (%s); %s", tenant, name, owner.File, listed("sinks", name, names))
}

// listed says what there is instead of what was asked for.
func listed(what, asked string, have []string) string {
	const most = 20
	if len(have) == 0 {
		return "there are no " + what
	}
	slices.Sort(have)
	text := "there are: " + strings.Join(have[:min(len(have), most)], ", ")
	if len(have) > most {
		text += fmt.Sprintf(" and %d more", len(have)-most)
	}
	if near := conf.Nearest(asked, have); near != "" {
		text = fmt.Sprintf("did you mean %q? ", near) + text
	}
	return text
}

func kindOf(s *tenants.Sink) string {
	switch {
	case s.S3 != nil:
		return "s3"
	case s.Dir != nil:
		return "dir"
	case s.Kinesis != nil:
		return "kinesis"
	}
	return "emitter"
}

// destination is where a sink leads, in a line.
func destination(s *tenants.Sink) string {
	place := func(text string, a tenants.AWS) string {
		for _, x := range [][2]string{{"region", a.Region}, {"endpoint", a.Endpoint}, {"role", a.RoleARN}} {
			if x[1] != "" {
				text += ", " + x[0] + " " + x[1]
			}
		}
		return text
	}
	switch {
	case s.S3 != nil:
		return place("objects in s3://"+strings.TrimSuffix(s.S3.Bucket+"/"+s.S3.Prefix, "/"), s.S3.AWS)
	case s.Kinesis != nil:
		return place("records on Kinesis stream "+s.Kinesis.Stream, s.Kinesis.AWS)
	case s.Dir != nil:
		return "objects in folder " + s.Dir.Path
	}
	if s.Emitter.Confirm == "protocol" {
		return "RELP over TLS to " + strings.Join(s.Emitter.Addresses, ", ")
	}
	return "lines over TLS to " + strings.Join(s.Emitter.Addresses, ", ")
}

// testSinkReport is what --json prints.
type testSinkReport struct {
	Sink   string         `json:"sink"`
	Kind   string         `json:"kind"`
	To     string         `json:"to"`
	Works  bool           `json:"works"`
	Reason string         `json:"reason,omitempty"` // of the first step that failed
	Steps  []testSinkStep `json:"steps"`
}

type testSinkStep struct {
	Name   string  `json:"name"`
	Result string  `json:"result"` // ok, note, failed
	Ms     float64 `json:"ms"`
	Seen   string  `json:"seen,omitempty"`
	Reason string  `json:"reason,omitempty"`
	Error  string  `json:"error,omitempty"`
	Hint   string  `json:"hint,omitempty"`
}

// add takes a step in.
func (p *testSinkReport) add(s check.Step) testSinkStep {
	out := testSinkStep{Name: s.Name, Result: "ok", Ms: float64(s.Took.Microseconds()) / 1000, Seen: s.Seen}
	switch {
	case s.Err != nil:
		out.Result, out.Reason, out.Error, out.Hint = "failed", string(s.Err.Class), s.Err.Err.Error(), s.Err.Hint
		if p.Reason == "" {
			p.Reason = out.Reason
		}
	case s.Note:
		out.Result = "note"
	}
	p.Steps = append(p.Steps, out)
	return out
}

// text is the step for people: what was seen, and below what to do.
func (s testSinkStep) text() string {
	text := fmt.Sprintf("%-6s %8.1f ms  %-11s  ", s.Result, s.Ms, s.Name)
	indent := "\n" + strings.Repeat(" ", len(text))
	if s.Result != "failed" {
		return text + printable(s.Seen) + "\n"
	}
	text += s.Reason + ": " + printable(s.Error)
	if s.Seen != "" {
		text += indent + printable(s.Seen)
	}
	if s.Hint != "" {
		text += indent + "what to do: " + printable(s.Hint)
	}
	return text + "\n"
}

// verdict is the last line.
func (p *testSinkReport) verdict() string {
	switch {
	case !p.Works:
		return "The sink would not work: " + p.Reason + "."
	case p.Reason != "":
		return "The sink works over one of its addresses at least."
	}
	return "The sink works."
}
