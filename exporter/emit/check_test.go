package emit_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"datasync/emitter"
	"datasync/emitter/emittertest"
	"datasync/exporter/check"
	"datasync/exporter/emit"
	"datasync/exporter/lane"
)

// tried is what a check of a sink told.
type tried struct {
	works bool
	steps map[string]check.Step // the last of each name
	order string
	fail  *lane.Error // the first
}

func try(o emitter.Options) tried {
	out := tried{steps: map[string]check.Step{}}
	r := check.New(func(s check.Step) {
		out.steps[s.Name], out.order = s, out.order+" "+s.Name
		if s.Err != nil && out.fail == nil {
			out.fail = s.Err
		}
	})
	out.works = emit.Check(context.Background(), o, []byte("{\"event_id\":\"test-1\"}\n"), "test-1", r)
	return out
}

func to(r *emittertest.Receiver, addresses ...string) emitter.Options {
	return emitter.Options{Addresses: append(addresses, r.Addr()), TLS: emitter.TLS{CA: r.Certs().CA}, DrainTimeout: 200 * time.Millisecond}
}

func TestCheckSendsOneLine(t *testing.T) {
	for name, c := range map[string]struct {
		o    emittertest.Options
		note bool
		says string
	}{
		"orderly": {emittertest.Options{}, false, "confirm: drain"},
		"weak":    {emittertest.Options{Answer: emittertest.BareFIN}, true, "confirm: weak"},
		"mutual":  {emittertest.Options{ClientCA: true}, false, "confirm: drain"},
	} {
		t.Run(name, func(t *testing.T) {
			r := emittertest.New(t, c.o)
			o := to(r)
			if c.o.ClientCA {
				o.TLS.Cert, o.TLS.Key = r.Certs().ClientCert, r.Certs().ClientKey
			}
			got := try(o)
			if !got.works || got.order != " certificate egress connect tls drain write" {
				t.Fatalf("%+v", got)
			}
			if s := got.steps["drain"]; s.Note != c.note || !strings.Contains(s.Seen, c.says) {
				t.Errorf("%+v", s)
			}
			if s := got.steps["tls"]; !strings.Contains(s.Seen, "TLS 1.3, TLS_") || !strings.Contains(s.Seen, "CN=receiver, issued by CN=Data Sync trial CA") || !s.Note {
				t.Errorf("%+v", s) // its certificate is good for a day
			}
			if s := got.steps["certificate"]; strings.Contains(s.Seen, "CN=sender") != c.o.ClientCA {
				t.Errorf("%+v", s)
			}
			if lines := r.Lines(); len(lines) != 1 || !strings.Contains(lines[0], "test-1") {
				t.Errorf("the receiver has %q", lines)
			}
		})
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	refuse := func(string, string, syscall.RawConn) error { return errors.New("egress: no") }
	for name, c := range map[string]struct {
		o     emittertest.Options
		set   func(*emitter.Options, *emittertest.Receiver)
		step  string
		class lane.Class
		hint  string
	}{
		"no certificate": {o: emittertest.Options{ClientCA: true}, step: "drain", class: lane.TLSClientCert, hint: "set tls.cert"},
		"foreign certificate": {o: emittertest.Options{ClientCA: true}, step: "drain", class: lane.TLSClientCert, hint: "check its issuer",
			set: func(o *emitter.Options, r *emittertest.Receiver) {
				o.TLS.Cert, o.TLS.Key = r.Certs().ForeignCert, r.Certs().ForeignKey
			}},
		"wrong authority": {step: "tls", class: lane.TLSVerify, hint: "tls.ca",
			set: func(o *emitter.Options, r *emittertest.Receiver) { o.TLS.CA = r.Certs().ForeignCert }},
		"wrong name": {step: "tls", class: lane.TLSVerify, hint: "tls.server_name",
			set: func(o *emitter.Options, _ *emittertest.Receiver) { o.TLS.ServerName = "somebody.else" }},
		"nobody there": {step: "connect", class: lane.Connect, hint: "nothing listens",
			set: func(o *emitter.Options, _ *emittertest.Receiver) { o.Addresses = []string{"127.0.0.1:1"} }},
		"no name": {step: "resolve", class: lane.DNS, hint: "host name",
			set: func(o *emitter.Options, _ *emittertest.Receiver) { o.Addresses = []string{"not..a.name:6514"} }},
		"egress": {step: "egress", class: lane.Forbidden, hint: "egress",
			set: func(o *emitter.Options, _ *emittertest.Receiver) { o.Control = refuse }},
		"no answer": {o: emittertest.Options{Answer: emittertest.NoAnswer}, step: "drain", class: lane.Timeout, hint: "confirm: window"},
		"no such file": {step: "certificate", class: lane.TLSVerify, hint: "PEM",
			set: func(o *emitter.Options, _ *emittertest.Receiver) { o.TLS.CA = "/nonexistent" }},
	} {
		t.Run(name, func(t *testing.T) {
			r := emittertest.New(t, c.o)
			o := to(r)
			if c.set != nil {
				c.set(&o, r)
			}
			got := try(o)
			if got.works || got.steps[c.step].Err == nil || got.fail.Class != c.class || !strings.Contains(got.fail.Hint, c.hint) {
				t.Errorf("told%s; %v", got.order, got.fail)
			}
			if got.fail != nil && got.fail.Park == (c.class == lane.Connect || c.class == lane.DNS || c.class == lane.Timeout) {
				t.Errorf("park: %v", got.fail.Park)
			}
			if n := len(r.Lines()); n != 0 {
				t.Errorf("%d lines went out", n)
			}
		})
	}
}

// TestCheckOfSeveralAddresses: one that works is enough, and all are told.
func TestCheckOfSeveralAddresses(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	got := try(to(r, "127.0.0.1:1"))
	if !got.works || got.order != " certificate egress connect connect tls drain write" || got.fail == nil || got.fail.Class != lane.Connect {
		t.Errorf("%+v", got)
	}
}

// TestCheckOfAReceiverThatStopsReading: it drains well and takes the line
// without ever proving that it read it.
func TestCheckOfAReceiverThatStopsReading(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{})
	o := to(r)
	o.Control = func(_, _ string, _ syscall.RawConn) error {
		if r.Connections() > 0 {
			r.Set(emittertest.NoAnswer) // from the second connection on
		}
		return nil
	}
	got := try(o)
	if got.works || got.steps["write"].Err == nil || got.fail.Class != lane.Timeout {
		t.Errorf("%+v", got)
	}
}

// TestCheckTellsAnUnusablePair before anything is dialled.
func TestCheckTellsAnUnusablePair(t *testing.T) {
	r := emittertest.New(t, emittertest.Options{ClientCA: true})
	bad := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(bad, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := to(r)
	o.TLS.Cert, o.TLS.Key = r.Certs().ClientCert, bad
	if got := try(o); got.works || got.order != " certificate" || got.fail.Class != lane.TLSClientCert {
		t.Errorf("%+v", got)
	}
}

// TestCheckOfTheOtherWays: window and RELP have first steps of their own, and
// the line's step says what is known of it.
func TestCheckOfTheOtherWays(t *testing.T) {
	open := emittertest.New(t, emittertest.Options{Answer: emittertest.NoAnswer})
	o := to(open)
	o.Confirm = emitter.Window
	got := try(o)
	if s := got.steps["stay"]; !got.works || got.order != " certificate egress connect tls stay write" || !s.Note || !strings.Contains(s.Seen, "confirm: window") {
		t.Errorf("%+v", got)
	}
	if s := got.steps["write"]; !strings.Contains(s.Seen, "taken by the receiver's kernel (event_id test-1)") {
		t.Errorf("%+v", s)
	}
	open.Wait(10*time.Second, "the line", func(lines, _ int) bool { return lines == 1 })

	relp := emittertest.NewRELP(t, emittertest.RELPOptions{})
	o.Confirm, o.Addresses, o.TLS.CA = emitter.Protocol, []string{relp.Addr()}, relp.Certs().CA
	got = try(o)
	if s := got.steps["open"]; !got.works || got.order != " certificate egress connect tls open write" || s.Note || !strings.Contains(s.Seen, "confirm: protocol") {
		t.Errorf("%+v", got)
	}
	if s := got.steps["write"]; !strings.Contains(s.Seen, "was acknowledged (event_id test-1)") || len(relp.Records()) != 1 {
		t.Errorf("%+v", s)
	}

	o.DialTimeout, o.Addresses, o.TLS.CA = 300*time.Millisecond, []string{open.Addr()}, open.Certs().CA
	if got = try(o); got.works || got.steps["open"].Err == nil || got.fail.Class != lane.Timeout || !strings.Contains(got.fail.Hint, "imrelp") {
		t.Errorf("%+v", got)
	}
	picky := emittertest.New(t, emittertest.Options{ClientCA: true, Answer: emittertest.NoAnswer})
	o = to(picky)
	o.Confirm = emitter.Window
	if got = try(o); got.works || got.steps["stay"].Err == nil || got.fail.Class != lane.TLSClientCert || !strings.Contains(got.fail.Hint, "set tls.cert") {
		t.Errorf("%+v", got)
	}
}
