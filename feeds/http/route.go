package httpfeed

import (
	"net/http"
	"strings"

	"datasync/feeds"
	"datasync/feeds/http/firehose"
)

// prefix is the path below which everything lies.
const prefix = "/v1/ingest"

// formats are the names of contract.md, in its order.
var formats = []string{
	"canonical", "netacea", "threatx", "deepfence", "suricata", "coraza",
	"cloudflare-firewall", "cloudflare-http", "cloudfront", "aws-waf",
}

// known lists the formats that have an adapter.
func known(has func(string) bool) string {
	var names []string
	for _, f := range formats {
		if has(f) {
			names = append(names, f)
		}
	}
	return strings.Join(names, ", ")
}

// route is what a path says.
type route struct {
	format string
	tenant feeds.TenantID
}

// parsePath takes "/v1/ingest[/format[/tenant]]" apart, with or without a
// trailing slash; false for any other path.
func parsePath(path string) (route, bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok || rest != "" && rest[0] != '/' {
		return route{}, false
	}
	rest = strings.TrimSuffix(strings.TrimPrefix(rest, "/"), "/")
	format, tenant, two := strings.Cut(rest, "/")
	if two && (format == "" || tenant == "" || strings.Contains(tenant, "/")) {
		return route{}, false
	}
	return route{format, feeds.TenantID(tenant)}, true
}

// route finds the format and the tenant that a request names, before anything
// of its body is read.
func (f *Feed) route(r *http.Request) (route, *answer) {
	rt, ok := parsePath(r.URL.Path)
	if !ok {
		return rt, problem(http.StatusNotFound, "there is nothing at this path",
			"post to "+prefix+"/{format}/{tenant} or "+prefix+"/{format}")
	}
	if r.Method != http.MethodPost {
		a := problem(http.StatusMethodNotAllowed, "events are taken with POST only, this was "+r.Method, "use POST")
		a.allow = true
		return rt, a
	}
	switch {
	case rt.format == "" && f.o.Format != "":
		rt.format = f.o.Format
	case f.o.Format != "" && rt.format != f.o.Format:
		return rt, problem(http.StatusNotFound, "this feed takes format "+f.o.Format+" only, the path says "+rt.format,
			"post to "+prefix+"/"+f.o.Format)
	case !f.o.Formats(rt.format) && !hasProbe(rt.format):
		return rt, f.unknownFormat(rt.format)
	}
	return rt, nil
}

func (f *Feed) unknownFormat(format string) *answer {
	return problem(http.StatusNotFound, "format "+quoteShort(format)+" is unknown",
		"the path is "+prefix+"/{format}/{tenant}; formats are "+known(f.o.Formats))
}

// keyHeader is where Netacea's plugins put their key.
const keyHeader = "X-Netacea-Api-Key"

// authorize finds out whose events these are: the path's tenant, else the
// feed's, else the key's, else (empty) each event's own; the key must be allowed to.
func (f *Feed) authorize(r *http.Request, rt route) (feeds.TenantID, *answer) {
	want := rt.tenant
	if f.o.Tenant != "" {
		if want != "" && want != f.o.Tenant {
			return "", problem(http.StatusForbidden, "this feed does not take events of tenant "+quoteShort(string(want)), "leave the tenant out of the path, or post to the tenant's own feed")
		}
		want = f.o.Tenant
	}
	owner, found, given := f.owner(r)
	switch {
	case !given:
		return "", problem(http.StatusUnauthorized, "no key was given", "send the tenant's key as \"Authorization: Bearer KEY\", \"Authorization: KEY\", \"X-Netacea-API-Key: KEY\" or \"X-Amz-Firehose-Access-Key: KEY\"")
	case !found:
		return "", problem(http.StatusForbidden, "the key is nobody's", "use one of the api_keys in the tenant's file")
	case owner != "" && want != "" && owner != want:
		// promise: nobody posts as another tenant.
		return "", problem(http.StatusForbidden, "the key is not tenant "+quoteShort(string(want))+"'s", "use that tenant's key, or the path of the key's own tenant")
	case owner != "":
		return owner, nil
	case want != "" && !f.o.Keys.Known(want):
		return "", problem(http.StatusNotFound, "there is no tenant "+quoteShort(string(want)), "tenants are the files in the tenants folder")
	case want == "" && rt.format != "canonical":
		return "", problem(http.StatusBadRequest, "no tenant was named, and events of format "+rt.format+" name none", "post to "+prefix+"/"+rt.format+"/{tenant}")
	}
	return want, nil
}

// owner finds the tenant of the first known key among those a request gives.
func (f *Feed) owner(r *http.Request) (id feeds.TenantID, found, given bool) {
	for _, v := range r.Header["Authorization"] {
		if len(v) > 7 && strings.EqualFold(v[:7], "bearer ") {
			v = v[7:]
		}
		if v = strings.TrimSpace(v); v == "" || strings.EqualFold(v, "bearer") {
			continue
		}
		given = true
		if id, found = f.o.Keys.ByKey(v); found {
			return id, true, true
		}
	}
	for _, header := range [...]string{keyHeader, firehose.AccessKey} {
		for _, v := range r.Header[header] {
			if v = strings.TrimSpace(v); v == "" {
				continue
			}
			given = true
			if id, found = f.o.Keys.ByKey(v); found {
				return id, true, true
			}
		}
	}
	return "", false, given
}
