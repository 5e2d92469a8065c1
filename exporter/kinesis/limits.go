package kinesis

// What one PutRecords call and one record may be. Sources: the service's API
// reference for PutRecords, the developer guide's "Quotas and limits", and the
// guide's "KPL aggregated record format".
const (
	// maxRecords is the service's limit of records a call.
	maxRecords = 500
	// maxCall is how many bytes of data and keys go into a call. The service
	// takes 10 MiB since October 2025; 5 MiB, its limit before, is what every
	// region and every server that speaks the protocol takes, and no slower.
	maxCall = 5 << 20
	// maxRecord is a record's data and key together: the limit of a stream
	// that was not set to take larger ones (UpdateMaxRecordSize: up to 10 MiB).
	maxRecord = 1 << 20
	// maxKey is how long a partition key may be: 256 characters for the service,
	// 256 bytes for us, which is never more.
	maxKey = 256
	// maxAggregate is where an aggregated record ends: two of the 25 KB units
	// that the service charges a put by; the KPL's default too.
	maxAggregate = 51200
	// maxCalls is how many calls one sink has under way at once.
	maxCalls = 4
)
