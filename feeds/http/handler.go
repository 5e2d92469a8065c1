package httpfeed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"datasync/failpoint"
	"datasync/feeds"
	"datasync/feeds/adapt"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
	"datasync/schemas"

	"golang.org/x/time/rate"
)

// request is the state of one request; they are used again, so that a small
// request costs little beyond net/http's own.
type request struct {
	f     *Feed
	r     *http.Request
	w     http.ResponseWriter
	pace  pace
	wire  buffer // as sent
	plain buffer // decompressed
	body  []byte // one of the two
	// delivery is the id of a Firehose delivery, "" where it is none; body holds
	// its records then, and ends says where each ends.
	delivery string
	ends     []int
	format   string
	tenant   feeds.TenantID
	limiter  *rate.Limiter // of the tenant, where it has a quota
	at       time.Time     // when it was asked
	out      []byte        // the answer
	ans      answer
	sub      intake.Request
	names    places
	values   func(yield func(feeds.Record) bool) // q.records, bound once
}

var requests = sync.Pool{New: func() any {
	q := new(request)
	q.values = q.records
	return q
}}

// ServeHTTP answers one request.
func (f *Feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.counts.inFlight.Add(1)
	q := requests.Get().(*request)
	q.f, q.r, q.w = f, r, w
	q.pace = pace{body: r.Body, w: w, grace: f.o.ReadGrace}
	defer func() { // also where an adapter panics: the memory must not stay taken
		f.counts.inFlight.Add(-1)
		q.wire.free(&f.memory)
		q.plain.free(&f.memory)
		*q = request{values: q.values, out: q.out[:0], names: places{buf: q.names.buf[:0]}}
		if cap(q.out) <= 64<<10 {
			requests.Put(q)
		}
	}()
	a := q.serve()
	if q.delivery != "" {
		a = q.delivered(a)
	}
	if a.drain {
		q.drainOff()
	}
	f.counts.answered(a.status)
	a.send(w)
}

// serve decides on one request, cheapest checks first; the body is read only
// for who may send it.
func (q *request) serve() *answer {
	f, r := q.f, q.r
	a := q.recognize()
	if a != nil {
		return a
	}
	rt, a := f.route(r)
	if a != nil {
		return a
	}
	q.format = rt.format
	if q.tenant, a = f.authorize(r, rt); a != nil {
		return a
	}
	if a = f.ready(); a != nil {
		return a
	}
	if a = q.admit(); a != nil {
		return a
	}
	if a = q.read(); a != nil {
		return a
	}
	if isProbe(q.format, q.body) {
		return q.result(&intake.Result{})
	}
	if !f.o.Formats(q.format) {
		return f.unknownFormat(q.format)
	}
	if q.delivery != "" {
		return q.deliver()
	}
	if a = q.checkBody(); a != nil {
		return a
	}
	if key := r.Header["Idempotency-Key"]; len(key) > 0 && key[0] != "" {
		return q.once(key[0])
	}
	name := append(append(q.names.buf[:0], r.RemoteAddr...), ' ')
	name = strconv.AppendInt(append(append(name, f.started...), '-'), int64(f.counts.named.Add(1)), 36)
	q.names.begin(name)
	return q.submit(nil)
}

// admit refuses who is past the quota of events per second.
func (q *request) admit() *answer {
	if q.f.o.Rate == nil {
		return nil
	}
	perSecond := q.f.o.Rate(q.tenant)
	if perSecond <= 0 || q.tenant == "" {
		return nil
	}
	q.at = q.f.o.Now()
	var wait int
	if q.limiter, wait = q.f.rates.admit(q.tenant, perSecond, q.at); wait == 0 {
		return nil
	}
	return problem(http.StatusTooManyRequests, "tenant "+string(q.tenant)+" is past its quota of events per second, nothing was kept",
		"send again after the seconds in Retry-After, or raise quota.events_per_second").again(wait)
}

// ready refuses requests while nothing can be taken.
func (f *Feed) ready() *answer {
	if f.stopping.Load() {
		return stopping()
	}
	if f.o.Ready != nil {
		if err := f.o.Ready(); err != nil {
			return f.refused(err)
		}
	}
	return nil
}

func stopping() *answer {
	a := problem(http.StatusServiceUnavailable, errStopping.Error()+", nothing was kept", "send again after the seconds in Retry-After").again(1)
	a.close = true
	return a
}

// refused makes an answer of why nothing was kept.
func (f *Feed) refused(err error) *answer {
	if errors.Is(err, context.Canceled) || f.stopping.Load() {
		return stopping()
	}
	f.trouble.begin(f.o.Name, err)
	return problem(http.StatusServiceUnavailable, "nothing was kept: "+err.Error(), "send again after the seconds in Retry-After").again(5)
}

// checkBody refuses bodies that cannot hold events at all.
func (q *request) checkBody() *answer {
	body := bytes.TrimLeft(q.body, " \t\r\n")
	if len(body) == 0 {
		return problem(http.StatusBadRequest, "the body is empty", "send one JSON object, a JSON array of them, or one a line")
	}
	if c := body[0]; c != '{' && c != '[' {
		t, _, _ := strings.Cut(q.r.Header.Get("Content-Type"), ";")
		switch strings.ToLower(strings.TrimSpace(t)) {
		case "application/x-www-form-urlencoded", "multipart/form-data":
			return problem(http.StatusUnsupportedMediaType, "the body is a form", "send the events as JSON, or lines that are not with Content-Type: text/plain")
		}
	}
	return nil
}

// records yields the records of the body: the values in it, or where the
// format's belong together (adapt.Whole) all of it at once. What is no JSON goes
// on as it stands: intake rejects it with the reason and keeps it in the
// quarantine.
func (q *request) records(yield func(feeds.Record) bool) {
	n := 0
	take := func(v []byte) bool {
		n++
		return yield(feeds.Record{Value: v, Held: true, Position: q.names.of(n - 1)})
	}
	if q.delivery == "" {
		q.recordsOf(q.body, take)
		return
	}
	from := 0
	for _, to := range q.ends {
		if part := q.body[from:to]; len(bytes.TrimSpace(part)) > 0 && !q.recordsOf(part, take) {
			return
		}
		from = to
	}
}

// recordsOf yields the records of a body, or of a record of a delivery; false
// where it is to stop.
func (q *request) recordsOf(body []byte, yield func(value []byte) bool) bool {
	if adapt.Whole(q.format) || q.format == "canonical" { // which takes lines and arrays apart in the pass that judges them
		return yield(body)
	}
	n := 0
	judged, lines := false, false // whether the body is taken line by line; asked once: it reads the first line
	for v, err := range schemas.Values(body) {
		if err != nil {
			if !judged {
				judged, lines = true, byLine(body)
			}
			v = broken(body, n, lines, err)
		}
		if !yield(v) {
			return false
		}
		n++
	}
	return true
}

// places names the records of a request for the quarantine: who sent it, which
// request it was and the index within it, so that no two records share a name.
// A request with an Idempotency-Key is named by that instead: sent again after a
// crash, its records go by the same names.
type places struct {
	buf    []byte
	prefix int // bytes of buf
	chunk  string
	ends   [64]int
	from   int // index of the first in chunk
	have   int
}

func (p *places) begin(prefix []byte) { p.buf, p.prefix, p.have, p.from = prefix, len(prefix), 0, 0 }

// of gives the name of record n, called with 0, 1, 2 …: one string is made for
// the first and then one for each 64.
func (p *places) of(n int) string {
	if n == p.from+p.have {
		p.from, p.have = n, min(1+n, len(p.ends))
		b := p.buf
		for i := range p.have {
			if i > 0 {
				b = append(b, p.buf[:p.prefix]...)
			}
			b = strconv.AppendInt(append(b, '#'), int64(n+i), 10)
			p.ends[i] = len(b)
		}
		p.chunk, p.buf = string(b), b[:p.prefix]
	}
	i, start := n-p.from, 0
	if i > 0 {
		start = p.ends[i-1]
	}
	return p.chunk[start:p.ends[i]]
}

// byLine says whether schemas.Values takes a body line by line.
func byLine(body []byte) bool {
	first, _, more := bytes.Cut(bytes.TrimLeft(body, " \t\r\n"), []byte{'\n'})
	return more && schemas.Valid(first)
}

// broken finds what the error of schemas.Values behind n values stands for: its
// line where the body is taken line by line, else all behind the last good value.
func broken(body []byte, n int, lines bool, err error) []byte {
	var p *schemas.Problem
	if lines && errors.As(err, &p) && p.Offset <= len(body) {
		from := bytes.LastIndexByte(body[:p.Offset], '\n') + 1
		line, _, _ := bytes.Cut(body[from:], []byte{'\n'})
		return line
	}
	for v := range schemas.Values(body) {
		if n--; n < 0 {
			break
		}
		// Only blanks, commas and brackets lie before it, so this finds v itself.
		body = bytes.TrimLeft(body[bytes.Index(body, v)+len(v):], " \t\r\n,")
	}
	return body
}

// submit hands the body to intake and answers when it is durable.
func (q *request) submit(facts func(*intake.Result) []journal.Fact) *answer {
	f := q.f
	q.sub = intake.Request{Format: q.format, Tenant: q.tenant, Records: q.values, Facts: facts}
	// promise: nothing is answered with 200 before Submit says that it is durable.
	res, err := f.o.Intake.Submit(f.work, &q.sub)
	if err != nil {
		return f.refused(err)
	}
	failpoint.At(failpoint.Answering)
	f.trouble.end(f.o.Name)
	rejected := len(res.Rejected) + res.More
	charge(q.limiter, res.Accepted+rejected+res.Suppressed, q.at)
	f.counts.accepted.Add(uint64(res.Accepted))
	f.counts.rejected.Add(uint64(rejected))
	return q.result(&res)
}

// result answers with what became of the events: 400 where none was accepted
// and some were refused. Firehose would send those again and again, though they
// lie in the quarantine.
func (q *request) result(res *intake.Result) *answer {
	q.out = appendResult(q.out[:0], res)
	q.ans = answer{status: http.StatusOK, body: q.out}
	if res.Accepted == 0 && len(res.Rejected) > 0 && q.delivery == "" {
		q.ans.status = http.StatusBadRequest
	}
	return &q.ans
}

// hasProbe says whether a format's senders try the address before they use it.
func hasProbe(format string) bool {
	return format == "deepfence" || format == "cloudflare-firewall" || format == "cloudflare-http"
}

// isProbe recognizes what they try it with: Deepfence {"text":"Test message …"},
// Cloudflare's Logpush {"content":"tests"}. It holds no event.
func isProbe(format string, body []byte) bool {
	if !hasProbe(format) || len(body) > 1<<10 {
		return false
	}
	var probe map[string]json.RawMessage
	if json.Unmarshal(body, &probe) != nil || len(probe) != 1 {
		return false
	}
	name := "content"
	if format == "deepfence" {
		name = "text"
	}
	v := probe[name]
	return len(v) > 0 && v[0] == '"'
}
