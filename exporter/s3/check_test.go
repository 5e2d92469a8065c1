package s3

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"datasync/exporter/check"
	"datasync/exporter/lane"
	"datasync/exporter/tenants"
)

// tried is what a check of a sink told.
type tried struct {
	works bool
	steps map[string]check.Step
	order string
	fail  *lane.Error
}

func try(set *tenants.S3Sink, o Options) tried {
	out := tried{steps: map[string]check.Step{}}
	r := check.New(func(s check.Step) {
		out.steps[s.Name], out.order = s, out.order+" "+s.Name
		if s.Err != nil {
			out.fail = s.Err
		}
	})
	o.Control = r.Control(o.Control)
	out.works = New(set, NewClients("test", o)).Check(context.Background(), check.ObjectKey("bots/", "acme", "lake"), r)
	return out
}

func TestCheckOfASinkThatWorks(t *testing.T) {
	f := newFake(t)
	set := f.settings()
	set.AWS.RoleARN, set.AWS.ExternalID = "arn:aws:iam::1:role/drops", "acme-7"
	t.Setenv("AWS_ENDPOINT_URL_STS", f.URL)
	got := try(set, small)
	if !got.works || got.order != " credentials egress connect role bucket write conditional read remove" || got.fail != nil {
		t.Fatalf("%+v", got)
	}
	for step, want := range map[string]string{"credentials": "AK…", "role": "role/drops assumed, until", "bucket": "region eu-west-1",
		"write": "s3://lake/bots/tenant=acme/sink=lake/.datasync-test-", "conditional": "honours If-None-Match", "remove": "nothing is left"} {
		if s := got.steps[step]; !strings.Contains(s.Seen, want) || s.Note {
			t.Errorf("%s: %+v", step, s)
		}
	}
	if len(f.objects) != 0 || f.assumed.Get("ExternalId") != "acme-7" {
		t.Errorf("left: %v; assumed with %v", f.objects, f.assumed)
	}
}

// What does not keep a sink from working is a note.
func TestCheckNotes(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fake, *tenants.S3Sink)
		step   string
		says   string
		stays  int
	}{
		"may not look": {func(f *fake, _ *tenants.S3Sink) { f.fault = on("bucket", 0, fault{status: 403, code: "AccessDenied"}) }, "bucket", "decides nothing", 0},
		"may not read": {func(f *fake, _ *tenants.S3Sink) { f.fault = on("head", 0, fault{status: 403, code: "AccessDenied"}) }, "read", "s3:GetObject", 0},
		"may not delete": {func(f *fake, _ *tenants.S3Sink) { f.fault = on("delete", 0, fault{status: 403, code: "AccessDenied"}) },
			"remove", "s3://lake/bots/tenant=acme/sink=lake/.datasync-test-", 1},
		"ignores the condition": {func(f *fake, _ *tenants.S3Sink) { f.ignores = true }, "conditional", "does not honour If-None-Match", 0},
		"refuses the condition": {func(f *fake, _ *tenants.S3Sink) { f.fault = on("put", 1, fault{status: 501, code: "NotImplemented"}) },
			"write", "conditional_put: false", 0},
		"another encryption": {func(_ *fake, s *tenants.S3Sink) { s.SSE = "aws:kms" }, "read", "sse: aws:kms was asked for", 0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			set := f.settings()
			c.change(f, set)
			got := try(set, small)
			if s := got.steps[c.step]; !got.works || !s.Note || !strings.Contains(s.Seen, c.says) {
				t.Errorf("works: %v; %+v", got.works, s)
			}
			if len(f.objects) != c.stays {
				t.Errorf("%d objects are left: %v", len(f.objects), f.objects)
			}
		})
	}
}

// TestCheckSaysWhatTheLaneSays: whatever keeps a drop out is told with the
// reason class, the hint and the step.
func TestCheckSaysWhatTheLaneSays(t *testing.T) {
	refuse := func(string, string, syscall.RawConn) error { return errors.New("egress: no") }
	for name, c := range map[string]struct {
		flt   *fault
		set   func(*tenants.S3Sink)
		o     Options
		step  string
		class lane.Class
	}{
		"no bucket":    {flt: &fault{status: 404, code: "NoSuchBucket"}, step: "write", class: lane.NotFound},
		"wrong secret": {flt: &fault{status: 403, code: "SignatureDoesNotMatch"}, step: "write", class: lane.Auth},
		"no right":     {flt: &fault{status: 403, code: "AccessDenied"}, step: "write", class: lane.Forbidden},
		"KMS key":      {flt: &fault{status: 400, code: "KMS.NotFoundException"}, step: "write", class: lane.NotFound},
		"throttled":    {flt: &fault{status: 503, code: "SlowDown"}, step: "write", class: lane.Throttled},
		"no region":    {set: func(s *tenants.S3Sink) { s.AWS = tenants.AWS{} }, step: "credentials", class: lane.Invalid},
		"nobody there": {set: func(s *tenants.S3Sink) { s.AWS.Endpoint = "http://127.0.0.1:1" }, step: "connect", class: lane.Connect},
		"no name":      {set: func(s *tenants.S3Sink) { s.AWS.Endpoint = "http://not..a.name" }, step: "resolve", class: lane.DNS},
		"egress":       {o: Options{Control: refuse}, step: "egress", class: lane.Forbidden},
		"no TLS":       {set: func(s *tenants.S3Sink) { s.AWS.Endpoint = strings.Replace(s.AWS.Endpoint, "http:", "https:", 1) }, step: "tls", class: lane.TLSVerify},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if c.flt != nil {
				f.fault = func(step string, _ int) *fault {
					if step == "put" || step == "probe put" {
						return c.flt
					}
					return nil
				}
			}
			set := f.settings()
			if c.set != nil {
				c.set(set)
			}
			o := c.o
			o.Pause = small.Pause
			set.ConditionalPut = false // the drop's own put is compared, not the probe's
			inLane := refusal(t, New(set, NewClients("abc123", o)).Put(context.Background(), drop(1, "x")))
			got := try(set, o)
			if got.works || got.steps[c.step].Err == nil || got.fail.Class != c.class {
				t.Fatalf("works: %v, told%s, %v", got.works, got.order, got.fail)
			}
			if inLane.Class != got.fail.Class || inLane.Hint != got.fail.Hint || inLane.Park != got.fail.Park {
				t.Errorf("the lane says %s, %q; the check %s, %q", inLane.Class, inLane.Hint, got.fail.Class, got.fail.Hint)
			}
			if len(f.objects) != 0 {
				t.Errorf("left: %v", f.objects)
			}
		})
	}
}

// TestCheckLeavesNothingWhereItFailsLate: what was written is removed also
// where a later step fails.
func TestCheckLeavesNothingWhereItFailsLate(t *testing.T) {
	f := newFake(t)
	f.fault = func(step string, n int) *fault {
		if step == "put" && n > 1 {
			return &fault{status: 400, code: "WhoKnows"}
		}
		return nil
	}
	got := try(f.settings(), small)
	if got.works || got.steps["conditional"].Err == nil || len(f.objects) != 0 {
		t.Errorf("%+v, left: %v", got, f.objects)
	}
}
