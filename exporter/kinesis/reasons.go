package kinesis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"syscall"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"datasync/exporter/lane"
)

// noCredentials marks that the service's identity could not be had.
type noCredentials struct{ err error }

func (n *noCredentials) Error() string { return n.err.Error() }
func (n *noCredentials) Unwrap() error { return n.err }

// refused marks an error of Options.Control.
type refused struct{ err error }

func (r *refused) Error() string { return "address refused: " + r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

// reason is what a code of the service means for the lanes.
type reason struct {
	class lane.Class
	park  bool
	hint  string
}

const (
	hintKeys  = "check the access key, that it is not expired, and the clock of this machine"
	hintAllow = "allow kinesis:PutRecords on the stream to the identity (role_arn, or the service's own) that puts"
	hintKMS   = "the stream is encrypted: allow kms:GenerateDataKey on its key, and check that the key is enabled"
	hintSlow  = "the stream takes less than is sent: give it more shards or on-demand mode, or check that the partition key spreads the events"
)

// reasons are the codes that AWS documents for PutRecords, and those common to
// all its services.
var reasons = map[string]reason{
	"AccessDenied":              {lane.Forbidden, true, hintAllow},
	"AccessDeniedException":     {lane.Forbidden, true, hintAllow},
	"NotAuthorized":             {lane.Forbidden, true, hintAllow},
	"OptInRequired":             {lane.Forbidden, true, "the account is not subscribed to Kinesis in this region"},
	"KMSAccessDeniedException":  {lane.Forbidden, true, hintKMS},
	"KMSDisabledException":      {lane.Forbidden, true, hintKMS},
	"KMSInvalidStateException":  {lane.Forbidden, true, hintKMS},
	"KMSNotFoundException":      {lane.Forbidden, true, hintKMS},
	"KMSOptInRequired":          {lane.Forbidden, true, hintKMS},
	"ResourceNotFoundException": {lane.NotFound, true, "make the stream, or correct stream, region or endpoint"},

	"UnrecognizedClientException":    {lane.Auth, true, hintKeys},
	"InvalidClientTokenId":           {lane.Auth, true, hintKeys},
	"InvalidSignatureException":      {lane.Auth, true, hintKeys},
	"SignatureDoesNotMatch":          {lane.Auth, true, hintKeys},
	"IncompleteSignature":            {lane.Auth, true, hintKeys},
	"IncompleteSignatureException":   {lane.Auth, true, hintKeys},
	"MissingAuthenticationToken":     {lane.Auth, true, hintKeys},
	"MissingAuthenticationException": {lane.Auth, true, hintKeys},
	"ExpiredToken":                   {lane.Auth, true, hintKeys},
	"ExpiredTokenException":          {lane.Auth, true, hintKeys},
	"RequestExpired":                 {lane.Auth, true, hintKeys},

	"ProvisionedThroughputExceededException": {lane.Throttled, false, hintSlow},
	"LimitExceededException":                 {lane.Throttled, false, hintSlow},
	"ThrottlingException":                    {lane.Throttled, false, hintSlow},
	"Throttling":                             {lane.Throttled, false, hintSlow},
	"RequestLimitExceeded":                   {lane.Throttled, false, hintSlow},
	"TooManyRequestsException":               {lane.Throttled, false, hintSlow},
	"KMSThrottlingException":                 {lane.Throttled, false, "KMS limits requests for the stream's key"},

	"ValidationException":       {lane.Invalid, true, "check stream, region and endpoint"},
	"InvalidArgumentException":  {lane.Invalid, true, "check stream, region and endpoint"},
	"SerializationException":    {lane.Invalid, true, "is this a Kinesis endpoint?"},
	"UnknownOperationException": {lane.Invalid, true, "is this a Kinesis endpoint?"},
}

// classify maps a failed call to what the lanes show.
func classify(stream string, err error) *lane.Error {
	var known *lane.Error
	if errors.As(err, &known) {
		return known
	}
	r := reasonOf(err)
	e := &lane.Error{Verdict: lane.Away, Class: r.class, Park: r.park, Hint: r.hint,
		Err: fmt.Errorf("put records into Kinesis stream %s: %w", stream, brief(err))}
	if r.class == lane.Throttled {
		e.Verdict = lane.Wait
	}
	return e
}

// brief leaves out what the SDK puts before an answer of the service.
func brief(err error) error {
	var api smithy.APIError
	var none *noCredentials
	if !errors.As(err, &api) || errors.As(err, &none) {
		return err
	}
	var id interface{ ServiceRequestID() string }
	if errors.As(err, &id) && id.ServiceRequestID() != "" {
		return fmt.Errorf("%s: %s (request %s)", api.ErrorCode(), api.ErrorMessage(), id.ServiceRequestID())
	}
	return fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
}

func reasonOf(err error) reason {
	var (
		api  smithy.APIError
		resp *smithyhttp.ResponseError
		none *noCredentials
	)
	switch {
	case errors.As(err, &none):
		return identityReason(none)
	case errors.As(err, &api) && reasons[api.ErrorCode()].class != "":
		return reasons[api.ErrorCode()]
	case errors.As(err, &resp) && resp.HTTPStatusCode() != 0: // 0: there was no answer
		return statusReason(resp.HTTPStatusCode())
	}
	return networkReason(err)
}

// identityReason is why the service does not know who it is.
func identityReason(none *noCredentials) reason {
	var op *smithy.OperationError
	var api smithy.APIError
	switch {
	case !errors.As(none.err, &op) || op.Service() != "STS":
		return reason{lane.Auth, true, "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role for this machine"}
	case errors.As(none.err, &api):
		return reason{lane.Auth, true, "role_arn could not be assumed: check its trust policy, external_id, and sts:AssumeRole for the service's own identity"}
	default:
		return networkReason(none.err)
	}
}

func statusReason(status int) reason {
	switch {
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return reason{lane.Throttled, false, "the service asks for a pause"}
	case status >= 500:
		return reason{lane.Reset, false, "the service failed by itself; it is tried again"}
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return reason{lane.Forbidden, true, hintAllow}
	case status == http.StatusNotFound:
		return reason{lane.NotFound, true, "is this a Kinesis endpoint?"}
	default:
		return reason{lane.Invalid, true, "is this a Kinesis endpoint?"}
	}
}

func networkReason(err error) reason {
	var (
		no     *refused
		dns    *net.DNSError
		verify *tls.CertificateVerificationError
		record tls.RecordHeaderError
		n      net.Error
		alert  *net.OpError
	)
	switch {
	case errors.As(err, &no):
		return reason{lane.Forbidden, true, "the service's egress rules do not allow this address"}
	case errors.As(err, &dns):
		return reason{lane.DNS, false, "check endpoint or region, and the resolver"}
	case errors.As(err, &verify):
		return reason{lane.TLSVerify, true, "set AWS_CA_BUNDLE to the authority that signed the endpoint's certificate, or check its dates and name"}
	case errors.As(err, &record):
		return reason{lane.TLSVerify, true, "the endpoint does not speak TLS on this port: is it http://?"}
	case errors.As(err, &alert) && alert.Op == "remote error":
		return reason{lane.TLSVerify, true, "the endpoint refused the handshake"}
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &n) && n.Timeout():
		return reason{lane.Timeout, false, "no answer: check the network, and that no firewall drops the packets"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return reason{lane.Connect, false, "nothing listens there: check endpoint"}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errShort):
		return reason{lane.Reset, false, "the connection ended early; it is tried again"}
	default:
		return reason{lane.Connect, false, "check endpoint, route and network"}
	}
}

// errShort is an answer about another number of records than were sent.
var errShort = errors.New("the answer does not tell what became of every record")

var badRecord = regexp.MustCompile(`(?i)\brecords\.(\d+)\.member\.(data|partitionKey)\b`)

// refusedRecord says why the service refused a call of n records as invalid,
// and which record it named, -1 where none. "": it did not say so.
func refusedRecord(err error, n int) (why string, at int) {
	var api smithy.APIError
	var resp *smithyhttp.ResponseError
	if errors.As(err, &resp) && resp.HTTPStatusCode() == http.StatusRequestEntityTooLarge {
		return "the stream refuses it: too large", -1
	}
	if !errors.As(err, &api) || api.ErrorCode() != "ValidationException" && api.ErrorCode() != "InvalidArgumentException" {
		return "", -1
	}
	why = "the stream refuses it: " + api.ErrorCode() + ": " + api.ErrorMessage()
	if m := badRecord.FindStringSubmatch(api.ErrorMessage()); m != nil {
		if i, err := strconv.Atoi(m[1]); err == nil && i >= 1 && i <= n { // counted from 1
			return why, i - 1
		}
	}
	return why, -1
}

// resultError is the failure of a call of which no record was stored.
func resultError(stream string, results []result) *lane.Error {
	first := results[0]
	r, ok := reasons[first.code]
	if !ok {
		r = reason{lane.Reset, false, "the service failed by itself; it is tried again"}
	}
	e := &lane.Error{Verdict: lane.Away, Class: r.class, Park: r.park, Hint: r.hint,
		Err: fmt.Errorf("put records into Kinesis stream %s: none of %d was stored: %s: %s", stream, len(results), first.code, first.message)}
	if r.class == lane.Throttled {
		e.Verdict = lane.Wait
	}
	return e
}

// shardName is how a throttled record's message names its shard.
var shardName = regexp.MustCompile(`shardId-\d+`)
