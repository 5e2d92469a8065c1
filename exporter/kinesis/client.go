package kinesis

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyendpoints "github.com/aws/smithy-go/endpoints"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"datasync/exporter/lane"
)

// callTimeout bounds one call with the SDK's own retries.
const callTimeout = time.Minute

// client calls the service through the SDK: its endpoints, signing, retries
// and errors, with a body of our own.
type client struct {
	o Options

	mu   sync.Mutex
	sdk  *kinesis.Client         // nil: to be made
	own  aws.CredentialsProvider // the service's, of which a role is assumed
	http *http.Transport
}

func newClient(o Options) *client { return &client{o: o} }

// put is caller's.
func (c *client) put(ctx context.Context, body []byte, n int) ([]result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	sdk, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	// What is left of a connection that broke may still read the body.
	x := &exchange{body: lend(body), n: n}
	defer x.body.takeBack()
	out, err := sdk.PutRecords(x.in(ctx), &kinesis.PutRecordsInput{StreamName: &c.o.Stream, Records: []types.PutRecordsRequestEntry{}}, byExchange)
	if err != nil {
		c.doubt(err)
		return nil, err
	}
	rs := x.results
	if rs == nil {
		rs = resultsOf(out.Records)
	}
	if len(rs) != n {
		return nil, fmt.Errorf("%w: %d of %d", errShort, len(rs), n)
	}
	for i := range rs {
		if r := &rs[i]; !r.stored && r.shard == "" {
			r.shard = shardName.FindString(r.message)
		}
	}
	return rs, nil
}

// resultsOf are the results of an answer that the SDK decoded.
func resultsOf(es []types.PutRecordsResultEntry) []result {
	rs := make([]result, len(es))
	for i := range es {
		e := &es[i]
		rs[i] = result{stored: e.ErrorCode == nil && e.SequenceNumber != nil, shard: aws.ToString(e.ShardId),
			code: aws.ToString(e.ErrorCode), message: aws.ToString(e.ErrorMessage)}
	}
	return rs
}

// doubt forgets the SDK's client where its identity may be what is wrong: the
// next call reads files and environment anew, so that changed keys count.
func (c *client) doubt(err error) {
	switch classify("", err).Class {
	case lane.Auth, lane.Forbidden, lane.TLSVerify:
		c.close()
	}
}

// close is caller's.
func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.sdk, c.http = nil, nil
}

// connect gives the SDK's client, made at the first call.
func (c *client) connect(ctx context.Context) (*kinesis.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sdk != nil {
		return c.sdk, nil
	}
	var opts []func(*config.LoadOptions) error
	if c.o.Region != "" {
		opts = append(opts, config.WithRegion(c.o.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return nil, &lane.Error{Verdict: lane.Away, Class: lane.Auth, Park: true, Hint: "check the AWS settings in the environment and in ~/.aws",
			Err: fmt.Errorf("read the AWS settings for Kinesis stream %s: %w", c.o.Stream, err)}
	}
	if cfg.Region == "" {
		if c.o.Endpoint == "" {
			return nil, &lane.Error{Verdict: lane.Away, Class: lane.Invalid, Park: true, Hint: "set region, or AWS_REGION",
				Err: fmt.Errorf("no region is known for Kinesis stream %s", c.o.Stream)}
		}
		cfg.Region = "us-east-1" // an endpoint of one's own asks for any
	}
	// Egress rules are for where the sink connects to, not for where the
	// service finds its own identity (a metadata address, often).
	c.http = c.transport(&cfg)
	web := &http.Client{Transport: c.http, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	cfg.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxBackoff = c.o.withDefaults().Tuning.RetryMin })
	}
	cfg.Credentials = aws.NewCredentialsCache(chain(opts))
	identity := cfg.Credentials
	c.own = marked{cfg.Credentials}
	if c.o.RoleARN != "" {
		by := sts.NewFromConfig(cfg, func(o *sts.Options) { o.HTTPClient = web })
		identity = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(by, c.o.RoleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = "datasync"
			if c.o.ExternalID != "" {
				o.ExternalID = &c.o.ExternalID
			}
		}), func(o *aws.CredentialsCacheOptions) {
			o.ExpiryWindow, o.ExpiryWindowJitterFrac = 5*time.Minute, 0.5
		})
	}
	c.sdk = kinesis.NewFromConfig(cfg, func(o *kinesis.Options) {
		o.HTTPClient, o.Credentials = web, marked{identity}
		o.EndpointResolverV2 = &lastEndpoint{rules: o.EndpointResolverV2}
		if c.o.Endpoint != "" {
			o.BaseEndpoint = &c.o.Endpoint
		}
	})
	return c.sdk, nil
}

// lastEndpoint asks the SDK's rules only where it is asked for another endpoint
// than last time: they take more stack than a call's goroutine has.
type lastEndpoint struct {
	rules kinesis.EndpointResolverV2

	mu     sync.Mutex
	params *kinesis.EndpointParameters // nil: none was asked for
	at     smithyendpoints.Endpoint
}

// ResolveEndpoint is kinesis.EndpointResolverV2's.
func (l *lastEndpoint) ResolveEndpoint(ctx context.Context, params kinesis.EndpointParameters) (smithyendpoints.Endpoint, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.params != nil && reflect.DeepEqual(*l.params, params) {
		return l.at, nil
	}
	at, err := l.rules.ResolveEndpoint(ctx, params)
	if err == nil {
		l.params, l.at = &params, at
	}
	return at, err
}

// chain is the SDK's default chain of credentials, walked anew each time: the
// SDK reads keys from a file once, and keys are rotated while the old ones are
// still good for a while.
type chain []func(*config.LoadOptions) error

// reread is how long keys that say nothing of their end are good for.
const reread = time.Minute

// Retrieve is aws.CredentialsProvider's.
func (c chain) Retrieve(ctx context.Context) (aws.Credentials, error) {
	cfg, err := config.LoadDefaultConfig(ctx, c...)
	if err != nil {
		return aws.Credentials{}, err
	}
	k, err := cfg.Credentials.Retrieve(ctx)
	if err == nil && !k.CanExpire {
		k.CanExpire, k.Expires = true, time.Now().Add(reread)
	}
	return k, err
}

// transport is the SDK's with the egress rules, and with a bound on how long
// an answer may take to begin.
func (c *client) transport(cfg *aws.Config) *http.Transport {
	base, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		base = awshttp.NewBuildableClient()
	}
	t := base.WithDialerOptions(func(d *net.Dialer) {
		d.Timeout = 10 * time.Second
		if judge := c.o.Control; judge != nil {
			d.Control = func(network, address string, rc syscall.RawConn) error {
				if err := judge(network, address, rc); err != nil {
					return &refused{err}
				}
				return nil
			}
		}
	}).GetTransport()
	if c.o.Dial != nil {
		t.DialContext = c.o.Dial
	}
	t.ResponseHeaderTimeout = 30 * time.Second
	return t
}

// marked tells failures to find an identity from others.
type marked struct{ aws.CredentialsProvider }

// Retrieve is aws.CredentialsProvider's.
func (m marked) Retrieve(ctx context.Context) (aws.Credentials, error) {
	if m.CredentialsProvider == nil {
		return aws.Credentials{}, &noCredentials{errors.New("no source of credentials is set")}
	}
	k, err := m.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return k, &noCredentials{err}
	}
	return k, nil
}

// exchange is what a call of PutRecords carries past the SDK in its context.
type exchange struct {
	body *lent
	n    int // records in it
	// results are what was answered; nil where the SDK decoded it.
	results []result
}

type exchangeKey struct{}

func (x *exchange) in(ctx context.Context) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// byExchange has a call of PutRecords send and answer its context's exchange.
func byExchange(o *kinesis.Options) {
	o.APIOptions = append(o.APIOptions, useOwnBody)
	o.Protocol = ownAnswer{o.Protocol}
}

func useOwnBody(stack *middleware.Stack) error {
	if _, err := stack.Serialize.Swap(ownBody{}.ID(), ownBody{}); err != nil {
		return err
	}
	// ownBody says what the body's hash is: the SDK would read the body for it.
	_, err := stack.Finalize.Remove((&v4.ComputePayloadSHA256{}).ID())
	return err
}

// ownBody stands in for the SDK's serializer of PutRecords: the same request
// (a test compares them), with the exchange's body.
type ownBody struct{}

// ID is the name under which it replaces the SDK's.
func (ownBody) ID() string { return "OperationSerializer" }

// HandleSerialize sets method, path, headers and body of the request.
func (ownBody) HandleSerialize(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (out middleware.SerializeOutput, md middleware.Metadata, err error) {
	req, ok := in.Request.(*smithyhttp.Request)
	x, there := ctx.Value(exchangeKey{}).(*exchange)
	if !ok || !there {
		return out, md, fmt.Errorf("serialize PutRecords: unexpected request %T, body given: %v", in.Request, there)
	}
	req.Method = http.MethodPost
	if req.URL.Path == "" {
		req.URL.Path = "/"
	}
	req.Header.Set("X-Amz-Target", "Kinesis_20131202.PutRecords")
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	if req, err = req.SetStream(x.body); err != nil {
		return out, md, fmt.Errorf("serialize PutRecords: %w", err)
	}
	in.Request = req
	return next.HandleSerialize(v4.SetPayloadHash(ctx, x.body.hash), in)
}

// ownAnswer is the SDK's protocol, but for answers of PutRecords that look as
// they always do: those are read without an object for each of their strings.
type ownAnswer struct{ smithyhttp.ClientProtocol }

// answers recycles the buffers in which answers are read.
var answers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// DeserializeResponse leaves results in the exchange; failures, and what it
// cannot read, are the SDK's to tell.
func (p ownAnswer) DeserializeResponse(ctx context.Context, op *smithy.OperationSchema, ts *smithy.TypeRegistry, resp *smithyhttp.Response, out smithy.Deserializable) error {
	x, ok := ctx.Value(exchangeKey{}).(*exchange)
	if !ok || resp.StatusCode != http.StatusOK {
		return p.ClientProtocol.DeserializeResponse(ctx, op, ts, resp, out)
	}
	buf := answers.Get().(*bytes.Buffer)
	defer answers.Put(buf)
	buf.Reset()
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	if x.results, ok = readResults(buf.Bytes(), x.n); ok {
		return nil
	}
	again := *resp.Response
	again.Body = io.NopCloser(bytes.NewReader(buf.Bytes()))
	return p.ClientProtocol.DeserializeResponse(ctx, op, ts, &smithyhttp.Response{Response: &again}, out)
}

// lent is a body whose bytes belong to somebody else again once the call is
// over: no late reader sees what they become, which may be another tenant's.
type lent struct {
	hash string // SHA-256, hex, as the signature wants it
	mu   sync.Mutex
	r    *bytes.Reader // nil: taken back
}

func lend(body []byte) *lent {
	sum := sha256.Sum256(body)
	return &lent{hash: hex.EncodeToString(sum[:]), r: bytes.NewReader(body)}
}

var errTakenBack = errors.New("the call is over")

func (l *lent) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r = nil
}

// Read is io.Reader's.
func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r == nil {
		return 0, errTakenBack
	}
	return l.r.Read(p)
}

// Seek is io.Seeker's: the SDK measures and repeats with it.
func (l *lent) Seek(offset int64, whence int) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r == nil {
		return 0, errTakenBack
	}
	return l.r.Seek(offset, whence)
}
