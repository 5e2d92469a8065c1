package receivers

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"datasync/integration/harness"
)

// door is one address at which a receiver takes lines, and the file they end in.
type door struct {
	name  string
	addr  string
	octet bool   // RFC 5424 in octet-counted frames, else JSON lines
	tls12 bool   // TLS 1.2 at most
	gnu   bool   // rsyslog: the GnuTLS driver, else OpenSSL
	out   string // the file, one event a line, the JSON last
}

// framing is the setting of an emitter to it.
func (d *door) framing() string {
	if d.octet {
		return "octet-counted"
	}
	return "lines"
}

// confirm is what an emitter learns of it: rsyslog's GnuTLS driver alone ends
// its side without close_notify.
func (d *door) confirm() string {
	if d.gnu {
		return "weak"
	}
	return "drain"
}

// server is a receiver's process, ended and started again as a test likes.
type server struct {
	t       *testing.T
	name    string
	doors   []*door
	command func() *exec.Cmd
	*harness.Process
}

// up starts it and waits until all its doors are open.
func (s *server) up() {
	s.t.Helper()
	s.Process = harness.Launch(s.t, s.name, s.command())
	harness.Until(s.t, 30*time.Second, "open port of "+s.name, func() bool {
		if !s.Running() {
			s.t.Fatalf("%s ended: %s", s.name, s.Output())
		}
		for _, d := range s.doors {
			c, err := net.DialTimeout("tcp", d.addr, time.Second)
			if err != nil {
				return false
			}
			_ = c.Close() // it was only to see
		}
		return true
	})
}

// newDoors names a door for each combination of framing and version (and driver).
func newDoors(t *testing.T, dir, server string, doors ...door) []*door {
	t.Helper()
	var out []*door
	for _, d := range doors {
		d.name = server + map[bool]string{true: "-gnutls"}[d.gnu] + map[bool]string{true: "-octet", false: "-lines"}[d.octet] +
			map[bool]string{true: "-tls12", false: "-tls13"}[d.tls12]
		d.addr = harness.FreePort(t)
		d.out = filepath.Join(dir, d.name+".log")
		out = append(out, &d)
	}
	return out
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// installed is a program of the test bed; a test without it fails.
func installed(t *testing.T, path string) string {
	t.Helper()
	found, err := exec.LookPath(path)
	if err != nil {
		t.Fatalf("%s is missing (task receivers installs it): %v", path, err)
	}
	return found
}

// rsyslog takes mutual TLS; its rulesets have no queue of their own thread, so
// what it read it has written.
func rsyslog(t *testing.T, ca string, own pair, doors ...door) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, name: "rsyslog", doors: newDoors(t, dir, "rsyslog", doors...)}
	var b strings.Builder
	fmt.Fprintf(&b, `global(workDirectory=%q maxMessageSize="1m" defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" maxSessions="1000" keepAlive="on" maxFrameSize="1000000")
template(name="json" type="string" string="%%rawmsg%%\n")
template(name="rfc5424" type="string" string="%%timereported:::date-rfc3339%%|%%app-name%%|%%msgid%%|%%msg%%\n")
`, dir, ca, own.cert, own.key)
	for _, d := range s.doors {
		driver, template, versions := "ossl", "json", ""
		if d.octet {
			template = "rfc5424"
		}
		switch {
		case d.gnu && d.tls12:
			driver, versions = "gtls", "NORMAL:-VERS-TLS1.3"
		case d.gnu:
			driver, versions = "gtls", "NORMAL"
		case d.tls12:
			versions = "MaxProtocol=TLSv1.2"
		}
		fmt.Fprintf(&b, `ruleset(name=%[1]q queue.type="Direct") {
  action(type="omfile" file=%[2]q template=%[3]q asyncWriting="off" flushOnTXEnd="on")
}
input(type="imtcp" address="127.0.0.1" port=%[4]q ruleset=%[1]q name=%[1]q
  streamDriver.name=%[5]q streamDriver.mode="1" streamDriver.authMode="x509/certvalid" gnutlsPriorityString=%[6]q)
`, d.name, d.out, template, port(d.addr), driver, versions)
	}
	conf := write(t, filepath.Join(dir, "rsyslog.conf"), b.String())
	program := installed(t, "/usr/sbin/rsyslogd")
	s.command = func() *exec.Cmd {
		_ = os.Remove(filepath.Join(dir, "pid")) // of one that was killed
		return exec.Command(program, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	}
	s.up()
	return s
}

// syslogNG takes mutual TLS with flow control, so that it reads no more than it can store.
func syslogNG(t *testing.T, ca string, own pair, doors ...door) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{t: t, name: "syslog-ng", doors: newDoors(t, dir, "syslog-ng", doors...)}
	var b strings.Builder
	b.WriteString("@version: 3.38\noptions { stats-freq(0); log-msg-size(1048576); keep-hostname(yes); };\n")
	for i, d := range s.doors {
		source, template := `network(flags(no-parse)`, `${MSG}\n`
		if d.octet {
			source, template = `syslog(`, `${ISODATE}|${PROGRAM}|${MSGID}|${MSG}\n`
		}
		versions := ""
		if d.tls12 {
			versions = "ssl-options(no-tlsv13)"
		}
		fmt.Fprintf(&b, `source s%[1]d { %[2]s ip("127.0.0.1") port(%[3]s) transport("tls") max-connections(1000) log-iw-size(100000)
  tls(key-file(%[4]q) cert-file(%[5]q) ca-file(%[6]q) peer-verify(required-trusted) %[7]s)); };
destination d%[1]d { file(%[8]q template("%[9]s")); };
log { source(s%[1]d); destination(d%[1]d); flags(flow-control); };
`, i, source, port(d.addr), own.key, own.cert, ca, versions, d.out, template)
	}
	conf := write(t, filepath.Join(dir, "syslog-ng.conf"), b.String())
	bed, err := filepath.Abs("../.testbed/syslog-ng")
	if err != nil {
		t.Fatal(err)
	}
	program, libraries := installed(t, bed+"/usr/sbin/syslog-ng"), bed+"/usr/lib/syslog-ng"
	s.command = func() *exec.Cmd {
		cmd := exec.Command(program, "-F", "--no-caps", "--module-path="+libraries+"/3.38", "-f", conf,
			"-p", filepath.Join(dir, "pid"), "-R", filepath.Join(dir, "persist"), "-c", filepath.Join(dir, "ctl"))
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries)
		return cmd
	}
	s.up()
	return s
}
