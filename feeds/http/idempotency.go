package httpfeed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"datasync/feeds/intake"
	"datasync/feeds/journal"
)

// remembered is how long an answer is given again.
const remembered = 10 * time.Minute

// maxKey bounds an Idempotency-Key in bytes.
const maxKey = 1024

// digest stands for a key of a tenant, or for a body.
type digest [16]byte

// kept is the fact "idem/<feed>/<digest of tenant and key>".
type kept struct {
	At     int64           `json:"at"`   // ms UTC
	Body   string          `json:"body"` // digest of format and body, hex
	Answer json.RawMessage `json:"answer"`
}

// appendKept appends the fact's value: what kept decodes.
func appendKept(b []byte, at int64, body digest, res *intake.Result) []byte {
	b = append(b, `{"at":`...)
	b = strconv.AppendInt(b, at, 10)
	b = append(b, `,"body":"`...)
	b = hex.AppendEncode(b, body[:])
	b = append(b, `","answer":`...)
	return append(appendResult(b, res), '}')
}

// memory knows which keys are under way and when those kept are to go.
type memory struct {
	prefix string
	facts  FactStore
	mu     sync.Mutex
	busy   map[digest]chan struct{} // closed when the request with the key ended
	aging  []aging                  // oldest first, near enough
}

type aging struct {
	key digest
	at  int64 // ms UTC
}

// load takes over what an earlier feed of the same name kept.
func (m *memory) load(facts FactStore, feed string) {
	m.prefix, m.facts, m.busy = "idem/"+feed+"/", facts, map[digest]chan struct{}{}
	for name, value := range facts.Facts(m.prefix) {
		var key digest
		if n, err := hex.Decode(key[:], []byte(name[len(m.prefix):])); err != nil || n != len(key) {
			continue // not ours
		}
		var k kept
		if json.Unmarshal(value, &k) != nil {
			k.At = 0 // unreadable: it goes at the next sweep
		}
		m.aging = append(m.aging, aging{key, k.At})
	}
	slices.SortFunc(m.aging, func(a, b aging) int { return int(min(max(a.at-b.at, -1), 1)) })
}

func (m *memory) fact(key digest) string { return m.prefix + hex.EncodeToString(key[:]) }

// enter makes the caller the only one with this key until it calls leave, or
// gives the channel that is closed when the one before it left.
func (m *memory) enter(key digest) (wait <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.busy[key]; c != nil {
		return c
	}
	m.busy[key] = make(chan struct{})
	return nil
}

func (m *memory) leave(key digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.busy[key])
	delete(m.busy, key)
}

// recall finds the answer that was given to a key, if it still counts.
func (m *memory) recall(key digest, now time.Time) (kept, bool) {
	value, ok := m.facts.Fact(m.fact(key))
	var k kept
	if !ok || json.Unmarshal(value, &k) != nil || now.UnixMilli()-k.At >= remembered.Milliseconds() {
		return kept{}, false
	}
	return k, true
}

// age remembers to forget a key.
func (m *memory) age(key digest, at int64) {
	m.mu.Lock()
	m.aging = append(m.aging, aging{key, at})
	m.mu.Unlock()
}

// sweep deletes the facts whose time is up. The key is held meanwhile, so that a
// request that uses it anew comes before or after, never between.
func (m *memory) sweep(now time.Time) {
	before := now.Add(-remembered).UnixMilli()
	for {
		m.mu.Lock()
		if len(m.aging) == 0 || m.aging[0].at > before {
			m.mu.Unlock()
			return
		}
		a := m.aging[0]
		m.aging = m.aging[1:]
		m.mu.Unlock()
		if m.enter(a.key) != nil {
			m.age(a.key, now.UnixMilli()) // it is in use this moment: look again later
			continue
		}
		if _, valid := m.recall(a.key, now); !valid {
			m.facts.PutLater(journal.Fact{Key: m.fact(a.key)})
		}
		m.leave(a.key)
	}
}

// once answers a request with an Idempotency-Key: the first with the key and the
// body is submitted, others get its answer.
func (q *request) once(name string) *answer {
	if len(name) > maxKey {
		return problem(http.StatusBadRequest, "the Idempotency-Key is longer than 1024 bytes", "use a UUID")
	}
	key, body := digestOf(string(q.tenant), []byte(name)), digestOf(q.format, q.body)
	f := q.f
	for {
		wait := f.answered.enter(key)
		if wait == nil {
			break
		}
		select { // not on the request's context: it also ends when ReadGrace is over
		case <-wait:
		case <-f.work.Done():
			return stopping()
		}
	}
	defer f.answered.leave(key)
	if old, ok := f.answered.recall(key, f.o.Now()); ok {
		if old.Body != hex.EncodeToString(body[:]) {
			return problem(http.StatusUnprocessableEntity, "this Idempotency-Key came with another body within the last 10 minutes, nothing was kept", "use a new key for each body")
		}
		return q.again(old)
	}
	q.names.begin(hex.AppendEncode(append(q.names.buf[:0], "Idempotency-Key "...), key[:]))
	at := f.o.Now().UnixMilli()
	remember := false
	// promise: what is answered and what is kept are in one commit, so that
	// neither a crash nor a retry takes the events twice.
	a := q.submit(func(res *intake.Result) []journal.Fact {
		if res.Accepted == 0 {
			return nil // nothing to protect, and a mended body may come with the same key
		}
		remember = true
		return []journal.Fact{{Key: f.answered.fact(key), Value: appendKept(nil, at, body, res)}}
	})
	if remember {
		f.answered.age(key, at)
	}
	return a
}

// again gives the answer that was kept, once intake has counted the repeat.
func (q *request) again(old kept) *answer {
	f := q.f
	var res struct {
		Accepted   int               `json:"accepted"`
		Rejected   []json.RawMessage `json:"rejected"`
		More       int               `json:"rejected_more"`
		Suppressed int               `json:"suppressed"`
	}
	if err := json.Unmarshal(old.Answer, &res); err != nil {
		return f.refused(fmt.Errorf("the answer kept for this Idempotency-Key: %w", err))
	}
	if counter, ok := f.o.Intake.(Repeater); ok {
		if err := counter.Repeat(f.work, res.Accepted+len(res.Rejected)+res.More+res.Suppressed); err != nil {
			return f.refused(err)
		}
	}
	f.counts.replayed.Add(1)
	return &answer{status: http.StatusOK, body: bytes.Clone(old.Answer)}
}

// digestOf hashes two parts; the length of the first keeps them apart.
func digestOf(what string, data []byte) (d digest) {
	h := sha256.New()
	fmt.Fprintf(h, "%d:", len(what))
	_, _ = io.WriteString(h, what) // a hash does not fail
	_, _ = h.Write(data)
	copy(d[:], h.Sum(nil))
	return d
}
