package intake

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
	"unicode/utf8"

	"datasync/feeds"
	"datasync/feeds/adapt"
	"datasync/feeds/intake/redact"
	"datasync/schemas"
)

// MaxKept is how many bytes of one bad record are kept: the largest body that
// a feed takes by default, and its reason, fit.
const MaxKept = 12 << 20

// Entry is one record in the quarantine: what could not become an event, or an
// event that a sink will never take.
type Entry struct {
	// ID is the same whenever the same record is read again from the same place.
	ID   string
	Time time.Time
	// Tenant is whose record it is, as far as that is known: "" is nobody's.
	Tenant feeds.TenantID
	// Feed is where it came from; Sink, where set, is the sink that refused it.
	Feed string
	Sink string
	// Format is what Data is written in: the name of a source format.
	Format string
	// Position is the place in the source, Index the event within the record.
	Position string
	Index    int
	Reason   string
	// Count is how many bad values the entry stands for: more than one where a
	// request held very many. They are lines of Data then, or elements of
	// arrays in it, and Reason is the first one's.
	Count int
	// Size is how many bytes the record had. Data holds them, secrets masked;
	// at most MaxKept of them.
	Size int
	Data []byte
	// Redactions names what was masked in Data.
	Redactions []string
	// Of is the entry that was retried and of which this is what still is no event.
	Of string
}

// add masks a rejected value and puts it behind what the entry holds, on a
// line of its own.
func (e *Entry) add(rules *redact.Rules, bad *adapt.Bad) {
	e.Count += 1 + bad.More
	e.Size += len(bad.Data)
	data := bad.Data[:min(len(bad.Data), MaxKept)]
	if bad.More > 0 { // elements of an array stay one, so that a retry finds each
		if all := slices.Concat([]byte{'['}, data, []byte{']'}); schemas.Valid(all) {
			data = all
		}
	}
	if len(e.Data) > 0 {
		e.Data = append(e.Data, '\n')
	}
	var found []string
	e.Data, found = rules.Record(e.Data, bytes.TrimRight(data, "\r\n"))
	for _, f := range found {
		if !slices.Contains(e.Redactions, f) {
			e.Redactions = append(e.Redactions, f)
		}
	}
}

// maskReason masks a reason, which may quote the record.
func maskReason(rules *redact.Rules, reason string) string {
	masked, _ := rules.Record(nil, []byte(reason))
	return string(masked)
}

// entryID names an entry by its place in its source and what stood there, so
// that reading again after a crash gives the same entry. What has no place is
// named at random.
func entryID(e *Entry, hash [sha256.Size]byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s\x00%d\x00", e.Feed, e.Sink, e.Tenant, e.Position, e.Index)
	h.Write(hash[:])
	if e.Of != "" {
		fmt.Fprintf(h, "\x00%s", e.Of)
	} else if e.Position == "" {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
		binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
		h.Write(b[:])
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// stored is the line of an entry in the quarantine's journal.
type stored struct {
	ID         string         `json:"id"`
	Time       int64          `json:"time"` // ms UTC
	Tenant     feeds.TenantID `json:"tenant,omitempty"`
	Feed       string         `json:"feed"`
	Sink       string         `json:"sink,omitempty"`
	Format     string         `json:"format,omitempty"`
	Position   string         `json:"position,omitempty"`
	Index      int            `json:"index,omitempty"`
	Reason     string         `json:"reason"`
	Count      int            `json:"count,omitempty"` // where more than one
	Size       int            `json:"size"`
	Redactions []string       `json:"redactions,omitempty"`
	Of         string         `json:"of,omitempty"`
	Text       string         `json:"text,omitempty"`   // the record, where it is UTF-8
	Base64     string         `json:"base64,omitempty"` // else so
}

// appendEntry appends the entry's line, newline included.
func appendEntry(dst []byte, e *Entry) ([]byte, error) {
	s := stored{ID: e.ID, Time: e.Time.UnixMilli(), Tenant: e.Tenant, Feed: e.Feed, Sink: e.Sink, Format: e.Format,
		Position: e.Position, Index: e.Index, Reason: e.Reason, Size: e.Size, Redactions: e.Redactions, Of: e.Of}
	if e.Count > 1 {
		s.Count = e.Count
	}
	if utf8.Valid(e.Data) {
		s.Text = string(e.Data)
	} else {
		s.Base64 = base64.StdEncoding.EncodeToString(e.Data)
	}
	line, err := json.Marshal(&s)
	if err != nil {
		return dst, fmt.Errorf("quarantine: writing entry %s: %w", e.ID, err)
	}
	return append(append(dst, line...), '\n'), nil
}

// idOf is the id in an entry's line, which begins with it.
func idOf(line []byte) []byte {
	id, _, _ := bytes.Cut(bytes.TrimPrefix(line, []byte(`{"id":"`)), []byte{'"'})
	return id
}

// parseEntry reads what appendEntry wrote.
func parseEntry(line []byte) (Entry, error) {
	var s stored
	if err := json.Unmarshal(line, &s); err != nil {
		return Entry{}, fmt.Errorf("quarantine: reading an entry of %d bytes: %w", len(line), err)
	}
	e := Entry{ID: s.ID, Time: time.UnixMilli(s.Time).UTC(), Tenant: s.Tenant, Feed: s.Feed, Sink: s.Sink, Format: s.Format,
		Position: s.Position, Index: s.Index, Reason: s.Reason, Count: max(s.Count, 1), Size: s.Size, Data: []byte(s.Text), Redactions: s.Redactions, Of: s.Of}
	if s.Base64 != "" {
		data, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil {
			return Entry{}, fmt.Errorf("quarantine: reading entry %s: %w", s.ID, err)
		}
		e.Data = data
	}
	return e, nil
}
