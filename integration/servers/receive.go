package servers

import (
	"path/filepath"
	"strings"
	"testing"

	"datasync/integration/harness"
)

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

// IDs are those of the lines that it wrote.
func (r *Receive) IDs() harness.IDs {
	r.t.Helper()
	ids := harness.IDs{}
	ids.AddLines(r.t, r.out)
	return ids
}
