// Package s3 stores drops as objects in a bucket: each whole, once, and never over another's.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
	"weak"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"datasync/exporter/tenants"
)

// Options of Clients; the zero value dials everything and reports to nobody.
type Options struct {
	// Control judges each address before it is dialled (net.Dialer.Control).
	Control func(network, address string, c syscall.RawConn) error
	// Dial connects in place of net.Dialer, and past Control; nil: that.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Report is told once of each store that does not do what was asked of it
	// and is used all the same. It must not wait.
	Report func(message string)
	// PartSize is how many bytes a part has, Multipart from which size on an
	// object goes in parts; 0: 16 MiB, 64 MiB.
	PartSize, Multipart int64
	// Pause is the longest between the tries of one request; 0: 1 s.
	Pause time.Duration
}

// Clients is what all S3 sinks share: one pool of connections, the service's
// own credentials, a client for each distinct way to a store, and what was
// found out about the stores. Nothing is dialled before the first Put.
type Clients struct {
	o         Options
	journalID string
	http      *http.Client
	own       *aws.CredentialsCache // the service's, of the SDK's default chain

	mu sync.Mutex
	by map[way]weak.Pointer[client]
	// swept is how many clients there were when the dead were last removed.
	swept  int
	probes map[store]*probe
}

var errRegion = errors.New("no region is set")

// way is how a store is reached; sinks with the same share a client.
type way struct {
	aws       tenants.AWS
	pathStyle bool
}

// client is a way to a store, with the credentials that can be forgotten.
type client struct {
	*sdk.Client
	credentials []*aws.CredentialsCache
}

// NewClients makes what the sinks of one service share. journalID, without
// which two instances could take each other's probes for their own, names the
// objects of the probe.
func NewClients(journalID string, o Options) *Clients {
	if o.PartSize == 0 {
		o.PartSize = 16 << 20
	}
	if o.Multipart == 0 {
		o.Multipart = 64 << 20
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Report == nil {
		o.Report = func(string) {}
	}
	return &Clients{o: o, journalID: journalID, http: newHTTP(o), own: aws.NewCredentialsCache(chain{}),
		by: map[way]weak.Pointer[client]{}, probes: map[store]*probe{}}
}

// client gives the client of a way. It lives as long as a sink holds it.
func (c *Clients) client(ctx context.Context, w way) (*client, error) {
	c.mu.Lock()
	held := c.by[w].Value()
	c.mu.Unlock()
	if held != nil {
		return held, nil
	}
	made, err := c.dial(ctx, w)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if held := c.by[w].Value(); held != nil { // another sink was faster
		return held, nil
	}
	c.by[w] = weak.Make(made)
	if len(c.by) > 2*c.swept+64 {
		for w, p := range c.by {
			if p.Value() == nil {
				delete(c.by, w)
			}
		}
		c.swept = len(c.by)
	}
	return made, nil
}

// dial makes a client; nothing goes over the network yet.
func (c *Clients) dial(ctx context.Context, w way) (*client, error) {
	cfg, err := load(ctx)
	if err != nil {
		return nil, err
	}
	cfg.Credentials, cfg.HTTPClient, cfg.Retryer = c.own, c.http, c.retryer
	if w.aws.Region != "" {
		cfg.Region = w.aws.Region
	}
	if w.aws.Endpoint != "" {
		cfg.BaseEndpoint = &w.aws.Endpoint
		if cfg.Region == "" {
			cfg.Region = "us-east-1" // what stores of other makers go by
		}
	}
	if cfg.Region == "" {
		return nil, errRegion
	}
	made := &client{credentials: []*aws.CredentialsCache{c.own}}
	if w.aws.RoleARN != "" {
		role := aws.NewCredentialsCache(c.role(sts.NewFromConfig(cfg), w.aws), func(o *aws.CredentialsCacheOptions) {
			o.ExpiryWindow, o.ExpiryWindowJitterFrac = 5*time.Minute, 0.5
		})
		cfg.Credentials = role
		made.credentials = append(made.credentials, role)
	}
	made.Client = sdk.NewFromConfig(cfg, func(o *sdk.Options) { o.UsePathStyle = w.pathStyle })
	return made, nil
}

// load reads the environment and the SDK's files.
func load(ctx context.Context) (aws.Config, error) {
	if _, err := authorities(); err != nil { // the SDK reads them too, and says less
		return aws.Config{}, err
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithLogger(logging.Nop{}))
	if err != nil {
		return cfg, &credentialsError{err: fmt.Errorf("read the AWS settings: %w", err)}
	}
	return cfg, nil
}

// tries is how often one request goes out at most.
const tries = 3

// retryer tries again what a moment can mend: the lane has its
// own back-off, which does not hold a worker.
func (c *Clients) retryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff, o.RateLimiter = tries, c.o.Pause, ratelimit.None
		o.Retryables = []retry.IsErrorRetryable{
			retry.NoRetryCanceledError{},
			retry.RetryableError{}, // a clock that is off, once the SDK has corrected it
			retry.IsErrorRetryableFunc(func(err error) aws.Ternary { return aws.BoolTernary(fleeting(err)) }),
		}
	})
}

// forget has the credentials read anew, and a new client made: one keeps what
// it once derived from a secret, also when the secret was mended.
func (c *Clients) forget(w way, k *client) {
	for _, creds := range k.credentials {
		creds.Invalidate()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[w].Value() == k {
		delete(c.by, w)
	}
}

// chain is the SDK's default chain of credentials, walked anew each time: the
// SDK reads keys from a file once, and keys are rotated.
type chain struct{}

// reread is how long keys that say nothing of their end are good for.
const reread = time.Minute

// Retrieve is aws.CredentialsProvider's.
func (chain) Retrieve(ctx context.Context) (aws.Credentials, error) {
	cfg, err := load(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	k, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return k, &credentialsError{err: err}
	}
	if !k.CanExpire {
		k.CanExpire, k.Expires = true, time.Now().Add(reread)
	}
	return k, nil
}

// role is the credentials of a role that the service's own may assume.
type role struct {
	*stscreds.AssumeRoleProvider
	arn string
}

func (c *Clients) role(client *sts.Client, a tenants.AWS) role {
	return role{stscreds.NewAssumeRoleProvider(client, a.RoleARN, func(o *stscreds.AssumeRoleOptions) {
		o.RoleSessionName = "datasync-" + c.journalID
		if a.ExternalID != "" {
			o.ExternalID = &a.ExternalID
		}
	}), a.RoleARN}
}

// Retrieve is aws.CredentialsProvider's.
func (r role) Retrieve(ctx context.Context) (aws.Credentials, error) {
	k, err := r.AssumeRoleProvider.Retrieve(ctx)
	if err != nil {
		return k, &credentialsError{role: r.arn, err: err}
	}
	return k, nil
}
