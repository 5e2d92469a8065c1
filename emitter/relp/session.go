package relp

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
)

// Window is how many records may be on the way without an answer, as librelp has it.
const Window = 128

// Digest stands for a record's bytes within one process.
type Digest uint64

var seed = maphash.MakeSeed()

// DigestOf is the digest of a record.
func DigestOf(record []byte) Digest { return Digest(maphash.Bytes(seed, record)) }

// Rejection is an answer that is not 200.
type Rejection struct {
	Code   int
	Text   string
	Record Digest // of the record; 0 where the session itself was refused
	// Vouched: the peer acknowledged other records of the same session, so it
	// is this one that it does not want.
	Vouched bool
}

// Error says what the peer said.
func (r *Rejection) Error() string { return fmt.Sprintf("the receiver answered %d %s", r.Code, r.Text) }

// Refusal is a record that is not sent because the peer will never take it.
type Refusal struct {
	Record []byte
	Reason string
	At     uint64 // as given to Skip
}

// ErrEnded is returned for a session that takes no more records.
var ErrEnded = errors.New("the RELP session has ended")

// Session numbers the records of one connection and knows which of them are
// acknowledged. One goroutine sends, another reads the answers.
type Session struct {
	mu    sync.Mutex
	room  sync.Cond
	txn   int
	out   []record // in the order sent, from the first that is not settled
	asked int      // of out, those that an answer is owed for
	acked int      // over the session's life

	settled  uint64 // the mark of the last record settled
	refused  []Refusal
	rejected *Rejection
	ended    bool
}

type record struct {
	txn     int // 0: not sent
	mark    uint64
	done    bool
	digest  Digest
	refusal *Refusal
}

func newSession() *Session {
	s := &Session{txn: 1} // open was the first
	s.room.L = &s.mu
	return s
}

// Room waits, if told to, until a record may be sent. It is false where none
// may now; the error is the session's end.
func (s *Session) Room(wait bool) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.ended, s.rejected != nil:
			return false, ErrEnded
		case s.asked < Window:
			return true, nil
		case !wait:
			return false, nil
		}
		s.room.Wait()
	}
}

// Append appends the record's frame to dst. mark is what Settled will say when
// the record and all before it are settled. There must be room.
func (s *Session) Append(dst, data []byte, mark uint64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.txn++; s.txn > maxTxn {
		s.txn = 1
	}
	s.out = append(s.out, record{txn: s.txn, mark: mark, digest: DigestOf(data)})
	s.asked++
	return AppendFrame(dst, s.txn, cmdSyslog, data)
}

// Skip takes the place of a record that is not sent. The Refusal is the
// session's from here on.
func (s *Session) Skip(r *Refusal, mark uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = append(s.out, record{mark: mark, done: true, refusal: r})
	s.settle()
}

// AppendClose appends the end of the session to dst.
func (s *Session) AppendClose(dst []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.txn++; s.txn > maxTxn {
		s.txn = 1
	}
	return AppendFrame(dst, s.txn, cmdClose, nil)
}

// Next reads the peer's next frame and takes it in. It returns a *Rejection once
// a record was rejected and all others are answered, ErrServerClose where the
// peer ends the session, and the stream's own errors.
func (s *Session) Next(r *bufio.Reader) error {
	f, err := Read(r, maxAnswer)
	switch {
	case err != nil:
		return err
	case f.Command == cmdServerClose:
		return ErrServerClose
	case f.Command != cmdAnswer:
		return fmt.Errorf("%w: command %s from the receiver", ErrProtocol, f.Command)
	}
	return s.answered(f)
}

func (s *Session) answered(f Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := 0
	for at < len(s.out) && (s.out[at].txn != f.Txn || s.out[at].done) {
		at++
	}
	if at == len(s.out) {
		if s.ended {
			return nil // the answer to close
		}
		return fmt.Errorf("%w: an answer to transaction %d, which is not under way", ErrProtocol, f.Txn)
	}
	s.asked--
	if n, text := code(f.Data); n == 200 {
		// promise: a record counts as taken when the peer says so, and all before it are.
		s.out[at].done = true
		s.acked++
		s.settle()
	} else {
		s.out[at].txn = 0 // answered, and not taken
		if s.rejected == nil {
			s.rejected = &Rejection{Code: n, Text: text, Record: s.out[at].digest}
		}
	}
	s.room.Broadcast()
	if s.rejected != nil && s.asked == 0 {
		return s.rejectedLocked()
	}
	return nil
}

func (s *Session) settle() {
	n := 0
	for ; n < len(s.out) && s.out[n].done; n++ {
		s.settled = s.out[n].mark
		if s.out[n].refusal != nil {
			s.refused = append(s.refused, *s.out[n].refusal)
		}
	}
	s.out = s.out[n:]
}

// Rejected is the first rejection of the session, nil where there was none.
func (s *Session) Rejected() *Rejection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rejected == nil {
		return nil
	}
	return s.rejectedLocked()
}

func (s *Session) rejectedLocked() *Rejection {
	s.rejected.Vouched = s.acked > 0
	return s.rejected
}

// Settled is the mark of the last record that is settled together with all
// before it (0: none), and what was refused among them since the last call.
func (s *Session) Settled() (mark uint64, refused []Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	refused, s.refused = s.refused, nil
	return s.settled, refused
}

// Waiting says that the peer owes answers.
func (s *Session) Waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked > 0
}

// End wakes a sender that waits for room.
func (s *Session) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.room.Broadcast()
}
