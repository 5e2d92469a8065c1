package lane

import "time"

// State is how a lane is, as a person sees it.
type State string

// The states.
const (
	Running   State = "running"
	Waiting   State = "waiting"   // back-off after a failure
	Suspended State = "suspended" // the destination is away: retried for ever, slowly
	Parked    State = "parked"    // only a person can mend it: retried rarely, loudly
	Paused    State = "paused"    // by a person, or because its sink is no longer configured
)

// happening is what can happen to a lane's state.
type happening uint8

const (
	delivered  happening = iota // the destination took something, or a turn found nothing wrong
	failed                      // a delivery failed, or was asked to wait
	failedLong                  // it failed, and has for suspendAfter
	hopeless                    // it failed in a way that hammering does not mend
	pause                       // by a person
	resume                      // by a person
)

// moves is every transition that a delivery makes, one row a state. A person's
// pause, its end and a changed sink set the state outright (Runner.settle).
var moves = map[State]map[happening]State{
	Running:   {delivered: Running, failed: Waiting, failedLong: Suspended, hopeless: Parked},
	Waiting:   {delivered: Running, failed: Waiting, failedLong: Suspended, hopeless: Parked},
	Suspended: {delivered: Running, failed: Suspended, failedLong: Suspended, hopeless: Parked},
	Parked:    {delivered: Running, failed: Waiting, failedLong: Suspended, hopeless: Parked},
	// What was under way when a person paused the lane may still end.
	Paused: {delivered: Paused, failed: Paused, failedLong: Paused, hopeless: Paused},
}

const (
	// suspendAfter is how long a lane fails before it counts as suspended.
	suspendAfter = time.Minute
	// firstRetry is the first back-off; it doubles up to the sink's retryMax.
	firstRetry = 500 * time.Millisecond
	// retryMax is the longest back-off where the sink names none.
	retryMax = 30 * time.Second
	// parkedRetry is how often a parked lane tries by itself.
	parkedRetry = 5 * time.Minute
)

// Status is a lane's state and why.
type Status struct {
	State State
	Class Class
	// Message is the last failure, with its hint; empty while all is well.
	Message string
	// Since is when State began, ms UTC.
	Since int64
	// NextRetry is when the lane tries again by itself, ms UTC; 0: nothing is due.
	NextRetry int64

	failures     int
	failingSince int64
}

// becomes moves the status; it says whether State changed.
func (s *Status) becomes(h happening, now int64) bool {
	to := moves[s.State][h]
	if h == delivered && s.State != Paused {
		s.Class, s.Message, s.NextRetry = "", "", 0
		s.failures, s.failingSince = 0, 0
	}
	if to == s.State {
		return false
	}
	s.State, s.Since = to, now
	return true
}

// fail moves the status after a failed delivery and sets when to try again.
// jitter is in [0,1). It says whether State changed.
func (s *Status) fail(e *Error, now int64, jitter float64) bool {
	if s.State == Paused { // what was under way may still fail; the pause stays what is shown
		return false
	}
	s.Class, s.Message = e.Class, e.Error()
	if s.failures == 0 {
		s.failingSince = now
	}
	s.failures++
	s.NextRetry = now + backoff(s.failures, e, jitter).Milliseconds()
	switch {
	case e.Park:
		return s.becomes(hopeless, now)
	case now-s.failingSince >= suspendAfter.Milliseconds():
		return s.becomes(failedLong, now)
	default:
		return s.becomes(failed, now)
	}
}

// backoff is how long to wait after the n-th failure in a row.
func backoff(n int, e *Error, jitter float64) time.Duration {
	d := firstRetry << min(n-1, 20)
	switch {
	case e.Verdict == Wait && e.After > 0:
		d = e.After
	case e.Park:
		d = min(d*8, parkedRetry)
	default:
		d = min(d, retryMax)
	}
	return d/2 + time.Duration(float64(d/2)*jitter) + 1
}
