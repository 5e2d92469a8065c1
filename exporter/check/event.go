package check

import (
	"time"

	"datasync/feeds"
	"datasync/formats"
	"datasync/schemas"
)

// Event is a canonical event, one line, that says of itself that it is a test:
// an audit event that no one need act upon. fields are those that the sink
// sends; none: all.
func Event(tenant feeds.TenantID, fields []string, now time.Time) (line []byte, id string) {
	id = "datasync-test-" + Token()
	ms := now.UnixMilli()
	line = schemas.AppendJSON(nil, &schemas.Event{
		Schema: schemas.Version, EventID: id, TenantID: string(tenant), Source: "datasync", Kind: schemas.KindAudit.String(),
		EventTime: ms, TimePrecision: "ms", IngestTime: ms, Action: "none", Disposition: "logged",
		Reason: "A test of this sink by a person (datasync test-sink); nothing happened.",
		Audit:  schemas.Audit{OK: true, Actor: "datasync test-sink", ObjectType: "sink", Change: "none"},
	})
	if len(fields) > 0 {
		line = formats.Project(nil, line, formats.NewSet(fields))
	}
	return append(line, '\n'), id
}
