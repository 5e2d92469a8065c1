package kinesis

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"datasync/exporter/check"
	"datasync/exporter/lane"
)

// described answers DescribeStreamSummary as told and leaves the rest to a stream.
type described struct {
	*fakeStream
	status int
	text   string
}

func (d described) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Amz-Target") != "Kinesis_20131202.DescribeStreamSummary" {
		d.fakeStream.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	var in struct{ StreamName string }
	if err != nil || json.Unmarshal(body, &in) != nil || in.StreamName == "" {
		d.t.Errorf("no request to describe a stream: %q, %v", body, err)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(d.status)
	_, _ = io.WriteString(w, d.text)
}

const summary = `{"StreamDescriptionSummary":{"StreamName":"events","StreamStatus":%q,"OpenShardCount":3,"RetentionPeriodHours":24,
"EncryptionType":"KMS","KeyId":"alias/acme","StreamModeDetails":{"StreamMode":"ON_DEMAND"}}}`

// tried is what a check of a sink told.
type tried struct {
	works bool
	steps map[string]check.Step
	order string
	fail  *lane.Error
}

func try(o Options, line []byte) tried {
	out := tried{steps: map[string]check.Step{}}
	r := check.New(func(s check.Step) {
		out.steps[s.Name], out.order = s, out.order+" "+s.Name
		if s.Err != nil {
			out.fail = s.Err
		}
	})
	o.Control = r.Control(o.Control)
	out.works = Check(context.Background(), o, line, r)
	return out
}

func TestCheckPutsOneRecord(t *testing.T) {
	identity(t)
	for name, c := range map[string]struct {
		status int
		text   string
		note   bool
		says   string
	}{
		"active":        {200, fmt.Sprintf(summary, "ACTIVE"), false, "ACTIVE: on_demand, open shards: 3, kept for 24 h, encrypted with alias/acme"},
		"going":         {200, fmt.Sprintf(summary, "DELETING"), true, "DELETING"},
		"not allowed":   {400, `{"__type":"AccessDeniedException","message":"no"}`, true, "decides nothing"},
		"not supported": {400, `{"__type":"UnknownOperationException"}`, true, "UnknownOperationException"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeStream(t, 3)
			srv := httptest.NewServer(described{f, c.status, c.text})
			defer srv.Close()
			line, id := check.Event("acme", nil, time.Now())
			got := try(Options{Stream: f.Name, Region: "eu-west-1", Endpoint: srv.URL, Tuning: quick}, line)
			if !got.works || got.order != " credentials egress connect stream write" {
				t.Fatalf("%+v", got)
			}
			if s := got.steps["stream"]; s.Note != c.note || !strings.Contains(s.Seen, c.says) {
				t.Errorf("%+v", s)
			}
			if len(f.recs) != 1 || !bytes.Equal(f.recs[0].Data, bytes.TrimSuffix(line, []byte("\n"))) || f.recs[0].Key != id ||
				!strings.Contains(got.steps["write"].Seen, f.recs[0].Shard) {
				t.Errorf("the stream has %+v; told: %s", f.recs, got.steps["write"].Seen)
			}
		})
	}
}

// TestCheckSaysWhatTheLaneSays: what keeps records out is told with the reason
// class, the hint and the step.
func TestCheckSaysWhatTheLaneSays(t *testing.T) {
	identity(t)
	for name, c := range map[string]struct {
		describe, put string // error codes
		o             Options
		env           [2]string
		step          string
		class         lane.Class
	}{
		"no stream":      {describe: "ResourceNotFoundException", put: "ResourceNotFoundException", step: "stream", class: lane.NotFound},
		"wrong keys":     {describe: "UnrecognizedClientException", put: "UnrecognizedClientException", step: "stream", class: lane.Auth},
		"not allowed":    {describe: "AccessDeniedException", put: "AccessDeniedException", step: "write", class: lane.Forbidden},
		"no KMS":         {put: "KMSAccessDeniedException", step: "write", class: lane.Forbidden},
		"nobody there":   {o: Options{Endpoint: "http://127.0.0.1:1"}, step: "connect", class: lane.Connect},
		"no credentials": {env: [2]string{"AWS_ACCESS_KEY_ID", ""}, step: "credentials", class: lane.Auth},
		"no name":        {o: Options{Endpoint: "http://not..a.name"}, step: "resolve", class: lane.DNS},
	} {
		t.Run(name, func(t *testing.T) {
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
			}
			f := newFakeStream(t, 1)
			if c.put != "" {
				f.Whole = func() (int, string) { return 400, `{"__type":"` + c.put + `","message":"as told"}` }
			}
			d := described{f, 200, fmt.Sprintf(summary, "ACTIVE")}
			if c.describe != "" {
				d.status, d.text = 400, `{"__type":"`+c.describe+`","message":"as told"}`
			}
			srv := httptest.NewServer(d)
			defer srv.Close()
			o := c.o
			o.Stream, o.Region, o.Tuning = f.Name, "eu-west-1", quick
			if o.Endpoint == "" {
				o.Endpoint = srv.URL
			}
			cl := newClient(o)
			defer cl.close()
			_, err := cl.put(context.Background(), []byte(`{"Records":[{"Data":"e30=","PartitionKey":"k"}],"StreamName":"events"}`), 1)
			inLane := classify(f.Name, err)
			got := try(o, []byte("{}\n"))
			if got.works || got.steps[c.step].Err == nil || got.fail.Class != c.class {
				t.Fatalf("told%s, %v", got.order, got.fail)
			}
			if inLane.Class != got.fail.Class || inLane.Hint != got.fail.Hint || inLane.Park != got.fail.Park {
				t.Errorf("the lane says %s, %q; the check %s, %q", inLane.Class, inLane.Hint, got.fail.Class, got.fail.Hint)
			}
			if len(f.recs) != 0 {
				t.Errorf("%d records", len(f.recs))
			}
		})
	}
}

// TestCheckOfARefusedRecord: a call that is answered well and stored nothing.
func TestCheckOfARefusedRecord(t *testing.T) {
	identity(t)
	f := newFakeStream(t, 1)
	f.Failing, f.Codes = 1, []string{"ProvisionedThroughputExceededException"}
	srv := httptest.NewServer(described{f, 200, fmt.Sprintf(summary, "ACTIVE")})
	defer srv.Close()
	got := try(Options{Stream: f.Name, Region: "eu-west-1", Endpoint: srv.URL, Tuning: quick}, []byte("{}\n"))
	if got.works || got.fail == nil || got.fail.Class != lane.Throttled || got.steps["write"].Err == nil {
		t.Errorf("%+v", got)
	}
}

// TestCheckAsARole: the role is a step of its own.
func TestCheckAsARole(t *testing.T) {
	identity(t)
	f := newFakeStream(t, 1)
	srv := httptest.NewServer(described{f, 200, fmt.Sprintf(summary, "ACTIVE")})
	defer srv.Close()
	gate := &fakeSTS{}
	sts := httptest.NewServer(gate)
	defer sts.Close()
	t.Setenv("AWS_ENDPOINT_URL_STS", sts.URL)
	o := Options{Stream: f.Name, Region: "eu-west-1", Endpoint: srv.URL, RoleARN: "arn:aws:iam::123456789012:role/puts", ExternalID: "acme", Tuning: quick}
	if got := try(o, []byte("{}\n")); got.works || got.steps["role"].Err == nil || got.fail.Class != lane.Auth {
		t.Errorf("refused: %+v", got)
	}
	gate.mu.Lock()
	gate.allow = true
	gate.mu.Unlock()
	if got := try(o, []byte("{}\n")); !got.works || !strings.Contains(got.steps["role"].Seen, o.RoleARN) {
		t.Errorf("allowed: %+v", got)
	}
}
