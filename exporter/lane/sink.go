package lane

import (
	"context"
	"datasync/exporter/state"
	"datasync/feeds/journal"
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
	// Differs: what is stored under Key by the same ID may have other bytes (an
	// older encoder made it, or the journal lost part of the range since); the
	// ID decides then.
	Differs bool
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

// Segment is a range of one lane that went out over a stream together.
type Segment struct {
	Lane     *Lane
	From, To journal.Position
	// Committed is when the newest of its events was committed, ms UTC: what
	// lies behind the segment is no older.
	Committed int64
	Counts    state.Counts
	// Epoch is the stream's when the lane's turn began: what was read before
	// the connection broke must not be sent after it (Runner.Lost).
	Epoch uint64
}

// StreamSink takes the lines of all lanes of one sink over one connection. It
// tells the Runner what became of them: Read, Confirmed, Lost, Room, Trouble.
type StreamSink interface {
	// Room says how many bytes an Offer may have now, most at most, so that nothing
	// is read in vain. 0: fewer than least; Runner.Room follows when there is room.
	Room(least, most int) int
	// Offer hands over a segment's lines, copying them; it never blocks. False:
	// nothing was taken (no room, or a stale epoch), and Runner.Room follows
	// when there is room. Lanes call it concurrently.
	Offer(lines []byte, s Segment) bool
	// Restore is told of what the peer had read and not confirmed before a
	// restart, once for each such lane. False: the connection is in use
	// already, so the lane must offer that again.
	Restore(s Segment) bool
	// Flush waits until the peer has proven to have read all that was offered.
	Flush(ctx context.Context) error
	// Close ends the connection; the Runner hears nothing after it returned.
	Close() error
}

// Stream is a StreamSink and the lanes that share it. Guarded by the Runner's mutex.
type Stream struct {
	Sink StreamSink
	// Chunk is how many bytes of events a lane reads for one offer (one event at
	// least); 0 is 256 KiB. With a third of the sink's buffer, an offer finds room
	// whenever Runner.Room was called, framed lines too, and no sink holds more
	// than its buffer.
	Chunk int
	lanes []*Lane
	epoch uint64
	// trouble is what the connection suffers from now; new lanes share it.
	trouble *Trouble
}

// Trouble is why a stream's connection does not take lines.
type Trouble struct {
	Err     *Error
	Stalled bool      // it stands, but the peer takes nothing
	Retry   time.Time // of the next attempt; zero: none planned
}
