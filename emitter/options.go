package emitter

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// Options configures a Client. Only Addresses is required.
type Options struct {
	// Addresses are host:port, tried in order at every connect.
	Addresses []string
	// TLS says how the peer is checked and who we are.
	TLS TLS

	DialTimeout  time.Duration // for one address, TCP and TLS together; 0 is 10 s
	RotateEvery  time.Duration // between drains of a busy connection; 0 is 10 s
	RotateBytes  int64         // drain after so many bytes, but not within a second of the last; 0 is 256 MiB
	DrainTimeout time.Duration // wait for the answer to a drain, counted from the peer's ACK of all; 0 is 30 s
	RetryMax     time.Duration // longest pause between attempts to connect; 0 is 30 s
	// Buffer bounds the bytes that wait in memory to be written; 0 is 1 MiB.
	// One Offer larger than that is taken when nothing else waits.
	Buffer int

	// Control is called with each address about to be dialled (after DNS); an
	// error refuses it (egress rules) and shows as reason "forbidden".
	Control func(network, address string, c syscall.RawConn) error

	// Unconfirmed is how many marks of a former life were read but not
	// confirmed: numbering then starts with confirmed at 0 and read at
	// Unconfirmed, so that OnLost(0) and OnConfirmed(Unconfirmed) can speak of
	// them. Any number above 0 will do. Such a client connects at once.
	Unconfirmed uint64
	// Learned is what OnLearned told in a former life, by address.
	Learned map[string]Answer

	Events Events
	Tuning Tuning
}

// TLS is how the client speaks TLS. The files are PEM and looked at again at
// every connect, so that a renewed certificate needs no restart.
type TLS struct {
	CA         string // roots that replace the system's; empty: the system's
	Cert, Key  string // client certificate; empty: none
	ServerName string // name to check and to send; empty: the host of the address
	MinVersion uint16 // 0 is TLS 1.2
	// Config, if set, is called instead of reading the files above, at every
	// connect; ServerName and MinVersion are filled in where it leaves them 0.
	// Returning the same *tls.Config keeps TLS sessions for resumption.
	Config func() (*tls.Config, error)
}

// Tuning holds the times that nobody needs to set but tests. 0 is the default.
type Tuning struct {
	IdleAfter   time.Duration // a connection quiet for so long is drained; 1 s
	Grace       time.Duration // least time between idle drains, in which the peer may store what it read; 5 s
	MinRotate   time.Duration // least time between drains by RotateBytes; 1 s
	HealthEvery time.Duration // between looks at TCP_INFO while bytes are outstanding; 1 s
	StallAfter  time.Duration // a write that makes no progress for so long is a stall; 2 s
	DeadAfter   time.Duration // no ACK for so long with bytes unacknowledged is death; 20 s
	RetryMin    time.Duration // first pause between attempts; 200 ms
}

// Events are the client's calls to its owner. All of them come from one
// goroutine, one at a time, and hold no lock: Offer and Status may be called
// inside, Flush and Close may not. They must not block for long. nil is ignored.
type Events struct {
	// OnRead: the peer has read every byte up to mark. Go on from here after
	// our own restart.
	OnRead func(mark uint64)
	// OnConfirmed: what was read up to mark survived one more rotation; its
	// source may be freed.
	OnConfirmed func(mark uint64)
	// OnLost: everything after from is forgotten, sent or not. Offer refuses
	// until OnLost has returned; then numbering goes on at from, so the next
	// bytes offered must be those that followed mark from. OnRoom comes after it.
	OnLost func(from uint64, err error)
	// OnRoom: Offer refused before and there is room now.
	OnRoom func()
	// OnState is told of every transition.
	OnState func(State)
	// OnLearned: how an address answers a drain; worth keeping for Options.Learned.
	OnLearned func(address string, a Answer)
}

// Answer is how an endpoint answers a drain.
type Answer string

// The answers. AnswerUnknown is an endpoint never drained.
const (
	AnswerUnknown Answer = ""
	AnswerNotify  Answer = "close_notify" // close_notify, then FIN: proof
	AnswerFIN     Answer = "fin"          // a bare FIN: taken, shown as "weak"
	AnswerNone    Answer = "none"         // none: drain cannot confirm, "window" is wanted
)

// State is what the connection is doing, for people.
type State struct {
	Connected bool
	Stalled   bool      // connected, but the peer takes nothing (it is alive: the connection is kept)
	Reason    Class     // why not connected, or why not well; empty when well
	Err       error     // the cause, without the hint
	Hint      string    // how to mend it
	Since     time.Time // of this state's Connected/Stalled/Reason
	NextRetry time.Time // zero: none planned
	Address   string    // the one connected, or tried last
	Weak      bool      // the peer answers drains with a bare FIN only
	Confirm   string    // "drain", "weak", "window" (the peer cannot be confirmed by drain); "" before the first answer
}

// Peer is who the other end is, from the last handshake.
type Peer struct {
	Address, Remote string
	Version, Cipher string
	Subject, Issuer string
	NotAfter        time.Time // of the peer's certificate
	ClientNotAfter  time.Time // of our own; zero without one
	Resumed         bool
}

// Status is a snapshot for people and metrics.
type Status struct {
	State
	// Marks: Offered ≥ Written ≥ Read ≥ Confirmed.
	Offered, Written, Read, Confirmed uint64
	Waiting                           int // bytes in memory, not yet written
	BytesWritten                      uint64
	Connections, Drains, Losses       uint64
	Peer                              Peer
	TCP                               TCP // of the current connection, at its last look
}

// TCP is what the kernel knows of a connection, when last looked at.
type TCP struct {
	Unacked  uint64 // segments sent and not acknowledged
	NotSent  uint64 // bytes in our send queue, not yet sent
	Acked    uint64 // bytes the peer's kernel has
	Window   uint64 // bytes the peer would take now
	Probes   uint64 // probes unanswered
	LastAck  time.Duration
	RTT      time.Duration
	SampleAt time.Time
}

// check is the one place where Options are judged.
func (o *Options) check() error {
	if len(o.Addresses) == 0 {
		return errors.New("emitter: no address")
	}
	for _, a := range o.Addresses {
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("emitter: address %q is not host:port", a)
		}
	}
	if (o.TLS.Cert == "") != (o.TLS.Key == "") {
		return errors.New("emitter: tls: cert and key belong together, one of them is missing")
	}
	if v := o.TLS.MinVersion; v != 0 && (v < tls.VersionTLS12 || v > tls.VersionTLS13) {
		return fmt.Errorf("emitter: tls: minimum version %s: 1.2 and 1.3 are possible", tls.VersionName(v))
	}
	return nil
}

func (o Options) withDefaults() Options {
	or := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	or(&o.DialTimeout, 10*time.Second)
	or(&o.RotateEvery, 10*time.Second)
	or(&o.DrainTimeout, 30*time.Second)
	or(&o.RetryMax, 30*time.Second)
	or(&o.Tuning.IdleAfter, time.Second)
	or(&o.Tuning.Grace, 5*time.Second)
	or(&o.Tuning.MinRotate, time.Second)
	or(&o.Tuning.HealthEvery, time.Second)
	or(&o.Tuning.StallAfter, 2*time.Second)
	or(&o.Tuning.DeadAfter, 20*time.Second)
	or(&o.Tuning.RetryMin, 200*time.Millisecond)
	if o.RotateBytes <= 0 {
		o.RotateBytes = 256 << 20
	}
	if o.Buffer <= 0 {
		o.Buffer = 1 << 20
	}
	if o.TLS.MinVersion == 0 {
		o.TLS.MinVersion = tls.VersionTLS12
	}
	return o
}
