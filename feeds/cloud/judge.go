package cloud

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"datasync/feeds"
)

// The classes of what goes wrong; those that the feeds act on are named.
const (
	Throttled = "throttled"
	NotFound  = "not-found"
	Forbidden = "forbidden"
)

// passing says whether a class is usually over before anybody could do anything.
func passing(class string) bool { return class == Throttled || class == "reset" || class == "timeout" }

// Code is the service's word for an error; "" where it did not answer.
func Code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

const hintKeys = "check the access key, that it is not expired, and the clock of this machine"

// codes are what AWS's services say, by what their codes end in.
var codes = []struct{ part, class, hint string }{
	{"ProvisionedThroughputExceeded", Throttled, "other consumers read the same shards, or they hold more than one consumer may read"},
	{"LimitExceeded", Throttled, "the service asks for a pause"},
	{"Throttl", Throttled, "the service asks for a pause"},
	{"SlowDown", Throttled, "the service asks for a pause"},
	{"TooManyRequests", Throttled, "the service asks for a pause"},
	{"KMS", Forbidden, "it is encrypted: allow kms:Decrypt on its key, and check that the key is enabled"},
	{"AccessDenied", Forbidden, ""},
	{"NotAuthorized", Forbidden, ""},
	{"UnauthorizedOperation", Forbidden, ""},
	{"AllAccessDisabled", Forbidden, ""},
	{"InvalidObjectState", Forbidden, "the object lies in an archive: restore it"},
	{"NonExistentQueue", NotFound, "make the queue, or correct queue, region or endpoint"},
	{"QueueDoesNotExist", NotFound, "make the queue, or correct queue, region or endpoint"},
	{"ResourceNotFound", NotFound, "make it, or correct its name, region or endpoint"},
	{"NoSuchBucket", NotFound, "the bucket is not there (any more)"},
	{"NoSuchKey", NotFound, "the object is not there (any more)"},
	{"UnrecognizedClient", "auth", hintKeys},
	{"InvalidClientTokenId", "auth", hintKeys},
	{"InvalidAccessKeyId", "auth", hintKeys},
	{"InvalidSignature", "auth", hintKeys},
	{"SignatureDoesNotMatch", "auth", hintKeys},
	{"IncompleteSignature", "auth", hintKeys},
	{"MissingAuthentication", "auth", hintKeys},
	{"ExpiredToken", "auth", hintKeys},
	{"RequestExpired", "auth", hintKeys},
	{"RequestTimeTooSkewed", "auth", hintKeys},
}

// Judge gives the class of an error and what to do about it; "" is none to
// speak of. allow is what the identity must be allowed.
func Judge(err error, allow string) (class, hint string) {
	var (
		id   *identityError
		role *roleError
		resp *smithyhttp.ResponseError
	)
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return "", ""
	case errors.Is(err, feeds.ErrFull):
		return "full", "raise journal.max_bytes, or see which sinks are behind: datasync status"
	case errors.Is(err, errRegion):
		return "invalid", "set region, or AWS_REGION"
	case errors.As(err, &id):
		return "auth", "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role for this machine"
	case errors.As(err, &role) && Code(err) != "":
		return "auth", "check the role's trust policy, external_id, and sts:AssumeRole for the service's own identity"
	}
	for _, c := range codes {
		if code := Code(err); code != "" && strings.Contains(code, c.part) {
			if c.hint == "" {
				c.hint = "allow " + allow + " to the identity that reads (role_arn, or the service's own)"
			}
			return c.class, c.hint
		}
	}
	if errors.As(err, &resp) && resp.HTTPStatusCode() != 0 { // 0: there was no answer
		return status(resp.HTTPStatusCode(), Code(err), allow)
	}
	return network(err)
}

func status(status int, code, allow string) (class, hint string) {
	switch {
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return Throttled, "the service asks for a pause"
	case status >= 500:
		return "reset", "the service failed by itself; it is tried again"
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return Forbidden, "allow " + allow + " to the identity that reads (role_arn, or the service's own)"
	case status == http.StatusNotFound:
		return NotFound, "check the name, region and endpoint"
	}
	return fmt.Sprintf("invalid %d %s", status, code), "check the feed's settings: is this the right service?"
}

func network(err error) (class, hint string) {
	var (
		dns    *net.DNSError
		verify *tls.CertificateVerificationError
		record tls.RecordHeaderError
		n      net.Error
		alert  *net.OpError
	)
	switch {
	case errors.As(err, &dns):
		return "dns", "check endpoint or region, and the resolver"
	case errors.As(err, &verify):
		return "tls-verify", "set AWS_CA_BUNDLE to the authority that signed the endpoint's certificate, or check its dates and name"
	case errors.As(err, &record):
		return "tls-verify", "the endpoint does not speak TLS on this port: is it http://?"
	case errors.As(err, &alert) && alert.Op == "remote error":
		return "tls-verify", "the endpoint refused the handshake"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &n) && n.Timeout():
		return "timeout", "no answer: check the network, and that no firewall drops the packets"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect", "nothing listens there: check endpoint; it is tried again"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "reset", "the connection ended early; it is tried again"
	}
	return "other", "it is tried again"
}

// Brief leaves out what the SDK puts before an answer of the service.
func Brief(err error) error {
	var api smithy.APIError
	var id *identityError
	var role *roleError
	if !errors.As(err, &api) || errors.As(err, &id) || errors.As(err, &role) {
		return err
	}
	return &brief{api, err}
}

// brief is an answer of the service, in its words.
type brief struct {
	api smithy.APIError
	err error
}

func (b *brief) Error() string {
	text := b.api.ErrorCode()
	if m := b.api.ErrorMessage(); m != "" {
		text += ": " + m
	}
	var id interface{ ServiceRequestID() string }
	if errors.As(b.err, &id) && id.ServiceRequestID() != "" {
		text += " (request " + id.ServiceRequestID() + ")"
	}
	return text
}

func (b *brief) Unwrap() error { return b.err }
