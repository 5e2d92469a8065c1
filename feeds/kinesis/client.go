package kinesisfeed

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"

	"datasync/feeds/cloud"
)

// callIn bounds one call with the SDK's own retries.
const callIn = time.Minute

// client asks the service. It is safe for concurrent use.
type client struct {
	o *Options

	mu  sync.Mutex
	sdk *kinesis.Client // nil: to be made
	cfg aws.Config
}

// connect gives the SDK's client, made at the first call.
func (c *client) connect(ctx context.Context) (*kinesis.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sdk != nil {
		return c.sdk, nil
	}
	cfg, err := cloud.Config(ctx, c.o.AWS)
	if err != nil {
		return nil, err
	}
	c.cfg = cfg
	c.sdk = kinesis.NewFromConfig(cfg, func(o *kinesis.Options) {
		if c.o.AWS.Endpoint != "" {
			o.BaseEndpoint = &c.o.AWS.Endpoint
		}
	})
	return c.sdk, nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sdk != nil {
		cloud.Close(c.cfg)
	}
	c.sdk = nil
}

// named gives the stream as the service wants it: by name or by ARN.
func (c *client) named() (name, arn *string) {
	if strings.HasPrefix(c.o.Stream, "arn:") {
		return nil, &c.o.Stream
	}
	return &c.o.Stream, nil
}

// Shard is a shard of a stream, and what it came from.
type Shard struct {
	ID, Parent, Adjacent string // the parents are "" where there are none
	First                string // its first sequence number
}

// shards are all shards that the stream knows, those that ended and are still
// kept among them.
func (c *client) shards(ctx context.Context) (out []Shard, err error) {
	ctx, cancel := context.WithTimeout(ctx, callIn)
	defer cancel()
	sdk, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	in := &kinesis.ListShardsInput{}
	in.StreamName, in.StreamARN = c.named()
	for {
		page, err := sdk.ListShards(ctx, in)
		if err != nil {
			return nil, err
		}
		for i := range page.Shards {
			s := &page.Shards[i]
			one := Shard{ID: aws.ToString(s.ShardId), Parent: aws.ToString(s.ParentShardId), Adjacent: aws.ToString(s.AdjacentParentShardId)}
			if s.SequenceNumberRange != nil {
				one.First = aws.ToString(s.SequenceNumberRange.StartingSequenceNumber)
			}
			out = append(out, one)
		}
		if page.NextToken == nil {
			return out, nil
		}
		in = &kinesis.ListShardsInput{NextToken: page.NextToken}
	}
}

// iterator is where a shard is read from: behind a sequence number, from a time
// on, or, with neither, from its oldest record.
func (c *client) iterator(ctx context.Context, shard, after string, from time.Time) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callIn)
	defer cancel()
	sdk, err := c.connect(ctx)
	if err != nil {
		return "", err
	}
	in := &kinesis.GetShardIteratorInput{ShardId: &shard, ShardIteratorType: types.ShardIteratorTypeTrimHorizon}
	in.StreamName, in.StreamARN = c.named()
	switch {
	case after != "":
		in.ShardIteratorType, in.StartingSequenceNumber = types.ShardIteratorTypeAfterSequenceNumber, &after
	case !from.IsZero():
		in.ShardIteratorType, in.Timestamp = types.ShardIteratorTypeAtTimestamp, &from
	}
	out, err := sdk.GetShardIterator(ctx, in)
	if err != nil {
		return "", err
	}
	return aws.ToString(out.ShardIterator), nil
}

// page is what one read brought.
type page struct {
	records []types.Record
	next    string // "": the shard ended, and this is all of it
	behind  time.Duration
}

// read asks for records.
func (c *client) read(ctx context.Context, iterator string, limit int) (page, error) {
	ctx, cancel := context.WithTimeout(ctx, callIn)
	defer cancel()
	sdk, err := c.connect(ctx)
	if err != nil {
		return page{}, err
	}
	in := &kinesis.GetRecordsInput{ShardIterator: &iterator, Limit: aws.Int32(int32(limit))}
	if _, arn := c.named(); arn != nil {
		in.StreamARN = arn
	}
	out, err := sdk.GetRecords(ctx, in)
	if err != nil {
		return page{}, err
	}
	return page{out.Records, aws.ToString(out.NextShardIterator), time.Duration(aws.ToInt64(out.MillisBehindLatest)) * time.Millisecond}, nil
}

// leastRetention is how long every stream keeps its records.
const leastRetention = 24 * time.Hour

// retention is how long the stream keeps its records, as far as we may know.
func (c *client) retention(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, callIn)
	defer cancel()
	sdk, err := c.connect(ctx)
	if err != nil {
		return 0, err
	}
	in := &kinesis.DescribeStreamSummaryInput{}
	in.StreamName, in.StreamARN = c.named()
	out, err := sdk.DescribeStreamSummary(ctx, in)
	if class, _ := cloud.Judge(err, ""); class == cloud.Forbidden {
		return leastRetention, nil // it is not needed for anything else, so it may be forbidden
	}
	if err != nil {
		return 0, err
	}
	hours := aws.ToInt32(out.StreamDescriptionSummary.RetentionPeriodHours)
	return max(time.Duration(hours)*time.Hour, leastRetention), nil
}

// expired says that an iterator is to be asked for anew.
func expired(err error) bool {
	var e *types.ExpiredIteratorException
	return errors.As(err, &e)
}
