package exporter

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"datasync/exporter/lane"
	"datasync/exporter/state"
	"datasync/feeds/journal"
)

// reporter is what the service says of itself: an outage once at its
// beginning and once at its end.
type reporter struct {
	log    zerolog.Logger
	notify *notifier // nil: nobody is told

	mu        sync.Mutex
	moves     []move
	poke      chan struct{}
	sinks     map[state.Key]*outage
	trouble   map[string]time.Time
	incidents map[string]int64
}

type move struct {
	key    state.Key
	shard  string
	status lane.Status
}

// outage is what a sink suffers from, from its first shard's failure until all
// its shards run again.
type outage struct {
	shards map[string]bool // those that fail
	since  time.Time
	said   map[string]bool // states with their reasons
}

func newReporter(log zerolog.Logger) *reporter {
	return &reporter{log: log, poke: make(chan struct{}, 1), sinks: map[state.Key]*outage{},
		trouble: map[string]time.Time{}, incidents: map[string]int64{}}
}

// moved takes note of a lane's new state; run says it.
func (r *reporter) moved(k state.Key, shard string, s lane.Status) {
	r.mu.Lock()
	r.moves = append(r.moves, move{k, shard, s})
	r.mu.Unlock()
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

func (r *reporter) run(ctx context.Context) {
	for {
		select {
		case <-r.poke:
			r.say()
		case <-ctx.Done():
			r.say()
			return
		}
	}
}

func (r *reporter) say() {
	r.mu.Lock()
	moves := r.moves
	r.moves = nil
	r.mu.Unlock()
	for _, m := range moves {
		r.sayMove(m)
	}
}

// sayMove says each trouble of an outage once, whichever of its shards show it
// and whatever a retry meets in between, and the outage's end once.
func (r *reporter) sayMove(m move) {
	o := r.sinks[m.key]
	switch m.status.State {
	case lane.Running, lane.Paused:
		if o == nil {
			return
		}
		delete(o.shards, m.shard)
		if len(o.shards) > 0 || m.status.State == lane.Paused { // who paused it knows, and hears when it runs again
			return
		}
		delete(r.sinks, m.key)
	default:
		if o == nil {
			o = &outage{shards: map[string]bool{}, since: time.UnixMilli(m.status.Since), said: map[string]bool{}}
			r.sinks[m.key] = o
		}
		o.shards[m.shard] = true
		what := string(m.status.State) + " " + string(m.status.Class)
		if o.said[what] {
			return
		}
		o.said[what] = true
	}
	if r.notify != nil {
		r.notify.moved(m)
	}
	r.write(m, o)
}

func (r *reporter) write(m move, o *outage) {
	ev := r.log.Warn()
	msg := "the sink is " + string(m.status.State)
	switch m.status.State {
	case lane.Running:
		ev = r.log.Info().Dur("after", time.Since(o.since).Round(time.Millisecond))
		msg = "the sink runs again"
	case lane.Parked:
		ev = r.log.Error()
	}
	if m.status.Class != "" {
		ev = ev.Str("reason", string(m.status.Class))
	}
	if m.status.Message != "" {
		ev = ev.Str("error", m.status.Message)
	}
	ev.Str("tenant", string(m.key.Tenant)).Str("sink", m.key.Sink).Msg(msg)
}

// incident logs what the journal found.
func (r *reporter) incident(i journal.Incident) {
	r.mu.Lock()
	r.incidents[i.What]++
	r.mu.Unlock()
	ev := r.log.Error()
	if i.What == "torn-tail" || i.What == "space-back" {
		ev = r.log.Warn()
	}
	ev = ev.Str("incident", i.What).Str("shard", i.Shard)
	if i.Tenant != "" {
		ev = ev.Str("tenant", string(i.Tenant))
	}
	if i.File != "" {
		ev = ev.Str("file", i.File).Int64("offset", i.Off).Int64("bytes", i.Bytes)
	}
	if i.Events != 0 {
		ev = ev.Int64("events", i.Events)
	}
	ev.Msg(i.Message)
}

// failing logs that what is being done fails, and that it works again.
func (r *reporter) failing(doing string, err error) {
	r.mu.Lock()
	since, was := r.trouble[doing]
	switch {
	case err != nil && !was:
		r.trouble[doing] = time.Now()
	case err == nil && was:
		delete(r.trouble, doing)
	}
	r.mu.Unlock()
	switch {
	case err != nil && !was:
		r.log.Error().Err(err).Msg("cannot " + doing)
	case err == nil && was:
		r.log.Info().Dur("after", time.Since(since)).Msg("can " + doing + " again")
	}
}

// counts are the incidents so far, by kind.
func (r *reporter) counts() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := make(map[string]int64, len(r.incidents))
	for k, v := range r.incidents {
		m[k] = v
	}
	return m
}
