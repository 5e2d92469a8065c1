package isolation

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// metadata are forms of addresses that no sink may reach; the whole list is
// exporter's egress_test.go.
var metadata = []string{"169.254.169.254", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[fd00:ec2::254]", "[fe80::1]", "168.63.129.16", "100.100.100.200", "0.0.0.0"}

// TestFaultEgress: no kind of sink, nor the webhook, opens a connection to an
// address that egress refuses, nor follows a redirect to one; the same
// addresses are reached once they are allowed, so that it is egress that held
// them. A metadata address is refused in each of its forms whatever is allowed.
func TestFaultEgress(t *testing.T) {
	servers.Credentials(t)
	counted := map[string]*target{}
	var sinks strings.Builder
	for _, kind := range []string{"s3", "kinesis", "emitter", "webhook"} {
		counted[kind] = newTarget(t, "127.0.0.2")
		sinks.WriteString(toward(kind, kind+"-denied", counted[kind].addr))
		for i, a := range metadata {
			if kind != "emitter" && strings.HasPrefix(a, "[") {
				continue // the SDK takes no IPv6 address as an endpoint's host
			}
			sinks.WriteString(toward(kind, fmt.Sprintf("%s-metadata-%d", kind, i), a+":80"))
		}
	}
	s := service(t, "", fmt.Sprintf("egress: {deny: [127.0.0.2/32], allow: [0.0.0.0/0, \"::/0\"]}\nnotify: {webhook: \"http://%s/\"}\n", counted["webhook"].addr))
	tenant(s, "acme", "", sinks.String())
	s.Up(30 * time.Second)
	if a, err := post(ingest(s, "acme"), "key-of-acme", strings.NewReader(event("e1", "acme", ""))); err != nil || a.status != 200 {
		t.Fatal(a, err)
	}
	refused := strings.Count(sinks.String(), "- name:")
	forbidden(t, s, refused)
	harness.Until(t, 30*time.Second, "word of the webhook", func() bool { return strings.Contains(s.Output(), "egress: 127.0.0.2 is in egress.deny") })
	s.End(true) // a stop would wait for sinks that hang
	for kind, c := range counted {
		if n := c.taken.Load(); n != 0 {
			t.Errorf("%s: %d connections to an address that egress.deny names", kind, n)
		}
	}

	// The control: the same without egress.deny, and servers that redirect.
	elsewhere := newTarget(t, "127.0.0.3")
	var asked [2]atomic.Int64
	sinks.Reset()
	for i, kind := range []string{"s3", "kinesis"} {
		sinks.WriteString(toward(kind, kind+"-redirected", redirecting(t, elsewhere.addr, &asked[i])))
	}
	for kind, c := range counted {
		sinks.WriteString(toward(kind, kind+"-allowed", c.addr))
	}
	sinks.WriteString(toward("emitter", "parked", metadata[0]+":80")) // for the webhook to be told of
	s.Write("datasync.yaml", strings.Replace(read(t, s, "datasync.yaml"), "deny: [127.0.0.2/32], ", "", 1))
	tenant(s, "acme", "", sinks.String())
	s.Up(30 * time.Second)
	if a, err := post(ingest(s, "acme"), "key-of-acme", strings.NewReader(event("e2", "acme", ""))); err != nil || a.status != 200 {
		t.Fatal(a, err)
	}
	harness.Until(t, time.Minute, "connections where they are allowed", func() bool {
		all := asked[0].Load() > 0 && asked[1].Load() > 0
		for _, c := range counted {
			all = all && c.taken.Load() > 0
		}
		return all
	})
	harness.Pause(time.Second) // for whoever would follow a redirect
	s.End(true)                // a stop would wait for sinks that hang
	if n := elsewhere.taken.Load(); n != 0 {
		t.Errorf("%d connections to where a redirect led", n)
	}
	t.Logf("%d sinks of three kinds refused at %d addresses, the webhook too; 0 connections, none after a redirect", refused, len(metadata)+1)
}

// target counts the connections that come to an address, and ends them.
type target struct {
	addr  string
	taken atomic.Int64
}

func newTarget(t *testing.T, host string) *target {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	c := &target{addr: l.Addr().String()}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.taken.Add(1)
			_ = conn.Close() // that it came is all
		}
	})
	t.Cleanup(func() { _ = l.Close(); done.Wait() })
	return c
}

// redirecting is a server that sends everybody elsewhere.
func redirecting(t *testing.T, to string, asked *atomic.Int64) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(w, r, "http://"+to+"/latest/meta-data/", http.StatusTemporaryRedirect)
	})}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(l) }) // ends with Close
	t.Cleanup(func() { _ = server.Close(); done.Wait() })
	return l.Addr().String()
}

// toward is a sink of a kind to an address; the webhook is none.
func toward(kind, name, addr string) string {
	switch kind {
	case "s3":
		return fmt.Sprintf("  - name: %s\n    s3: {bucket: b, region: us-east-1, endpoint: \"http://%s\", path_style: true}\n    deliver: {max_age: 1s}\n", name, addr)
	case "kinesis":
		return fmt.Sprintf("  - name: %s\n    kinesis: {stream: s, region: us-east-1, endpoint: \"http://%s\"}\n", name, addr)
	case "emitter":
		return fmt.Sprintf("  - name: %s\n    emitter: {address: %q, retry_max: 1s}\n", name, addr)
	}
	return ""
}

// forbidden waits until all sinks of a tenant say that egress refuses them.
func forbidden(t *testing.T, s *harness.Service, want int) {
	t.Helper()
	var lanes struct {
		Lanes []struct{ Sink, State, Reason, Message string }
	}
	harness.Until(t, time.Minute, "refusal of all sinks", func() bool {
		if !harness.Get(t.Context(), "http://"+s.Admin+"/v1/lanes", &lanes) {
			return false
		}
		n := 0
		for _, l := range lanes.Lanes {
			if l.State == "parked" && l.Reason == "forbidden" && strings.Contains(l.Message, "egress") {
				n++
			}
		}
		return n == want
	})
}
