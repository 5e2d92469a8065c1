package exporter

import (
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
		{"169.254.169.254:80", false, false},
		{"[::ffff:169.254.169.254]:80", false, false},
		{"[64:ff9b::a9fe:a9fe]:80", false, false},
		{"[2002:a9fe:a9fe::1]:80", false, false},
		{"[::a9fe:a9fe]:80", false, false},
		{"[fd00:ec2::254]:80", false, false},
		{"168.63.129.16:80", false, false},
		{"[fe80::1%eth0]:80", false, false},
		{"0.0.0.0:80", false, false},
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
