package httpfeed

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"datasync/feeds/intake"
)

// answer is what a request is told. Its body is JSON.
type answer struct {
	status int
	body   []byte
	retry  int  // seconds for Retry-After, 0 for none
	allow  bool // name the methods there are
	drain  bool // read the body off first, so that the client sees the answer
	close  bool // the connection cannot be used again
}

// maxAnswer bounds an answer's body in bytes, near enough: a list of rejected
// events that would be longer is cut and the rest counted. It also has to fit
// into a fact.
const maxAnswer = 512 << 10

// problem is an answer that says what is wrong and how to mend it.
func problem(status int, wrong, mend string) *answer {
	b := append([]byte(nil), `{"error":`...)
	b = appendString(b, wrong)
	b = append(b, `,"hint":`...)
	b = appendString(b, mend)
	return &answer{status: status, body: append(b, '}', '\n')}
}

// again makes a problem one that may be tried again after some seconds.
func (a *answer) again(seconds int) *answer {
	a.retry, a.drain = seconds, true
	return a
}

// appendResult appends what became of a request's events.
func appendResult(b []byte, res *intake.Result) []byte {
	b = append(b, `{"accepted":`...)
	b = strconv.AppendInt(b, int64(res.Accepted), 10)
	b = append(b, `,"rejected":[`...)
	start := len(b)
	more := res.More
	for i := range res.Rejected {
		if len(b) > maxAnswer {
			more += len(res.Rejected) - i
			break
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, `{"index":`...)
		b = strconv.AppendInt(b, int64(res.Rejected[i].Index), 10)
		b = append(b, `,"reason":`...)
		b = appendString(b, res.Rejected[i].Reason)
		b = append(b, '}')
	}
	b = append(b, ']')
	if more > 0 {
		b = append(b, `,"rejected_more":`...)
		b = strconv.AppendInt(b, int64(more), 10)
	}
	if res.Suppressed > 0 {
		b = append(b, `,"suppressed":`...)
		b = strconv.AppendInt(b, int64(res.Suppressed), 10)
	}
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			// Marshal of a string does not fail.
			q, _ := json.Marshal(s)
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// quoteShort quotes what a client sent, cut so that answers stay short.
func quoteShort(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strconv.Quote(s)
}

var (
	typeJSON    = []string{"application/json"}
	noSniff     = []string{"nosniff"}
	allowPost   = []string{http.MethodPost}
	closeHeader = []string{"close"}
)

// writeTimeout is how long an answer may take to be read.
const writeTimeout = 30 * time.Second

// send writes the answer. The client may be gone; then there is nobody to tell.
func (a *answer) send(w http.ResponseWriter) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	h["X-Content-Type-Options"] = noSniff
	if a.retry > 0 {
		h["Retry-After"] = []string{strconv.Itoa(a.retry)}
	}
	if a.allow {
		h["Allow"] = allowPost
	}
	if a.close {
		h["Connection"] = closeHeader
	}
	if d, ok := w.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = d.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
}
