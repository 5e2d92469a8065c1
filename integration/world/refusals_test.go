package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// refusal is an answer and the reason that a lane is to show for it.
type refusal struct {
	status       int
	code, reason string
}

// Each tenant's bucket and stream refuse in their own way.
var (
	byS3 = []refusal{{403, "AccessDenied", "forbidden"}, {403, "InvalidAccessKeyId", "auth"}, {400, "ExpiredToken", "auth"}, {401, "Unauthorized", "auth"},
		{404, "NoSuchBucket", "not-found"}, {400, "AuthorizationHeaderMalformed", "invalid"}, {405, "MethodNotAllowed", "invalid"}, {400, "KMS.DisabledException", "forbidden"}}
	byKinesis = []refusal{{400, "AccessDeniedException", "forbidden"}, {400, "UnrecognizedClientException", "auth"}, {400, "ExpiredTokenException", "auth"},
		{400, "InvalidSignatureException", "auth"}, {400, "ResourceNotFoundException", "not-found"}, {400, "KMSDisabledException", "forbidden"},
		{400, "KMSAccessDeniedException", "forbidden"}, {403, "WhoKnows", "forbidden"}}
)

// TestFaultRefusals: whatever 4xx a bucket or a stream answers with, its lane
// parks with the reason, keeps everything, tells the webhook once however often
// it tries, and goes on by itself, and says so once, when that is mended.
func TestFaultRefusals(t *testing.T) {
	const seed, n = 51, 1600
	servers.Credentials(t)
	hook := newHook(t)
	g, k := servers.NewStore(t, "lake"), servers.NewKinesalite(t)
	bucket, stream := servers.NewFaulty(t, g.URL(), seed), servers.NewFaulty(t, k.URL(), seed)
	for i := range byKinesis {
		k.Stream(fmt.Sprintf("t%04d-out", i+1), 1)
	}
	tenant := regexp.MustCompile(`(?:tenant=|"StreamName":")t0*([1-8])[-/]`)
	refuse := func(by []refusal) func(string, []byte) (int, string) {
		return func(path string, body []byte) (int, string) {
			m := tenant.FindSubmatch(append([]byte(path), body...))
			if m == nil {
				return 0, ""
			}
			r := by[m[1][0]-'1']
			return r.status, r.code
		}
	}
	bucket.Refuse(refuse(byS3))
	stream.Refuse(refuse(byKinesis))
	s := harness.NewService(t, fmt.Sprintf("notify: {webhook: %q}\n", hook.URL))
	s.Tenants(len(byS3), fmt.Sprintf(`  - name: lake
    s3: {bucket: lake, region: us-east-1, endpoint: %q, path_style: true}
    deliver: {max_age: 1s}
  - name: stream
    kinesis: {stream: "{tenant}-out", region: us-east-1, endpoint: %q}
`, bucket.URL, stream.URL))
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", fmt.Sprint(len(byS3)), "--seed", fmt.Sprint(seed), "--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	for i := range byS3 {
		for sink, want := range map[string]refusal{"lake": byS3[i], "stream": byKinesis[i]} {
			var l struct{ State, Reason, Message string }
			harness.Until(t, 30*time.Second, fmt.Sprintf("parking of t%04d/%s for %s", i+1, sink, want.code), func() bool {
				return harness.Get(t.Context(), fmt.Sprintf("http://%s/v1/lanes/t%04d/%s", s.Admin, i+1, sink), &l) && l.State == "parked"
			})
			if l.Reason != want.reason {
				t.Errorf("t%04d/%s: %d %s is told as %s: %s", i+1, sink, want.status, want.code, l.Reason, l.Message)
			}
		}
	}
	harness.Pause(6 * time.Second) // for some tries more
	if l, ok := s.Ledger(); !ok || !l.Balanced {
		t.Errorf("the ledger: %v, %+v", ok, l)
	} else {
		for _, one := range l.Sinks {
			if one.Delivered+one.Refused+one.Expired > 0 || one.Queued != one.Received {
				t.Errorf("%s/%s let something go: %+v", one.Tenant, one.Sink, one)
			}
		}
	}
	bucket.Refuse(nil)
	stream.Refuse(nil)
	s.Delivered(n, 2*time.Minute)
	want := 2 * 2 * len(byS3)
	harness.Until(t, 20*time.Second, "notice of each end", func() bool { return hook.count() >= want })
	s.End(false)
	harness.Drops(t, filepath.Join(g.Root, "lake"), "lake").Want(t, "lake", seed, n, true)
	ids := harness.IDs{}
	for i := range byKinesis {
		k.Each(fmt.Sprintf("t%04d-out", i+1), func(r servers.Record) {
			var e struct {
				ID string `json:"event_id"`
			}
			if err := json.Unmarshal(r.Data, &e); err != nil {
				t.Fatal(err)
			}
			ids[e.ID]++
		})
	}
	repeats := ids.Want(t, "streams", seed, n, false)
	calls, _, _ := bucket.Count()
	more, _, _ := stream.Count()
	t.Logf("seed %d: %d ways of refusing, %d calls; %d events to two sinks each: lost 0, repeated 0 in S3, %d in Kinesis; %d notices, each once", seed, len(byS3)+len(byKinesis), calls+more, n, repeats, hook.count())
	for what, times := range hook.told {
		if times != 1 {
			t.Errorf("%s is told %d times", what, times)
		}
	}
	if hook.count() != want {
		t.Errorf("%d notices, want %d", hook.count(), want)
	}
}

// hook is a webhook that counts what it is told.
type hook struct {
	*httptest.Server
	mu   sync.Mutex
	told map[string]int // by sink, state and reason
}

func newHook(t *testing.T) *hook {
	h := &hook{told: map[string]int{}}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		var n struct{ Tenant, Sink, State, Reason string }
		if _, err := body.ReadFrom(r.Body); err != nil || json.Unmarshal(body.Bytes(), &n) != nil {
			t.Errorf("the webhook is told %q, %v", body.String(), err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.told[fmt.Sprintf("%s/%s %s %s", n.Tenant, n.Sink, n.State, n.Reason)]++
	}))
	t.Cleanup(h.Close)
	return h
}

// count is how many notices there were.
func (h *hook) count() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, times := range h.told {
		n += times
	}
	return n
}
