package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"datasync/exporter/lane"
)

func TestMain(m *testing.M) {
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_CA_BUNDLE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_PROFILE": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "", "AWS_ENDPOINT_URL_STS": ""} {
		if err := os.Setenv(k, v); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"))
}

const key = "bots/tenant=acme/sink=lake/dt=2026-01-01/hour=00/acme.lake.edge-0-abc123.000000000001.ndjson"

func drop(n int, body string) *lane.Drop {
	return &lane.Drop{Key: strings.Replace(key, "001.ndjson", fmt.Sprintf("%03d.ndjson", n), 1), ID: fmt.Sprintf("abc123/edge-0/acme/lake/%d", n),
		Body: strings.NewReader(body), Size: int64(len(body)), SHA256: sha256.Sum256([]byte(body)), ContentType: "application/x-ndjson"}
}

// small has objects from 1,000 bytes on go in parts of 400.
var small = Options{Multipart: 1000, PartSize: 400, Pause: time.Millisecond}

func newSink(f *fake, o Options) *Sink { return New(f.settings(), NewClients("abc123", o)) }

func mustPut(t testing.TB, s *Sink, d *lane.Drop) {
	t.Helper()
	if err := s.Put(context.Background(), d); err != nil {
		t.Fatal(err)
	}
}

func refusal(t testing.TB, err error) *lane.Error {
	t.Helper()
	var e *lane.Error
	if !errors.As(err, &e) {
		t.Fatalf("no *lane.Error: %v", err)
	}
	return e
}

// wants holds what is stored to the drops, each written once, and no upload left.
func (f *fake) wants(t testing.TB, ds ...*lane.Drop) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range ds {
		o, there := f.objects[d.Key]
		if sum := sha256.Sum256([]byte(o.body)); !there || sum != d.SHA256 {
			t.Errorf("%s: there %v, %d bytes, want %d", d.Key, there, len(o.body), d.Size)
		}
		if f.writes[d.Key] != 1 {
			t.Errorf("%s was written %d times", d.Key, f.writes[d.Key])
		}
	}
	if len(f.objects) != len(ds) || len(f.uploads) != 0 {
		t.Errorf("%d objects for %d drops, %d uploads are left", len(f.objects), len(ds), len(f.uploads))
	}
}

func TestADropIsAnObjectWithItsNameAndItsSettings(t *testing.T) {
	for _, body := range []string{"one\n", strings.Repeat("0123456789", 150)} {
		f := newFake(t)
		set := f.settings()
		set.SSE, set.KMSKey, set.StorageClass = "aws:kms", "alias/k", "STANDARD_IA"
		s := New(set, NewClients("abc123", small))
		d := drop(1, body)
		mustPut(t, s, d)
		f.wants(t, d)
		h := f.objects[d.Key].header
		for k, want := range map[string]string{"X-Amz-Meta-Datasync-Id": d.ID, "X-Amz-Meta-Datasync-Sha256": hex.EncodeToString(d.SHA256[:]),
			"Content-Type": d.ContentType, "X-Amz-Server-Side-Encryption": "aws:kms", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": "alias/k",
			"X-Amz-Storage-Class": "STANDARD_IA"} {
			if h.Get(k) != want {
				t.Errorf("%d bytes: %s is %q, want %q", len(body), k, h.Get(k), want)
			}
		}
	}
}

func TestBytesThatAreNotTheDropsAreNotStored(t *testing.T) {
	f := newFake(t)
	s := newSink(f, small)
	d := drop(1, "what was meant\n")
	d.Body = strings.NewReader("what is there.\n") // a spool that went bad
	if e := refusal(t, s.Put(context.Background(), d)); e.Class != lane.Reset || e.Park {
		t.Errorf("%+v", e)
	}
	f.wants(t)
	d.Body = strings.NewReader("what was meant\n")
	mustPut(t, s, d)
	if got := f.objects[d.Key].header.Get("X-Amz-Checksum-Sha256"); got != base64.StdEncoding.EncodeToString(d.SHA256[:]) {
		t.Errorf("the store keeps checksum %q", got)
	}
}

func TestPartsAreReadAsTheyGoOut(t *testing.T) {
	f := newFake(t)
	d := drop(1, strings.Repeat("0123456789", 150))
	mustPut(t, newSink(f, small), d)
	if got := f.steps(); got != "list head create part part part part complete" {
		t.Error(got)
	}
	f.wants(t, d)
}

// ways are how a step of a store can fail.
func ways() map[string]fault {
	return map[string]fault{
		"500": {status: 500, code: "InternalError"}, "500 after success": {done: true, status: 500, code: "InternalError"},
		"503": {status: 503, code: "SlowDown"}, "cut": {}, "cut after success": {done: true}, "409": {status: 409, code: "ConditionalRequestConflict"},
		"digest": {status: 400, code: "BadDigest"}, "slow": {status: 400, code: "RequestTimeout"}, "no upload": {status: 404, code: "NoSuchUpload"},
		"403": {status: 403, code: "AccessDenied"}, "expired": {status: 400, code: "ExpiredToken"},
		"412 after success": {done: true, status: 412, code: "PreconditionFailed"}, "412": {status: 412, code: "PreconditionFailed"},
		"cut in the request": {torn: true}, "cut in the answer": {done: true, short: true}, "504 after success": {done: true, status: 504},
		"wrong checksum": {lies: true}, "slow answer": {slow: time.Millisecond}, "501": {status: 501, code: "NotImplemented"},
	}
}

// TestFaultsAtEveryStep: whatever step fails in whatever way, a few tries of
// the lane later the object is there, once, and no upload.
func TestFaultsAtEveryStep(t *testing.T) {
	for name, way := range ways() {
		for _, st := range []string{"probe put", "probe delete", "put", "head", "list", "create", "part", "complete", "abort"} {
			for _, times := range []int{1, 4} { // 4: beyond what the SDK tries by itself
				t.Run(fmt.Sprintf("%s at %s, %d times", name, st, times), func(t *testing.T) {
					t.Parallel()
					testFault(t, st, way, times)
				})
			}
		}
	}
}

func testFault(t *testing.T, st string, way fault, times int) {
	f := newFake(t)
	f.fault = func(s string, n int) *fault {
		if s == st && n <= times {
			return &way
		}
		return nil
	}
	s := newSink(f, small)
	ds := []*lane.Drop{drop(1, "one\n"), drop(2, strings.Repeat("0123456789", 150))}
	for _, d := range ds {
		var err error
		for range times + 2 {
			if err = s.Put(context.Background(), d); err == nil {
				break
			}
			refusal(t, err)
		}
		if err != nil {
			t.Fatalf("%s never arrived: %v", d.Key, err)
		}
	}
	f.mu.Lock()
	if st == "list" && (way.status == 403 || way.status == 501) || st == "abort" && way.status == 501 { // the bucket's rule does it
		clear(f.uploads)
	}
	for k := range f.objects {
		if strings.Contains(k, "/.datasync-probe/") && st == "probe delete" {
			delete(f.objects, k)
		}
	}
	f.mu.Unlock()
	f.wants(t, ds...)
}

// TestATakenKey: only an object of the drop's id and bytes is the drop, stored
// by a try whose answer got lost. The same id with other bytes is what another
// instance made with a copy of our data_dir: taken for ours, our events of that
// range would be lost.
func TestATakenKey(t *testing.T) {
	const own = "abc123/edge-0/acme/lake/1"
	body := strings.Repeat("x", 1500)
	whole := func(d *lane.Drop) string { return body[:d.Size] }
	other := func(d *lane.Drop) string { return strings.Repeat("y", int(d.Size)) }
	short := func(d *lane.Drop) string { return body[:d.Size-1] }
	for name, c := range map[string]struct {
		id    string // of what is there
		body  func(*lane.Drop) string
		says  func(*lane.Drop) string // what its checksum is of; nil: its body
		fault func(string, int) *fault
		hint  string // empty: it is ours
		older bool   // it is ours where Differs says that its bytes may differ
	}{
		"by this drop":            {id: own, body: whole},
		"by something":            {body: other, hint: "move that object away"},
		"by another drop":         {id: "abc123/edge-0/acme/lake/2", body: whole, hint: "move that object away"},
		"by our twin":             {id: own, body: other, hint: "copy of this data_dir", older: true},
		"by this drop, shortened": {id: own, body: short, says: whole, hint: "copy of this data_dir", older: true},
		"by who knows":            {body: other, fault: on("head", 0, fault{status: 403, code: "AccessDenied"})},
		"ours, looked at late":    {id: own, body: whole, fault: on("head", 1, fault{status: 404})},
	} {
		for _, size := range []int{500, 1500} {
			for _, differs := range []bool{false, true} {
				f := newFake(t)
				f.fault = c.fault
				d := drop(1, body[:size])
				d.Differs = differs
				there := c.body(d)
				sum := sha256.Sum256([]byte(there))
				if c.says != nil {
					sum = sha256.Sum256([]byte(c.says(d)))
				}
				f.objects[d.Key] = object{there, map[string][]string{"X-Amz-Meta-Datasync-Id": {c.id}, "X-Amz-Meta-Datasync-Sha256": {hex.EncodeToString(sum[:])}}}
				s := newSink(f, small)
				err := s.Put(context.Background(), d)
				if name == "ours, looked at late" && size < 1000 {
					if e := refusal(t, err); e.Verdict != lane.Wait {
						t.Errorf("%s: %+v", name, e)
					}
					err = s.Put(context.Background(), d)
				}
				if c.hint != "" && !(c.older && differs) {
					e := refusal(t, err)
					if !errors.Is(e, lane.ErrForeign) || !e.Park || e.Class != lane.Invalid || !strings.Contains(e.Hint, c.hint) || !strings.Contains(e.Error(), d.Key) {
						t.Errorf("%s, %d bytes: %+v", name, size, e)
					}
				} else if err != nil {
					t.Errorf("%s, %d bytes, differs %v: %v", name, size, differs, err)
				}
				if f.objects[d.Key].body != there || len(f.uploads) != 0 {
					t.Errorf("%s, %d bytes: it became %.20q, %d uploads are left", name, size, f.objects[d.Key].body, len(f.uploads))
				}
			}
		}
	}
}

func TestWithoutConditionalPutItsOwnKeyIsWrittenAgain(t *testing.T) {
	for _, size := range []int{500, 1500} {
		f := newFake(t)
		set := f.settings()
		set.ConditionalPut = false
		s := New(set, NewClients("abc123", small))
		d := drop(1, strings.Repeat("x", size))
		mustPut(t, s, d)
		mustPut(t, s, d)
		if got := s.Promise(); !strings.Contains(got, "conditional_put is false") {
			t.Errorf("it promises %q", got)
		}
		if f.count("probe put") != 0 || f.writes[d.Key] != 2 || len(f.uploads) != 0 {
			t.Errorf("%d bytes: %s", size, f.steps())
		}
	}
}

func TestAStoreIsProbedOnce(t *testing.T) {
	f := newFake(t)
	var said []string
	c := NewClients("abc123", Options{Pause: time.Millisecond, Report: func(m string) { said = append(said, m) }})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			set := f.settings()
			set.AWS.RoleARN = "" // another sink, the same store
			if err := New(set, c).Put(context.Background(), drop(i+1, "x")); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if f.count("probe put") != 2 || f.count("probe delete") != 1 || len(said) != 0 {
		t.Errorf("%d puts and %d deletes of the probe; said: %v", f.count("probe put"), f.count("probe delete"), said)
	}
	if len(c.by) != 1 {
		t.Errorf("%d clients for one way", len(c.by))
	}
	other := f.settings()
	other.Prefix = "elsewhere"
	mustPut(t, New(other, c), drop(30, "x"))
	if f.count("probe put") != 4 {
		t.Error("another prefix was not probed")
	}
}

func TestAStoreThatIgnoresTheConditionIsToldOf(t *testing.T) {
	for _, silent := range []bool{true, false} {
		f := newFake(t)
		f.ignores = silent
		if !silent {
			f.fault = on("probe put", 0, fault{status: 501, code: "NotImplemented"})
		}
		var said []string
		s := newSink(f, Options{Pause: time.Millisecond, Report: func(m string) { said = append(said, m) }})
		for i := range 3 {
			mustPut(t, s, drop(i+1, "x"))
		}
		if got := s.Promise(); !strings.Contains(got, "does not honour") {
			t.Errorf("it promises %q", got)
		}
		if len(said) != 1 || !strings.Contains(said[0], "lake") {
			t.Errorf("said: %v", said)
		}
		if h := f.objects[drop(1, "").Key].header.Get("If-None-Match"); (h != "") != silent {
			t.Errorf("silent %v: it was sent If-None-Match %q", silent, h)
		}
		if f.count("probe put") > 4 {
			t.Errorf("%d probes", f.count("probe put"))
		}
	}
}

func TestAProbeThatCrashedIsAnAnswer(t *testing.T) {
	f := newFake(t)
	f.objects["bots/.datasync-probe/abc123"] = object{}
	d := drop(1, "x")
	s := newSink(f, Options{Pause: time.Millisecond})
	if got := s.Promise(); !strings.Contains(got, "nothing was put") {
		t.Errorf("before any put it promises %q", got)
	}
	mustPut(t, s, d)
	if got := s.Promise(); got != "where the key is free" {
		t.Errorf("it promises %q", got)
	}
	if f.count("probe put") != 1 {
		t.Error(f.count("probe put"))
	}
	f.wants(t, d)
}

func TestLeftoversOfTheKeyAreAbortedAndNoOthers(t *testing.T) {
	f := newFake(t)
	d := drop(1, strings.Repeat("x", 1500))
	f.uploads["old"] = &upload{key: d.Key}
	f.uploads["older"] = &upload{key: d.Key}
	f.uploads["somebody's"] = &upload{key: d.Key + ".theirs"}
	mustPut(t, newSink(f, small), d)
	if len(f.uploads) != 1 || f.uploads["somebody's"] == nil {
		t.Errorf("left: %v", f.uploads)
	}
}

func TestAnUploadIsAbortedWhereTimeIsUp(t *testing.T) {
	f := newFake(t)
	ctx, cancel := context.WithCancel(context.Background())
	f.fault = func(s string, n int) *fault {
		if s == "part" && n == 3 {
			cancel()
		}
		return nil
	}
	err := newSink(f, small).Put(ctx, drop(1, strings.Repeat("x", 1500)))
	if e := refusal(t, err); e.Park || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v", e)
	}
	f.wants(t)
}

// TestAZombie: two instances with the same journal, one thawed late, and a
// store that answers in any order: one of them writes, both go on.
func TestAZombie(t *testing.T) {
	f := newFake(t)
	var wg sync.WaitGroup
	var ds []*lane.Drop
	for i := range 10 {
		ds = append(ds, drop(i+1, strings.Repeat(fmt.Sprint(i), 100+i*200)))
	}
	for range 2 {
		s := newSink(f, small)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for _, i := range rand.Perm(len(ds)) {
				err := s.Put(context.Background(), ds[i])
				for range 20 { // the other one aborts our upload of the same key
					if err == nil {
						break
					}
					err = s.Put(context.Background(), ds[i])
				}
				if err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	f.mu.Lock()
	clear(f.uploads) // of the one that lost
	delete(f.objects, "bots/.datasync-probe/abc123")
	f.mu.Unlock()
	f.wants(t, ds...)
}

func TestTheBodyIsTheCallersAgainAfterPut(t *testing.T) {
	f := newFake(t)
	f.fault = on("put", 0, fault{status: 403, code: "AccessDenied"})
	s := newSink(f, Options{Pause: time.Millisecond})
	d := drop(1, strings.Repeat("x", 8<<20))
	var mu sync.Mutex
	over := false
	d.Body = watched{d.Body.(*strings.Reader), func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			t.Error("the body is read after Put returned")
		}
	}}
	for range 3 {
		refusal(t, s.Put(context.Background(), d))
	}
	mu.Lock()
	over = true
	mu.Unlock()
	f.CloseClientConnections()
}

type watched struct {
	*strings.Reader
	look func()
}

func (w watched) ReadAt(p []byte, off int64) (int, error) {
	w.look()
	return w.Reader.ReadAt(p, off)
}
