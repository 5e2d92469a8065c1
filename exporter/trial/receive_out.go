package trial

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"datasync/emitter/emittertest"
)

// output is where whole lines go.
type output struct {
	mu           sync.Mutex
	file         *os.File // nil: w is no regular file and is never synced
	w            io.Writer
	lines, bytes uint64
	err          error // the first failure: nothing is answered after it
}

func openOutput(path string, stdout io.Writer) (*output, error) {
	if path == "" {
		if stdout == nil {
			stdout = os.Stdout
		}
		return &output{w: stdout}, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("receiver: making the output: %w", err)
	}
	if err := cutHalfLine(f); err != nil {
		return nil, errors.Join(fmt.Errorf("receiver: looking at the end of %s: %w", path, err), f.Close())
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return &output{w: f}, err
	}
	return &output{file: f, w: f}, nil
}

// cutHalfLine leaves f at its end, behind a newline.
func cutHalfLine(f *os.File) error {
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return err
	}
	end := fi.Size()
	buf := make([]byte, 64<<10)
	for end > 0 {
		from := max(0, end-int64(len(buf)))
		b := buf[:end-from]
		if _, err := f.ReadAt(b, from); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			end = from + int64(i) + 1
			break
		}
		end = from
	}
	if end < fi.Size() {
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	_, err = f.Seek(end, io.SeekStart)
	return err
}

// write appends whole lines in one call.
func (o *output) write(lines []byte, count int) error {
	if len(lines) == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if _, err := o.w.Write(lines); err != nil {
		o.err = fmt.Errorf("receiver: writing lines: %w", err)
		return o.err
	}
	o.lines += uint64(count)
	o.bytes += uint64(len(lines))
	return nil
}

func (o *output) counts() (lines, bytes uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lines, o.bytes
}

// sync returns when everything written before is on disk.
func (o *output) sync() error {
	o.mu.Lock()
	err := o.err
	o.mu.Unlock()
	if err != nil || o.file == nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.err = fmt.Errorf("receiver: syncing: %w", err)
		return o.err
	}
	return nil
}

func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	return errors.Join(o.sync(), o.file.Close())
}

// cutLines appends the whole lines of b to dst.
func cutLines(dst, b []byte) (lines []byte, used, count int, err error) {
	end := bytes.LastIndexByte(b, '\n') + 1
	return append(dst, b[:end]...), end, bytes.Count(b[:end], []byte{'\n'}), nil
}

// cutFrames appends the messages of b's whole frames ("LENGTH SP MESSAGE") to
// dst, a line each.
func cutFrames(dst, b []byte) (lines []byte, used, count int, err error) {
	for {
		n, head := 0, 0
		for head < len(b)-used && b[used+head] >= '0' && b[used+head] <= '9' && head < 8 {
			n = n*10 + int(b[used+head]-'0')
			head++
		}
		switch at := used + head; {
		case at == len(b):
			return dst, used, count, nil
		case head == 0 || b[at] != ' ' || b[used] == '0' || n > maxLine:
			return dst, used, count, fmt.Errorf("%.16q is no octet-counted frame", b[used:])
		case len(b)-at-1 < n:
			return dst, used, count, nil
		default:
			message := bytes.TrimSuffix(b[at+1:at+1+n], []byte{'\n'})
			dst = append(dst, bytes.ReplaceAll(message, []byte{'\n'}, []byte("#012"))...)
			dst = append(dst, '\n')
			used = at + 1 + n
			count++
		}
	}
}

// Certs names the PEM files of throwaway certificates, for 127.0.0.1, ::1 and
// localhost, valid for a day.
type Certs struct {
	CA, Cert, Key         string
	ClientCert, ClientKey string
}

// NewCerts makes certificates in dir, which must exist.
func NewCerts(dir string) (Certs, error) {
	s, err := emittertest.WriteCerts(dir)
	if err != nil {
		return Certs{}, fmt.Errorf("making trial certificates in %s: %w", dir, err)
	}
	return Certs{CA: s.CA, Cert: s.ServerCert, Key: s.ServerKey, ClientCert: s.ClientCert, ClientKey: s.ClientKey}, nil
}
