package tenants

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"datasync/exporter/tenants/conf"
	"datasync/feeds"
)

// loader builds settings from checked values. It remembers what is costly to
// make, so that ten thousand tenants with the same filter share one.
type loader struct {
	refs      conf.Refs
	problems  Problems
	filters   map[string]*Filter
	schedules map[[2]string]Schedule
	pems      map[[2]string]error
}

func newLoader(refs conf.Refs) *loader {
	return &loader{
		refs: refs, filters: map[string]*Filter{},
		schedules: map[[2]string]Schedule{}, pems: map[[2]string]error{},
	}
}

func (l *loader) tell(at conf.Pos, format string, args ...any) {
	l.problems = append(l.problems, at.Problem(format, args...))
}

// filter compiles src once.
func (l *loader) filter(src string) (*Filter, error) {
	if f := l.filters[src]; f != nil {
		return f, nil
	}
	f, err := CompileFilter(src)
	if err == nil {
		l.filters[src] = f
	}
	return f, err
}

// schedule compiles a schedule once.
func (l *loader) schedule(spec, zone string) (Schedule, error) {
	if s := l.schedules[[2]string{spec, zone}]; s != nil {
		return s, nil
	}
	s, err := CompileSchedule(spec, zone)
	if err == nil {
		l.schedules[[2]string{spec, zone}] = s
	}
	return s, err
}

// pem remembers the outcome of reading files.
func (l *loader) pem(a, b string, read func() error) error {
	at := [2]string{a, b}
	err, known := l.pems[at]
	if !known {
		err = read()
		l.pems[at] = err
	}
	return err
}

// pair checks the files that cert and key name: they exist, parse, and belong
// together.
func (l *loader) pair(o *conf.Value) {
	cert, key := o.Str("cert"), o.Str("key")
	switch {
	case cert == "" && key == "":
		return
	case key == "":
		l.tell(o.At("cert"), "cert needs key: the PEM file of the certificate's key")
		return
	case cert == "":
		l.tell(o.At("key"), "key needs cert: the PEM file of the key's certificate")
		return
	}
	for _, name := range []string{"cert", "key"} {
		path := o.Str(name)
		if err := l.pem(path, "", func() error { _, err := os.Stat(path); return err }); err != nil {
			l.tell(o.At(name), "%s: cannot read %s: %s", name, path, reason(err))
			return
		}
	}
	err := l.pem(cert, key, func() error { _, err := tls.LoadX509KeyPair(cert, key); return err })
	if err != nil {
		l.tell(o.At("cert"), "%s and %s are no certificate and its key: %s", cert, key, strings.TrimPrefix(err.Error(), "tls: "))
	}
}

// authorities checks the file of certificates that a key names.
func (l *loader) authorities(o *conf.Value, name string) {
	path := o.Str(name)
	if path == "" {
		return
	}
	err := l.pem(path, "ca", func() error {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("cannot read %s: %s", path, reason(err))
		}
		if !x509.NewCertPool().AppendCertsFromPEM(data) {
			return fmt.Errorf("%s holds no PEM certificate", path)
		}
		return nil
	})
	if err != nil {
		l.tell(o.At(name), "%s: %v", name, err)
	}
}

var clientTLSKeys = conf.NewObject(conf.Object{Name: "tls", Keys: []conf.Key{
	{Name: "ca", Type: conf.String(), DefaultDoc: "the system's roots", Doc: "PEM file of the authorities that the peer's certificate may come from"},
	{Name: "cert", Type: conf.String(), Doc: "PEM file of the client's certificate"},
	{Name: "key", Type: conf.String(), Doc: "PEM file of its key"},
	{Name: "server_name", Type: conf.String(), DefaultDoc: "the host of the address", Doc: "name that the peer's certificate must hold"},
	{Name: "min_version", Type: conf.Enum("1.2", "1.3"), Default: "1.2", Doc: "least version of TLS"},
}})

func (l *loader) clientTLS(o *conf.Value) ClientTLS {
	l.pair(o)
	l.authorities(o, "ca")
	c := ClientTLS{CA: o.Str("ca"), Cert: o.Str("cert"), Key: o.Str("key"), ServerName: o.Str("server_name"), MinVersion: tls.VersionTLS12}
	if o.Str("min_version") == "1.3" {
		c.MinVersion = tls.VersionTLS13
	}
	return c
}

var awsKeys = []conf.Key{
	{Name: "region", Type: conf.String(), DefaultDoc: "AWS_REGION", Doc: "AWS region"},
	{Name: "endpoint", Type: urlType, DefaultDoc: "AWS's own", Doc: "URL of another endpoint"},
	{Name: "role_arn", Type: roleType, Doc: "role to assume"},
	{Name: "external_id", Type: conf.String(), Doc: "external id to assume it with"},
}

func aws(o *conf.Value) AWS {
	return AWS{Region: o.Str("region"), Endpoint: o.Str("endpoint"), RoleARN: o.Str("role_arn"), ExternalID: o.Str("external_id")}
}

const nameForm = `^[a-z0-9][a-z0-9_-]{0,62}$`

// The shapes of text.
var (
	nameType = conf.String().Pattern(nameForm).Where("a name", func(s string) error {
		if feeds.ValidName(s) {
			return nil
		}
		return fmt.Errorf("%q is no name; use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit", s)
	})
	listenType = conf.String().Where("host:port", func(s string) error {
		_, port, err := net.SplitHostPort(s)
		if err != nil || !validPort(port, true) {
			return fmt.Errorf("%q is no address to listen on; write host:port, as 127.0.0.1:8088", s)
		}
		return nil
	})
	hostPortType = conf.String().Where("host:port", func(s string) error {
		host, port, err := net.SplitHostPort(s)
		switch {
		case strings.Contains(s, "://"):
			return fmt.Errorf("%q is a URL; write host:port alone", s)
		case err != nil && !strings.Contains(s, ":"):
			return fmt.Errorf("%q has no port; write host:port, as %s:6514", s, s)
		case err != nil || host == "" || !validPort(port, false):
			return fmt.Errorf("%q is no address; write host:port, as siem.example:6514, and an IPv6 address in [ ]", s)
		}
		return nil
	})
	prefixType = conf.String().Where("an address or prefix", func(s string) error {
		if _, ok := prefixOf(s); !ok {
			return fmt.Errorf("%q is no address or prefix; write one as 10.0.0.0/8 or 192.0.2.1", s)
		}
		return nil
	})
	urlType = conf.String().Where("a URL", func(s string) error {
		u, err := url.Parse(s)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			return errors.New("this is no URL; write one as https://host/path")
		case u.User != nil:
			return errors.New("the URL holds a user or password, which would be shown; remove it")
		}
		return nil
	})
	roleType = conf.String().Where("a role's ARN", func(s string) error {
		if p := strings.SplitN(s, ":", 6); len(p) == 6 && p[0] == "arn" && p[2] == "iam" && strings.HasPrefix(p[5], "role/") {
			return nil
		}
		return fmt.Errorf("%q is no role; write its ARN, as arn:aws:iam::123456789012:role/name", s)
	})
	globType = conf.String().Where("a path, with * ? [] as wildcards", func(s string) error {
		if _, err := filepath.Match(s, ""); err != nil {
			return fmt.Errorf("%q is no pattern: a [ is not closed; write [[] for a literal one", s)
		}
		return nil
	})
	zoneType = conf.String().Where("a time zone", func(s string) error {
		if _, err := time.LoadLocation(s); err != nil || s == "Local" {
			return fmt.Errorf("unknown time zone %q; use a name of the IANA list, as Europe/London or UTC", s)
		}
		return nil
	})
)

func validPort(s string, zero bool) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && (n > 0 || zero)
}

func prefixOf(s string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

func prefixesOf(list []string) []string {
	var out []string
	for _, s := range list {
		if p, ok := prefixOf(s); ok {
			out = append(out, p.String())
		}
	}
	return out
}

// loopback says whether only this machine reaches a listener.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // told already
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// reason is a file error without the path, which the message names itself.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
