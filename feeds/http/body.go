package httpfeed

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"datasync/feeds/http/firehose"
	"datasync/formats/compress"
)

// progress is how many bytes of a body earn its sender another ReadGrace: who
// sends less in that time (a slow loris) is cut off.
const progress = 64 << 10

// firstRead is how much room a body gets before anything of it has come, and
// then four times what came: a length that is only claimed costs no memory.
const firstRead = minBuffer

// more is how large a buffer should be that holds n bytes and is full.
func (q *request) more(n int) int {
	return max(n+1, min(4*n, int(q.f.o.MaxBody)+1))
}

// read reads and decompresses the body into q.body.
func (q *request) read() *answer {
	r := q.r
	if r.ContentLength > q.f.o.MaxBody && r.Header.Get("Expect") != "" {
		return q.tooLarge("") // the client waits for leave to send; it does not get it
	}
	for {
		if len(q.wire.b) == cap(q.wire.b) {
			if !q.wire.grow(&q.f.memory, max(firstRead, q.more(len(q.wire.b)))) {
				return q.busy()
			}
		}
		n, err := q.pace.Read(q.wire.b[len(q.wire.b):cap(q.wire.b)])
		q.wire.b = q.wire.b[:len(q.wire.b)+n]
		if int64(len(q.wire.b)) > q.f.o.MaxBody {
			return q.tooLarge("")
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return unread(err)
		}
	}
	q.f.counts.bytes.Add(uint64(len(q.wire.b)))
	return q.decode()
}

// unread says why a body could not be read to its end.
func unread(err error) *answer {
	var a *answer
	if errors.Is(err, os.ErrDeadlineExceeded) {
		a = problem(http.StatusRequestTimeout, "the body came too slowly, nothing was kept", "send at least 64 KiB every 10 s, or smaller bodies")
	} else {
		a = problem(http.StatusBadRequest, "the body ended early, nothing was kept: "+err.Error(), "send it again, whole")
	}
	a.close = true
	return a
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// encoding finds out how the body is compressed: by its header, and where there
// is none by its first bytes, which no JSON begins with (CDNs upload objects
// that are compressed in themselves).
func (q *request) encoding() (string, *answer) {
	h := q.r.Header["Content-Encoding"]
	switch {
	case len(h) == 0:
	case len(h) == 1:
		switch strings.ToLower(strings.TrimSpace(h[0])) {
		case "gzip", "x-gzip":
			return "gzip", nil
		case "zstd":
			return "zstd", nil
		case "", "identity":
		default:
			return "", unsupported(h[0])
		}
	default:
		return "", unsupported(strings.Join(h, ", "))
	}
	switch {
	case bytes.HasPrefix(q.wire.b, gzipMagic):
		return "gzip", nil
	case bytes.HasPrefix(q.wire.b, zstdMagic):
		return "zstd", nil
	}
	return "", nil
}

func unsupported(encoding string) *answer {
	return problem(http.StatusUnsupportedMediaType, "Content-Encoding "+quoteShort(encoding)+" is not understood", "send gzip, zstd or no Content-Encoding")
}

// decode makes q.body out of the bytes of the wire.
func (q *request) decode() *answer {
	encoding, a := q.encoding()
	if a != nil || encoding == "" {
		q.body = q.wire.b
		return a
	}
	if len(q.wire.b) == 0 {
		return nil
	}
	select {
	case q.f.decoders <- struct{}{}:
		defer func() { <-q.f.decoders }()
	case <-q.f.work.Done():
		return stopping()
	}
	z, err := compress.NewReader(bytes.NewReader(q.wire.b), encoding, q.f.o.MaxBody)
	if err != nil {
		return q.undecoded(encoding, err)
	}
	defer z.Close()
	for {
		if len(q.plain.b) == cap(q.plain.b) && !q.plain.grow(&q.f.memory, max(firstRead, min(2*len(q.wire.b), int(q.f.o.MaxBody)), q.more(len(q.plain.b)))) {
			return q.busy()
		}
		n, err := z.Read(q.plain.b[len(q.plain.b):cap(q.plain.b)])
		q.plain.b = q.plain.b[:len(q.plain.b)+n]
		if err == io.EOF {
			q.wire.free(&q.f.memory)
			q.body = q.plain.b
			return nil
		}
		if err != nil {
			return q.undecoded(encoding, err)
		}
	}
}

func (q *request) undecoded(encoding string, err error) *answer {
	if errors.Is(err, compress.ErrTooLarge) {
		return q.tooLarge(" once decompressed")
	}
	return problem(http.StatusBadRequest, "the body is not valid "+encoding+", nothing was kept: "+err.Error(), "send it again, whole, with the Content-Encoding it has")
}

// tooLarge answers 413, once up to four times the bound was read off: a client
// that is still sending would otherwise meet a reset and never see the answer.
func (q *request) tooLarge(when string) *answer {
	limit := strconv.FormatInt(q.f.o.MaxBody, 10)
	a := problem(http.StatusRequestEntityTooLarge, "the body is larger than "+limit+" bytes"+when+", nothing was kept", "send smaller batches, or raise the feed's max_body")
	a.drain = true
	return a
}

// recognize sees whether the request is a Firehose delivery.
func (q *request) recognize() *answer {
	id := q.r.Header[firehose.RequestID]
	switch {
	case len(id) == 0 || id[0] == "":
		return nil
	case len(id[0]) > firehose.MaxID:
		return problem(http.StatusBadRequest, firehose.RequestID+" is longer than 256 bytes", "send the id of the delivery, a GUID")
	}
	q.delivery = id[0]
	return nil
}

// deliver takes the records of a delivery, once however often it comes: the id
// is its idempotency key. The body as sent says when it was sent, so the records
// are what a repeat is known by.
func (q *request) deliver() *answer {
	data, ends, err := firehose.Decode(q.body)
	if err != nil {
		return problem(http.StatusBadRequest, err.Error()+", nothing was kept", "send the body of Firehose's HTTP endpoint delivery 1.0, or leave out "+firehose.RequestID)
	}
	q.body, q.ends = data, ends
	return q.once("firehose " + q.delivery)
}

// delivered is an answer in the words of Firehose.
func (q *request) delivered(a *answer) *answer {
	var wrong struct{ Error, Hint string }
	if a.status != http.StatusOK {
		// It is ours: it can be read.
		_ = json.Unmarshal(a.body, &wrong)
		wrong.Error = cmp.Or(wrong.Error, http.StatusText(a.status)) + ": " + wrong.Hint
	}
	told := *a
	told.body = firehose.AppendAnswer(nil, q.delivery, q.f.o.Now().UnixMilli(), wrong.Error)
	return &told
}

func (q *request) busy() *answer {
	return problem(http.StatusServiceUnavailable, "too many bodies are in memory already, nothing was kept", "send again after the seconds in Retry-After").again(1)
}

// drainOff reads on what is left of the body, four times the bound in all at
// most. A client that waits for "100 Continue" sends nothing, so nothing is read.
func (q *request) drainOff() {
	if q.r.Header.Get("Expect") != "" && q.pace.got == 0 {
		return
	}
	q.wire.free(&q.f.memory)
	q.plain.free(&q.f.memory)
	// Whatever ends this, the answer is tried.
	_, _ = io.CopyN(io.Discard, &q.pace, 4*q.f.o.MaxBody-q.pace.got)
}

// pace reads a body and gives its sender ReadGrace, and another for each 64 KiB.
type pace struct {
	body   io.Reader
	w      http.ResponseWriter
	grace  time.Duration
	begun  bool
	got    int64
	earned int64 // got at the last extension
}

// Read reads from the body.
func (p *pace) Read(b []byte) (int, error) {
	if !p.begun {
		// net/http counts a connection's first request from when it was opened:
		// of one that was opened ahead, next to nothing may be left.
		p.begun = true
		p.extend()
	}
	n, err := p.body.Read(b)
	p.got += int64(n)
	if err == nil && p.got-p.earned >= progress {
		p.earned = p.got
		p.extend()
	}
	return n, err
}

func (p *pace) extend() {
	if d, ok := p.w.(interface{ SetReadDeadline(time.Time) error }); ok {
		// It fails only on a connection that is gone, as the next read says.
		_ = d.SetReadDeadline(time.Now().Add(p.grace))
	}
}
