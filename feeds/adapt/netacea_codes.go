package adapt

import "strings"

// outcome is what a decision means in canonical words.
type outcome struct {
	action, disposition string
	enforced            bool
}

// netaceaCaptcha and netaceaMitigate are the rows of the normalisation table
// (events.md); a captcha's word counts before the mitigation's.
var (
	netaceaCaptcha = map[string]outcome{
		"captcha_serve":      {"captcha", "captcha_served", true},
		"captcha_cookiefail": {"captcha", "captcha_served", true},
		"captcha_fail":       {"captcha", "captcha_failed", true},
		"captcha_pass":       {"captcha", "captcha_passed", true},
		"captcha_cookiepass": {"allow", "bypassed", false},
	}
	netaceaMitigate = map[string]outcome{
		"blocked":     {"block", "blocked", true},
		"hardblocked": {"block", "blocked", true},
		"block":       {"block", "blocked", true},
		"flagged":     {"block", "blocked", true},
		"allow":       {"allow", "allowed", true},
		"monetised":   {"redirect", "redirected", true},
	}
	netaceaMatch = map[string]string{
		"ua": "ua", "ip": "ip", "visitor": "visitor", "datacenter": "datacenter", "sev": "sev",
		"organisation": "organisation", "asn": "asn", "country": "country", "combination": "combination",
		"headerFP": "header_fp",
	}
)

// decision reads the status string: match and mitigation, then a comma and the
// captcha's.
func (n *netaceaLog) decision() {
	e := &n.e
	e.ActionRaw = n.status
	switch n.status {
	case "":
		e.Kind, e.Action, e.Disposition = "request", "none", "allowed"
		return
	case "error_open":
		e.Kind, e.Action, e.Disposition = "request", "none", "fail_open"
		e.Reason = "error_open"
		if n.protectorStatus != "" && n.protectorStatus != "200" {
			e.Reason = "protector_" + n.protectorStatus
		}
		return
	}
	e.Kind = "mitigation"
	decided, captcha, _ := strings.Cut(n.status, ",")
	match, mitigate := "", decided
	if i := strings.LastIndexByte(decided, '_'); i >= 0 {
		match, mitigate = decided[:i], decided[i+1:]
	}
	e.MatchOn = netaceaMatch[match]
	o, ok := netaceaCaptcha[captcha]
	if captcha == "" {
		if o, ok = netaceaMitigate[mitigate]; !ok {
			o, ok = netaceaCaptcha[decided]
		}
	}
	if !ok { // a code that the table does not know stays in action_raw
		o = outcome{"none", "allowed", false}
	} else if e.Mode == "inject" || e.Mode == "ingest" {
		o.disposition, o.enforced = "detected", false // the origin was told, the visitor was not
	}
	e.Action, e.Disposition, e.Enforced = o.action, o.disposition, o.enforced
}
