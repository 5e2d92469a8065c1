package s3feed

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datasync/feeds/cloud"
	"datasync/feeds/intake"
	"datasync/feeds/journal/journaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queued is a message of the fake's queue.
type queued struct {
	id, body string
	visible  time.Time
	first    time.Time
	times    int
	deleted  bool
}

// aws is an S3 and an SQS with one queue.
type fakeAWS struct {
	t        testing.TB
	mu       sync.Mutex
	objects  map[string]string // bucket/key
	messages []*queued
	fail     func(op, what string) (status int, code string)
	cut      map[string]int // of an object's bytes so many are sent, once
	gets     []string       // "key range"
	calls    map[string]int
	url      string
}

func newAWS(t testing.TB) *fakeAWS {
	a := &fakeAWS{t: t, objects: map[string]string{}, cut: map[string]int{}, calls: map[string]int{}}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	a.url = srv.URL
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_REGION": "", "AWS_DEFAULT_REGION": ""} {
		t.Setenv(k, v)
	}
	return a
}

func etag(content string) string {
	sum := md5.Sum([]byte(content))
	return hex.EncodeToString(sum[:])
}

// put stores an object; announce puts it and a message of it.
func (a *fakeAWS) put(key, content string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects["logs/"+key] = content
}

func (a *fakeAWS) announce(key, content string) {
	a.put(key, content)
	a.send(fmt.Sprintf(`{"Records":[{"eventSource":"aws:s3","eventName":"ObjectCreated:Put","awsRegion":"us-east-1","s3":{"bucket":{"name":"logs"},"object":{"key":%q,"eTag":%q}}}]}`, key, etag(content)))
}

func (a *fakeAWS) send(body string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.messages = append(a.messages, &queued{id: fmt.Sprint(len(a.messages)), body: body})
}

// left are the messages that are still there.
func (a *fakeAWS) left() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.messages {
		if !m.deleted {
			n++
		}
	}
	return n
}

func (a *fakeAWS) do(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

func (a *fakeAWS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, op, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "AmazonSQS."); ok {
		a.sqs(w, r, op)
		return
	}
	a.s3(w, r)
}

func (a *fakeAWS) failure(op, what string) (int, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[op]++
	if a.fail == nil {
		return 0, ""
	}
	return a.fail(op, what)
}

func (a *fakeAWS) sqs(w http.ResponseWriter, r *http.Request, op string) {
	var in struct {
		ReceiptHandle     string
		VisibilityTimeout int
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		return // the caller went away
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if status, code := a.failure(op, ""); code != "" {
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"__type":"com.amazonaws.sqs#%s","message":"as the test wants it"}`, code)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	out := map[string]any{}
	for _, m := range a.messages {
		switch {
		case m.deleted:
		case op == "ReceiveMessage" && now.After(m.visible):
			m.visible = now.Add(time.Duration(in.VisibilityTimeout) * time.Second)
			m.times++
			if m.first.IsZero() {
				m.first = now
			}
			sum := md5.Sum([]byte(m.body))
			out["Messages"] = []any{map[string]any{"MessageId": m.id, "ReceiptHandle": m.id, "Body": m.body, "MD5OfBody": hex.EncodeToString(sum[:]),
				"Attributes": map[string]string{"ApproximateReceiveCount": fmt.Sprint(m.times), "ApproximateFirstReceiveTimestamp": fmt.Sprint(m.first.UnixMilli())}}}
			_ = json.NewEncoder(w).Encode(out) // the caller may be gone
			return
		case op == "DeleteMessage" && m.id == in.ReceiptHandle:
			m.deleted = true
		case op == "ChangeMessageVisibility" && m.id == in.ReceiptHandle:
			m.visible = now.Add(time.Duration(in.VisibilityTimeout) * time.Second)
		}
	}
	_ = json.NewEncoder(w).Encode(out) // as above
}

func (a *fakeAWS) s3(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	refuse := func(status int, code string) {
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>as the test wants it</Message></Error>", code)
	}
	if status, code := a.failure("GetObject", name); code != "" {
		refuse(status, code)
		return
	}
	a.mu.Lock()
	content, ok := a.objects[name]
	a.gets = append(a.gets, strings.TrimSpace(name+" "+r.Header.Get("Range")))
	most, once := a.cut[name]
	delete(a.cut, name)
	a.mu.Unlock()
	switch {
	case !ok:
		refuse(404, "NoSuchKey")
		return
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != `"`+etag(content)+`"`:
		refuse(412, "PreconditionFailed")
		return
	}
	status := 200
	if from := 0; r.Header.Get("Range") != "" {
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err != nil {
			a.t.Error(err)
		}
		if from >= len(content) {
			refuse(416, "InvalidRange")
			return
		}
		content, status = content[from:], 206
	}
	w.Header().Set("ETag", `"`+etag(content)+`"`)
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	w.WriteHeader(status)
	if once && most < len(content) {
		_, _ = io.WriteString(w, content[:most])
		panic(http.ErrAbortHandler) // the connection breaks
	}
	_, _ = io.WriteString(w, content)
}

// world is an intake and its facts in memory.
type world struct {
	journaltest.MemoryFacts
	mu     sync.Mutex
	before func(lines []string) error
	lines  []string // tenant/value, or | reason
	ids    map[string]int
	told   []string
	most   int // bytes in one submit
}

func (w *world) Submit(_ context.Context, r *intake.Request) (intake.Result, error) {
	var lines, ids []string
	size := 0
	for rec := range r.Records {
		line := string(r.Tenant) + "/" + string(rec.Value)
		if rec.Bad != "" {
			line += "|" + rec.Bad
		}
		lines, ids = append(lines, line), append(ids, rec.ID)
		size += len(rec.Value)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.before != nil {
		if err := w.before(lines); err != nil {
			return intake.Result{}, err
		}
	}
	w.lines = append(w.lines, lines...)
	w.most = max(w.most, size)
	if w.ids == nil {
		w.ids = map[string]int{}
	}
	for _, id := range ids {
		w.ids[id]++
	}
	w.PutLater(r.Facts(&intake.Result{})...)
	return intake.Result{Accepted: len(lines)}, nil
}

func (w *world) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines)
}

func (w *world) said(part string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.told {
		if strings.Contains(s, part) {
			n++
		}
	}
	return n
}

// run starts a feed; stop ends it and gives Run's error.
func run(t testing.TB, a *fakeAWS, w *world, change func(*Options)) (f *Feed, stop func() error) {
	t.Helper()
	o := Options{Name: "waf", Queue: a.url + "/123/logs", Format: "canonical", Tenant: "acme", Intake: w, Facts: w, AWS: cloud.Options{Endpoint: a.url},
		Wait: -1, Retry: time.Millisecond, Visibility: time.Second,
		OnError: func(err error) { w.mu.Lock(); defer w.mu.Unlock(); w.told = append(w.told, err.Error()) }}
	if change != nil {
		change(&o)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	var once sync.Once
	end := func() (err error) {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { _ = end() })
	return f, end
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("no %s within a minute", what)
		case <-time.After(time.Millisecond):
		}
	}
}
