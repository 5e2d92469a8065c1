package receivers

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"datasync/integration/harness"
)

// shell is a receiver that a line of shell starts; the line is made from the
// address, the port, the file and the certificates.
func shell(t *testing.T, name string, a *authority, line func(addr, port, out string, own pair) string) *server {
	t.Helper()
	dir := t.TempDir()
	d := &door{name: name, addr: harness.FreePort(t), out: filepath.Join(dir, name+".log")}
	s := &server{t: t, name: name, doors: []*door{d}}
	text := "exec " + line(d.addr, port(d.addr), d.out, a.server(time.Hour))
	s.command = func() *exec.Cmd {
		cmd := exec.Command("/bin/sh", "-c", text)
		if _, err := cmd.StdinPipe(); err != nil { // held open: s_server ends with its input
			t.Fatal(err)
		}
		return cmd
	}
	s.up()
	return s
}

// others are receivers that nobody made for logs, and that answer the end of a connection none the less.
func others(t *testing.T, a *authority) []*server {
	t.Helper()
	openssl, socat, stunnel := installed(t, "openssl"), installed(t, "socat"), installed(t, "stunnel")
	backend := harness.FreePort(t)
	behind := filepath.Join(t.TempDir(), "stunnel.log")
	harness.Launch(t, "socat behind stunnel", exec.Command(socat, "-u",
		"TCP-LISTEN:"+port(backend)+",bind=127.0.0.1,reuseaddr,fork", "OPEN:"+behind+",creat,append"))
	harness.Until(t, 10*time.Second, "socat", func() bool {
		c, err := net.DialTimeout("tcp", backend, time.Second)
		if err == nil {
			_ = c.Close() // it was only to see
		}
		return err == nil
	})
	servers := []*server{
		shell(t, "openssl", a, func(addr, _, out string, own pair) string {
			return fmt.Sprintf("%s s_server -quiet -accept %s -cert %s -key %s -CAfile %s -Verify 1 -verify_return_error >>%s",
				openssl, addr, own.cert, own.key, a.ca(), out)
		}),
		shell(t, "socat", a, func(_, port, out string, own pair) string {
			return fmt.Sprintf("%s -u OPENSSL-LISTEN:%s,bind=127.0.0.1,reuseaddr,fork,cert=%s,key=%s,cafile=%s,verify=1 OPEN:%s,creat,append",
				socat, port, own.cert, own.key, a.ca(), out)
		}),
		shell(t, "stunnel", a, func(addr, _, out string, own pair) string {
			return fmt.Sprintf("%s %s", stunnel, write(t, out+".conf", fmt.Sprintf(
				"foreground = yes\npid =\n[lines]\naccept = %s\nconnect = %s\ncert = %s\nkey = %s\nCAfile = %s\nverifyChain = yes\n",
				addr, backend, own.cert, own.key, a.ca())))
		}),
	}
	servers[2].doors[0].out = behind
	return servers
}

// TestOtherReceivers: whoever ends its side when we end ours needs nothing more.
func TestOtherReceivers(t *testing.T) {
	n := events(t)
	a := newAuthority(t, "test CA")
	client := a.client(time.Hour)
	servers := others(t, a)
	sinks := drops
	for _, v := range servers {
		sinks += emitterTo(v.doors[0], mutual(a.ca(), client))
	}
	s := harness.NewService(t, "")
	s.Tenants(1, sinks)
	harness.Run(t, 0, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--tenants", "1", "--seed", "1",
		"--to", filepath.Join(s.Dir, "in", "a.ndjson"))
	s.Up(30 * time.Second)
	s.Delivered(int64(n), 2*time.Minute)
	for _, v := range servers {
		if l := laneOf(t, s, "t0001", v.name); l.Facts["confirm"] != "drain" || l.State != "running" {
			t.Errorf("%s: %+v", v.name, l)
		}
	}
	s.End(false)
	whole := sent(t, s)
	for _, v := range servers {
		ids, torn := v.doors[0].arrived(t, whole)
		if repeats := ids.Want(t, v.name, 1, n, false); repeats > 0 || torn > 0 {
			t.Errorf("%s: %d repeats, %d lines not whole", v.name, repeats, torn)
		}
	}
}
