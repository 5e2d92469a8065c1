package kinesis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	smithyendpoints "github.com/aws/smithy-go/endpoints"
	"pgregory.net/rapid"

	"datasync/exporter/lane"
)

// seen is a request as a server sees it.
type seen struct {
	method, path string
	header       http.Header
	body         []byte
}

// catcher is an HTTP client that keeps requests and answers nothing useful.
type catcher struct{ got []seen }

// Do is aws.HTTPClient's.
func (c *catcher) Do(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	c.got = append(c.got, seen{r.Method, r.URL.Path, r.Header.Clone(), body})
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"Records":[],"FailedRecordCount":0}`)), Request: r}, nil
}

// The body that we build, and the request around it, say what the SDK's own
// serializer says.
func TestBodyIsTheSDKs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := &batch{}
		var entries []types.PutRecordsRequestEntry
		aggregate := rapid.Bool().Draw(rt, "aggregate")
		for range rapid.IntRange(1, 5).Draw(rt, "records") {
			r := &record{line: rapid.SliceOfN(rapid.Byte(), 1, 90).Draw(rt, "line"), key: []byte(rapid.StringN(1, 20, 80).Draw(rt, "key"))}
			e := types.PutRecordsRequestEntry{Data: r.line, PartitionKey: aws.String(string(r.key))}
			b.recs = append(b.recs, r)
			if aggregate {
				r.slot = uint64(cellOf(r.key))
				b.ends = append(b.ends, len(b.recs))
				e.ExplicitHashKey = aws.String(string(cellStarts[r.slot]))
			}
			entries = append(entries, e)
		}
		body := b.appendBody(nil, "my.stream")
		c := &catcher{}
		sdk := kinesis.New(kinesis.Options{Region: "eu-west-1", HTTPClient: c, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})
		in := &kinesis.PutRecordsInput{StreamName: aws.String("my.stream"), Records: entries}
		if _, err := sdk.PutRecords(context.Background(), in); err != nil {
			rt.Fatal(err)
		}
		in.Records = []types.PutRecordsRequestEntry{}
		x := &exchange{body: lend(body), n: b.units()}
		if _, err := sdk.PutRecords(x.in(context.Background()), in, byExchange); err != nil {
			rt.Fatal(err)
		}
		var theirs, ours any
		if err := json.Unmarshal(c.got[0].body, &theirs); err != nil {
			rt.Fatal(err)
		}
		if err := json.Unmarshal(c.got[1].body, &ours); err != nil {
			rt.Fatalf("%v: %s", err, c.got[1].body)
		}
		if !reflect.DeepEqual(theirs, ours) {
			rt.Errorf("ours: %s\nthe SDK's: %s", c.got[1].body, c.got[0].body)
		}
		for _, g := range c.got {
			if want := g.signature(rt); g.header.Get("Authorization") != want {
				rt.Errorf("signed as %s, want %s", g.header.Get("Authorization"), want)
			}
			for _, changes := range []string{"Authorization", "Amz-Sdk-Invocation-Id", "X-Amz-Date"} {
				g.header.Del(changes)
			}
		}
		if c.got[0].method != c.got[1].method || c.got[0].path != c.got[1].path || !reflect.DeepEqual(c.got[0].header, c.got[1].header) {
			rt.Errorf("ours: %+v\nthe SDK's: %+v", c.got[1], c.got[0])
		}
	})
}

// signature is what the SDK's signer makes of the request and the body that was sent.
func (s *seen) signature(t *rapid.T) string {
	at, err := time.Parse("20060102T150405Z", s.header.Get("X-Amz-Date"))
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(s.method, "https://kinesis.eu-west-1.amazonaws.com"+s.path, nil)
	r.Header, r.ContentLength = s.header.Clone(), int64(len(s.body))
	r.Header.Del("Authorization")
	sum := sha256.Sum256(s.body)
	if err := v4.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: "a", SecretAccessKey: "b"}, r, hex.EncodeToString(sum[:]), "kinesis", "eu-west-1", at); err != nil {
		t.Fatal(err)
	}
	return r.Header.Get("Authorization")
}

// identity gives the SDK keys and nothing else of this machine's.
func identity(t testing.TB) {
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": t.TempDir() + "/none", "AWS_SHARED_CREDENTIALS_FILE": t.TempDir() + "/none",
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ""} {
		t.Setenv(k, v)
	}
}

func TestOverHTTP(t *testing.T) {
	identity(t)
	for name, o := range modes {
		t.Run(name, func(t *testing.T) {
			f := newFakeStream(t, 3)
			f.Failing, f.Codes = 0.3, []string{"InternalFailure", "ProvisionedThroughputExceededException"}
			srv := httptest.NewServer(f)
			defer srv.Close()
			o.Stream, o.Endpoint, o.Region, o.Tuning = f.Name, srv.URL, "eu-west-1", quick
			r := newRig(t, f, o, newClient(o))
			const n = 3000
			for i := 0; i < n; i += 500 {
				var lines []string
				for j := range 500 {
					lines = append(lines, event(i+j, fmt.Sprint("ключ\\u0041 ", (i+j)%70), 200))
				}
				r.offer(lines)
			}
			r.allConfirmed()
			r.end()
			if len(f.have) != n {
				t.Errorf("%d events are there, %d were offered", len(f.have), n)
			}
		})
	}
}

// What can be wrong shows with its class and says what to do; mended, the sink
// goes on by itself.
func TestReasons(t *testing.T) {
	answer := func(status int, text string) func(*fakeStream) {
		return func(f *fakeStream) { f.Whole = func() (int, string) { return status, text } }
	}
	for _, c := range []struct {
		name  string
		bad   func(f *fakeStream)
		class lane.Class
		park  bool
		hint  string
	}{
		{"unknown key", answer(400, `{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}`), lane.Auth, true, "access key"},
		{"wrong secret", answer(400, `{"__type":"InvalidSignatureException"}`), lane.Auth, true, "access key"},
		{"expired", answer(400, `{"__type":"ExpiredTokenException"}`), lane.Auth, true, "expired"},
		{"forbidden", answer(400, `{"__type":"AccessDeniedException","message":"not authorized to perform: kinesis:PutRecords"}`), lane.Forbidden, true, "kinesis:PutRecords"},
		{"KMS", answer(400, `{"__type":"KMSAccessDeniedException"}`), lane.Forbidden, true, "kms:GenerateDataKey"},
		{"no stream", func(f *fakeStream) { f.Name = "other" }, lane.NotFound, true, "make the stream"},
		{"throttled", answer(400, `{"__type":"LimitExceededException"}`), lane.Throttled, false, "shards"},
		{"internal", answer(500, `{"__type":"InternalFailure"}`), lane.Reset, false, "tried again"},
		{"unavailable", answer(503, ``), lane.Throttled, false, "pause"},
		{"no Kinesis", answer(404, `<html>`), lane.NotFound, true, "Kinesis endpoint"},
		{"cut off", answer(0, ""), lane.Reset, false, "ended early"},
		{"nonsense", answer(400, `{"__type":"UnknownOperationException"}`), lane.Invalid, true, "Kinesis endpoint"},
		{"too few results", answer(200+1, `{"Records":[],"FailedRecordCount":0}`), lane.Reset, false, "ended early"},
	} {
		t.Run(c.name, func(t *testing.T) {
			identity(t)
			f := newFakeStream(t, 1)
			srv := httptest.NewServer(f)
			defer srv.Close()
			o := Options{Stream: f.Name, Endpoint: srv.URL, Tuning: quick}
			r := newRig(t, f, o, newClient(o))
			c.bad(f)
			r.sink.o.Stream = "events"
			r.offer([]string{event(1, "k", 0)})
			r.until("trouble", func() bool { return len(r.troubles) > 0 })
			r.mu.Lock()
			e := r.troubles[0]
			r.mu.Unlock()
			if e.Err.Class != c.class || e.Err.Park != c.park || !strings.Contains(e.Err.Hint, c.hint) || e.Retry.IsZero() || !strings.Contains(e.Err.Error(), "events") {
				t.Errorf("got class %s, park %v, %v", e.Err.Class, e.Err.Park, e.Err)
			}
			f.Lock()
			f.Name, f.Whole = "events", nil
			f.Unlock()
			r.allConfirmed()
			r.until("the end of the trouble", func() bool { return r.troubles[len(r.troubles)-1] == nil })
			r.end()
		})
	}
}

func TestReasonsOfTheNetwork(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the handshakes that we break off
	secure.StartTLS()
	defer secure.Close()
	for _, c := range []struct {
		name  string
		o     Options
		env   map[string]string
		class lane.Class
		park  bool
	}{
		{"nobody listens", Options{Endpoint: closed.URL}, nil, lane.Connect, false},
		{"unknown authority", Options{Endpoint: secure.URL}, nil, lane.TLSVerify, true},
		{"no keys", Options{Endpoint: closed.URL}, map[string]string{"AWS_ACCESS_KEY_ID": ""}, lane.Auth, true},
		{"no region", Options{}, nil, lane.Invalid, true},
		{"role", Options{Endpoint: closed.URL, RoleARN: "arn:aws:iam::123456789012:role/r"}, map[string]string{"AWS_ENDPOINT_URL_STS": closed.URL}, lane.Connect, false},
		{"egress", Options{Endpoint: closed.URL, Control: func(string, string, syscall.RawConn) error { return fmt.Errorf("no") }}, nil, lane.Forbidden, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			identity(t)
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			c.o.Stream, c.o.Tuning = "events", quick
			cl := newClient(c.o)
			defer cl.close()
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, err := cl.put(ctx, []byte(`{}`), 1)
			if e := classify("events", err); e.Class != c.class || e.Park != c.park || e.Hint == "" {
				t.Errorf("got class %s, park %v: %v", e.Class, e.Park, e)
			}
		})
	}
}

// A name that does not resolve: what the resolver says, without asking one.
func TestReasonOfAName(t *testing.T) {
	e := classify("events", fmt.Errorf("request send failed: %w", &net.OpError{Op: "dial", Err: &net.DNSError{Name: "kinesis.example", IsNotFound: true}}))
	if e.Class != lane.DNS || e.Park || e.Hint == "" {
		t.Errorf("got %s %v: %v", e.Class, e.Park, e)
	}
}

// fakeSTS answers AssumeRole, or refuses.
type fakeSTS struct {
	mu    sync.Mutex
	allow bool
	form  string
}

// ServeHTTP is http.Handler's.
func (s *fakeSTS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := r.ParseForm(); err != nil {
		panic(err)
	}
	s.form = r.Form.Encode()
	if !s.allow {
		w.WriteHeader(403)
		fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>not allowed to assume it</Message></Error></ErrorResponse>`)
		return
	}
	fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>assumed</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
		time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

func TestRoleIsAssumedOnceItsTrustAllows(t *testing.T) {
	identity(t)
	s := &fakeSTS{}
	role := httptest.NewServer(s)
	defer role.Close()
	t.Setenv("AWS_ENDPOINT_URL_STS", role.URL)
	f := newFakeStream(t, 1)
	var by string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		by = r.Header.Get("Authorization")
		s.mu.Unlock()
		f.ServeHTTP(w, r)
	}))
	defer srv.Close()
	o := Options{Stream: f.Name, Endpoint: srv.URL, Region: "eu-west-1", RoleARN: "arn:aws:iam::123456789012:role/put", ExternalID: "ours", Tuning: quick}
	r := newRig(t, f, o, newClient(o))
	r.offer([]string{event(1, "k", 0)})
	r.until("trouble", func() bool { return len(r.troubles) > 0 })
	r.mu.Lock()
	if e := r.troubles[0].Err; e.Class != lane.Auth || !e.Park || !strings.Contains(e.Hint, "trust policy") {
		t.Errorf("%s %v: %v", e.Class, e.Park, e)
	}
	r.mu.Unlock()
	s.mu.Lock()
	s.allow = true
	s.mu.Unlock()
	r.allConfirmed()
	r.end()
	if !strings.Contains(by, "Credential=assumed/") || !strings.Contains(s.form, "ExternalId=ours") || !strings.Contains(s.form, "RoleSessionName=datasync") {
		t.Errorf("put by %s after %s", by, s.form)
	}
}

// Changed keys are taken without a restart.
func TestNewKeysAreTaken(t *testing.T) {
	identity(t)
	f := newFakeStream(t, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=fresh/") {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"__type":"UnrecognizedClientException"}`)
			return
		}
		f.ServeHTTP(w, r)
	}))
	defer srv.Close()
	o := Options{Stream: f.Name, Endpoint: srv.URL, Tuning: quick}
	r := newRig(t, f, o, newClient(o))
	r.offer([]string{event(1, "k", 0)})
	r.until("trouble", func() bool { return len(r.troubles) > 0 })
	t.Setenv("AWS_ACCESS_KEY_ID", "fresh")
	r.allConfirmed()
	r.end()
}

// TestKeysAreReadBeforeTheyFail: a file of keys is read again within a minute,
// a web identity's as its credentials expire.
func TestKeysAreReadBeforeTheyFail(t *testing.T) {
	identity(t)
	path := filepath.Join(t.TempDir(), "credentials")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", path)
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := newClient(Options{Stream: "s", Endpoint: "http://127.0.0.1:1"})
	defer c.close()
	for _, id := range []string{"AKIAFIRST", "AKIASECOND"} {
		write(path, "[default]\naws_access_key_id = "+id+"\naws_secret_access_key = s\n")
		k, err := chain(nil).Retrieve(t.Context())
		if err != nil || k.AccessKeyID != id || !k.CanExpire || time.Until(k.Expires) > reread {
			t.Errorf("%s: %s is good until %v, %v", id, k.AccessKeyID, k.Expires, err)
		}
	}
	if _, err := c.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k, err := c.own.Retrieve(t.Context()); err != nil || k.AccessKeyID != "AKIASECOND" || time.Until(k.Expires) > reread {
		t.Errorf("the client's: %s until %v, %v", k.AccessKeyID, k.Expires, err)
	}

	var form string
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		form = string(raw)
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>web</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`,
			time.Now().Add(-time.Second).UTC().Format(time.RFC3339)) // over at once
	}))
	defer sts.Close()
	token := filepath.Join(t.TempDir(), "token")
	for k, v := range map[string]string{"AWS_ENDPOINT_URL_STS": sts.URL, "AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::1:role/web",
		"AWS_REGION": "eu-west-1", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"} {
		t.Setenv(k, v)
	}
	c.close()
	for _, text := range []string{"token-one", "token-two"} {
		write(token, text)
		if _, err := c.connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if k, err := c.own.Retrieve(t.Context()); err != nil || k.AccessKeyID != "web" || !strings.Contains(form, "WebIdentityToken="+text) {
			t.Errorf("%s: %s, asked with %s, %v", text, k.AccessKeyID, form, err)
		}
	}
}

// An endpoint is resolved once, and again where another is asked for; a failure
// is not kept.
func TestLastEndpoint(t *testing.T) {
	asked := 0
	l := &lastEndpoint{rules: rulesFunc(func(p kinesis.EndpointParameters) (smithyendpoints.Endpoint, error) {
		asked++
		if p.Region == nil {
			return smithyendpoints.Endpoint{}, fmt.Errorf("no region")
		}
		return smithyendpoints.Endpoint{URI: url.URL{Host: *p.Region}}, nil
	})}
	for i, c := range []struct {
		region string
		asked  int
	}{{"", 1}, {"", 2}, {"a", 3}, {"a", 3}, {"b", 4}, {"b", 4}, {"a", 5}, {"", 6}, {"a", 6}} {
		p := kinesis.EndpointParameters{}
		if c.region != "" {
			p.Region = aws.String(c.region)
		}
		if at, err := l.ResolveEndpoint(t.Context(), p); at.URI.Host != c.region || (err != nil) != (c.region == "") || asked != c.asked {
			t.Errorf("%d, %q: %q, %v, asked %d times, want %d", i, c.region, at.URI.Host, err, asked, c.asked)
		}
	}
}

type rulesFunc func(kinesis.EndpointParameters) (smithyendpoints.Endpoint, error)

// ResolveEndpoint is kinesis.EndpointResolverV2's.
func (f rulesFunc) ResolveEndpoint(_ context.Context, p kinesis.EndpointParameters) (smithyendpoints.Endpoint, error) {
	return f(p)
}

// A body that was taken back gives nothing away.
func TestLentBodies(t *testing.T) {
	l := lend([]byte("secret"))
	b := make([]byte, 3)
	if n, err := l.Read(b); n != 3 || err != nil {
		t.Error(n, err)
	}
	l.takeBack()
	if n, err := l.Read(b); n != 0 || err == nil {
		t.Error(n, err)
	}
	if _, err := l.Seek(0, io.SeekStart); err == nil {
		t.Error("it could be rewound")
	}
}

func BenchmarkBody(b *testing.B) {
	lines := make([]*record, maxRecords)
	entries := make([]types.PutRecordsRequestEntry, maxRecords)
	for i := range lines {
		l := []byte(event(i, "10.1.2.3", 690))
		lines[i] = &record{line: l, key: fmt.Appendf(nil, "10.1.%d.3", i%200)}
		entries[i] = types.PutRecordsRequestEntry{Data: l, PartitionKey: aws.String("10.1.2.3")}
	}
	answer := `{"FailedRecordCount":0,"Records":[` + strings.Repeat(`{"SequenceNumber":"49543463076548007577105092703039560359975228518395019266","ShardId":"shardId-000000000000"},`, maxRecords-1) +
		`{"SequenceNumber":"49543463076548007577105092703039560359975228518395019266","ShardId":"shardId-000000000000"}]}`
	web := webFunc(func(r *http.Request) (*http.Response, error) {
		_, err := io.Copy(io.Discard, r.Body)
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer)), Request: r}, err
	})
	sdk := kinesis.New(kinesis.Options{Region: "eu-west-1", HTTPClient: web, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")})
	in := &kinesis.PutRecordsInput{StreamName: aws.String("s"), Records: entries}
	perEvent := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/maxRecords, "ns/event")
	}
	b.Run("sdk", func(b *testing.B) {
		for b.Loop() {
			if _, err := sdk.PutRecords(context.Background(), in); err != nil {
				b.Fatal(err)
			}
		}
		perEvent(b)
	})
	empty := &kinesis.PutRecordsInput{StreamName: aws.String("s"), Records: []types.PutRecordsRequestEntry{}}
	own := func(bt *batch) func(b *testing.B) {
		return func(b *testing.B) {
			var body []byte
			for b.Loop() {
				body = bt.appendBody(body[:0], "s")
				x := &exchange{body: lend(body), n: bt.units()}
				if _, err := sdk.PutRecords(x.in(context.Background()), empty, byExchange); err != nil {
					b.Fatal(err)
				}
			}
			perEvent(b)
		}
	}
	b.Run("own", own(&batch{recs: lines}))
	g := &grid{}
	recs, ends := g.pack(lines, maxRecords)
	b.Run("aggregate", own(&batch{recs: recs, ends: ends}))
}

type webFunc func(*http.Request) (*http.Response, error)

// Do is aws.HTTPClient's.
func (f webFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }
