package intake

import (
	"strings"
	"testing"

	"datasync/feeds"
)

// TestCookiesOfCDNsReachNoQuarantine: a log that cannot become an event, broken
// or whole, waits without the cookies and headers in it.
func TestCookiesOfCDNsReachNoQuarantine(t *testing.T) {
	header := `"headers":[{"name":"Cookie","value":"sid=PLANTED"},{"name":"authorization","value":"Basic PLANTED"}]`
	line := "4795309107.174\t203.0.113.7\t0.002\t403\t919\tGET\thttps\tshop.example.com\t/\t78\tFRA56-P9\tid==\td1.cloudfront.net\t0.002\tHTTP/2.0\tIPv4\tcurl\t-\tsid=PLANTED\t-\tError\t-\tTLSv1.3\tX\tError"
	for format, records := range map[string][]string{
		"aws-waf":         {`{"timestamp":"never","httpRequest":{` + header + `}}`, `{"timestamp":1795309107123,"httpRequest":{` + header + `},"cut`},
		"cloudflare-http": {`{"Cookies":{"sid":"PLANTED"},"RequestHeaders":{"cookie":"PLANTED","authorization":"Basic PLANTED"}}`, `{"Cookies":{"sid":"PLANTED"},"RequestHeaders":{"cookie":"PLANTED"},"cut`},
		"cloudfront":      {`{"cs(Cookie)":"sid=PLANTED","cs-cookie":"sid=PLANTED"}`, `{"cs(Cookie)":"sid=PLANTED","cut`, line, strings.Replace(line, "\t403", "", 1)},
	} {
		for _, record := range records {
			r := newRig(t, nil)
			res := r.submit(t, &Request{Format: format, Tenant: "acme", Records: func(yield func(feeds.Record) bool) { yield(feeds.Record{Value: []byte(record)}) }})
			if res.Accepted != 0 || len(res.Rejected) != 1 {
				t.Errorf("%s: %+v of %s", format, res, record)
			}
			if kept := r.bad.all(); strings.Contains(kept, "PLANTED") || len(kept) < len(record)/2 {
				t.Errorf("%s\nis kept as %s", record, kept)
			}
		}
	}
}
