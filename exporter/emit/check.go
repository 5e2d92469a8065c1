package emit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"datasync/emitter"
	"datasync/exporter/check"
	"datasync/exporter/lane"
)

// Check tries the addresses of a sink out, each with one line, which holds the
// event named id, and says whether the sink would work: one address is enough.
// The line stays with the receiver.
func Check(ctx context.Context, o emitter.Options, line []byte, id string, r *check.Run) bool {
	if !r.Do("certificate", func() check.Step { return certificate(&o.TLS) }) {
		return false
	}
	works := false
	for _, a := range o.Addresses {
		c := &checking{o: o, address: a, run: r}
		if r.Do(firsts[o.Confirm], func() check.Step { return c.first(ctx) }) &&
			r.Do("write", func() check.Step { return c.write(ctx, line, id) }) {
			works = true
		}
	}
	return works
}

// checking is an address that is tried out.
type checking struct {
	o       emitter.Options
	address string
	run     *check.Run
	answer  emitter.Answer
}

// certificate is our own, which the receiver may ask for.
func certificate(t *emitter.TLS) check.Step {
	own, err := t.Certificate()
	switch {
	case err != nil:
		return check.Step{Err: laneError(err)}
	case own == nil:
		return check.Step{Seen: "none of our own is set (tls.cert), so the receiver must not ask for one"}
	}
	return check.Step{Seen: "ours is " + check.Certificate(own), Note: check.EndsSoon(own)}
}

// firsts are the names of what an emitter begins with.
var firsts = map[emitter.Confirm]string{emitter.Drain: "drain", emitter.Window: "stay", emitter.Protocol: "open"}

// first is what an emitter begins with.
func (c *checking) first(ctx context.Context) check.Step {
	o := c.o
	o.Control = c.run.Control(o.Control)
	answer, err := emitter.Probe(c.run.Trace(ctx), o, c.address, func(began time.Time, s tls.ConnectionState, err error) {
		c.run.Handshake(began, s, err)
	})
	c.answer = answer
	switch {
	case err != nil:
		return check.Step{Err: laneError(err)}
	case c.o.Confirm == emitter.Window:
		return check.Step{Note: true, Seen: c.address + " keeps the connection: confirm: window, so lines count once its kernel has had them for a time, which is no proof that it read them"}
	case c.o.Confirm == emitter.Protocol:
		return check.Step{Seen: c.address + " opens a RELP session: confirm: protocol, so it acknowledges each record itself"}
	case answer == emitter.AnswerFIN:
		return check.Step{Note: true, Seen: c.address + " answers with a bare end of the stream: confirm: weak, so lines that it reads while it is killed may be lost"}
	}
	return check.Step{Seen: c.address + " answers with close_notify: confirm: drain, so that it proves what it has read"}
}

// writeTimeout is longer than an emitter waits for a connection and a drain.
const writeTimeout = time.Minute

// write sends a line as the sink does and waits for the proof that it was read.
func (c *checking) write(ctx context.Context, line []byte, id string) check.Step {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	o := c.o
	o.Addresses, o.Learned = []string{c.address}, map[string]emitter.Answer{c.address: c.answer}
	o.Events.OnState = func(s emitter.State) {
		if s.Reason != "" && !s.Stalled { // it would be tried again for ever
			cancel()
		}
	}
	client, err := emitter.New(o)
	if err != nil {
		return check.Step{Err: &lane.Error{Class: lane.Invalid, Park: true, Err: fmt.Errorf("start the emitter: %w", err)}}
	}
	defer client.Close()
	client.Offer(line)
	if err := client.Flush(ctx); err != nil {
		return check.Step{Err: sendError(client.Status(), err)}
	}
	what := map[emitter.Confirm]string{emitter.Drain: "was read", emitter.Window: "was taken by the receiver's kernel", emitter.Protocol: "was acknowledged"}[c.o.Confirm]
	return check.Step{Seen: fmt.Sprintf("a line of %d bytes %s (event_id %s); it stays with the receiver", len(line), what, id)}
}

// sendError is why a flush did not end well.
func sendError(s emitter.Status, err error) *lane.Error {
	var cause *emitter.Error
	switch {
	case errors.As(err, &cause):
		return laneError(cause)
	case s.Reason != "" && s.Err != nil:
		return asLane(s.Reason, s.Hint, s.Err)
	}
	return asLane(emitter.Timeout, "the receiver took the line and does not prove that it read it: look at its load and its log", err)
}

// laneError is an emitter's error as lanes tell it.
func laneError(e *emitter.Error) *lane.Error { return asLane(e.Class, e.Hint, e) }

// asLane judges what stands in a connection's way.
func asLane(class emitter.Class, hint string, cause error) *lane.Error {
	e := &lane.Error{Verdict: lane.Away, Class: lane.Class(class), Hint: hint, Err: cause}
	switch e.Class {
	case lane.TLSVerify, lane.TLSClientCert, lane.Auth, lane.Forbidden:
		e.Park = true
	}
	return e
}
