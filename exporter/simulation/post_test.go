package simulation_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"datasync/schemas"
)

// post is one request with events, sent once or, with a key, until it is answered.
type post struct {
	tenant string
	events []*event
	bad    int
	body   string
	key    string
	sent   time.Duration
	// answered is when 200 came; 0: it never did.
	answered time.Duration
	// maybe: an answer was lost, or told of a failure in which something may have been kept.
	maybe bool
}

// mood is what the events of some posts have in common.
type mood uint8

const (
	mixed mood = iota
	minor      // of the least severity: what filters leave out
	apart      // requests, which only full sinks ask for
	moods      // how many there are
)

// burst sends posts side by side.
func (w *world) burst() {
	m := mixed
	if w.plan.rng.IntN(3) == 0 {
		m = mood(w.plan.rng.IntN(int(moods)))
	}
	for range 1 + w.plan.rng.IntN(4) {
		w.post(w.plan.one(w.plan.tenants...), m, []int{3, 20, 60}[w.plan.rng.IntN(3)])
	}
}

// post sends one of most events at most within the next milliseconds.
func (w *world) post(tenant string, m mood, most int) {
	p := w.compose(tenant, m, most)
	after := time.Duration(w.plan.rng.IntN(4000)) * time.Microsecond
	w.posting.Add(1)
	go func() {
		defer w.posting.Done()
		pause(context.Background(), after) // an order of the seed's, not the scheduler's
		p.sent = w.since()
		w.send(p)
	}()
}

func (w *world) compose(tenant string, m mood, most int) *post {
	rng := w.plan.rng
	p := &post{tenant: tenant}
	at := w.now().UnixMilli()
	pad := []int{20, 200, 3000}[rng.IntN(3)]
	var b strings.Builder
	for range 1 + rng.IntN(most) {
		w.made++
		e := &event{id: fmt.Sprintf("e%d", w.made), tenant: p.tenant, kind: schemas.Kind(rng.IntN(int(schemas.KindCount))),
			severity: 1 + rng.IntN(4), ip: fmt.Sprintf("192.0.2.%d", 1+rng.IntN(5)), pad: rng.IntN(pad)}
		switch m {
		case minor:
			e.severity = 1
		case apart:
			e.kind = schemas.KindRequest
		}
		p.events = append(p.events, e)
		b.WriteString(e.line(at))
		if rng.IntN(40) == 0 {
			p.bad++
			b.WriteString("{\"schema\":\"mitigation/1\",\"event_id\":\"bad\"}\n")
		}
	}
	p.body = b.String()
	if rng.IntN(3) == 0 {
		p.key = fmt.Sprintf("key-%d", w.made)
	}
	w.mu.Lock()
	w.posts = append(w.posts, p)
	w.mu.Unlock()
	return p
}

func (w *world) send(p *post) {
	tries := 1
	if p.key != "" {
		tries = 4
	}
	for try := range tries {
		if try > 0 {
			pause(context.Background(), time.Duration(try)*2*time.Second)
		}
		if w.try(p) {
			return
		}
	}
}

// try sends a post once; false: again, where it may be sent again.
func (w *world) try(p *post) bool {
	doubt := w.doubt.Load()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+feedAddress+"/v1/ingest/canonical/"+p.tenant, strings.NewReader(p.body))
	if err != nil {
		w.wrong("%v", err)
		return true
	}
	req.GetBody = nil // net/http does not send it again by itself
	req.Header.Set("Authorization", "Bearer key-of-"+p.tenant)
	if p.key != "" {
		req.Header.Set("Idempotency-Key", p.key)
	}
	resp, err := w.client.Do(req)
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if err != nil {
		p.maybe = true
		w.trace("post %s is not answered", p.events[0].id)
		return false
	}
	w.trace("post %s: %d", p.events[0].id, resp.StatusCode)
	switch resp.StatusCode {
	case http.StatusOK:
		p.answered = w.since()
		var told struct{ Accepted, Rejected int }
		var list struct{ Rejected []json.RawMessage }
		_ = json.Unmarshal(answer, &told)
		_ = json.Unmarshal(answer, &list)
		if told.Accepted != len(p.events) || len(list.Rejected) != p.bad {
			w.wrong("post %s: %d events and %d bad lines were answered with %s", p.events[0].id, len(p.events), p.bad, answer)
		}
		return true
	case http.StatusServiceUnavailable:
		if w.doubt.Load() != doubt || w.doubtful() {
			p.maybe = true
		}
		return false
	}
	w.wrong("post %s: %d %s", p.events[0].id, resp.StatusCode, answer)
	return true
}

// doubtful says that the disk does what it likes just now.
func (w *world) doubtful() bool { return w.disk.Crashed() || w.failing.Load() }

// accepted are the events that were answered with 200, and those that may be there.
func (w *world) accepted() (sure, maybe map[string]*post) {
	sure, maybe = map[string]*post{}, map[string]*post{}
	for _, p := range w.posts {
		for _, e := range p.events {
			switch {
			case p.answered > 0:
				sure[e.id] = p
			case p.maybe:
				maybe[e.id] = p
			}
		}
	}
	return sure, maybe
}

func (w *world) eventsOf(tenant string) map[string]*event {
	all := map[string]*event{}
	for _, p := range w.posts {
		if p.tenant == tenant {
			for _, e := range p.events {
				all[e.id] = e
			}
		}
	}
	return all
}

// admin makes a call of the admin API; "" where it is done.
func (w *world) admin(path string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+adminAddress+path, nil)
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return err.Error()
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	return ""
}

// eventID finds the id in a line.
func eventID(line []byte) string {
	_, rest, _ := strings.Cut(string(line), `"event_id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

func sorted[V any](m map[string]V) []string {
	ks := make([]string, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
