package servers

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/integration/harness"
)

// Faulty stands before a store, or a Kinesis, and has a share of all calls
// fail, at random, in any of the ways of Faults, or refuses those it is told to.
// Signatures stay good: it changes no call that
// it hands on, but for the bytes that it damages.
type Faulty struct {
	*httptest.Server
	store string
	http  http.Transport

	mu       sync.Mutex
	rnd      *rand.Rand
	share    float64
	refusing func(path string, body []byte) (status int, code string)
	calls    int
	injected map[string]int
}

// NewFaulty starts one without faults before whatever is at an address of http.
func NewFaulty(t testing.TB, url string, seed uint64) *Faulty {
	t.Helper()
	f := &Faulty{store: strings.TrimPrefix(url, "http://"), rnd: rand.New(rand.NewPCG(seed, 0)), injected: map[string]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(func() { f.http.CloseIdleConnections(); f.CloseClientConnections(); f.Close() })
	return f
}

// Fail sets the share of calls that fail from now on.
func (f *Faulty) Fail(share float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.share = share
}

// Refuse has calls answered with a status and a code where which gives one; nil
// ends that.
func (f *Faulty) Refuse(which func(path string, body []byte) (status int, code string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refusing = which
}

// Count is how many calls there were, how many failed, and in how many ways,
// each named with the number of times.
func (f *Faulty) Count() (calls, faults int, ways string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.injected)) {
		faults += f.injected[name]
		fmt.Fprintf(&b, ", %s %d", name, f.injected[name])
	}
	return f.calls, faults, strings.TrimPrefix(b.String(), ", ")
}

// faulted is one call.
type faulted struct {
	f *Faulty
	w http.ResponseWriter
	r *http.Request
}

// Faults are the ways in which a call can fail, by name.
var Faults = map[string]func(*faulted){
	"500":                   func(c *faulted) { c.refuse(500, "InternalError") },
	"500 after success":     func(c *faulted) { c.done(); c.refuse(500, "InternalError") },
	"503 SlowDown":          func(c *faulted) { c.refuse(503, "SlowDown") },
	"403":                   func(c *faulted) { c.refuse(403, "AccessDenied") },
	"409":                   func(c *faulted) { c.refuse(409, "ConditionalRequestConflict") },
	"412 after success":     func(c *faulted) { c.done(); c.refuse(412, "PreconditionFailed") },
	"504 after success":     func(c *faulted) { c.done(); harness.Pause(2 * time.Second); c.refuse(504, "GatewayTimeout") },
	"silence after success": func(c *faulted) { c.done(); harness.Pause(3 * time.Second); c.cut("") },
	"cut at once":           func(c *faulted) { c.cut("") },
	"cut in the request":    (*faulted).torn,
	"cut in the answer":     func(c *faulted) { c.done(); c.cut("HTTP/1.1 200 O") },
	"slow request":          func(c *faulted) { c.give(&drip{c.r.Body}, nil) },
	"slow answer":           func(c *faulted) { c.give(c.r.Body, func(h http.Header) { harness.Pause(time.Second) }) },
	"a bit flipped":         (*faulted).flipped,
	"wrong checksum": func(c *faulted) {
		c.give(c.r.Body, func(h http.Header) {
			for k := range h {
				if k == "Etag" || strings.HasPrefix(k, "X-Amz-Checksum-") {
					h.Set(k, `"00000000000000000000000000000000"`)
				}
			}
		})
	},
}

// ServeHTTP hands a call on, or has it fail.
func (f *Faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &faulted{f, w, r}
	f.mu.Lock()
	f.calls++
	name := ""
	if f.rnd.Float64() < f.share {
		names := slices.Sorted(maps.Keys(Faults))
		name = names[f.rnd.IntN(len(names))]
		f.injected[name]++
	}
	refusing := f.refusing
	f.mu.Unlock()
	switch {
	case name != "":
		Faults[name](c)
	case refusing != nil:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if status, code := refusing(r.URL.Path, body); status != 0 {
			c.refuse(status, code)
			return
		}
		c.give(bytes.NewReader(body), nil)
	default:
		c.give(r.Body, nil)
	}
}

// ask hands the call on with a body; nil: the store did not answer.
func (c *faulted) ask(body io.Reader) *http.Response {
	out := c.r.Clone(c.r.Context())
	out.URL.Scheme, out.URL.Host, out.RequestURI, out.Body = "http", c.f.store, "", io.NopCloser(body)
	if c.r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	resp, err := c.f.http.RoundTrip(out)
	if err != nil {
		return nil
	}
	return resp
}

// give hands the call on and gives the answer, changed.
func (c *faulted) give(body io.Reader, change func(http.Header)) {
	resp := c.ask(body)
	if resp == nil {
		c.cut("")
		return
	}
	defer resp.Body.Close()
	maps.Copy(c.w.Header(), resp.Header)
	if change != nil {
		change(c.w.Header())
	}
	c.w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(c.w, resp.Body) // a client that has gone wants it no more
}

// done has the store do what it is asked, and keeps the answer back.
func (c *faulted) done() {
	if resp := c.ask(c.r.Body); resp != nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

func (c *faulted) refuse(status int, code string) {
	_, _ = io.Copy(io.Discard, c.r.Body)
	if c.r.Header.Get("X-Amz-Target") != "" { // Kinesis
		c.w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		c.w.WriteHeader(status)
		fmt.Fprintf(c.w, `{"__type":%q,"message":"injected"}`, code)
		return
	}
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.WriteHeader(status)
	fmt.Fprintf(c.w, "<Error><Code>%s</Code><Message>injected</Message></Error>", code)
}

// cut ends the connection, after some text.
func (c *faulted) cut(text string) {
	conn, _, err := c.w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, text)
	_ = conn.Close()
}

// torn ends both connections with half of the body sent.
func (c *faulted) torn() {
	half := io.LimitReader(c.r.Body, max(c.r.ContentLength/2, 0))
	if resp := c.ask(io.MultiReader(half, broken{})); resp != nil {
		resp.Body.Close()
	}
	c.cut("")
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// flipped hands on a body of which one bit is another.
func (c *faulted) flipped() {
	body, err := io.ReadAll(c.r.Body)
	if err != nil {
		return
	}
	if len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	c.give(bytes.NewReader(body), nil)
}

// drip is a body that comes slowly.
type drip struct{ r io.Reader }

func (d *drip) Read(p []byte) (int, error) {
	harness.Pause(10 * time.Millisecond)
	return d.r.Read(p)
}
