// Package adapt turns the bytes of one vendor's record into canonical events: one file per source format, pure.
package adapt

import "datasync/feeds"

// Adapter turns one record into events and bad values of
// Output. It is pure but for ids that nothing determines, keeps
// nothing of its input, and never fails: what it cannot read becomes Bad.
type Adapter func(in *Input, out *Output)

// For gives the adapter of a source format; false where there is none.
func For(format string) (Adapter, bool) {
	switch format {
	case "canonical":
		return canonical, true
	case "netacea":
		return netacea, true
	case "threatx":
		return threatx, true
	case "deepfence":
		return deepfence, true
	case "suricata":
		return suricata, true
	case "coraza":
		return coraza, true
	case "cloudflare-firewall":
		return cloudflareFirewall, true
	case "cloudflare-http":
		return cloudflareHTTP, true
	case "cloudfront":
		return cloudfront, true
	case "aws-waf":
		return awsWAF, true
	}
	return nil, false
}

// Formats names the formats that For knows.
func Formats() []string {
	return []string{
		"canonical", "netacea",
		"threatx", "deepfence", "suricata", "coraza",
		"cloudflare-firewall", "cloudflare-http", "cloudfront", "aws-waf",
	}
}

// Whole says that a record of a format is best what its source handed over at
// once (the body of a request, an object), not each line of it: what belongs
// together lies in different lines. An adapter that gets single lines does with
// them what it can.
func Whole(format string) bool { return format == "cloudflare-firewall" || format == "cloudfront" }

// Input is one record, with what its transport knows about it.
type Input struct {
	// Value is the record: one JSON object, an array of them, or lines (Whole).
	Value []byte
	// Held is the record's (feeds.Record).
	Held bool
	// Tenant is whom the path, key, feed or record key names; an event that
	// names another is Bad. Empty: each event names its own.
	Tenant feeds.TenantID
	// ID, where not empty, makes event ids "<ID>:<index>"; else they are ULIDs.
	ID string
	// Ingest is when the record was taken, ms UTC; it becomes ingest_time.
	Ingest int64
	// Now is the clock, ms UTC: an event_time too far behind it is refused.
	Now int64
}
