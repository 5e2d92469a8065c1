package s3feed

import (
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"datasync/feeds/journal"
)

// FactStore is where it is kept which objects were read, and how far: the facts
// of the shard that Intake appends to. Called concurrently. A fact is to be seen as soon
// as the Submit that carried it returned; PutLater keeps the order of its calls
// and of later commits, and need not be durable on return.
type FactStore interface {
	Fact(key string) ([]byte, bool)
	Facts(prefix string) iter.Seq2[string, []byte]
	PutLater(facts ...journal.Fact)
}

const (
	// donePrefix begins the facts of objects that were read; their ids follow. The value is when.
	donePrefix = "s3/done/"
	// atPrefix begins the facts of objects that were read in part.
	atPrefix = "s3/at/"
)

// Objects that were read are remembered against messages that come again: the
// queue repeats one within its visibility timeout, mostly.
const (
	remembered = 4 * 24 * time.Hour
	maxDone    = 100_000
	// abandoned is how long a part is kept: no queue keeps a message longer.
	abandoned = 15 * 24 * time.Hour
)

// place is how far an object was read: the fact under atPrefix and its id.
type place struct {
	Off    int64  `json:"off"`              // bytes behind the last durable record, decompressed
	Mode   string `json:"mode"`             // of the splitter
	Packed string `json:"packed,omitempty"` // gzip or zstd
	At     int64  `json:"at"`               // ms UTC: when
	State  *state `json:"state,omitempty"`  // of the splitter, within a record that is too long
	Head   string `json:"head,omitempty"`   // the lines that name the fields of those behind them
}

// memory knows what was read and what is being read.
type memory struct {
	facts FactStore
	mu    sync.Mutex
	busy  map[string]bool
	aging []aging // of done, oldest first, near enough
}

type aging struct {
	id string
	at int64
}

func newMemory(facts FactStore) *memory {
	m := &memory{facts: facts, busy: map[string]bool{}}
	for key, value := range facts.Facts(donePrefix) {
		at := int64(0) // unreadable: it goes at the next sweep
		if n := journal.Counts(value); len(n) == 1 {
			at = int64(n[0])
		}
		m.aging = append(m.aging, aging{strings.TrimPrefix(key, donePrefix), at})
	}
	slices.SortFunc(m.aging, func(a, b aging) int { return int(min(max(a.at-b.at, -1), 1)) })
	return m
}

// enter makes the caller the only one who reads an object; false where somebody does.
func (m *memory) enter(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[id] {
		return false
	}
	m.busy[id] = true
	return true
}

func (m *memory) leave(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.busy, id)
}

func (m *memory) done(id string) bool {
	_, ok := m.facts.Fact(donePrefix + id)
	return ok
}

// place is where an object is to be read from.
func (m *memory) place(id string) (p place) {
	if value, ok := m.facts.Fact(atPrefix + id); ok && json.Unmarshal(value, &p) != nil {
		return place{}
	}
	return p
}

func partFact(id string, p place) journal.Fact {
	value, _ := json.Marshal(p) // strings and numbers: it does not fail
	return journal.Fact{Key: atPrefix + id, Value: value}
}

func doneFacts(id string, now time.Time) []journal.Fact {
	return []journal.Fact{{Key: donePrefix + id, Value: journal.AppendCounts(nil, uint64(now.UnixMilli()))}, {Key: atPrefix + id}}
}

// age notes that an object was read, and forgets those that are old, or too many.
func (m *memory) age(id string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.aging = append(m.aging, aging{id, now.UnixMilli()})
	m.forget(now)
}

func (m *memory) forget(now time.Time) {
	n := 0
	for n < len(m.aging) && (len(m.aging)-n > maxDone || now.UnixMilli()-m.aging[n].at >= remembered.Milliseconds()) {
		m.facts.PutLater(journal.Fact{Key: donePrefix + m.aging[n].id})
		n++
	}
	m.aging = slices.Delete(m.aging, 0, n)
}

// sweep forgets what is old, parts that nobody came back for too.
func (m *memory) sweep(now time.Time) {
	m.mu.Lock()
	m.forget(now)
	m.mu.Unlock()
	for key, value := range m.facts.Facts(atPrefix) {
		var p place
		if json.Unmarshal(value, &p) != nil || now.UnixMilli()-p.At >= abandoned.Milliseconds() {
			m.facts.PutLater(journal.Fact{Key: key})
		}
	}
}
