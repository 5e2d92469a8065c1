package cloud

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"datasync/feeds"
	"datasync/feeds/outage"
)

func said(code string) error { return &smithy.GenericAPIError{Code: code, Message: "m"} }

func answered(status int) error {
	return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: errors.New("no code")}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		err         error
		class, hint string
	}{
		{nil, "", ""}, {context.Canceled, "", ""}, {feeds.ErrFull, "full", "journal.max_bytes"}, {errRegion, "invalid", "AWS_REGION"},
		{said("ProvisionedThroughputExceededException"), Throttled, "other consumers"}, {said("ThrottlingException"), Throttled, "pause"},
		{said("SlowDown"), Throttled, "pause"}, {said("KMSAccessDeniedException"), Forbidden, "kms:Decrypt"},
		{said("AccessDenied"), Forbidden, "allow s3:GetObject to the identity"}, {said("AWS.SimpleQueueService.NonExistentQueue"), NotFound, "make the queue"},
		{said("NoSuchKey"), NotFound, "object is not there"}, {said("ResourceNotFoundException"), NotFound, "make it"},
		{said("ExpiredTokenException"), "auth", "access key"}, {said("InvalidAccessKeyId"), "auth", "access key"},
		{answered(503), Throttled, "pause"}, {answered(500), "reset", "by itself"}, {answered(403), Forbidden, "allow s3:GetObject"},
		{answered(404), NotFound, "check the name"}, {answered(400), "invalid 400 ", "right service"},
		{&identityError{io.EOF}, "auth", "AWS_ACCESS_KEY_ID"}, {&roleError{"r", said("AccessDenied")}, "auth", "trust policy"},
		{&roleError{"r", syscall.ECONNREFUSED}, "connect", "nothing listens"},
		{&net.DNSError{}, "dns", "resolver"}, {&tls.CertificateVerificationError{Err: io.EOF}, "tls-verify", "AWS_CA_BUNDLE"},
		{context.DeadlineExceeded, "timeout", "no answer"}, {syscall.ECONNRESET, "reset", "early"}, {errors.New("x"), "other", "tried again"},
	} {
		class, hint := Judge(c.err, "s3:GetObject")
		if class != c.class || !strings.Contains(hint, c.hint) {
			t.Errorf("%v: %q %q, want %q and %q", c.err, class, hint, c.class, c.hint)
		}
	}
	if got := Brief(fmt.Errorf("operation error: %w", said("NoSuchKey"))); got.Error() != "NoSuchKey: m" || Code(got) != "NoSuchKey" {
		t.Errorf("brief: %v", got)
	}
	if got := Brief(io.EOF); got != io.EOF {
		t.Errorf("brief: %v", got)
	}
}

func TestTroubleIsToldOnceForEachReason(t *testing.T) {
	var heard []string
	on := func(err error) { heard = append(heard, err.Error()) }
	tr := NewTrouble("feed", "all", on)
	tr.Tell("a", said("AccessDenied"))
	tr.Tell("b", said("AccessDenied"))
	tr.Tell("a", said("AccessDenied"))
	tr.Tell("b", said("ThrottlingException")) // it passes
	tr.Tell("c", context.Canceled)
	tr.Tell("a", nil)
	if len(heard) != 1 {
		t.Errorf("told %q", heard)
	}
	tr.Tell("b", nil)
	if len(heard) != 2 || !strings.HasPrefix(heard[1], "feed: all is well again after ") {
		t.Errorf("told %q", heard)
	}
	o := told("feed", "all", on)
	o.Grace = 0
	tr = outage.New(o)
	tr.Tell("b", said("ThrottlingException"))
	if len(heard) != 3 || !strings.Contains(heard[2], "feed: ThrottlingException: m (") {
		t.Errorf("told %q", heard)
	}
}

// environment hides the machine's own identity.
func environment(t *testing.T, more map[string]string) {
	t.Helper()
	all := map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent", "AWS_CONTAINER_CREDENTIALS_FULL_URI": ""}
	for k, v := range more {
		all[k] = v
	}
	for k, v := range all {
		t.Setenv(k, v)
	}
}

func TestIdentity(t *testing.T) {
	ctx := context.Background()
	environment(t, nil)
	if _, err := Config(ctx, Options{}); !errors.Is(err, errRegion) {
		t.Errorf("without a region: %v", err)
	}
	cfg, err := Config(ctx, Options{Endpoint: "http://127.0.0.1:1"})
	if err != nil || cfg.Region != "us-east-1" {
		t.Errorf("%q, %v", cfg.Region, err)
	}
	_, err = cfg.Credentials.Retrieve(ctx)
	if class, _ := Judge(err, ""); class != "auth" {
		t.Errorf("without keys: %v is %q", err, class)
	}
	// Keys in a file are read again, since they are rotated.
	file := filepath.Join(t.TempDir(), "credentials")
	environment(t, map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file})
	for _, key := range []string{"AKIDONE", "AKIDTWO"} {
		if err := os.WriteFile(file, fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = s\n", key), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := chain(nil).Retrieve(ctx)
		if err != nil || k.AccessKeyID != key || !k.CanExpire || time.Until(k.Expires) > reread {
			t.Errorf("%+v, %v", k, err)
		}
	}
}

func TestRole(t *testing.T) {
	var form string
	refuse := false
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form = string(body)
		if refuse {
			w.WriteHeader(403)
			_, _ = io.WriteString(w, `<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`)
			return
		}
		_, _ = fmt.Fprintf(w, `<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	environment(t, map[string]string{"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL_STS": sts.URL})
	role := Options{Region: "eu-west-1", RoleARN: "arn:aws:iam::123456789012:role/read", ExternalID: "acme-7"}
	cfg, err := Config(context.Background(), role)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(cfg)
	k, err := cfg.Credentials.Retrieve(context.Background())
	if err != nil || k.AccessKeyID != "ASIAROLE" || !strings.Contains(form, "ExternalId=acme-7") || !strings.Contains(form, "RoleSessionName=datasync") {
		t.Errorf("%+v, %v, %s", k, err, form)
	}
	refuse = true
	cfg, err = Config(context.Background(), role)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(cfg)
	_, err = cfg.Credentials.Retrieve(context.Background())
	if class, hint := Judge(err, ""); class != "auth" || !strings.Contains(hint, "trust policy") {
		t.Errorf("%v: %q %q", err, class, hint)
	}
}
