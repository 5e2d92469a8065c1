package httpfeed

import (
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"datasync/feeds"
	"datasync/feeds/intake"
	"datasync/feeds/journal"
	"datasync/schemas"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world stands for intake and journal: it takes JSON objects and keeps facts.
type world struct {
	mu       sync.Mutex
	took     []string
	places   []string // the positions
	last     string   // the last record
	repeats  int
	asked    []intake.Request
	facts    map[string][]byte
	err      error
	suppress string        // values with it are suppressed, where it is not empty
	crash    bool          // keep and then fail: the answer never leaves
	hold     chan struct{} // Submit waits for it, where not nil
	entered  chan struct{} // and says that it came so far
}

func newWorld() *world { return &world{facts: map[string][]byte{}} }

func (w *world) Submit(ctx context.Context, r *intake.Request) (intake.Result, error) {
	if w.hold != nil {
		w.entered <- struct{}{}
		select {
		case <-w.hold:
		case <-ctx.Done():
			return intake.Result{}, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return intake.Result{}, w.err
	}
	var res intake.Result
	i := 0
	for rec := range r.Records {
		w.places, w.last = append(w.places, rec.Position), string(rec.Value)
		for v, err := range schemas.Values(rec.Value) {
			switch {
			case w.suppress != "" && strings.Contains(string(v), w.suppress):
				res.Suppressed++
			case err != nil:
				v = rec.Value
				fallthrough
			case v[0] != '{':
				res.Rejected = append(res.Rejected, intake.Rejection{Index: i, Reason: "not an object: " + string(v[:min(len(v), 20)])})
			default:
				w.took = append(w.took, string(v))
				res.Accepted++
			}
			i++
		}
	}
	if r.Facts != nil {
		w.put(r.Facts(&res))
	}
	w.asked = append(w.asked, intake.Request{Format: r.Format, Tenant: r.Tenant})
	if w.crash {
		return intake.Result{}, feeds.ErrStopped
	}
	return res, nil
}

func (w *world) Repeat(_ context.Context, events int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.repeats += events
	return w.err
}

func (w *world) put(facts []journal.Fact) {
	for _, f := range facts {
		if len(f.Value) == 0 {
			delete(w.facts, f.Key)
		} else {
			w.facts[f.Key] = f.Value
		}
	}
}

func (w *world) PutLater(facts ...journal.Fact) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.put(facts)
}

func (w *world) Fact(key string) ([]byte, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.facts[key]
	return v, ok
}

func (w *world) Facts(prefix string) iter.Seq2[string, []byte] {
	w.mu.Lock()
	all := maps.Clone(w.facts)
	w.mu.Unlock()
	return func(yield func(string, []byte) bool) {
		for k, v := range all {
			if strings.HasPrefix(k, prefix) && !yield(k, v) {
				return
			}
		}
	}
}

func (w *world) taken() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.took)
}

// keys are acme's, beta's and one of nobody in particular.
type keys struct{}

func (keys) ByKey(k string) (feeds.TenantID, bool) {
	id, ok := map[string]feeds.TenantID{"ka": "acme", "kb": "beta", "any": ""}[k]
	return id, ok
}

func (keys) Known(id feeds.TenantID) bool { return id == "acme" || id == "beta" }

// options of a feed on a world; change them before use.
func (w *world) options() Options {
	return Options{Name: "edge", Intake: w, Keys: keys{}, Facts: w, MaxBody: 64 << 10,
		Formats: func(f string) bool { return f == "canonical" || f == "netacea" }}
}

// server is a feed on a loopback address.
type server struct {
	*Feed
	url    string
	cancel context.CancelFunc
	ended  chan error
}

func start(t testing.TB, o Options) *server {
	t.Helper()
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{Feed: f, url: "http://" + ln.Addr().String(), cancel: cancel, ended: make(chan error, 1)}
	go func() { s.ended <- f.Serve(ctx, ln) }()
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *server) stop(t testing.TB) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	s.cancel()
	select {
	case err := <-s.ended:
		if err != nil {
			t.Error(err)
		}
		s.ended <- nil
	case <-time.After(time.Minute):
		t.Error("the feed does not stop")
	}
}

// reply is an answer, read.
type reply struct {
	status int
	body   string
	header http.Header
}

// post sends one request; headers are pairs.
func (s *server) post(t testing.TB, path string, body io.Reader, headers ...string) reply {
	t.Helper()
	r, err := s.try("POST", path, body, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *server) try(method, path string, body io.Reader, headers ...string) (reply, error) {
	req, err := http.NewRequest(method, s.url+path, body)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	b, err := io.ReadAll(res.Body)
	return reply{res.StatusCode, string(b), res.Header}, errors.Join(err, res.Body.Close())
}

// chunked hides a body's length, as Node's fetch does.
func chunked(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
