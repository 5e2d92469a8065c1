package cloud

import (
	"fmt"
	"sync"
	"time"
)

// Trouble tells of an outage once for each class of reason, whoever of a feed
// meets it, and once when nobody is in trouble any more. It is safe for
// concurrent use.
type Trouble struct {
	prefix, allow string
	on            func(error)
	grace         time.Duration // of what mostly passes

	mu      sync.Mutex
	failing map[string]string    // party → class
	first   map[string]time.Time // class → when it was first met in this outage
	said    map[string]bool      // class
	since   time.Time
}

// grace is how long a throttled or broken call may be tried again before it is worth a word.
const grace = 15 * time.Second

// NewTrouble makes one whose messages begin with prefix; allow is what the
// identity must be allowed, for a hint.
func NewTrouble(prefix, allow string, on func(error)) *Trouble {
	return &Trouble{prefix: prefix, allow: allow, on: on, grace: grace, failing: map[string]string{}, first: map[string]time.Time{}, said: map[string]bool{}}
}

// Tell takes note that a party failed, or with nil that it is well. It gives
// the class.
func (t *Trouble) Tell(party string, err error) string {
	class, hint := Judge(err, t.allow)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err == nil:
		delete(t.failing, party)
		t.over()
		return ""
	case class == "":
		return ""
	}
	if len(t.failing) == 0 {
		t.since = time.Now()
	}
	t.failing[party] = class
	if t.first[class].IsZero() {
		t.first[class] = time.Now()
	}
	if !t.said[class] && (!passing(class) || time.Since(t.first[class]) >= t.grace) {
		t.said[class] = true
		t.on(fmt.Errorf("%s: %w (%s)", t.prefix, Brief(err), hint))
	}
	return class
}

func (t *Trouble) over() {
	if len(t.failing) > 0 {
		return
	}
	clear(t.first)
	if len(t.said) == 0 {
		return
	}
	clear(t.said)
	t.on(fmt.Errorf("%s: all is well again after %v", t.prefix, time.Since(t.since).Round(time.Millisecond)))
}
