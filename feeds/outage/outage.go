// Package outage tells an operator of an outage once for each class of reason, whoever of a feed meets it, and once when nobody is in trouble any more.
package outage

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Options of a Teller. Prefix, On and Judge are required.
type Options struct {
	Prefix string      // of every message
	On     func(error) // is told, one call at a time
	// Judge gives the class of an error and what to do about it; "" is none to speak of.
	Judge func(error) (class, hint string)
	// Passing says whether a class is usually over before anybody could do
	// anything: it is worth a word only after Grace. nil: none is.
	Passing func(class string) bool
	Grace   time.Duration
	// Brief shortens an error for people; nil leaves it.
	Brief func(error) error
}

// Teller knows who of a feed is in trouble. It is safe for concurrent use.
type Teller struct {
	o Options

	mu      sync.Mutex
	failing map[string]string    // party → class
	first   map[string]time.Time // class → when it was first met in this outage
	said    map[string]bool      // class
	since   time.Time
}

// New makes a Teller of whom nobody is in trouble.
func New(o Options) *Teller {
	if o.Passing == nil {
		o.Passing = func(string) bool { return false }
	}
	if o.Brief == nil {
		o.Brief = func(err error) error { return err }
	}
	return &Teller{o: o, failing: map[string]string{}, first: map[string]time.Time{}, said: map[string]bool{}}
}

// Tell takes note that a party failed, or with nil that it is well. It gives
// the class.
func (t *Teller) Tell(party string, err error) (class string) {
	class, hint := "", ""
	if err != nil {
		class, hint = t.o.Judge(err)
	}
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
	if !t.said[class] && (!t.o.Passing(class) || time.Since(t.first[class]) >= t.o.Grace) {
		t.said[class] = true
		t.o.On(fmt.Errorf("%s: %w (%s)", t.o.Prefix, t.o.Brief(err), hint))
	}
	return class
}

// Only forgets the parties that are not named: they are another's now.
func (t *Teller) Only(parties []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.failing {
		if !slices.Contains(parties, p) {
			delete(t.failing, p)
		}
	}
	t.over()
}

func (t *Teller) over() {
	if len(t.failing) > 0 {
		return
	}
	clear(t.first)
	if len(t.said) == 0 {
		return
	}
	clear(t.said)
	t.o.On(fmt.Errorf("%s: all is well again after %v", t.o.Prefix, time.Since(t.since).Round(time.Millisecond)))
}
