package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const listen = "127.0.0.1:8080"

func newServer(t *testing.T, f *fake, change func(*Options)) *Server {
	t.Helper()
	o := Options{Listen: listen, Backend: f.backend(), Now: func() time.Time { return start }}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ask sends one request with the headers given as "Name: value".
func ask(s *Server, method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Host = listen
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		}
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder, status int) T {
	t.Helper()
	var v T
	if w.Code != status {
		t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	return v
}

func TestNewRefusesWhatIsUnsafe(t *testing.T) {
	f := newFake()
	for listen, want := range map[string]string{
		"0.0.0.0:8080":         "admin.token",
		":8080":                "admin.token",
		"admin.internal:8080":  "admin.token",
		"127.0.0.1":            "host:port",
		"[::ffff:10.0.0.1]:80": "admin.token",
	} {
		if _, err := New(Options{Listen: listen, Backend: f.backend()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", listen, err, want)
		}
	}
	for _, o := range []Options{
		{Listen: "0.0.0.0:8080", Token: "t", Backend: f.backend()},
		{Listen: "[::1]:8080", Backend: f.backend()},
		{Listen: "localhost:8080", Backend: f.backend()},
	} {
		if _, err := New(o); err != nil {
			t.Errorf("%s: %v", o.Listen, err)
		}
	}
	if _, err := New(Options{Listen: listen}); err == nil {
		t.Error("a server without a backend was made")
	}
}

func TestGuard(t *testing.T) {
	const pause = "/v1/lanes/acme/siem/pause"
	bearer, jsonType := "Authorization: Bearer s3cret", "Content-Type: application/json"
	for _, c := range []struct {
		what, method, path string
		headers            []string
		want               int
	}{
		{"the token", "GET", "/v1/lanes", []string{bearer}, 200},
		{"the scheme in small letters", "GET", "/v1/lanes", []string{"Authorization: bearer s3cret"}, 200},
		{"no token", "GET", "/v1/lanes", nil, 401},
		{"another token", "GET", "/v1/lanes", []string{"Authorization: Bearer s3cre"}, 401},
		{"the token without its scheme", "GET", "/v1/lanes", []string{"Authorization: s3cret"}, 401},
		{"another scheme", "GET", "/v1/lanes", []string{"Authorization: Basic s3cret"}, 401},
		{"an empty token", "GET", "/v1/lanes", []string{"Authorization: Bearer "}, 401},
		{"metrics without token", "GET", "/metrics", nil, 401},
		{"metrics", "GET", "/metrics", []string{bearer}, 200},
		{"the page without token", "GET", "/", nil, 401},
		{"what is not there, without token", "GET", "/v1/nothing", nil, 401},
		{"what is not there", "GET", "/v1/nothing", []string{bearer}, 404},
		{"health without token", "GET", "/healthz", nil, 200},
		{"readiness without token", "GET", "/readyz", nil, 200},
		{"health below another path", "GET", "/healthz/../v1/lanes", nil, 401},
		{"a name of this machine", "GET", "/healthz", []string{"Host: LocalHost:8080"}, 200},
		{"a host of the settings, any port", "GET", "/healthz", []string{"Host: admin.example:9999"}, 200},
		{"a host of the settings, its port", "GET", "/healthz", []string{"Host: sync.example:8443"}, 200},
		{"a host of the settings, another port", "GET", "/healthz", []string{"Host: sync.example:8444"}, 421},
		{"another host", "GET", "/healthz", []string{"Host: evil.example:8080"}, 421},
		{"another host with the token", "GET", "/v1/lanes", []string{bearer, "Host: evil.example"}, 421},
		{"another port of this machine", "GET", "/healthz", []string{"Host: 127.0.0.1:81"}, 421},
		{"a change", "POST", pause, []string{bearer, jsonType}, 200},
		{"a change with a charset", "POST", pause, []string{bearer, "Content-Type: application/json; charset=utf-8"}, 200},
		{"a change without token", "POST", pause, []string{jsonType}, 401},
		{"a change without type", "POST", pause, []string{bearer}, 415},
		{"a form", "POST", pause, []string{bearer, "Content-Type: application/x-www-form-urlencoded"}, 415},
		{"a form that looks like JSON", "POST", pause, []string{bearer, "Content-Type: text/plain;application/json"}, 415},
		{"a change from our page", "POST", pause, []string{bearer, jsonType, "Origin: http://127.0.0.1:8080"}, 200},
		{"a change from another page", "POST", pause, []string{bearer, jsonType, "Origin: http://evil.example"}, 403},
		{"a change from another port", "POST", pause, []string{bearer, jsonType, "Origin: http://127.0.0.1:8081"}, 403},
		{"a change from a sandboxed page", "POST", pause, []string{bearer, jsonType, "Origin: null"}, 403},
		{"a change by GET", "GET", pause, []string{bearer}, 405},
	} {
		t.Run(c.what, func(t *testing.T) {
			f := newFake()
			s := newServer(t, f, func(o *Options) { o.Token, o.Hosts = "s3cret", []string{"admin.example", "sync.example:8443"} })
			w := ask(s, c.method, c.path, c.headers...)
			if w.Code != c.want {
				t.Errorf("status %d, want %d: %s", w.Code, c.want, w.Body)
			}
			if done := len(f.acts) > 0; done != (c.method == "POST" && c.want == 200) {
				t.Errorf("the lane was moved: %v", done)
			}
			if c.want == 401 && w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Error("401 without WWW-Authenticate")
			}
		})
	}
}

func TestWithoutATokenEveryoneMay(t *testing.T) {
	s := newServer(t, newFake(), nil)
	if w := ask(s, "GET", "/v1/lanes"); w.Code != 200 {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestServe(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Configured with port 0: the Host is judged by where the connection came in.
	s := newServer(t, newFake(), func(o *Options) { o.Listen = "127.0.0.1:0" })
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for host, want := range map[string]int{ln.Addr().String(): 200, "localhost:" + port: 200, "evil.example:" + port: 421, "10.0.0.1:" + port: 421} {
		if got := getWithHost(t, ln.Addr().String(), host); got != want {
			t.Errorf("Host %s: status %d, want %d", host, got, want)
		}
	}
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the server did not stop")
	}
}

func getWithHost(t *testing.T, addr, host string) int {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func TestServeFailsWithItsListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := newServer(t, newFake(), nil).Serve(context.Background(), ln); !errors.Is(err, net.ErrClosed) {
		t.Errorf("error %v", err)
	}
}
