package adapt

import (
	"strings"
	"testing"
)

func TestRealTimeLines(t *testing.T) {
	line := strings.TrimRight(readFile(t, "cloudfront_realtime.tsv"), "\n")
	all := line + strings.Join([]string{"", "-", "-", "text/html", "919", "-", "-", "51324", "ClientGeoBlocked", "DE", "gzip", "*/*", "*", "-", "Host", "1", "E1", "d1.cloudfront.net", "-", "-", "64500", "cmcd", "-"}, "\t")
	out := run(t, "cloudfront", line+"\r\n\n"+all+"\n"+strings.Join(strings.Split(line, "\t")[:12], "\t")+"\n")
	lines := out.lines()
	if len(lines) != 3 || len(out.Bad) != 0 || out.Events[2].Index != 2 {
		t.Fatalf("%v %+v", lines, out.Bad)
	}
	for _, want := range []string{`"client_port":51324`, `"client_country":"DE"`, `"client_asn":64500`, `"disposition":"blocked"`, `"reason":"ClientGeoBlocked"`, `"action_raw":"ClientGeoBlocked"`, `"field-46":"cmcd"`, `"cs-header-names":"Host"`} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("%s is not in %s", want, lines[1])
		}
	}
	if !strings.Contains(lines[2], `"http_status":403`) || strings.Contains(lines[2], "duration_ms") {
		t.Errorf("the first fields alone: %s", lines[2])
	}
}

// TestLinesOfAnotherOrderAreRefused: a value in the place of another is worse
// than none.
func TestLinesOfAnotherOrderAreRefused(t *testing.T) {
	cols := strings.Split(strings.TrimRight(readFile(t, "cloudfront_realtime.tsv"), "\n"), "\t")
	cols[rtCookie] = "session=abc"
	for at := range cols {
		if at >= rtFirst-2 {
			break // what is cut off at the end shifts nothing
		}
		shifted := append(append([]string{}, cols[:at]...), cols[at+1:]...)
		out := run(t, "cloudfront", strings.Join(shifted, "\t"))
		if strings.Contains(string(out.Arena), "session=abc") {
			t.Errorf("without %s the cookie is read as something else: %s", cloudfrontRealTime[at], out.Arena)
		}
		if len(out.Bad) > 0 && !strings.Contains(out.Bad[0].Reason, "order") {
			t.Errorf("%+v", out.Bad)
		}
	}
	for _, line := range []string{"hello", "1795309107.174", "1795309107.174\t-", strings.Repeat("x\t", 200), "{\"a\""} {
		if out := run(t, "cloudfront", line); len(out.Events) != 0 || len(out.Bad) != 1 {
			t.Errorf("%q: %s", line, out.Arena)
		}
	}
}

func TestStandardLines(t *testing.T) {
	const head = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header time-taken\n"
	out := run(t, "cloudfront", head+"2026-11-22\t00:58:27\tFRA56-P9\t919\t203.0.113.7\tGET\td1.cloudfront.net\t/a\t200\t-\tcurl/8\tq=1\ts=1\tHit\tid==\tShop.example.com\t0.1234\n")
	if len(out.Events) != 1 {
		t.Fatalf("%+v", out.Bad)
	}
	line := out.lines()[0]
	for _, want := range []string{`"http_host":"shop.example.com"`, `"http_path":"/a"`, `"http_query":"q=1"`, `"duration_ms":123.4`, `"time_precision":"s"`, `"cs(Host)":"d1.cloudfront.net"`} {
		if !strings.Contains(line, want) {
			t.Errorf("%s is not in %s", want, line)
		}
	}
}

func TestCloudFrontIDs(t *testing.T) {
	in := input(readFile(t, "cloudfront_realtime.tsv"))
	in.ID = ""
	var out Output
	cloudfront(in, &out)
	if len(out.Events) != 1 || !strings.Contains(out.lines()[0], `"event_id":"cfr:kGd0exampleRequestIdAbCdEf=="`) {
		t.Errorf("%s %+v", out.Arena, out.Bad)
	}
}

func FuzzCloudFront(f *testing.F) {
	f.Add(readFile(f, "cloudfront_realtime.tsv"))
	f.Add(readFile(f, "cloudfront_standard_v2.json"))
	f.Add("#Fields: date time c-ip cs(Cookie) x\n2026-11-22\t00:58:27\t203.0.113.7\ta=b\t\x01\xff\n")
	f.Add("1795309107.174\t203.0.113.7\n1795309107.174\t203.0.113.7\t\xe2\x80\xa8\n{}\n")
	fuzzCDN(f, "cloudfront")
}

func BenchmarkCloudFrontRealTime(b *testing.B) {
	benchmarkFormat(b, "cloudfront", readFile(b, "cloudfront_realtime.tsv"), 1)
}

func BenchmarkCloudFrontStandard(b *testing.B) {
	benchmarkFormat(b, "cloudfront", readFile(b, "cloudfront_standard_v2.json"), 1)
}
