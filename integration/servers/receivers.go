package servers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"datasync/integration/harness"
)

// Door is one address at which a receiver takes lines over TLS from clients
// with a certificate, and the file they end in. Its first fields are chosen,
// from Name on they are made.
type Door struct {
	Octet  bool   // RFC 5424 in octet-counted frames, else JSON lines
	TLS12  bool   // TLS 1.2 at most
	GnuTLS bool   // rsyslog: the GnuTLS driver, else OpenSSL
	RELP   bool   // rsyslog: RELP, TLS by OpenSSL, 1.2 at most whatever is asked
	Queue  Queue  // rsyslog: what lies between its input and the file
	Netns  string // the network namespace of the receiver, "" is the test's; then with an Addr in it
	Addr   string // "" is chosen
	Name   string // of the receiver and what was chosen
	Out    string // the file, one event a line, the JSON last
}

// Queue is what lies between rsyslog's input and the file.
type Queue string

// The queues.
const (
	Direct Queue = ""        // none: what is read is written before more is read
	Synced Queue = "-synced" // none, and the file is synced
	OnDisk Queue = "-ondisk" // on disk, each record synced
	Memory Queue = "-memory" // in memory, and the file comes after it slowly
)

func (q Queue) settings(name string) string {
	switch q {
	case OnDisk:
		return `queue.type="Disk" queue.checkpointInterval="1" queue.syncQueueFiles="on" queue.filename="` + name + `"`
	case Memory:
		return `queue.type="LinkedList" queue.dequeueBatchSize="1" queue.dequeueSlowdown="20000"`
	}
	return `queue.type="Direct"`
}

// Framing is the setting of an emitter to it.
func (d *Door) Framing() string {
	if d.Octet {
		return "octet-counted"
	}
	return "lines"
}

// Receiver is a receiver's process, ended and started again as a test likes.
type Receiver struct {
	t       testing.TB
	name    string
	command func() *exec.Cmd
	Doors   []*Door
	*harness.Process
}

// Up starts it and waits until all its doors are open.
func (r *Receiver) Up() {
	r.t.Helper()
	var addrs []string
	netns := ""
	for _, d := range r.Doors {
		if netns = d.Netns; netns == "" { // one elsewhere is waited for by the emitters
			addrs = append(addrs, d.Addr)
		}
	}
	r.Process = launch(r.t, r.name, harness.Within(netns, r.command()), addrs...)
}

// Kill kills -9 it and the processes that it made for its connections, as socat does.
func (r *Receiver) Kill() {
	r.t.Helper()
	r.Signal(syscall.SIGSTOP) // it makes no more
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", r.PID()))
	if err != nil && r.Running() {
		r.t.Fatal(err)
	}
	for _, text := range strings.Fields(string(raw)) {
		if pid, err := strconv.Atoi(text); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
		}
	}
	r.Process.Kill()
}

// newDoors names a door for each combination of framing and version (and driver).
func newDoors(t testing.TB, server string, doors []Door) []*Door {
	t.Helper()
	dir := t.TempDir()
	var out []*Door
	for _, d := range doors {
		d.Name = server + map[bool]string{true: "-gnutls"}[d.GnuTLS] +
			map[bool]string{true: "-relp"}[d.RELP] + string(d.Queue) + map[bool]string{true: "-octet", false: "-lines"}[d.Octet] +
			map[bool]string{true: "-tls12", false: "-tls13"}[d.TLS12]
		d.Out = filepath.Join(dir, d.Name+".log")
		if d.Addr == "" {
			d.Addr = harness.FreePort(t)
		}
		out = append(out, &d)
	}
	return out
}

// NewRsyslog starts rsyslog; its rulesets have no queue of their own thread,
// so what it read it has written.
func NewRsyslog(t testing.TB, c Certs, doors ...Door) *Receiver {
	t.Helper()
	dir := t.TempDir()
	r := &Receiver{t: t, name: "rsyslog", Doors: newDoors(t, "rsyslog", doors)}
	var b strings.Builder
	fmt.Fprintf(&b, `global(workDirectory=%q maxMessageSize="1m" defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile=%q defaultNetstreamDriverCertFile=%q defaultNetstreamDriverKeyFile=%q)
module(load="imtcp" maxSessions="1000" keepAlive="on" maxFrameSize="1000000")
module(load="imrelp" tls.tlslib="openssl")
template(name="json" type="string" string="%%rawmsg%%\n")
template(name="rfc5424" type="string" string="%%timereported:::date-rfc3339%%|%%app-name%%|%%msgid%%|%%msg%%\n")
`, dir, c.CA, c.Cert, c.Key)
	for _, d := range r.Doors {
		driver, template, versions := "ossl", "json", ""
		if d.Octet {
			template = "rfc5424"
		}
		switch {
		case d.GnuTLS && d.TLS12:
			driver, versions = "gtls", "NORMAL:-VERS-TLS1.3"
		case d.GnuTLS:
			driver, versions = "gtls", "NORMAL"
		case d.TLS12:
			versions = "MaxProtocol=TLSv1.2"
		}
		fmt.Fprintf(&b, `ruleset(name=%[1]q %[4]s) {
  action(type="omfile" file=%[2]q template=%[3]q asyncWriting="off" flushOnTXEnd="on" sync=%[5]q)
}
`, d.Name, d.Out, template, d.Queue.settings(d.Name), map[bool]string{true: "on", false: "off"}[d.Queue == Synced])
		if d.RELP {
			fmt.Fprintf(&b, `input(type="imrelp" address=%[7]q port=%[2]q ruleset=%[1]q name=%[1]q maxDataSize="1m" tls="on"
  tls.caCert=%[3]q tls.myCert=%[4]q tls.myPrivKey=%[5]q tls.authMode="certvalid" tls.tlscfgcmd=%[6]q)
`, d.Name, port(t, d.Addr), c.CA, c.Cert, c.Key, versions, host(t, d.Addr))
			continue
		}
		fmt.Fprintf(&b, `input(type="imtcp" address=%[5]q port=%[2]q ruleset=%[1]q name=%[1]q
  streamDriver.name=%[3]q streamDriver.mode="1" streamDriver.authMode="x509/certvalid" gnutlsPriorityString=%[4]q)
`, d.Name, port(t, d.Addr), driver, versions, host(t, d.Addr))
	}
	conf := write(t, filepath.Join(dir, "rsyslog.conf"), b.String())
	program := Installed(t, "/usr/sbin/rsyslogd", "receivers")
	r.command = func() *exec.Cmd {
		_ = os.Remove(filepath.Join(dir, "pid")) // of one that was killed
		return exec.Command(program, "-n", "-f", conf, "-i", filepath.Join(dir, "pid"))
	}
	r.Up()
	return r
}

// NewSyslogNG starts syslog-ng with flow control, so that it reads no more
// than it can store.
func NewSyslogNG(t testing.TB, c Certs, doors ...Door) *Receiver {
	t.Helper()
	dir := t.TempDir()
	r := &Receiver{t: t, name: "syslog-ng", Doors: newDoors(t, "syslog-ng", doors)}
	var b strings.Builder
	b.WriteString("@version: 3.38\noptions { stats-freq(0); log-msg-size(1048576); keep-hostname(yes); };\n")
	for i, d := range r.Doors {
		source, template := `network(flags(no-parse)`, `${MSG}\n`
		if d.Octet {
			source, template = `syslog(`, `${ISODATE}|${PROGRAM}|${MSGID}|${MSG}\n`
		}
		versions := ""
		if d.TLS12 {
			versions = "ssl-options(no-tlsv13)"
		}
		fmt.Fprintf(&b, `source s%[1]d { %[2]s ip("127.0.0.1") port(%[3]s) transport("tls") max-connections(1000) log-iw-size(100000)
  tls(key-file(%[4]q) cert-file(%[5]q) ca-file(%[6]q) peer-verify(required-trusted) %[7]s)); };
destination d%[1]d { file(%[8]q template("%[9]s")); };
log { source(s%[1]d); destination(d%[1]d); flags(flow-control); };
`, i, source, port(t, d.Addr), c.Key, c.Cert, c.CA, versions, d.Out, template)
	}
	conf := write(t, filepath.Join(dir, "syslog-ng.conf"), b.String())
	program := Installed(t, ".testbed/syslog-ng/usr/sbin/syslog-ng", "receivers")
	libraries := filepath.Join(filepath.Dir(program), "../lib/syslog-ng")
	r.command = func() *exec.Cmd {
		cmd := exec.Command(program, "-F", "--no-caps", "--module-path="+libraries+"/3.38", "-f", conf,
			"-p", filepath.Join(dir, "pid"), "-R", filepath.Join(dir, "persist"), "-c", filepath.Join(dir, "ctl"))
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+libraries)
		return cmd
	}
	r.Up()
	return r
}

// NewOpenSSL starts openssl s_server.
func NewOpenSSL(t testing.TB, c Certs) *Receiver {
	t.Helper()
	d := toolDoor(t, "openssl")
	return tool(t, d, fmt.Sprintf("%s s_server -quiet -accept %s -cert %s -key %s -CAfile %s -Verify 1 -verify_return_error >>%s",
		Installed(t, "openssl", "receivers"), d.Addr, c.Cert, c.Key, c.CA, d.Out))
}

// NewSocat starts socat.
func NewSocat(t testing.TB, c Certs) *Receiver {
	t.Helper()
	d := toolDoor(t, "socat")
	return tool(t, d, fmt.Sprintf("%s -u OPENSSL-LISTEN:%s,bind=127.0.0.1,reuseaddr,fork,cert=%s,key=%s,cafile=%s,verify=1 OPEN:%s,creat,append",
		Installed(t, "socat", "receivers"), port(t, d.Addr), c.Cert, c.Key, c.CA, d.Out))
}

// NewStunnel starts stunnel, with a socat behind it that writes the file.
func NewStunnel(t testing.TB, c Certs) *Receiver {
	t.Helper()
	d, backend := toolDoor(t, "stunnel"), harness.FreePort(t)
	launch(t, "socat behind stunnel", exec.Command(Installed(t, "socat", "receivers"), "-u",
		"TCP-LISTEN:"+port(t, backend)+",bind=127.0.0.1,reuseaddr,fork", "OPEN:"+d.Out+",creat,append"), backend)
	return tool(t, d, fmt.Sprintf("%s %s", Installed(t, "stunnel", "receivers"), write(t, d.Out+".conf", fmt.Sprintf(
		"foreground = yes\npid =\n[lines]\naccept = %s\nconnect = %s\ncert = %s\nkey = %s\nCAfile = %s\nverifyChain = yes\n",
		d.Addr, backend, c.Cert, c.Key, c.CA))))
}

// NewGnuTLS starts gnutls-serv, which knows no address to bind to and keeps no
// file: as an echo server it says what it got on standard error, which is the
// file (Echoed takes the lines out of it).
func NewGnuTLS(t testing.TB, c Certs) *Receiver {
	t.Helper()
	d := toolDoor(t, "gnutls")
	return tool(t, d, fmt.Sprintf("%s --echo --quiet --require-client-cert --verify-client-cert --port %s --x509certfile %s --x509keyfile %s --x509cafile %s >%s.out 2>>%s",
		Installed(t, "gnutls-serv", "receivers"), port(t, d.Addr), c.Cert, c.Key, c.CA, d.Out, d.Out))
}

// What gnutls-serv says before and behind what it received, and first of all.
var echoHead, echoTail, echoStart = []byte("received cmd: "), []byte("\n*** Processing "), []byte("Echo Server listening")

// Echoed is the lines in what gnutls-serv said; used is how much of it they
// account for, since it may still be in the middle of one.
func Echoed(said []byte) (lines []byte, used int) {
	for {
		at := bytes.Index(said[used:], echoHead)
		if at < 0 {
			return lines, used
		}
		begin := used + at + len(echoHead)
		end := bytes.Index(said[begin:], echoTail)
		if end < 0 {
			return lines, used
		}
		if cut := bytes.Index(said[begin:begin+end], echoStart); cut >= 0 { // it was killed in the middle
			end = cut
		}
		lines = append(lines, said[begin:begin+end]...)
		used = begin + end
	}
}

// NewNcat starts ncat, which asks for no certificate.
func NewNcat(t testing.TB, c Certs) *Receiver {
	t.Helper()
	d := toolDoor(t, "ncat")
	return tool(t, d, fmt.Sprintf("%s --listen --keep-open --recv-only --ssl --ssl-cert %s --ssl-key %s 127.0.0.1 %s >>%s",
		Installed(t, "ncat", "receivers"), c.Cert, c.Key, port(t, d.Addr), d.Out))
}

// NewJava starts a small program on JSSE.
func NewJava(t testing.TB, c Certs) *Receiver {
	t.Helper()
	return ours(t, c, "java", strings.TrimSuffix(Installed(t, "javac", "consumers"), "c")+" -Xmx128m -XX:+UseSerialGC", "Receiver.java")
}

// NewNode starts a small program on Node's tls.
func NewNode(t testing.TB, c Certs) *Receiver {
	t.Helper()
	return ours(t, c, "node", Installed(t, "node", "readers"), "receiver.mjs")
}

// NewPython starts a small program on Python's ssl.
func NewPython(t testing.TB, c Certs) *Receiver {
	t.Helper()
	return ours(t, c, "python", Installed(t, "python3", "arrow"), "receiver.py")
}

// ours is a receiver of a few lines in another language.
func ours(t testing.TB, c Certs, name, command, file string) *Receiver {
	t.Helper()
	d := toolDoor(t, name)
	return tool(t, d, strings.Join([]string{command, Installed(t, "testbed/receivers/"+file, "receivers"), port(t, d.Addr), c.Cert, c.Key, c.CA, d.Out}, " "))
}

func toolDoor(t testing.TB, name string) *Door {
	t.Helper()
	return &Door{Name: name, Addr: harness.FreePort(t), Out: filepath.Join(t.TempDir(), name+".log")}
}

// tool is a receiver with one door that a line of shell starts.
func tool(t testing.TB, d *Door, line string) *Receiver {
	t.Helper()
	r := &Receiver{t: t, name: d.Name, Doors: []*Door{d}}
	r.command = func() *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", "exec "+line)
		if _, err := cmd.StdinPipe(); err != nil { // held open: s_server ends with its input
			t.Fatal(err)
		}
		return cmd
	}
	r.Up()
	return r
}

// Receive is a process of `datasync receive`, ended and started again as a test
// likes: what it answered as read is in its file, through kills too.
type Receive struct {
	t     testing.TB
	addr  string
	certs Certs
	out   string
	*harness.Process
}

// NewReceive starts one with certificates of its own.
func NewReceive(t testing.TB) *Receive {
	t.Helper()
	r := &Receive{t: t, addr: harness.FreePort(t), certs: NewCerts(t), out: filepath.Join(t.TempDir(), "receiver.jsonl")}
	r.Up()
	return r
}

// Up starts it again. The emitters wait for it, so a test need not.
func (r *Receive) Up() {
	r.t.Helper()
	r.Process = harness.Start(r.t, "datasync receive", "receive", "--listen", r.addr,
		"--cert", r.certs.Cert, "--key", r.certs.Key, "--out", r.out)
}

// In puts the receiver into the YAML of sinks: {receiver} and {ca}.
func (r *Receive) In(sinks string) string {
	return strings.NewReplacer("{receiver}", r.addr, "{ca}", r.certs.CA).Replace(sinks)
}

// Out is the file that it writes to.
func (r *Receive) Out() string { return r.out }

// IDs are those of the lines that it wrote.
func (r *Receive) IDs() harness.IDs {
	r.t.Helper()
	ids := harness.IDs{}
	ids.AddLines(r.t, r.out)
	return ids
}
