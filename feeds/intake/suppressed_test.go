package intake

import (
	"testing"
)

// What a source calls no event is counted and not kept; places of what comes
// behind it are told right.
func TestSuppressedIsCounted(t *testing.T) {
	r := newRig(t, nil)
	req := request("acme",
		`[{"created_at":1795309107,"masked":true},{"created_at":1795309107,"rule_id":"1"},{"rule_id":"no time"}]`,
		`[{"created_at":1795309107,"masked":true},{"created_at":1795309107,"masked":true}]`,
		`[{"created_at":1795309107,"rule_id":"2"},7]`)
	req.Format = "deepfence"
	res := r.submit(t, req)
	if res.Accepted != 2 || res.Suppressed != 3 || len(res.Rejected) != 2 || res.Rejected[0].Index != 2 || res.Rejected[1].Index != 6 {
		t.Errorf("%+v", res)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 7, Accepted: 2, Quarantined: 2, Suppressed: 3}) {
		t.Errorf("%+v", c)
	}
	if len(r.main.events) != 2 || len(r.entries(t)) != 2 {
		t.Errorf("%d events, %d entries", len(r.main.events), len(r.entries(t)))
	}
	// A request of nothing else is counted too, and leaves nothing for the next.
	req = request("acme", `{"event_type":"flow"}`)
	req.Format = "suricata"
	if res = r.submit(t, req); res.Accepted+len(res.Rejected) != 0 || res.Suppressed != 1 {
		t.Errorf("%+v", res)
	}
	if res = r.submit(t, request("acme", event("e1", "", ""))); res.Accepted != 1 || res.Suppressed != 0 {
		t.Errorf("%+v", res)
	}
	if c := r.main.feed("edge"); c != (Counts{Read: 9, Accepted: 3, Quarantined: 2, Suppressed: 4}) {
		t.Errorf("%+v", c)
	}
}
