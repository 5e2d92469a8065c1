package redact

import (
	"strings"
	"testing"
)

// TestBrokenRecords: JSON that is cut off is searched as text, and its secrets
// stand there in JSON's shapes all the same.
func TestBrokenRecords(t *testing.T) {
	for raw, want := range map[string]string{
		`{"cs(Cookie)":"sid=PLANTED; b=PLANTED","cut`:                                          `{"cs(Cookie)":"[redacted]","cut`,
		`{"Cookies":{"sid":"PLANTED}","b":["PLANTED"]},"c":1,"cut`:                             `{"Cookies":[redacted],"c":1,"cut`,
		`{"cookies":["a=PLANTED",{"b":"PLANTED]"}],"c":[1],"cut`:                               `{"cookies":[redacted],"c":[1],"cut`,
		`{"Cookies":{"sid":"PLANTED`:                                                           `{"Cookies":[redacted]`,
		`{"cookie":"{PLANTED}","c":"(cookie)","d":{"e":1},"cut`:                                `{"cookie":"[redacted]","c":"(cookie)","d":{"e":1},"cut`,
		`{"payload":"R0VUIC8/cGFzc3dvcmQ9UExBTlRFRCBIVFRQLzEuMQ==","n":1,"cut`:                 `{"payload":"[redacted]==","n":1,"cut`,
		`{"payload":"R0VUIC8\/cGFzc3dvcmQ9UExBTlRFRCBIVFRQ`:                                    `{"payload":"[redacted]`,
		`{"payload":"R0VUIC8/dXNlcj1hbGljZSBIVFRQLzEuMQ==","id":"5376b894b345ad5376b894b345ad`: `{"payload":"R0VUIC8/dXNlcj1hbGljZSBIVFRQLzEuMQ==","id":"5376b894b345ad5376b894b345ad`,
		`{"call(x)":1,"list":{"a":[1]},"cut`:                                                   `{"call(x)":1,"list":{"a":[1]},"cut`,
		`{"log":"{\"Cookies\":{\"sid\":\"PLANTED\"},\"c\":1}","cut`:                            `{"log":"{\"Cookies\":[redacted],\"c\":1}","cut`,
	} {
		got, found := (*Rules)(nil).Record(nil, []byte(raw))
		if string(got) != want || (want != raw) != (len(found) > 0) {
			t.Errorf("%s\n got %s %q\nwant %s", raw, got, found, want)
		}
	}
	// A text of nothing but beginnings takes its share of time, no more.
	long := strings.Repeat(`"cookies":{`, 100_000)
	if got, _ := (*Rules)(nil).Record(nil, []byte(`{`+long)); strings.Count(string(got), "{") > len(long)/1000 {
		t.Errorf("%d bytes are left of %d", len(got), len(long))
	}
}
