package redact

import "bytes"

// group is a kind of secret; the built-in ones come first.
type group uint8

const (
	credentials group = iota
	tokens
	cards
	ssns
	ownParams
	ownFields
	ownPatterns
	none
)

type groupSet uint8

const allGroups = groupSet(1<<credentials | 1<<tokens | 1<<cards | 1<<ssns)

var groupNames = [...]string{"credentials", "tokens", "card_numbers", "ssn", "query_params", "fields", "patterns"}

func parseGroup(name string) (group, bool) {
	for g := credentials; g <= ssns; g++ {
		if groupNames[g] == name {
			return g, true
		}
	}
	return none, false
}

// maxName bounds the names that are compared; a longer one is no secret's.
const maxName = 64

// secretNames are parameter, header and member names whose values are secrets,
// in lower case without punctuation. The names of Netacea's session cookie and
// of the header lists of CDN logs stand here too: a record that could not be
// adapted still must not reach the quarantine with them.
var secretNames = map[string]group{
	"password": credentials, "passwd": credentials, "pwd": credentials, "pass": credentials,
	"passphrase": credentials, "passcode": credentials, "secret": credentials, "apikey": credentials,
	"authorization": credentials, "proxyauthorization": credentials, "auth": credentials,
	"credential": credentials, "credentials": credentials, "privatekey": credentials,
	"secretkey": credentials, "accesskey": credentials, "accesskeyid": credentials,
	"awsaccesskeyid": credentials, "xamzcredential": credentials, "otp": credentials,
	"cookie": credentials, "cookies": credentials, "setcookie": credentials, "cscookie": credentials,
	"netaceauseridcookie": credentials, "mitatacaptcha": credentials,

	"token": tokens, "tokens": tokens, "jwt": tokens, "bearer": tokens, "sig": tokens,
	"xamzsignature": tokens, "csrf": tokens, "xsrf": tokens, "samlresponse": tokens,
	"assertion": tokens, "codeverifier": tokens, "phpsessid": tokens, "jsessionid": tokens,
	"aspnetsessionid": tokens, "connectsid": tokens, "sessionkey": tokens,

	"cardnumber": cards, "creditcard": cards, "creditcardnumber": cards, "ccnumber": cards,
	"ccnum": cards, "cardno": cards, "cvv": cards, "cvv2": cards, "cvc": cards,

	"ssn": ssns, "socialsecuritynumber": ssns, "socialsecurity": ssns,
}

var secretEndings = []struct {
	end string
	g   group
}{
	{"password", credentials}, {"passwd", credentials}, {"pwd", credentials}, {"passphrase", credentials},
	{"secret", credentials}, {"apikey", credentials}, {"secretkey", credentials}, {"privatekey", credentials},
	{"accesskey", credentials}, {"token", tokens}, {"tokenhint", tokens},
}

// headerNames take the rest of the line as their value.
var headerNames = map[string]bool{
	"authorization": true, "proxyauthorization": true, "cookie": true, "setcookie": true, "xamzsecuritytoken": true,
}

// bare writes name in lower case without punctuation into buf; of a name with
// brackets ("user[password]") only the last part. Empty: too long, or nothing left.
func bare(buf *[maxName]byte, name []byte) []byte {
	name = bytes.TrimRight(name, "]")
	if i := bytes.LastIndexByte(name, '['); i >= 0 {
		if i+1 < len(name) {
			name = name[i+1:]
		} else {
			name = bytes.TrimRight(name[:i], "]")
			name = name[bytes.LastIndexByte(name, '[')+1:]
		}
	}
	// "user[password]x": what stands behind a bracket is a name of its own, as
	// it is to the gate, which looks at the last word only.
	name = name[bytes.LastIndexByte(name, ']')+1:]
	n := 0
	for _, c := range name {
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
		default:
			continue
		}
		if n == len(buf) {
			return nil
		}
		buf[n] = c
		n++
	}
	return buf[:n]
}

// secretName finds the group of a name; none where it names no secret.
func secretName(name []byte) (g group, header bool) {
	if len(name) < 3 || len(name) > maxName {
		return none, false
	}
	var buf [maxName]byte
	b := bare(&buf, name)
	if g, ok := secretNames[string(b)]; ok {
		return g, headerNames[string(b)]
	}
	for _, e := range secretEndings {
		if len(b) > len(e.end) && string(b[len(b)-len(e.end):]) == e.end {
			return e.g, headerNames[string(b)]
		}
	}
	if bytes.Contains(b, []byte("password")) || bytes.Contains(b, []byte("passwd")) {
		return credentials, false
	}
	return none, false
}

// idName says that a member's value is an id or an address, which are never
// searched for patterns.
func idName(name []byte) bool {
	var buf [maxName]byte
	b := bare(&buf, name)
	for _, end := range []string{"id", "ids", "ip", "uuid", "guid", "hash", "sha256", "md5", "fingerprint", "ja3", "ja4", "arn", "address", "timestamp"} {
		if len(b) >= len(end) && string(b[len(b)-len(end):]) == end {
			return true
		}
	}
	return false
}
