package kinesis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"

	"datasync/exporter/check"
	"datasync/exporter/lane"
)

// checking is a sink that is tried out.
type checking struct {
	o      Options
	client *client
	line   []byte
}

// Check tries a sink out with one record, which holds line, and says whether
// the sink would work. The record stays as long as the stream keeps it.
func Check(ctx context.Context, o Options, line []byte, r *check.Run) bool {
	c := &checking{o: o, client: newClient(o), line: line}
	defer c.client.close()
	// Where the service's own identity comes from is not the stream's network.
	if !r.Do("credentials", func() check.Step { return c.credentials(ctx) }) {
		return false
	}
	for _, step := range []struct {
		name string
		f    func(context.Context) check.Step
	}{
		{"role", c.role}, {"stream", c.stream}, {"write", c.write},
	} {
		if step.name == "role" && o.RoleARN == "" {
			continue
		}
		if !r.Do(step.name, func() check.Step {
			ctx, cancel := context.WithTimeout(r.Trace(ctx), callTimeout)
			defer cancel()
			return step.f(ctx)
		}) {
			return false
		}
	}
	return true
}

// failed is the step of an error, told as the lanes tell it.
func (c *checking) failed(err error) check.Step {
	return check.Step{Err: classify(c.o.Stream, err)}
}

func (c *checking) credentials(ctx context.Context) check.Step {
	if _, err := c.client.connect(ctx); err != nil {
		return c.failed(err)
	}
	k, err := c.client.own.Retrieve(ctx)
	if err != nil {
		return c.failed(err)
	}
	return check.Step{Seen: fmt.Sprintf("%s, from %s", check.KeyID(k.AccessKeyID), k.Source)}
}

func (c *checking) role(ctx context.Context) check.Step {
	k, err := c.client.sdk.Options().Credentials.Retrieve(ctx)
	if err != nil {
		return c.failed(err)
	}
	return check.Step{Seen: fmt.Sprintf("%s assumed, until %s", c.o.RoleARN, k.Expires.UTC().Format(time.TimeOnly+"Z"))}
}

// stream looks at the stream, for which no right is needed otherwise: a refusal
// to let us look decides nothing.
func (c *checking) stream(ctx context.Context) check.Step {
	out, err := c.client.sdk.DescribeStreamSummary(ctx, &kinesis.DescribeStreamSummaryInput{StreamName: &c.o.Stream})
	var api smithy.APIError
	switch {
	case err == nil:
	case reasonOf(err).class == lane.Forbidden && errors.As(err, &api):
		return check.Step{Note: true, Seen: c.o.Stream + " may not be looked at, which decides nothing: kinesis:DescribeStreamSummary is not needed"}
	case errors.As(err, &api) && reasonOf(err).class == lane.Invalid:
		return check.Step{Note: true, Seen: fmt.Sprintf("%s: %v", c.o.Stream, brief(err))}
	default:
		e := classify(c.o.Stream, err)
		e.Err = fmt.Errorf("look at Kinesis stream %s: %w", c.o.Stream, brief(err))
		return check.Step{Err: e}
	}
	d := out.StreamDescriptionSummary
	mode := types.StreamModeProvisioned
	if d.StreamModeDetails != nil {
		mode = d.StreamModeDetails.StreamMode
	}
	seen := fmt.Sprintf("%s is %s: %s, open shards: %d, kept for %d h", c.o.Stream, d.StreamStatus, strings.ToLower(string(mode)),
		aws.ToInt32(d.OpenShardCount), aws.ToInt32(d.RetentionPeriodHours))
	if d.EncryptionType == types.EncryptionTypeKms {
		seen += ", encrypted with " + aws.ToString(d.KeyId)
	}
	return check.Step{Seen: seen, Note: d.StreamStatus != types.StreamStatusActive && d.StreamStatus != types.StreamStatusUpdating}
}

// write puts one record with the call that the sink makes.
func (c *checking) write(ctx context.Context) check.Step {
	s := newSink(c.o, nil, c.client)
	defer s.cancel()
	recs := s.split(&segment{data: &c.line})
	b := &batch{}
	for i := range recs {
		b.recs = append(b.recs, &recs[i])
	}
	body := b.appendBody(nil, c.o.Stream)
	results, err := c.client.put(ctx, body, b.units())
	switch {
	case err != nil:
		return c.failed(err)
	case !results[0].stored:
		return check.Step{Err: resultError(c.o.Stream, results)}
	}
	return check.Step{Seen: fmt.Sprintf("a record of %d bytes is in %s, partition key %s; it stays as long as the stream keeps records",
		len(recs[0].line), results[0].shard, recs[0].key)}
}
