package lane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Class is the reason class that a lane shows (contract.md, "A lane shows").
type Class string

// The reason classes.
const (
	DNS           Class = "dns"
	Connect       Class = "connect"
	TLSVerify     Class = "tls-verify"
	TLSClientCert Class = "tls-client-cert"
	Auth          Class = "auth"
	Forbidden     Class = "forbidden"
	NotFound      Class = "not-found"
	Throttled     Class = "throttled"
	Reset         Class = "reset"
	Timeout       Class = "timeout"
	Slow          Class = "slow"
	Full          Class = "full"
	Invalid       Class = "invalid"
)

// Verdict says what a lane does about a delivery error. There are three, no more.
type Verdict uint8

// The verdicts. An error that is no *Error counts as Away.
const (
	// Away: the destination cannot be reached or failed; keep everything, reconnect.
	Away Verdict = iota
	// Wait: the destination asks for a pause (Error.After, 0 = the lane's back-off).
	Wait
	// Refused: the destination will never take these records; quarantine them, go on.
	Refused
)

// Error is a delivery error of a sink, mapped to what the lane does about it.
type Error struct {
	Verdict Verdict
	Class   Class
	After   time.Duration // with Wait
	Park    bool          // with Away: nothing to gain from hammering (credentials, permissions, missing bucket)
	Hint    string        // how to mend it, for the operator
	Err     error
}

// Error is the message with the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v (%s)", e.Err, e.Hint)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// ErrForeign is wrapped by an Error when a drop's key is taken by an object that is not this drop.
var ErrForeign = errors.New("another object has this key")

// Drop is one object to store. Its key is final and its bytes are always the
// same for the same ID.
type Drop struct {
	Key string
	// ID is "<journal id>/<shard>/<tenant>/<sink>/<number>".
	ID     string
	Body   io.ReaderAt
	Size   int64
	SHA256 [32]byte
	// ContentType is for stores that keep one.
	ContentType string
}

// DropSink stores drops. The lanes of one sink call it concurrently, each for
// keys of its own; one lane has one call under way at a time.
type DropSink interface {
	// Put stores the drop so that a reader sees all of it or nothing, durable
	// on return, without replacing an object of another ID. Storing the same
	// drop again is a success. Body belongs to the caller. Errors are *Error;
	// a key held by something else wraps ErrForeign.
	Put(ctx context.Context, d *Drop) error
}
