package intake

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"datasync/feeds"
	"datasync/feeds/adapt"
	"datasync/feeds/intake/redact"
)

// held is a request whose records stay, some with a newline behind them.
func held(tenant feeds.TenantID, values ...string) *Request {
	req := request(tenant, values...)
	recs := slices.Collect(req.Records)
	for i := range recs {
		n := len(recs[i].Value)
		recs[i].Value, recs[i].Held = append(recs[i].Value, "\nbehind it"[:i%3]...)[:n], true
	}
	req.Records = slices.Values(recs)
	return req
}

func TestHeldRecordsBecomeTheSame(t *testing.T) {
	plain := event("e1", "acme", "")
	values := []string{
		plain,
		event("", "acme", ""),
		event("", "", ""),
		strings.Replace(plain, "{", `{"schema":"mitigation/1","ingest_time":7,`, 1),
		" " + plain,
		plain + " \r",
		strings.Replace(plain, `,"kind"`, ` , "kind"`, 1),
		"[" + plain + "," + event("e2", "acme", "") + "]",
		plain + "\n" + plain,
		plain + "\n" + event("e2", "acme", "") + "\n\n rubbish\n" + event("", "acme", "") + " \n" + plain + "\n",
		event("e3", "ghost", ""),
		event("e4", "beta", ""),
		event("e5", "acme", `"http_query":"a=1&password=hunter2"`),
		event("e6", "acme", `"http_path":"/a%20b%3Dc"`),
		event("e7", "acme", `"http_path":"/`+strings.Repeat("x", 300<<10)+`"`),
		`{"source":1}`,
		"rubbish",
		"",
	}
	for name, change := range map[string]func(*Options){
		"trusted": trust, "not trusted": nil,
		"own rules": func(o *Options) {
			trust(o)
			rules, err := redact.Compile(redact.Spec{QueryParams: []string{"a"}})
			if err != nil {
				t.Fatal(err)
			}
			o.Rules = func(feeds.TenantID) *redact.Rules { return rules }
		},
	} {
		for _, tenant := range []feeds.TenantID{"", "acme"} {
			a, b := newRig(t, change), newRig(t, change)
			want, got := a.submit(t, request(tenant, values...)), b.submit(t, held(tenant, values...))
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(b.main.events, a.main.events) || !reflect.DeepEqual(b.entries(t), a.entries(t)) {
				t.Errorf("%s, tenant %q:\n%+v\n%v\n%v\nwant\n%+v\n%v\n%v", name, tenant, got, b.main.events, b.entries(t), want, a.main.events, a.entries(t))
			}
		}
	}
}

func TestHeldRecordsAreNotCopied(t *testing.T) {
	r := newRig(t, trust)
	req := held("", event("e1", "acme", ""))
	rec := slices.Collect(req.Records)[0]
	rec.Value = append(rec.Value, '\n')[:len(rec.Value)]
	b := r.batches.Get().(*batch)
	b.begin(req)
	defer b.end()
	take, _ := adapt.For("canonical")
	b.take(take, &rec)
	if len(b.events) != 1 || len(b.events[0].Rest) == 0 || &b.events[0].Rest[0] != &rec.Value[1] {
		t.Errorf("%+v", b.events)
	}
}
