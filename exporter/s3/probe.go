package s3

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"datasync/exporter/tenants"
)

// store is what the probe is about: a place in a store, whoever reaches it.
type store struct{ endpoint, region, bucket, prefix string }

// probe is what is known of a store.
type probe struct {
	// turn is held, as its one element, while it is found out: others wait, no
	// longer than their contexts.
	turn  chan struct{}
	known bool
	// ignores says that it was known to put where the key is taken all the same.
	ignores bool
	// refuses says that the store refuses a put with If-None-Match. One that
	// takes the header for nothing is sent it all the same: should the probe be
	// wrong, the condition holds.
	refuses bool
}

// probed gives the probe of a store.
func (c *Clients) probed(set *tenants.S3Sink) *probe {
	k := store{set.AWS.Endpoint, set.AWS.Region, set.Bucket, set.Prefix}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.probes[k]
	if p == nil {
		p = &probe{turn: make(chan struct{}, 1)}
		c.probes[k] = p
	}
	return p
}

// conditional says whether a put may carry If-None-Match. It is tried once for
// each bucket and prefix of a store of another maker; AWS promises it, and no
// object need appear there that its readers did not ask for.
func (s *Sink) conditional(ctx context.Context, c *client) (bool, error) {
	if !s.custom(c) {
		return true, nil
	}
	p := s.clients.probed(s.set)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return false, s.failure("wait for the probe of", s.Prefix(), ctx.Err())
	}
	if p.known {
		return !p.refuses, nil
	}
	key := s.Prefix() + ".datasync-probe/" + s.clients.journalID
	honoured, err := s.ask(ctx, c, key)
	switch {
	case code(err) == "AccessDenied": // it may put elsewhere: the drop itself will show
		return true, nil
	case status(err) == http.StatusNotImplemented:
		p.refuses = true
	case err != nil:
		return false, s.failure("probe", key, err)
	}
	p.known, p.ignores = true, !honoured
	if !honoured {
		s.clients.o.Report(notHonoured(s.set))
	}
	return !p.refuses, nil
}

// Promise says, for people, whether an object is put only where its key is free.
func (s *Sink) Promise() string {
	c := s.held.Load()
	switch {
	case !s.set.ConditionalPut:
		return "overwrites: conditional_put is false"
	case c == nil:
		return "not known yet: nothing was put since the start"
	case !s.custom(c):
		return "where the key is free"
	}
	p := s.clients.probed(s.set)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	default:
		return "not known yet: the store is being asked"
	}
	switch {
	case !p.known:
		return "not known yet: the store could not be asked"
	case p.ignores:
		return "overwrites: the store does not honour If-None-Match"
	}
	return "where the key is free"
}

// custom says that the store is of another maker than AWS.
func (s *Sink) custom(c *client) bool { return c.Options().BaseEndpoint != nil }

// notHonoured tells of a store that takes If-None-Match for nothing.
func notHonoured(set *tenants.S3Sink) string {
	return fmt.Sprintf("the store at %s does not honour If-None-Match for bucket %s: "+
		"an object that somebody else put under a drop's key would be overwritten; set conditional_put: false for its sinks to say that you know",
		set.AWS.Endpoint, set.Bucket)
}

// asked is how often a store is asked before its answer is believed: the probe
// is put once more than needed, for an instance that was frozen with the same
// journal may remove it in between.
const asked = 3

// ask puts an object several times on the condition that it is not there, and
// removes it. A first put that is refused is an earlier probe's, cut short: an
// answer too.
func (s *Sink) ask(ctx context.Context, c *client, key string) (bool, error) {
	for range asked {
		_, err := c.PutObject(ctx, &sdk.PutObjectInput{Bucket: &s.set.Bucket, Key: &key, IfNoneMatch: aws.String("*"),
			Body: strings.NewReader("Data Sync asks whether this store honours If-None-Match. This object may be deleted.\n")})
		if status(err) == http.StatusPreconditionFailed {
			s.remove(ctx, c, key)
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	s.remove(ctx, c, key)
	return false, nil
}

// remove deletes the probe's object where it may; it is harmless where it stays.
func (s *Sink) remove(ctx context.Context, c *client, key string) {
	_, _ = s.delete(ctx, c, key)
}

// delete deletes an object; versions says that the bucket keeps what it was.
func (s *Sink) delete(ctx context.Context, c *client, key string) (versions bool, err error) {
	out, err := c.DeleteObject(ctx, &sdk.DeleteObjectInput{Bucket: &s.set.Bucket, Key: &key})
	return err == nil && aws.ToBool(out.DeleteMarker), err
}
