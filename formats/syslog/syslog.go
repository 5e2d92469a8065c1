// Package syslog puts RFC 5424 headers before lines and counts their octets, as
// RFC 5425 has it on TLS.
package syslog

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// facilities by number (RFC 5424, table 1), under the names of syslog.conf.
var facilities = []string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news",
	"uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock",
	"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

// What RFC 5424 allows the header's values to be long, in bytes.
const (
	maxHost   = 255
	maxApp    = 48
	maxProcID = 128
	maxMsgID  = 32
)

// Options fills the header. Values are cleaned: what is not printable ASCII
// becomes '_', what is too long is cut.
type Options struct {
	Facility string // a name of syslog.conf; "": local0
	Hostname string // "": this machine's
	AppName  string // "": datasync
	ProcID   string // "": none
	MsgID    string // "": the event's kind
}

// Framer makes frames with one header. For concurrent use.
type Framer struct {
	facility int
	middle   string // " HOST APP PROCID "
	msgID    string // "": the kind
}

// CheckFacility says whether name is a facility, and what would be; "" is.
func CheckFacility(name string) error {
	if name != "" && !slices.Contains(facilities, name) {
		return fmt.Errorf("syslog facility %q is unknown; use one of %s", name, strings.Join(facilities, " "))
	}
	return nil
}

// New makes a framer; only an unknown facility is an error.
func New(o Options) (*Framer, error) {
	if err := CheckFacility(o.Facility); err != nil {
		return nil, err
	}
	if o.Facility == "" {
		o.Facility = "local0"
	}
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname() // without a name the header says "-"
	}
	if o.AppName == "" {
		o.AppName = "datasync"
	}
	f := &Framer{facility: slices.Index(facilities, o.Facility)}
	f.middle = " " + clean(o.Hostname, maxHost) + " " + clean(o.AppName, maxApp) + " " + clean(o.ProcID, maxProcID) + " "
	if o.MsgID != "" {
		f.msgID = clean(o.MsgID, maxMsgID)
	}
	return f, nil
}

// clean makes s a header value of at most n bytes; "-" where it is empty.
func clean(s string, n int) string {
	if s == "" {
		return "-"
	}
	b := []byte(s[:min(len(s), n)])
	for i, c := range b {
		if c <= ' ' || c > '~' {
			b[i] = '_'
		}
	}
	return string(b)
}

// Severities of RFC 5424, table 2, that events come to.
const (
	critical = 2
	failure  = 3
	warning  = 4
	notice   = 5
	info     = 6
)

// priority is the event's severity, OCSF's 0 to 5, on syslog's scale. Where the
// event says 0, unknown, what was done tells: a client that was stopped or
// hindered is worth a notice.
func priority(m Meta) int {
	switch m.Severity {
	case 5:
		return critical
	case 4:
		return failure
	case 3:
		return warning
	case 2:
		return notice
	case 1:
		return info
	}
	switch string(m.Action) {
	case "", "none", "allow", "log", "count":
		return info
	}
	return notice
}

// AppendFrame appends MSG-LEN SP HEADER SP MSG to dst. The message is line
// without its newline, no BOM before it (it would break JSON parsers); m is
// MetaOf of the canonical event, line that event or a view of it.
func (f *Framer) AppendFrame(dst, line []byte, m Meta) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	var room [maxHost + maxApp + maxProcID + maxMsgID + 64]byte
	h := append(room[:0], '<')
	h = strconv.AppendInt(h, int64(f.facility*8+priority(m)), 10)
	h = append(h, ">1 "...)
	h = appendTime(h, m.Time)
	h = append(h, f.middle...)
	switch {
	case f.msgID != "":
		h = append(h, f.msgID...)
	case len(m.Kind) > 0:
		h = append(h, clean(string(m.Kind), maxMsgID)...)
	default:
		h = append(h, '-')
	}
	h = append(h, " - "...) // no structured data: all is in the message
	dst = strconv.AppendInt(dst, int64(len(h)+len(line)), 10)
	dst = append(dst, ' ')
	dst = append(dst, h...)
	return append(dst, line...)
}

// appendTime appends ms since 1970 as a TIMESTAMP; "-" for a time that has none
// of four digits for the year, or is not known.
func appendTime(dst []byte, ms int64) []byte {
	t := time.UnixMilli(ms).UTC()
	if ms <= 0 || t.Year() > 9999 {
		return append(dst, '-')
	}
	return t.AppendFormat(dst, "2006-01-02T15:04:05.000Z")
}
