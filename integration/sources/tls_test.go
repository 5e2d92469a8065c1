package sources

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
	"datasync/integration/servers"
)

// tlsFeed is a feed's YAML; more goes into its tls settings.
func tlsFeed(name, listen string, c servers.Certs, more string) string {
	return fmt.Sprintf("  - name: %s\n    tls: {listen: %q, cert: %q, key: %q%s}\n    format: canonical", name, listen, c.Cert, c.Key, more)
}

// sClient sends lines with openssl s_client, which ends in good order behind
// the last one, or, with -ign_eof, when the peer does.
func sClient(t *testing.T, addr, ca string, lines []byte, more ...string) string {
	t.Helper()
	cmd := exec.Command(servers.Installed(t, "openssl", "receivers"),
		append([]string{"s_client", "-connect", addr, "-CAfile", ca, "-verify_return_error", "-quiet", "-no_ign_eof"}, more...)...)
	cmd.Stdin = bytes.NewReader(lines)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}

// rsyslogSends starts an rsyslog that reads lines from a file and sends them
// over TLS, each in a frame.
func rsyslogSends(t *testing.T, c servers.Certs, addr string, lines []byte) {
	t.Helper()
	dir := t.TempDir()
	host, port, _ := strings.Cut(addr, ":")
	conf := fmt.Sprintf(`global(workDirectory=%[1]q maxMessageSize="1m" defaultNetstreamDriverCAFile=%[2]q)
module(load="imfile" pollingInterval="1")
template(name="event" type="string" string="%%msg%%")
ruleset(name="out") {
  action(type="omfwd" target=%[3]q port=%[4]q protocol="tcp" template="event" TCP_Framing="octet-counted"
    streamDriver="ossl" streamDriverMode="1" streamDriverAuthMode="x509/certvalid" queue.type="LinkedList" action.resumeRetryCount="-1")
}
input(type="imfile" file="%[1]s/in.ndjson" tag="events" ruleset="out")
`, dir, c.CA, host, port)
	for name, text := range map[string]string{"in.ndjson": string(lines), "rsyslog.conf": conf} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	harness.Launch(t, "rsyslog that sends", exec.Command(servers.Installed(t, "/usr/sbin/rsyslogd", "receivers"),
		"-n", "-f", filepath.Join(dir, "rsyslog.conf"), "-i", filepath.Join(dir, "pid")))
}

// TestTLSFeedSenders: openssl with and without certificates, rsyslog in frames
// and in lines; tenants by listener and by certificate, who has none is refused;
// a stop on the way.
func TestTLSFeedSenders(t *testing.T) {
	ca := servers.NewAuthority(t, "integration CA")
	own := ca.Local("server", time.Hour)
	open, mutual := harness.FreePort(t), harness.FreePort(t)
	s := service(t, tlsFeed("open", open, own, ", tenant: t0001"), tlsFeed("mutual", mutual, own, fmt.Sprintf(", client_ca: %q", ca.CA())))
	s.Tenants(2, drops)
	s.Up(30 * time.Second)
	const n = 2000
	all := events(t, 31, n, 2)
	first, second := of("t0001", all), of("t0002", all)
	half := cut(first, 1, 2)

	sClient(t, open, ca.CA(), first[:half])
	takes(t, s, "open", bytes.Count(first[:half], []byte("\n")))
	s.End(false)
	s.Up(30 * time.Second)

	// The rest of the first tenant comes through rsyslog, in frames; the second
	// tenant's through openssl with its certificate.
	cert := ca.Named("t0002", "t0002", time.Hour)
	sClient(t, mutual, ca.CA(), second, "-cert", cert.Cert, "-key", cert.Key)
	rsyslogSends(t, own, open, first[half:])
	takes(t, s, "mutual", bytes.Count(second, []byte("\n")))
	takes(t, s, "open", bytes.Count(first, []byte("\n")))

	stranger := ca.Named("stranger", "t0003", time.Hour)
	for version, flag := range map[string]string{"1.2": "-tls1_2", "1.3": "-tls1_3"} {
		if out := sClient(t, mutual, ca.CA(), second, "-cert", stranger.Cert, "-key", stranger.Key, flag, "-ign_eof"); !strings.Contains(out, "alert") {
			t.Errorf("TLS %s: a client of nobody is told nothing: %s", version, out)
		}
		if out := sClient(t, mutual, ca.CA(), second, flag, "-ign_eof"); !strings.Contains(out, "alert") {
			t.Errorf("TLS %s: a client without certificate is told nothing: %s", version, out)
		}
	}
	says(t, s, "none of them is a tenant that has a file")
	says(t, s, "the client showed no certificate, and client_ca asks for one")
	// Another tenant's events are quarantined, and so is what is no event.
	sClient(t, mutual, ca.CA(), append([]byte("no event\n"), first[:half]...), "-cert", cert.Cert, "-key", cert.Key)
	wrong := 1 + bytes.Count(first[:half], []byte("\n"))
	harness.Until(t, time.Minute, "quarantined events", func() bool {
		read, ok := taken(s, "mutual")
		return read-ok == int64(wrong)
	})
	s.Delivered(n+int64(wrong), time.Minute)
	balanced(t, s)
	s.End(false)
	harness.Drops(t, filepath.Join(s.Dir, "drops"), "drops").Want(t, "drops", 31, n, true)
	t.Logf("openssl s_client and rsyslog to two TLS feeds, a stop on the way: %d events, lost 0, repeated 0; %d refused into the quarantine", n, wrong)
}

// TestFaultTLSFeedKilled: one datasync's emitter sends to another's TLS feed,
// which is killed and stopped again and again; what the emitter takes for read
// is there.
func TestFaultTLSFeedKilled(t *testing.T) {
	const seed, n, tenants = 32, 60_000, 2
	ca := servers.NewAuthority(t, "integration CA")
	own := ca.Local("server", time.Hour)
	listen := harness.FreePort(t)
	to := service(t, tlsFeed("lines", listen, own, fmt.Sprintf(", client_ca: %q", ca.CA())))
	to.Tenants(tenants, drops)
	from := harness.NewService(t, "")
	for i := 1; i <= tenants; i++ {
		name := fmt.Sprintf("t%04d", i)
		c := ca.Named(name, name, time.Hour)
		from.Write("tenants/"+name+".yaml", fmt.Sprintf(`tenant: %s
sinks:
  - name: next
    emitter: {address: %q, tls: {ca: %q, cert: %q, key: %q}, rotate_every: 1s, retry_max: 1s}
`, name, listen, c.CA, c.Cert, c.Key))
	}
	to.Up(30 * time.Second)
	from.Up(30 * time.Second)
	all := events(t, seed, n, tenants)
	const parts = 4
	last := int64(0)
	for i := range parts {
		part := all[cut(all, i, parts):cut(all, i+1, parts)]
		from.Write(fmt.Sprintf("in/%d.ndjson", i), string(part))
		harness.Until(t, time.Minute, "lines that arrive", func() bool {
			read, _ := taken(to, "lines")
			if read <= last {
				return false
			}
			last = read
			return true
		})
		to.End(i%2 == 0) // kill -9, stop, kill -9, stop
		to.Up(30 * time.Second)
	}
	from.Delivered(n, 2*time.Minute)
	balanced(t, from)
	from.End(false)
	to.Delivered(n, time.Minute)
	balanced(t, to)
	to.End(false)
	repeats := harness.Drops(t, filepath.Join(to.Dir, "drops"), "drops").Want(t, "drops", seed, n, false)
	t.Logf("seed %d: datasync to datasync over TLS, the receiver killed twice and stopped twice; %d events: lost 0, %d repeated", seed, n, repeats)
}
