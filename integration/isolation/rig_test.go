package isolation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

const topic = "mitigations"

// event is a canonical event of a tenant; more is put behind its members.
func event(id, tenant, more string) string {
	return fmt.Sprintf(`{"event_id":%q,"tenant_id":%q,"source":"edge","kind":"mitigation","event_time":%d,"time_precision":"ms","action":"block","disposition":"blocked","enforced":true,"severity":3%s}`,
		id, tenant, time.Now().UnixMilli(), more)
}

// noise is a member of 2 KB that hardly compresses and looks like no secret.
func noise(rng *rand.Rand) string {
	b := []byte(`,"noise":"`)
	for range 2000 {
		b = append(b, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[rng.IntN(52)])
	}
	return string(append(b, '"'))
}

// answer is what a post was told.
type answer struct {
	status int
	retry  string
	body   string
}

var client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

// post sends one body with a key; headers are pairs.
func post(url, key string, body io.Reader, headers ...string) (answer, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, body)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", key)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Retry-After"), string(b)}, errors.Join(err, resp.Body.Close())
}

// receiver is the program's own TLS receiver, started when a test likes.
type receiver struct {
	t     *testing.T
	addr  string
	certs servers.Certs
	out   string
	*harness.Process
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	return &receiver{t: t, addr: harness.FreePort(t), certs: servers.NewCerts(t), out: filepath.Join(t.TempDir(), "lines.ndjson")}
}

func (r *receiver) up() {
	r.t.Helper()
	r.Process = harness.Start(r.t, "datasync receive", "receive", "--listen", r.addr, "--cert", r.certs.Cert, "--key", r.certs.Key, "--out", r.out)
}

// sink is an emitter to it.
func (r *receiver) sink(name string) string {
	return fmt.Sprintf("  - name: %s\n    emitter: {address: %q, tls: {ca: %q}, rotate_every: 1s, retry_max: 1s}\n", name, r.addr, r.certs.CA)
}

// ids are the events that arrived.
func (r *receiver) ids() harness.IDs {
	r.t.Helper()
	ids := harness.IDs{}
	ids.AddLines(r.t, r.out)
	return ids
}

// broker is a Kafka in this process with the topic, and a client of it.
func broker(t *testing.T) (addr string, c *kgo.Client) {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, topic), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "33554432"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	addr = fake.ListenAddrs()[0]
	if c, err = kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(16<<20), kgo.BrokerMaxWriteBytes(64<<20)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return addr, c
}

// produce writes records and waits until all are written.
func produce(t *testing.T, c *kgo.Client, values ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, v := range values {
		c.Produce(ctx, &kgo.Record{Value: []byte(v)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// service is the program with an HTTP feed, a file feed, perhaps a Kafka feed,
// and more settings.
func service(t *testing.T, kafka, more string) *harness.Service {
	t.Helper()
	s := harness.NewService(t, "")
	feed := ""
	if kafka != "" {
		feed = fmt.Sprintf("  - name: kafka\n    kafka: {brokers: [%q], topic: %s, group: g}\n    format: canonical\n", kafka, topic)
	}
	s.Write("datasync.yaml", fmt.Sprintf(`data_dir: %[1]s/data
feeds:
  - name: edge
    http: {listen: %[2]q}
    format: auto
  - name: files
    file: {path: "%[1]s/in/*.ndjson", follow: true}
    format: canonical
%[4]stenants: %[1]s/tenants
admin: {listen: %[3]q}
%[5]s`, s.Dir, s.Feed, s.Admin, feed, more))
	return s
}

// tenant writes a tenant's file.
func tenant(s *harness.Service, name, more, sinks string) {
	s.Write("tenants/"+name+".yaml", fmt.Sprintf("tenant: %s\napi_keys: [key-of-%s]\n%ssinks:\n%s", name, name, more, sinks))
}

// ingest is the address of a tenant's events.
func ingest(s *harness.Service, tenant string) string {
	return "http://" + s.Feed + "/v1/ingest/canonical/" + tenant
}

// metrics are the lines of GET /metrics that begin with a name.
func metrics(t *testing.T, s *harness.Service, name string) (lines []string) {
	t.Helper()
	resp, err := client.Get("http://" + s.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, name) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// status is what `datasync status` prints.
func status(t *testing.T, s *harness.Service) string {
	t.Helper()
	out, err := exec.Command(harness.Binary(t), "status", "--admin", "http://"+s.Admin).CombinedOutput()
	if err != nil {
		t.Fatalf("status: %v\n%s", err, out)
	}
	return string(out)
}

// quarantined are the entries of the quarantine as GET /v1/quarantine lists them.
func quarantined(t *testing.T, s *harness.Service) []struct {
	Feed, Tenant, Reason, Position string
	Count                          int
} {
	t.Helper()
	resp, err := client.Get("http://" + s.Admin + "/v1/quarantine?limit=1000")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Entries []struct {
			Feed, Tenant, Reason, Position string
			Count                          int
		}
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&list); err != nil {
		t.Fatalf("%v in %.300s", err, b)
	}
	return list.Entries
}
