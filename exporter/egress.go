package exporter

import (
	"fmt"
	"net/netip"
	"syscall"

	"datasync/exporter/tenants"
)

// never are the addresses that no sink may reach, whatever the settings say:
// link-local and the metadata services that answer without a password. They
// are judged on the address actually dialled, after DNS.
var never = prefixes("169.254.0.0/16", "fe80::/10", "168.63.129.16/32", "fd00:ec2::254/128", "100.100.100.200/32", "192.0.0.192/32", "0.0.0.0/8", "::/128")

// private are the ranges that deny_private closes.
var private = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "::1/128", "fc00::/7")

// embedding are ranges whose addresses hold an IPv4 address: what they lead to
// is judged too. The number is the byte at which it starts.
var embedding = map[netip.Prefix]int{
	netip.MustParsePrefix("64:ff9b::/96"): 12, // NAT64, RFC 6052
	netip.MustParsePrefix("2002::/16"):    2,  // 6to4, RFC 3056
	netip.MustParsePrefix("::/96"):        12, // IPv4-compatible, RFC 4291 2.5.5.1
}

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
	for p, at := range embedding {
		if p.Contains(a) && a != netip.IPv6Loopback() && !a.IsUnspecified() {
			b := a.As16()
			if err := e.judge(netip.AddrFrom4([4]byte(b[at : at+4]))); err != nil {
				return err
			}
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
