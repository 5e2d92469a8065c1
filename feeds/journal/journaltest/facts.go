package journaltest

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"datasync/feeds/journal"
)

// MemoryFacts are the facts of a shard in memory, as a feed's tests need them. The
// zero MemoryFacts is ready; it is safe for concurrent use.
type MemoryFacts struct {
	mu  sync.Mutex
	all map[string][]byte
}

// PutLater puts facts at once; one without a value is gone.
func (m *MemoryFacts) PutLater(facts ...journal.Fact) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string][]byte{}
	}
	for _, f := range facts {
		if f.Value == nil {
			delete(m.all, f.Key)
		} else {
			m.all[f.Key] = slices.Clone(f.Value)
		}
	}
}

// Fact gives the value of a fact.
func (m *MemoryFacts) Fact(key string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.all[key]
	return v, ok
}

// Facts gives the facts whose keys begin with prefix, as they are now.
func (m *MemoryFacts) Facts(prefix string) iter.Seq2[string, []byte] {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := maps.Clone(m.all)
	return func(yield func(string, []byte) bool) {
		for k, v := range all {
			if strings.HasPrefix(k, prefix) && !yield(k, v) {
				return
			}
		}
	}
}
