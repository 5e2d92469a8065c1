package check_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/exporter/check"
	"datasync/exporter/lane"
	"datasync/schemas"
)

// ask makes a request as a sink does, over a client that judges addresses.
func ask(r *check.Run, client *http.Client, url string, rules func(string, string, syscall.RawConn) error) func() check.Step {
	return func() check.Step {
		t, ok := client.Transport.(*http.Transport)
		if !ok {
			t = &http.Transport{}
		}
		t = t.Clone()
		t.DialContext = (&net.Dialer{Timeout: 5 * time.Second, Control: r.Control(rules)}).DialContext
		defer t.CloseIdleConnections()
		req, err := http.NewRequestWithContext(r.Trace(context.Background()), http.MethodGet, url, nil)
		if err != nil {
			return check.Step{Err: &lane.Error{Err: err}}
		}
		resp, err := (&http.Client{Transport: t}).Do(req)
		if err != nil {
			return check.Step{Err: &lane.Error{Class: lane.Connect, Err: err}}
		}
		_ = resp.Body.Close()
		return check.Step{Seen: resp.Status}
	}
}

func names(steps []check.Step) string {
	var out []string
	for _, s := range steps {
		name := s.Name
		if s.Err != nil {
			name += "!"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func TestTheNetworkIsToldInStepsOfItsOwn(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	srv.Config.ErrorLog = nil
	defer srv.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	plain.Close()
	refuse := func(string, string, syscall.RawConn) error { return errors.New("not there") }
	_, port, err := net.SplitHostPort(strings.TrimPrefix(plain.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, url string
		client    *http.Client
		rules     func(string, string, syscall.RawConn) error
		want      string
		seen      string
	}{
		{"well", srv.URL, srv.Client(), nil, "egress connect tls ask", "200 OK"},
		{"unknown authority", srv.URL, &http.Client{}, nil, "egress connect tls!", "the peer is O=Acme Co"},
		{"nobody there", "http://localhost:" + port, &http.Client{}, nil, "resolve egress connect!", ""},
		{"refused", srv.URL, srv.Client(), refuse, "egress!", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []check.Step
			r := check.New(func(s check.Step) { got = append(got, s) })
			well := r.Do("ask", ask(r, c.client, c.url, c.rules))
			// localhost may be two addresses, each judged and tried.
			if n := strings.Replace(names(got), "egress egress", "egress", 1); n != c.want || well != !strings.Contains(c.want, "!") {
				t.Errorf("%v: %s, want %s", well, n, c.want)
			}
			if last := got[len(got)-1]; !strings.Contains(last.Seen, c.seen) || last.Took <= 0 {
				t.Errorf("the last step is %+v", last)
			}
			if well { // a second time nothing of it is news
				got = nil
				r.Do("again", ask(r, c.client, c.url, c.rules))
				if names(got) != "again" {
					t.Errorf("again: %s", names(got))
				}
			}
		})
	}
}

func TestWhatWentWellOnTheNetworkIsNotBlamed(t *testing.T) {
	var got []check.Step
	r := check.New(func(s check.Step) { got = append(got, s) })
	ctx := r.Trace(context.Background())
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	r.Do("write", func() check.Step {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return check.Step{Err: &lane.Error{Class: lane.Forbidden, Err: errors.New("no")}}
	})
	if names(got) != "connect write!" {
		t.Errorf("%s", names(got))
	}
}

func TestTheTestEventIsAnEvent(t *testing.T) {
	line, id := check.Event("acme", nil, time.Now())
	var h schemas.Head
	if p := schemas.Scan(line[:len(line)-1], time.Now().UnixMilli(), &h); p != nil || line[len(line)-1] != '\n' {
		t.Fatalf("%v: %s", p, line)
	}
	var e schemas.Event
	if err := schemas.Decode(line[:len(line)-1], &e); err != nil || e.EventID != id || e.TenantID != "acme" || e.Kind != "audit" || e.Enforced {
		t.Errorf("%v: %+v", err, e)
	}
	line, _ = check.Event("acme", []string{"event_id", "action"}, time.Now())
	var some map[string]any
	if err := json.Unmarshal(line, &some); err != nil || len(some) != 2 || some["action"] != "none" {
		t.Errorf("%v: %s", err, line)
	}
	if _, other := check.Event("acme", nil, time.Now()); other == id {
		t.Error("two tests have one id")
	}
}

func TestCertificatesAndKeysAreTold(t *testing.T) {
	at := func(left time.Duration) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: "siem"}, Issuer: pkix.Name{CommonName: "CA"}, NotAfter: time.Now().Add(left)}
	}
	for left, want := range map[time.Duration]struct {
		text string
		soon bool
	}{
		100*24*time.Hour + time.Minute: {"(100 days)", false},
		3*24*time.Hour + time.Minute:   {"(3 days)", true},
		-5*24*time.Hour - time.Minute:  {"(5 days ago)", true},
	} {
		c := at(left)
		if got := check.Certificate(c); !strings.HasPrefix(got, "CN=siem, issued by CN=CA, ") || !strings.HasSuffix(got, want.text) || check.EndsSoon(c) != want.soon ||
			strings.Contains(got, "EXPIRED") != (left < 0) {
			t.Errorf("%v: %s, soon: %v", left, got, check.EndsSoon(c))
		}
	}
	for id, want := range map[string]string{"AKIAIOSFODNN7EXAMPLE": "AKIA…MPLE", "any": "a…", "": "…"} {
		if got := check.KeyID(id); got != want {
			t.Errorf("%q shows as %q, want %q", id, got, want)
		}
	}
}

func TestTheTestObjectLiesBesideTheDrops(t *testing.T) {
	key := check.ObjectKey("bots/", "acme", "lake")
	if !strings.HasPrefix(key, "bots/tenant=acme/sink=lake/.datasync-test-") || key == check.ObjectKey("bots/", "acme", "lake") {
		t.Error(key)
	}
	d := check.Object(key)
	body := make([]byte, d.Size)
	if n, err := d.Body.ReadAt(body, 0); n != len(body) || d.Size == 0 || d.Size > math.MaxInt16 || err != nil || !strings.Contains(string(body), "may be deleted") {
		t.Errorf("%d, %v: %s", n, err, body)
	}
}
