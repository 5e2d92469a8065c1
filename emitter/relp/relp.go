// Package relp is the client's side of RELP, the Reliable Event Logging
// Protocol: its frames, the opening, and which records the peer has acknowledged.
package relp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A frame is
//
//	TXNR SP COMMAND SP DATALEN [SP DATA] LF
//
// with transactions numbered from 1 on each connection, and 0 for what nobody
// asked for (serverclose). The answer to a command carries its number.
const (
	maxTxn     = 999_999_999
	maxCommand = 32
	maxAnswer  = 64 << 10 // no peer has more to say
	offers     = "relp_version=0\nrelp_software=datasync\ncommands=syslog"
)

// The commands.
const (
	cmdOpen        = "open"
	cmdSyslog      = "syslog"
	cmdAnswer      = "rsp"
	cmdClose       = "close"
	cmdServerClose = "serverclose"
)

// ErrProtocol is wrapped by errors about a peer that does not speak RELP as it should.
var ErrProtocol = errors.New("not RELP")

// ErrServerClose is a peer that says that it ends the connection.
var ErrServerClose = errors.New("the receiver closes the connection (serverclose)")

// Frame is one frame.
type Frame struct {
	Txn     int
	Command string
	Data    []byte
}

// AppendFrame appends a frame to dst.
func AppendFrame(dst []byte, txn int, command string, data []byte) []byte {
	dst = strconv.AppendInt(dst, int64(txn), 10)
	dst = append(dst, ' ')
	dst = append(dst, command...)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(len(data)), 10)
	if len(data) > 0 {
		dst = append(dst, ' ')
		dst = append(dst, data...)
	}
	return append(dst, '\n')
}

// Read reads one frame of at most most bytes of data. At the end of the stream
// between two frames the error is io.EOF.
func Read(r *bufio.Reader, most int) (f Frame, err error) {
	if f.Txn, _, err = number(r, true); err != nil {
		return f, err
	}
	for {
		c, err := r.ReadByte()
		if err != nil {
			return f, within(err)
		}
		if c == ' ' && f.Command != "" {
			break
		}
		if c < 'a' || c > 'z' || len(f.Command) == maxCommand {
			return f, fmt.Errorf("%w: a command with byte %q behind %q", ErrProtocol, c, f.Command)
		}
		f.Command += string(c)
	}
	n, end, err := number(r, false)
	if err != nil {
		return f, err
	}
	if n > most {
		return f, fmt.Errorf("%w: a frame of %d bytes", ErrProtocol, n)
	}
	if end == ' ' {
		f.Data = make([]byte, n)
		if _, err := io.ReadFull(r, f.Data); err != nil {
			return f, within(err)
		}
		if end, err = r.ReadByte(); err != nil {
			return f, within(err)
		}
	}
	if end != '\n' {
		return f, fmt.Errorf("%w: a frame that does not end with a newline", ErrProtocol)
	}
	return f, nil
}

// number reads a number of up to nine digits and the byte behind it, which is a
// space or, unless it is the first of a frame, a newline.
func number(r *bufio.Reader, first bool) (n int, end byte, err error) {
	for digits := 0; ; digits++ {
		c, err := r.ReadByte()
		switch {
		case err != nil && first && digits == 0:
			return 0, 0, err
		case err != nil:
			return 0, 0, within(err)
		case c >= '0' && c <= '9' && digits < 9:
			n = n*10 + int(c-'0')
		case digits > 0 && (c == ' ' || c == '\n' && !first):
			return n, c, nil
		default:
			return 0, 0, fmt.Errorf("%w: byte %q in a number", ErrProtocol, c)
		}
	}
}

// within is the end of the stream inside a frame.
func within(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// code is an answer's code and what it says besides.
func code(data []byte) (n int, text string) {
	first, _, _ := strings.Cut(string(data), "\n")
	head, rest, _ := strings.Cut(first, " ")
	n, err := strconv.Atoi(head)
	if err != nil {
		return 0, first
	}
	return n, rest
}

// Open opens a session: both sides say what they can. It waits for the answer.
func Open(r *bufio.Reader, w io.Writer) (*Session, error) {
	if _, err := w.Write(AppendFrame(nil, 1, cmdOpen, []byte(offers))); err != nil {
		return nil, err
	}
	f, err := Read(r, maxAnswer)
	switch {
	case err != nil:
		return nil, err
	case f.Command == cmdServerClose:
		return nil, ErrServerClose
	case f.Command != cmdAnswer || f.Txn != 1:
		return nil, fmt.Errorf("%w: %s %d in answer to open", ErrProtocol, f.Command, f.Txn)
	}
	if n, text := code(f.Data); n != 200 {
		return nil, &Rejection{Code: n, Text: text}
	}
	if !takesSyslog(string(f.Data)) {
		return nil, fmt.Errorf("%w: the receiver does not offer the command syslog", ErrProtocol)
	}
	return newSession(), nil
}

// takesSyslog says whether the peer's offers hold the command that carries records.
func takesSyslog(offers string) bool {
	for _, line := range strings.Split(offers, "\n") {
		if list, ok := strings.CutPrefix(line, "commands="); ok {
			for _, c := range strings.Split(list, ",") {
				if c == cmdSyslog {
					return true
				}
			}
		}
	}
	return false
}
