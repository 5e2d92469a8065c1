package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard stands before every handler: it judges Host, token, Origin and
// Content-Type, in that order.
type guard struct {
	token   [sha256.Size]byte // of the token; compared as a hash, so that lengths don't show
	guarded bool
	hosts   map[string]bool // lower case, with a port or without
}

// open are the paths that need no token: what asks for them (a load balancer,
// a kubelet) has none.
var open = map[string]bool{"/healthz": true, "/readyz": true}

func newGuard(o Options) guard {
	g := guard{token: sha256.Sum256([]byte(o.Token)), guarded: o.Token != "", hosts: map[string]bool{}}
	for _, h := range append([]string{o.Listen}, o.Hosts...) {
		g.hosts[strings.ToLower(h)] = true
	}
	if host, port, err := net.SplitHostPort(o.Listen); err == nil && loopback(host) {
		g.addLoopback(port)
	}
	return g
}

// addLoopback takes the names that this machine has for itself.
func (g guard) addLoopback(port string) {
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		g.hosts[net.JoinHostPort(name, port)] = true
	}
}

func (g guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if !g.knows(r) {
			writeError(w, http.StatusMisdirectedRequest,
				"Host "+quote(r.Host)+" is neither the listen address nor in admin.hosts; add it there if this name is meant to reach the service")
			return
		}
		if !open[r.URL.Path] && !g.bears(r) {
			h.Set("WWW-Authenticate", "Bearer")
			writeError(w, http.StatusUnauthorized, "send the admin token: Authorization: Bearer TOKEN (with the datasync command: $DATASYNC_ADMIN_TOKEN)")
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			if status, why := judgeChange(r); status != 0 {
				writeError(w, status, why)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// knows says whether the request was meant for this server. A page of another
// site whose name was made to point here (DNS rebinding) carries its own Host.
func (g guard) knows(r *http.Request) bool {
	host := strings.ToLower(r.Host)
	if g.hosts[host] {
		return true
	}
	name, port, err := net.SplitHostPort(host)
	if err == nil && g.hosts[name] {
		return true
	}
	// Listening on a wildcard or on port 0: the address the connection came in on.
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || err != nil {
		return false
	}
	at, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return false
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if host == at.String() {
		return true
	}
	_, localPort, _ := net.SplitHostPort(local.String())
	return at.Addr().IsLoopback() && port == localPort && loopback(name)
}

func (g guard) bears(r *http.Request) bool {
	if !g.guarded {
		return true
	}
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	// In constant time: guessing it byte by byte teaches nothing.
	return subtle.ConstantTimeCompare(got[:], g.token[:]) == 1
}

// judgeChange keeps other sites' pages from changing anything: a form cannot
// send JSON without asking first, and a browser says where it comes from.
func judgeChange(r *http.Request) (status int, why string) {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return http.StatusForbidden, "Origin " + quote(origin) + " is not this server's; changes are taken from its own pages only"
		}
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return http.StatusUnsupportedMediaType, "a change needs Content-Type: application/json (an empty body will do where nothing has to be said)"
	}
	return 0, ""
}

// loopback says whether a host names this machine to itself. A name other than
// localhost is not looked up: what it points to may change.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
