package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"datasync/exporter/lane"
)

// refusedError is an address that Options.Control refused.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// stalledError is a connection that took nothing for stallTimeout.
type stalledError struct{ err error }

func (e *stalledError) Error() string {
	return fmt.Sprintf("the store took nothing for %v: %v", stallTimeout, e.err)
}
func (e *stalledError) Unwrap() error { return e.err }

// bundleError is an AWS_CA_BUNDLE that cannot be used.
type bundleError struct{ error }

func (e *bundleError) Unwrap() error { return e.error }

// credentialsError is credentials that could not be had.
type credentialsError struct {
	role string // empty: the service's own
	err  error
}

func (e *credentialsError) Error() string {
	if e.role == "" {
		return "get the service's AWS credentials: " + say(e.err)
	}
	return "assume role " + e.role + ": " + say(e.err)
}
func (e *credentialsError) Unwrap() error { return e.err }

// sentence is what a code or status of a store means to a lane.
type sentence struct {
	verdict lane.Verdict
	class   lane.Class
	park    bool
	hint    string
}

// Hints that several errors share.
const (
	hintKeys   = "check the service's AWS credentials (environment, ~/.aws, instance role); they are read again at each try"
	hintAllow  = "let the service's identity put objects there: s3:PutObject on the bucket's keys below the prefix, and kms:GenerateDataKey and kms:Decrypt where the bucket uses a KMS key"
	hintRegion = "the bucket is in another region: set region to the bucket's"
	hintBroken = "the bytes were damaged on the way; they are sent again"
)

// codes are the error codes of S3, STS and KMS that mean more than their status.
var codes = map[string]sentence{
	"InvalidAccessKeyId":             {lane.Away, lane.Auth, true, hintKeys},
	"SignatureDoesNotMatch":          {lane.Away, lane.Auth, true, hintKeys},
	"ExpiredToken":                   {lane.Away, lane.Auth, true, hintKeys},
	"ExpiredTokenException":          {lane.Away, lane.Auth, true, hintKeys},
	"InvalidToken":                   {lane.Away, lane.Auth, true, hintKeys},
	"InvalidClientTokenId":           {lane.Away, lane.Auth, true, hintKeys},
	"UnrecognizedClientException":    {lane.Away, lane.Auth, true, hintKeys},
	"TokenRefreshRequired":           {lane.Away, lane.Auth, true, hintKeys},
	"InvalidSecurity":                {lane.Away, lane.Auth, true, hintKeys},
	"RequestTimeTooSkewed":           {lane.Away, lane.Auth, true, "set this machine's clock"},
	"AccessDenied":                   {lane.Away, lane.Forbidden, true, hintAllow},
	"NoSuchBucket":                   {lane.Away, lane.NotFound, true, "make the bucket, or correct bucket and region"},
	"AuthorizationHeaderMalformed":   {lane.Away, lane.Invalid, true, hintRegion},
	"PermanentRedirect":              {lane.Away, lane.Invalid, true, hintRegion},
	"IllegalLocationConstraint":      {lane.Away, lane.Invalid, true, hintRegion},
	"KMS.NotFoundException":          {lane.Away, lane.NotFound, true, "correct kms_key: the key must exist in the bucket's region"},
	"KMS.DisabledException":          {lane.Away, lane.Forbidden, true, "enable the key of kms_key"},
	"KMS.KMSInvalidStateException":   {lane.Away, lane.Forbidden, true, "the key of kms_key is being deleted or imported; name another"},
	"KeyTooLongError":                {lane.Away, lane.Invalid, true, "shorten prefix: keys have at most 1,024 bytes"},
	"EntityTooLarge":                 {lane.Away, lane.Invalid, true, "lower deliver.max_bytes: the store takes no object of this size"},
	"InvalidStorageClass":            {lane.Away, lane.Invalid, true, "correct storage_class: this store does not know it"},
	"NotImplemented":                 {lane.Away, lane.Invalid, true, "the store lacks something that the sink's settings ask for (sse, storage_class, conditional_put)"},
	"SlowDown":                       {lane.Wait, lane.Throttled, false, ""},
	"ServiceUnavailable":             {lane.Wait, lane.Throttled, false, ""},
	"Throttling":                     {lane.Wait, lane.Throttled, false, ""},
	"ThrottlingException":            {lane.Wait, lane.Throttled, false, ""},
	"TooManyRequests":                {lane.Wait, lane.Throttled, false, ""},
	"RequestLimitExceeded":           {lane.Wait, lane.Throttled, false, ""},
	"BandwidthLimitExceeded":         {lane.Wait, lane.Throttled, false, ""},
	"KMS.ThrottlingException":        {lane.Wait, lane.Throttled, false, ""},
	"ConditionalRequestConflict":     {lane.Wait, lane.Throttled, false, "another put of the same key was under way"},
	"OperationAborted":               {lane.Wait, lane.Throttled, false, "another request for the same key was under way"},
	"RequestTimeout":                 {lane.Away, lane.Slow, false, "the store waited too long for the bytes: check the line to it"},
	"NoSuchUpload":                   {lane.Away, lane.Reset, false, "the upload was aborted by somebody else; it begins again"},
	"InvalidPart":                    {lane.Away, lane.Reset, false, "the store has other parts than it said; the upload begins again"},
	"InvalidPartOrder":               {lane.Away, lane.Reset, false, "the store has other parts than it said; the upload begins again"},
	"BadDigest":                      {lane.Away, lane.Reset, false, hintBroken},
	"InvalidDigest":                  {lane.Away, lane.Reset, false, hintBroken},
	"IncompleteBody":                 {lane.Away, lane.Reset, false, hintBroken},
	"XAmzContentSHA256Mismatch":      {lane.Away, lane.Reset, false, hintBroken},
	"XAmzContentChecksumMismatch":    {lane.Away, lane.Reset, false, hintBroken},
	"InsufficientStorage":            {lane.Away, lane.Full, false, "make room in the store"},
	"XMinioStorageFull":              {lane.Away, lane.Full, false, "make room in the store"},
	"QuotaExceeded":                  {lane.Away, lane.Full, false, "make room in the store, or raise the bucket's quota"},
	"XMinioAdminBucketQuotaExceeded": {lane.Away, lane.Full, false, "make room in the bucket, or raise its quota"},
}

// statuses are HTTP statuses whose code says nothing.
var statuses = map[int]sentence{
	http.StatusMovedPermanently:    {lane.Away, lane.Invalid, true, hintRegion},
	http.StatusTemporaryRedirect:   {lane.Wait, lane.Throttled, false, "the bucket is being moved; if this stays, set region to the bucket's"},
	http.StatusPermanentRedirect:   {lane.Away, lane.Invalid, true, hintRegion},
	http.StatusUnauthorized:        {lane.Away, lane.Auth, true, hintKeys},
	http.StatusForbidden:           {lane.Away, lane.Forbidden, true, hintAllow},
	http.StatusNotFound:            {lane.Away, lane.NotFound, true, "check endpoint, bucket and path_style"},
	http.StatusRequestTimeout:      {lane.Away, lane.Slow, false, ""},
	http.StatusConflict:            {lane.Wait, lane.Throttled, false, ""},
	http.StatusPreconditionFailed:  {lane.Away, lane.Reset, false, ""}, // to what is asked without a condition, or of an object that then is not there
	http.StatusTooManyRequests:     {lane.Wait, lane.Throttled, false, ""},
	http.StatusServiceUnavailable:  {lane.Wait, lane.Throttled, false, ""},
	http.StatusInsufficientStorage: {lane.Away, lane.Full, false, "make room in the store"},
}

// judge says what an error of the SDK means. Unknown means away.
func judge(err error) sentence {
	var creds *credentialsError
	asCreds := errors.As(err, &creds)
	s := judgeAny(err, asCreds)
	if asCreds && creds.role != "" {
		switch s.class {
		case lane.Forbidden:
			s.hint = "let the service's identity assume the role (sts:AssumeRole in the role's trust policy), and compare external_id"
		case lane.Invalid:
			s.hint = "check role_arn and external_id"
		}
	}
	return s
}

func judgeAny(err error, credentials bool) sentence {
	var api smithy.APIError
	if errors.As(err, &api) {
		if s, ok := codes[api.ErrorCode()]; ok {
			return s
		}
	}
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) && resp.HTTPStatusCode() >= 300 {
		status := resp.HTTPStatusCode()
		if s, ok := statuses[status]; ok {
			return s
		}
		if status < 500 {
			return sentence{lane.Away, lane.Invalid, true, "the store refuses the request: check the sink's settings against what it says"}
		}
		return sentence{lane.Away, lane.Reset, false, "the store failed; it is tried again"}
	}
	if s, ok := judgeNetwork(err); ok {
		return s
	}
	if credentials {
		return sentence{lane.Away, lane.Auth, true, hintKeys}
	}
	return sentence{lane.Away, lane.Reset, false, ""}
}

// judgeNetwork judges what kept a request from being sent or answered.
func judgeNetwork(err error) (sentence, bool) {
	var (
		refusal *refusedError
		bundle  *bundleError
		stalled *stalledError
		dns     *net.DNSError
		name    x509.HostnameError
		cert    *tls.CertificateVerificationError
		alert   tls.AlertError
		record  tls.RecordHeaderError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &refusal):
		return sentence{lane.Away, lane.Forbidden, true, "the settings of egress do not let sinks reach this address"}, true
	case errors.As(err, &bundle):
		return sentence{lane.Away, lane.TLSVerify, true, "AWS_CA_BUNDLE must name a readable PEM file; it is read again at each try"}, true
	case errors.Is(err, errRegion):
		return sentence{lane.Away, lane.Invalid, true, "set region to the bucket's, or AWS_REGION for the service"}, true
	case errors.As(err, &dns):
		return sentence{lane.Away, lane.DNS, false, "the store's name does not resolve: check endpoint, region and bucket, and this machine's DNS"}, true
	case errors.As(err, &name):
		return sentence{lane.Away, lane.TLSVerify, true, "the store's certificate is for another name: check endpoint; for a bucket with dots in its name, or a store of another maker, set path_style: true"}, true
	case errors.As(err, &cert):
		return sentence{lane.Away, lane.TLSVerify, true, "the store's certificate is not trusted or expired: name its authority in AWS_CA_BUNDLE, or have it renewed"}, true
	case errors.As(err, &alert), errors.As(err, &op) && op.Op == "remote error":
		return sentence{lane.Away, lane.TLSClientCert, true, "the store refused the TLS handshake: it may want a client certificate, which this sink does not have"}, true
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return sentence{lane.Away, lane.TLSVerify, true, "the store does not speak TLS on this port: check the endpoint's scheme and port"}, true
	case errors.As(err, &stalled):
		return sentence{lane.Away, lane.Slow, false, "the store stopped reading"}, true
	case timedOut(err):
		return sentence{lane.Away, lane.Timeout, false, "the store did not answer in time: check that it is up, and firewalls on the way"}, true
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return sentence{lane.Away, lane.Connect, false, "nothing listens there, or no way leads there: check endpoint, and firewalls on the way"}, true
	}
	return sentence{}, false
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// fleeting says whether a moment may mend an error. What a condition was not
// met for is told to whoever set it.
func fleeting(err error) bool {
	s := judge(err)
	return !s.park && status(err) != http.StatusPreconditionFailed && (s.class == lane.Reset || s.class == lane.Throttled || s.class == lane.Connect)
}

// said is an error in fewer words than the SDK's.
type said struct {
	text string
	err  error
}

func (e *said) Error() string { return e.text }
func (e *said) Unwrap() error { return e.err }

// say tells an error of the SDK in one line: what was asked for, the answer,
// and its id, by which the store's operator finds it.
func say(err error) string {
	var (
		creds *credentialsError
		op    *smithy.OperationError
		api   smithy.APIError
		resp  *smithyhttp.ResponseError
		sent  *url.Error
	)
	if errors.As(err, &creds) {
		return creds.Error()
	}
	doing := ""
	if errors.As(err, &op) {
		doing = op.Operation() + ": "
	}
	switch {
	case errors.As(err, &api) && errors.As(err, &resp):
		text := fmt.Sprintf("%s%d %s: %s", doing, resp.HTTPStatusCode(), api.ErrorCode(), api.ErrorMessage())
		if id := resp.Response.Header.Get("X-Amz-Request-Id"); id != "" {
			text += ", request " + id
		}
		return text
	case errors.As(err, &sent):
		return doing + sent.Err.Error()
	}
	return err.Error()
}

// failure makes the lane's error of what went wrong with a key.
func (s *Sink) failure(doing, key string, err error) *lane.Error {
	j := judge(err)
	return &lane.Error{Verdict: j.verdict, Class: j.class, Park: j.park, Hint: j.hint, After: retryAfter(err),
		Err: &said{fmt.Sprintf("%s s3://%s/%s: %s", doing, s.set.Bucket, key, say(err)), err}}
}

// longestAfter bounds what a store may ask for.
const longestAfter = 5 * time.Minute

// retryAfter is for how long the store asks to be left alone; 0: it does not say.
func retryAfter(err error) time.Duration {
	var resp *smithyhttp.ResponseError
	if !errors.As(err, &resp) || resp.Response == nil {
		return 0
	}
	n, err := strconv.Atoi(resp.Response.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(n)*time.Second, longestAfter)
}
