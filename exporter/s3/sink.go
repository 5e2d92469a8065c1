package s3

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"datasync/exporter/lane"
	"datasync/exporter/tenants"
)

// What an object's metadata says of the drop that it is (x-amz-meta-…).
const (
	metaID     = "datasync-id"
	metaSHA256 = "datasync-sha256"
)

// Sink stores drops in a bucket. It is a lane.DropSink. Until its first Put it
// is nothing but settings.
type Sink struct {
	set     *tenants.S3Sink
	clients *Clients
	held    atomic.Pointer[client]
}

// New makes a sink of checked settings.
func New(set *tenants.S3Sink, c *Clients) *Sink { return &Sink{set: set, clients: c} }

// Prefix is what stands before the keys of the sink's drops: empty, or it ends
// with one '/'.
func (s *Sink) Prefix() string { return prefix(s.set.Prefix) }

// Place names the bucket, whoever reaches it.
func (s *Sink) Place() string { return s.set.AWS.Endpoint + " s3://" + s.set.Bucket }

func prefix(p string) string {
	if p == "" {
		return ""
	}
	return p + "/"
}

// Put is lane.DropSink's. What S3 has confirmed is durable.
func (s *Sink) Put(ctx context.Context, d *lane.Drop) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+time.Duration(d.Size/slowest)*time.Second)
	defer cancel()
	c, err := s.client(ctx)
	if err != nil {
		return s.failure("reach", d.Key, err)
	}
	body := &loan{body: d.Body}
	defer body.end()
	p := &put{sink: s, client: c, drop: d, body: body}
	if err := p.run(ctx); err != nil {
		var e *lane.Error
		if errors.As(err, &e) && e.Class == lane.Auth {
			s.held.CompareAndSwap(c, nil)
			s.clients.forget(s.way(), c)
		}
		return err
	}
	return nil
}

func (s *Sink) way() way { return way{s.set.AWS, s.set.PathStyle} }

func (s *Sink) client(ctx context.Context) (*client, error) {
	if c := s.held.Load(); c != nil {
		return c, nil
	}
	c, err := s.clients.client(ctx, s.way())
	if err != nil {
		return nil, err
	}
	s.held.Store(c)
	return c, nil
}

// put is the storing of one drop.
type put struct {
	sink   *Sink
	client *client
	drop   *lane.Drop
	body   io.ReaderAt
	// once is "*" where the object must not be there yet, else nil.
	once *string
}

func (p *put) run(ctx context.Context) error {
	if p.sink.set.ConditionalPut {
		conditional, err := p.sink.conditional(ctx, p.client)
		if err != nil {
			return err
		}
		if conditional {
			// promise: the store puts the object only where its key is free.
			p.once = aws.String("*")
		}
	}
	if p.drop.Size < p.sink.clients.o.Multipart {
		return p.came(ctx, p.whole(ctx))
	}
	if err := p.leftovers(ctx); err != nil {
		return p.sink.failure("look for uploads of", p.drop.Key, err)
	}
	if p.once != nil { // much to send: an earlier try may have been stored without our knowing
		switch w, err := p.look(ctx); {
		case err != nil:
			return p.sink.failure("look at", p.drop.Key, err)
		case w == ours:
			return nil
		case w == foreign, w == twins:
			return p.taken(w)
		}
	}
	return p.came(ctx, p.parts(ctx))
}

// came says what became of a put that ended with err.
func (p *put) came(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case p.once != nil && status(err) == http.StatusPreconditionFailed:
		w, err := p.look(ctx)
		for n := 1; err == nil && w == hidden && n < asked; n++ { // a right that is missing stays missing
			w, err = p.look(ctx)
		}
		if err != nil {
			return p.sink.failure("look at", p.drop.Key, err)
		}
		return p.taken(w)
	}
	return p.sink.failure("put", p.drop.Key, err)
}

// whole puts the object with one request.
func (p *put) whole(ctx context.Context) error {
	d, set := p.drop, p.sink.set
	_, err := p.client.PutObject(ctx, &sdk.PutObjectInput{
		Bucket: &set.Bucket, Key: &d.Key, IfNoneMatch: p.once,
		Body: io.NewSectionReader(p.body, 0, d.Size), ContentLength: &d.Size, ContentType: optional(d.ContentType),
		// promise: the store holds the bytes to the SHA-256 that was taken as they were encoded.
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(d.SHA256[:])), Metadata: p.metadata(),
		ServerSideEncryption: types.ServerSideEncryption(set.SSE), SSEKMSKeyId: optional(set.KMSKey),
		StorageClass: types.StorageClass(set.StorageClass),
	}, signedAs(hex.EncodeToString(d.SHA256[:])))
	return err
}

// signedAs signs a request for a body of this SHA-256 without reading it.
func signedAs(sha256 string) func(*sdk.Options) {
	return sdk.WithAPIOptions(func(stack *middleware.Stack) error {
		return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("KnownPayloadHash",
			func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				return next.HandleInitialize(v4.SetPayloadHash(ctx, sha256), in)
			}), middleware.After)
	})
}

func (p *put) metadata() map[string]string {
	return map[string]string{metaID: p.drop.ID, metaSHA256: hex.EncodeToString(p.drop.SHA256[:])}
}

// whose is what stands under a key.
type whose uint8

const (
	nobodys whose = iota
	ours
	foreign
	twins  // the id is this drop's, the bytes are not
	hidden // it may not be looked at
)

// look says whose object stands under the drop's key.
func (p *put) look(ctx context.Context) (whose, error) {
	h, err := p.client.HeadObject(ctx, &sdk.HeadObjectInput{Bucket: &p.sink.set.Bucket, Key: &p.drop.Key})
	switch {
	case err == nil && h.Metadata[metaID] != p.drop.ID:
		return foreign, nil
	case err == nil && !p.drop.Differs && (h.Metadata[metaSHA256] != p.metadata()[metaSHA256] || aws.ToInt64(h.ContentLength) != p.drop.Size):
		return twins, nil
	case err == nil:
		return ours, nil
	case status(err) == http.StatusNotFound:
		return nobodys, nil
	case status(err) == http.StatusForbidden:
		return hidden, nil
	}
	return nobodys, err
}

// taken decides what a key means that is taken already. A put that was stored
// although its answer got lost finds itself there at the next try. The id alone
// does not tell: an instance that runs with a copy of our data_dir has the same
// ids, and other events behind the place where it was copied.
func (p *put) taken(w whose) error {
	e := &lane.Error{Verdict: lane.Away, Class: lane.Invalid, Park: true}
	switch w {
	case ours, hidden: // hidden: the key carries the journal's id, so nobody else makes it in good faith
		return nil
	case foreign:
		e.Hint = "move that object away, then retry the lane; nothing was overwritten"
		e.Err = fmt.Errorf("put s3://%s/%s: %w: it is not drop %s", p.sink.set.Bucket, p.drop.Key, lane.ErrForeign, p.drop.ID)
	case twins:
		e.Hint = "does another instance run with a copy of this data_dir? Let only one of them run; nothing was overwritten, and what is undelivered here stays"
		e.Err = fmt.Errorf("put s3://%s/%s: %w: it has other bytes than drop %s", p.sink.set.Bucket, p.drop.Key, lane.ErrForeign, p.drop.ID)
	default:
		return &lane.Error{Verdict: lane.Wait, Class: lane.Throttled,
			Err: fmt.Errorf("put s3://%s/%s: the key was taken and then free", p.sink.set.Bucket, p.drop.Key)}
	}
	return e
}

func status(err error) int {
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) {
		return resp.HTTPStatusCode()
	}
	return 0
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
