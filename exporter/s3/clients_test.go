package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"datasync/exporter/lane"
)

// onlyKey has the fake refuse every access key but the one that is asked for.
func (f *fake) onlyKey(id *string) {
	f.allow = func(r *http.Request) bool {
		return strings.Contains(r.Header.Get("Authorization"), "Credential="+*id+"/")
	}
}

func TestRotatedKeysAreReadFromTheFileAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", path)
	write := func(id string) {
		if err := os.WriteFile(path, []byte("[default]\naws_access_key_id = "+id+"\naws_secret_access_key = s\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := newFake(t)
	valid := "AKIAFIRST"
	f.onlyKey(&valid)
	s := newSink(f, small)
	if e := refusal(t, s.Put(context.Background(), drop(1, "x"))); e.Class != lane.Auth || !e.Park || !strings.Contains(e.Error(), "credentials") {
		t.Errorf("without any: %+v", e)
	}
	write("AKIAFIRST")
	mustPut(t, s, drop(1, "x"))
	valid = "AKIASECOND"
	if e := refusal(t, s.Put(context.Background(), drop(2, "x"))); e.Class != lane.Auth || !e.Park {
		t.Errorf("with the old: %+v", e)
	}
	write("AKIASECOND")
	mustPut(t, s, drop(2, "x"))
	k, err := s.clients.own.Retrieve(context.Background())
	if err != nil || time.Until(k.Expires) > reread {
		t.Errorf("they are good for %v, %v", time.Until(k.Expires), err)
	}
}

func TestAMendedSecretOfTheSameKeyCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", path)
	write := func(secret string) {
		if err := os.WriteFile(path, []byte("[default]\naws_access_key_id = AKIASAME\naws_secret_access_key = "+secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := newFake(t)
	f.allow = signedWith("right")
	s := newSink(f, small)
	write("wrong")
	if e := refusal(t, s.Put(context.Background(), drop(1, "x"))); e.Class != lane.Auth {
		t.Errorf("%+v", e)
	}
	write("right")
	mustPut(t, s, drop(1, "x"))
}

// signedWith holds a request's signature to a secret, by signing it again.
func signedWith(secret string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		auth := r.Header.Get("Authorization")
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		if err != nil {
			return false
		}
		again := r.Clone(context.Background())
		again.URL.Scheme, again.URL.Host = "http", r.Host
		_, names, _ := strings.Cut(auth, "SignedHeaders=")
		names, _, _ = strings.Cut(names, ",")
		again.Header = http.Header{}
		for _, n := range strings.Split(names, ";") {
			if v := r.Header.Get(n); v != "" {
				again.Header.Set(n, v)
			}
		}
		err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).SignHTTP(context.Background(),
			aws.Credentials{AccessKeyID: "AKIASAME", SecretAccessKey: secret}, again, r.Header.Get("X-Amz-Content-Sha256"), "s3", "eu-west-1", at)
		return err == nil && again.Header.Get("Authorization") == auth
	}
}

// TestTenThousandTenants: their clients are few, their connections too.
func TestTenThousandTenants(t *testing.T) {
	f := newFake(t)
	c := NewClients("abc123", small)
	sinks := make([]*Sink, 10_000)
	for i := range sinks {
		set := f.settings()
		set.Prefix, set.ConditionalPut = fmt.Sprintf("t%d", i), false
		sinks[i] = New(set, c)
	}
	for i, s := range sinks[:200] {
		mustPut(t, s, drop(i+1, "x"))
	}
	if len(c.by) != 1 {
		t.Errorf("%d clients", len(c.by))
	}
	if n := f.connections.Load(); n > 4 {
		t.Errorf("%d connections for one after the other", n)
	}
}

func TestAClientThatNoSinkHoldsIsForgotten(t *testing.T) {
	f := newFake(t)
	c := NewClients("abc123", small)
	for i := range 200 {
		set := f.settings()
		set.ConditionalPut, set.AWS.Region = false, fmt.Sprintf("region-%d", i)
		mustPut(t, New(set, c), drop(i+1, "x"))
		if i%50 == 49 {
			runtime.GC()
		}
	}
	if len(c.by) > 150 {
		t.Errorf("%d clients are kept", len(c.by))
	}
}

func TestARoleIsAssumed(t *testing.T) {
	f := newFake(t)
	set := f.settings()
	set.AWS.RoleARN, set.AWS.ExternalID = "arn:aws:iam::123456789012:role/drops", "acme-7"
	s := New(set, NewClients("abc123", small))
	for _, c := range []struct {
		code  string
		class lane.Class
		hint  string
	}{{"AccessDenied", lane.Forbidden, "external_id"}, {"ValidationError", lane.Invalid, "role_arn"}, {"InvalidClientTokenId", lane.Auth, "credentials"}} {
		f.fault = on("assume", 0, fault{status: 403, code: c.code})
		if c.code == "ValidationError" {
			f.fault = on("assume", 0, fault{status: 400, code: c.code})
		}
		e := refusal(t, s.Put(context.Background(), drop(1, "x")))
		if e.Class != c.class || !e.Park || !strings.Contains(e.Hint, c.hint) || !strings.Contains(e.Error(), set.AWS.RoleARN) {
			t.Errorf("%s: %+v", c.code, e)
		}
	}
	f.fault = nil
	mustPut(t, s, drop(1, "x"))
	mustPut(t, s, drop(2, "x"))
	if f.assumed.Get("ExternalId") != "acme-7" || f.assumed.Get("RoleArn") != set.AWS.RoleARN || f.assumed.Get("RoleSessionName") != "datasync-abc123" {
		t.Errorf("asked with %v", f.assumed)
	}
	if got := f.objects[drop(2, "").Key].header.Get("Authorization"); !strings.Contains(got, "Credential=ASIAROLE/") {
		t.Errorf("put as %s", got)
	}
}

// TestCredentialsThatExpireAreHadAgain: a role is assumed again some minutes
// before its credentials end, and a web identity with the token that is in its
// file by then.
func TestCredentialsThatExpireAreHadAgain(t *testing.T) {
	f := newFake(t)
	f.lasts = time.Minute // less than is kept in hand
	t.Setenv("AWS_ENDPOINT_URL_STS", f.URL)
	set := f.settings()
	set.AWS.RoleARN = "arn:aws:iam::123456789012:role/drops"
	s := New(set, NewClients("abc123", small))
	for n := range 3 {
		before := f.count("assume")
		mustPut(t, s, drop(n+1, "x"))
		if f.count("assume") == before {
			t.Errorf("put %d: its credentials end within a minute", n+1)
		}
	}
	f.lasts = -time.Second // over at once
	token := filepath.Join(t.TempDir(), "token")
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_REGION": "eu-west-1",
		"AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::1:role/web"} {
		t.Setenv(k, v)
	}
	s = newSink(f, small)
	for n, text := range []string{"token-one", "token-two"} {
		if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		mustPut(t, s, drop(n+11, "x"))
		if f.assumed.Get("WebIdentityToken") != text {
			t.Errorf("assumed with %v", f.assumed)
		}
	}
}

// TestAPutWaitsForAProbeNoLongerThanItsContext: where another put is asking a
// store that hangs, this one can still be cut short.
func TestAPutWaitsForAProbeNoLongerThanItsContext(t *testing.T) {
	s := New(newFake(t).settings(), NewClients("abc123", small))
	s.clients.probed(s.set).turn <- struct{}{} // another's
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Put(ctx, drop(1, "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-s.clients.probed(s.set).turn
	mustPut(t, s, drop(1, "x"))
}
