package lane

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"datasync/exporter/tenants"
	"datasync/formats"
)

// dropKey is the key of a drop (contract.md, "Drops"):
// <prefix>/tenant=<t>/sink=<s>/dt=YYYY-MM-DD/hour=HH/<t>.<s>.<shard>.<number>.<ext>;
// dt and hour are UTC of the cut. It depends on nothing that another machine
// would not know, and two instances never meet on one: the shard's name ends
// with the journal's id.
func dropKey(l *Lane, out *tenants.Output, number uint64, cut int64) string {
	t := time.UnixMilli(cut).UTC()
	return fmt.Sprintf("%stenant=%s/sink=%s/dt=%s/hour=%s/%s.%s.%s.%012d.%s", l.sink.Prefix,
		l.Key.Tenant, l.Key.Sink, t.Format("2006-01-02"), t.Format("15"),
		l.Key.Tenant, l.Key.Sink, l.shard.Name, number, formats.Extension(out.Format, out.Compression))
}

// manifestKey is the key of the manifest beside an object.
func manifestKey(key string, out *tenants.Output) string {
	return strings.TrimSuffix(key, "."+formats.Extension(out.Format, out.Compression)) + ".manifest.json"
}

func contentType(out *tenants.Output) string {
	switch {
	case out.Format == formats.Parquet:
		return "application/vnd.apache.parquet"
	case out.Compression == formats.Gzip:
		return "application/gzip"
	case out.Compression == formats.Zstd:
		return "application/zstd"
	default:
		return "application/x-ndjson"
	}
}

// encoderVersion names the encoders whose bytes a drop was decided with.
func encoderVersion() string { return strconv.Itoa(formats.Version) }
