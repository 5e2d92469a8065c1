// Package cloud is how the feeds reach AWS: with which identity, how long a call may take, and what its errors mean for an operator.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Options say where a feed's service is and who asks. The zero value is AWS
// itself, in the region and with the identity that the environment gives.
type Options struct {
	Region     string
	Endpoint   string // URL of another service, for all calls but those of STS
	RoleARN    string // to assume; "": the service's own identity
	ExternalID string
}

// Calls bound each other: a connection, the beginning of an answer.
const (
	dialIn   = 10 * time.Second
	answerIn = 40 * time.Second // a long poll of SQS takes 20 s
)

// Config gives the SDK's settings. Credentials are looked for when they are
// needed, and again before they end; nothing is dialled yet.
func Config(ctx context.Context, o Options) (aws.Config, error) {
	var opts []func(*config.LoadOptions) error
	if o.Region != "" {
		opts = append(opts, config.WithRegion(o.Region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return cfg, &identityError{err}
	}
	if cfg.Region == "" {
		if o.Endpoint == "" {
			return cfg, errRegion
		}
		cfg.Region = "us-east-1" // an endpoint of one's own asks for any
	}
	base, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		base = awshttp.NewBuildableClient()
	}
	t := base.WithDialerOptions(func(d *net.Dialer) { d.Timeout = dialIn }).GetTransport()
	t.ResponseHeaderTimeout = answerIn
	cfg.HTTPClient = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	// The feeds try again by themselves, for ever; the SDK only what passes at once.
	cfg.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = 2, time.Second })
	}
	cfg.Credentials = aws.NewCredentialsCache(chain(opts))
	if o.RoleARN != "" {
		role := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), o.RoleARN, func(a *stscreds.AssumeRoleOptions) {
			a.RoleSessionName = "datasync"
			if o.ExternalID != "" {
				a.ExternalID = &o.ExternalID
			}
		})
		cfg.Credentials = aws.NewCredentialsCache(assumed{role, o.RoleARN}, func(c *aws.CredentialsCacheOptions) {
			c.ExpiryWindow, c.ExpiryWindowJitterFrac = 5*time.Minute, 0.5
		})
	}
	return cfg, nil
}

// Close gives back the connections of a Config that is not used any more.
func Close(cfg aws.Config) {
	if c, ok := cfg.HTTPClient.(*http.Client); ok {
		c.CloseIdleConnections()
	}
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
		return aws.Credentials{}, &identityError{err}
	}
	if cfg.Credentials == nil {
		return aws.Credentials{}, &identityError{errors.New("no source of credentials is set")}
	}
	k, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return k, &identityError{err}
	}
	if !k.CanExpire {
		k.CanExpire, k.Expires = true, time.Now().Add(reread)
	}
	return k, nil
}

// assumed is the credentials of a role.
type assumed struct {
	*stscreds.AssumeRoleProvider
	role string
}

// Retrieve is aws.CredentialsProvider's.
func (a assumed) Retrieve(ctx context.Context) (aws.Credentials, error) {
	k, err := a.AssumeRoleProvider.Retrieve(ctx)
	if err != nil {
		return k, &roleError{a.role, err}
	}
	return k, nil
}

// identityError is that the service does not know who it is.
type identityError struct{ err error }

func (e *identityError) Error() string { return "find credentials: " + e.err.Error() }
func (e *identityError) Unwrap() error { return e.err }

// roleError is that a role could not be assumed.
type roleError struct {
	role string
	err  error
}

func (e *roleError) Error() string { return fmt.Sprintf("assume role %s: %v", e.role, e.err) }
func (e *roleError) Unwrap() error { return e.err }

var errRegion = errors.New("no region is known")
