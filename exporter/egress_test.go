package exporter

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"datasync/exporter/tenants"
)

func TestEgress(t *testing.T) {
	open := newEgress(tenants.Egress{})
	closed := newEgress(tenants.Egress{DenyPrivate: true, Allow: []string{"10.1.0.0/16"}, Deny: []string{"203.0.113.0/24"}})
	for _, c := range []struct {
		address      string
		open, closed bool
	}{
		{"198.51.100.1:443", true, true},
		{"203.0.113.9:443", true, false},
		{"127.0.0.1:6514", true, false},
		{"[::1]:6514", true, false},
		{"10.2.0.1:6514", true, false},
		{"10.1.0.1:6514", true, true},
		{"[64:ff9b::c633:6401]:443", true, true},      // 198.51.100.1 through NAT64
		{"[64:ff9b::a02:1]:443", true, false},         // 10.2.0.1
		{"[2606:4700::6810:1]:443", true, true},       // anybody's
		{"[2001:db8::a9fe:a9fe]:443", true, true},     // holds nothing
		{"[2001:db8:0:5efe:a02:1::]:443", true, true}, // looks like ISATAP in the wrong place
		{"nonsense", false, false},
	} {
		if got := open.control("tcp", c.address, nil) == nil; got != c.open {
			t.Errorf("%s with defaults: reachable %v, want %v", c.address, got, c.open)
		}
		if got := closed.control("tcp", c.address, nil) == nil; got != c.closed {
			t.Errorf("%s with deny_private: reachable %v, want %v", c.address, got, c.closed)
		}
	}
}

// metadata are the addresses by which link-local and metadata services were
// reached elsewhere, in every form that leads to them: the 23 of the list of
// reliability tests, and those that came since.
var metadata = []string{
	"169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23", "169.254.42.42", "169.254.255.255", // AWS, Azure, Google; ECS; EKS; Tencent; Scaleway; the last
	"168.63.129.16", "100.100.100.200", "192.0.0.192", "0.0.0.0", "0.1.2.3", // Azure's wire server, Alibaba, Oracle, this host
	"::", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::a9fe:a9fe", "::ffff:0:a9fe:a9fe", "::ffff:168.63.129.16", "::ffff:0.0.0.0", // mapped, compatible, translated
	"64:ff9b::a9fe:a9fe", "64:ff9b::a83f:8110", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::", // NAT64
	"2002:a9fe:a9fe::1", "2002:6464:64c8::", "2001:0:a9fe:a9fe::", "2001::5601:5601", // 6to4, Teredo by its server and by its client
	"2001:db8::5efe:169.254.169.254", "2001:db8::200:5efe:a9fe:a9fe", // ISATAP
	"fe80::1", "fe80::a9fe:a9fe%eth0", "fe80::1234:5678:9abc%1", "febf::1", // link-local, with and without a zone
	"fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::253", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", // AWS, EKS, Google, Oracle, Scaleway
}

func TestMetadataIsRefusedWhateverTheSettingsSay(t *testing.T) {
	for _, settings := range []tenants.Egress{{}, {Allow: []string{"0.0.0.0/0", "::/0"}}, {DenyPrivate: true}} {
		e := newEgress(settings)
		for _, a := range metadata {
			if err := e.control("tcp", net.JoinHostPort(a, "80"), nil); err == nil || !strings.Contains(err.Error(), "metadata address") {
				t.Errorf("%s with %+v: %v", a, settings, err)
			}
		}
	}
}

// A name that leads to us when it is looked at, and to the metadata service
// when it is dialled, or to both at once, leads nowhere but to us: each
// address is judged as it is dialled.
func TestANameThatIsReboundLeadsNowhere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	us, bad := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("169.254.169.254")
	answers := [][]netip.Addr{{us}, {bad}, {bad, us}, {us, bad}, {bad}}
	var asked, refused atomic.Int32
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go answerDNS(there, func() []netip.Addr { return answers[min(int(asked.Add(1)), len(answers))-1] })
		return here, nil
	}}
	e := newEgress(tenants.Egress{})
	dialer := net.Dialer{Resolver: resolver, Control: func(network, address string, c syscall.RawConn) error {
		err := e.control(network, address, c)
		if err != nil {
			refused.Add(1)
		}
		return err
	}}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for i, addrs := range answers {
		c, err := dialer.DialContext(t.Context(), "tcp4", net.JoinHostPort("rebound.example.", port))
		reached := err == nil
		if reached {
			if got := c.RemoteAddr().String(); got != ln.Addr().String() {
				t.Errorf("look-up %d: connected to %s", i, got)
			}
			_ = c.Close() // nothing was sent
		}
		if want := addrs[0] == us || len(addrs) > 1; reached != want {
			t.Errorf("look-up %d, %v: reached %v (%v)", i, addrs, reached, err)
		}
	}
	if refused.Load() < 2 || int(asked.Load()) != len(answers) {
		t.Errorf("%d look-ups, %d addresses refused", asked.Load(), refused.Load())
	}
}

// answerDNS answers one question over a stream (RFC 1035, 4.2.2) with A records.
func answerDNS(c net.Conn, addresses func() []netip.Addr) {
	defer c.Close()
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return
	}
	q := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, q); err != nil {
		return
	}
	end := 12
	for q[end] != 0 {
		end += int(q[end]) + 1
	}
	end += 5                          // the root, type and class
	r := append([]byte{}, q[:end]...) // without what the question has added
	addrs := addresses()
	copy(r[2:], []byte{0x81, 0x80, 0, 1, 0, byte(len(addrs)), 0, 0, 0, 0})
	for _, a := range addrs {
		v4 := a.As4()
		r = append(append(r, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), v4[:]...)
	}
	_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(r))), r...)) // a reader that has gone wants it no more
}
