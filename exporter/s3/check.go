package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"datasync/exporter/check"
	"datasync/exporter/lane"
)

// checking is a sink that is tried out.
type checking struct {
	sink   *Sink
	client *client
	run    *check.Run
	drop   *lane.Drop
	put    *put
}

// Check tries the sink out with an object of its own under key, which it
// removes where it may, and says whether a drop would be stored.
func (s *Sink) Check(ctx context.Context, key string, r *check.Run) bool {
	c := &checking{sink: s, run: r, drop: check.Object(key)}
	works := r.Do("credentials", func() check.Step { return c.credentials(ctx) })
	if works && s.set.AWS.RoleARN != "" {
		works = r.Do("role", func() check.Step { return c.role(r.Trace(ctx)) })
	}
	if !works {
		return false
	}
	body := &loan{body: c.drop.Body}
	defer body.end()
	c.put = &put{sink: s, client: c.client, drop: c.drop, body: body}
	do := func(name string, f func(context.Context) check.Step) bool {
		return r.Do(name, func() check.Step {
			ctx, cancel := context.WithTimeout(r.Trace(ctx), answerTimeout)
			defer cancel()
			return f(ctx)
		})
	}
	if !do("bucket", c.bucket) || !do("write", c.write) {
		return false
	}
	works = do("conditional", c.conditional) && do("read", c.read)
	return do("remove", c.remove) && works
}

// failed is the step of an error, told as the lanes tell it.
func (c *checking) failed(doing string, err error) check.Step {
	return check.Step{Err: c.sink.failure(doing, c.drop.Key, err)}
}

// credentials are the service's own.
func (c *checking) credentials(ctx context.Context) check.Step {
	var err error
	if c.client, err = c.sink.client(ctx); err != nil {
		return c.failed("reach", err)
	}
	k, err := c.sink.clients.own.Retrieve(ctx)
	if err != nil {
		return c.failed("reach", err)
	}
	return check.Step{Seen: fmt.Sprintf("%s, from %s", check.KeyID(k.AccessKeyID), k.Source)}
}

func (c *checking) role(ctx context.Context) check.Step {
	k, err := c.client.Options().Credentials.Retrieve(ctx)
	if err != nil {
		return c.failed("reach", err)
	}
	return check.Step{Seen: fmt.Sprintf("%s assumed, until %s", c.sink.set.AWS.RoleARN, k.Expires.UTC().Format(time.TimeOnly+"Z"))}
}

// bucket looks at the bucket. What a store answers to that decides nothing: the
// right to look is not needed, and an answer without a body says little.
func (c *checking) bucket(ctx context.Context) check.Step {
	set := c.sink.set
	out, err := c.client.HeadBucket(ctx, &sdk.HeadBucketInput{Bucket: &set.Bucket})
	switch {
	case err == nil && aws.ToString(out.BucketRegion) != "":
		return check.Step{Seen: fmt.Sprintf("%s is there, in region %s", set.Bucket, *out.BucketRegion)}
	case err == nil:
		return check.Step{Seen: set.Bucket + " is there"}
	case status(err) == http.StatusForbidden:
		return check.Step{Note: true, Seen: set.Bucket + " may not be looked at, which decides nothing: s3:ListBucket is not needed"}
	case status(err) != 0:
		return check.Step{Note: true, Seen: fmt.Sprintf("%s: the store answers %d", set.Bucket, status(err))}
	}
	return check.Step{Err: c.sink.failure("look for", "", err)}
}

// write puts the object as a drop is put.
func (c *checking) write(ctx context.Context) check.Step {
	if c.sink.set.ConditionalPut {
		c.put.once = aws.String("*")
	}
	err := c.put.whole(ctx)
	note := ""
	if c.put.once != nil && c.sink.custom(c.client) && status(err) == http.StatusNotImplemented {
		c.put.once, note = nil, "; without If-None-Match, which the store refuses: set conditional_put: false to say that you know"
		err = c.put.whole(ctx)
	}
	var fail *lane.Error
	if errors.As(c.put.came(ctx, err), &fail) {
		return check.Step{Err: fail}
	}
	return check.Step{Seen: fmt.Sprintf("s3://%s/%s, %d bytes%s", c.sink.set.Bucket, c.drop.Key, c.drop.Size, note), Note: note != ""}
}

// conditional puts the object again: the store must refuse that.
func (c *checking) conditional(ctx context.Context) check.Step {
	if c.put.once == nil {
		return check.Step{Seen: "not tried: drops are put without If-None-Match"}
	}
	for range asked - 1 {
		err := c.put.whole(ctx)
		if status(err) == http.StatusPreconditionFailed {
			return check.Step{Seen: "the store honours If-None-Match: no object is overwritten"}
		}
		if err != nil {
			return c.failed("put", err)
		}
	}
	return check.Step{Note: true, Seen: notHonoured(c.sink.set)}
}

// read looks at the object, as a sink does that does not know whether it was stored.
func (c *checking) read(ctx context.Context) check.Step {
	set := c.sink.set
	h, err := c.client.HeadObject(ctx, &sdk.HeadObjectInput{Bucket: &set.Bucket, Key: &c.drop.Key})
	switch {
	case status(err) == http.StatusForbidden:
		return check.Step{Note: true, Seen: "it may not be read (s3:GetObject), which is needed only to tell an own object from a foreign one"}
	case err != nil:
		return c.failed("look at", err)
	case h.Metadata[metaID] != c.drop.ID:
		return check.Step{Note: true, Seen: "the store does not keep metadata, or another object is there: own objects cannot be told from foreign ones"}
	}
	var seen []string
	if h.ServerSideEncryption != "" {
		seen = append(seen, strings.TrimSuffix(fmt.Sprintf("encrypted with %s %s", h.ServerSideEncryption, aws.ToString(h.SSEKMSKeyId)), " "))
	}
	if h.StorageClass != "" {
		seen = append(seen, fmt.Sprintf("storage class %s", h.StorageClass))
	}
	note := false
	if set.SSE != "" && string(h.ServerSideEncryption) != set.SSE {
		note, seen = true, append(seen, fmt.Sprintf("sse: %s was asked for, and the store does not say that it did that", set.SSE))
	}
	if len(seen) == 0 {
		seen = []string{"it is there, as it was sent"}
	}
	return check.Step{Seen: strings.Join(seen, "; "), Note: note}
}

// remove takes the object away where that is allowed.
func (c *checking) remove(ctx context.Context) check.Step {
	versions, err := c.sink.delete(ctx, c.client, c.drop.Key)
	switch {
	case err != nil:
		return check.Step{Note: true, Seen: fmt.Sprintf("s3://%s/%s stays: %s; it is harmless, and the right to delete is not needed", c.sink.set.Bucket, c.drop.Key, say(err))}
	case versions:
		return check.Step{Seen: fmt.Sprintf("s3://%s/%s is removed; the bucket keeps versions, so the old one stays until a rule of its removes it", c.sink.set.Bucket, c.drop.Key)}
	}
	return check.Step{Seen: "nothing is left behind"}
}
