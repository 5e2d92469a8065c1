package exporter

import (
	"fmt"
	"net/netip"
	"syscall"

	"datasync/exporter/tenants"
)

// never are the addresses that no sink may reach, whatever the settings say:
// link-local and the metadata services that answer without a password (AWS and
// what lends credentials to its tasks and pods, Azure, Alibaba, Oracle, Google,
// Scaleway). They are judged on the address actually dialled, after DNS.
var never = prefixes("169.254.0.0/16", "fe80::/10", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "0.0.0.0/8", "::/128",
	"fd00:ec2::/32", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "fd00:42::42/128")

// private are the ranges that deny_private closes.
var private = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "::1/128", "fc00::/7", "fec0::/10",
	"192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4")

// embedding are ranges whose addresses hold IPv4 addresses: what they lead to
// is judged too. The numbers are the bytes that hold one.
var embedding = map[netip.Prefix][][4]int{
	netip.MustParsePrefix("64:ff9b::/96"):    {{12, 13, 14, 15}},                // NAT64, RFC 6052
	netip.MustParsePrefix("64:ff9b:1::/48"):  {{12, 13, 14, 15}, {6, 7, 9, 10}}, // a network's own NAT64, RFC 8215: as /96 and as /48
	netip.MustParsePrefix("2002::/16"):       {{2, 3, 4, 5}},                    // 6to4, RFC 3056
	netip.MustParsePrefix("::/96"):           {{12, 13, 14, 15}},                // IPv4-compatible, RFC 4291 2.5.5.1
	netip.MustParsePrefix("::ffff:0:0:0/96"): {{12, 13, 14, 15}},                // IPv4-translated, RFC 2765
	netip.MustParsePrefix("2001::/32"):       {{4, 5, 6, 7}},                    // Teredo's server, RFC 4380; its client: embedded
}

// embedded are the IPv4 addresses that an IPv6 address leads to.
func embedded(a netip.Addr) (out []netip.Addr) {
	if !a.Is6() || a == netip.IPv6Loopback() || a.IsUnspecified() {
		return nil
	}
	b := a.As16()
	for p, places := range embedding {
		if p.Contains(a) {
			for _, at := range places {
				out = append(out, netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]}))
			}
		}
	}
	switch { // what a range alone does not say
	case teredo.Contains(a): // the client, each bit turned over
		out = append(out, netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}))
	case b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214, below any prefix
		out = append(out, netip.AddrFrom4([4]byte(b[12:])))
	}
	return out
}

var teredo = netip.MustParsePrefix("2001::/32")

func prefixes(texts ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}

// egress decides which addresses a sink's dialer may connect to.
type egress struct {
	denyPrivate bool
	allow, deny []netip.Prefix
}

// newEgress takes the settings, whose ranges were checked when they were read.
func newEgress(e tenants.Egress) egress {
	return egress{denyPrivate: e.DenyPrivate, allow: prefixes(e.Allow...), deny: prefixes(e.Deny...)}
}

// control is for net.Dialer.Control: it sees the address after DNS.
func (e egress) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("egress: %q is no address and port: %w", address, err)
	}
	return e.judge(ap.Addr())
}

func (e egress) judge(a netip.Addr) error {
	a = a.Unmap().WithZone("")
	for _, inner := range embedded(a) {
		if err := e.judge(inner); err != nil {
			return err
		}
	}
	switch {
	case within(never, a):
		return fmt.Errorf("egress: %s is a link-local or metadata address; no sink may reach it", a)
	case within(e.deny, a):
		return fmt.Errorf("egress: %s is in egress.deny", a)
	case within(e.allow, a):
		return nil
	case e.denyPrivate && within(private, a):
		return fmt.Errorf("egress: %s is a private address and egress.deny_private is set; list it in egress.allow to let it be reached", a)
	}
	return nil
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
