package s3feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"datasync/feeds/cloud"
)

// callIn bounds one call with the SDK's own retries; a long poll takes longest.
const callIn = time.Minute

// stallIn is how long the bytes of an object may stand still.
const stallIn = time.Minute

// client asks queue and buckets. It is safe for concurrent use.
type client struct {
	o *Options

	mu      sync.Mutex
	cfg     aws.Config
	queue   *sqs.Client // nil: to be made
	buckets map[string]*s3.Client
}

var queueHost = regexp.MustCompile(`^sqs\.([a-z0-9-]+)\.amazonaws\.com`)

// connect makes the clients at the first call.
func (c *client) connect(ctx context.Context) error {
	if c.queue != nil {
		return nil
	}
	where := c.o.AWS
	if u, err := url.Parse(c.o.Queue); err == nil && where.Region == "" {
		if m := queueHost.FindStringSubmatch(u.Host); m != nil {
			where.Region = m[1]
		}
	}
	cfg, err := cloud.Config(ctx, where)
	if err != nil {
		return err
	}
	c.cfg, c.buckets = cfg, map[string]*s3.Client{}
	c.queue = sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		if where.Endpoint != "" {
			o.BaseEndpoint = &where.Endpoint
		}
	})
	return nil
}

func (c *client) sqs(ctx context.Context) (*sqs.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue, c.connect(ctx)
}

// bucket is the client of buckets in a region; "" is the queue's.
func (c *client) bucket(ctx context.Context, region string) (*s3.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	if region == "" || c.o.AWS.Endpoint != "" {
		region = c.cfg.Region
	}
	if b := c.buckets[region]; b != nil {
		return b, nil
	}
	b := s3.NewFromConfig(c.cfg, func(o *s3.Options) {
		o.Region = region
		o.DisableLogOutputChecksumValidationSkipped = true
		if c.o.AWS.Endpoint != "" { // of another maker, who mostly has no names for buckets
			o.BaseEndpoint, o.UsePathStyle = &c.o.AWS.Endpoint, true
		}
	})
	c.buckets[region] = b
	return b, nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue != nil {
		cloud.Close(c.cfg)
	}
	c.queue = nil
}

// message is one of the queue.
type message struct {
	id, handle string
	body       []byte
	times      int       // how often it was received, this time included
	first      time.Time // when it was for the first time
}

// receive waits for a message; false where none came.
func (c *client) receive(ctx context.Context) (m message, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callIn)
	defer cancel()
	q, err := c.sqs(ctx)
	if err != nil {
		return m, false, err
	}
	out, err := q.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &c.o.Queue, MaxNumberOfMessages: 1, WaitTimeSeconds: int32(c.o.Wait.Seconds()), VisibilityTimeout: int32(c.o.Visibility.Seconds()),
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{
			types.MessageSystemAttributeNameApproximateReceiveCount, types.MessageSystemAttributeNameApproximateFirstReceiveTimestamp},
	})
	if err != nil || len(out.Messages) == 0 {
		return m, false, err
	}
	got := &out.Messages[0]
	m = message{id: aws.ToString(got.MessageId), handle: aws.ToString(got.ReceiptHandle), body: []byte(aws.ToString(got.Body))}
	m.times, _ = strconv.Atoi(got.Attributes["ApproximateReceiveCount"]) // 0 where a queue does not say
	if ms, err := strconv.ParseInt(got.Attributes["ApproximateFirstReceiveTimestamp"], 10, 64); err == nil {
		m.first = time.UnixMilli(ms)
	}
	return m, true, nil
}

// hide keeps a message from others for a while.
func (c *client) hide(ctx context.Context, m message, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, callIn)
	defer cancel()
	q, err := c.sqs(ctx)
	if err != nil {
		return err
	}
	_, err = q.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &c.o.Queue, ReceiptHandle: &m.handle, VisibilityTimeout: int32(d.Seconds())})
	return err
}

// remove takes a message off the queue.
func (c *client) remove(ctx context.Context, m message) error {
	ctx, cancel := context.WithTimeout(ctx, callIn)
	defer cancel()
	q, err := c.sqs(ctx)
	if err != nil {
		return err
	}
	_, err = q.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &c.o.Queue, ReceiptHandle: &m.handle})
	return err
}

// errReplaced is an object that is not any more what was announced.
var errReplaced = errors.New("it was replaced since it was announced")

// open gives an object's bytes from an offset on; the object must be the one
// that was announced.
func (c *client) open(ctx context.Context, o object, from int64) (io.ReadCloser, error) {
	b, err := c.bucket(ctx, o.Region)
	if err != nil {
		return nil, err
	}
	in := &s3.GetObjectInput{Bucket: &o.Bucket, Key: &o.Key}
	if o.Version != "" {
		in.VersionId = &o.Version
	}
	if o.ETag != "" {
		in.IfMatch = aws.String(`"` + o.ETag + `"`)
	}
	if from > 0 {
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", from))
	}
	ctx, cancel := context.WithCancel(ctx)
	out, err := b.GetObject(ctx, in)
	if err != nil {
		cancel()
		var resp *smithyhttp.ResponseError
		if errors.As(err, &resp) && resp.HTTPStatusCode() == 412 {
			err = errReplaced
		}
		if from > 0 && cloud.Code(err) == "InvalidRange" { // all of it was read
			return io.NopCloser(eof{}), nil
		}
		return nil, err
	}
	return &body{out.Body, cancel}, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// body is an object's bytes, given up on where they stand still.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Read is io.Reader's.
func (b *body) Read(p []byte) (int, error) {
	t := time.AfterFunc(stallIn, b.cancel)
	defer t.Stop()
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("its bytes stopped coming: %w", io.ErrUnexpectedEOF)
	}
	return n, err
}

// Close is io.Closer's.
func (b *body) Close() error {
	b.cancel()
	return b.ReadCloser.Close()
}
