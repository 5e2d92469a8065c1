package adapt

// severities are the severities (OCSF, 0 to 5) of actions, for sources that
// give none. What let a visitor pass says little, what asked one to prove
// something a bit more, and what turned one away is worth a look.
var severities = map[string]int8{
	"none": 1, "allow": 1, "log": 1, "count": 1,
	"captcha": 2, "challenge": 2, "interrogate": 2, "redirect": 2,
	"block": 3, "close": 3, "rate_limit": 3, "tarpit": 3,
}

func severity(action string) int8 { return severities[action] }
