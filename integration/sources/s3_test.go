package sources

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// moto is what a test does at a moto, which checks no signature: plain HTTP,
// since a Python program would take longer to start than all of it.
type moto struct {
	t   *testing.T
	url string
}

// do makes a request of a service, and gives the answer.
func (m *moto) do(service, method, path string, header map[string]string, body []byte) []byte {
	m.t.Helper()
	answer, err := m.try(service, method, path, header, body)
	if err != nil {
		m.t.Fatalf("%s %s %s: %v", service, method, path, err)
	}
	return answer
}

func (m *moto) try(service, method, path string, header map[string]string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, m.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/"+service+"/aws4_request, SignedHeaders=host, Signature=0")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %.300s", resp.Status, answer)
	}
	return answer, err
}

// sqs calls the queue's service.
func (m *moto) sqs(op string, in, out any) {
	m.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		m.t.Fatal(err)
	}
	answer := m.do("sqs", http.MethodPost, "/", map[string]string{"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": "AmazonSQS." + op}, body)
	if out != nil {
		if err := json.Unmarshal(answer, out); err != nil {
			m.t.Fatalf("%s: %s: %v", op, answer, err)
		}
	}
}

// sns calls the topics' service.
func (m *moto) sns(form url.Values) {
	m.t.Helper()
	m.do("sns", http.MethodPost, "/", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, []byte(form.Encode()))
}

// bucket makes a bucket that tells a queue or a topic of its objects; with "" nobody.
func (m *moto) bucket(name, kind, arn string) {
	m.t.Helper()
	m.do("s3", http.MethodPut, "/"+name, nil, nil)
	if kind != "" {
		m.do("s3", http.MethodPut, "/"+name+"?notification", nil, fmt.Appendf(nil,
			`<NotificationConfiguration><%[1]sConfiguration><Id>all</Id><%[1]s>%[2]s</%[1]s><Event>s3:ObjectCreated:*</Event></%[1]sConfiguration></NotificationConfiguration>`, kind, arn))
	}
}

// send puts a message onto a queue.
func (m *moto) send(queue, body string) {
	m.t.Helper()
	m.sqs("SendMessage", map[string]any{"QueueUrl": queue, "MessageBody": body}, nil)
}

// distract takes the place of messages that moto gives to the polls of a life
// that is over, where they are hidden for half a minute: one for each worker.
func (m *moto) distract(queue string) {
	m.t.Helper()
	for range 4 {
		m.send(queue, `{"Service":"Amazon S3","Event":"s3:TestEvent"}`)
	}
}

// upload is an object to be put.
type upload struct {
	bucket, key string
	body        []byte
}

// put puts objects, one after the other, while the test goes on; wait waits for all.
func (m *moto) put(objects []upload) (wait func()) {
	failed := make(chan error, 1)
	go func() {
		var err error
		for _, o := range objects {
			if err == nil {
				_, err = m.try("s3", http.MethodPut, "/"+o.bucket+"/"+url.PathEscape(o.key), nil, o.body)
			}
		}
		failed <- err
	}()
	return func() {
		m.t.Helper()
		if err := <-failed; err != nil {
			m.t.Fatal(err)
		}
	}
}

// announce tells a queue of an object as EventBridge does.
func (m *moto) announce(queue string, o upload) {
	m.t.Helper()
	body, err := json.Marshal(map[string]any{"source": "aws.s3", "detail-type": "Object Created", "region": "us-east-1",
		"detail": map[string]any{"bucket": map[string]any{"name": o.bucket}, "object": map[string]any{"key": o.key, "etag": fmt.Sprintf("%x", md5.Sum(o.body))}}})
	if err != nil {
		m.t.Fatal(err)
	}
	m.send(queue, string(body))
}

// visible are the messages of a queue that nobody has.
func (m *moto) visible(queue string) string {
	m.t.Helper()
	var out struct{ Attributes map[string]string }
	m.sqs("GetQueueAttributes", map[string]any{"QueueUrl": queue, "AttributeNames": []string{"All"}}, &out)
	return out.Attributes["ApproximateNumberOfMessages"]
}

// TestFaultS3Feed: moto's S3, SQS and SNS; objects plain, gzip and an array,
// announced directly, through SNS and as EventBridge does; the service killed -9 and
// stopped on the way, every object announced again. In drops each event is once.
func TestFaultS3Feed(t *testing.T) {
	const seed, n, parts = 51, 40_000, 8
	servers.Credentials(t)
	m := &moto{t, servers.NewMoto(t)}
	var q struct{ QueueUrl string }
	m.sqs("CreateQueue", map[string]any{"QueueName": "logs"}, &q)
	queue, topic := "arn:aws:sqs:us-east-1:123456789012:logs", "arn:aws:sns:us-east-1:123456789012:logs"
	m.sns(url.Values{"Action": {"CreateTopic"}, "Name": {"logs"}})
	m.sns(url.Values{"Action": {"Subscribe"}, "TopicArn": {topic}, "Protocol": {"sqs"}, "Endpoint": {queue}})
	m.bucket("direct", "Queue", queue)
	m.bucket("through", "Topic", topic)
	m.bucket("quiet", "", "")

	s := service(t, fmt.Sprintf("  - name: waf\n    s3: {queue: %q, region: us-east-1, endpoint: %q}\n    format: canonical", q.QueueUrl, m.url))
	s.Tenants(2, drops)
	s.Up(30 * time.Second)
	objects := objectsOf(t, events(t, seed, n, 2), parts)
	some := func(before int64) {
		t.Helper()
		harness.Until(t, time.Minute, "events of objects", func() bool { now, _ := taken(s, "waf"); return now > before })
	}
	wait := m.put(objects[:3])
	some(0)
	s.End(true) // killed: what was under way comes again when its time is up
	m.distract(q.QueueUrl)
	wait()
	s.Up(30 * time.Second)
	before, _ := taken(s, "waf")
	wait = m.put(objects[3:6])
	some(before)
	s.End(false)
	m.distract(q.QueueUrl)
	wait()
	m.put(objects[6:])()
	for _, o := range objects {
		m.announce(q.QueueUrl, o)
	}
	m.send(q.QueueUrl, "hello")
	s.Up(30 * time.Second)
	takes(t, s, "waf", n)
	harness.Until(t, time.Minute, "a queue from which all is taken", func() bool { return m.visible(q.QueueUrl) == "0" })
	harness.Until(t, time.Minute, "the message that is no notification", func() bool { read, ok := taken(s, "waf"); return read == ok+1 })
	s.Delivered(n, time.Minute)
	balanced(t, s)
	s.End(false)
	harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops").Want(t, "drops", seed, n, true)
	t.Logf("seed %d: moto, %d events in %d objects, a kill, a stop, every object announced twice: lost 0, repeated 0", seed, n, parts)
}

// objectsOf makes objects of lines: as they are, compressed, an array, in turn.
func objectsOf(t *testing.T, lines []byte, parts int) (out []upload) {
	t.Helper()
	for i := range parts {
		o := upload{bucket: []string{"direct", "through", "quiet"}[i/3], key: fmt.Sprintf("AWSLogs/a b/part-%d", i), body: lines[cut(lines, i, parts):cut(lines, i+1, parts)]}
		switch i % 3 {
		case 1:
			o.key += ".gz"
			o.body = zipped(t, o.body)
		case 2:
			o.body = slices.Concat([]byte("["), bytes.ReplaceAll(bytes.TrimSpace(o.body), []byte("\n"), []byte(",\n")), []byte("]"))
		}
		out = append(out, o)
	}
	return out
}
