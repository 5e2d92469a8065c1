// Package check tells step by step what is seen when a person has one sink tried out.
package check

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"time"

	"datasync/exporter/lane"
)

// Step is one thing that was tried.
type Step struct {
	Name string
	Seen string // what was seen
	Took time.Duration
	// Note: worth knowing, and nothing that would keep the sink from working.
	Note bool
	// Err is why the sink does not get past this, as its lanes would tell it.
	Err *lane.Error
}

// Run is the trying of one sink. Its steps are made by the code with which the
// sink itself works; what happens on the network on the way is told apart, as
// steps of its own. Do is for one goroutine.
type Run struct {
	tell func(Step)

	mu   sync.Mutex // the hooks of the network come from other goroutines
	last time.Time  // when the last step ended
	told map[string]bool
	// open is what was begun on the network and has not gone well; no name: none.
	open struct {
		name, what string
		seen       string // worth telling where it fails
		since      time.Time
	}
}

// New makes a run that tells each step as it ends.
func New(tell func(Step)) *Run { return &Run{tell: tell, told: map[string]bool{}} }

// Do tries one thing and says whether the sink gets past it. f gives the step
// without name and time. Where the network stood in its way, that is the step
// that failed.
func (r *Run) Do(name string, f func() Step) bool {
	r.mu.Lock()
	r.last, r.open.name = time.Now(), ""
	r.mu.Unlock()
	s := f()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Name, s.Took = name, time.Since(r.last)
	if s.Err != nil && r.open.name != "" {
		s.Name, s.Seen, s.Took = r.open.name, r.open.seen, time.Since(r.open.since)
	}
	r.tell(s)
	return s.Err == nil
}

// Object is a drop by which a store can be tried: its content says what it is.
func Object(key string) *lane.Drop {
	const text = "Data Sync tried out whether it can store objects here (datasync test-sink). This object may be deleted.\n"
	return &lane.Drop{Key: key, ID: "datasync-test/" + key, Body: strings.NewReader(text), Size: int64(len(text)),
		SHA256: sha256.Sum256([]byte(text)), ContentType: "text/plain"}
}

// ObjectKey is a key at which a sink's objects are tried: beside its drops, so
// that what may be done here may be done there, and hidden from readers, who
// pass by names that begin with a dot.
func ObjectKey(prefix, tenant, sink string) string {
	return fmt.Sprintf("%stenant=%s/sink=%s/.datasync-test-%s", prefix, tenant, sink, Token())
}

// Token is what tells one trial from every other.
func Token() string { return strings.ToLower(rand.Text()[:10]) }

// KeyID is an access key's id, as much of it as people tell keys apart by.
func KeyID(id string) string {
	if len(id) < 12 {
		return id[:len(id)/3] + "…"
	}
	return id[:4] + "…" + id[len(id)-4:]
}

// Certificate tells whose a certificate is and how long it is good.
func Certificate(c *x509.Certificate) string {
	text := fmt.Sprintf("%s, issued by %s, ", c.Subject, c.Issuer)
	form := "good until %s (%d days)"
	days, ended := daysLeft(c)
	if ended {
		form = "EXPIRED %s (%d days ago)"
	}
	return text + fmt.Sprintf(form, c.NotAfter.UTC().Format(time.DateOnly), days)
}

// soon is the number of days before its end at which a certificate is worth a note.
const soon = 14

// EndsSoon says that a certificate has expired or will within two weeks.
func EndsSoon(c *x509.Certificate) bool {
	days, ended := daysLeft(c)
	return ended || days < soon
}

func daysLeft(c *x509.Certificate) (days int, ended bool) {
	left := time.Until(c.NotAfter)
	return int(left.Abs() / (24 * time.Hour)), left < 0
}
