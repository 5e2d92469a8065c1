package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"datasync/exporter/lane"
	"datasync/exporter/tenants"
)

func TestWhatAStoreSaysIsWhatTheLaneDoes(t *testing.T) {
	f := newFake(t)
	set := f.settings()
	set.ConditionalPut = false
	s := New(set, NewClients("abc123", small))
	for _, c := range []struct {
		flt     fault
		verdict lane.Verdict
		class   lane.Class
		park    bool
		hint    string
	}{
		{fault{status: 403, code: "AccessDenied"}, lane.Away, lane.Forbidden, true, "s3:PutObject"},
		{fault{status: 403, code: "SomethingElse"}, lane.Away, lane.Forbidden, true, "s3:PutObject"},
		{fault{status: 404, code: "NoSuchBucket"}, lane.Away, lane.NotFound, true, "make the bucket"},
		{fault{status: 404}, lane.Away, lane.NotFound, true, "endpoint"},
		{fault{status: 403, code: "InvalidAccessKeyId"}, lane.Away, lane.Auth, true, "credentials"},
		{fault{status: 403, code: "SignatureDoesNotMatch"}, lane.Away, lane.Auth, true, "credentials"},
		{fault{status: 400, code: "ExpiredToken"}, lane.Away, lane.Auth, true, "credentials"},
		{fault{status: 401}, lane.Away, lane.Auth, true, "credentials"},
		{fault{status: 301, code: "PermanentRedirect", header: map[string]string{"Location": "http://169.254.169.254/"}}, lane.Away, lane.Invalid, true, "region"},
		{fault{status: 301, header: map[string]string{"Location": f.URL + "/elsewhere"}}, lane.Away, lane.Invalid, true, "region"},
		{fault{status: 400, code: "KMS.NotFoundException"}, lane.Away, lane.NotFound, true, "kms_key"},
		{fault{status: 400, code: "WhoKnows"}, lane.Away, lane.Invalid, true, "settings"},
		{fault{status: 405}, lane.Away, lane.Invalid, true, "settings"},
		{fault{status: 503, code: "SlowDown"}, lane.Wait, lane.Throttled, false, ""},
		{fault{status: 429}, lane.Wait, lane.Throttled, false, ""},
		{fault{status: 412, code: "PreconditionFailed"}, lane.Away, lane.Reset, false, ""},
		{fault{status: 409, code: "ConditionalRequestConflict"}, lane.Wait, lane.Throttled, false, ""},
		{fault{status: 500, code: "InternalError"}, lane.Away, lane.Reset, false, ""},
		{fault{status: 599}, lane.Away, lane.Reset, false, ""},
		{fault{status: 507}, lane.Away, lane.Full, false, "room"},
		{fault{status: 400, code: "RequestTimeout"}, lane.Away, lane.Slow, false, ""},
		{fault{status: 400, code: "BadDigest"}, lane.Away, lane.Reset, false, "damaged"},
		{fault{}, lane.Away, lane.Reset, false, ""},
	} {
		f.fault = on("put", 0, c.flt)
		e := refusal(t, s.Put(context.Background(), drop(1, "x")))
		if e.Verdict != c.verdict || e.Class != c.class || e.Park != c.park || !strings.Contains(e.Hint, c.hint) || c.park && e.Hint == "" {
			t.Errorf("%d %s: verdict %d, class %s, park %v, hint %q", c.flt.status, c.flt.code, e.Verdict, e.Class, e.Park, e.Hint)
		}
		if strings.Contains(e.Error(), "HostID") || c.flt.code != "" && !strings.Contains(e.Error(), "PutObject: "+strconv.Itoa(c.flt.status)+" "+c.flt.code+": as told") {
			t.Errorf("it says %v", e)
		}
		if !strings.Contains(e.Error(), "s3://lake/"+key) {
			t.Errorf("%d %s: the error does not say where: %v", c.flt.status, c.flt.code, e)
		}
	}
	if len(f.objects) != 0 {
		t.Errorf("stored: %v", f.objects)
	}
}

func TestAStoreThatAsksForAPauseGetsIt(t *testing.T) {
	f := newFake(t)
	for asked, want := range map[string]time.Duration{"7": 7 * time.Second, "86400": longestAfter, "soon": 0, "-1": 0} {
		f.fault = on("put", 0, fault{status: 503, code: "SlowDown", header: map[string]string{"Retry-After": asked}})
		if e := refusal(t, newSink(f, small).Put(context.Background(), drop(1, "x"))); e.After != want || e.Verdict != lane.Wait {
			t.Errorf("%s: %v, verdict %d", asked, e.After, e.Verdict)
		}
	}
}

// reach tries a put with nothing but these settings of the network.
func reach(t *testing.T, endpoint string, o Options) *lane.Error {
	t.Helper()
	o.Pause = time.Millisecond
	s := New(&tenants.S3Sink{Bucket: "lake", PathStyle: true, ConditionalPut: true, AWS: tenants.AWS{Endpoint: endpoint}}, NewClients("abc123", o))
	return refusal(t, s.Put(context.Background(), drop(1, "x")))
}

func TestWhatTheNetworkSaysIsWhatTheLaneDoes(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = nil
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	refuse := Options{Control: func(_, address string, _ syscall.RawConn) error { return errors.New("egress: no") }}
	for _, c := range []struct {
		name, endpoint string
		o              Options
		class          lane.Class
		park           bool
		hint           string
	}{
		{"nothing listens", closed.URL, Options{}, lane.Connect, false, "listens"},
		{"an authority that nobody knows", secure.URL, Options{}, lane.TLSVerify, true, "AWS_CA_BUNDLE"},
		{"no TLS there", strings.Replace(plain.URL, "http:", "https:", 1), Options{}, lane.TLSVerify, true, "scheme"},
		{"egress refuses", plain.URL, refuse, lane.Forbidden, true, "egress"},
		{"egress refuses TLS", secure.URL, refuse, lane.Forbidden, true, "egress"},
	} {
		if e := reach(t, c.endpoint, c.o); e.Verdict != lane.Away || e.Class != c.class || e.Park != c.park || !strings.Contains(e.Hint, c.hint) {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
	for err, want := range map[error]lane.Class{
		&net.DNSError{Err: "no such host", Name: "store.example", IsNotFound: true}: lane.DNS,
		&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}:                       lane.Timeout,
		context.DeadlineExceeded:                            lane.Timeout,
		&stalledError{os.ErrDeadlineExceeded}:               lane.Slow,
		&net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}: lane.Connect,
		&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}:   lane.TLSVerify,
		&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}}}: lane.TLSVerify,
		tls.AlertError(42):      lane.TLSClientCert,
		io.ErrUnexpectedEOF:     lane.Reset,
		syscall.ECONNRESET:      lane.Reset,
		errors.New("who knows"): lane.Reset,
	} {
		if s := judge(err); s.class != want || s.verdict != lane.Away {
			t.Errorf("%v: %+v", err, s)
		}
	}
}

func TestNoRegionIsTold(t *testing.T) {
	if e := reach(t, "", Options{}); e.Class != lane.Invalid || !e.Park || !strings.Contains(e.Hint, "region") {
		t.Errorf("%+v", e)
	}
}

func TestALoanEnds(t *testing.T) {
	reading, release := make(chan struct{}), make(chan struct{})
	l := &loan{body: watched{strings.NewReader("body"), func() { close(reading); <-release }}}
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := l.ReadAt(make([]byte, 4), 0); err != nil {
			t.Errorf("a read under way: %v", err)
		}
	}()
	<-reading
	go func() { over.Store(true); close(release) }()
	l.end()
	if !over.Load() {
		t.Error("the loan ended under a read")
	}
	<-done
	if _, err := l.ReadAt(make([]byte, 4), 0); !errors.Is(err, errReturned) {
		t.Errorf("a read after the end: %v", err)
	}
}

func TestABundleOfAuthoritiesIsReadAtEachConnection(t *testing.T) {
	f := newFake(t)
	secure := httptest.NewTLSServer(f)
	defer secure.Close()
	path := filepath.Join(t.TempDir(), "ca.pem")
	t.Setenv("AWS_CA_BUNDLE", path)
	if e := reach(t, secure.URL, Options{}); e.Class != lane.TLSVerify || !e.Park {
		t.Errorf("without the file: %+v", e)
	}
	if err := os.WriteFile(path, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := reach(t, secure.URL, Options{}); e.Class != lane.TLSVerify || !e.Park {
		t.Errorf("with something else in it: %+v", e)
	}
	raw := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	set := f.settings()
	set.AWS.Endpoint, set.ConditionalPut = secure.URL, false
	mustPut(t, New(set, NewClients("abc123", small)), drop(1, "one\n"))
	if got := f.objects[drop(1, "").Key].body; got != "one\n" {
		t.Errorf("stored %q", got)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	f := newFake(t)
	other := newFake(t)
	f.fault = on("put", 0, fault{status: 307, header: map[string]string{"Location": other.URL + "/lake/x"}})
	set := f.settings()
	set.ConditionalPut = false
	refusal(t, New(set, NewClients("abc123", small)).Put(context.Background(), drop(1, "x")))
	if len(other.calls) != 0 {
		t.Errorf("it went there: %v", other.calls)
	}
}

func TestAnAnswerThatNeverEndsIsNotWaitedForForEver(t *testing.T) {
	f := newFake(t)
	f.fault = on("put", 0, fault{status: 500, drip: true})
	set := f.settings()
	set.ConditionalPut = false
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if e := refusal(t, New(set, NewClients("abc123", small)).Put(ctx, drop(1, "x"))); e.Class != lane.Timeout || e.Park {
		t.Errorf("%+v", e)
	}
}

func TestAnAnswerIsReadToABound(t *testing.T) {
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		p := make([]byte, 1<<20)
		for range 64 {
			if _, err := w.Write(p); err != nil {
				return
			}
		}
		t.Error("all of 64 MiB was taken")
	}))
	defer endless.Close()
	if e := reach(t, endless.URL, Options{}); e.Class != lane.Invalid {
		t.Errorf("%+v", e)
	}
}

func TestASlowConnectionIsKeptAndAStandingOneIsNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		go func() { // 32 KiB every 20 s, for ten minutes, then nothing
			p := make([]byte, 32<<10)
			for range 30 {
				<-time.After(20 * time.Second)
				if _, err := io.ReadFull(b, p); err != nil {
					t.Error(err)
				}
			}
		}()
		c := stalling{a}
		for range 30 {
			if _, err := c.Write(make([]byte, 32<<10)); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		_, err := c.Write([]byte("x"))
		if s := judge(err); s.class != lane.Slow || s.park || time.Since(began) != stallTimeout {
			t.Errorf("after %v: %v, %+v", time.Since(began), err, s)
		}
		b.Close()
	})
}
